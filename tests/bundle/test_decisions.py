"""What travels with a model file: calibration against SciPy, prediction sets, and a form that reads back exactly."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.special import log_softmax, softmax

from dermdistill.bundle.decisions import Calibration, Decisions
from dermdistill.errors import BundleError

LOGITS = np.random.default_rng(0).normal(0, 3, (200, 7))
VECTOR = Calibration("vector", (0.5, 1.0, 1.5, 1.0, 0.8, 0.9, 1.1), (0.0, 0.1, -0.1, 0.0, 0.3, -0.2, 0.0))
WHOLE = Decisions(VECTOR, {"youden": 0.2, "at_95_sensitivity": None}, (0.9, 0.8, None, 0.7, 0.6, 0.5, 0.95), 0.9, 0.4)


def test_vector_calibration_scales_log_probabilities() -> None:
    found = VECTOR.apply(softmax(LOGITS, axis=1))
    wanted = softmax(log_softmax(LOGITS, axis=1) * VECTOR.scale + VECTOR.bias, axis=1)
    assert np.allclose(found, wanted, atol=1e-12)


def test_temperature_divides_logits_and_keeps_their_order() -> None:
    calibration = Calibration.of_temperature(2.5, 7)
    found = calibration.apply(softmax(LOGITS, axis=1))
    assert np.allclose(found, softmax(LOGITS / 2.5, axis=1), atol=1e-12)
    assert calibration.temperature == pytest.approx(2.5)
    assert (found.argsort(axis=1) == LOGITS.argsort(axis=1)).all()


@given(arrays.arrays(np.float32, (5, 7), elements=st.floats(0, 1, width=32)))
def test_calibrated_probabilities_are_finite_and_add_up_to_one(raw: np.ndarray) -> None:
    found = VECTOR.apply(raw)
    assert np.isfinite(found).all() and np.allclose(found.sum(axis=1), 1)


def test_no_calibration_leaves_probabilities_as_they_are() -> None:
    raw = softmax(LOGITS, axis=1)
    assert (Calibration.identity(7).apply(raw) == raw).all()


def test_prediction_set_holds_what_the_quantile_of_its_class_admits_and_is_never_empty() -> None:
    decisions = replace(WHOLE, quantiles=(0.5, 0.5, None, 0.5, 0.5, 0.5, 0.2))
    probs = np.array([[0.6, 0.1, 0.0, 0.0, 0.0, 0.0, 0.3], [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.4]])
    assert decisions.sets(probs).tolist() == [
        [True, False, True, False, False, False, False],
        [False, False, True, False, False, False, False],
    ]
    narrow = replace(WHOLE, quantiles=(0.2,) * 7).sets(probs)
    assert narrow.tolist() == [[True] + [False] * 6, [False] * 6 + [True]]


def test_decisions_read_back_exactly() -> None:
    assert Decisions.from_dict(WHOLE.to_dict(), 7) == WHOLE


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"confidence": 1.5}, "hold 1.5"),
        ({"confidence": True}, "hold True"),
        ({"coverage": 1}, "hold 1"),
        ({"coverage": None}, "hold None"),
        ({"thresholds": {"best": 0.5}}, "thresholds"),
        ({"thresholds": {"youden": float("nan")}}, "hold nan"),
        ({"quantiles": [0.5]}, "1 quantiles"),
        ({"quantiles": 0.5}, "quantiles"),
        ({"calibration": {"method": "vector", "scale": [1.0] * 7}}, "calibration"),
        ({"calibration": {"method": "magic", "scale": [1.0] * 7, "bias": [0.0] * 7}}, "magic"),
        ({"calibration": {"method": "vector", "scale": [0.0] * 7, "bias": [0.0] * 7}}, "scales"),
        ({"calibration": {"method": "vector", "scale": [1.0] * 7, "bias": ["0"] * 7}}, "bias"),
        ({"calibration": {"method": "vector", "scale": [1.0] * 7, "bias": [float("inf")] * 7}}, "biases"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_decisions_with_a_value_that_cannot_be_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(BundleError, match=problem):
        Decisions.from_dict({**WHOLE.to_dict(), **changes}, 7)
