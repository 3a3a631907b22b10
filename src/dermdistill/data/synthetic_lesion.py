"""The sheet that a synthetic lesion is painted on: its outline, and layers of colour over it.

A sheet is a square in the lesion's own frame, from -REACH to REACH lesion radii. It is painted once a lesion;
every photo of the lesion is a turned, scaled and shifted view of it.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dermdistill.data.synthetic_texture import Field, dots, fractal_noise, honeycomb, polylines, soft_step

REACH = 1.6
Colour = tuple[float, float, float]
Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Outline:
    """How a lesion is bounded.

    Args:
        aspect: shorter over longer axis.
        lobes: amplitude of two to four broad bulges, in radii: asymmetry.
        notches: amplitude of many small ones, in radii: irregular border.
        softness: half width over which the edge fades, in radii.
    """

    aspect: float
    lobes: float
    notches: float
    softness: float


@dataclass
class Sheet:
    """Paint of one lesion.

    Args:
        rng: source of everything drawn on it.
        side: pixels along each side.
        skin: RGB in [0, 1], of the skin around; pigment multiplies it.
        grain: size of the skin's fine structures (distance of the holes of a network) in lesion radii.
    """

    rng: np.random.Generator
    side: int
    skin: Colour
    grain: float
    u: Field = field(init=False)
    v: Field = field(init=False)
    radius: Field = field(init=False)
    angle: Field = field(init=False)
    depth: Field = field(init=False)
    inside: Field = field(init=False)
    rgb: Field = field(init=False)
    cover: Field = field(init=False)

    def __post_init__(self) -> None:
        axis = ((np.arange(self.side, dtype=np.float32) + 0.5) / self.side * 2 - 1) * np.float32(REACH)
        self.u, self.v = np.meshgrid(axis, axis)
        self.radius = np.hypot(self.u, self.v)
        self.angle = np.arctan2(self.v, self.u)
        self.rgb = np.zeros((self.side, self.side, 3), dtype=np.float32)
        self.cover = np.zeros((self.side, self.side), dtype=np.float32)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.side, self.side

    def bound(self, outline: Outline) -> None:
        """Set ``depth`` (radii inside the edge, negative outside) and ``inside`` (0 to 1 across it)."""
        turns = np.linspace(-math.pi, math.pi, 257)
        edge = 1 / np.sqrt(outline.aspect * np.cos(turns) ** 2 + np.sin(turns) ** 2 / outline.aspect)
        for bulges in (1, 2, 3, 4, 5, 7, 9):
            amplitude = outline.lobes if bulges < 5 else outline.notches
            phase, share = self.rng.uniform(0, 2 * math.pi), self.rng.normal() / math.sqrt(bulges)
            edge += 0.8 * amplitude * share * np.cos(bulges * turns + phase)
        edge = np.clip(edge / math.sqrt(float((edge**2).mean())), 0.45, 1.42)
        at_angle = np.interp(self.angle, turns, edge).astype(np.float32)
        rough = fractal_noise(self.rng, self.shape, 9, octaves=3, gain=0.7) * np.float32(outline.notches)
        window = np.float32(REACH - 0.06) - self.radius
        self.depth = np.minimum(at_angle - self.radius + rough, window)
        self.inside = soft_step(self.depth, outline.softness) * np.clip(window / np.float32(0.1), 0, 1)

    def stain(self, transmittance: Colour, opacity: Field) -> None:
        """A layer of pigment: the skin's colour times ``transmittance``, with ``opacity`` in [0, 1]."""
        self.coat(
            (
                transmittance[0] * self.skin[0],
                transmittance[1] * self.skin[1],
                transmittance[2] * self.skin[2],
            ),
            opacity,
        )

    def coat(self, colour: Colour, opacity: Field) -> None:
        """A layer of a colour of its own (scale, veil, white patch), laid over with ``opacity`` in [0, 1]."""
        share = np.clip(opacity, 0, 1)
        for channel in range(3):
            band = self.rgb[:, :, channel]
            band += (np.float32(colour[channel]) - band) * share
        self.cover += (1 - self.cover) * share

    def weather(self) -> None:
        """Let the paint vary at random as tissue does: in density (skin shows through) and in shade."""
        density = 1 - np.clip(fractal_noise(self.rng, self.shape, 14, gain=0.8) * np.float32(0.12), 0, 0.5)
        shade = 1 + np.float32(0.07) * fractal_noise(self.rng, self.shape, 9, gain=0.9)
        self.cover *= density
        self.rgb *= (density * shade)[:, :, None]

    def zone(self, cells: float, threshold: float, width: float = 0.35) -> Field:
        """Patches where smooth noise (deviation 1) is over ``threshold``: 0 to 1."""
        return soft_step(fractal_noise(self.rng, self.shape, cells, octaves=2) - np.float32(threshold), width)

    def spot(self, reach: float, offset: float = 0.0) -> Field:
        """A Gaussian bump of deviation ``reach`` radii, its centre ``offset`` radii off in any direction."""
        turn = self.rng.uniform(0, 2 * math.pi)
        x, y = np.float32(offset * math.cos(turn)), np.float32(offset * math.sin(turn))
        return np.exp(-((self.u - x) ** 2 + (self.v - y) ** 2) / np.float32(2 * reach**2)).astype(np.float32)

    def network(self, disorder: float, scale: float = 1.0) -> Field:
        """Pigment network of the skin's own grain times ``scale``, see ``honeycomb``."""
        return honeycomb(self.rng, self.u, self.v, self.grain * scale, disorder)

    def scatter(self, count: int, within: float) -> Points:
        """``count`` points at random places of the disc of ``within`` radii: [count, 2], in radii."""
        distance, turn = within * np.sqrt(self.rng.random(count)), self.rng.uniform(0, 2 * math.pi, count)
        return np.stack([distance * np.cos(turn), distance * np.sin(turn)], axis=1)

    def discs(self, centres: Points, radii: Points, strengths: Points | None = None) -> Field:
        """``dots`` with centres and radii in lesion radii."""
        return dots(self.shape, self.pixels(centres), radii * (self.side / (2 * REACH)), strengths)

    def strokes(self, lines: list[Points], widths: Points) -> Field:
        """``polylines`` with points and widths in lesion radii."""
        return polylines(self.shape, [self.pixels(line) for line in lines], widths * (self.side / (2 * REACH)))

    def pixels(self, points: Points) -> Points:
        """From lesion radii to pixels of the sheet."""
        return (points / REACH + 1) * (self.side / 2)
