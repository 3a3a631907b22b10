"""Calibration slope and intercept against scikit-learn, the score equation, and planted faults."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from dermdistill.errors import DataError
from dermdistill.evaluate.calibration_slope import calibration_intercept, calibration_slope

SEEDS = st.integers(0, 2**32 - 1)


def recalibrated(seed: int, images: int = 200):
    """Outcomes whose logits are 0.6 of the stated ones, less 0.8."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 2, images)
    outcome = rng.random(images) < 1 / (1 + np.exp(0.8 - 0.6 * logits))
    return outcome, 1 / (1 + np.exp(-logits)), logits


@settings(deadline=None, max_examples=10)
@given(seed=SEEDS)
def test_slope_equals_logistic_regression_of_scikit_learn(seed: int):
    outcome, confidence, logits = recalibrated(seed)
    rows = np.random.default_rng(seed).integers(0, 3, (3, 200)).astype(float)
    for row, slope in zip(rows, calibration_slope(outcome, confidence, rows), strict=True):
        oracle = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logits[:, None], outcome, sample_weight=row)
        assert slope == pytest.approx(oracle.coef_[0, 0], abs=1e-5)


@settings(deadline=None, max_examples=10)
@given(seed=SEEDS)
def test_intercept_makes_the_mean_probability_that_of_the_outcome(seed: int):
    # The score equation of the maximum likelihood, which has one root.
    outcome, confidence, logits = recalibrated(seed)
    rows = np.random.default_rng(seed).integers(0, 3, (3, 200)).astype(float)
    for row, intercept in zip(rows, calibration_intercept(outcome, confidence, rows), strict=True):
        shifted = 1 / (1 + np.exp(-logits - intercept))
        assert np.average(shifted, weights=row) == pytest.approx(np.average(outcome, weights=row), abs=1e-6)


def test_slope_and_intercept_name_what_is_wrong_with_probabilities():
    outcome, _, logits = recalibrated(0, 20_000)

    def stated(values):
        return 1 / (1 + np.exp(-values))

    assert calibration_slope(outcome, stated(0.6 * logits - 0.8)) == pytest.approx(1.0, abs=0.05)
    assert calibration_intercept(outcome, stated(0.6 * logits - 0.8)) == pytest.approx(0.0, abs=0.05)
    assert calibration_slope(outcome, stated(2 * (0.6 * logits - 0.8))) == pytest.approx(0.5, abs=0.05)
    assert calibration_intercept(outcome, stated(0.6 * logits + 0.2)) == pytest.approx(-1.0, abs=0.05)


def test_separated_outcomes_have_no_slope_but_an_intercept():
    confidence = np.array([0.1, 0.2, 0.3, 0.3, 0.8])
    outcome = np.array([False, False, False, True, True])
    assert np.isnan(calibration_slope(outcome, confidence))
    assert np.isnan(calibration_slope(~outcome, confidence))
    assert np.isnan(calibration_slope(np.array([True, False]), np.array([0.5, 0.5])))
    assert np.isfinite(calibration_intercept(outcome, confidence))
    mixed = np.array([False, True, False, True, True])
    rows = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
    assert np.isnan(calibration_slope(mixed, confidence, rows)).tolist() == [False, True, False, True]


def test_one_kind_of_outcome_has_neither_slope_nor_intercept():
    confidence = np.array([0.1, 0.5, 0.9])
    for outcome in (np.zeros(3, dtype=bool), np.ones(3, dtype=bool)):
        assert np.isnan(calibration_slope(outcome, confidence))
        assert np.isnan(calibration_intercept(outcome, confidence))


def test_slope_of_probabilities_of_0_and_1_is_finite():
    confidence = np.array([0.0, 0.0, 0.3, 0.7, 1.0, 1.0])
    outcome = np.array([False, True, False, True, False, True])
    assert 0 < calibration_slope(outcome, confidence) < 0.1
    assert calibration_intercept(np.arange(6) < 1, np.zeros(6)) == pytest.approx(np.log(1 / 5) + np.log(1e12), rel=1e-3)


def test_many_rows_at_once_equal_one_row_at_a_time():
    outcome, confidence, _ = recalibrated(1)
    rows = np.random.default_rng(1).integers(0, 5, (2, 4, 200))
    for measure in (calibration_slope, calibration_intercept):
        together = measure(outcome, confidence, rows)
        assert together.shape == (2, 4)
        wanted = [[float(measure(outcome, confidence, row)) for row in block] for block in rows]
        np.testing.assert_allclose(together, wanted, atol=1e-6)


def test_almost_separated_outcomes_have_the_slope_of_scikit_learn():
    # One image stands between a slope of many times the start's and none.
    logits = np.concatenate([np.linspace(-3, -0.1, 30), np.linspace(0.1, 3, 30)])
    outcome = logits > 0
    outcome[29:31] = [True, False]
    oracle = LogisticRegression(C=np.inf, tol=1e-10, max_iter=5000).fit(logits[:, None], outcome)
    found = calibration_slope(outcome, 1 / (1 + np.exp(-logits)))
    assert found == pytest.approx(oracle.coef_[0, 0], rel=1e-3)
    assert found > 5


@pytest.mark.parametrize("confidence", [[0.5, np.nan], [0.5, 1.2], [0.5]])
def test_input_without_a_meaning_is_refused(confidence: list[float]):
    for measure in (calibration_slope, calibration_intercept):
        with pytest.raises(DataError):
            measure(np.array([True, False]), np.array(confidence))
