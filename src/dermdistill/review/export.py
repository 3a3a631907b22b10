"""Answers and audit trail as tables: one row a whole answer, in the form that the summary reads."""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from dermdistill.errors import DataError
from dermdistill.review.database import database_url, study_database
from dermdistill.review.study import read_study
from dermdistill.review.tables import Answer, AuditEntry, Rater

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: Final = (
    *("rater", "item", "before", "after", "spatial", "trust", "usefulness"),
    *("comment", "region", "seconds", "answered_at", "simulated"),
)
AUDIT_COLUMNS: Final = ("id", "at", "who", "action", "rater_id", "item", "old", "new")
FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")


def read_answers(study_folder: Path, database: str | None = None) -> "pd.DataFrame":
    """The answers to a study, without a server.

    Args:
        study_folder: of ``review create``.
        database: URL, as for the server; None is the SQLite file in the study's folder.

    Returns:
        ``COLUMNS``, one row a whole answer.

    Raises:
        DataError: no study, a damaged one, or one that was never served.
        ConfigError: the database cannot be opened, or holds another study.
    """
    study = read_study(study_folder)
    url = database_url(study_folder, database)
    if url.drivername.startswith("sqlite") and not Path(str(url.database)).is_file():
        raise DataError(
            f"{url.database}: there are no answers",
            rule="the database of a study is made when it is first served",
            next_step="serve the study with `dermdistill review serve` and give raters their links",
        )
    opened = study_database(study_folder, study, url)
    try:
        with opened.reading() as session:
            return answers_frame(session)
    finally:
        opened.close()


def answer_rows(session: Session) -> list[dict[str, Any]]:
    """Every whole answer, in the order of raters and of time, as ``COLUMNS``."""
    found = session.execute(
        select(Rater.label, Rater.simulated, Answer)
        .join(Answer, Answer.rater_id == Rater.id)
        .where(Answer.answered_at.is_not(None))
        .order_by(Rater.id, Answer.answered_at, Answer.id)
    )
    return [
        {
            "rater": label,
            **{name: getattr(answer, name) for name in COLUMNS[1:10]},
            "answered_at": _iso(answer.answered_at),
            "simulated": simulated,
        }
        for label, simulated, answer in found
    ]


def answers_frame(session: Session) -> "pd.DataFrame":
    """The answers as a table with ``COLUMNS``; empty, with the same columns, where there is none."""
    import pandas as pd

    return pd.DataFrame(answer_rows(session), columns=list(COLUMNS))


def answers_csv(session: Session) -> bytes:
    """The answers as CSV, UTF-8.

    A comment that a spreadsheet would take for a formula gets a leading apostrophe.
    """
    rows = answer_rows(session)
    return _csv(COLUMNS, ([_safe(row[name]) for name in COLUMNS] for row in rows))


def audit_csv(session: Session) -> bytes:
    """The audit trail as CSV, UTF-8, oldest first."""
    entries = session.scalars(select(AuditEntry).order_by(AuditEntry.id))
    return _csv(AUDIT_COLUMNS, ([_safe(getattr(entry, name)) for name in AUDIT_COLUMNS] for entry in entries))


def _iso(moment: datetime | None) -> str:
    return moment.isoformat(timespec="milliseconds") if moment else ""


def _safe(value: Any) -> Any:
    if isinstance(value, datetime):
        return _iso(value)
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()
