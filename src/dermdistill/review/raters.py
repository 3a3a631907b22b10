"""Who may answer: making raters, withdrawing links, erasing one rater's data, and how far everybody is."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from dermdistill.errors import ConfigError
from dermdistill.review.answers import RaterGone
from dermdistill.review.audit import note
from dermdistill.review.tables import Answer, AuditEntry, Draft, Rater, now

# Neither a sign that a spreadsheet takes for a formula at the start nor anything that a table could stumble over.
LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,39}")
MOST_AT_ONCE: Final = 500
ADMIN: Final = "admin"


@dataclass(frozen=True)
class Progress:
    """How far one rater is."""

    id: int
    label: str
    simulated: bool
    link_version: int
    answered: int
    last: datetime | None


def label_faults(labels: Sequence[str]) -> list[str]:
    """What is wrong with the names of new raters, as far as the names alone tell."""
    faults = [f"{label!r:.60}: 1 to 40 letters, digits, spaces, . _ -, the first a letter or digit"
              for label in labels if not LABEL.fullmatch(label)]  # fmt: skip
    if len(set(labels)) < len(labels):
        faults.append("a name is there twice")
    if not 1 <= len(labels) <= MOST_AT_ONCE:
        faults.append(f"{len(labels)} names, not 1 to {MOST_AT_ONCE}")
    return faults


def make_raters(session: Session, labels: Sequence[str], *, simulated: bool = False) -> list[Rater]:
    """Add raters, in the order of their names here.

    Args:
        labels: pseudonyms; they stand in the export.
        simulated: answers that no expert gave, for tests and demonstrations; marked wherever they are shown.

    Raises:
        ConfigError: names that cannot be, or are taken.
    """
    faults = label_faults(labels)
    taken = session.scalars(select(Rater.label).where(Rater.label.in_(labels))).all() if not faults else []
    faults += [f"{label!r}: there is such a rater already" for label in taken]
    if faults:
        raise ConfigError("raters cannot be made: " + "; ".join(faults))
    highest = session.scalar(select(func.max(Rater.order_index)))
    first = 0 if highest is None else highest + 1
    raters = [
        Rater(label=label, order_index=first + place, link_version=1, simulated=simulated, created_at=now())
        for place, label in enumerate(labels)
    ]
    session.add_all(raters)
    session.flush()
    for rater in raters:
        new = {"label": rater.label, "simulated": simulated}
        note(session.connection(), ADMIN, "rater made", rater_id=rater.id, new=new)
    return raters


def renew_link(session: Session, rater_id: int) -> Rater:
    """Withdraw a rater's link and every session that began with it; the next version is valid.

    Raises:
        RaterGone: there is no such rater.
    """
    rater = _rater(session, rater_id)
    note(
        session.connection(),
        ADMIN,
        "link renewed",
        rater_id=rater_id,
        old={"version": rater.link_version},
        new={"version": rater.link_version + 1},
    )
    rater.link_version += 1
    return rater


def erase(session: Session, rater_id: int) -> None:
    """Delete a rater with all answers and drafts; the audit trail keeps that it happened, and nothing of what was said.

    Raises:
        RaterGone: there is no such rater.
    """
    rater = _rater(session, rater_id)
    for table in (Answer, Draft):
        session.execute(delete(table).where(table.rater_id == rater_id))
    session.delete(rater)
    session.flush()
    session.execute(update(AuditEntry).where(AuditEntry.rater_id == rater_id).values(old=None, new=None))
    note(session.connection(), ADMIN, "rater erased", rater_id=rater_id)


def _rater(session: Session, rater_id: int) -> Rater:
    rater = session.scalar(select(Rater).where(Rater.id == rater_id).with_for_update())
    if rater is None:
        raise RaterGone(f"there is no rater {rater_id}")
    return rater


def progress(session: Session) -> list[Progress]:
    """Every rater with the number of whole answers and the time of the last, in the order of making."""
    rows = session.execute(
        select(
            Rater.id,
            Rater.label,
            Rater.simulated,
            Rater.link_version,
            func.count(Answer.answered_at),
            func.max(Answer.answered_at),
        )
        .outerjoin(Answer, Answer.rater_id == Rater.id)
        .group_by(Rater.id)
        .order_by(Rater.id)
    )
    return [Progress(*row) for row in rows]
