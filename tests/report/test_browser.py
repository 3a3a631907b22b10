"""The page in a real browser: what no parser sees. Skipped, with the reason, where there is no Chromium."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from dermdistill.report.page import write_report

pytestmark = [pytest.mark.browser, pytest.mark.slow]
MOST_BYTES = 15_000_000
LOADED = "pictures => pictures.every(picture => picture.complete && picture.naturalWidth > 0)"
TABLE = "Student INT8 on the test part"


@pytest.fixture(scope="module")
def report(whole_run: Path) -> Path:
    return write_report(whole_run)


class View:
    """A page that is open, and everything that went wrong or out of it."""

    def __init__(self, browser: Any, report: Path, **options: Any) -> None:
        self.faults: list[str] = []
        self.context = browser.new_context(accept_downloads=True, **options)
        self.page = self.context.new_page()
        self.page.on("console", lambda said: self.faults.append(f"console: {said.text}"))
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("request", lambda asked: self._asked(asked.url, report))
        self.page.goto(report.as_uri())

    def _asked(self, address: str, report: Path) -> None:
        if address != report.as_uri() and not address.startswith(("data:", "blob:")):
            self.faults.append(f"request: {address}")

    def saved(self, button: str) -> tuple[str, str]:
        """Name and text of what a button saves."""
        with self.page.expect_download() as waiting:
            self.page.get_by_role("button", name=button, exact=True).click()
        return waiting.value.suggested_filename, Path(waiting.value.path()).read_text(encoding="utf-8-sig")

    def column(self, caption: str, place: int) -> list[str]:
        rows = self.page.locator("table", has=self.page.locator("caption", has_text=caption)).locator("tbody tr")
        texts: list[str] = rows.evaluate_all("(rows, place) => rows.map(row => row.cells[place].textContent)", place)
        return [" ".join(text.split()) for text in texts]


@pytest.fixture
def view(browser: Any, report: Path) -> Iterator[View]:
    opened = View(browser, report, viewport={"width": 1280, "height": 900})
    yield opened
    assert opened.faults == []
    opened.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390, 360])
def test_page_shows_all_without_faults_or_overflow(browser: Any, report: Path, width: int, scheme: str) -> None:
    view = View(browser, report, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert view.page.eval_on_selector_all("img", LOADED)
    assert view.page.locator("img").count() > 20
    assert view.page.evaluate("document.documentElement.scrollWidth") <= width
    light = view.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (light == "rgb(245, 246, 248)") is (scheme == "light")
    assert view.faults == []
    view.context.close()


def test_print_is_light_without_navigation_and_opened(browser: Any, report: Path) -> None:
    view = View(browser, report, viewport={"width": 794, "height": 1123}, color_scheme="dark")
    closed = view.page.locator("details:not([open]) table").first
    assert not closed.is_visible()
    view.page.emulate_media(media="print", color_scheme="dark")
    assert not view.page.locator("nav").is_visible()
    assert view.page.locator(".save").first.is_hidden()
    assert view.page.evaluate("getComputedStyle(document.querySelector('main p')).color") != "rgb(228, 232, 238)"
    assert view.page.evaluate("getComputedStyle(document.querySelector('figure svg')).color") == "rgb(27, 36, 48)"
    view.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert view.page.locator("details:not([open])").count() == 0
    view.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert view.page.locator("details:not([open])").count() > 0
    assert view.faults == []
    view.context.close()


def test_page_works_without_scripts(browser: Any, report: Path) -> None:
    view = View(browser, report, java_script_enabled=False)
    assert view.page.get_by_text("What must it not be used for?").is_visible()
    assert view.page.locator("button").count() == 0
    assert view.page.get_by_role("link", name="evaluation.json").is_visible()
    view.context.close()


def test_file_is_small_enough_to_send(report: Path) -> None:
    assert report.stat().st_size < MOST_BYTES


def test_heading_sorts_a_table_by_value_and_back(view: View) -> None:
    printed = view.column(TABLE, 1)
    assert printed == ["49", "77", "165", "8", "167", "1,006", "21"]
    table = view.page.locator("table", has=view.page.locator("caption", has_text=TABLE))
    heading = table.get_by_role("button", name="n", exact=True)
    heading.focus()
    for state, expected in (
        ("ascending", ["8", "21", "49", "77", "165", "167", "1,006"]),
        ("descending", ["1,006", "167", "165", "77", "49", "21", "8"]),
        (None, printed),
    ):
        view.page.keyboard.press("Enter")
        assert view.column(TABLE, 1) == expected
        assert table.locator("thead th").nth(1).get_attribute("aria-sort") == state


def test_words_stay_last_whichever_way_a_table_is_sorted(view: View) -> None:
    table = view.page.locator("table", has=view.page.locator("caption", has_text=TABLE))
    for _ in range(2):
        table.get_by_role("button", name="Sensitivity", exact=True).click()
        column = view.column(TABLE, 2)
        assert column[-1] == "too few (8)"
        assert all(text.startswith(".") for text in column[:-1])
    assert column[:-1] == sorted(column[:-1], key=lambda text: -float(text.split()[0]))


def test_signed_numbers_sizes_and_words_sort_by_value(browser: Any, report: Path, tmp_path: Path) -> None:
    values = ["+.004", "too few (7)", "3.52 MB", "-.010", "1,502", ".923 (.905-.941)", "812 kB", "12.0% larger"]
    rows = "".join(f"<tr><th>{place}</th><td>{value}</td></tr>" for place, value in enumerate(values))
    head = "<caption>Made up</caption><thead><tr><th></th><th>Value</th></tr></thead>"
    changed = tmp_path / "report.html"
    table = f"<table>{head}<tbody>{rows}</tbody></table>"
    changed.write_text(report.read_text().replace("<footer>", f"{table}<footer>"))
    view = View(browser, changed)
    view.page.locator("table", has_text="Made up").get_by_role("button", name="Value", exact=True).click()
    assert view.column("Made up", 1) == [
        *("-.010", "+.004", ".923 (.905-.941)", "12.0% larger", "1,502", "812 kB", "3.52 MB", "too few (7)"),
    ]
    assert view.faults == []
    view.context.close()


def test_groups_of_a_table_are_sorted_by_themselves(view: View) -> None:
    table = view.page.locator("table", has=view.page.locator("caption", has_text="All metrics"))
    before = view.column("All metrics", 0)
    table.get_by_role("button", name="Teacher").click()
    after = view.column("All metrics", 0)
    places = [before.index(title) for title in ("Diagnosis", "Melanoma against the rest")]
    assert after != before
    assert [after[place] for place in places] == ["Diagnosis", "Melanoma against the rest"]
    assert set(after[places[0] : places[1]]) == set(before[places[0] : places[1]])


def test_table_saves_as_csv_in_the_order_shown(view: View) -> None:
    name, text = view.saved("Save as CSV: Images a class and part")
    assert name == "edge-data-images-a-class-and-part.csv"
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == ["Diagnosis", "train", "val", "test", "All"]
    assert ["nv Melanocytic nevus", "4,698", "1,006", "1,006", "6,710"] in rows
    assert all(len(row) == 5 for row in rows)


def test_figure_saves_as_a_drawing_that_stands_alone(view: View, browser: Any, tmp_path: Path) -> None:
    name, text = view.saved("Save as SVG: Confusion matrices, rows true, columns predicted")
    assert name.endswith(".svg") and "currentColor" not in text and "var(" not in text
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert float(root.attrib["width"]) > 100
    (tmp_path / name).write_text(text, encoding="utf-8")
    alone = browser.new_page()
    alone.goto((tmp_path / name).as_uri())
    assert alone.get_by_text("Student INT8").is_visible()
    alone.close()


def test_evaluation_is_saved_under_the_policy(view: View, whole_run: Path) -> None:
    with view.page.expect_download() as waiting:
        view.page.get_by_role("link", name="evaluation.json").click()
    assert waiting.value.suggested_filename == "evaluation.json"
    assert Path(waiting.value.path()).read_bytes() == (whole_run / "evaluation" / "evaluation.json").read_bytes()


def test_policy_stops_a_foreign_script(browser: Any, report: Path, tmp_path: Path) -> None:
    changed = tmp_path / "report.html"
    changed.write_text(report.read_text().replace("<footer>", "<script>document.title = 'taken'</script><footer>"))
    view = View(browser, changed)
    assert view.page.title() != "taken"
    assert any("Content Security Policy" in fault for fault in view.faults)
    view.context.close()
