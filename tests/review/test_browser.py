"""A whole study in real browsers: three simulated raters, a reload, a killed server, mouse, finger and keys.

Skipped, with the reason, where there is no Chromium.
"""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

pytestmark = [pytest.mark.browser, pytest.mark.slow]
ITEMS = 20
DESKTOP = {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
    "color_scheme": "dark",
}
SERVER = "from pathlib import Path; from dermdistill.review.serve import serve; import sys; " + (
    "serve(Path(sys.argv[1]), None, '127.0.0.1', int(sys.argv[2]))"
)
LOADED = "pictures => pictures.length > 0 && pictures.every(one => one.complete && one.naturalWidth > 0)"
PATIENCE = 60_000
CODES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


class Process:
    """The server as its own process, which can be killed and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.admin_link = ""
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(self.folder), str(self.port)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("admin page"):
                self.admin_link = line.split(": ", 1)[1].strip()
            if line.startswith("Not for clinical use"):
                break
        self.process.stdout.close()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("the server does not answer")

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)


@pytest.fixture
def server(tmp_path: Path, new_study: Callable[..., Any]) -> Iterator[Process]:
    new_study(tmp_path / "study", ITEMS, height=450, width=600)
    running = Process(tmp_path / "study")
    yield running
    running.stop()


class Person:
    """A rater or the admin at a browser, and everything that went wrong there."""

    def __init__(self, browser: Any, link: str, **options: Any) -> None:
        self.faults: list[str] = []
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.page.on("console", lambda said: self.faults.append(f"console: {said.text}"))
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.goto(link)
        self.width = options["viewport"]["width"]
        self.given: list[dict[str, str]] = []

    def looks_right(self) -> None:
        """No fault of accessibility that matters, nothing wider than the screen, every picture there."""
        serious = [
            f"{one['id']}: {[node['html'] for node in one['nodes']]}"
            for one in Axe().run(self.page).response["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == []
        assert self.page.evaluate("document.documentElement.scrollWidth") <= self.width
        if self.page.locator("main img").count():
            self.page.wait_for_function(f"({LOADED})([...document.images])")

    def at(self, position: int, step: int) -> None:
        self.page.get_by_text(f"Item {position} of {ITEMS}, step {step} of 2").wait_for()

    def slide(self) -> None:
        """From the image alone to the map alone."""
        heat = self.page.locator("[data-heat]")
        for place, opacity in (("0", "0"), ("100", "1")):
            self.page.get_by_role("slider").fill(place)
            assert heat.evaluate("image => getComputedStyle(image).opacity") == opacity

    def choose(self, name: str, value: str) -> None:
        self.page.locator(f"input[name={name}][value='{value}']").check()

    def wants(self, position: int, seed: int) -> dict[str, str]:
        """What this rater will answer: any fixed thing, different for raters and items."""
        draw = position * 7 + seed * 3
        scales = {name: str((draw * step) % 5 + 1) for step, name in ((1, "spatial"), (2, "trust"), (3, "usefulness"))}
        return {"before": CODES[draw % 7], "after": CODES[(draw + position % 2) % 7], **scales, "comment": ""}

    def first(self, wanted: dict[str, str]) -> None:
        self.choose("before", wanted["before"])
        self.page.get_by_role("button", name="Send diagnosis").click()

    def fill_second(self, wanted: dict[str, str]) -> None:
        for name in ("after", "spatial", "trust", "usefulness"):
            self.choose(name, wanted[name])
        if wanted["comment"]:
            self.page.get_by_label("Comment").fill(wanted["comment"])

    def send_second(self, wanted: dict[str, str]) -> None:
        self.page.get_by_role("button", name="Send and").click()
        self.given.append(wanted)

    def item(self, position: int, seed: int, *, look: bool = False) -> None:
        wanted = self.wants(position, seed)
        self.at(position, 1)
        self.first(wanted)
        self.at(position, 2)
        if look:
            self.looks_right()
            self.slide()
            self.page.goto(self.page.url)  # whoever comes back does not find the first step open again
            self.at(position, 2)
        self.fill_second(wanted)
        self.send_second(wanted)


def drag(person: Person) -> None:
    """A ring with the mouse, or with a finger where there is one."""
    person.page.get_by_role("button", name="Draw the region that matters").click()
    box = person.page.locator("canvas").bounding_box()
    spots = [(0.3, 0.3), (0.6, 0.3), (0.6, 0.6), (0.45, 0.7), (0.3, 0.6)]
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in spots]
    if person.width < 600:
        touch = person.context.new_cdp_session(person.page)
        for kind, (x, y) in [("touchStart", points[0]), *(("touchMove", point) for point in points[1:])]:
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    else:
        person.page.mouse.move(*points[0])
        person.page.mouse.down()
        for point in points[1:]:
            person.page.mouse.move(*point, steps=4)
        person.page.mouse.up()
    person.page.get_by_text("1 region drawn.").wait_for()
    person.page.get_by_role("button", name="Finish drawing").click()


def by_keys_alone(person: Person, position: int, seed: int) -> None:
    """No mouse: digits and Enter, Tab and arrows now and then, and once a region."""
    wanted, keys = person.wants(position, seed), person.page.keyboard
    person.at(position, 1)
    keys.press(str(CODES.index(wanted["before"]) + 1))
    keys.press("Enter")
    person.at(position, 2)
    keys.press(str(CODES.index(wanted["after"]) + 1))
    if position % 5 == 0:  # Shift+Tab goes back and forth, arrows choose
        keys.press("Shift+Tab")
        keys.press("Tab")
    keys.press(wanted["spatial"])
    keys.press(wanted["trust"])
    keys.press(wanted["usefulness"])
    if position == 4:
        draw_by_keys(person)
    if position == 6:
        person.page.get_by_label("Comment").focus()
        keys.type("typed 12345\n")
        wanted |= {"comment": "typed 12345"}
        keys.press("Control+Enter")
    else:
        keys.press("Enter")
    person.given.append(wanted)


def draw_by_keys(person: Person) -> None:
    keys, draw = person.page.keyboard, person.page.locator("[data-draw]")
    for _ in range(60):
        if draw.evaluate("button => button === document.activeElement"):
            break
        keys.press("Shift+Tab")
    keys.press("Enter")
    for move in ("ArrowLeft", "ArrowUp", "ArrowRight"):
        for _ in range(5):
            keys.press(move)
        keys.press("Space")
    keys.press("Enter")
    person.page.get_by_text("1 region drawn.").wait_for()
    keys.press("Escape")
    assert draw.evaluate("button => button === document.activeElement")
    keys.press("Tab")
    while not person.page.evaluate("document.activeElement.type === 'radio'"):
        keys.press("Tab")


def reload_in_the_middle(person: Person, position: int, seed: int) -> None:
    wanted = person.wants(position, seed) | {"comment": "rim, upper left"}
    person.at(position, 1)
    person.choose("before", wanted["before"])
    person.page.get_by_text("Draft kept.").wait_for()
    person.page.reload()
    assert person.page.locator("input[name=before]:checked").get_attribute("value") == wanted["before"]
    person.first(wanted)
    person.at(position, 2)
    person.fill_second(wanted)
    drag(person)
    person.page.get_by_text("Draft kept.").wait_for()
    person.page.reload()
    for name in ("after", "spatial", "trust", "usefulness"):
        assert person.page.locator(f"input[name={name}]:checked").get_attribute("value") == wanted[name]
    assert person.page.get_by_label("Comment").input_value() == wanted["comment"]
    person.page.get_by_text("1 region drawn.").wait_for()
    person.send_second(wanted)


def kill_in_the_middle(person: Person, other: Person, server: Process, position: int, seed: int) -> None:
    """The server dies while an answer is on its way and another page is open: neither rater loses anything."""
    wanted = person.wants(position, seed) | {"comment": "kept through a crash"}
    person.at(position, 1)
    person.first(wanted)
    person.at(position, 2)
    person.fill_second(wanted)
    other.at(position, 1)
    server.kill()
    person.send_second(wanted)
    person.page.get_by_text("The server does not answer.").wait_for()
    other.choose("before", other.wants(position, 1)["before"])
    other.page.get_by_text("The server does not answer.").wait_for()
    server.start()
    person.at(position + 1, 1)
    other.page.get_by_text("Draft kept.").wait_for()
    for one in (person, other):
        refused = [fault for fault in one.faults if "ERR_CONNECTION_REFUSED" in fault]
        assert refused
        one.faults = [fault for fault in one.faults if fault not in refused]


def test_whole_study_by_three_simulated_raters(browser: Any, server: Process, tmp_path: Path) -> None:
    admin = Person(browser, server.admin_link, accept_downloads=True, **DESKTOP)
    admin.page.get_by_label("Names, one a line").fill("Robot 1\nRobot 2\nRobot 3")
    admin.page.get_by_label("Simulated").check()
    admin.page.get_by_role("button", name="Make links").click()
    admin.page.get_by_text("3 of the raters are simulated").wait_for()
    links = admin.page.locator("[data-link]").evaluate_all("fields => fields.map(field => field.value)")
    assert len(links) == 3
    admin.looks_right()

    mouse, finger = Person(browser, links[0], **DESKTOP), Person(browser, links[1], **PHONE)
    for person in (mouse, finger):
        person.looks_right()
        person.page.get_by_role("link", name="Begin").click()
        person.looks_right()
    for position in range(1, ITEMS + 1):  # two at once, item by item
        if position == 8:
            kill_in_the_middle(finger, mouse, server, position, 2)
        elif position == 12:
            reload_in_the_middle(finger, position, 2)
        else:
            finger.item(position, 2, look=position == 3)
        if position == 5:
            reload_in_the_middle(mouse, position, 1)
        else:
            mouse.item(position, 1, look=position == 3)
    keys = Person(browser, links[2], viewport={"width": 1280, "height": 900}, color_scheme="dark")
    keys.page.get_by_role("link", name="Begin").press("Enter")
    for position in range(1, ITEMS + 1):
        by_keys_alone(keys, position, 3)
    raters = {"Robot 1": mouse, "Robot 2": finger, "Robot 3": keys}
    for person in raters.values():
        person.page.get_by_text("Thank you. That was all.").wait_for()
        person.looks_right()
    check_stored(admin, server, raters, tmp_path)
    for person in (admin, *raters.values()):
        assert person.faults == []
        person.context.close()


def check_stored(admin: Person, server: Process, raters: dict[str, Person], tmp_path: Path) -> None:
    """Each answer once, each as it was given, in the order in which the rater saw the items."""
    admin.page.goto(f"http://127.0.0.1:{server.port}/admin")
    admin.page.get_by_text(f"{3 * ITEMS} of {3 * ITEMS} answers by 3 raters").wait_for()
    with admin.page.expect_download() as waiting:
        admin.page.get_by_role("link", name="Answers as CSV").click()
    waiting.value.save_as(tmp_path / "answers.csv")
    with (tmp_path / "answers.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == len({(row["rater"], row["item"]) for row in rows}) == 3 * ITEMS
    assert {row["simulated"] for row in rows} == {"True"}
    for label, person in raters.items():
        own = [row for row in rows if row["rater"] == label]
        names = ("before", "after", "spatial", "trust", "usefulness", "comment")
        assert [{name: row[name] for name in names} for row in own] == person.given
    drawn = {(row["rater"], place) for place, row in enumerate(rows) if row["region"]}
    assert drawn == {("Robot 1", 4), ("Robot 2", ITEMS + 11), ("Robot 3", 2 * ITEMS + 3)}
    for row in rows:
        for polygon in json.loads(row["region"] or "[]"):
            middle = [sum(values) / len(polygon) for values in zip(*polygon, strict=True)]
            assert all(0.3 < share < 0.6 for share in middle)


def test_item_is_answered_without_scripts(browser: Any, server: Process) -> None:
    admin = Person(browser, server.admin_link, java_script_enabled=False, **DESKTOP)
    admin.page.get_by_label("Names, one a line").fill("Robot")
    admin.page.get_by_label("Simulated").check()
    admin.page.get_by_role("button", name="Make links").click()
    link = admin.page.locator("[data-link]").get_attribute("value")
    person = Person(browser, link, java_script_enabled=False, **PHONE)
    person.page.get_by_role("link", name="Begin").click()
    person.item(1, 1)
    person.at(2, 1)
    assert person.page.get_by_role("slider").count() == 0
    for one in (admin, person):
        assert one.faults == []
        one.context.close()
