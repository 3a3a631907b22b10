"""Predicted probabilities of all models as one long table: made from logits, checked, written and read.

One row a model, part and image. Metrics can be computed again from this file alone, without images or models.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermdistill.atomic import atomic_path
from dermdistill.bundle.predictor import softmax
from dermdistill.errors import DataError
from dermdistill.labels import CODES, Task, class_names, encode

MODELS = ("teacher", "student", "student_int8")
PARTS = ("val", "test")
KEYS = ("model", "split", "image_id", "lesion_id", "diagnosis", "label")
# float32 softmax adds up to 1 within a few 1e-7; more is another scale, or not a probability.
SUM_TOLERANCE = 1e-4
LISTED = 5


def prob_columns(task: Task) -> list[str]:
    """Names of the probability columns of a task in the order of its logits: ``prob_<class>``."""
    return [f"prob_{name}" for name in class_names(task)]


def allows_repeats(protocol: str) -> bool:
    """Whether a protocol repeats images: one image then has several rows, and may be in both parts."""
    return protocol == "published-oversampled"


def predictions_frame(
    model_name: str, split: str, catalog_rows: pd.DataFrame, logits: npt.ArrayLike, task: Task
) -> pd.DataFrame:
    """The rows of one model on one part.

    Args:
        model_name: one of ``MODELS``.
        split: ``val`` or ``test``.
        catalog_rows: N rows with image_id, lesion_id and diagnosis, in the order of the logits.
        logits: [N, K], K classes of the task.
        task: decides classes and labels.

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
    faults = [*_unknown(frame, "model", MODELS), *_unknown(frame, "split", PARTS)]
    faults += _unknown(frame, "diagnosis", CODES)
    if faults:
        raise DataError("predictions cannot be made", faults=faults)
    frame["label"] = np.array([encode(code, task) for code in frame["diagnosis"]], dtype=np.int64)
    frame[columns] = softmax(values)
    return frame


def validate_predictions(frame: pd.DataFrame, *, task: Task, protocol: str) -> pd.DataFrame:
    """Check a long table and put it in order (model, part, image).

    Args:
        frame: the rows of all models and parts.
        task: decides the columns.
        protocol: ``published-oversampled`` may repeat images.

    Raises:
        DataError: every fault at once: a missing column, an unknown model, part or diagnosis, a part without
        rows,
            probabilities that are NaN, outside [0, 1] or do not add up to 1, a label unlike the diagnosis,
            an image twice, models that were not given the same images.
    """
    columns = prob_columns(task)
    missing = [f"column {name!r} is missing" for name in (*KEYS, *columns) if name not in frame]
    if missing:
        raise DataError(
            f"predictions for the task {task!r} are incomplete",
            faults=missing,
            rule=f"columns are {', '.join((*KEYS, *columns))}",
        )
    faults = [*_value_faults(frame, columns), *_label_faults(frame, task)]
    if not allows_repeats(protocol):
        faults += _repeat_faults(frame)
    faults += _part_faults(frame)
    if faults:
        raise DataError("predictions cannot be evaluated", faults=faults, next_step="make the predictions again")
    order = frame["model"].map({name: index for index, name in enumerate(MODELS)})
    keyed = frame[[*KEYS, *columns]].assign(_order=order)
    return keyed.sort_values(
        ["_order", "split", "image_id", "lesion_id", "diagnosis"], kind="stable", ignore_index=True
    ).drop(columns="_order")


def _unknown(frame: pd.DataFrame, column: str, known: tuple[str, ...]) -> Iterator[str]:
    for value in frame[column][~frame[column].isin(known)].unique():
        yield f"{column} {value!r} is not one of {', '.join(known)}"


def _name_rows(frame: pd.DataFrame, chosen: npt.NDArray[np.bool_], what: str) -> Iterator[str]:
    """One fault for all chosen rows, with the first few as examples."""
    if chosen.any():
        rows = frame[chosen].head(LISTED)
        names = [
            f"{model}/{part}/{image}"
            for model, part, image in zip(rows["model"], rows["split"], rows["image_id"], strict=True)
        ]
        more = " ..." if chosen.sum() > LISTED else ""
        yield f"{int(chosen.sum())} rows: {what}; {', '.join(names)}{more}"


def _value_faults(frame: pd.DataFrame, columns: list[str]) -> Iterator[str]:
    for column, known in (("model", MODELS), ("split", PARTS), ("diagnosis", CODES)):
        yield from _unknown(frame, column, known)
    for column in ("image_id", "lesion_id"):
        yield from _name_rows(frame, frame[column].isna().to_numpy(), f"{column} is empty")
    try:
        probs = frame[columns].to_numpy(dtype=np.float64)
    except (TypeError, ValueError):
        yield "a probability is not a number"
        return
    finite = np.isfinite(probs).all(axis=1)
    yield from _name_rows(frame, ~finite, "a probability is NaN or infinite")
    inside = ((probs >= 0) & (probs <= 1)).all(axis=1)
    yield from _name_rows(frame, finite & ~inside, "a probability lies outside [0, 1]")
    adds_up = np.abs(probs.sum(axis=1) - 1) <= SUM_TOLERANCE
    yield from _name_rows(frame, finite & inside & ~adds_up, "probabilities do not add up to 1")


def _label_faults(frame: pd.DataFrame, task: Task) -> Iterator[str]:
    known = frame["diagnosis"].isin(CODES)
    right = frame["diagnosis"].map({code: encode(code, task) for code in CODES})
    given = pd.to_numeric(frame["label"], errors="coerce").to_numpy(dtype=np.float64)
    wrong = known.to_numpy(dtype=bool) & (given != right.to_numpy(dtype=np.float64))
    yield from _name_rows(frame, wrong, f"the label is not the diagnosis's index in the task {task!r}")


def _repeat_faults(frame: pd.DataFrame) -> Iterator[str]:
    twice = frame.duplicated(["model", "split", "image_id"]).to_numpy()
    yield from _name_rows(frame, twice, "the image is there twice")
    across = frame.groupby(["model", "image_id"])["split"].transform("nunique").to_numpy() > 1
    yield from _name_rows(frame, across, "the image is in both parts, validation and test")


def _part_faults(frame: pd.DataFrame) -> Iterator[str]:
    """Every model must have the same images in both parts, none of them empty."""
    if frame.empty:
        yield "there are no rows"
        return
    images = {key: _image_list(rows) for key, rows in frame.groupby(["model", "split"])}
    models = [model for model in MODELS if (frame["model"] == model).any()]
    for part in PARTS:
        for model in models:
            mine = images.get((model, part))
            if mine is None:
                yield f"{model} has no row of the part {part!r}"
            elif (models[0], part) in images and mine != images[models[0], part]:
                yield f"{model} and {models[0]} differ in images, lesions or diagnoses in the part {part!r}"


def _image_list(rows: pd.DataFrame) -> list[tuple[Any, ...]]:
    return sorted(zip(*(rows[name].astype(str) for name in ("image_id", "lesion_id", "diagnosis")), strict=True))


def write_predictions(frame: pd.DataFrame, path: Path, *, task: Task, protocol: str) -> None:
    """Check a long table and write it as Parquet, whole or not at all.

    Raises:
        DataError: see ``validate_predictions``; nothing is written.
        OutputError: the file cannot be written.
    """
    checked = validate_predictions(frame, task=task, protocol=protocol)
    with atomic_path(path) as temporary:
        checked.to_parquet(temporary, index=False)


def read_predictions(path: Path, *, task: Task, protocol: str) -> pd.DataFrame:
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
    return validate_predictions(frame, task=task, protocol=protocol)
