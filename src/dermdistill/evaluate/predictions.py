"""Predicted probabilities of all models as one long table: made from logits, checked, written and read.

One row a model, part and image. Metrics can be computed again from this file alone, without images or models.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermdistill.atomic import atomic_path
from dermdistill.bundle.predictor import FLIPPED, softmax
from dermdistill.errors import DataError
from dermdistill.evaluate.prediction_faults import (
    IMAGE,
    LISTED,
    label_faults,
    missing_columns,
    part_faults,
    repeat_faults,
    unknown,
    value_faults,
)
from dermdistill.labels import CODES, Task, class_names, encode

MODELS = ("teacher", "student", "student_int8")
# The student that was trained on labels alone, in runs that have it.
CONTROL = "no_teacher"
# The INT8 student's average over an image and its reflections: four times the work, no other file.
FLIPPED_INT8 = f"student_int8{FLIPPED}"
PARTS = ("val", "test")
KEYS = ("model", "split", "image_id", "lesion_id", "diagnosis", "label")


def prob_columns(task: Task) -> list[str]:
    """Names of the probability columns of a task in the order of its logits: ``prob_<class>``."""
    return [f"prob_{name}" for name in class_names(task)]


def allows_repeats(protocol: str) -> bool:
    """Whether a protocol repeats images: one image then has several rows, and may be in both parts."""
    return protocol == "published-oversampled"


def predictions_frame(
    model_name: str,
    split: str,
    catalog_rows: pd.DataFrame,
    logits: npt.ArrayLike,
    task: Task,
    *,
    models: Sequence[str] | None = MODELS,
) -> pd.DataFrame:
    """The rows of one model on one part.

    Args:
        model_name: one of ``models``.
        split: ``val`` or ``test``.
        catalog_rows: N rows with image_id, lesion_id and diagnosis, in the order of the logits.
        logits: [N, K], K classes of the task.
        task: decides classes and labels.
        models: the names there can be: those of a run, or None where any name will do (arms of an ablation).

    Returns:
        N rows: model, split, image_id, lesion_id, diagnosis, label, prob_<class> (float32).

    Raises:
        DataError: shapes that do not fit, NaN or infinite logits, an unknown name, diagnosis or part.
    """
    values, ids = np.asarray(logits), catalog_rows["image_id"].tolist()
    columns = prob_columns(task)
    if values.shape != (len(ids), len(columns)):
        raise DataError(
            f"{model_name}, {split}: logits {list(values.shape)}, {len(ids)} images, {len(columns)} classes",
            rule=f"logits are [images, classes], here [{len(ids)}, {len(columns)}]",
        )
    broken = ~np.isfinite(values).all(axis=1)
    if broken.any():
        raise DataError(
            f"{model_name}, {split}: {broken.sum()} of {len(ids)} images have NaN or infinite logits",
            faults=[str(ids[index]) for index in np.flatnonzero(broken)[:LISTED]],
            next_step="look at the training log of this model: its weights may have diverged",
        )
    frame = catalog_rows[["image_id", "lesion_id", "diagnosis"]].reset_index(drop=True)
    frame.insert(0, "model", model_name)
    frame.insert(1, "split", split)
    faults = [*unknown(frame, "model", models), *unknown(frame, "split", PARTS)]
    faults += unknown(frame, "diagnosis", CODES)
    if faults:
        raise DataError("predictions cannot be made", faults=faults)
    frame["label"] = np.array([encode(code, task) for code in frame["diagnosis"]], dtype=np.int64)
    frame[columns] = softmax(values)
    return frame


def validate_predictions(
    frame: pd.DataFrame,
    *,
    task: Task,
    protocol: str,
    models: Sequence[str] | None = MODELS,
    parts: Sequence[str] = PARTS,
) -> pd.DataFrame:
    """Check a long table and put it in order (model, part, image).

    Args:
        frame: the rows of all models and parts.
        task: decides the columns.
        protocol: ``published-oversampled`` may repeat images.
        models: the names there can be, in their order; None for any names, in alphabetical order.
        parts: the parts that every model must have, and no others.

    Raises:
        DataError: every fault at once: a missing column, an unknown model, part or diagnosis, a part without rows,
            probabilities that are NaN, outside [0, 1] or do not add up to 1, a label unlike the diagnosis,
            an image twice, models that were not given the same images.
    """
    columns = prob_columns(task)
    faults = missing_columns(frame, [*KEYS, *columns])
    if faults:
        raise DataError(
            f"predictions for the task {task!r} are incomplete",
            faults=faults,
            rule=f"columns are {', '.join((*KEYS, *columns))}",
        )
    faults = [*value_faults(frame, columns, models, parts), *label_faults(frame, task)]
    if not allows_repeats(protocol):
        faults += repeat_faults(frame)
    names = sorted(frame["model"].astype(str).unique()) if models is None else list(models)
    faults += part_faults(frame, names, parts)
    if faults:
        raise DataError("predictions cannot be evaluated", faults=faults, next_step="make the predictions again")
    order = frame["model"].map({name: index for index, name in enumerate(names)})
    keyed = frame[[*KEYS, *columns]].assign(_order=order)
    return keyed.sort_values(["_order", "split", *IMAGE], kind="stable", ignore_index=True).drop(columns="_order")


def single_part_faults(frame: pd.DataFrame, *, task: Task, part: str) -> list[str]:
    """What is wrong with the rows of one trained model, under any name, on one part.

    Images may be there several times, as some protocols repeat them.

    Args:
        frame: rows of ``predictions_frame``.
        task: decides the columns.
        part: the one part that all rows must be of.

    Returns:
        one line a fault, none where the rows can be measured.
    """
    columns = prob_columns(task)
    missing = missing_columns(frame, [*KEYS, *columns])
    if missing or frame.empty:
        return missing or ["there are no rows"]
    faults = [*value_faults(frame, columns, None, (part,)), *label_faults(frame, task)]
    names = sorted(frame["model"].astype(str).unique())
    if len(names) > 1:
        faults.append(f"rows of {len(names)} models, {', '.join(names[:LISTED])}, where one is expected")
    return faults


def write_predictions(
    frame: pd.DataFrame,
    path: Path,
    *,
    task: Task,
    protocol: str,
    models: Sequence[str] | None = MODELS,
    parts: Sequence[str] = PARTS,
) -> None:
    """Check a long table and write it as Parquet, whole or not at all.

    Raises:
        DataError: see ``validate_predictions``; nothing is written.
        OutputError: the file cannot be written.
    """
    checked = validate_predictions(frame, task=task, protocol=protocol, models=models, parts=parts)
    with atomic_path(path) as temporary:
        checked.to_parquet(temporary, index=False)


def read_predictions(
    path: Path,
    *,
    task: Task,
    protocol: str,
    models: Sequence[str] | None = MODELS,
    parts: Sequence[str] = PARTS,
) -> pd.DataFrame:
    """Read what ``write_predictions`` wrote, and check it again.

    Raises:
        DataError: no such file, not a Parquet file, or faults (see ``validate_predictions``).
    """
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})",
            next_step="run the evaluation of this run folder again",
        ) from error
    return validate_predictions(frame, task=task, protocol=protocol, models=models, parts=parts)
