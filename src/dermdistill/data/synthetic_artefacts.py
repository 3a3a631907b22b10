"""Artefacts of synthetic photos: how often each lies over a lesion, and how strong (``artefacts.py`` draws them).

Each artefact is drawn with a probability of its own, whatever the diagnosis, from a random stream of its own:
switching one off leaves the rest of the photo as it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dermdistill.config import Artefact
from dermdistill.data.artefacts import draw_corners, draw_hairs, draw_ink, draw_ruler
from dermdistill.data.synthetic_texture import Field

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


def hair(rng: np.random.Generator, scene: Field) -> None:
    """A few to many hairs."""
    count = int(rng.integers(2, 9)) if rng.random() < 0.7 else int(rng.integers(9, 30))
    draw_hairs(rng, scene, count, thickness=(0.4, 1.1), opacity=(0.6, 0.95))


def ruler(rng: np.random.Generator, scene: Field) -> None:
    """A scale close to an edge."""
    draw_ruler(rng, scene, offset=(0, 0.03), depth=(0.025, 0.05), thickness=(0.6, 1.3), opacity=(0.7, 0.95))


def ink(rng: np.random.Generator, scene: Field) -> None:
    """One to three strokes of a surgical marker."""
    draw_ink(rng, scene, int(rng.integers(1, 4)), reach=(0.62, 0.85), width=(0.012, 0.04), opacity=(0.4, 0.85))


def corners(rng: np.random.Generator, scene: Field) -> None:
    """The round field of the dermatoscope."""
    draw_corners(rng, scene, radius=(0.8, 0.97), softness=(0.01, 0.06))


ARTEFACTS: dict[Artefact, _Kind] = {
    "hair": _Kind(0.35, hair),
    "ruler": _Kind(0.12, ruler),
    "ink": _Kind(0.06, ink),
    "corners": _Kind(0.22, corners),
}
