import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import stats
from sklearn.metrics import jaccard_score

from dermdistill.errors import ConfigError
from dermdistill.explain.agreement import agreement, agreement_by_chance, hottest_iou, pearson, resized, spearman

RNG = np.random.default_rng(1)


def _pair(levels: int) -> tuple[np.ndarray, np.ndarray]:
    first = RNG.integers(0, levels, (5, 12, 10)) / levels
    return first, (first + RNG.integers(0, levels, (5, 12, 10)) / levels) / 2


@pytest.mark.parametrize("levels", [4, 10**6])
def test_correlations_equal_scipy_with_and_without_ties(levels: int) -> None:
    first, second = _pair(levels)
    ranks, linear = spearman(first, second), pearson(first, second)
    for row, (one, other) in enumerate(zip(first, second, strict=True)):
        assert ranks[row] == pytest.approx(stats.spearmanr(one.ravel(), other.ravel()).statistic)
        assert linear[row] == pytest.approx(stats.pearsonr(one.ravel(), other.ravel()).statistic)


def test_overlap_of_the_hottest_equals_scikit_learn() -> None:
    first, second = _pair(10**9)
    for one, other, found in zip(first, second, hottest_iou(first, second), strict=True):
        hottest = [values.ravel() >= np.sort(values.ravel())[-24] for values in (one, other)]
        assert found == pytest.approx(jaccard_score(*hottest))


def test_unrelated_maps_overlap_by_chance_alone() -> None:
    first, second = (np.random.default_rng(seed).random((40, 50, 50)) for seed in (0, 1))
    found = {name: float(values.mean()) for name, values in agreement(first, second).items()}
    assert found == {
        "spearman": pytest.approx(0, abs=0.01),
        "pearson": pytest.approx(0, abs=0.01),
        "iou": pytest.approx(1 / 9, abs=0.01),
    }


@settings(deadline=None, max_examples=30)
@given(arrays(np.float32, (2, 6, 6), elements=st.sampled_from([0.0, 0.5, 1.0])))
def test_map_agrees_wholly_with_itself_or_is_constant(maps: np.ndarray) -> None:
    constant = maps.max(axis=(1, 2)) == maps.min(axis=(1, 2))
    for values in agreement(maps, maps).values():
        np.testing.assert_allclose(values, np.where(constant, np.nan, 1))


def test_agreement_with_a_blank_map_is_not_defined() -> None:
    first, second = _pair(100)
    second[1] = 0
    for values in agreement(first, second).values():
        assert np.isnan(values).tolist() == [False, True, False, False, False]


def test_larger_maps_are_brought_to_the_smaller_size_as_pillow_does() -> None:
    large, small = RNG.random((3, 40, 36)).astype(np.float32), RNG.random((3, 16, 16)).astype(np.float32)
    wanted = np.stack([np.asarray(Image.fromarray(one).resize((16, 16), Image.Resampling.BILINEAR)) for one in large])
    np.testing.assert_allclose(resized(large, 16, 16), wanted, atol=1e-5)
    for name, values in agreement(large, small).items():
        np.testing.assert_allclose(values, agreement(wanted, small)[name], atol=1e-3)
        np.testing.assert_allclose(values, agreement(small, large)[name])


def test_agreement_by_chance_pairs_every_map_with_another() -> None:
    first = np.zeros((6, 1, 8))
    first[np.arange(6), 0, np.arange(6)] = 1
    found = agreement_by_chance(first, first, seed=0)
    # One hot pixel each: any pair of different maps correlates by -1/7.
    np.testing.assert_allclose(found["pearson"], -1 / 7)
    second = np.arange(6)[:, None, None] + np.random.default_rng(0).random((6, 1, 8))
    used = [agreement_by_chance(np.roll(second, turn, axis=0), second, seed=1)["pearson"] for turn in range(6)]
    assert sum((values > 0.9999).sum() for values in used) == 6
    assert not (used[0] > 0.9999).any()
    with pytest.raises(ConfigError, match="needs another image"):
        agreement_by_chance(first[:1], first[:1], seed=0)


def test_sets_of_other_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 maps against 2"):
        agreement(np.ones((3, 4, 4)), np.ones((2, 4, 4)))
    with pytest.raises(ConfigError, match="negative"):
        agreement(np.ones((2, 4, 4)), -np.ones((2, 4, 4)))
