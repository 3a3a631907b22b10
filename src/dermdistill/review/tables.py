"""What the database of a study holds: raters, answers, drafts, and the audit trail of every write."""

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    CheckConstraint,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# Named alike in SQLite and PostgreSQL, so that a migration can name a constraint that it changes.
NAMES: Final = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}
SCALES: Final = ("spatial", "trust", "usefulness")
LONGEST_NAME: Final = 64


def now() -> datetime:
    """This moment, UTC."""
    return datetime.now(UTC)


class UtcTime(TypeDecorator[datetime]):
    """A moment in UTC; SQLite itself would forget the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Only moments that know their zone are stored."""
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Whatever the database gives back is UTC."""
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class Base(DeclarativeBase):
    """Of all tables."""

    metadata = MetaData(naming_convention=NAMES)


class StudyOfDatabase(Base):
    """The one study that the answers belong to."""

    __tablename__ = "study"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    sha256: Mapped[str] = mapped_column(String(64))
    title: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class Rater(Base):
    """One expert, by a pseudonym; ``link_version`` counts up when a link is withdrawn."""

    __tablename__ = "raters"
    __table_args__ = ({"sqlite_autoincrement": True},)  # the number of an erased rater is never given again
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    label: Mapped[str] = mapped_column(String(LONGEST_NAME), unique=True)
    order_index: Mapped[int] = mapped_column(Integer, unique=True)
    link_version: Mapped[int] = mapped_column(Integer, default=1)
    simulated: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class Answer(Base):
    """One rater's answer to one item; ``after`` and the rest stay empty until the second step."""

    __tablename__ = "answers"
    __table_args__ = (
        UniqueConstraint("rater_id", "item"),
        *(CheckConstraint(f"{scale} BETWEEN 1 AND 5", name=scale) for scale in SCALES),
    )
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    rater_id: Mapped[int] = mapped_column(ForeignKey("raters.id", ondelete="CASCADE"))
    item: Mapped[str] = mapped_column(String(LONGEST_NAME))
    before: Mapped[str] = mapped_column(String(LONGEST_NAME))
    before_at: Mapped[datetime] = mapped_column(UtcTime)
    after: Mapped[str | None] = mapped_column(String(LONGEST_NAME))
    spatial: Mapped[int | None] = mapped_column(Integer)
    trust: Mapped[int | None] = mapped_column(Integer)
    usefulness: Mapped[int | None] = mapped_column(Integer)
    comment: Mapped[str] = mapped_column(Text, default="")
    region: Mapped[str] = mapped_column(Text, default="")
    seconds: Mapped[float | None] = mapped_column(Float)
    answered_at: Mapped[datetime | None] = mapped_column(UtcTime)


class Draft(Base):
    """When an item was first shown to a rater, and what was typed and not yet sent."""

    __tablename__ = "drafts"
    rater_id: Mapped[int] = mapped_column(ForeignKey("raters.id", ondelete="CASCADE"), primary_key=True)
    item: Mapped[str] = mapped_column(String(LONGEST_NAME), primary_key=True)
    shown_at: Mapped[datetime] = mapped_column(UtcTime)
    fields: Mapped[str] = mapped_column(Text, default="{}")
    saved_at: Mapped[datetime | None] = mapped_column(UtcTime)


class AuditEntry(Base):
    """Who wrote what and when. The database itself refuses to change or delete an entry (see the migration).

    ``old`` and ``new`` are JSON. Blanking those two is the only change let through: an erased rater's data go from
    here too, and the entries stay.
    """

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcTime)
    who: Mapped[str] = mapped_column(String(LONGEST_NAME))
    action: Mapped[str] = mapped_column(String(LONGEST_NAME))
    rater_id: Mapped[int | None] = mapped_column(Integer, index=True)
    item: Mapped[str | None] = mapped_column(String(LONGEST_NAME))
    old: Mapped[str | None] = mapped_column(Text)
    new: Mapped[str | None] = mapped_column(Text)
