"""Both databases for real: SQLite in a file, PostgreSQL on a server that the tests start."""

import stat
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import delete, make_url, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from dermdistill.errors import ConfigError, OutputError
from dermdistill.review.answers import NotHere, RaterGone, place_of
from dermdistill.review.database import Database, database_url, open_database
from dermdistill.review.export import answers_frame
from dermdistill.review.raters import erase, make_raters, progress
from dermdistill.review.steps import Second, Turn, give_first, give_second, keep_draft, show
from dermdistill.review.tables import Answer, AuditEntry, Base, Draft, Rater

ORDER = ("c", "a", "b")


def orders(index: int) -> tuple[str, ...]:
    return ORDER


SECOND = Second(after="mel", spatial=4, trust=3, usefulness=5, comment="edge, “quoted”", region="")


@pytest.fixture
def database(url: str, tmp_path: Path):
    opened = open_here(url)
    yield opened
    opened.close()


def open_here(url: str, sha256: str = "1" * 64) -> Database:
    return open_database(database_url(Path("unused"), url), study_sha256=sha256, title="A study")


def one_rater(database: Database, label: str = "R1") -> int:
    return database.writer.write(lambda session: make_raters(session, [label]))[0].id


def both_steps(database: Database, rater: int, position: int, before: str = "nv") -> None:
    database.writer.write(lambda session: show(session, Turn(rater, 1, orders, position)))
    database.writer.write(lambda session: give_first(session, Turn(rater, 1, orders, position), before))
    database.writer.write(lambda session: give_second(session, Turn(rater, 1, orders, position), SECOND))


def test_migrated_tables_are_those_of_the_models(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        tables = [change for change in compare_metadata(context, Base.metadata) if "alembic_version" not in str(change)]
    assert tables == []


def test_answers_survive_a_new_start_of_both_databases(database: Database, url: str) -> None:
    rater = one_rater(database)
    both_steps(database, rater, 1)
    again = open_here(url)
    with again.reading() as session:
        assert place_of(session.connection(), rater, ORDER).position == 2
        frame = answers_frame(session)
    again.close()
    assert frame.loc[0, ["rater", "item", "before", "after", "comment"]].tolist() == [
        *("R1", "c", "nv", "mel", "edge, “quoted”"),
    ]
    assert frame.loc[0, "answered_at"].endswith("+00:00")


def test_one_item_cannot_have_two_answers_of_a_rater(database: Database) -> None:
    rater = one_rater(database)
    both_steps(database, rater, 1)
    with database.reading() as session:
        stored = session.scalar(select(Answer))
    twin = {"rater_id": rater, "item": "c", "before": "df", "before_at": stored.before_at}
    with pytest.raises(IntegrityError):
        database.writer.write(lambda session: session.add(Answer(**twin)))


def test_rating_out_of_range_is_refused_by_the_database_itself(database: Database) -> None:
    rater = one_rater(database)
    both_steps(database, rater, 1)
    with pytest.raises(IntegrityError):
        database.writer.write(lambda session: session.execute(update(Answer).values(trust=6)))


@pytest.mark.parametrize(
    "change",
    [
        delete(AuditEntry),
        update(AuditEntry).values(who="somebody"),
        update(AuditEntry).values(new='{"before": "df"}'),
        update(AuditEntry).values(old=None, new=None, action="nothing"),
    ],
)
def test_audit_trail_can_only_grow(database: Database, change) -> None:
    one_rater(database)
    with pytest.raises(DBAPIError, match="append only"):
        database.writer.write(lambda session: session.execute(change))
    with database.reading() as session:
        assert session.scalar(select(AuditEntry)).new == '{"label": "R1", "simulated": false}'


def test_erased_rater_leaves_nothing_but_that_it_happened(database: Database, url: str) -> None:
    keeper, gone = one_rater(database, "Keeper"), one_rater(database, "Gone")
    for rater in (keeper, gone):
        both_steps(database, rater, 1, "bcc")
    database.writer.write(lambda session: keep_draft(session, Turn(gone, 1, orders, 2), "first", {"before": "df"}))
    database.writer.write(lambda session: erase(session, gone))
    database.settle()
    with database.reading() as session:
        assert [rater.label for rater in session.scalars(select(Rater))] == ["Keeper"]
        assert {answer.rater_id for answer in session.scalars(select(Answer))} == {keeper}
        assert session.scalars(select(Draft)).all() == []
        entries = session.scalars(select(AuditEntry).where(AuditEntry.rater_id == gone)).all()
        assert session.scalars(select(AuditEntry.new).where(AuditEntry.action == "answer")).all().count(None) == 1
    assert entries[-1].action == "rater erased" and len(entries) > 4
    assert all(entry.old is None and entry.new is None for entry in entries)
    if url.startswith("sqlite"):  # neither in free pages nor in the log
        file = Path(make_url(url).database)
        left = b"".join(path.read_bytes() for path in file.parent.glob(f"{file.name}*"))
        assert b"Keeper" in left and b"Gone" not in left


def test_number_of_an_erased_rater_is_not_given_again(database: Database) -> None:
    first = one_rater(database, "One")
    database.writer.write(lambda session: erase(session, first))
    assert one_rater(database, "Two") > first


def test_same_form_from_many_windows_at_once_is_one_answer(database: Database) -> None:
    rater = one_rater(database)
    outcomes: list[str] = []

    def press(diagnosis: str) -> None:
        try:
            database.writer.write(lambda session: give_first(session, Turn(rater, 1, orders, 1), diagnosis))
            outcomes.append(diagnosis)
        except NotHere:
            outcomes.append("refused")

    threads = [threading.Thread(target=press, args=(diagnosis,)) for diagnosis in ["nv", "mel"] * 6]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reading() as session:
        stored = session.scalars(select(Answer.before)).all()
        noted = session.scalars(select(AuditEntry).where(AuditEntry.action == "first diagnosis")).all()
    assert len(stored) == len(noted) == 1
    assert outcomes.count(stored[0]) == 6 and outcomes.count("refused") == 6


def test_write_after_the_link_was_withdrawn_is_refused(database: Database) -> None:
    rater = one_rater(database)
    with pytest.raises(RaterGone):
        database.writer.write(lambda session: give_first(session, Turn(rater, 2, orders, 1), "nv"))


def test_progress_counts_whole_answers_alone(database: Database) -> None:
    rater = one_rater(database)
    both_steps(database, rater, 1)
    database.writer.write(lambda session: give_first(session, Turn(rater, 1, orders, 2), "nv"))
    with database.reading() as session:
        [row] = progress(session)
    assert (row.label, row.answered) == ("R1", 1)
    assert row.last.tzinfo is not None


def test_seconds_run_from_the_first_showing(database: Database) -> None:
    rater = one_rater(database)
    both_steps(database, rater, 1)
    with database.reading() as session:
        answer = session.scalar(select(Answer))
    assert 0 <= answer.seconds < 30
    database.writer.write(lambda session: show(session, Turn(rater, 1, orders, 2)))
    with database.reading() as session:
        first = session.scalar(select(Draft.shown_at))
    database.writer.write(lambda session: show(session, Turn(rater, 1, orders, 2)))
    with database.reading() as session:
        assert session.scalar(select(Draft.shown_at)) == first


def test_database_of_another_study_is_refused(database: Database, url: str) -> None:
    with pytest.raises(ConfigError, match="another study"):
        open_here(url, "2" * 64)


def test_database_of_a_newer_version_is_refused(database: Database, url: str) -> None:
    database.writer.write(lambda session: session.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(ConfigError, match="another version"):
        open_here(url)


def test_file_of_sqlite_is_for_its_owner_alone(tmp_path: Path) -> None:
    open_here(f"sqlite:///{tmp_path / 'deep' / 'a.sqlite3'}").close()
    assert stat.S_IMODE((tmp_path / "deep" / "a.sqlite3").stat().st_mode) == 0o600


def test_sqlite_waits_writes_ahead_and_on_the_disk(tmp_path: Path) -> None:
    opened = open_here(f"sqlite:///{tmp_path / 'a.sqlite3'}")
    with opened.engine.connect() as connection:
        values = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "secure_delete")
        }
    opened.close()
    assert values == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 10_000,
        "secure_delete": 1,
    }


def test_default_database_lies_beside_the_study(tmp_path: Path) -> None:
    assert database_url(tmp_path).database == str(tmp_path / "answers.sqlite3")


@pytest.mark.parametrize("given", ["mysql://root@here/x", "nonsense", "sqlite://", "sqlite:///:memory:", ""])
def test_url_of_another_kind_is_refused(tmp_path: Path, given: str) -> None:
    with pytest.raises(ConfigError, match="sqlite:///FILE"):
        database_url(tmp_path, given)


@pytest.mark.parametrize("given", ["postgres://u@h/n", "postgresql://u@h/n", "postgresql+psycopg://u@h/n"])
def test_url_of_postgresql_takes_our_driver(tmp_path: Path, given: str) -> None:
    assert database_url(tmp_path, given).drivername == "postgresql+psycopg"


def test_server_that_does_not_answer_is_told_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened") as caught:
        open_here(f"postgresql://me:hunter2@/x?host={tmp_path}")
    assert "hunter2" not in str(caught.value)


def test_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.sqlite3").write_text("not a database, but long enough to be taken for one by its length" * 20)
    with pytest.raises(ConfigError, match="not a database"):
        open_here(f"sqlite:///{tmp_path / 'a.sqlite3'}")


def test_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        open_here(f"sqlite:///{tmp_path / 'file' / 'a.sqlite3'}")
