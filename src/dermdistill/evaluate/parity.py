"""What a file lost on its way out of PyTorch: logits, probabilities, labels and metrics beside those of the student."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dermdistill.bundle.predictor import softmax
from dermdistill.config import GateConfig
from dermdistill.evaluate import metrics
from dermdistill.labels import Task, class_names, melanoma_index

Floats = npt.NDArray[np.float32]


def part_metrics(logits: Floats, labels: npt.NDArray[np.int64], task: Task) -> dict[str, float | None]:
    """Macro AUC, balanced accuracy, melanoma AUC and accuracy of one model on one part.

    Args:
        logits: [N, K].
        labels: [N].
        task: names the classes.

    Returns:
        by name; None where the part does not define it: a mean over classes of which one has no image there.
    """
    probs = softmax(logits).astype(np.float64)
    whole = len(np.unique(labels)) == len(class_names(task))
    melanoma = labels == melanoma_index(task)
    values = {
        "macro_auc": float(metrics.macro_auc(labels, probs)) if whole else np.nan,
        "balanced_accuracy": float(metrics.balanced_accuracy(labels, probs)) if whole else np.nan,
        "melanoma_auc": float(metrics.roc_auc(melanoma, probs[:, melanoma_index(task)])),
        "accuracy": float(metrics.accuracy(labels, probs)),
    }
    return {name: value if np.isfinite(value) else None for name, value in values.items()}


def parity(reference: Floats, found: Floats, labels: npt.NDArray[np.int64], task: Task) -> dict[str, Any]:
    """How far one file is from the FP32 PyTorch student on the same images.

    Args:
        reference: logits [N, K] of the student.
        found: logits [N, K] of the file in its own runtime.
        labels: [N].
        task: names the classes.

    Returns:
        ``n``; ``logits`` and ``probabilities``: largest and mean absolute difference; ``same_label``: share of images;
        ``metrics`` of the file, and their ``differences`` from the student's (None where undefined).
    """
    probs = [softmax(values).astype(np.float64) for values in (reference, found)]
    own, theirs = part_metrics(found, labels, task), part_metrics(reference, labels, task)
    return {
        "n": len(labels),
        "logits": _gap(reference.astype(np.float64), found.astype(np.float64)),
        "probabilities": _gap(*probs),
        "same_label": float((reference.argmax(axis=1) == found.argmax(axis=1)).mean()),
        "metrics": own,
        "differences": {name: _difference(own[name], theirs[name]) for name in own},
    }


def gate_faults(result: Mapping[str, Any], gate: GateConfig) -> list[str]:
    """Which limits of the gate a file breaks, one line each.

    A metric that the part does not define is no fault.

    Args:
        result: of ``parity``.
        gate: the limits.
    """
    faults = []
    for name, limit in (("macro_auc", gate.macro_auc), ("balanced_accuracy", gate.balanced_accuracy)):
        difference = result["differences"][name]
        if difference is not None and -difference > limit:
            faults.append(f"{name} fell by {-difference:.4f}, at most {limit:g} is allowed")
    if result["same_label"] < gate.same_label:
        share = result["same_label"]
        faults.append(f"{share:.2%} of {result['n']} images keep their label, at least {gate.same_label:.2%} must")
    return faults


def _gap(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> dict[str, float]:
    gap = np.abs(first - second)
    return {"largest": float(gap.max()), "mean": float(gap.mean())}


def _difference(own: float | None, theirs: float | None) -> float | None:
    return None if own is None or theirs is None else own - theirs
