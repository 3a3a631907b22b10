"""A small study of drawn pictures, and a server for it that tests can ask without a network."""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from dermdistill.labels import CODES
from dermdistill.review.app import create_app, open_room
from dermdistill.review.database import database_url
from dermdistill.review.raters import make_raters
from dermdistill.review.study import Study, StudyItem, write_study

ADDRESS = "http://testserver"


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """A brown spot on skin."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = np.arctan2(rows, columns)
    edge = 0.45 + 0.1 * np.sin(3 * angle + seed) + 0.05 * np.sin(7 * angle)
    spot = 1 / (1 + np.exp((np.hypot(rows, columns) - edge) * 14))
    skin, brown = np.array([222, 180, 160]), np.array([96, 60, 48]) + generator.integers(-20, 20, 3)
    colours = skin + spot[..., None] * (brown - skin) + generator.normal(0, 5, (height, width, 1))
    return colours.clip(0, 255).astype(np.uint8)


def heat(seed: int, size: int = 14) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    y, x = generator.uniform(-0.4, 0.4, 2)
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 0.2).astype(np.float32)


def make_study(folder: Path, count: int = 4, *, height: int = 45, width: int = 60, seed: int = 3) -> Study:
    """A study of ``count`` items; where there is room, the last repeats the first and the one before has a sham map."""
    items = []
    for place in range(count):
        true = CODES[place % len(CODES)]
        probs = dict.fromkeys(CODES, 0.05) | {true: 0.7}
        sham = "centre_prior" if count > 2 and place == count - 2 else ""
        name = f"k{(place * 37 + 11) % 101:03d}"
        items.append(StudyItem(name, f"SECRET_{place}", f"LESION_{place}", true, true, probs, "grad_cam", sham))
    if count > 1:
        first, last = items[0], items[-1]
        copied = (first.image_id, first.lesion_id, first.true, first.predicted, first.probs, first.method, first.sham)
        items[-1] = StudyItem(last.item, *copied, repeat_of=first.item)
    shown = {item.item: place for place, item in enumerate(items)}
    if count > 1:
        shown[items[-1].item] = 0
    pictures = {name: picture(place, height, width) for name, place in shown.items()}
    maps = {name: heat(place) for name, place in shown.items()}
    study = Study("Maps of a small model", seed, "2026-01-31T12:00:00+00:00", CODES, tuple(items))
    write_study(folder, study, pictures, maps)
    return study


RATINGS = {"after": "mel", "spatial": "4", "trust": "3", "usefulness": "5", "comment": "", "region": ""}


class Browser(TestClient):
    """One person's browser: it keeps cookies, and sends forms with the token of the page that they stand on."""

    ratings = RATINGS

    @staticmethod
    def token_in(page: str) -> str:
        return page.split('name="csrf" value="')[1].split('"', maxsplit=1)[0]

    def send_form(self, path: str, page: str | None = None, **fields: Any) -> Any:
        token = self.token_in(self.get(page or path.rpartition("/")[0]).text)
        return self.post(path, data={"csrf": token, **fields})

    def answer(self, position: int, before: str = "nv", **fields: Any) -> Any:
        """Both steps of an item."""
        assert self.send_form(f"/item/{position}/first", before=before).status_code == 303
        return self.send_form(f"/item/{position}/second", **{**RATINGS, **fields})


class Server:
    """A room, its application, and people who ask it."""

    def __init__(self, folder: Path, url: str | None = None, **settings: Any) -> None:
        self.folder = folder
        self.room = open_room(folder, database_url(folder, url), settings.pop("address", ADDRESS), **settings)
        self.app = create_app(self.room, hosts=["testserver", "review.example.org"])

    def raters(self, *labels: str, simulated: bool = False) -> list[Any]:
        return self.room.database.writer.write(lambda session: make_raters(session, labels, simulated=simulated))

    def browser(self, **options: Any) -> Browser:
        return Browser(self.app, follow_redirects=False, base_url=ADDRESS, **options)

    def rater(self, label: str, **options: Any) -> Any:
        """A browser that has opened the personal link of a new rater."""
        [rater] = self.raters(label)
        browser = self.browser(**options)
        assert browser.get(self.room.rater_link(rater.id, 1)).status_code == 200
        browser.rater = rater
        return browser

    def admin(self) -> Any:
        browser = self.browser()
        assert browser.get(self.room.admin_link()).status_code == 200
        return browser

    def close(self) -> None:
        self.room.database.close()


@pytest.fixture(scope="session")
def new_study() -> Callable[..., Study]:
    return make_study


@pytest.fixture
def study_folder(tmp_path: Path) -> Path:
    make_study(tmp_path / "study")
    return tmp_path / "study"


@pytest.fixture
def serve(tmp_path: Path, study_folder: Path) -> Iterator[Callable[..., Server]]:
    opened: list[Server] = []

    def start(**settings: Any) -> Server:
        opened.append(Server(study_folder, **settings))
        return opened[-1]

    yield start
    for server in opened:
        server.close()


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    return serve()


def postgresql_program(name: str) -> str | None:
    found = shutil.which(name)
    return found or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)), None)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """URL of a PostgreSQL server that we start: in a temporary folder, without a port, never as root."""
    initdb, server = postgresql_program("initdb"), postgresql_program("postgres")
    if not initdb or not server:
        pytest.skip("POSTGRESQL MISSING: no initdb and postgres here; apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="review-pg-"))
    who: dict[str, Any] = {}
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
        who = {"user": "nobody", "extra_groups": []}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **who}
    data = str(folder / "data")
    subprocess.run([initdb, "-D", data, "-U", "review", "-A", "trust", "-E", "UTF8", "--no-sync"], check=True, **quiet)
    options = ("-c", "listen_addresses=", "-c", "fsync=off")
    process = subprocess.Popen([server, "-D", data, "-k", str(folder), *options], **quiet)
    url = f"postgresql+psycopg://review@/postgres?host={folder}"
    try:
        wait_for_postgresql(url, process)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        shutil.rmtree(folder)


def wait_for_postgresql(url: str, process: "subprocess.Popen[bytes]") -> None:
    engine = create_engine(url, poolclass=NullPool)
    for _ in range(300):
        assert process.poll() is None, "PostgreSQL ended as it started"
        try:
            engine.connect().close()
            return
        except OperationalError:
            time.sleep(0.1)
    raise AssertionError("PostgreSQL did not answer within 30 seconds")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new.sqlite3'}"
    server: str = request.getfixturevalue("postgresql")
    name = f"test_{secrets.token_hex(6)}"
    engine = create_engine(server, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    return server.replace("/postgres?", f"/{name}?")
