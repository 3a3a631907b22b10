"""What an evaluation holds of one model's probabilities, prediction sets and abstention: JSON-able blocks.

Every figure is a cell ``{value, low, high}``, null where it is not defined; intervals are over lesions.

- ``calibration``: ``method``, ``scale`` [K], ``bias`` [K], ``cross_validation`` (the record of
  ``choose_calibration``), ``before`` and ``after`` (figures of raw and calibrated probabilities: ``label`` {``ece``,
  ``ece_equal_mass``, ``mce``}, ``melanoma`` {the same, ``brier``, ``reliability``, ``resolution``, ``uncertainty``,
  ``slope``, ``intercept``}, ``brier``, ``nll``), ``curves`` {``before``, ``after``} each {``label``, ``melanoma``},
  lists of bins {``low``, ``high``, ``n``, ``confidence``, ``accuracy``};
- ``conformal``: ``level``, ``quantiles`` [K], ``coverage``, ``mean_size``, ``singletons``, ``per_class`` {code: {``n``
  images, ``coverage``}}, where lesions count equally, as in the promise; ``image_coverage``, where images do;
- ``selective``: ``threshold``, ``target_coverage``, ``coverage``, ``accuracy``, ``accuracy_at_80``, ``aurc``,
  ``excess_aurc``, ``curve`` {``coverage``, ``risk``} of at most 201 points, on request ``melanoma``.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dermdistill.bundle.decisions import Calibration, Decisions
from dermdistill.evaluate import bootstrap, calibration_slope, conformal, selective
from dermdistill.evaluate import calibration as measures
from dermdistill.evaluate.metrics import Bools, Floats, Ints, ratio
from dermdistill.labels import Task, class_names, melanoma_index

POINTS = 200

Json = dict[str, Any]
Weights = npt.NDArray[np.uint16]
Figures = Callable[[Floats], Mapping[str, Floats]]


def _cells(figures: Figures, weights: Weights) -> Json:
    """Each figure of the images themselves with its interval."""
    values, samples = figures(np.ones(weights.shape[1])), bootstrap.replicates(figures, weights)
    return {
        name: bootstrap.estimate(float(value), samples[name], method=measures.interval_method(name))
        for name, value in values.items()
    }


def calibration_block(
    labels: Ints,
    raw: Floats,
    calibrated: Floats,
    calibration: Calibration,
    record: Mapping[str, Any],
    task: Task,
    weights: Weights,
    bins: int,
) -> Json:
    """Calibration before and after, of the label's confidence and of the probability of melanoma.

    The label is the largest raw probability, before and after alike.

    Args:
        labels: int [N], of the test part.
        raw: float [N, K].
        calibrated: float [N, K], ``calibration.apply(raw)``.
        calibration: chosen on the validation part.
        record: of ``choose_calibration``.
        task: names the classes.
        weights: [S, N] of ``lesion_weights``.
        bins: of calibration errors.
    """
    label = raw.argmax(axis=1)
    stages = {
        name: _Stage(labels, probs, label, melanoma_index(task), bins)
        for name, probs in (("before", raw), ("after", calibrated))
    }
    return {
        "method": calibration.method,
        "scale": list(calibration.scale),
        "bias": list(calibration.bias),
        "cross_validation": dict(record),
        **{name: stage.block(weights) for name, stage in stages.items()},
        "curves": {name: stage.curves() for name, stage in stages.items()},
    }


class _Stage:
    """One set of probabilities: outcome and confidence of the label and of melanoma."""

    def __init__(self, labels: Ints, probs: Floats, label: Ints, melanoma: int, bins: int) -> None:
        self.labels, self.probs, self.bins = labels, probs, bins
        self.views: dict[str, tuple[Bools, Floats]] = {
            "label": (label == labels, probs[np.arange(len(probs)), label]),
            "melanoma": (labels == melanoma, probs[:, melanoma]),
        }

    def figures(self, weights: Floats) -> dict[str, Floats]:
        found = {}
        for view, (outcome, confidence) in self.views.items():
            for name in ("ece", "mce"):
                found[f"{view}.{name}"] = getattr(measures, name)(outcome, confidence, bins=self.bins, weights=weights)
            found[f"{view}.ece_equal_mass"] = measures.equal_mass_ece(
                outcome, confidence, bins=self.bins, weights=weights
            )
        outcome, confidence = self.views["melanoma"]
        parts = measures.brier_parts(outcome, confidence, bins=self.bins, weights=weights)
        found |= dict(
            zip((f"melanoma.{name}" for name in ("reliability", "resolution", "uncertainty")), parts, strict=True)
        )
        return found | {
            "melanoma.brier": measures.binary_brier(outcome, confidence, weights),
            "melanoma.slope": calibration_slope.calibration_slope(outcome, confidence, weights),
            "melanoma.intercept": calibration_slope.calibration_intercept(outcome, confidence, weights),
            "brier": measures.brier(self.labels, self.probs, weights),
            "nll": measures.log_loss(self.labels, self.probs, weights),
        }

    def block(self, weights: Weights) -> Json:
        block: Json = {}
        for path, cell in _cells(self.figures, weights).items():
            view, _, name = path.rpartition(".")
            (block.setdefault(view, {}) if view else block)[name] = cell
        return block

    def curves(self) -> Json:
        return {
            view: [_bin(row) for row in measures.reliability_bins(outcome, confidence, bins=self.bins)]
            for view, (outcome, confidence) in self.views.items()
        }


def _bin(row: measures.ReliabilityBin) -> Json:
    means = {"confidence": row.confidence, "accuracy": row.accuracy}
    bounds: Json = {"low": row.low, "high": row.high, "n": row.n}
    return bounds | {name: bootstrap.number_or_none(value) for name, value in means.items()}


def conformal_block(
    labels: Ints,
    calibrated: Floats,
    decisions: Decisions,
    task: Task,
    weights: Weights,
    *,
    lesion_ids: npt.ArrayLike,
) -> Json:
    """What the prediction sets of validation's quantiles do on the test part; empty where there are no quantiles.

    Args:
        labels: int [N], of the test part.
        calibrated: float [N, K].
        decisions: with quantiles and the coverage that they promise.
        task: names the classes.
        weights: [S, N] of ``lesion_weights``.
        lesion_ids: [N]; each lesion counts once.
    """
    if not decisions.quantiles:
        return {}
    sets, codes, shares = decisions.sets(calibrated), class_names(task), conformal.lesion_shares(lesion_ids)

    def figures(rows: Floats) -> dict[str, Floats]:
        by_class = conformal.class_coverage(labels, sets, rows * shares)
        return {
            **conformal.set_figures(labels, sets, rows * shares),
            "image_coverage": conformal.set_figures(labels, sets, rows)["coverage"],
            **{f"class {code}": by_class[..., index] for index, code in enumerate(codes)},
        }

    cells = _cells(figures, weights)
    per_class = {
        code: {"n": int((labels == index).sum()), "coverage": cells.pop(f"class {code}")}
        for index, code in enumerate(codes)
    }
    return {"level": decisions.coverage, "quantiles": list(decisions.quantiles), **cells, "per_class": per_class}


def selective_block(
    correct: Bools,
    confidence: Floats,
    decisions: Decisions,
    weights: Weights,
    *,
    melanoma: Bools | None = None,
    target: float = selective.TARGET_COVERAGE,
) -> Json:
    """What withholding answers below validation's threshold does on the test part.

    Args:
        correct: bool [N], whether the model's label is the true one.
        confidence: float [N], calibrated probability of that label.
        decisions: with the confidence below which answers are withheld; with None all are given.
        weights: [S, N] of ``lesion_weights``.
        melanoma: bool [N]; with it ``melanoma`` {``n``, ``coverage``, ``sensitivity``} says how many melanomas are
            answered, and how many of those as melanoma.
        target: the coverage that the threshold had on validation.
    """
    threshold = 0.0 if decisions.confidence is None else decisions.confidence

    def figures(rows: Floats) -> dict[str, Floats]:
        curve = selective.risk_coverage(correct, confidence, rows)
        found = {
            "coverage": selective.coverage_at(confidence, threshold, rows),
            "accuracy": selective.accuracy_at(correct, confidence, threshold, rows),
            "accuracy_at_80": selective.accuracy_at_coverage(*curve, 0.8),
            "aurc": selective.aurc(*curve),
            "excess_aurc": selective.excess_aurc(*curve),
        }
        if melanoma is not None:
            answered = melanoma & (confidence >= threshold)
            drawn = rows @ answered.astype(np.float64)
            found["melanoma.coverage"] = ratio(drawn, rows @ melanoma.astype(np.float64))
            found["melanoma.sensitivity"] = ratio(rows @ (answered & correct).astype(np.float64), drawn)
        return found

    cells = _cells(figures, weights)
    block: Json = {"threshold": decisions.confidence, "target_coverage": target}
    if melanoma is not None:
        parts = {name: cells.pop(f"melanoma.{name}") for name in ("coverage", "sensitivity")}
        block["melanoma"] = {"n": int(melanoma.sum()), **parts}
    return {**block, **cells, "curve": _curve(correct, confidence)}


def _curve(correct: Bools, confidence: Floats) -> Json:
    """The risk-coverage curve at evenly spread thresholds, the highest and the lowest among them."""
    coverage, risk = selective.risk_coverage(correct, confidence)
    kept = np.unique(np.linspace(0, len(coverage) - 1, POINTS + 1).round().astype(int))
    return {"coverage": coverage[kept].tolist(), "risk": risk[kept].tolist()}
