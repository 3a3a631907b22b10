"""Which figures an evaluation holds: each a function of one model's scores and of image weights.

Adding a metric is a function and one entry in ``DIAGNOSIS``, ``MELANOMA_VIEW`` or ``PER_CLASS``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from dermdistill.evaluate import calibration, metrics, operating_points
from dermdistill.evaluate.metrics import Bools, Floats, Ints
from dermdistill.labels import Task, class_names, melanoma_index

# Operating points on the melanoma probability, and the sensitivity that each held on validation.
AT_SENSITIVITY = {"at_80_sensitivity": 0.80, "at_90_sensitivity": 0.90, "at_95_sensitivity": 0.95}
# Means over all classes: over fewer classes they would be another figure under the same name.
OVER_ALL_CLASSES = tuple(f"diagnosis.{name}" for name in ("balanced_accuracy", "macro_f1", "macro_auc"))


@dataclass(frozen=True)
class Scored:
    """One model on one part.

    Attributes:
        labels: int [N].
        raw: float [N, K], whose largest value is the label that the model gives.
        probs: float [N, K], calibrated; everything but the label is told from them.
        task: names the classes.
        bins: of the calibration error.
        thresholds: on the calibrated probability of melanoma; None where validation could not give one.
    """

    labels: Ints
    raw: Floats
    probs: Floats
    task: Task
    bins: int
    thresholds: Mapping[str, float | None]

    @property
    def predicted(self) -> Ints:
        """The label that the model gives, [N]."""
        labels: Ints = self.raw.argmax(axis=1)
        return labels

    @property
    def melanoma(self) -> Bools:
        """Which images show a melanoma, [N]."""
        positive: Bools = self.labels == melanoma_index(self.task)
        return positive

    @property
    def melanoma_probs(self) -> Floats:
        """Probability of melanoma, [N]."""
        return self.probs[:, melanoma_index(self.task)]

    @property
    def confidence(self) -> Floats:
        """Probability of the label that the model gives, [N]."""
        return self.probs[np.arange(len(self.probs)), self.predicted]

    def stated(self) -> tuple[Bools, Floats]:
        """Outcome and probability for calibration: melanoma of two classes, else that the label is right."""
        if self.task == "melanoma":
            return self.melanoma, self.melanoma_probs
        return self.predicted == self.labels, self.confidence


Metric = Callable[[Scored, Floats], Floats]
Share = Callable[[Bools, Floats, float, Floats], Floats]


def _ece(scored: Scored, weights: Floats) -> Floats:
    outcome, confidence = scored.stated()
    return calibration.ece(outcome, confidence, bins=scored.bins, weights=weights)


def _melanoma_ece(scored: Scored, weights: Floats) -> Floats:
    return calibration.ece(scored.melanoma, scored.melanoma_probs, bins=scored.bins, weights=weights)


def _at(threshold_name: str, share: Share) -> Metric:
    def metric(scored: Scored, weights: Floats) -> Floats:
        threshold = scored.thresholds.get(threshold_name)
        if threshold is None:
            return np.full(weights.shape[:-1], np.nan)
        return share(scored.melanoma, scored.melanoma_probs, threshold, weights)

    return metric


def _predictive_value(threshold_name: str, *, positive: bool) -> Metric:
    def metric(scored: Scored, weights: Floats) -> Floats:
        threshold = scored.thresholds.get(threshold_name)
        if threshold is None:
            return np.full(weights.shape[:-1], np.nan)
        called = (scored.melanoma_probs >= threshold) == positive
        right = called & (scored.melanoma == positive)
        return metrics.ratio(weights @ right.astype(np.float64), weights @ called.astype(np.float64))

    return metric


DIAGNOSIS: dict[str, Metric] = {
    "accuracy": lambda s, w: metrics.accuracy(s.labels, s.raw, w),
    "balanced_accuracy": lambda s, w: metrics.balanced_accuracy(s.labels, s.raw, w),
    "macro_f1": lambda s, w: metrics.macro_f1(s.labels, s.raw, w),
    "weighted_f1": lambda s, w: metrics.weighted_f1(s.labels, s.raw, w),
    "macro_auc": lambda s, w: metrics.macro_auc(s.labels, s.probs, w),
    "ece": _ece,
}
MELANOMA_VIEW: dict[str, Metric] = {
    "roc_auc": lambda s, w: metrics.roc_auc(s.melanoma, s.melanoma_probs, w),
    "pr_auc": lambda s, w: metrics.pr_auc(s.melanoma, s.melanoma_probs, w),
    "sensitivity": _at("youden", operating_points.sensitivity_at),
    "specificity": _at("youden", operating_points.specificity_at),
    **{
        f"{name}_{point}": _at(point, share)
        for point in AT_SENSITIVITY
        for name, share in (
            ("sensitivity", operating_points.sensitivity_at),
            ("specificity", operating_points.specificity_at),
        )
    },
    "ppv_at_95_sensitivity": _predictive_value("at_95_sensitivity", positive=True),
    "npv_at_95_sensitivity": _predictive_value("at_95_sensitivity", positive=False),
    "ece": _melanoma_ece,
}
PER_CLASS: dict[str, Metric] = {
    "sensitivity": lambda s, w: metrics.sensitivity(s.labels, s.raw, w),
    "specificity": lambda s, w: metrics.specificity(s.labels, s.raw, w),
    "ppv": lambda s, w: metrics.ppv(s.labels, s.raw, w),
    "npv": lambda s, w: metrics.npv(s.labels, s.raw, w),
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
