"""DeLong's variance against its definition over all pairs, its interval and test against simulated cohorts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from dermdistill.errors import ConfigError, DataError
from dermdistill.evaluate import bootstrap, delong, metrics

SEEDS = st.integers(0, 2**32 - 1)


def draw(seed: int, images: int = 40, levels: int = 12):
    """Two correlated scores with ties, and lesions of one to some images."""
    rng = np.random.default_rng(seed)
    positive = np.append(rng.random(images - 4) < 0.4, [True, True, False, False])
    common = rng.normal(size=images) + positive
    scores = np.round((common + rng.normal(size=(2, images))) * levels / 6)
    return positive, scores, rng.integers(0, images // 2, images)


def pair_matrix(positive, scores):
    """[P, Q]: 1 where the positive image has the larger score, 1/2 in ties."""
    hits, others = scores[positive][:, None], scores[~positive][None, :]
    return (hits > others) + 0.5 * (hits == others)


def delong_by_definition(positive, scores):
    """Covariance from the structural components of 1988, over all pairs."""
    pairs = [pair_matrix(positive, row) for row in scores]
    v10 = np.cov(np.stack([matrix.mean(axis=1) for matrix in pairs]))
    v01 = np.cov(np.stack([matrix.mean(axis=0) for matrix in pairs]))
    return v10 / positive.sum() + v01 / (~positive).sum()


def obuchowski_by_definition(positive, scores, lesions):
    """Covariance of 1997, with a loop over clusters."""
    pairs = [pair_matrix(positive, row) for row in scores]
    aucs = [matrix.mean() for matrix in pairs]
    m, n = positive.sum(), (~positive).sum()
    ids = sorted(set(lesions))
    with_hits = [i for i in ids if (lesions[positive] == i).any()]
    with_others = [i for i in ids if (lesions[~positive] == i).any()]

    def total(score, axis, lesion):
        members = lesions[positive if axis == 1 else ~positive] == lesion
        return pairs[score].mean(axis=axis)[members].sum() - members.sum() * aucs[score]

    covariance = np.zeros((2, 2))
    for r in range(2):
        for s in range(2):
            i10, i01, i = len(with_hits), len(with_others), len(ids)
            s10 = i10 / (i10 - 1) / m * sum(total(r, 1, c) * total(s, 1, c) for c in with_hits)
            s01 = i01 / (i01 - 1) / n * sum(total(r, 0, c) * total(s, 0, c) for c in with_others)
            s11 = i / (i - 1) * sum(total(r, 1, c) * total(s, 0, c) for c in ids)
            s11_back = i / (i - 1) * sum(total(s, 1, c) * total(r, 0, c) for c in ids)
            covariance[r, s] = s10 / m + s01 / n + (s11 + s11_back) / (m * n)
    return covariance


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, levels=st.integers(1, 40))
def test_placements_equal_their_definition_over_all_pairs(seed: int, levels: int):
    positive, scores, _ = draw(seed, levels=levels)
    found = delong.placements(positive, scores)
    for index, row in enumerate(scores):
        matrix = pair_matrix(positive, row)
        np.testing.assert_allclose(found.positive[index], matrix.mean(axis=1), atol=1e-12)
        np.testing.assert_allclose(found.negative[index], matrix.mean(axis=0), atol=1e-12)
        assert found.aucs[index] == pytest.approx(roc_auc_score(positive, row), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_covariance_of_independent_images_equals_delong_by_definition(seed: int):
    positive, scores, _ = draw(seed)
    wanted = delong_by_definition(positive, scores)
    np.testing.assert_allclose(delong.auc_covariance(positive, scores), wanted, atol=1e-14)
    own_lesions = np.random.default_rng(seed).permutation(len(positive))
    np.testing.assert_allclose(delong.auc_covariance(positive, scores, own_lesions), wanted, atol=1e-14)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_covariance_over_lesions_equals_obuchowski_by_definition(seed: int):
    positive, scores, lesions = draw(seed)
    wanted = obuchowski_by_definition(positive, scores, lesions)
    np.testing.assert_allclose(delong.auc_covariance(positive, scores, lesions), wanted, atol=1e-14)


def test_interval_and_test_are_the_normal_ones():
    positive, scores, _ = draw(2)
    covariance = delong_by_definition(positive, scores)
    aucs = [roc_auc_score(positive, row) for row in scores]
    cell = delong.delong_interval(positive, scores[0])
    low, high = stats.norm.interval(0.95, aucs[0], np.sqrt(covariance[0, 0]))
    assert cell == pytest.approx({"value": aucs[0], "low": low, "high": high})
    narrow = delong.delong_interval(positive, scores[0], level=0.5)
    assert narrow["high"] - narrow["low"] == pytest.approx(2 * 0.6744898 * np.sqrt(covariance[0, 0]))
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    found = delong.delong_difference(positive, *scores)
    low, high = stats.norm.interval(0.95, aucs[0] - aucs[1], error)
    p = 2 * stats.norm.sf(abs(aucs[0] - aucs[1]) / error)
    assert found == pytest.approx({"value": aucs[0] - aucs[1], "low": low, "high": high, "p": p})
    back = delong.delong_difference(positive, scores[1], scores[0])
    assert (back["value"], back["p"]) == pytest.approx((-found["value"], p))


def test_interval_agrees_with_the_lesion_bootstrap_with_and_without_repeated_images():
    rng = np.random.default_rng(0)
    lesions = np.repeat(np.arange(400), 4)
    positive = lesions < 120
    scores = positive + np.repeat(rng.normal(size=400), 4) + 0.4 * rng.normal(size=1600)
    for chosen, same in ((slice(None, None, 4), True), (slice(None), False)):
        ids, group, values = lesions[chosen], positive[chosen], scores[chosen]
        weights = bootstrap.lesion_weights(ids, samples=1000, seed=0)
        samples = metrics.roc_auc(group, values, weights)
        drawn = bootstrap.estimate(float(metrics.roc_auc(group, values)), samples)
        found, careless = delong.delong_interval(group, values, ids), delong.delong_interval(group, values)
        assert found == pytest.approx(drawn, abs=0.006)
        width, wrong = (cell["high"] - cell["low"] for cell in (found, careless))
        assert (wrong == pytest.approx(width)) if same else wrong < 0.6 * width


def test_p_is_uniform_where_two_scores_are_equally_good_over_lesions():
    rng = np.random.default_rng(5)
    found = []
    for _ in range(300):
        lesions = np.repeat(np.arange(60), 3)
        positive = lesions < 25
        common = positive + np.repeat(rng.normal(size=60), 3)
        noise = np.repeat(rng.normal(size=(2, 60)), 3, axis=1)
        found.append(delong.delong_difference(positive, *(common + noise), lesions)["p"])
    assert 0.02 <= np.mean(np.array(found) < 0.05) <= 0.09
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)


def test_bounds_stay_between_0_and_1_and_a_perfect_score_has_no_spread():
    positive = np.array([True, True, True, False, False, False])
    near = np.array([3.0, 4.0, 1.5, 2.0, 1.0, 0.0])
    assert delong.delong_interval(positive, near)["high"] == 1.0
    assert delong.delong_interval(positive, -near)["low"] == 0.0
    assert delong.delong_interval(positive, positive.astype(float)) == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_equal_scores_differ_by_zero_without_a_p():
    positive, scores, lesions = draw(1)
    for ids in (None, lesions):
        found = delong.delong_difference(positive, scores[0], 2 * scores[0] + 1, ids)
        assert found == {"value": 0.0, "low": 0.0, "high": 0.0, "p": None}


def test_undefined_figures_are_null():
    scores = np.arange(4.0)
    for positive in (np.zeros(4, dtype=bool), np.ones(4, dtype=bool)):
        assert set(delong.delong_interval(positive, scores).values()) == {None}
    single = np.array([True, False, False, False])
    cell = delong.delong_interval(single, scores)
    assert cell == {"value": 0.0, "low": None, "high": None}
    twice = np.array([True, True, False, False])
    assert delong.delong_interval(twice, scores, ["a", "a", "b", "c"])["low"] is None
    found = delong.delong_difference(single, scores, -scores)
    assert found == {"value": -1.0, "low": None, "high": None, "p": None}


def test_input_without_a_meaning_is_refused():
    positive, scores, _ = draw(0)
    with pytest.raises(ConfigError, match="level"):
        delong.delong_interval(positive, scores[0], level=1.0)
    with pytest.raises(DataError, match="one lesion an image"):
        delong.delong_interval(positive, scores[0], ["a"])
    with pytest.raises(DataError, match="NaN or infinite"):
        delong.delong_interval(positive, np.full(len(positive), np.nan))
    with pytest.raises(DataError, match="both are of the same images"):
        delong.delong_difference(positive, scores[0], scores[1][:-1])
