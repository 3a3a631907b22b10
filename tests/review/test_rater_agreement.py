"""Agreement against the packages krippendorff and scikit-learn."""

import warnings

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.metrics import cohen_kappa_score

from dermdistill.errors import DataError
from dermdistill.review.rater_agreement import (
    PAIR_BLOCK,
    band,
    mean_kappa,
    ordinal_alpha,
    pairwise_kappa,
    rater_pairs,
    weighted_kappa,
)

LEVELS = st.sampled_from([np.nan, 1.0, 2.0, 3.0, 4.0, 5.0])


def expected_alpha(ratings: np.ndarray) -> float:
    """By the package; NaN where it finds nothing to compare."""
    paired = ratings[:, (~np.isnan(ratings)).sum(axis=0) >= 2]
    if len(np.unique(paired[~np.isnan(paired)])) < 2:
        return np.nan
    return float(krippendorff.alpha(ratings, level_of_measurement="ordinal", value_domain=[1, 2, 3, 4, 5]))


def expected_kappa(first: np.ndarray, second: np.ndarray) -> float:
    common = ~(np.isnan(first) | np.isnan(second))
    x, y = first[common], second[common]
    if not len(x) or len(set(x) | set(y)) < 2:
        return np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(cohen_kappa_score(x, y, weights="quadratic", labels=[1.0, 2.0, 3.0, 4.0, 5.0]))


@settings(max_examples=150, deadline=None)
@given(arrays(np.float64, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9), elements=LEVELS))
def test_alpha_is_that_of_krippendorff(ratings: np.ndarray):
    assert float(ordinal_alpha(ratings)) == pytest.approx(expected_alpha(ratings), abs=1e-9, nan_ok=True)


@settings(max_examples=100, deadline=None)
@given(arrays(np.float64, st.tuples(st.just(2), st.integers(1, 15)), elements=LEVELS))
def test_kappa_is_that_of_sklearn(ratings: np.ndarray):
    found = float(weighted_kappa(ratings[:1], ratings[1:])[0])
    assert found == pytest.approx(expected_kappa(*ratings), abs=1e-9, nan_ok=True)


def noisy(raters: int, items: int, missing: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ratings = np.clip(rng.integers(1, 6, items) + rng.integers(-1, 2, (raters, items)), 1, 5).astype(float)
    return np.where(rng.random(ratings.shape) < missing, np.nan, ratings)


def test_weights_are_items_drawn_so_often():
    ratings = noisy(4, 12, 0.2, 0)
    weights = np.random.default_rng(1).integers(0, 3, (5, 12))
    drawn = [np.repeat(ratings, row, axis=1) for row in weights]
    assert ordinal_alpha(ratings, weights) == pytest.approx([expected_alpha(own) for own in drawn], abs=1e-9)
    pairs, _ = rater_pairs(ratings)
    kappas = np.array([[expected_kappa(own[first], own[second]) for first, second in pairs] for own in drawn])
    assert pairwise_kappa(ratings, pairs, weights) == pytest.approx(kappas, abs=1e-9)
    assert mean_kappa(ratings, pairs, weights) == pytest.approx(kappas.mean(axis=1), abs=1e-9)


def test_many_pairs_are_taken_in_blocks():
    ratings = noisy(34, 15, 0.1, 2)
    pairs, common = rater_pairs(ratings)
    assert len(pairs) == 561 > PAIR_BLOCK
    found = pairwise_kappa(ratings, pairs)
    for place in (0, PAIR_BLOCK - 1, PAIR_BLOCK, 560):
        first, second = (ratings[index] for index in pairs[place])
        assert found[place] == pytest.approx(expected_kappa(first, second), abs=1e-9)
        assert common[place] == (~np.isnan(first + second)).sum()


def test_agreement_of_one_rater_or_of_none_is_not_defined():
    assert np.isnan(ordinal_alpha(noisy(1, 8, 0, 3)))
    assert np.isnan(ordinal_alpha(np.full((3, 4), np.nan)))
    assert rater_pairs(noisy(1, 8, 0, 3))[0] == []
    assert np.isnan(mean_kappa(noisy(1, 8, 0, 3), []))


def test_ratings_all_alike_define_no_agreement():
    alike = np.full((3, 20), 4.0)
    assert np.isnan(ordinal_alpha(alike))
    assert np.isnan(weighted_kappa(alike[:1], alike[1:2])).all()


def test_perfect_and_opposite_ratings():
    levels = np.tile([1.0, 2, 3, 4, 5], 3)
    assert ordinal_alpha(np.stack([levels, levels, levels])) == 1
    assert weighted_kappa(levels[None], levels[None]) == 1
    assert weighted_kappa(levels[None], 6 - levels[None]) == -1


@pytest.mark.parametrize("value", [0, 6, 2.5, np.inf])
def test_values_that_are_no_levels_are_refused(value: float):
    with pytest.raises(DataError, match="from 1 to 5"):
        ordinal_alpha([[1, 2, 3], [1, 2, value]])


@pytest.mark.parametrize(
    ("alpha", "word"),
    [
        (0.9, "strong"),
        (0.8, "strong"),
        (0.79, "tentative"),
        (0.67, "tentative"),
        (0.66, "insufficient"),
        (-1, "insufficient"),
    ],
)
def test_bands_are_those_of_krippendorff(alpha: float, word: str):
    assert band(alpha) == word
    assert band(np.nan) is None
