"""How long do raters wait for the review server when 200 of them answer at once, on SQLite, over loopback?

The server runs in a process of its own, with its ordinary limits, on a study that is made here. Each rater is a client
with an address of its own on the loopback network (127.0.0.0/8 of Linux). After one more rater has warmed the server
up, all 200 open their links, then answer every item as a browser does: page, image, draft, first diagnosis, page, map,
draft, the rest. Before each request a rater thinks for a random time, of two seconds on average by default, far less
than a person would. Afterwards the database is read: no answer may be lost or doubled, and each must be what was sent.

Status 1 where one is, or where the 95th percentile of a kind of request is not under the limit. Each kind is timed from
the request to the last byte of its answer.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session

from dermdistill.labels import CODES
from dermdistill.provenance import origin
from dermdistill.review.app import open_room
from dermdistill.review.database import database_url
from dermdistill.review.raters import make_raters
from dermdistill.review.serve import IDLE_SECONDS, LOOPBACK, serve
from dermdistill.review.steps import Second
from dermdistill.review.study import Study, StudyItem, write_study
from dermdistill.review.tables import Answer, AuditEntry, Draft, Rater

LIMIT_MS = 300.0
READY_SECONDS = 300.0
Times = dict[str, list[float]]


def make_study(folder: Path, items: int) -> None:
    """Pictures of noise, as large as those of HAM10000 and harder to compress."""
    rng = np.random.default_rng(0)
    probs = {code: 1 / len(CODES) for code in CODES}
    made = [
        StudyItem(f"i{place:02d}", f"image {place}", f"lesion {place}", "nv", "nv", probs, "grad_cam")
        for place in range(items)
    ]
    pictures = {item.item: rng.integers(96, 160, (450, 600, 3), dtype=np.uint8) for item in made}
    maps = {item.item: rng.random((14, 14), dtype=np.float32) for item in made}
    write_study(folder, Study("Load", 0, "2026-01-01T00:00:00+00:00", CODES, tuple(made)), pictures, maps)


def links_of(folder: Path, address: str, raters: int) -> list[str]:
    room = open_room(folder, database_url(folder), address)
    labels = [f"Load {number:03d}" for number in range(raters)]
    made = room.database.writer.write(lambda session: make_raters(session, labels, simulated=True))
    room.database.close()
    return [room.rater_link(rater.id, rater.link_version) for rater in made]


class Client:
    """One rater: a connection, what was sent, and how long everything took."""

    def __init__(self, number: int, link: str, pause: float, times: Times) -> None:
        # An address of its own: the server counts requests by address.
        own = f"127.0.{1 + number // 250}.{1 + number % 250}"
        # No https, so no certificates to load.
        kept = httpx.Limits(keepalive_expiry=IDLE_SECONDS / 2)
        transport = httpx.AsyncHTTPTransport(local_address=own, verify=False, limits=kept)
        self._http = httpx.AsyncClient(transport=transport, base_url=link.partition("/r/")[0], timeout=60)
        self._link = link
        self._pause = pause
        self._times = times
        self._rng = np.random.default_rng((1, number))
        self.sent: dict[str, Second] = {}
        self.firsts: dict[str, str] = {}

    async def asked(self, kind: str, method: str, path: str, expected: int, **options: Any) -> httpx.Response:
        """One request, timed, after a pause."""
        await asyncio.sleep(self._rng.exponential(self._pause))
        begun = time.perf_counter()
        response = await self._http.request(method, path, **options)
        self._times[kind].append(1000 * (time.perf_counter() - begun))
        if response.status_code != expected:
            raise RuntimeError(f"{kind}: status {response.status_code}, not {expected}\n{response.text[:500]}")
        return response

    async def answer_all(self, order: list[str]) -> None:
        """Open the link and answer every item."""
        await self.asked("link", "GET", self._link, 200)
        for position, item in enumerate(order, start=1):
            await self._first(position, item)
            await self._second(position, item)
        await self.asked("done", "GET", "/done", 200)
        await self._http.aclose()

    async def _page(self, position: int, picture: str) -> str:
        page = await self.asked("page", "GET", f"/item/{position}", 200)
        await self.asked("picture", "GET", f"/item/{position}/{picture}.png", 200)
        return page.text.split('name="csrf" value="')[1].split('"')[0]

    async def _first(self, position: int, item: str) -> None:
        token = await self._page(position, "image")
        form = {"csrf": token, "step": "first", "before": str(self._rng.choice(CODES))}
        await self.asked("draft", "POST", f"/item/{position}/draft", 204, data=form)
        await self.asked("first", "POST", f"/item/{position}/first", 303, data=form)
        self.firsts[item] = form["before"]

    async def _second(self, position: int, item: str) -> None:
        token = await self._page(position, "map")
        spatial, trust, usefulness = (int(value) for value in self._rng.integers(1, 6, 3))
        after, comment = str(self._rng.choice(CODES)), "x" * int(self._rng.integers(200)) + f" about {item}".lstrip()
        second = Second(after, spatial, trust, usefulness, comment, "[[[0.1,0.1],[0.9,0.1],[0.5,0.8]]]")
        form = {"csrf": token, "step": "second", **{name: str(value) for name, value in vars(second).items()}}
        await self.asked("draft", "POST", f"/item/{position}/draft", 204, data=form)
        await self.asked("second", "POST", f"/item/{position}/second", 303, data=form)
        self.sent[item] = second


def wrong_answers(folder: Path, clients: list[Client]) -> dict[str, int]:
    """How many answers are lost, doubled or not what was sent, read from the file and not through the server."""
    engine = create_engine(database_url(folder))
    with Session(engine) as session:
        raters = session.scalars(select(Rater).order_by(Rater.id)).all()[: len(clients)]  # the last warmed up
        answers = session.scalars(select(Answer).where(Answer.rater_id <= raters[-1].id)).all()
        whole = AuditEntry.action == "answer", AuditEntry.rater_id <= raters[-1].id
        noted = session.scalar(select(func.count()).select_from(AuditEntry).where(*whole)) or 0
        left = session.scalar(select(func.count()).select_from(Draft)) or 0
    engine.dispose()
    rows, stored = len(answers), {(answer.rater_id, answer.item): answer for answer in answers}
    expected = {
        (rater.id, item): (client, item) for rater, client in zip(raters, clients, strict=True) for item in client.sent
    }
    altered = 0
    for key, (client, item) in expected.items():
        answer = stored.get(key)
        if answer is not None:
            same = all(getattr(answer, name) == value for name, value in vars(client.sent[item]).items())
            altered += not (same and answer.before == client.firsts[item])
    return {
        "sent": len(expected),
        "stored": rows,
        "lost": len(expected.keys() - stored.keys()),
        "doubled": rows - len(stored) + len(stored.keys() - expected.keys()) + max(0, noted - len(expected)),
        "altered": altered,
        "drafts_left": left,
    }


def wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("the server does not answer")


def cpu_seconds(process: int | None) -> float:
    """What a process has used so far: user and system time."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def summary(values: list[float]) -> dict[str, float]:
    p5, median, p95, p99 = np.percentile(values, [5, 50, 95, 99])
    return {
        "median": round(float(median), 2),
        "p5": round(float(p5), 2),
        "p95": round(float(p95), 2),
        "p99": round(float(p99), 2),
        "max": round(max(values), 2),
        "repeats": len(values),
    }


async def run_clients(clients: list[Client], orders: list[list[str]]) -> None:
    await asyncio.gather(*(client.answer_all(order) for client, order in zip(clients, orders, strict=True)))


def quietly(*words: Any) -> None:
    """The server, whose greeting goes to standard error: standard output is the JSON object alone."""
    sys.stdout = sys.stderr
    serve(*words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raters", type=int, default=200)
    parser.add_argument("--items", type=int, default=5)
    parser.add_argument("--pause", type=float, default=2.0, help="mean seconds between two requests of a rater")
    options = parser.parse_args()
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        port = free.getsockname()[1]
    times: Times = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "study"
        make_study(folder, options.items)
        *links, warm = links_of(folder, f"http://{LOOPBACK}:{port}", options.raters + 1)
        room = open_room(folder, database_url(folder), "http://unused")
        orders = [list(room.order(index)) for index in range(options.raters + 1)]
        room.database.close()
        server = multiprocessing.get_context("spawn").Process(target=quietly, args=(folder, None, LOOPBACK, port))
        server.start()
        try:
            wait_until_ready(port)
            asyncio.run(run_clients([Client(options.raters, warm, 0.01, times)], orders[-1:]))
            times.clear()
            clients = [Client(number, link, options.pause, times) for number, link in enumerate(links)]
            begun, used = time.perf_counter(), cpu_seconds(server.pid)
            asyncio.run(run_clients(clients, orders[:-1]))
            seconds, used = time.perf_counter() - begun, cpu_seconds(server.pid) - used
        finally:
            server.terminate()
            server.join(30)
        counts = wrong_answers(folder, clients)
    results = {kind: summary(values) for kind, values in times.items()}
    results["all"] = summary([value for values in times.values() for value in values])
    writes = summary([value for kind in ("draft", "first", "second") for value in times[kind]])
    sound = counts["stored"] == counts["sent"] == options.raters * options.items
    sound = sound and not (counts["lost"] or counts["doubled"] or counts["altered"] or counts["drafts_left"])
    passed = sound and all(one["p95"] < LIMIT_MS for one in results.values())
    result = {
        "benchmark": "review_load",
        "unit": "ms",
        "passed": passed,
        "raters": options.raters,
        "items": options.items,
        "pause_seconds": options.pause,
        "seconds": round(seconds, 1),
        "requests_per_second": round(results["all"]["repeats"] / seconds, 1),
        "server_cpu_ms_per_request": round(1000 * used / results["all"]["repeats"], 2),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "answers": counts,
        "limit_ms": LIMIT_MS,
        "results": {**results, "writes": writes},
        **origin(),
    }
    print(json.dumps(result))
    sys.exit(not passed)


if __name__ == "__main__":
    main()
