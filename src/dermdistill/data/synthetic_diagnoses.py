"""What each diagnosis looks like: one painter a class, in the terms of dermatoscopy.

The criteria are in the consensus terms of Kittler et al., J Am Acad Dermatol 2016,
doi:10.1016/j.jaad.2015.12.038. Each class varies from textbook to vague, and neighbours overlap: an
uneven naevus is like an early melanoma.
"""

import math
from collections.abc import Callable

import numpy as np

from dermdistill.data.synthetic_lesion import Outline, Sheet
from dermdistill.data.synthetic_structures import (
    BLACK,
    BLOOD,
    BLUE_BLACK,
    BLUE_GREY,
    BROWN,
    DARK_BROWN,
    GREY_BROWN,
    PINK,
    PURPLE,
    RED,
    TAN,
    WHITE,
    YELLOW,
    globules,
    jitter,
    mix,
    streaks,
    vessels,
)
from dermdistill.data.synthetic_texture import fractal_noise, ridges, soft_step

Painter = Callable[[Sheet], None]


def naevus(sheet: Sheet) -> None:
    """Round, even brown, regular network or globules; now and then pale and dermal, blue, or uneven."""
    rng = sheet.rng
    uneven = rng.beta(1.3, 4)
    sheet.bound(Outline(rng.uniform(0.72, 1), 0.06 + 0.2 * uneven, 0.04 + 0.1 * uneven, rng.uniform(0.08, 0.3)))
    kind = rng.choice(["network", "globules", "even", "dermal", "blue"], p=[0.5, 0.2, 0.15, 0.1, 0.05])
    tone = {"dermal": mix(PINK, TAN, rng.random()), "blue": BLUE_GREY}.get(
        kind, mix(mix(TAN, BROWN, 0.5), DARK_BROWN, rng.beta(1.4, 2))
    )
    strength = rng.uniform(0.6, 0.95)
    sheet.stain(jitter(rng, tone), sheet.inside * np.float32(strength))
    if kind in ("network", "globules", "even"):
        centre = sheet.spot(rng.uniform(0.35, 0.6), offset=0.4 * uneven)
        sheet.stain(DARK_BROWN, sheet.inside * centre * np.float32(rng.uniform(0.0, 0.65)))
        sheet.stain(DARK_BROWN, sheet.inside * sheet.zone(3, 0.9 - 0.6 * uneven) * np.float32(0.15 + 0.6 * uneven))
    if kind == "network":
        lines = sheet.network(disorder=0.25 + 0.4 * uneven, scale=rng.uniform(0.9, 1.3))
        sheet.stain(DARK_BROWN, sheet.inside * lines * np.float32(rng.uniform(0.2, 0.5)))
    if kind == "globules":
        globules(sheet, DARK_BROWN, count=60, within=0.95, size=0.3, opacity=rng.uniform(0.4, 0.75))


def melanoma(sheet: Sheet) -> None:
    """Asymmetric, irregular border, several colours, atypical network, streaks, veil, regression."""
    rng = sheet.rng
    bad = rng.beta(2.2, 1.5)
    sheet.bound(
        Outline(rng.uniform(0.95 - 0.4 * bad, 1), 0.08 + 0.17 * bad, 0.04 + 0.08 * bad, rng.uniform(0.04, 0.22))
    )
    base = mix(mix(TAN, BROWN, rng.random()), DARK_BROWN, rng.beta(1.2, 1.8))
    sheet.stain(jitter(rng, base, 0.08), sheet.inside * np.float32(rng.uniform(0.7, 0.95)))
    lines = sheet.network(disorder=0.4 + 0.4 * bad, scale=rng.uniform(1.0, 1.5))
    sheet.stain(DARK_BROWN, sheet.inside * lines * sheet.zone(2.5, -0.2) * np.float32(rng.uniform(0.2, 0.65)))
    for colour, likelihood in ((DARK_BROWN, 0.8), (TAN, 0.3), (BLACK, 0.65), (mix(RED, BROWN, 0.4), 0.3)):
        if rng.random() < likelihood:
            patch = sheet.zone(2.5, rng.uniform(-0.1, 0.7)) * sheet.spot(0.6, offset=0.2 + 0.5 * bad)
            sheet.stain(jitter(rng, colour), sheet.inside * patch * np.float32(0.35 + 0.85 * bad))
    if rng.random() < 0.15 + 0.55 * bad:
        veil = sheet.zone(2.5, 0.1) * sheet.spot(rng.uniform(0.3, 0.5), offset=0.35)
        sheet.coat(jitter(rng, BLUE_GREY), sheet.inside * veil * np.float32(rng.uniform(0.4, 0.9)))
    if rng.random() < 0.3 * bad:
        scar = sheet.zone(3, 0.2) * sheet.spot(0.4, offset=0.5)
        sheet.coat(mix(WHITE, BLUE_GREY, 0.25), sheet.inside * scar * np.float32(0.7))
    if rng.random() < 0.35 * bad:
        streaks(sheet)


def benign_keratosis(sheet: Sheet) -> None:
    """Stuck-on with a sharp border, milia-like cysts, comedo-like openings, furrows; or a flat lentigo."""
    rng = sheet.rng
    flat = rng.random() < 0.35
    sheet.bound(Outline(rng.uniform(0.6, 1), rng.uniform(0.05, 0.2), rng.uniform(0.02, 0.08), rng.uniform(0.03, 0.12)))
    tones = [TAN, mix(TAN, YELLOW, 0.5), GREY_BROWN, BROWN, DARK_BROWN]
    tone = tones[int(rng.choice(5, p=[0.26, 0.2, 0.26, 0.18, 0.1]))]
    sheet.stain(
        jitter(rng, tone, 0.07),
        sheet.inside * np.float32(rng.uniform(0.45, 0.7) if flat else rng.uniform(0.7, 0.95)),
    )
    sheet.stain(mix(tone, DARK_BROWN, 0.6), sheet.inside * sheet.zone(5, 0.5) * np.float32(rng.uniform(0.2, 0.6)))
    rim = np.exp(-((sheet.depth - np.float32(0.06)) ** 2) / np.float32(0.01))
    sheet.stain(mix(tone, DARK_BROWN, 0.5), sheet.inside * rim * np.float32(rng.uniform(0, 0.45)))
    if flat:
        lines = sheet.network(disorder=0.3, scale=1.1)
        sheet.stain(mix(tone, DARK_BROWN, 0.5), sheet.inside * lines * np.float32(rng.uniform(0.1, 0.4)))
        return
    if rng.random() < 0.6:
        furrows = ridges(rng, sheet.shape, rng.uniform(5, 8))
        sheet.stain(mix(tone, DARK_BROWN, 0.8), sheet.inside * furrows * np.float32(rng.uniform(0.2, 0.6)))
    if rng.random() < 0.75:
        globules(
            sheet,
            mix(WHITE, YELLOW, 0.5),
            int(rng.integers(3, 16)),
            0.85,
            0.28,
            rng.uniform(0.5, 0.9),
            coat=True,
        )
    if rng.random() < 0.7:
        globules(sheet, BLACK, int(rng.integers(3, 14)), 0.85, 0.3, rng.uniform(0.5, 0.9))


def basal_cell_carcinoma(sheet: Sheet) -> None:
    """Pink and pearly, arborising vessels, blue-grey ovoid nests, at times an ulcer."""
    rng = sheet.rng
    sheet.bound(Outline(rng.uniform(0.65, 1), rng.uniform(0.06, 0.2), rng.uniform(0.03, 0.1), rng.uniform(0.1, 0.3)))
    pigmented = rng.beta(1.2, 2)
    sheet.stain(
        jitter(rng, mix(PINK, (0.88, 0.62, 0.62), rng.random())),
        sheet.inside * np.float32(rng.uniform(0.5, 0.95)),
    )
    pearl = sheet.zone(3, 0.3) * sheet.spot(0.5, offset=0.3)
    sheet.coat(WHITE, sheet.inside * pearl * np.float32(rng.uniform(0.1, 0.55)))
    if rng.random() < 0.4 + 0.6 * pigmented:
        count = int(rng.integers(2, 6 + round(12 * pigmented)))
        centres = sheet.scatter(count, 0.85)
        sizes = rng.uniform(0.06, 0.12 + 0.16 * pigmented, (count, 1)) * rng.uniform(0.7, 1.3, (count, 2))
        nests = sheet.discs(centres, sizes, rng.uniform(0.5, 1, count))
        tone = mix(BLUE_GREY, mix(BROWN, BLUE_BLACK, rng.random()), rng.uniform(0, 0.6))
        sheet.coat(jitter(rng, tone), sheet.inside * nests * np.float32(rng.uniform(0.5, 0.9)))
    if rng.random() < 0.8:
        vessels(sheet, trees=int(rng.integers(2, 6)), opacity=rng.uniform(0.35, 0.8))
    if rng.random() < 0.25:
        ulcer = sheet.zone(4, 0) * sheet.spot(0.25, offset=0.3)
        sheet.stain(mix(RED, DARK_BROWN, rng.random()), sheet.inside * ulcer * np.float32(0.9))


def actinic_keratosis(sheet: Sheet) -> None:
    """Ill-defined, red net around pale follicles (strawberry), white-yellow scales; some are pigmented."""
    rng = sheet.rng
    sheet.bound(Outline(rng.uniform(0.6, 1), rng.uniform(0.1, 0.25), rng.uniform(0.08, 0.18), rng.uniform(0.25, 0.5)))
    tone = mix((0.92, 0.68, 0.66), RED, rng.beta(1, 2))
    if rng.random() < 0.35:
        tone = mix(tone, BROWN, rng.uniform(0.4, 1))
    sheet.stain(jitter(rng, tone), sheet.inside * np.float32(rng.uniform(0.55, 0.85)))
    sheet.stain(mix(tone, RED, 0.5), sheet.inside * sheet.zone(5, 0.2) * np.float32(rng.uniform(0.2, 0.6)))
    if rng.random() < 0.7:
        follicles = 1 - sheet.network(disorder=0.6, scale=rng.uniform(1.1, 1.7))
        pale = soft_step(follicles - np.float32(0.75), 0.2) * sheet.zone(3, -0.4)
        sheet.coat(
            mix(WHITE, YELLOW, rng.uniform(0, 0.5)),
            sheet.inside * pale * np.float32(rng.uniform(0.15, 0.5)),
        )
    if rng.random() < 0.75:
        scales = sheet.zone(rng.uniform(7, 12), rng.uniform(0.6, 1.2), 0.2) * sheet.spot(0.6, offset=0.3)
        sheet.coat(
            mix(WHITE, YELLOW, rng.uniform(0, 0.6)),
            sheet.inside * scales * np.float32(rng.uniform(0.5, 1.0)),
        )
    if rng.random() < 0.3:
        globules(sheet, RED, 25, 0.9, 0.14, rng.uniform(0.3, 0.7))


def dermatofibroma(sheet: Sheet) -> None:
    """Central white scar-like patch in a pinkish brown ring with a thin peripheral network."""
    rng = sheet.rng
    sheet.bound(Outline(rng.uniform(0.75, 1), rng.uniform(0.03, 0.12), rng.uniform(0.02, 0.08), rng.uniform(0.25, 0.5)))
    tone = mix(mix(PINK, TAN, rng.uniform(0.2, 1)), BROWN, rng.beta(1.5, 2))
    sheet.stain(jitter(rng, tone), sheet.inside * np.float32(rng.uniform(0.65, 0.95)))
    ring = sheet.inside * (1 - sheet.spot(rng.uniform(0.35, 0.5)))
    sheet.stain(
        mix(BROWN, DARK_BROWN, 0.4),
        ring * sheet.network(0.2, scale=0.85) * np.float32(rng.uniform(0.15, 0.55)),
    )
    if rng.random() < 0.8:
        ragged = 1 + np.float32(0.35) * fractal_noise(rng, sheet.shape, 7)
        patch = sheet.spot(rng.uniform(0.2, 0.42), offset=0.1) * ragged
        sheet.coat(
            jitter(rng, mix(WHITE, PINK, rng.uniform(0.1, 0.9)), 0.03),
            sheet.inside * patch * np.float32(rng.uniform(0.35, 0.95)),
        )


def vascular_lesion(sheet: Sheet) -> None:
    """Sharp red, purple or black lacunae, close together, at times with a whitish veil."""
    rng = sheet.rng
    sheet.bound(
        Outline(rng.uniform(0.65, 1), rng.uniform(0.05, 0.18), rng.uniform(0.02, 0.06), rng.uniform(0.04, 0.18))
    )
    tone = mix(
        mix((0.85, 0.36, 0.42), BLOOD, rng.random()),
        mix(PURPLE, BLUE_BLACK, rng.random()),
        rng.beta(0.8, 1.6),
    )
    sheet.stain(mix(PINK, RED, rng.random()), sheet.inside * np.float32(rng.uniform(0.4, 0.9)))
    count = int(rng.integers(4, 30))
    size = min(0.5, 1.25 / math.sqrt(count))
    sizes = size * rng.uniform(0.6, 1.1, (count, 1)) * rng.uniform(0.8, 1.2, (count, 2))
    lacunae = sheet.discs(sheet.scatter(count, 0.85), sizes, rng.uniform(0.55, 1, count))
    sheet.coat(jitter(rng, tone), sheet.inside * lacunae * np.float32(rng.uniform(0.55, 0.97)))
    sheet.coat(mix(tone, BLUE_BLACK, 0.5), sheet.inside * lacunae * sheet.zone(3, 0.4) * np.float32(0.7))
    if rng.random() < 0.35:
        veil = ridges(rng, sheet.shape, 4) + sheet.zone(3, 0.8)
        sheet.coat(mix(WHITE, tone, 0.4), sheet.inside * veil * np.float32(rng.uniform(0.2, 0.6)))


PAINTERS: dict[str, Painter] = {
    "akiec": actinic_keratosis,
    "bcc": basal_cell_carcinoma,
    "bkl": benign_keratosis,
    "df": dermatofibroma,
    "mel": melanoma,
    "nv": naevus,
    "vasc": vascular_lesion,
}
