"""From the long table of predictions to ``evaluation.json``: every figure, its interval, the notes it needs.

What validation decides (calibration, thresholds, quantiles) comes from rows of the part ``val`` alone, everything else
from rows of ``test`` alone. A figure that the test part does not define is null, never 0, and a note says why.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermdistill.bundle.decisions import Decisions
from dermdistill.config import EvaluateConfig
from dermdistill.evaluate import bootstrap, calibration, metrics, notes, operating_points
from dermdistill.evaluate.calibration_blocks import calibration_block, conformal_block, selective_block
from dermdistill.evaluate.cases import choose_cases
from dermdistill.evaluate.decide import Decided, decide_all
from dermdistill.evaluate.delong import delong_difference
from dermdistill.evaluate.figures import (
    DIAGNOSIS,
    MELANOMA_VIEW,
    OVER_ALL_CLASSES,
    PER_CLASS,
    Scored,
    measure,
)
from dermdistill.evaluate.metrics import Bools, Floats
from dermdistill.evaluate.net_benefit import use_block
from dermdistill.evaluate.predictions import CONTROL, MODELS, prob_columns, validate_predictions
from dermdistill.labels import MELANOMA, Task, class_names

# These pairs come first and in this order; every other pair of models follows.
FIRST_PAIRS = (("student", "teacher"), ("student_int8", "student"), ("student", CONTROL))
COMPARED = {
    **{name: f"diagnosis.{name}" for name in DIAGNOSIS},
    **{name: f"melanoma.{name}" for name in ("roc_auc", "pr_auc", "specificity_at_95_sensitivity")},
}
SHIPPED = "student_int8"

Json = dict[str, Any]


@dataclass(frozen=True)
class _Result:
    """One model: its scores on the test part, its figures, and the same in every replicate ([S] each)."""

    scored: Scored
    points: dict[str, float]
    samples: dict[str, Floats]

    def cell(self, name: str) -> Json:
        method = calibration.interval_method(name)
        return bootstrap.estimate(self.points[name], self.samples[name], method=method)


def evaluate_predictions(
    predictions: pd.DataFrame,
    *,
    task: Task,
    protocol: str,
    leaky: bool,
    config: EvaluateConfig,
    models: tuple[str, ...] = MODELS,
    decided: Decided | None = None,
) -> Json:
    """All figures of all models in the table, JSON-able; null, with a note, where the test part defines none.

    Args:
        predictions: the long table of ``predictions.py``, parts ``val`` and ``test``.
        task: ``diagnosis`` or ``melanoma``.
        protocol: how the data were split; ``published-oversampled`` may repeat images.
        leaky: whether that protocol lets a lesion be in two parts; a note then says so.
        config: bootstrap and calibration settings.
        models: that the table holds, in their order.
        decided: of ``decide_all`` for the same table, where that was done before.

    Raises:
        DataError: the table is not what it must be, with every fault; see ``validate_predictions``.
    """
    frame = validate_predictions(predictions, task=task, protocol=protocol, models=models)
    decided = decide_all(frame, task) if decided is None else decided
    result = evaluate_test(
        frame[frame["split"] == "test"],
        task=task,
        config=config,
        decisions={model: decided[model][0] for model in models if model in decided},
        records={model: record for model, (_, record) in decided.items()},
    )
    test, counts = frame[frame["split"] == "test"], result["n"]["per_class"]
    first = test[test["model"] == models[0]]
    validation = frame[(frame["split"] == "val") & (frame["model"] == models[0])]
    melanomas = int((validation["diagnosis"] == MELANOMA).sum())
    said = [
        *notes.data_notes(protocol, leaky, len(first), int(first["image_id"].nunique())),
        *notes.few_cases(counts, melanomas),
    ]
    return {**result, "protocol": protocol, "leaky": leaky, "notes": [*said, *result["notes"]]}


def evaluate_test(
    test: pd.DataFrame,
    *,
    task: Task,
    config: EvaluateConfig,
    decisions: Mapping[str, Decisions],
    records: Mapping[str, Json] | None = None,
) -> Json:
    """Figures of models on one set of images, by decisions that were made elsewhere.

    Args:
        test: rows of ``predictions_frame``, of the same images for every model, already validated.
        task: names the classes.
        config: bootstrap and calibration settings.
        decisions: for each model that is to be evaluated, in their order.
        records: how their calibration was chosen, where that is known.

    Returns:
        as ``evaluate_predictions``, without ``protocol`` and ``leaky``.
    """
    rows = {model: test[test["model"] == model] for model in decisions}
    first = next(iter(rows.values()))
    counts = {code: int((first["label"] == index).sum()) for index, code in enumerate(class_names(task))}
    # One set of draws for all models, whose rows stand in the same order: differences are paired.
    weights = bootstrap.lesion_weights(first["lesion_id"], samples=config.bootstrap_samples, seed=config.bootstrap_seed)
    results = {}
    for model, own in decisions.items():
        scored = scored_rows(rows[model], task, config.calibration_bins, own)
        samples = bootstrap.replicates(partial(measure, scored), weights)
        results[model] = _Result(scored, _points(scored, counts), samples)
    blocks = {
        model: _model_block(result, counts)
        | _evidence(result.scored, decisions[model], (records or {}).get(model), weights, rows[model]["lesion_id"])
        for model, result in results.items()
    }
    shown = SHIPPED if SHIPPED in rows else list(rows)[-1]
    cases = choose_cases(_case_rows(rows[shown], results[shown].scored), classes=class_names(task))
    return {
        "task": task,
        "classes": list(class_names(task)),
        "n": {"images": len(first), "lesions": int(first["lesion_id"].nunique()), "per_class": counts},
        "models": blocks,
        "differences": _difference_block(results),
        "delong": _delong_block(results, first["lesion_id"].to_numpy()),
        "cases": {"model": shown, **cases},
        "bootstrap": {
            "samples": config.bootstrap_samples,
            "seed": config.bootstrap_seed,
            "unit": "lesion",
            "level": bootstrap.LEVEL,
        },
        "notes": [
            *notes.null_notes(
                {model: result.points for model, result in results.items()},
                {model: result.scored.thresholds for model, result in results.items()},
                counts,
            ),
            *(note for m, result in results.items() for note in notes.skipped_note(m, result.points, result.samples)),
        ],
    }


def scored_rows(rows: pd.DataFrame, task: Task, bins: int, decisions: Decisions) -> Scored:
    """One model's rows with its probabilities calibrated."""
    raw = rows[prob_columns(task)].to_numpy(dtype=np.float64)
    return Scored(
        labels=rows["label"].to_numpy(dtype=np.int64),
        raw=raw,
        probs=decisions.calibration.apply(raw),
        task=task,
        bins=bins,
        thresholds=decisions.thresholds,
    )


def _evidence(
    scored: Scored,
    decisions: Decisions,
    record: Json | None,
    weights: npt.NDArray[np.uint16],
    lesions: "pd.Series[str]",
) -> Json:
    """What a model knows of its own uncertainty, and what its decisions are worth."""
    return {
        "calibration": calibration_block(
            scored.labels,
            scored.raw,
            scored.probs,
            decisions.calibration,
            record or {},
            scored.task,
            weights,
            scored.bins,
        ),
        "conformal": conformal_block(
            scored.labels, scored.probs, decisions, scored.task, weights, lesion_ids=lesions.to_numpy()
        ),
        "selective": selective_block(
            scored.predicted == scored.labels, scored.confidence, decisions, weights, melanoma=scored.melanoma
        ),
        "use": use_block(scored.melanoma, scored.melanoma_probs, scored.thresholds, weights),
    }


def _case_rows(rows: pd.DataFrame, scored: Scored) -> pd.DataFrame:
    return rows[["image_id", "lesion_id", "diagnosis", "label"]].assign(
        predicted=scored.predicted, confidence=scored.confidence, melanoma_prob=scored.melanoma_probs
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
        "confusion": metrics.confusion(scored.labels, scored.raw).astype(int).tolist(),
        "thresholds": dict(scored.thresholds),
        "curves": _curves(scored),
    }


def _curves(scored: Scored) -> Json:
    """ROC and precision-recall of melanoma (empty lists with one class only) and the reliability diagram."""
    outcome, confidence = scored.stated()
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


def _pairs(models: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Every pair of models once."""
    first = [pair for pair in FIRST_PAIRS if set(pair) <= set(models)]
    known = {frozenset(pair) for pair in first}
    return first + [(b, a) for a, b in combinations(models, 2) if frozenset((a, b)) not in known]


def _difference_block(results: Mapping[str, _Result]) -> Json:
    """Paired differences of all pairs of models."""
    names = tuple(COMPARED.values())
    block: Json = {}
    for first, second in _pairs(results):
        a, b = results[first], results[second]
        samples = bootstrap.differences(a.samples, b.samples, names)
        block[f"{first} - {second}"] = {
            key: bootstrap.estimate(a.points[name] - b.points[name], samples[name]) for key, name in COMPARED.items()
        }
    return block


def _delong_block(results: Mapping[str, _Result], lesions: npt.NDArray[Any]) -> Json:
    """The same differences of melanoma ROC AUC by another way, as a cross-check; empty where there is one class."""
    block: Json = {}
    for first, second in _pairs(results):
        a, b = results[first].scored, results[second].scored
        if a.melanoma.any() and not a.melanoma.all():
            block[f"{first} - {second}"] = delong_difference(
                a.melanoma, a.melanoma_probs, b.melanoma_probs, lesion_ids=lesions
            )
    return block
