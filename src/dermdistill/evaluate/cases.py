"""Which test images a reader should look at: the worst mistakes, the missed melanomas, the least certain answers.

Figures hide what a mistake looks like. CLAIM (item 39) asks for wrongly classified cases, and a dermatologist sees in
them at once whether a mistake is forgivable. Only ids are chosen here; pictures stay in the user's run folder.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from dermdistill.errors import DataError
from dermdistill.labels import DIAGNOSES, MELANOMA

MOST: Final = 12
CONFUSIONS: Final = 6
EXAMPLES: Final = 5
COLUMNS: Final = ("image_id", "lesion_id", "diagnosis", "label", "predicted", "confidence", "melanoma_prob")
GROUPS: Final = ("surest_mistakes", "missed_melanomas", "least_certain", "benign_like_melanoma")
BENIGN: Final = tuple(diagnosis.code for diagnosis in DIAGNOSES if not diagnosis.malignant)

Json = dict[str, Any]


def choose_cases(rows: pd.DataFrame, *, classes: Sequence[str], most: int = MOST) -> Json:
    """Cases of one model, one image a lesion in each group; the order of rows does not matter.

    Args:
        rows: of the test part: ``image_id``, ``lesion_id``, ``diagnosis`` (code), ``label`` and ``predicted`` (indices
            of classes), ``confidence`` (calibrated probability of ``predicted``), ``melanoma_prob`` (calibrated).
        classes: their names, in the order of the indices.
        most: cases a group.

    Returns:
        Lists of ``image_id``, ``true`` (the diagnosis), ``predicted``, ``confidence``, ``melanoma_probability``:
        ``surest_mistakes``; ``missed_melanomas`` that are called something else, the lowest melanoma probability first;
        ``least_certain`` answers, right or wrong; ``benign_like_melanoma``, the highest melanoma probability first.
        ``lesions``: how many lesions each of these groups was chosen from. ``confusions``: of the most frequent pairs
        of diagnosis and wrong answer ``true``, ``predicted``, ``images`` and ``cases``, the surest first.

    Raises:
        DataError: columns are missing.
    """
    missing = [name for name in COLUMNS if name not in rows.columns]
    if missing:
        raise DataError(f"cases lack {', '.join(missing)}", rule=f"columns {', '.join(COLUMNS)}")
    rows = rows.assign(called=np.array(classes)[rows["predicted"].to_numpy(dtype=np.int64)])
    wrong = rows[rows["label"] != rows["predicted"]]
    groups = {
        "surest_mistakes": _ranked(wrong, "confidence", largest=True),
        "missed_melanomas": _ranked(wrong[wrong["diagnosis"] == MELANOMA], "melanoma_prob", largest=False),
        "least_certain": _ranked(rows, "confidence", largest=False),
        "benign_like_melanoma": _ranked(rows[rows["diagnosis"].isin(BENIGN)], "melanoma_prob", largest=True),
    }
    return {
        **{name: _listed(group.head(most)) for name, group in groups.items()},
        "lesions": {name: len(group) for name, group in groups.items()},
        "confusions": _confusions(wrong),
    }


def case_ids(cases: Mapping[str, Any]) -> list[str]:
    """Every image that ``choose_cases`` chose, once, sorted."""
    groups = [cases[name] for name in GROUPS] + [confusion["cases"] for confusion in cases["confusions"]]
    return sorted({case["image_id"] for group in groups for case in group})


def _ranked(rows: pd.DataFrame, column: str, *, largest: bool) -> pd.DataFrame:
    """The foremost image of each lesion, in order; ties go by image."""
    ordered = rows.sort_values([column, "image_id"], ascending=[not largest, True])
    return ordered.drop_duplicates("lesion_id")


def _listed(rows: pd.DataFrame) -> list[Json]:
    return [
        {
            "image_id": str(row["image_id"]),
            "true": str(row["diagnosis"]),
            "predicted": str(row["called"]),
            "confidence": float(row["confidence"]),
            "melanoma_probability": float(row["melanoma_prob"]),
        }
        for row in rows.to_dict("records")
    ]


def _confusions(wrong: pd.DataFrame) -> list[Json]:
    pairs = {(str(true), str(called)): rows for (true, called), rows in wrong.groupby(["diagnosis", "called"])}
    frequent = sorted(pairs, key=lambda pair: (-len(pairs[pair]), pair))[:CONFUSIONS]
    return [
        {
            "true": true,
            "predicted": called,
            "images": len(pairs[true, called]),
            "cases": _listed(_ranked(pairs[true, called], "confidence", largest=True).head(EXAMPLES)),
        }
        for true, called in frequent
    ]
