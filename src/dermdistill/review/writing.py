"""Writes, one after another: many raters who answer at once share one commit, and with it one wait for the disk.

SQLite has a single writer. Left to themselves, forty threads poll for its lock and each waits for a commit of its own;
queued, they are served in their order, and whatever has queued up while the disk was busy is committed together.
A write is acknowledged only after its commit.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar, cast

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

T = TypeVar("T")
Work = Callable[[Session], Any]
MOST_TOGETHER = 64


class Writer(Protocol):
    """Runs work in a transaction that is committed when ``write`` returns, and rolled back where work raises."""

    def write(self, work: Callable[[Session], T]) -> T:
        """What ``work`` returns."""
        ...

    def close(self) -> None:
        """Finish what was begun."""
        ...


class EachAlone:
    """A transaction for each write: PostgreSQL has as many writers as it has connections."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def write(self, work: Callable[[Session], T]) -> T:
        """What ``work`` returns, after the commit."""
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            return work(session)

    def close(self) -> None:
        """Nothing is left open."""


class Together:
    """One thread that writes for all; each write has a savepoint, so one that fails takes no other with it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: queue.SimpleQueue[tuple[Work, Future[Any]] | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="review-writer", daemon=True)
        self._thread.start()

    def write(self, work: Callable[[Session], T]) -> T:
        """What ``work`` returns, after the commit."""
        outcome: Future[Any] = Future()
        with self._closing:
            if self._closed:
                raise RuntimeError("the database is closed")
            self._waiting.put((work, outcome))
        return cast(T, outcome.result())

    def close(self) -> None:
        """Commit what waits, then stop."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            batch = self._next_batch()
            if not batch:
                return
            self._commit(batch)

    def _next_batch(self) -> list[tuple[Work, Future[Any]]]:
        """All that waits, at least one; nothing when the writer was closed."""
        first = self._waiting.get()
        batch = [first] if first is not None else []
        while first is not None and len(batch) < MOST_TOGETHER:
            try:
                following = self._waiting.get_nowait()
            except queue.Empty:
                break
            if following is None:  # closed: this batch is the last but one
                self._waiting.put(None)
                break
            batch.append(following)
        return batch

    def _commit(self, batch: list[tuple[Work, Future[Any]]]) -> None:
        done: list[tuple[Future[Any], Any]] = []
        failed: list[tuple[Future[Any], BaseException]] = []
        try:
            with Session(self._engine, expire_on_commit=False) as session, session.begin():
                for work, outcome in batch:
                    try:
                        with session.begin_nested():
                            done.append((outcome, work(session)))
                    except Exception as error:
                        # A full disk ends the whole transaction in SQLite, and whatever came before in it.
                        if isinstance(error, DBAPIError) and not isinstance(error, IntegrityError):
                            raise
                        done = [pair for pair in done if pair[0] is not outcome]
                        failed.append((outcome, error))
        except BaseException as error:  # the commit itself: nobody's write is there
            failed, done = [(outcome, error) for _, outcome in batch], []
        for outcome, value in done:
            outcome.set_result(value)
        for outcome, reason in failed:
            outcome.set_exception(reason)
