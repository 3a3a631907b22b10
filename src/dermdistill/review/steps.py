"""The writes that take a rater through the study: an item shown, a draft, the first diagnosis, the rest of the answer.

Every function takes a session within one transaction and first locks the rater, so what it has checked still holds when
it writes. These run at every click of every rater, so they are plain statements that are made once.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import Connection, and_, bindparam, delete, insert, select, update
from sqlalchemy.orm import Session

from dermdistill.review.answers import NotHere, Orders, Place, RaterGone, place_of
from dermdistill.review.audit import note
from dermdistill.review.tables import SCALES, Answer, Draft, Rater, now

SECOND_FIELDS: Final = ("after", *SCALES, "comment", "region")
KEY: Final = ("rater_id", "item")
OF_DRAFT: Final = and_(*(getattr(Draft, name) == bindparam(f"of_{name}") for name in KEY))
OF_ANSWER: Final = and_(*(getattr(Answer, name) == bindparam(f"of_{name}") for name in KEY))
# Of its own: a statement that also read the answers would, after waiting for the lock, still see those from before.
LOCK: Final = select(Rater.link_version, Rater.order_index).where(Rater.id == bindparam("id")).with_for_update()
SHOWN_AT: Final = select(Draft.shown_at).where(OF_DRAFT)
STORED: Final = select(Answer.before, Answer.before_at, *(getattr(Answer, name) for name in SECOND_FIELDS)).where(
    OF_ANSWER
)
SHOW: Final = insert(Draft)
BEGIN: Final = insert(Answer)
FINISH: Final = update(Answer).where(OF_ANSWER)
RETYPE: Final = update(Draft).where(OF_DRAFT)
FORGET: Final = delete(Draft).where(OF_DRAFT)


@dataclass(frozen=True)
class Turn:
    """Who does something, and at which item.

    Args:
        rater_id: of the session.
        link_version: of the link that the session began with.
        orders: the items in the order of a rater, by the rater's index.
        position: of the item in that order, from 1.
    """

    rater_id: int
    link_version: int
    orders: Orders
    position: int


@dataclass(frozen=True)
class Second:
    """What a rater says once the model's answer is seen; scales 1 to 5, ``region`` JSON or empty."""

    after: str
    spatial: int
    trust: int
    usefulness: int
    comment: str
    region: str


def show(session: Session, turn: Turn) -> None:
    """Remember when an item was first shown: a reload does not set its clock back.

    Raises:
        NotHere: another item is due.
        RaterGone: the rater was erased or the link withdrawn.
    """
    connection = session.connection()
    item = _due(turn, *_locked(connection, turn)).item
    if connection.scalar(SHOWN_AT, _of(turn, item)) is None:
        connection.execute(SHOW, {"rater_id": turn.rater_id, "item": item, "shown_at": now()})
        _note(connection, turn, "item shown", item)


def keep_draft(session: Session, turn: Turn, step: str, fields: Mapping[str, str]) -> None:
    """Keep what was typed so far; the audit trail tells that it was kept, not what.

    A rater who deletes half a sentence before sending has not said it.

    Raises:
        NotHere: the page of an item or step that is no longer open, such as a late message of the page before.
        RaterGone: the rater was erased or the link withdrawn.
    """
    connection = session.connection()
    place = _due(turn, *_locked(connection, turn))
    if (step == "second") is not bool(place.before):
        raise NotHere(f"item {turn.position} is at its other step")
    values = {"fields": json.dumps(dict(fields), ensure_ascii=False), "saved_at": now()}
    if not connection.execute(RETYPE, {**_of(turn, place.item), **values}).rowcount:
        connection.execute(SHOW, {"rater_id": turn.rater_id, "item": place.item, "shown_at": now(), **values})
    _note(connection, turn, "draft kept", place.item)


def give_first(session: Session, turn: Turn, diagnosis: str) -> None:
    """Store the diagnosis without the model. The same once more changes nothing.

    Raises:
        NotHere: another item is due, or another first diagnosis stands: it cannot be changed.
        RaterGone: the rater was erased or the link withdrawn.
    """
    connection = session.connection()
    order, place = _locked(connection, turn)
    if _is_past(turn, place) or (turn.position == place.position and place.before):
        _require_same(connection, turn, order[turn.position - 1], {"before": diagnosis})
        return
    item = _due(turn, order, place).item
    values = {"rater_id": turn.rater_id, "item": item, "before": diagnosis, "before_at": now()}
    connection.execute(BEGIN, values)
    connection.execute(RETYPE, {**_of(turn, item), "fields": "{}", "saved_at": None})
    _note(connection, turn, "first diagnosis", item, new={"before": diagnosis})


def give_second(session: Session, turn: Turn, second: Second) -> None:
    """Store the rest of an answer, which is then whole and final. The same once more changes nothing.

    Raises:
        NotHere: another item is due, the first diagnosis is missing, or another answer stands.
        RaterGone: the rater was erased or the link withdrawn.
    """
    connection = session.connection()
    order, place = _locked(connection, turn)
    values = asdict(second)
    if _is_past(turn, place):
        _require_same(connection, turn, order[turn.position - 1], values)
        return
    item = _due(turn, order, place).item
    begun = connection.execute(STORED, _of(turn, item)).first()
    if begun is None:
        raise NotHere(f"item {turn.position} has no first diagnosis yet")
    moment = now()
    seconds = (moment - (connection.scalar(SHOWN_AT, _of(turn, item)) or begun.before_at)).total_seconds()
    connection.execute(FINISH, {**_of(turn, item), **values, "answered_at": moment, "seconds": round(seconds, 3)})
    connection.execute(FORGET, _of(turn, item))
    _note(connection, turn, "answer", item, old={"before": begun.before}, new={"before": begun.before, **values})


def _locked(connection: Connection, turn: Turn) -> tuple[tuple[str, ...], Place]:
    """Order and place of a rater, whose writes come one after another from here on, in two browsers too."""
    found = connection.execute(LOCK, {"id": turn.rater_id}).first()
    if found is None or found.link_version != turn.link_version:
        raise RaterGone("this link is no longer valid")
    order = tuple(turn.orders(found.order_index))
    return order, place_of(connection, turn.rater_id, order)


def _due(turn: Turn, _order: tuple[str, ...], place: Place) -> Place:
    if place.position != turn.position or place.done:
        raise NotHere(f"item {turn.position} is not the one to be answered now")
    return place


def _is_past(turn: Turn, place: Place) -> bool:
    """Whether a form was sent twice, and the item meanwhile finished."""
    return 1 <= turn.position < place.position


def _require_same(connection: Connection, turn: Turn, item: str, values: Mapping[str, Any]) -> None:
    stored = connection.execute(STORED, _of(turn, item)).one()
    for name, value in values.items():
        if getattr(stored, name) != value:
            what = "the first diagnosis" if name == "before" else "the answer"
            raise NotHere(f"{what} to item {turn.position} stands: it cannot be changed once it was sent")


def _of(turn: Turn, item: str) -> dict[str, Any]:
    return {"of_rater_id": turn.rater_id, "of_item": item}


def _note(connection: Connection, turn: Turn, action: str, item: str, *, old: Any = None, new: Any = None) -> None:
    note(connection, f"rater {turn.rater_id}", action, rater_id=turn.rater_id, item=item, old=old, new=new)
