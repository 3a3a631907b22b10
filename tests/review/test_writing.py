"""Writes that share a commit: none lost, none taken along by another that fails."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event, func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from dermdistill.review.database import Database, database_url, open_database
from dermdistill.review.raters import make_raters
from dermdistill.review.tables import Rater


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(database_url(tmp_path), study_sha256="1" * 64, title="A study")
    yield opened
    opened.close()


def held(database: Database) -> tuple[threading.Event, threading.Thread]:
    """The writer busy until the event is set, so that what follows queues up."""
    inside, free = threading.Event(), threading.Event()

    def work(_: Session) -> None:
        inside.set()
        free.wait(10)

    thread = threading.Thread(target=database.writer.write, args=(work,))
    thread.start()
    assert inside.wait(10)
    return free, thread


def together(database: Database, works: list) -> list:
    free, holder = held(database)
    outcomes: list = [None] * len(works)

    def run(place: int) -> None:
        try:
            outcomes[place] = database.writer.write(works[place])
        except Exception as error:
            outcomes[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(works))]
    for thread in threads:
        thread.start()
    waiting = database.writer._waiting  # type: ignore[attr-defined]
    while waiting.qsize() < len(works):
        pass
    free.set()
    for thread in [holder, *threads]:
        thread.join()
    return outcomes


def labels(database: Database) -> set[str]:
    with database.reading() as session:
        return set(session.scalars(select(Rater.label)))


def test_write_that_fails_takes_no_other_with_it(database: Database) -> None:
    def fails(session: Session) -> None:
        make_raters(session, ["Half"])
        raise ValueError("no")

    outcomes = together(
        database,
        [lambda session: make_raters(session, ["One"]), fails, lambda session: make_raters(session, ["Two"])],
    )
    assert isinstance(outcomes[1], ValueError)
    assert labels(database) == {"One", "Two"}


def test_waiting_writes_share_commits(database: Database) -> None:
    commits: list[int] = []
    event.listen(database.engine, "commit", lambda _: commits.append(1))
    works = [lambda session, place=place: make_raters(session, [f"R{place}"]) for place in range(30)]
    together(database, works)
    assert len(labels(database)) == 30
    assert len(commits) == 1


def test_write_is_committed_when_it_returns(database: Database) -> None:
    database.writer.write(lambda session: make_raters(session, ["One"]))
    with database.engine.connect() as other:
        assert other.execute(select(func.count()).select_from(Rater)).scalar() == 1


def test_trouble_of_the_database_fails_everyone_in_the_batch(database: Database) -> None:
    outcomes = together(
        database,
        [lambda session: make_raters(session, ["One"]), lambda session: session.execute(text("SELECT nonsense"))],
    )
    assert all(isinstance(outcome, OperationalError) for outcome in outcomes)
    assert labels(database) == set()
    database.writer.write(lambda session: make_raters(session, ["Two"]))
    assert labels(database) == {"Two"}


def test_closed_writer_takes_nothing_more(tmp_path: Path) -> None:
    opened = open_database(database_url(tmp_path), study_sha256="1" * 64, title="A study")
    opened.close()
    opened.close()
    with pytest.raises(RuntimeError, match="closed"):
        opened.writer.write(lambda session: None)
