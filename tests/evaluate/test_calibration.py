"""Calibration against naive loops, scikit-learn and hand-made cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as sklearn_log_loss

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


@pytest.mark.parametrize("measure", [calibration.ece, calibration.equal_mass_ece, calibration.mce])
def test_probabilities_of_0_and_1_are_counted(measure):
    # All are wrong by a whole, so a measure that drops either end is below 1 or undefined.
    confidence = np.array([0.0, 0.0, 1.0, 1.0])
    assert measure(confidence == 0, confidence, bins=2) == pytest.approx(1.0)
    mixed = np.array([0.5, 0.5, 0.5, 1.0])
    outcome = np.array([True, False, True, False])
    last = calibration.reliability_bins(outcome, mixed, bins=2)[-1]
    assert (last.n, last.confidence, last.accuracy) == (1, 1.0, 0.0)


def test_equal_mass_ece_equals_quantile_bins_of_scikit_learn():
    rng = np.random.default_rng(3)
    confidence = rng.random(300) ** 4
    outcome = rng.random(300) < confidence**0.7
    happened, said = calibration_curve(outcome, confidence, n_bins=15, strategy="quantile")
    wanted = np.abs(happened - said).mean()
    assert calibration.equal_mass_ece(outcome, confidence, bins=15) == pytest.approx(wanted)
    assert calibration.ece(outcome, confidence, bins=15) != pytest.approx(wanted, abs=1e-4)


def test_equal_mass_bins_never_part_equal_confidences():
    confidence = np.array([0.2] * 7 + [0.9] * 3)
    outcome = np.arange(10) % 2 == 0
    wanted = 0.7 * abs(4 / 7 - 0.2) + 0.3 * abs(1 / 3 - 0.9)
    order = np.random.default_rng(0).permutation(10)
    for bins in (2, 5, 10):
        for index in (np.arange(10), order):
            assert calibration.equal_mass_ece(outcome[index], confidence[index], bins=bins) == pytest.approx(wanted)


def test_equal_mass_bins_stay_where_they_are_under_weights():
    rng = np.random.default_rng(4)
    confidence = rng.random(40)
    outcome, weights = rng.random(40) < 0.4, rng.integers(0, 4, (3, 40)).astype(float)
    edges = np.sort(confidence)[[9, 19, 29]]
    for row, answer in zip(
        weights, calibration.equal_mass_ece(outcome, confidence, bins=4, weights=weights), strict=True
    ):
        gaps = 0.0
        for index in range(4):
            inside = np.array([sum(value > edges) == index for value in confidence])
            gaps += abs((row * (outcome - confidence))[inside].sum())
        assert answer == pytest.approx(gaps / row.sum())


@settings(deadline=None)
@given(seed=SEEDS, bins=st.integers(1, 20), weighted=st.booleans())
def test_brier_parts_add_up_to_the_brier_score(seed: int, bins: int, weighted: bool):
    rng = np.random.default_rng(seed)
    confidence = rng.random(50) ** 2
    outcome = rng.random(50) < confidence
    weights = rng.integers(0, 3, 50).astype(float) + (np.arange(50) == 0) if weighted else None
    reliability, resolution, uncertainty = calibration.brier_parts(outcome, confidence, bins=bins, weights=weights)
    total = calibration.binary_brier(outcome, confidence, weights)
    assert reliability - resolution + uncertainty == pytest.approx(total)
    base = np.average(outcome, weights=weights)
    assert uncertainty == pytest.approx(base * (1 - base))
    assert reliability >= -1e-12


def test_brier_parts_are_murphys_where_a_bin_has_one_confidence():
    confidence = np.repeat([0.1, 0.5, 0.9], [20, 10, 10])
    outcome = np.concatenate([np.arange(20) < 4, np.arange(10) < 5, np.arange(10) < 8])
    reliability, resolution, uncertainty = calibration.brier_parts(outcome, confidence, bins=3)
    base = 17 / 40
    assert reliability == pytest.approx((20 * 0.1**2 + 10 * 0.1**2) / 40)
    assert resolution == pytest.approx((20 * (0.2 - base) ** 2 + 10 * (0.5 - base) ** 2 + 10 * (0.8 - base) ** 2) / 40)
    assert uncertainty == pytest.approx(base * (1 - base))


def test_log_loss_equals_scikit_learn_and_stays_finite():
    rng = np.random.default_rng(6)
    probs, labels, weights = rng.dirichlet(np.ones(4), 30), rng.integers(0, 4, 30), rng.random(30)
    wanted = sklearn_log_loss(labels, probs, labels=[0, 1, 2, 3], sample_weight=weights)
    assert calibration.log_loss(labels, probs, weights) == pytest.approx(wanted)
    assert calibration.log_loss(np.array([1]), np.array([[1.0, 0.0]])) == pytest.approx(-np.log(1e-12))
