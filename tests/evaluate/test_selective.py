"""Abstention against naive loops over sorted images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermdistill.errors import ConfigError, DataError
from dermdistill.evaluate import selective

SEEDS = st.integers(0, 2**32 - 1)


def cohort(seed: int, images: int = 50, steps: int = 0):
    rng = np.random.default_rng(seed)
    confidence = rng.random(images) if steps == 0 else rng.integers(0, steps, images) / steps
    return rng.random(images) < 0.3 + 0.6 * confidence, confidence, rng


@settings(deadline=None)
@given(seed=SEEDS, images=st.integers(1, 50))
def test_curve_and_area_equal_a_naive_loop(seed: int, images: int):
    correct, confidence, _ = cohort(seed, images)
    order = sorted(range(images), key=lambda i: -confidence[i])
    risks = [1 - np.mean([correct[i] for i in order[: k + 1]]) for k in range(images)]
    coverage, risk = selective.risk_coverage(correct, confidence)
    np.testing.assert_allclose(coverage, np.arange(1, images + 1) / images)
    np.testing.assert_allclose(risk, risks, atol=1e-12)
    assert selective.aurc(coverage, risk) == pytest.approx(np.mean(risks))


@settings(deadline=None)
@given(seed=SEEDS, steps=st.sampled_from([0, 8]))
def test_weights_are_repetitions(seed: int, steps: int):
    correct, confidence, rng = cohort(seed, steps=steps)
    rows = rng.integers(0, 3, (4, 50))
    curve = selective.risk_coverage(correct, confidence, rows)
    threshold = float(np.median(confidence))
    for index, row in enumerate(rows):
        times = np.repeat(np.arange(50), row)
        copy = correct[times], confidence[times]
        wanted = selective.risk_coverage(*copy)
        assert selective.aurc(*curve)[index] == pytest.approx(selective.aurc(*wanted))
        assert selective.excess_aurc(*curve)[index] == pytest.approx(selective.excess_aurc(*wanted))
        for target in (0.5, 0.8, 1.0):
            found = selective.accuracy_at_coverage(*curve, target)[index]
            assert found == pytest.approx(selective.accuracy_at_coverage(*wanted, target))
        assert selective.coverage_at(confidence, threshold, rows)[index] == pytest.approx(np.mean(copy[1] >= threshold))
        wanted_accuracy = copy[0][copy[1] >= threshold].mean()
        assert selective.accuracy_at(correct, confidence, threshold, rows)[index] == pytest.approx(wanted_accuracy)


def test_excess_is_next_to_nothing_for_a_perfect_order_and_large_for_a_reversed_one():
    correct = np.arange(2000) < 1600
    perfect, reversed_ = (selective.risk_coverage(correct, s * np.arange(2000.0)) for s in (-1, 1))
    assert 0 <= selective.excess_aurc(*perfect) < 1e-3
    assert selective.aurc(*perfect) == pytest.approx(0.2 + 0.8 * np.log(0.8), abs=1e-3)
    assert selective.excess_aurc(*reversed_) > 0.4


@settings(deadline=None)
@given(seed=SEEDS, steps=st.sampled_from([0, 3]))
def test_excess_is_never_negative(seed: int, steps: int):
    correct, confidence, _ = cohort(seed, 20, steps)
    assert selective.excess_aurc(*selective.risk_coverage(correct, confidence)) >= -1e-12


@pytest.mark.parametrize("correct", [True, False])
def test_all_right_and_all_wrong(correct: bool):
    curve = selective.risk_coverage(np.full(5, correct), np.arange(5.0))
    assert selective.aurc(*curve) == (0.0 if correct else 1.0)
    assert selective.excess_aurc(*curve) == 0.0


@settings(deadline=None)
@given(seed=SEEDS, coverage=st.sampled_from([0.1, 0.3, 0.5, 0.8, 0.95, 1.0]), steps=st.sampled_from([0, 8]))
def test_threshold_is_the_highest_that_answers_enough(seed: int, coverage: float, steps: int):
    _, confidence, _ = cohort(seed, steps=steps)
    threshold = selective.confidence_threshold(confidence, coverage)
    enough = [value for value in confidence if np.mean(confidence >= value) >= coverage - 1e-9]
    assert threshold == max(enough)
    assert selective.coverage_at(confidence, threshold) >= coverage - 1e-9


def test_accuracy_at_coverage_is_that_of_its_own_threshold():
    correct, confidence, _ = cohort(7, 100)
    threshold = selective.confidence_threshold(confidence, 0.8)
    wanted = selective.accuracy_at(correct, confidence, threshold)
    assert selective.accuracy_at_coverage(*selective.risk_coverage(correct, confidence), 0.8) == pytest.approx(wanted)
    assert wanted == pytest.approx(correct[np.argsort(-confidence)[:80]].mean())


def test_nothing_answered_and_nothing_drawn_are_nan():
    correct, confidence, _ = cohort(1, 10)
    assert np.isnan(selective.accuracy_at(correct, confidence, 2.0))
    curve = selective.risk_coverage(correct, confidence, np.zeros(10))
    for value in (selective.aurc(*curve), selective.excess_aurc(*curve), selective.accuracy_at_coverage(*curve, 0.8)):
        assert np.isnan(value)


def test_input_without_a_meaning_is_refused():
    correct, confidence, _ = cohort(1, 10)
    for coverage in (0.0, 1.1):
        with pytest.raises(ConfigError):
            selective.confidence_threshold(confidence, coverage)
        with pytest.raises(ConfigError):
            selective.accuracy_at_coverage(*selective.risk_coverage(correct, confidence), coverage)
    with pytest.raises(DataError):
        selective.confidence_threshold(np.array([]), 0.8)
    with pytest.raises(DataError):
        selective.accuracy_at(correct, confidence, np.nan)
