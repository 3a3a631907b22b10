"""What can be wrong with a table of predictions, one line a fault, so that all are told at once."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermdistill.labels import CODES, Task, encode

IMAGE = ("image_id", "lesion_id", "diagnosis")
# float32 softmax adds up to 1 within a few 1e-7; more is another scale, or not a probability.
SUM_TOLERANCE = 1e-4
LISTED = 5


def missing_columns(frame: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Columns that are not there."""
    return [f"column {name!r} is missing" for name in columns if name not in frame]


def unknown(frame: pd.DataFrame, column: str, known: Sequence[str] | None) -> Iterator[str]:
    """Values of a column that are not known; where any is (None), those that are no name at all."""
    if known is None:
        if not frame[column].map(lambda value: isinstance(value, str) and bool(value.strip())).all():
            yield f"{column} is empty or no text"
        return
    for value in frame[column][~frame[column].isin(list(known))].unique():
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


def value_faults(
    frame: pd.DataFrame, columns: list[str], models: Sequence[str] | None, parts: Sequence[str]
) -> Iterator[str]:
    """Names that are not known (None: any will do), empty ids, numbers that are no probabilities."""
    for column, known in (("model", models), ("split", parts), ("diagnosis", CODES)):
        yield from unknown(frame, column, known)
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


def label_faults(frame: pd.DataFrame, task: Task) -> Iterator[str]:
    """Labels that are not the diagnosis's index in the task."""
    known = frame["diagnosis"].isin(CODES)
    right = frame["diagnosis"].map({code: encode(code, task) for code in CODES})
    given = pd.to_numeric(frame["label"], errors="coerce").to_numpy(dtype=np.float64)
    wrong = known.to_numpy(dtype=bool) & (given != right.to_numpy(dtype=np.float64))
    yield from _name_rows(frame, wrong, f"the label is not the diagnosis's index in the task {task!r}")


def repeat_faults(frame: pd.DataFrame) -> Iterator[str]:
    """Images that one model has twice, in one part or in two."""
    twice = frame.duplicated(["model", "split", "image_id"]).to_numpy()
    yield from _name_rows(frame, twice, "the image is there twice")
    across = frame.groupby(["model", "image_id"])["split"].transform("nunique").to_numpy() > 1
    yield from _name_rows(frame, across, "the image is in both parts, validation and test")


def part_faults(frame: pd.DataFrame, names: Sequence[str], parts: Sequence[str]) -> Iterator[str]:
    """Every model must have the same images in all parts, none of them empty."""
    if frame.empty:
        yield "there are no rows"
        return
    images = {key: image_list(rows) for key, rows in frame.groupby(["model", "split"])}
    models = [model for model in names if (frame["model"] == model).any()]
    for part in parts:
        for model in models:
            mine = images.get((model, part))
            if mine is None:
                yield f"{model} has no row of the part {part!r}"
            elif (models[0], part) in images and mine != images[models[0], part]:
                yield f"{model} and {models[0]} differ in images, lesions or diagnoses in the part {part!r}"


def image_list(rows: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Image, lesion and diagnosis of every row, in order: equal for tables of the same images."""
    return sorted(zip(*(rows[name].astype(str) for name in IMAGE), strict=True))
