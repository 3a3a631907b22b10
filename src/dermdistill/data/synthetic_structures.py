"""Colours of lesions, and the structures that several diagnoses share: globules, streaks and vessels.

Colours are RGB in the unit range. ``Sheet.stain`` takes one as the share of light that a pigment lets
through, ``Sheet.coat`` as the colour itself.
"""

import math

import numpy as np

from dermdistill.data.synthetic_lesion import Colour, Points, Sheet
from dermdistill.data.synthetic_texture import branching_lines, smooth_noise, soft_step

TAN: Colour = (0.84, 0.71, 0.60)
BROWN: Colour = (0.68, 0.47, 0.40)
DARK_BROWN: Colour = (0.42, 0.26, 0.24)
BLACK: Colour = (0.17, 0.12, 0.14)
PINK: Colour = (0.97, 0.76, 0.78)
RED: Colour = (0.82, 0.42, 0.44)
GREY_BROWN: Colour = (0.62, 0.56, 0.53)
BLUE_GREY: Colour = (0.40, 0.43, 0.52)
BLUE_BLACK: Colour = (0.14, 0.14, 0.21)
PURPLE: Colour = (0.42, 0.14, 0.28)
BLOOD: Colour = (0.64, 0.13, 0.22)
WHITE: Colour = (0.93, 0.84, 0.84)
YELLOW: Colour = (0.86, 0.73, 0.50)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """From the first colour (share 0) to the second (share 1)."""
    one, two = np.asarray(first), np.asarray(second)
    red, green, blue = (one + share * (two - one)).tolist()
    return red, green, blue


def jitter(rng: np.random.Generator, colour: Colour, amount: float = 0.05) -> Colour:
    """The colour with each channel times a random factor of log deviation ``amount``."""
    red, green, blue = (np.asarray(colour) * np.exp(rng.normal(0, amount, 3))).tolist()
    return red, green, blue


def globules(
    sheet: Sheet, colour: Colour, count: int, within: float, size: float, opacity: float, coat: bool = False
) -> None:
    """Small round spots: globules, cysts, openings.

    Args:
        sheet: where to.
        colour: of the spots.
        count: how many.
        within: of how many lesion radii around the centre.
        size: mean radius, relative to the grain of the skin.
        opacity: of the strongest, in [0, 1].
        coat: whether the colour is the spots' own rather than a pigment's.
    """
    rng = sheet.rng
    sizes: Points = size * sheet.grain * rng.uniform(0.6, 1.6, count)
    spots = sheet.discs(sheet.scatter(count, within), sizes, rng.uniform(0.5, 1, count))
    (sheet.coat if coat else sheet.stain)(colour, sheet.inside * spots * np.float32(opacity))


def streaks(sheet: Sheet) -> None:
    """Dark fingers across the border in one sector, as radial streaming and pseudopods."""
    rng = sheet.rng
    count = int(rng.integers(14, 30))
    turns = np.float32(count) * sheet.angle + np.float32(1.5) * smooth_noise(rng, sheet.shape, 5)
    sector = soft_step(np.cos(sheet.angle - np.float32(rng.uniform(-math.pi, math.pi))), 0.5)
    fingers = soft_step(np.cos(turns) - np.float32(0.2), 0.5) * sector
    band = np.exp(-(sheet.depth**2) / np.float32(0.03))
    window = np.clip(sheet.depth + np.float32(0.35), 0, 1)
    sheet.stain(
        mix(DARK_BROWN, BLACK, rng.random()),
        fingers * band * soft_step(window - np.float32(0.15), 0.1) * np.float32(0.7),
    )


def vessels(sheet: Sheet, trees: int, opacity: float) -> None:
    """Arborising vessels: ``trees`` of them, growing inwards from random points."""
    rng = sheet.rng
    lines, widths = [], []
    for start in sheet.scatter(trees, 0.95):
        inward = math.atan2(-start[1], -start[0]) + rng.normal(0, 0.5)
        for line, width in branching_lines(rng, start, inward, rng.uniform(0.7, 1.4), depth=2):
            lines.append(line)
            widths.append(width * rng.uniform(0.1, 0.2) * sheet.grain)
    drawn = sheet.strokes(lines, np.asarray(widths)) * np.clip(sheet.inside * 1.5, 0, 1)
    sheet.stain((0.80, 0.36, 0.40), drawn.astype(np.float32) * np.float32(opacity))
