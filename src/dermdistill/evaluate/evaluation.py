"""From the long table of predictions to ``evaluation.json``: every figure, its interval, the notes it needs.

Thresholds come from rows of the part ``val`` alone, everything else from rows of ``test`` alone. A figure
that the test part does not define is null, never 0, and a note says why.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from dermdistill.config import EvaluateConfig
from dermdistill.evaluate import bootstrap, calibration, metrics, notes, operating_points
from dermdistill.evaluate.figures import (
    DIAGNOSIS,
    MELANOMA_VIEW,
    OVER_ALL_CLASSES,
    PER_CLASS,
    Scored,
    measure,
)
from dermdistill.evaluate.metrics import Bools, Floats
from dermdistill.evaluate.predictions import CONTROL, MODELS, prob_columns, validate_predictions
from dermdistill.labels import MELANOMA, Task, class_names

TARGET_SENSITIVITY = 0.95
DIFFERENCES = (("student", "teacher"), ("student_int8", "student"), ("student", CONTROL))
COMPARED = {**{name: f"diagnosis.{name}" for name in DIAGNOSIS}, "roc_auc": "melanoma.roc_auc"}

Json = dict[str, Any]


@dataclass(frozen=True)
class _Result:
    """One model: its scores on the test part, its figures, and the same in every replicate ([S] each)."""

    scored: Scored
    points: dict[str, float]
    samples: dict[str, Floats]

    def cell(self, name: str) -> Json:
        return bootstrap.estimate(self.points[name], self.samples[name])


def evaluate_predictions(
    predictions: pd.DataFrame,
    *,
    task: Task,
    protocol: str,
    leaky: bool,
    config: EvaluateConfig,
    models: tuple[str, ...] = MODELS,
) -> Json:
    """All figures of all models in the table, JSON-able; null, with a note, where the test part defines none.

    Args:
        predictions: the long table of ``predictions.py``, parts ``val`` and ``test``.
        task: ``diagnosis`` or ``melanoma``.
        protocol: how the data were split; ``published-oversampled`` may repeat images.
        leaky: whether that protocol lets a lesion be in two parts; a note then says so.
        config: bootstrap and calibration settings.
        models: that the table holds, in their order.

    Raises:
        DataError: the table is not what it must be, with every fault; see ``validate_predictions``.
    """
    frame = validate_predictions(predictions, task=task, protocol=protocol, models=models)
    parts = {(str(model), str(part)): rows for (model, part), rows in frame.groupby(["model", "split"])}
    present = [model for model in models if (model, "test") in parts]
    test = parts[present[0], "test"]
    counts = {code: int((test["label"] == index).sum()) for index, code in enumerate(class_names(task))}
    # One set of draws for all models, whose rows stand in the same order: differences are paired.
    weights = bootstrap.lesion_weights(test["lesion_id"], samples=config.bootstrap_samples, seed=config.bootstrap_seed)
    results = {}
    for model in present:
        chosen = validation_thresholds(parts[model, "val"])
        scored = _scored(parts[model, "test"], task, config, chosen)
        samples = bootstrap.replicates(partial(measure, scored), weights)
        results[model] = _Result(scored, _points(scored, counts), samples)
    lesions = int(test["lesion_id"].nunique())
    return {
        "task": task,
        "classes": list(class_names(task)),
        "protocol": protocol,
        "leaky": leaky,
        "n": {"images": len(test), "lesions": lesions, "per_class": counts},
        "models": {model: _model_block(result, counts) for model, result in results.items()},
        "differences": _difference_block(results),
        "bootstrap": {
            "samples": config.bootstrap_samples,
            "seed": config.bootstrap_seed,
            "unit": "lesion",
            "level": bootstrap.LEVEL,
        },
        "notes": [
            *notes.data_notes(protocol, leaky, len(test), int(test["image_id"].nunique())),
            *notes.few_cases(counts, int(_scored(parts[present[0], "val"], task, config, {}).melanoma.sum())),
            *notes.null_notes(
                {model: result.points for model, result in results.items()},
                {model: result.scored.thresholds for model, result in results.items()},
                counts,
            ),
            *(note for m, result in results.items() for note in notes.skipped_note(m, result.points, result.samples)),
        ],
    }


def validation_thresholds(validation: pd.DataFrame) -> dict[str, float | None]:
    """One model's melanoma thresholds from its predictions on the validation part.

    None where that part lacks melanomas (or, for Youden's, lacks anything else).

    Args:
        validation: rows of ``predictions_frame``.
    """
    positive = (validation["diagnosis"] == MELANOMA).to_numpy()
    scores = validation[f"prob_{MELANOMA}"].to_numpy(dtype=np.float64)
    some, others = bool(positive.any()), not positive.all()
    return {
        "youden": operating_points.youden(positive, scores) if some and others else None,
        "at_95_sensitivity": (
            operating_points.threshold_at_sensitivity(positive, scores, TARGET_SENSITIVITY) if some else None
        ),
    }


def _scored(rows: pd.DataFrame, task: Task, config: EvaluateConfig, thresholds: Mapping[str, float | None]) -> Scored:
    return Scored(
        labels=rows["label"].to_numpy(dtype=np.int64),
        probs=rows[prob_columns(task)].to_numpy(dtype=np.float64),
        task=task,
        bins=config.calibration_bins,
        thresholds=thresholds,
    )


def _points(scored: Scored, counts: Mapping[str, int]) -> dict[str, float]:
    """Figures on the test part itself, NaN where undefined."""
    values = {name: float(value) for name, value in measure(scored, np.ones(len(scored.labels))).items()}
    if 0 in counts.values():
        values |= dict.fromkeys(OVER_ALL_CLASSES, np.nan)
    return values


def _model_block(result: _Result, counts: Mapping[str, int]) -> Json:
    scored = result.scored
    return {
        "diagnosis": {name: result.cell(f"diagnosis.{name}") for name in DIAGNOSIS},
        "melanoma": {name: result.cell(f"melanoma.{name}") for name in MELANOMA_VIEW},
        "per_class": {
            code: {"n": n, **{name: result.cell(f"per_class.{code}.{name}") for name in PER_CLASS}}
            for code, n in counts.items()
        },
        "confusion": metrics.confusion(scored.labels, scored.probs).astype(int).tolist(),
        "thresholds": dict(scored.thresholds),
        "curves": _curves(scored),
    }


def _curves(scored: Scored) -> Json:
    """ROC and precision-recall of melanoma (empty lists with one class only) and the reliability diagram."""
    outcome, confidence = scored.confidence()
    bins = calibration.reliability_bins(outcome, confidence, bins=scored.bins)
    return {
        "roc": _curve("fpr", "tpr", operating_points.roc_curve, scored),
        "pr": _curve("recall", "precision", operating_points.pr_curve, scored),
        "reliability": [
            {
                "low": row.low,
                "high": row.high,
                "n": row.n,
                "confidence": bootstrap.number_or_none(row.confidence),
                "accuracy": bootstrap.number_or_none(row.accuracy),
            }
            for row in bins
        ],
    }


def _curve(x_name: str, y_name: str, draw: Any, scored: Scored) -> Json:
    positive: Bools = scored.melanoma
    if positive.all() or not positive.any():
        return {x_name: [], y_name: []}
    x, y = draw(positive, scored.melanoma_probs)
    return {x_name: x.tolist(), y_name: y.tolist()}


def _difference_block(results: Mapping[str, _Result]) -> Json:
    """Paired differences, for the pairs of which the table holds both models."""
    names = tuple(COMPARED.values())
    block: Json = {}
    for first, second in DIFFERENCES:
        if first in results and second in results:
            a, b = results[first], results[second]
            samples = bootstrap.differences(a.samples, b.samples, names)
            block[f"{first} - {second}"] = {
                key: bootstrap.estimate(a.points[name] - b.points[name], samples[name])
                for key, name in COMPARED.items()
            }
    return block
