"""Which figures an evaluation holds: each a function of one model's scores and of image weights.

Adding a metric is a function and one entry in ``DIAGNOSIS``, ``MELANOMA_VIEW`` or ``PER_CLASS``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from dermdistill.evaluate import calibration, metrics, operating_points
from dermdistill.evaluate.metrics import Bools, Floats, Ints
from dermdistill.labels import Task, class_names, melanoma_index

# Means over all classes: over fewer classes they would be another figure under the same name.
OVER_ALL_CLASSES = tuple(f"diagnosis.{name}" for name in ("balanced_accuracy", "macro_f1", "macro_auc"))


@dataclass(frozen=True)
class Scored:
    """One model on one part. Thresholds are None where validation could not give them."""

    labels: Ints
    probs: Floats
    task: Task
    bins: int
    thresholds: Mapping[str, float | None]

    @property
    def melanoma(self) -> Bools:
        """Which images show a melanoma, [N]."""
        positive: Bools = self.labels == melanoma_index(self.task)
        return positive

    @property
    def melanoma_probs(self) -> Floats:
        """Probability of melanoma, [N]."""
        return self.probs[:, melanoma_index(self.task)]

    def confidence(self) -> tuple[Bools, Floats]:
        """Outcome and confidence for calibration: melanoma of two classes, else the predicted class."""
        if self.task == "melanoma":
            return self.melanoma, self.melanoma_probs
        confidence, outcome = calibration.top_label(self.labels, self.probs)
        return outcome, confidence


Metric = Callable[[Scored, Floats], Floats]
Share = Callable[[Bools, Floats, float, Floats], Floats]


def _ece(scored: Scored, weights: Floats) -> Floats:
    outcome, confidence = scored.confidence()
    return calibration.ece(outcome, confidence, bins=scored.bins, weights=weights)


def _melanoma_ece(scored: Scored, weights: Floats) -> Floats:
    return calibration.ece(scored.melanoma, scored.melanoma_probs, bins=scored.bins, weights=weights)


def _at(threshold_name: str, share: Share) -> Metric:
    def metric(scored: Scored, weights: Floats) -> Floats:
        threshold = scored.thresholds[threshold_name]
        if threshold is None:
            return np.full(weights.shape[:-1], np.nan)
        return share(scored.melanoma, scored.melanoma_probs, threshold, weights)

    return metric


DIAGNOSIS: dict[str, Metric] = {
    "accuracy": lambda s, w: metrics.accuracy(s.labels, s.probs, w),
    "balanced_accuracy": lambda s, w: metrics.balanced_accuracy(s.labels, s.probs, w),
    "macro_f1": lambda s, w: metrics.macro_f1(s.labels, s.probs, w),
    "weighted_f1": lambda s, w: metrics.weighted_f1(s.labels, s.probs, w),
    "macro_auc": lambda s, w: metrics.macro_auc(s.labels, s.probs, w),
    "ece": _ece,
}
MELANOMA_VIEW: dict[str, Metric] = {
    "roc_auc": lambda s, w: metrics.roc_auc(s.melanoma, s.melanoma_probs, w),
    "pr_auc": lambda s, w: metrics.pr_auc(s.melanoma, s.melanoma_probs, w),
    "sensitivity": _at("youden", operating_points.sensitivity_at),
    "specificity": _at("youden", operating_points.specificity_at),
    "sensitivity_at_95_sensitivity": _at("at_95_sensitivity", operating_points.sensitivity_at),
    "specificity_at_95_sensitivity": _at("at_95_sensitivity", operating_points.specificity_at),
    "ece": _melanoma_ece,
}
PER_CLASS: dict[str, Metric] = {
    "sensitivity": lambda s, w: metrics.sensitivity(s.labels, s.probs, w),
    "specificity": lambda s, w: metrics.specificity(s.labels, s.probs, w),
    "ppv": lambda s, w: metrics.ppv(s.labels, s.probs, w),
    "npv": lambda s, w: metrics.npv(s.labels, s.probs, w),
    "auc": lambda s, w: metrics.class_auc(s.labels, s.probs, w),
}


def measure(scored: Scored, weights: Floats) -> dict[str, Floats]:
    """Every figure of one model.

    Args:
        scored: N images.
        weights: [..., N].

    Returns:
        {``diagnosis.METRIC`` | ``melanoma.METRIC`` | ``per_class.CLASS.METRIC``: [...]}, NaN where undefined.
    """
    figures = {f"diagnosis.{name}": metric(scored, weights) for name, metric in DIAGNOSIS.items()}
    figures |= {f"melanoma.{name}": metric(scored, weights) for name, metric in MELANOMA_VIEW.items()}
    for name, metric in PER_CLASS.items():
        values = metric(scored, weights)
        for index, code in enumerate(class_names(scored.task)):
            figures[f"per_class.{code}.{name}"] = values[..., index]
    return figures
