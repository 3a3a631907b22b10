"""What the validation part decides for one model file: calibration, thresholds, prediction sets, when to abstain.

Only rows of the part ``val`` come in here, so nothing is chosen on the test part. The calibration is chosen by
cross-validation over lesions. Thresholds, quantiles and confidence are then read off the calibrated probabilities of
the same images, to which a map of at most 2 K numbers was fitted: they are a little too good, and the test part says
by how much.
"""

from typing import Any

import numpy as np
import pandas as pd

from dermdistill.bundle.decisions import Decisions
from dermdistill.evaluate import operating_points
from dermdistill.evaluate.conformal import class_quantiles
from dermdistill.evaluate.figures import AT_SENSITIVITY
from dermdistill.evaluate.metrics import Bools, Floats
from dermdistill.evaluate.predictions import prob_columns
from dermdistill.evaluate.recalibration import choose_calibration
from dermdistill.evaluate.selective import TARGET_COVERAGE, confidence_threshold
from dermdistill.labels import Task, melanoma_index

# What prediction sets promise for each class, and which share of images is to be answered.
SET_COVERAGE = 0.9
ANSWERED = TARGET_COVERAGE

# By model: the decisions, and how its calibration was chosen.
Decided = dict[str, tuple[Decisions, dict[str, Any]]]


def decide_on_validation(validation: pd.DataFrame, task: Task, *, seed: int = 0) -> tuple[Decisions, dict[str, Any]]:
    """Everything that the validation part decides for one model.

    Args:
        validation: its rows of ``predictions_frame`` on the part ``val``.
        task: names the classes.
        seed: of the folds that the calibration is chosen by.

    Returns:
        the decisions, and how the calibration was chosen (``choose_calibration``).
    """
    labels = validation["label"].to_numpy(dtype=np.int64)
    raw = validation[prob_columns(task)].to_numpy(dtype=np.float64)
    lesions = validation["lesion_id"].to_numpy()
    calibration, record = choose_calibration(labels, raw, lesions, seed=seed)
    probs = calibration.apply(raw)
    confidence = probs[np.arange(len(probs)), raw.argmax(axis=1)]
    melanoma = melanoma_index(task)
    decisions = Decisions(
        calibration=calibration,
        thresholds=melanoma_thresholds(labels == melanoma, probs[:, melanoma]),
        quantiles=class_quantiles(labels, probs, SET_COVERAGE, lesion_ids=lesions),
        coverage=SET_COVERAGE,
        confidence=confidence_threshold(confidence, ANSWERED),
    )
    return decisions, record


def decide_all(predictions: pd.DataFrame, task: Task) -> Decided:
    """What the validation part decides for every model of a table of ``predictions_frame`` rows."""
    validation = predictions[predictions["split"] == "val"]
    return {str(model): decide_on_validation(rows, task) for model, rows in validation.groupby("model")}


def melanoma_thresholds(positive: Bools, scores: Floats) -> dict[str, float | None]:
    """Operating points on the probability of melanoma, by the names in ``bundle.decisions.POINTS``.

    None where the images lack melanomas (or, for Youden's, lack anything else).

    Args:
        positive: bool [N].
        scores: float [N].
    """
    some, others = bool(positive.any()), not positive.all()
    return {
        "youden": operating_points.youden(positive, scores) if some and others else None,
        **{
            name: operating_points.threshold_at_sensitivity(positive, scores, target) if some else None
            for name, target in AT_SENSITIVITY.items()
        },
    }
