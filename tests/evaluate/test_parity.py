import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from dermdistill.config import GateConfig
from dermdistill.evaluate.parity import gate_faults, parity, part_metrics

CLASSES = 7
MELANOMA = 4


def _part(seed: int, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(CLASSES), rng.integers(0, CLASSES, 200)])
    logits = rng.normal(size=(len(labels), CLASSES)) + 2 * np.eye(CLASSES)[labels]
    return (logits + noise * np.random.default_rng(seed).normal(size=logits.shape)).astype(np.float32), labels


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


def test_metrics_are_scikit_learns() -> None:
    logits, labels = _part(1)
    probs = _softmax(logits)
    found = part_metrics(logits, labels, "diagnosis")
    assert found["macro_auc"] == pytest.approx(roc_auc_score(labels, probs, multi_class="ovr"), abs=1e-6)
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, probs.argmax(axis=1)))
    assert found["melanoma_auc"] == pytest.approx(roc_auc_score(labels == MELANOMA, probs[:, MELANOMA]), abs=1e-6)
    assert found["accuracy"] == pytest.approx((probs.argmax(axis=1) == labels).mean())


def test_mean_over_classes_is_undefined_where_one_has_no_image() -> None:
    logits, labels = _part(1)
    kept = labels != MELANOMA
    found = part_metrics(logits[kept], labels[kept], "diagnosis")
    assert (found["macro_auc"], found["balanced_accuracy"], found["melanoma_auc"]) == (None, None, None)
    assert found["accuracy"] is not None


def test_differences_by_hand() -> None:
    reference, labels = _part(1)
    found = reference.copy()
    found[3] = np.roll(found[3], 1)
    result = parity(reference, found, labels, "diagnosis")
    gap = np.abs(found.astype(np.float64) - reference)
    assert result["n"] == len(labels)
    assert result["logits"] == {"largest": pytest.approx(gap.max()), "mean": pytest.approx(gap.mean())}
    assert result["same_label"] == pytest.approx(1 - 1 / len(labels))
    probs = np.abs(_softmax(found) - _softmax(reference))
    assert result["probabilities"]["largest"] == pytest.approx(probs.max(), abs=1e-6)
    own, theirs = part_metrics(found, labels, "diagnosis"), part_metrics(reference, labels, "diagnosis")
    assert result["differences"]["accuracy"] == pytest.approx(own["accuracy"] - theirs["accuracy"])  # type: ignore[operator]


def test_gate_names_every_limit_that_is_broken_and_lets_a_gain_pass() -> None:
    reference, labels = _part(1)
    worse, _ = _part(2, noise=2.0)
    strict = GateConfig(macro_auc=0.001, balanced_accuracy=0.001, same_label=0.999)
    faults = gate_faults(parity(reference, worse, labels, "diagnosis"), strict)
    assert [fault.split()[0] for fault in faults[:2]] == ["macro_auc", "balanced_accuracy"]
    assert "images keep their label, at least 99.90% must" in faults[2]
    gained = gate_faults(parity(worse, reference, labels, "diagnosis"), strict)
    assert len(gained) == 1
    assert "keep their label" in gained[0]
    assert gate_faults(parity(reference, reference, labels, "diagnosis"), strict) == []


def test_limit_itself_is_allowed() -> None:
    result = {"n": 100, "same_label": 0.99, "differences": {"macro_auc": -0.005, "balanced_accuracy": None}}
    assert gate_faults(result, GateConfig()) == []
    assert len(gate_faults({**result, "same_label": 0.98}, GateConfig())) == 1
