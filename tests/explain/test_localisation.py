import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import jaccard_score

from dermdistill.errors import ConfigError
from dermdistill.explain.localisation import (
    LOCALISATION,
    PRIOR_SPREAD,
    centre_prior,
    energy_in_mask,
    iou_at_equal_area,
    keep_largest,
    localisation,
    mask_at,
    pointing_game,
    soft_iou,
)
from dermdistill.preprocess import PreprocessSpec, resize_image

RNG = np.random.default_rng(0)
MAPS = RNG.random((6, 9, 7)).astype(np.float32)
MASKS = RNG.random((6, 9, 7)) < 0.3


def test_energy_is_the_share_of_the_sum_in_the_mask() -> None:
    wanted = [
        sum(float(v) for v, inside in zip(one.flat, mask.flat, strict=True) if inside) / sum(map(float, one.flat))
        for one, mask in zip(MAPS, MASKS, strict=True)
    ]
    np.testing.assert_allclose(energy_in_mask(MAPS, MASKS), wanted, rtol=1e-12)


def test_pointing_game_asks_where_the_largest_value_lies() -> None:
    wanted = [float(mask.flat[int(one.argmax())]) for one, mask in zip(MAPS, MASKS, strict=True)]
    assert 0 < sum(wanted) < len(wanted)
    assert pointing_game(MAPS, MASKS).tolist() == wanted


def test_pointing_game_of_tied_pixels_is_their_share_in_the_mask() -> None:
    maps = np.zeros((1, 4, 4))
    maps[0, 0] = 1
    mask = np.zeros((1, 4, 4), np.bool_)
    mask[0, :, 3] = True
    assert pointing_game(maps, mask).tolist() == [0.25]


def test_iou_at_equal_area_equals_scikit_learn_without_ties() -> None:
    for one, mask, found in zip(MAPS, MASKS, iou_at_equal_area(MAPS, MASKS), strict=True):
        kept = np.zeros(one.size, np.bool_)
        kept[np.argsort(one.ravel())[-int(mask.sum()) :]] = True
        assert found == pytest.approx(jaccard_score(mask.ravel(), kept))


def test_iou_at_equal_area_of_a_flat_map_is_that_of_an_average_choice() -> None:
    mask = np.zeros((1, 10, 10), np.bool_)
    mask[0, :4, :5] = True
    shared = 20 * 0.2
    assert iou_at_equal_area(np.full((1, 10, 10), 0.3), mask)[0] == pytest.approx(shared / (40 - shared))


@pytest.mark.parametrize("measure", LOCALISATION.values())
def test_score_is_not_a_number_of_an_empty_mask_or_a_blank_map(measure: object) -> None:
    assert callable(measure)
    maps, masks = MAPS[:3].copy(), MASKS[:3].copy()
    maps[0], masks[1] = 0, False
    assert np.isnan(measure(maps, masks)).tolist() == [True, True, False]


@pytest.mark.parametrize("measure", LOCALISATION.values())
def test_map_that_is_the_mask_scores_one_and_the_rest_zero(measure: object) -> None:
    assert callable(measure)
    small = MASKS & (np.arange(7) < 3)
    assert measure(small.astype(np.float32), small).tolist() == [1.0] * 6
    assert measure((~small).astype(np.float32), small).tolist() == [0.0] * 6


@settings(deadline=None, max_examples=40)
@given(arrays(np.float32, (3, 4, 5), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0])), st.integers(0, 20))
def test_kept_pixels_add_up_to_their_count_whatever_ties(maps: np.ndarray, count: int) -> None:
    kept = keep_largest(maps, np.full(3, count))
    np.testing.assert_allclose(kept.sum(axis=(1, 2)), count, atol=1e-9)
    assert kept.min() >= 0 and kept.max() <= 1
    for one, part in zip(maps, kept, strict=True):
        # No pixel is kept more than a larger one.
        order = np.argsort(one.ravel())
        assert (np.diff(part.ravel()[order]) >= -1e-12).all()
    np.testing.assert_allclose(soft_iou(kept, kept), 1.0 if count else np.nan)


def test_centre_prior_is_a_gaussian_in_the_middle() -> None:
    prior = centre_prior(40, 60).astype(np.float64)
    assert prior.max() == 1 and prior[19:21, 29:31].min() == 1
    np.testing.assert_allclose(prior, prior[::-1, ::-1], rtol=1e-6)
    # One spread from the middle a Gaussian has fallen to exp(-1/2).
    rows = (np.arange(40) + 0.5) / 40 - 0.5
    np.testing.assert_allclose(np.interp(PRIOR_SPREAD, rows, prior[:, 30]), np.exp(-0.5), atol=2e-3)


def test_centre_prior_stands_beside_every_score() -> None:
    masks = np.zeros((2, 20, 20), np.bool_)
    masks[0, 8:12, 8:12] = masks[1, :4, :4] = True
    found = localisation(RNG.random((2, 20, 20)), masks)
    assert set(found) == {name + ending for name in LOCALISATION for ending in ("", "_prior")}
    assert found["pointing_prior"].tolist() == [1, 0]
    prior = centre_prior(20, 20)
    assert found["energy_prior"][1] == pytest.approx(prior[:4, :4].sum() / prior.sum())


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_mask_is_resized_as_its_picture_is(resize: str) -> None:
    spec = PreprocessSpec.from_dict({**PreprocessSpec(32).to_dict(), "resize": resize})
    mask = np.zeros((60, 90), np.bool_)
    mask[10:40, 30:70] = True
    picture = np.where(mask[..., None], np.uint8([250, 10, 10]), np.uint8([10, 10, 10]))
    assert np.array_equal(mask_at(mask, spec), resize_image(picture, spec)[..., 0] >= 130)
    assert mask_at(np.ones((60, 90), np.bool_), spec).all()


@pytest.mark.parametrize(
    ("maps", "masks", "problem"),
    [
        (MAPS, MASKS[:, :5], "masks bool"),
        (MAPS, MASKS.astype(np.float32), "masks float32"),
        (MAPS - 1, MASKS, "negative"),
        (np.where(MASKS, np.nan, MAPS), MASKS, "infinite"),
        (MAPS[0], MASKS[0], r"maps are float32 \[9, 7\]"),
    ],
)
def test_what_are_no_maps_or_masks_is_refused(maps: np.ndarray, masks: np.ndarray, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        energy_in_mask(maps, masks)
