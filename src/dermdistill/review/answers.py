"""Where a rater is in the study: the first item of the rater's order that is not answered whole."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, select

from dermdistill.errors import DermdistillError
from dermdistill.review.tables import Answer, Draft, Rater

Orders = Callable[[int], Sequence[str]]


class RaterGone(DermdistillError):  # noqa: N818
    """The rater was erased, or the link withdrawn, while a page of theirs was open."""


class NotHere(DermdistillError):  # noqa: N818
    """An answer to an item at which the rater is not, or to a question that was answered otherwise."""


@dataclass(frozen=True)
class Place:
    """Where a rater is.

    Args:
        position: 1 for the first item of this rater's order; one more than ``total`` when all is done.
        total: items of the study.
        item: its name, empty when all is done.
        before: the first diagnosis, empty until it is given.
    """

    position: int
    total: int
    item: str
    before: str

    @property
    def done(self) -> bool:
        """Whether every item is answered."""
        return self.position > self.total


@dataclass(frozen=True)
class Standing:
    """A rater as pages need one, and where the rater is."""

    rater_id: int
    label: str
    simulated: bool
    place: Place


# Most requests ask this and little else, so it is one statement, made once.
STANDING: Final = (
    select(
        Rater.link_version,
        Rater.order_index,
        Rater.label,
        Rater.simulated,
        Answer.item,
        Answer.before,
        Answer.answered_at.is_not(None),
    )
    .outerjoin(Answer, Answer.rater_id == Rater.id)
    .where(Rater.id == bindparam("rater_id"))
)


def standing_of(connection: Connection, rater_id: int, link_version: int, orders: Orders) -> Standing:
    """A rater, and where the rater is.

    Args:
        connection: to the database, for reading.
        rater_id: of the session.
        link_version: of the link that the session began with.
        orders: the items in the order of a rater, by the rater's index.

    Raises:
        RaterGone: the rater was erased or the link withdrawn.
    """
    rows = connection.execute(STANDING, {"rater_id": rater_id}).all()
    if not rows or rows[0][0] != link_version:
        raise RaterGone("this link is no longer valid")
    _, index, label, simulated, *_ = rows[0]
    given = {item: (before, whole) for *_, item, before, whole in rows if item is not None}
    return Standing(rater_id, label, simulated, _place(given, orders(index)))


ANSWERS: Final = select(Answer.item, Answer.before, Answer.answered_at.is_not(None)).where(
    Answer.rater_id == bindparam("rater_id")
)


def place_of(connection: Connection, rater_id: int, order: Sequence[str]) -> Place:
    """The first item of the rater's order without a whole answer."""
    rows = connection.execute(ANSWERS, {"rater_id": rater_id})
    return _place({item: (before, whole) for item, before, whole in rows}, order)


def _place(given: Mapping[str, tuple[str, bool]], order: Sequence[str]) -> Place:
    for position, item in enumerate(order, start=1):
        before, whole = given.get(item, ("", False))
        if not whole:
            return Place(position, len(order), item, before)
    return Place(len(order) + 1, len(order), "", "")


TYPED: Final = select(Draft.fields).where(Draft.rater_id == bindparam("rater_id"), Draft.item == bindparam("item"))


def draft_of(connection: Connection, rater_id: int, item: str) -> dict[str, str] | None:
    """What was typed and not sent; None where the item was never shown."""
    fields = connection.scalar(TYPED, {"rater_id": rater_id, "item": item})
    return None if fields is None else {str(name): str(value) for name, value in json.loads(fields).items()}
