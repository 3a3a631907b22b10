"""What the labels of a set can tell, where they name not all of a model's diagnoses.

Three kinds of label sets meet a model of seven diagnoses:

- all seven occur, and every image has one of them: every figure can be told;
- some occur (PH2: nevi and melanomas), or of some images it is only known that they are no melanoma (``rest``):
  melanoma is told from the rest by the model's calibrated probability of melanoma among all its diagnoses, at the
  thresholds of its own validation part. So the ISIC challenge of 2020 scored melanoma against everything else. Beside
  it stands, for each diagnosis that occurs, how many of its images are called by it: that share needs no image of
  another diagnosis;
- all images are melanomas, or none is: the same, and what needs both is null.

That probability is not divided by the sum over the diagnoses that occur. Who uses a model does not know which can
occur, so the figure would be better than any use of it, and the thresholds were chosen without.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermdistill.bundle.decisions import Calibration, Decisions
from dermdistill.errors import DataError
from dermdistill.evaluate import bootstrap, metrics
from dermdistill.evaluate.metrics import Floats
from dermdistill.evaluate.predictions import prob_columns
from dermdistill.labels import CODES, MELANOMA, REST, Task, class_names, encode, melanoma_index

UNKNOWN = -1


@dataclass(frozen=True)
class Scoring:
    """How a set is scored.

    Args:
        task: whose figures are told: the model's own, or ``melanoma`` where a model of seven is scored by that alone.
        lines: what was scored and what was not, for the reader.
    """

    task: Task
    lines: tuple[str, ...]


def choose_scoring(diagnoses: Sequence[str], task: Task) -> Scoring:
    """What a label set can tell of a model.

    Args:
        diagnoses: of every image, one of the seven or ``rest``.
        task: of the model.

    Raises:
        DataError: there are no images.
    """
    if not len(diagnoses):
        raise DataError("there are no images to score", rule="at least one image with a diagnosis")
    counts = Counter(diagnoses)
    absent = [code for code in CODES if not counts[code]]
    one_kind = [] if 0 < counts[MELANOMA] < len(diagnoses) else [_one_kind(counts[MELANOMA] > 0)]
    if task == "melanoma":
        return Scoring(task, ("melanoma against everything else, which is all that this model tells", *one_kind))
    if not absent and not counts[REST]:
        return Scoring(task, ("all seven diagnoses, and melanoma against the rest",))
    why = [f"no image of the set is named {', '.join(absent)}"] if absent else []
    why += [f"of {counts[REST]} images it is only known that they are no melanoma"] if counts[REST] else []
    return Scoring(
        "melanoma",
        (
            "scored: melanoma against the rest, by the calibrated probability of melanoma among all seven diagnoses "
            "and the thresholds of the model's own validation part; how many images of each diagnosis are called so",
            f"not scored: figures over seven diagnoses, as {' and '.join(why)}",
            "that probability is not divided by the sum over the diagnoses that occur, as who uses the model does not "
            "know which can occur",
            "accuracy, F1 and confusion are those of two classes: an image is called melanoma where that probability "
            "is above one half",
            *one_kind,
        ),
    )


def other_rows(model: str, frame: pd.DataFrame, probs: npt.NDArray[np.float32], task: Task) -> pd.DataFrame:
    """A model's rows on a set, in the form of ``predictions_frame``, where some diagnoses may be ``rest``.

    Args:
        model: its name.
        frame: N rows with image_id, lesion_id and diagnosis.
        probs: raw probabilities [N, K].
        task: of the model.

    Returns:
        N rows; ``label`` is -1 where a model of seven meets ``rest``.

    Raises:
        DataError: probabilities that are NaN or infinite.
    """
    broken = ~np.isfinite(probs).all(axis=1)
    if broken.any():
        raise DataError(
            f"{model}: {int(broken.sum())} of {len(probs)} images have probabilities that are NaN or infinite",
            faults=[str(name) for name in frame["image_id"].to_numpy()[broken][:5]],
            next_step="verify the bundle; other runtimes of the model may do better",
        )
    rows = frame[["image_id", "lesion_id", "diagnosis"]].reset_index(drop=True)
    rows.insert(0, "model", model)
    rows.insert(1, "split", "test")
    unnamed = (rows["diagnosis"] == REST) & (task == "diagnosis")
    rows["label"] = np.array(
        [UNKNOWN if hidden else encode(code, task) for code, hidden in zip(rows["diagnosis"], unnamed, strict=True)]
    )
    rows[prob_columns(task)] = probs
    return rows


def melanoma_rows(rows: pd.DataFrame, decisions: Decisions) -> pd.DataFrame:
    """Rows of a model of seven as those of two classes: its calibrated probability of melanoma, and the rest of 1."""
    probs = decisions.calibration.apply(rows[prob_columns("diagnosis")].to_numpy(dtype=np.float64))
    melanoma = probs[:, melanoma_index("diagnosis")]
    kept = rows[["model", "split", "image_id", "lesion_id", "diagnosis"]].reset_index(drop=True)
    kept["label"] = (kept["diagnosis"] == MELANOMA).astype(np.int64)
    kept[prob_columns("melanoma")] = np.stack([1 - melanoma, melanoma], axis=1)
    return kept


def melanoma_decisions(decisions: Decisions) -> Decisions:
    """Decisions for ``melanoma_rows``: the same thresholds; calibrated already, no prediction sets, none withheld."""
    return Decisions(calibration=Calibration.identity(len(class_names("melanoma"))), thresholds=decisions.thresholds)


def called_by_name(rows: pd.DataFrame, weights: npt.NDArray[np.uint16]) -> dict[str, Any]:
    """For each diagnosis that occurs: its images, the share called by it, and what they are called.

    Args:
        rows: one model of seven, N rows of ``other_rows``; its label is the largest raw probability.
        weights: [S, N] from ``bootstrap.lesion_weights``.

    Returns:
        {code: ``n``, ``lesions``, ``sensitivity`` (a cell), ``called`` {code: n}}.
    """
    predicted = rows[prob_columns("diagnosis")].to_numpy().argmax(axis=1)
    block: dict[str, Any] = {}
    for index, code in enumerate(CODES):
        mine = (rows["diagnosis"] == code).to_numpy()
        if not mine.any():
            continue
        right = (mine & (predicted == index)).astype(np.float64)
        draws = metrics.ratio(_drawn(weights, right), _drawn(weights, mine.astype(np.float64)))
        named = Counter(CODES[label] for label in predicted[mine])
        block[code] = {
            "n": int(mine.sum()),
            "lesions": int(rows["lesion_id"][mine].nunique()),
            "sensitivity": bootstrap.estimate(float(right.sum() / mine.sum()), draws),
            "called": {name: named[name] for name in CODES if named[name]},
        }
    return block


def _drawn(weights: npt.NDArray[np.uint16], values: Floats) -> Floats:
    sums: Floats = weights @ values
    return sums


def lesion_lines(frame: pd.DataFrame, outside: Mapping[str, int]) -> tuple[str, ...]:
    """What a reader must know of lesions, melanomas and images left out.

    Args:
        frame: one row an image.
        outside: images left out, by diagnosis.
    """
    images, lesions = len(frame), int(frame["lesion_id"].nunique())
    melanomas = int((frame["diagnosis"] == MELANOMA).sum())
    lines = [
        f"{melanomas} of {images} images show melanoma; PPV, NPV, PR AUC and calibration hold for such a share alone"
    ]
    if (frame["lesion_id"] == frame["image_id"]).all():
        lines.append(
            "the set names no lesions: each image counts as its own lesion, and intervals are too narrow where several "
            "images show one"
        )
    elif lesions < images:
        lines.append(f"{images} images show {lesions} lesions: every image counts, and intervals are over lesions")
    if outside:
        named = ", ".join(f"{n} of {name!r}" for name, n in outside.items())
        lines.append(f"left out, as none of the seven diagnoses: {named}")
    return tuple(lines)


def _one_kind(melanoma: bool) -> str:
    if melanoma:
        return "every image shows melanoma: sensitivity can be told; specificity, AUC and what else needs both cannot"
    return "no image shows melanoma: specificity can be told; sensitivity, AUC and what else needs both cannot"
