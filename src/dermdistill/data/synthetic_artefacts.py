"""What lies over a lesion in a photo and says nothing about it: hair, rulers, ink, dark corners.

Each artefact is drawn with a probability of its own, whatever the diagnosis, from a random stream of its own:
switching one off leaves the rest of the photo as it was.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dermdistill.config import Artefact
from dermdistill.data.synthetic_texture import Field, polylines, soft_step

Points = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, Field], None]


@dataclass(frozen=True)
class _Kind:
    """How often a photo has the artefact, and what draws it into a scene in place."""

    probability: float
    draw: Draw


def add_artefacts(scene: Field, kinds: Sequence[Artefact], key: Sequence[int]) -> None:
    """Draw artefacts over a scene, in place.

    Args:
        scene: float32 [height, width, 3] about [0, 1].
        kinds: which may appear.
        key: non-negative integers that name the photo; the draw depends on them alone.
    """
    for number, (name, kind) in enumerate(ARTEFACTS.items()):
        rng = np.random.default_rng([*key, number])
        if name in kinds and rng.random() < kind.probability:
            kind.draw(rng, scene)


def _cover(scene: Field, colour: Sequence[float], opacity: Field) -> None:
    for channel in range(3):
        band = scene[:, :, channel]
        band += (np.float32(colour[channel]) - band) * opacity


def _curve(start: Points, bend: Points, end: Points) -> Points:
    t = np.linspace(0, 1, 14)[:, None]
    return np.asarray((1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end)


def hair(rng: np.random.Generator, scene: Field) -> None:
    """A few to many thin curved hairs of one colour, mostly lying one way."""
    height, width = scene.shape[:2]
    short = min(height, width)
    count = int(rng.integers(2, 9)) if rng.random() < 0.7 else int(rng.integers(9, 30))
    lie = rng.uniform(0, math.pi)
    lines = []
    for start in rng.random((count, 2)) * (width, height):
        turn, length = lie + rng.normal(0, 0.5), short * rng.uniform(0.25, 1.0)
        end = start + length * np.array([math.cos(turn), math.sin(turn)])
        bend = (start + end) / 2 + rng.normal(0, 0.13 * length, 2)
        lines.append(_curve(start, bend, end))
    widths = short / 120 * rng.uniform(0.4, 1.1) * rng.uniform(0.8, 1.2, count)
    shade = np.array([0.16, 0.10, 0.09]) + rng.uniform(0, 0.25) * np.array([1.0, 0.75, 0.55])
    drawn = polylines((height, width), lines, widths) * np.float32(rng.uniform(0.6, 0.95))
    _cover(scene, shade.tolist(), drawn)


def ruler(rng: np.random.Generator, scene: Field) -> None:
    """Black ticks of a scale along one edge, every fifth longer."""
    height, width = scene.shape[:2]
    short = min(height, width)
    step, edge = short * rng.uniform(0.05, 0.1), int(rng.integers(4))
    along = width if edge % 2 else height
    places = np.arange(rng.uniform(0, step), along, step)
    depths = short * rng.uniform(0.025, 0.05) * np.where(np.arange(len(places)) % 5 == 0, 1.9, 1.0)
    offset, tilt = short * rng.uniform(0, 0.03), rng.normal(0, 0.05)
    ticks = [
        np.array([[offset, place], [offset + depth, place + tilt * depth]])
        for place, depth in zip(places, depths, strict=True)
    ]
    if edge % 2:
        ticks = [tick[:, ::-1] for tick in ticks]
    if edge >= 2:
        ticks = [np.array([width, height]) - tick for tick in ticks]
    drawn = polylines((height, width), ticks, np.full(len(ticks), short / 120 * rng.uniform(0.6, 1.3)))
    _cover(scene, (0.08, 0.07, 0.10), drawn * np.float32(rng.uniform(0.7, 0.95)))


def ink(rng: np.random.Generator, scene: Field) -> None:
    """Stroke of a surgical marker, blue to violet, from the edge of the picture towards the lesion."""
    height, width = scene.shape[:2]
    short = min(height, width)
    lines = []
    for _ in range(int(rng.integers(1, 4))):
        turn = rng.uniform(0, 2 * math.pi)
        out = np.array([math.cos(turn), math.sin(turn)])
        near = np.array([width, height]) / 2 * (1 + out * rng.uniform(0.62, 0.85))
        along = np.array([-out[1], out[0]]) * short * rng.uniform(0.1, 0.35)
        lines.append(_curve(near - along, near + out * short * rng.uniform(-0.1, 0.1), near + along))
    widths = short * rng.uniform(0.012, 0.04) * rng.uniform(0.8, 1.2, len(lines))
    colour = (rng.uniform(0.2, 0.42), rng.uniform(0.15, 0.3), rng.uniform(0.45, 0.65))
    _cover(scene, colour, polylines((height, width), lines, widths) * np.float32(rng.uniform(0.4, 0.85)))


def corners(rng: np.random.Generator, scene: Field) -> None:
    """The round field of the dermatoscope: black beyond a circle that may be off centre."""
    height, width = scene.shape[:2]
    diagonal = math.hypot(width, height) / 2
    x = np.arange(width, dtype=np.float32) - np.float32(width * (0.5 + rng.normal(0, 0.02)))
    y = np.arange(height, dtype=np.float32) - np.float32(height * (0.5 + rng.normal(0, 0.02)))
    distance = np.hypot(x[None, :], y[:, None]) / np.float32(diagonal)
    beyond = soft_step(distance - np.float32(rng.uniform(0.8, 0.97)), rng.uniform(0.01, 0.06))
    _cover(scene, (0.04, 0.03, 0.04), beyond)


ARTEFACTS: dict[Artefact, _Kind] = {
    "hair": _Kind(0.35, hair),
    "ruler": _Kind(0.12, ruler),
    "ink": _Kind(0.06, ink),
    "corners": _Kind(0.22, corners),
}
