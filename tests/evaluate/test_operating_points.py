"""Thresholds against brute force over every candidate, curves against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from dermdistill.errors import ConfigError, DataError
from dermdistill.evaluate import operating_points as points

SEEDS = st.integers(0, 2**32 - 1)


def draw(seed: int, images: int = 40, levels: int = 12):
    """Both classes, scores with ties."""
    rng = np.random.default_rng(seed)
    positive = np.append(rng.random(images - 2) < 0.3, [True, False])
    return positive, (rng.integers(0, levels, images) + positive * rng.integers(0, levels)) / (2 * levels)


def brute_force_rates(positive, scores, threshold):
    called = [score >= threshold for score in scores]
    hits = sum(c and p for c, p in zip(called, positive, strict=True))
    right = sum(not c and not p for c, p in zip(called, positive, strict=True))
    return hits / positive.sum(), right / (~positive).sum()


@settings(deadline=None)
@given(seed=SEEDS, target=st.sampled_from([0.05, 0.5, 0.8, 0.9, 0.95, 1.0]), levels=st.integers(1, 30))
def test_threshold_at_sensitivity_is_the_highest_that_reaches_it(seed: int, target: float, levels: int):
    positive, scores = draw(seed, levels=levels)
    candidates = sorted({*scores, *np.linspace(-0.1, 1.6, 35), *(np.unique(scores) + 1e-9)})
    reaching = [t for t in candidates if brute_force_rates(positive, scores, t)[0] >= target]
    assert points.threshold_at_sensitivity(positive, scores, target) == max(reaching)


def test_threshold_at_sensitivity_is_not_the_lowest():
    """EVIDENCE: system B takes the lowest threshold that reaches 95%, and so has specificity 0 everywhere."""
    rng = np.random.default_rng(0)
    positive = np.arange(1000) < 200
    scores = 1 / (1 + np.exp(-rng.normal(2.0 * positive, 1.0)))
    threshold = points.threshold_at_sensitivity(positive, scores, 0.95)
    lowest = min(t for t in scores if brute_force_rates(positive, scores, t)[0] >= 0.95)
    assert brute_force_rates(positive, scores, lowest)[1] == 0.0
    assert points.specificity_at(positive, scores, threshold) > 0.5
    assert points.sensitivity_at(positive, scores, threshold) == pytest.approx(0.95)


@pytest.mark.parametrize("target", [0.8, 0.9, 0.95])
def test_specificity_at_a_target_sensitivity_is_the_best_on_the_roc_curve_and_that_of_the_lowest_is_0(target: float):
    positive, scores = draw(4, images=300, levels=200)
    fpr, tpr, thresholds = oracle.roc_curve(positive, scores, drop_intermediate=False)
    reaching = tpr >= target
    threshold = points.threshold_at_sensitivity(positive, scores, target)
    found = float(points.specificity_at(positive, scores, threshold))
    assert found == pytest.approx(1 - fpr[reaching].min()) and found > 0.3
    assert points.specificity_at(positive, scores, float(thresholds[reaching].min())) == 0.0


def test_target_met_exactly_is_enough():
    positive, scores = np.ones(20, dtype=bool), np.arange(20) / 20
    assert points.threshold_at_sensitivity(positive, scores, 0.95) == scores[1]


def test_ties_at_the_threshold_are_all_called_positive():
    positive, scores = np.array([True, True, True, False]), np.array([0.5, 0.5, 0.5, 0.5])
    threshold = points.threshold_at_sensitivity(positive, scores, 0.4)
    assert threshold == 0.5
    assert points.sensitivity_at(positive, scores, threshold) == 1.0
    assert points.specificity_at(positive, scores, threshold) == 0.0


@settings(deadline=None)
@given(seed=SEEDS)
def test_youden_is_the_best_of_all_thresholds_and_the_highest_of_equals(seed: int):
    positive, scores = draw(seed)
    chosen = points.youden(positive, scores)
    indices = {t: round(sum(brute_force_rates(positive, scores, t)), 12) for t in np.unique(scores)}
    best = max(indices.values())
    assert chosen == max(t for t, index in indices.items() if index == best)


@settings(deadline=None)
@given(seed=SEEDS)
def test_rates_at_a_threshold_equal_brute_force_and_repeated_images(seed: int):
    positive, scores = draw(seed)
    threshold = float(np.median(scores))
    times = np.append(np.random.default_rng(seed).integers(0, 4, len(scores) - 2), [1, 1])
    wanted = brute_force_rates(np.repeat(positive, times), np.repeat(scores, times), threshold)
    rows = np.stack([times, 2 * times])
    for got, want in zip((points.sensitivity_at, points.specificity_at), wanted, strict=True):
        np.testing.assert_allclose(got(positive, scores, threshold, rows), [want, want], atol=1e-12)


def test_rates_without_a_class_are_nan():
    positive, scores = np.ones(3, dtype=bool), np.arange(3) / 3
    assert np.isnan(points.specificity_at(positive, scores, 0.5))
    assert np.isnan(points.sensitivity_at(~positive, scores, 0.5))


@settings(deadline=None)
@given(seed=SEEDS)
def test_roc_curve_equals_scikit_learn(seed: int):
    positive, scores = draw(seed)
    fpr, tpr = points.roc_curve(positive, scores)
    wanted_fpr, wanted_tpr, _ = oracle.roc_curve(positive, scores, drop_intermediate=False)
    kept = set(zip(fpr.tolist(), tpr.tolist(), strict=True))
    assert kept <= set(zip(wanted_fpr.tolist(), wanted_tpr.tolist(), strict=True))
    assert oracle.auc(fpr, tpr) == pytest.approx(oracle.roc_auc_score(positive, scores), abs=1e-12)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)


@settings(deadline=None)
@given(seed=SEEDS)
def test_pr_curve_steps_add_up_to_average_precision(seed: int):
    positive, scores = draw(seed)
    recall, precision = points.pr_curve(positive, scores)
    wanted = oracle.average_precision_score(positive, scores)
    assert (np.diff(recall) * precision[1:]).sum() == pytest.approx(wanted, abs=1e-12)
    assert (recall[0], precision[0], recall[-1]) == (0, 1, 1)
    assert (np.diff(recall) > 0).all()


@pytest.mark.parametrize("target", [0.0, -0.1, 1.01, np.nan])
def test_impossible_target_is_refused(target: float):
    with pytest.raises(ConfigError, match="target sensitivity"):
        points.threshold_at_sensitivity(np.array([True]), np.array([0.5]), target)


def test_missing_classes_are_refused():
    scores = np.array([0.1, 0.7])
    nobody, everybody = np.zeros(2, dtype=bool), np.ones(2, dtype=bool)
    with pytest.raises(DataError, match="no positive image"):
        points.threshold_at_sensitivity(nobody, scores, 0.95)
    for group in (nobody, everybody):
        for function in (points.youden, points.roc_curve, points.pr_curve):
            with pytest.raises(DataError, match="one class"):
                function(group, scores)


def test_nan_scores_and_thresholds_are_refused():
    positive = np.array([True, False])
    with pytest.raises(DataError, match="NaN or infinite"):
        points.youden(positive, np.array([np.nan, 0.2]))
    with pytest.raises(DataError, match="threshold is NaN"):
        points.sensitivity_at(positive, np.array([0.1, 0.2]), np.nan)
