"""What lies over a lesion in a photograph and says nothing about it: ink, rulers, hair, dark corners, gel bubbles.

Networks read such things as signs of a diagnosis: ink markings lowered the specificity for melanoma from 84% to 46%
(Winkler et al., JAMA Dermatol. 155:1135, 2019), scale bars from 88% to as little as 0% (Winkler et al., Eur. J. Cancer
145:146, 2021). The first half draws into a float scene in place; synthetic lesions and real photographs share it.
The second half draws over a real picture, in five strengths each. All lengths are shares of the picture's shorter side
and no draw depends on the number of pixels: the same generator draws the same artefact at every size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dermdistill.data.synthetic_texture import Field, polylines, soft_step

Points = npt.NDArray[np.float64]
Picture = npt.NDArray[np.uint8]
Range = tuple[float, float]


def _cover(scene: Field, colour: Sequence[float], opacity: Field) -> None:
    for channel in range(3):
        band = scene[:, :, channel]
        band += (np.float32(colour[channel]) - band) * opacity


def _curve(start: Points, bend: Points, end: Points) -> Points:
    t = np.linspace(0, 1, 14)[:, None]
    return np.asarray((1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end)


def draw_hairs(rng: np.random.Generator, scene: Field, count: int, *, thickness: Range, opacity: Range) -> None:
    """Thin curved hairs of one colour, mostly lying one way.

    Args:
        rng: source of all that is random.
        scene: float32 [height, width, 3] about [0, 1], changed in place.
        count: of hairs.
        thickness: range, in 120ths of the shorter side.
        opacity: range, in [0, 1].
    """
    height, width = scene.shape[:2]
    short = min(height, width)
    lie = rng.uniform(0, math.pi)
    lines = []
    for start in rng.random((count, 2)) * (width, height):
        turn, length = lie + rng.normal(0, 0.5), short * rng.uniform(0.25, 1.0)
        end = start + length * np.array([math.cos(turn), math.sin(turn)])
        bend = (start + end) / 2 + rng.normal(0, 0.13 * length, 2)
        lines.append(_curve(start, bend, end))
    widths = short / 120 * rng.uniform(*thickness) * rng.uniform(0.8, 1.2, count)
    shade = np.array([0.16, 0.10, 0.09]) + rng.uniform(0, 0.25) * np.array([1.0, 0.75, 0.55])
    _cover(scene, shade.tolist(), polylines((height, width), lines, widths) * np.float32(rng.uniform(*opacity)))


def draw_ruler(
    rng: np.random.Generator, scene: Field, *, offset: Range, depth: Range, thickness: Range, opacity: Range
) -> None:
    """Black ticks of a scale along one edge, every fifth longer.

    Args:
        rng: source of all that is random.
        scene: float32 [height, width, 3] about [0, 1], changed in place.
        offset: range of the distance from the edge, in shares of the shorter side.
        depth: range of the length of a short tick, in shares of the shorter side.
        thickness: range, in 120ths of the shorter side.
        opacity: range, in [0, 1].
    """
    height, width = scene.shape[:2]
    short = min(height, width)
    step, edge = short * rng.uniform(0.05, 0.1), int(rng.integers(4))
    along = width if edge % 2 else height
    places = np.arange(rng.uniform(0, step), along, step)
    depths = short * rng.uniform(*depth) * np.where(np.arange(len(places)) % 5 == 0, 1.9, 1.0)
    inset, tilt = short * rng.uniform(*offset), rng.normal(0, 0.05)
    ticks = [
        np.array([[inset, place], [inset + length, place + tilt * length]])
        for place, length in zip(places, depths, strict=True)
    ]
    if edge % 2:
        ticks = [tick[:, ::-1] for tick in ticks]
    if edge >= 2:
        ticks = [np.array([width, height]) - tick for tick in ticks]
    drawn = polylines((height, width), ticks, np.full(len(ticks), short / 120 * rng.uniform(*thickness)))
    _cover(scene, (0.08, 0.07, 0.10), drawn * np.float32(rng.uniform(*opacity)))


def draw_ink(
    rng: np.random.Generator, scene: Field, strokes: int, *, reach: Range, width: Range, opacity: Range
) -> None:
    """Strokes of a surgical marker, blue to violet, around the lesion.

    Args:
        rng: source of all that is random.
        scene: float32 [height, width, 3] about [0, 1], changed in place.
        strokes: how many.
        reach: range of their distance from the centre; 1 is the edge.
        width: range, in shares of the shorter side.
        opacity: range, in [0, 1].
    """
    height, across = scene.shape[:2]
    short = min(height, across)
    lines = []
    for _ in range(strokes):
        turn = rng.uniform(0, 2 * math.pi)
        out = np.array([math.cos(turn), math.sin(turn)])
        near = np.array([across, height]) / 2 * (1 + out * rng.uniform(*reach))
        along = np.array([-out[1], out[0]]) * short * rng.uniform(0.1, 0.35)
        lines.append(_curve(near - along, near + out * short * rng.uniform(-0.1, 0.1), near + along))
    widths = short * rng.uniform(*width) * rng.uniform(0.8, 1.2, len(lines))
    colour = (rng.uniform(0.2, 0.42), rng.uniform(0.15, 0.3), rng.uniform(0.45, 0.65))
    _cover(scene, colour, polylines((height, across), lines, widths) * np.float32(rng.uniform(*opacity)))


def draw_corners(rng: np.random.Generator, scene: Field, *, radius: Range, softness: Range) -> None:
    """The round field of the dermatoscope: black beyond a circle that may be off centre.

    Args:
        rng: source of all that is random.
        scene: float32 [height, width, 3] about [0, 1], changed in place.
        radius: range, in half diagonals: 1 only meets the corners, 0.707 touches the edges of a square.
        softness: range of half the width of the border, in half diagonals.
    """
    height, width = scene.shape[:2]
    diagonal = math.hypot(width, height) / 2
    x = np.arange(width, dtype=np.float32) - np.float32(width * (0.5 + rng.normal(0, 0.02)))
    y = np.arange(height, dtype=np.float32) - np.float32(height * (0.5 + rng.normal(0, 0.02)))
    distance = np.hypot(x[None, :], y[:, None]) / np.float32(diagonal)
    _cover(
        scene,
        (0.04, 0.03, 0.04),
        soft_step(distance - np.float32(rng.uniform(*radius)), rng.uniform(*softness)),
    )


def draw_bubbles(rng: np.random.Generator, scene: Field, count: int, *, radius: Range) -> None:
    """Air bubbles in the immersion gel: a rim, bright towards the lamp and dark away from it, and a glint.

    Args:
        rng: source of all that is random.
        scene: float32 [height, width, 3] about [0, 1], changed in place.
        count: of bubbles.
        radius: range, in shares of the shorter side; small ones are the more frequent.
    """
    height, width = scene.shape[:2]
    lamp = rng.uniform(0, 2 * math.pi)
    centres = rng.random((count, 2)) * (width, height)
    radii = min(height, width) * (radius[0] + (radius[1] - radius[0]) * rng.random(count) ** 2)
    for (x, y), size in zip(centres.tolist(), radii.tolist(), strict=True):
        left, top = max(0, math.floor(x - 1.3 * size)), max(0, math.floor(y - 1.3 * size))
        part = scene[top : math.ceil(y + 1.3 * size) + 1, left : math.ceil(x + 1.3 * size) + 1]
        right = (np.arange(part.shape[1], dtype=np.float32) + np.float32(left + 0.5 - x)) / np.float32(size)
        down = (np.arange(part.shape[0], dtype=np.float32) + np.float32(top + 0.5 - y)) / np.float32(size)
        part += _bubble(right[None, :], down[:, None], lamp)[:, :, None]


def _bubble(right: Field, down: Field, lamp: float) -> Field:
    """Light that a bubble of radius 1 at the origin adds or takes, [height, width]."""
    across, along = np.float32(math.cos(lamp)), np.float32(math.sin(lamp))
    distance = np.sqrt(right**2 + down**2)
    towards = (right * across + down * along) / np.maximum(distance, np.float32(1e-3))
    rim = np.exp(-(((distance - np.float32(0.9)) / np.float32(0.11)) ** 2))
    spot = (right - np.float32(0.6) * across) ** 2 + (down - np.float32(0.6) * along) ** 2
    glint = np.exp(-spot / np.float32(0.03))
    inside = soft_step(1 - distance, 0.1)
    light = rim * (np.float32(0.1) + np.float32(0.25) * towards) + np.float32(0.5) * glint + np.float32(0.03) * inside
    return np.asarray(light, dtype=np.float32)


# Over real pictures


@dataclass(frozen=True)
class Hair:
    """Arguments of ``draw_hairs``."""

    count: int
    thickness: Range
    opacity: Range = (0.7, 0.95)


@dataclass(frozen=True)
class Ruler:
    """Arguments of ``draw_ruler``."""

    offset: Range
    depth: Range
    thickness: Range
    opacity: Range = (0.75, 0.95)


@dataclass(frozen=True)
class Ink:
    """Arguments of ``draw_ink``."""

    strokes: int
    reach: Range
    width: Range
    opacity: Range


@dataclass(frozen=True)
class Bubbles:
    """Arguments of ``draw_bubbles``."""

    count: int
    radius: Range


HAIR = (
    Hair(4, (0.4, 0.8)),
    Hair(9, (0.5, 0.9)),
    Hair(16, (0.6, 1.1)),
    Hair(26, (0.7, 1.3)),
    Hair(40, (0.8, 1.5)),
)
RULER = (
    Ruler((0.0, 0.01), (0.02, 0.03), (0.5, 0.8)),
    Ruler((0.0, 0.03), (0.03, 0.04), (0.6, 1.0)),
    Ruler((0.0, 0.06), (0.04, 0.055), (0.8, 1.2)),
    Ruler((0.02, 0.12), (0.05, 0.07), (1.0, 1.4)),
    Ruler((0.05, 0.2), (0.07, 0.09), (1.2, 1.7)),
)
INK = (
    Ink(1, (0.8, 0.95), (0.012, 0.02), (0.4, 0.6)),
    Ink(2, (0.75, 0.9), (0.016, 0.028), (0.45, 0.65)),
    Ink(3, (0.65, 0.85), (0.022, 0.035), (0.5, 0.75)),
    Ink(4, (0.55, 0.8), (0.028, 0.045), (0.6, 0.8)),
    Ink(5, (0.45, 0.75), (0.035, 0.06), (0.7, 0.85)),
)
# Radius of the field in half diagonals.
CORNERS = (0.95, 0.88, 0.81, 0.74, 0.67)
BUBBLES = (
    Bubbles(2, (0.015, 0.04)),
    Bubbles(4, (0.015, 0.05)),
    Bubbles(8, (0.02, 0.065)),
    Bubbles(13, (0.02, 0.08)),
    Bubbles(20, (0.025, 0.1)),
)


def _scene(picture: Picture) -> Field:
    return picture.astype(np.float32) / np.float32(255)


def _picture(scene: Field) -> Picture:
    return np.asarray(np.clip(scene * np.float32(255) + np.float32(0.5), 0, 255), dtype=np.uint8)


def over_with_ink(rng: np.random.Generator, picture: Picture, strength: Ink) -> Picture:
    """Marker strokes over a picture, uint8 [S, S, 3] -> the same."""
    scene = _scene(picture)
    draw_ink(rng, scene, strength.strokes, reach=strength.reach, width=strength.width, opacity=strength.opacity)
    return _picture(scene)


def over_with_ruler(rng: np.random.Generator, picture: Picture, strength: Ruler) -> Picture:
    """A scale over a picture, uint8 [S, S, 3] -> the same."""
    scene = _scene(picture)
    lengths = {"offset": strength.offset, "depth": strength.depth, "thickness": strength.thickness}
    draw_ruler(rng, scene, opacity=strength.opacity, **lengths)
    return _picture(scene)


def over_with_hair(rng: np.random.Generator, picture: Picture, strength: Hair) -> Picture:
    """Hairs over a picture, uint8 [S, S, 3] -> the same."""
    scene = _scene(picture)
    draw_hairs(rng, scene, strength.count, thickness=strength.thickness, opacity=strength.opacity)
    return _picture(scene)


def over_with_corners(rng: np.random.Generator, picture: Picture, radius: float) -> Picture:
    """A round field of view, uint8 [S, S, 3] -> the same."""
    scene = _scene(picture)
    draw_corners(rng, scene, radius=(radius - 0.015, radius + 0.015), softness=(0.01, 0.05))
    return _picture(scene)


def over_with_bubbles(rng: np.random.Generator, picture: Picture, strength: Bubbles) -> Picture:
    """Gel bubbles over a picture, uint8 [S, S, 3] -> the same."""
    scene = _scene(picture)
    draw_bubbles(rng, scene, strength.count, radius=strength.radius)
    return _picture(scene)
