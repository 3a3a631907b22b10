"""Textures for synthetic lesions as arrays: noise, networks, dots and branching lines.

Every random lattice has a size of its own, so that a texture keeps its form at any number of pixels.
"""

import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Field = npt.NDArray[np.float32]
_SUPERSAMPLING = 2


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: float) -> Field:
    """Smooth noise of mean about 0 and deviation about 1.

    Args:
        rng: source of the lattice.
        shape: height and width in pixels.
        cells: lattice cells along the shorter side.

    Returns:
        float32 [height, width].
    """
    scale = cells / min(shape)
    rows, columns = (max(2, round(side * scale) + 1) for side in shape)
    lattice = rng.standard_normal((rows, columns), dtype=np.float32)
    return _enlarge(np.float32(1.35) * lattice, shape)


def _enlarge(lattice: Field, shape: tuple[int, int]) -> Field:
    picture = Image.fromarray(lattice).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(picture, dtype=np.float32)


def fractal_noise(
    rng: np.random.Generator, shape: tuple[int, int], cells: float, octaves: int = 3, gain: float = 0.55
) -> Field:
    """Sum of octaves of ``smooth_noise``, each twice as fine, ``gain`` times as strong; deviation about 1."""
    weights = gain ** np.arange(octaves)
    weights /= np.sqrt((weights**2).sum())
    # Summed on a grid just fine enough for the finest octave and enlarged once: a third of the time.
    shrink = min(1.0, 2 * cells * 2 ** (octaves - 1) / min(shape))
    coarse = (max(2, round(shape[0] * shrink)), max(2, round(shape[1] * shrink)))
    total = np.zeros(coarse, dtype=np.float32)
    for octave, weight in enumerate(weights):
        total += np.float32(weight) * smooth_noise(rng, coarse, cells * 2**octave)
    return _enlarge(total, shape)


def soft_step(values: Field, width: float) -> Field:
    """From 0 to 1 across ``values`` = 0, as a cubic over -width to +width."""
    t = np.clip(values / np.float32(2 * width) + np.float32(0.5), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def honeycomb(rng: np.random.Generator, u: Field, v: Field, spacing: float, disorder: float) -> Field:
    """A net of dark lines around pale holes, as the pigment network of a naevus.

    Three plane waves at 60 degrees have their minima on a honeycomb: cos a + cos b + cos(a + b) is -1.5 at
    its corners and -1 half way along its sides.

    Args:
        rng: source of direction and disorder.
        u: float32 [N, N], coordinate.
        v: float32 [N, N], coordinate.
        spacing: distance of neighbouring holes, in units of ``u``.
        disorder: 0 is regular; 1 displaces lines by about a hole and lets them fade in places.

    Returns:
        float32 [N, N], 0 in the holes to 1 on the lines.
    """
    shape = (u.shape[0], u.shape[1])
    # Never finer than the pixels can carry: lattices beyond that would only be averaged away.
    cells = min(float(np.ptp(u)) / (3 * spacing), min(shape) / 3)
    shift = np.float32(disorder * spacing)
    x, y = u + shift * smooth_noise(rng, shape, cells), v + shift * smooth_noise(rng, shape, cells)
    wave = np.float32(4 * math.pi / (math.sqrt(3) * spacing))
    angle = rng.uniform(0, math.pi)
    a, b = (
        wave * (np.float32(math.cos(turn)) * x + np.float32(math.sin(turn)) * y)
        for turn in (angle, angle + 2 * math.pi / 3)
    )
    lines = np.clip((np.float32(-0.1) - np.cos(a) - np.cos(b) - np.cos(a + b)) / np.float32(1.1), 0, 1)
    fade = 1 + np.float32(0.9 * disorder) * smooth_noise(rng, shape, 4)
    return np.asarray(np.clip(lines * fade, 0, 1), dtype=np.float32)


def ridges(rng: np.random.Generator, shape: tuple[int, int], cells: float) -> Field:
    """Winding ridges: the zero lines of fractal noise. float32 [height, width], 1 on the lines."""
    noise = np.abs(fractal_noise(rng, shape, cells, octaves=2))
    return np.asarray(np.clip(1 - noise / np.float32(0.35), 0, 1), dtype=np.float32)


def _drawing(shape: tuple[int, int]) -> Image.Image:
    return Image.new("L", (shape[1] * _SUPERSAMPLING, shape[0] * _SUPERSAMPLING))


def _coverage(drawing: Image.Image) -> Field:
    small = drawing.reduce(_SUPERSAMPLING)
    return np.asarray(small, dtype=np.float32) / np.float32(255)


def dots(
    shape: tuple[int, int],
    centres: npt.NDArray[np.float64],
    radii: npt.NDArray[np.float64],
    strengths: npt.NDArray[np.float64] | None = None,
) -> Field:
    """Discs with smooth edges.

    Args:
        shape: height and width in pixels.
        centres: [K, 2], x and y in pixels.
        radii: [K] for discs or [K, 2] for ellipses, pixels.
        strengths: [K] in [0, 1]; all 1 where left out.

    Returns:
        float32 [height, width], the share of each pixel that is covered.
    """
    drawing = _drawing(shape)
    pen = ImageDraw.Draw(drawing)
    half = np.broadcast_to(radii if radii.ndim == 2 else radii[:, None], centres.shape)
    boxes = np.concatenate([centres - half, centres + half], axis=1) * _SUPERSAMPLING
    values = np.full(len(centres), 1.0) if strengths is None else strengths
    for box, value in zip(boxes.tolist(), values.tolist(), strict=True):
        pen.ellipse(tuple(box), fill=round(255 * value))
    return _coverage(drawing)


def polylines(shape: tuple[int, int], lines: list[npt.NDArray[np.float64]], widths: npt.NDArray[np.float64]) -> Field:
    """Lines through points.

    Args:
        shape: height and width in pixels.
        lines: each [P, 2], x and y in pixels.
        widths: one a line, pixels; under half a pixel a line is as wide as that and paler instead.

    Returns:
        float32 [height, width], the share of each pixel that is covered.
    """
    drawing = _drawing(shape)
    pen = ImageDraw.Draw(drawing)
    for line, width in zip(lines, (widths * _SUPERSAMPLING).tolist(), strict=True):
        fill = round(255 * min(1.0, width))
        pen.line((line * _SUPERSAMPLING).ravel().tolist(), fill=fill, width=max(1, round(width)), joint="curve")
    return _coverage(drawing)


def branching_lines(
    rng: np.random.Generator, start: npt.NDArray[np.float64], heading: float, length: float, depth: int
) -> list[tuple[npt.NDArray[np.float64], float]]:
    """A tree of winding lines, as arborising vessels.

    Args:
        rng: source of bends and branches.
        start: [2], x and y.
        heading: direction in radians.
        length: of the stem, in the unit of ``start``.
        depth: generations of branches; 0 is the stem alone.

    Returns:
        pairs of points [P, 2] and relative width (1 for the stem, 0.65 times that a generation).
    """
    turns = heading + np.cumsum(rng.normal(0, 0.28, 7))
    steps = np.stack([np.cos(turns), np.sin(turns)], axis=1) * (length / 7)
    points = np.concatenate([start[None], start + np.cumsum(steps, axis=0)])
    tree = [(points, 1.0)]
    if depth == 0:
        return tree
    for _ in range(int(rng.integers(2, 4))):
        knot = int(rng.integers(2, 8))
        side = rng.choice([-1.0, 1.0]) * rng.uniform(0.4, 1.0)
        branch = branching_lines(
            rng, points[knot], float(turns[knot - 1] + side), length * rng.uniform(0.4, 0.7), depth - 1
        )
        tree += [(line, 0.65 * width) for line, width in branch]
    return tree
