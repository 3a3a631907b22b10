"""The database of a study: SQLite beside the study, or PostgreSQL by URL; brought to its present form when opened."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, select, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from dermdistill.atomic import make_folder
from dermdistill.errors import ConfigError, OutputError
from dermdistill.review.study import STUDY_FILE, Study
from dermdistill.review.tables import StudyOfDatabase, now
from dermdistill.review.writing import EachAlone, Together, Writer

DATABASE_FILE: Final = "answers.sqlite3"
DRIVERS: Final = {
    **dict.fromkeys(("sqlite", "sqlite+pysqlite"), "sqlite+pysqlite"),
    **dict.fromkeys(("postgres", "postgresql", "postgresql+psycopg"), "postgresql+psycopg"),
}
FORMS: Final = "sqlite:///FILE or postgresql://USER@HOST/NAME"
BUSY_MILLISECONDS: Final = 10_000
# Any number that no other program is likely to lock: two servers that start at once migrate one after the other.
MIGRATION_LOCK: Final = 0x6465726D


@dataclass(frozen=True)
class Database:
    """An open database: ``reading`` gives sessions for queries, ``writer`` takes every write."""

    engine: Engine
    writer: Writer

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session for queries alone."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    def settle(self) -> None:
        """After erasing: the log of SQLite, which still holds the erased pages, is emptied."""
        if self.engine.dialect.name == "sqlite":
            connection = self.engine.raw_connection()
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()

    def close(self) -> None:
        """Finish what was begun and let go of every connection."""
        self.writer.close()
        self.engine.dispose()


def database_url(study_folder: Path, given: str | None = None) -> URL:
    """The URL given, or that of a SQLite file in the study's folder.

    Raises:
        ConfigError: not a URL of SQLite or PostgreSQL; a password in it is not repeated.
    """
    if given is None:
        return URL.create("sqlite+pysqlite", database=str((study_folder / DATABASE_FILE).resolve()))
    try:
        url = make_url(given)
        driver = DRIVERS[url.drivername]
    except (ArgumentError, KeyError) as error:
        kind = given.partition(":")[0]
        raise ConfigError(
            f"the database URL begins with {kind!r:.40}", rule=f"{FORMS} (SQLite or PostgreSQL)"
        ) from error
    if driver.startswith("sqlite") and (not url.database or url.database == ":memory:"):
        raise ConfigError("a database in memory would lose every answer", rule=FORMS)
    return url.set(drivername=driver)


def study_database(folder: Path, study: Study, url: URL) -> Database:
    """Open the database of a study's answers; see ``open_database``."""
    sha256 = hashlib.sha256((folder / STUDY_FILE).read_bytes()).hexdigest()
    return open_database(url, study_sha256=sha256, title=study.title)


def open_database(url: URL, *, study_sha256: str, title: str) -> Database:
    """Open, and make or migrate the tables.

    Args:
        url: of ``database_url``.
        study_sha256: of ``study.json``: answers belong to this study and no other.
        title: of the study, written beside its hash for people.

    Raises:
        ConfigError: no such server, or the database holds another study or the tables of a newer version.
        OutputError: the file of SQLite cannot be made.
    """
    engine = _engine(url)
    try:
        with _migrating(engine) as connection:
            _migrate(connection, url)
            _claim(connection, study_sha256, title, url)
    except SQLAlchemyError as error:
        raise ConfigError(
            f"{_shown(url)}: the database cannot be opened ({_reason(error)})",
            rule="a file that can be written, or a PostgreSQL server that answers and lets this user make tables",
            next_step="check the URL, the server and the rights",
        ) from error
    except BaseException:
        engine.dispose()
        raise
    if engine.dialect.name != "sqlite":
        return Database(engine, EachAlone(engine))
    return Database(engine, Together(engine.execution_options(writes=True)))


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)


def _reason(error: SQLAlchemyError) -> str:
    first = str(getattr(error, "orig", None) or error).strip().splitlines()
    return first[0] if first else type(error).__name__


def _engine(url: URL) -> Engine:
    if not url.drivername.startswith("sqlite"):
        return create_engine(url, pool_size=10, max_overflow=30, pool_pre_ping=True)
    _private_file(Path(str(url.database)))
    engine = create_engine(
        url, poolclass=QueuePool, pool_size=10, max_overflow=40, connect_args={"check_same_thread": False}
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _private_file(path: Path) -> None:
    """Answers are for this user alone; SQLite gives its own files the rights of this one."""
    make_folder(path.parent)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror})", rule="the database's folder must be writable"
        ) from error


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Readers beside the writer, every commit on the disk, references held; transactions begin where we say."""
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout = {BUSY_MILLISECONDS}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "secure_delete = ON",  # erased data are overwritten, not left in free pages
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """A write takes the lock at once: one that began as a reader could fail where it had waited in vain."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _migrating(engine: Engine) -> Iterator[Connection]:
    with engine.execution_options(writes=True).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        yield connection


def _migrate(connection: Connection, url: URL) -> None:
    settings = Config(attributes={"connection": connection})
    settings.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    try:
        command.upgrade(settings, "head")
    except CommandError as error:
        raise ConfigError(
            f"{_shown(url)}: the tables are of another version ({error})",
            rule="a database is opened by the version that made it, or a newer one",
            next_step="use the newer dermdistill, or another database",
        ) from error


def _claim(connection: Connection, sha256: str, title: str, url: URL) -> None:
    """A new database becomes that of this study; an older one must be."""
    with Session(connection, join_transaction_mode="create_savepoint") as session:
        found = session.scalar(select(StudyOfDatabase))
        if found is None:
            session.add(StudyOfDatabase(id=1, sha256=sha256, title=title, created_at=now()))
            session.commit()
        elif found.sha256 != sha256:
            raise ConfigError(
                f"{_shown(url)}: holds the answers to another study.json, {found.title!r}",
                rule="one database a study, and a study does not change once it has been served",
                next_step="give the study a database of its own, or put its study.json back as it was",
            )
