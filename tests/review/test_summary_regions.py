"""Drawn regions and maps against areas known by geometry, scikit-image and a choice of pixels by sorting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.draw import polygon2mask

from dermdistill.review.summary_regions import CENTRE_SIGMA, centre_prior, energy_inside, equal_area_iou, rasterise

MAPS = arrays(np.uint8, (7, 9), elements=st.integers(0, 5))
MASKS = arrays(np.bool_, (7, 9))


@pytest.mark.parametrize(
    "corners", [[(0.1, 0.1), (0.9, 0.2), (0.5, 0.95)], [(0.2, 0.3), (0.8, 0.3), (0.8, 0.7), (0.2, 0.7)]]
)
def test_polygon_covers_its_area_within_a_fraction_of_a_pixel_along_the_edge(corners: list[tuple[float, float]]):
    height, width = 120, 160
    mask = rasterise([corners], height, width)
    x, y = np.array(corners).T * np.array([[width], [height]])
    area = abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2
    outline = np.hypot(x - np.roll(x, -1), y - np.roll(y, -1)).sum()
    assert abs(mask.sum() - area) < 0.25 * outline
    inside = polygon2mask((height, width), [(y * height - 0.5, x * width - 0.5) for x, y in corners])
    assert (mask ^ inside).sum() < 0.25 * outline


def test_drawing_smaller_than_a_pixel_covers_none():
    assert not rasterise([[(0.5, 0.5), (0.501, 0.5), (0.5, 0.501)]], 20, 20).any()


def test_polygons_together_cover_their_union():
    left, right = [(0, 0), (0.6, 0), (0.6, 1), (0, 1)], [(0.4, 0), (1, 0), (1, 1), (0.4, 1)]
    both = rasterise([left, right], 30, 40)
    assert both.all()
    assert np.array_equal(both, rasterise([left], 30, 40) | rasterise([right], 30, 40))
    assert not rasterise([left], 30, 40)[:, 26:].any()


def test_width_and_height_are_not_mixed_up():
    mask = rasterise([[(0.5, 0), (1, 0), (1, 0.25), (0.5, 0.25)]], 40, 80)
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max()) == (0, 9) and (columns.min(), columns.max()) == (40, 79)


@settings(max_examples=80, deadline=None)
@given(MAPS, MASKS)
def test_equal_area_is_the_mean_over_choices_among_ties(heat: np.ndarray, mask: np.ndarray):
    area = int(mask.sum())
    if not area:
        assert np.isnan(equal_area_iou(heat, mask))
        return
    order = np.sort(heat.ravel())[::-1]
    edge = order[area - 1]
    above, tied = heat > edge, heat == edge
    common = (above & mask).sum() + (area - above.sum()) * (tied & mask).sum() / tied.sum()
    assert equal_area_iou(heat, mask) == pytest.approx(common / (2 * area - common))


def test_map_of_the_region_itself_agrees_wholly():
    mask = rasterise([[(0.1, 0.1), (0.6, 0.2), (0.3, 0.9)]], 60, 60)
    heat = mask.astype(np.uint8) * 200
    assert equal_area_iou(heat, mask) == energy_inside(heat, mask) == 1
    assert equal_area_iou(255 - heat, mask) < 0.2


@settings(max_examples=50, deadline=None)
@given(MAPS, MASKS)
def test_energy_is_the_share_of_heat_inside(heat: np.ndarray, mask: np.ndarray):
    total = heat.astype(float).sum()
    wanted = (heat.astype(float) * mask).sum() / total if total else np.nan
    assert energy_inside(heat, mask) == pytest.approx(wanted, nan_ok=True)


def test_centre_prior_is_a_gaussian_in_the_middle():
    prior = centre_prior(101, 201).astype(float) / 255
    assert prior[50, 100] == 1 and prior.max() == 1
    assert np.array_equal(prior, prior[::-1]) and np.array_equal(prior, prior[:, ::-1])
    # A fifth of the side away from the centre is one sigma.
    assert prior[50, 140] == pytest.approx(np.exp(-0.5), abs=0.02)
    assert prior[70, 100] == pytest.approx(np.exp(-0.5), abs=0.02)


def test_centre_prior_is_the_one_that_shams_show():
    from dermdistill.explain import localisation

    assert localisation.PRIOR_SPREAD == CENTRE_SIGMA
    assert np.abs(localisation.centre_prior(30, 40) * 255 - centre_prior(30, 40)).max() <= 0.51
