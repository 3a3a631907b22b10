"""Artefacts over real pictures: what they touch, how much of it, and that size does not move them."""

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from dermdistill.data.artefacts import CORNERS, draw_bubbles, draw_corners, draw_hairs, draw_ink
from dermdistill.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt

Picture = npt.NDArray[np.uint8]
ARTEFACTS = [name for name, kind in CORRUPTIONS.items() if kind.group == "artefact"]
SKIN = (224, 172, 150)


def skin(size: int) -> Picture:
    return np.full((size, size, 3), SKIN, dtype=np.uint8)


def touched(kind: str, severity: int, key: int, size: int = 96) -> npt.NDArray[np.bool_]:
    """Where an artefact changed flat skin by more than a little, bool [size, size]."""
    change = corrupt(skin(size), kind, severity, (key,)).astype(int) - np.array(SKIN)
    return np.asarray(np.abs(change).max(axis=2) > 8)


def test_there_are_five_artefacts() -> None:
    assert ARTEFACTS == ["ink", "ruler", "hair", "corners", "bubbles"]


@pytest.mark.parametrize("kind", ARTEFACTS)
def test_an_artefact_covers_more_of_the_picture_at_each_severity(kind: str) -> None:
    shares = [np.mean([touched(kind, severity, key).mean() for key in range(12)]) for severity in SEVERITIES]
    assert np.all(np.diff(shares) > 0)
    assert 0.0005 < shares[0] < 0.1
    assert 0.02 < shares[-1] < 0.5


@pytest.mark.parametrize("kind", ARTEFACTS)
@pytest.mark.parametrize("severity", [2, 5])
def test_an_artefact_lies_in_the_same_place_at_every_size(kind: str, severity: int) -> None:
    for key in range(4):
        # On a coarse grid, which hides how each size rounds a thin line to pixels.
        pictures = [Image.fromarray(corrupt(skin(size), kind, severity, (key,))) for size in (192, 96)]
        coarse = [np.asarray(one.resize((24, 24), Image.Resampling.BOX)).astype(float) - SKIN for one in pictures]
        assert np.corrcoef(coarse[0].ravel(), coarse[1].ravel())[0, 1] > 0.9


def test_ink_is_blue_and_spares_the_middle_while_it_is_mild() -> None:
    for key in range(12):
        drawn, where = corrupt(skin(96), "ink", 2, (key,)).astype(int), touched("ink", 2, key)
        assert not where[34:62, 34:62].any()
        red, _, blue = drawn[where].T
        assert (red - blue < SKIN[0] - SKIN[2]).all()


def test_a_stroke_of_ink_is_as_wide_as_asked_for() -> None:
    areas = []
    for width in (0.02, 0.06):
        scene = np.ones((300, 300, 3), dtype=np.float32)
        draw_ink(np.random.default_rng(4), scene, 1, reach=(0.3, 0.3), width=(width, width), opacity=(1.0, 1.0))
        areas.append((scene[:, :, 1] < 0.9).mean())
    assert areas[1] / areas[0] == pytest.approx(3, rel=0.1)


def test_a_ruler_lies_along_one_edge_with_even_ticks() -> None:
    sides = set()
    for key in range(16):
        where = touched("ruler", 3, key, 200)
        assert not where[60:140, 60:140].any()
        strips = {"top": where[:40].any(axis=0), "bottom": where[-40:].any(axis=0)}
        strips |= {"left": where[:, :40].any(axis=1), "right": where[:, -40:].any(axis=1)}
        side = max(strips, key=lambda name: int(np.abs(np.diff(strips[name].astype(int))).sum()))
        sides.add(side)
        starts = np.flatnonzero(np.diff(strips[side].astype(int)) == 1)
        assert len(starts) >= 9
        assert np.ptp(np.diff(starts)) <= 2
    assert sides == {"top", "bottom", "left", "right"}


def test_hairs_are_darker_than_skin_and_as_many_as_asked_for() -> None:
    scene = np.ones((400, 400, 3), dtype=np.float32)
    draw_hairs(np.random.default_rng(3), scene, 1, thickness=(1.0, 1.0), opacity=(1.0, 1.0))
    one = float((scene.min(axis=2) < 0.9).mean())
    # A hair of a quarter to the whole of the side, 0.8 to 1.2 hundred-and-twentieths thick.
    assert 0.25 * 0.8 / 120 * 0.5 < one < 1.2 * 1.2 / 120 * 1.6
    drawn = corrupt(skin(96), "hair", 5, (1,))
    assert (drawn.max(axis=2) <= max(SKIN)).all()
    assert drawn[touched("hair", 5, 1)].mean() < np.mean(SKIN) - 30


@pytest.mark.parametrize("severity", SEVERITIES)
def test_dark_corners_leave_a_disc_of_the_asked_radius(severity: int) -> None:
    side, radius = 200, CORNERS[severity - 1]
    dark = np.mean([(corrupt(skin(side), "corners", severity, (key,)).max(axis=2) < 112).mean() for key in range(30)])
    y, x = (np.mgrid[:side, :side] + 0.5) / side - 0.5
    assert dark == pytest.approx((np.hypot(x, y) > radius * np.sqrt(0.5)).mean(), abs=0.012)


def test_dark_corners_change_nothing_within_the_field() -> None:
    scene = np.random.default_rng(0).random((80, 80, 3), dtype=np.float32)
    before = scene.copy()
    draw_corners(np.random.default_rng(1), scene, radius=(0.7, 0.7), softness=(0.02, 0.02))
    np.testing.assert_array_equal(scene[25:55, 25:55], before[25:55, 25:55])
    assert scene[0, 0].max() < 0.05


def test_a_bubble_is_bright_towards_the_lamp_and_dark_away_from_it() -> None:
    scene = np.full((300, 300, 3), 0.5, dtype=np.float32)
    draw_bubbles(np.random.default_rng(11), scene, 1, radius=(0.1, 0.1))
    change = scene[:, :, 0] - 0.5
    assert change.max() > 0.3
    assert change.min() < -0.1
    y, x = np.nonzero(np.abs(change) > 0.02)
    assert 50 < np.ptp(x) < 80
    bright, dark = np.argwhere(change > 0.2).mean(axis=0), np.argwhere(change < -0.1).mean(axis=0)
    assert np.hypot(*(bright - dark)) > 25
    # The glint lies on the bright side.
    assert np.hypot(*(np.argwhere(change == change.max())[0] - dark)) > 30
    # What is a radius and a half away from the rim stays as it was.
    far = np.hypot(*(np.indices(change.shape) - np.array([y.mean(), x.mean()])[:, None, None])) > 50
    assert not change[far].any()
