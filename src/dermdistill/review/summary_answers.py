"""The table of answers: read, checked against its study, and laid out as raters by items."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from dermdistill.errors import DataError
from dermdistill.evaluate.metrics import Floats
from dermdistill.review.rater_agreement import LEVELS
from dermdistill.review.study import Study, StudyItem
from dermdistill.review.study_faults import is_iso_time

SCALES: Final = ("spatial", "trust", "usefulness")
COLUMNS: Final = (
    *("rater", "item", "before", "after", *SCALES),
    *("comment", "region", "seconds", "answered_at", "simulated"),
)
LISTED: Final = 20
FLAGS: Final = {"true": True, "1": True, "false": False, "0": False}
Polygon = list[tuple[float, float]]


def read_answers(path: Path, study: Study) -> pd.DataFrame:
    """Read the CSV file that the review server exports, and check it as ``check_answers`` does.

    Raises:
        DataError: no such file, no CSV in UTF-8, or faults.
    """
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be read as CSV ({reason})", next_step="export the answers again") from error
    return check_answers(frame, study)


def check_answers(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Check answers against their study and put them in order (rater, item).

    A field that a rater left out is empty; it counts as missing.

    Args:
        frame: columns ``COLUMNS``, as the server holds them or as text from CSV.
        study: that was answered.

    Returns:
        ``rater, item, before, after, comment, region, answered_at`` text ("" where missing), the scales and ``seconds``
        float (NaN where missing), ``simulated`` bool.

    Raises:
        DataError: columns are missing, there is no answer at all, or every fault of a cell with its row: an unknown
            item or class, a level outside 1 to 5, a region that is no list of polygons, an item answered twice, a rater
            who is simulated in some rows and not in others.
    """
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise DataError(f"answers lack {', '.join(missing)}", rule=f"columns {', '.join(COLUMNS)}")
    if frame.empty:
        raise DataError(
            f"{study.title}: no rater has answered yet",
            rule="a summary shows what raters said, so it needs at least one answer",
            next_step="send raters their links, or name the database that holds their answers",
        )
    faults: list[str] = []
    parsers = _parsers(study)
    columns = {name: _parsed(frame[name], name, parsers[name], faults) for name in COLUMNS}
    _refuse(faults)
    checked = pd.DataFrame(columns)
    _refuse(list(_row_faults(checked)))
    return checked.sort_values(["rater", "item"], ignore_index=True)


def _refuse(faults: list[str]) -> None:
    if faults:
        more = [f"... and {len(faults) - LISTED} more"] if len(faults) > LISTED else []
        raise DataError("answers cannot be summarised", faults=[*faults[:LISTED], *more])


def _parsers(study: Study) -> dict[str, Callable[[str], Any]]:
    """One function a column, from text to value; ValueError with the rule where it does not fit."""
    items = {item.item for item in study.items}
    return {
        "rater": _named,
        "item": lambda text: _one_of(text, items, "no item of the study"),
        **dict.fromkeys(
            ("before", "after"),
            lambda text: _one_of(text, {"", *study.classes}, f"not one of {', '.join(study.classes)}"),
        ),
        **dict.fromkeys(SCALES, _level),
        "comment": str,
        "region": _region_text,
        "seconds": _seconds,
        "answered_at": _time,
        "simulated": _flag,
    }


def _parsed(column: "pd.Series[Any]", name: str, parse: Callable[[str], Any], faults: list[str]) -> list[Any]:
    values = []
    for row, cell in enumerate(column.tolist()):
        text = "" if cell is None or cell is pd.NA or (isinstance(cell, float) and math.isnan(cell)) else str(cell)
        try:
            values.append(parse(text))
        except ValueError as error:
            faults.append(f"row {row + 1}: {name} {text!r:.80}: {error}")
    return values


def _named(text: str) -> str:
    if not text.strip():
        raise ValueError("empty")
    return text


def _one_of(text: str, known: set[str], problem: str) -> str:
    if text not in known:
        raise ValueError(problem)
    return text


def _level(text: str) -> float:
    if not text:
        return math.nan
    try:
        level = float(text)
    except ValueError:
        level = 0.0
    if level not in range(1, LEVELS + 1):
        raise ValueError(f"a whole number from 1 to {LEVELS}")
    return level


def _seconds(text: str) -> float:
    if not text:
        return math.nan
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise ValueError("a number of seconds, 0 or more")
    return seconds


def _time(text: str) -> str:
    if text and not is_iso_time(text):
        raise ValueError("an ISO time")
    return text


def _flag(text: str) -> bool:
    if text.lower() not in FLAGS:
        raise ValueError("true or false")
    return FLAGS[text.lower()]


def _region_text(text: str) -> str:
    polygons_of(text)
    return text


def polygons_of(text: str) -> list[Polygon]:
    """The polygons of a drawn region, corners (x, y) as shares of width and height; none where nothing was drawn.

    Raises:
        ValueError: anything but "" or JSON ``[[[x, y], ...], ...]`` with at least three corners a polygon, in [0, 1].
    """
    if not text:
        return []
    problem = ValueError("JSON [[[x, y], ...], ...], three corners or more a polygon, in [0, 1]")
    try:
        polygons = json.loads(text)
    except (ValueError, RecursionError):
        raise problem from None
    if not isinstance(polygons, list) or not all(isinstance(one, list) and len(one) >= 3 for one in polygons):
        raise problem
    for corner in (corner for one in polygons for corner in one):
        if not (isinstance(corner, list) and len(corner) == 2 and all(_is_share(value) for value in corner)):
            raise problem
    return [[(float(x), float(y)) for x, y in one] for one in polygons]


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _row_faults(checked: pd.DataFrame) -> Iterator[str]:
    twice = checked.duplicated(["rater", "item"])
    for row in np.flatnonzero(twice.to_numpy()):
        yield f"row {row + 1}: {checked['rater'][row]!r} has answered item {checked['item'][row]!r} before"
    kinds = checked.groupby("rater")["simulated"].nunique()
    for rater in kinds[kinds > 1].index:
        yield f"rater {rater!r} is simulated in some rows and not in others"


@dataclass(frozen=True)
class Answers:
    """Checked answers of some raters to a study.

    Args:
        study: the study.
        frame: of ``check_answers``, at least one row.
        raters: their names, sorted; R of them.
        items: the study's originals, N of them, in its order. Repeats serve agreement within raters alone.
    """

    study: Study
    frame: pd.DataFrame
    raters: tuple[str, ...]
    items: tuple[StudyItem, ...]

    @classmethod
    def of(cls, study: Study, frame: pd.DataFrame) -> "Answers":
        """Of all raters in a checked table."""
        originals = tuple(item for item in study.items if not item.repeat_of)
        return cls(study, frame.reset_index(drop=True), tuple(sorted(set(frame["rater"].tolist()))), originals)

    def grid(self, column: "str | pd.Series[Any]", items: Sequence[str] | None = None) -> Floats:
        """A column of numbers as [R, N], NaN where there is no answer.

        Args:
            column: its name, or values, one a row of the frame.
            items: by default the originals.
        """
        names = [item.item for item in self.items] if items is None else list(items)
        values = self.frame[column] if isinstance(column, str) else column
        table = self.frame[["rater", "item"]].assign(value=np.asarray(values, dtype=np.float64))
        wide = table.pivot(index="rater", columns="item", values="value")
        return wide.reindex(index=list(self.raters), columns=names).to_numpy(dtype=np.float64)
