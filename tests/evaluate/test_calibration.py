"""Calibration against naive loops, scikit-learn and hand-made cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from dermdistill.errors import ConfigError, DataError
from dermdistill.evaluate import calibration

SEEDS = st.integers(0, 2**32 - 1)


def naive_gaps(outcome, confidence, bins, weights=None):
    """(weight, gap) of each bin that is not empty, one image at a time."""
    weights = np.ones(len(outcome)) if weights is None else weights
    gaps = []
    for index in range(bins):
        low, high = np.linspace(0, 1, bins + 1)[index : index + 2]
        inside = [i for i, c in enumerate(confidence) if low < c <= high or (index == 0 and c == 0)]
        total = sum(weights[i] for i in inside)
        if total > 0:
            said = sum(weights[i] * confidence[i] for i in inside) / total
            happened = sum(weights[i] * outcome[i] for i in inside) / total
            gaps.append((total, abs(said - happened)))
    return gaps


@settings(deadline=None)
@given(seed=SEEDS, bins=st.integers(1, 20), grid=st.sampled_from([0, 10, 15]))
def test_ece_and_mce_equal_a_naive_loop(seed: int, bins: int, grid: int):
    rng = np.random.default_rng(seed)
    confidence = rng.random(60) if grid == 0 else rng.integers(0, grid + 1, 60) / grid
    outcome, weights = rng.random(60) < confidence, rng.integers(0, 3, 60).astype(float)
    weights[0] = 1.0
    for given_weights in (None, weights):
        gaps = naive_gaps(outcome, confidence, bins, given_weights)
        wanted = sum(n * gap for n, gap in gaps) / sum(n for n, _ in gaps)
        assert calibration.ece(outcome, confidence, bins=bins, weights=given_weights) == pytest.approx(wanted)
        wanted = max(gap for _, gap in gaps)
        assert calibration.mce(outcome, confidence, bins=bins, weights=given_weights) == pytest.approx(wanted)


def test_weight_matrix_gives_one_value_a_row():
    rng = np.random.default_rng(1)
    confidence = rng.random(50)
    outcome, rows = rng.random(50) < 0.5, rng.integers(0, 4, (3, 50))
    for function in (calibration.ece, calibration.mce):
        together = function(outcome, confidence, weights=rows)
        for row, answer in zip(rows, together, strict=True):
            times = np.repeat(np.arange(50), row)
            assert answer == pytest.approx(function(outcome[times], confidence[times]))


def test_ece_of_a_perfect_and_of_a_lying_model():
    confidence = np.full(10, 0.8)
    assert calibration.ece(np.arange(10) < 8, confidence) == pytest.approx(0.0)
    assert calibration.ece(np.arange(10) < 0, confidence) == pytest.approx(0.8)


def test_top_label_takes_the_largest_probability():
    probs = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    confidence, outcome = calibration.top_label(np.array([0, 1]), probs)
    assert confidence.tolist() == [0.7, 0.6]
    assert outcome.tolist() == [True, False]


@settings(deadline=None)
@given(seed=SEEDS)
def test_brier_equals_scikit_learn(seed: int):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(4), 40)
    labels, weights = rng.integers(0, 4, 40), rng.random(40)
    wanted = brier_score_loss(labels, probs, labels=[0, 1, 2, 3], sample_weight=weights, scale_by_half=False)
    assert calibration.brier(labels, probs, weights) == pytest.approx(wanted)
    outcome = np.append(labels[1:] == 0, True)
    wanted = brier_score_loss(outcome, probs[:, 0], sample_weight=weights, pos_label=True)
    assert calibration.binary_brier(outcome, probs[:, 0], weights) == pytest.approx(wanted)


def test_brier_of_two_classes_is_twice_the_binary_one():
    p = np.array([0.1, 0.4, 0.9])
    labels = np.array([0, 1, 1])
    both = calibration.brier(labels, np.stack([1 - p, p], axis=1))
    assert both == pytest.approx(2 * calibration.binary_brier(labels == 1, p))


def test_reliability_bins_equal_scikit_learn_and_add_up_to_ece():
    rng = np.random.default_rng(2)
    confidence = rng.random(300) ** 2
    outcome = rng.random(300) < confidence
    rows = calibration.reliability_bins(outcome, confidence, bins=15)
    filled = [row for row in rows if row.n]
    happened, said = calibration_curve(outcome, confidence, n_bins=15)
    np.testing.assert_allclose([row.accuracy for row in filled], happened)
    np.testing.assert_allclose([row.confidence for row in filled], said)
    assert len(rows) == 15 and sum(row.n for row in rows) == 300
    total = sum(row.n * abs(row.accuracy - row.confidence) for row in filled) / 300
    assert calibration.ece(outcome, confidence, bins=15) == pytest.approx(total)


def test_empty_bin_has_no_means():
    rows = calibration.reliability_bins(np.array([True]), np.array([0.99]), bins=2)
    assert rows[0].n == 0 and np.isnan(rows[0].confidence) and np.isnan(rows[0].accuracy)
    assert (rows[1].low, rows[1].high, rows[1].n, rows[1].accuracy) == (0.5, 1.0, 1, 1.0)


@pytest.mark.parametrize(
    ("confidence", "bins", "error"),
    [
        ([0.5, np.nan], 15, DataError),
        ([0.5, 1.2], 15, DataError),
        ([], 15, DataError),
        ([0.1, 0.2], 0, ConfigError),
    ],
)
def test_input_without_a_meaning_is_refused(confidence, bins: int, error: type[Exception]):
    with pytest.raises(error):
        calibration.ece(np.zeros(len(confidence), dtype=bool), np.array(confidence), bins=bins)
