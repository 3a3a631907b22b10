"""The tables, sentences and files of a comparison of runs, made from a result that is written out here."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dermdistill.errors import OutputError
from dermdistill.report import run_comparison as report

METRICS = ("macro_auc", "balanced_accuracy", "melanoma_auc", "ece")


def figure(value: float | None, half: float = 0.02, spread: float | None = None) -> dict[str, Any]:
    bounds = (None, None) if value is None else (value - half, value + half)
    return {"value": value, "low": bounds[0], "high": bounds[1], "spread": spread, "per_seed": [value]}


def difference(value: float | None, half: float, verdict: str | None) -> dict[str, Any]:
    return {key: entry for key, entry in figure(value, half).items() if key != "spread"} | {"verdict": verdict}


def row(value: float, seeds: list[int], differences: dict[str, Any]) -> dict[str, Any]:
    delong = {"seeds": [0, 0], "value": -0.031, "low": -0.05, "high": -0.012, "p": 0.00004}
    return {
        "seeds": seeds,
        "metrics": {metric: figure(value, spread=0.004 if len(seeds) > 1 else None) for metric in METRICS},
        "differences": differences,
        "paired_seeds": {other: [0] for other in differences},
        "delong": {other: [delong] for other in differences},
    }


def run(name: str, **facts: Any) -> dict[str, Any]:
    hashes = {"catalog_sha256": "c" * 64, "split_sha256": "d" * 64, "commit": "4f0c" * 10}
    plain = {"recipe": "edge", "seed": 0, "protocol": "lesion", "leaky": False, "models": ["student_int8"]}
    return {"name": name, **plain, "bytes": {"student_int8": 3_671_004}, "version": "0.1.0", "dirty": False} | {
        **hashes,
        "finished": "2025-11-22T07:31:00+00:00",
        "group": name,
        **facts,
    }


@pytest.fixture
def result() -> dict[str, Any]:
    cells = {
        "macro_auc": difference(-0.02, 0.01, "lower"),
        "balanced_accuracy": difference(0.003, 0.01, "no evidence"),
        "melanoma_auc": difference(None, 0, None),
        "ece": difference(0.05, 0.02, "higher"),
    }
    return {
        "task": "diagnosis",
        "paired": True,
        "verdicts": ["higher", "lower"],
        "n": {"images": 1502, "lesions": 1119, "per_class": {"mel": 167, "nv": 1006}},
        "bootstrap": {"samples": 2000, "seed": 0, "unit": "lesion and seed", "level": 0.95},
        "metrics": list(METRICS),
        "control": "edge, 2 seeds (a, b): Student INT8",
        "rows": {
            "edge, 2 seeds (a, b): Student INT8": row(0.943, [0, 1], {}),
            "<b>c</b>: Student INT8": row(0.923, [0], {"edge, 2 seeds (a, b): Student INT8": cells}),
        },
        "notes": ["3 differences were looked at.", "a < b"],
        "runs": [run("a"), run("b", seed=1), run("<b>c</b>", leaky=True, dirty=True, bytes={})],
        "recipes": [
            {"key": "seed", "values": {"a": 0, "b": 1, "<b>c</b>": 0}},
            {"key": "student.epochs", "values": {"a": 26, "b": 26}},
            {"key": "threads", "values": {"a": None, "b": None, "<b>c</b>": 2}},
        ],
        "code": {"version": "0.1.0", "commit": "unknown", "dirty": False},
        "machine": {"cores": 2},
        "packages": {},
    }


class Page(HTMLParser):
    """Tags and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "action") and value:
                self.addresses.append(value)
            if name == "id" and value:
                self.ids.add(value)


def test_tables_hold_runs_recipes_figures_differences_and_delong(result: dict[str, Any]) -> None:
    runs, recipes, figures, differences, delong = report.comparison_tables(result)
    assert [line[0] for line in runs.rows] == ["a", "b", "<b>c</b>"]
    assert runs.rows[0][-1] == "3.67 MB" and runs.rows[2][-1] == "no file"
    assert "lesion (leaky)" in runs.rows[2] and any("(changed)" in cell for cell in runs.rows[2])
    assert recipes.rows[1] == ("student.epochs", "26", "26", report.ABSENT)
    assert recipes.rows[2] == ("threads", "None", "None", "2")
    assert figures.rows[0][1:3] == ("2", ".943 ± .004 (.923-.963)") and figures.rows[1][2] == ".923 (.903-.943)"
    assert differences.rows[0][2:] == (
        "-.020 (-.030 to -.010) lower",
        "+.003 (-.007 to +.013) no evidence",
        "not computable",
        "+.050 (+.030 to +.070) higher",
    )
    assert delong.rows[0][1:] == ("0", "-.031 (-.050 to -.012)", "< .001")


def test_figures_on_spoilt_pictures_stand_beside_the_clean_ones(result: dict[str, Any]) -> None:
    cells = {name: dict.fromkeys(METRICS, figure(value)) for name, value in (("clean", 0.9), ("artefact", 0.8))}
    groups = {
        "artefact": cells["artefact"],
        "corruption": {"macro_auc": figure(0.7), "balanced_accuracy": figure(None)},
    }
    rows = [{"run": "a", "model": "student_int8", "clean": cells["clean"], "groups": groups}]
    tables = report.comparison_tables(result | {"robustness": {"images": 400, "level": 0.95, "rows": rows}})
    assert [len(table.rows) for table in tables[-3:]] == [1, 1, 1]
    assert tables[-3].caption == "Macro AUC on spoilt pictures, on 400 test images, one a lesion (95% interval)"
    assert tables[-3].rows[0] == ("a: Student INT8", ".900 (.880-.920)", ".800 (.780-.820)", ".700 (.680-.720)")
    assert tables[-2].rows[0][-1] == "not computable"
    without = report.comparison_tables(result | {"robustness": None})
    assert len(without) == len(tables) - 3


def test_p_and_differences_that_are_null_are_said_in_words(result: dict[str, Any]) -> None:
    [entries] = result["rows"]["<b>c</b>: Student INT8"]["delong"].values()
    entries[:] = [
        {"seeds": [5, 0], "value": 0.0, "low": 0.0, "high": 0.0, "p": None},
        {"seeds": [6, 6], "value": None, "low": None, "high": None, "p": None},
        {"seeds": [7, 7], "value": 0.1, "low": None, "high": None, "p": 0.0412},
    ]
    lines = report.delong_table(result)[0].rows
    assert [line[1:] for line in lines] == [
        ("5 and 0", ".000 (.000 to .000)", "not computable"),
        ("6", "not computable", "not computable"),
        ("7", "+.100", ".041"),
    ]


def test_sentences_count_intervals_without_zero_and_say_each_pair(result: dict[str, Any]) -> None:
    first, pair = report.summary_sentences(result)
    assert first == (
        "On 1,502 test images of 1,119 lesions, 2 of 3 paired differences have a 95% interval without zero."
    )
    assert pair.startswith("<b>c</b>: Student INT8, against edge, 2 seeds (a, b): Student INT8: higher in ECE")
    assert "lower in Macro AUC -.020 (-.030 to -.010); no evidence of a difference in Balanced accuracy" in pair
    assert pair.endswith("not computable in Melanoma AUC.")


def test_files_are_written_together_and_the_json_is_the_result(result: dict[str, Any], tmp_path: Path) -> None:
    page = report.write_run_comparison(result, tmp_path / "new" / "out")
    assert page == tmp_path / "new" / "out" / "comparison.html"
    assert {path.name for path in page.parent.iterdir()} == set(report.FILES)
    assert json.loads((page.parent / "comparison.json").read_text()) == result
    first = {path.name: path.read_bytes() for path in page.parent.iterdir()}
    report.write_run_comparison(result, page.parent)
    assert {path.name: path.read_bytes() for path in page.parent.iterdir()} == first
    text = (page.parent / "comparison.md").read_text()
    assert "| seed | 0 | 1 | 0 |" in text and "- a &lt; b\n" in text and "<b>" not in text


def test_page_is_self_contained_escaped_and_its_navigation_leads_somewhere(result: dict[str, Any]) -> None:
    text = report.comparison_of_runs_html(result)
    page = Page(text)
    assert "<b>c</b>" not in text and "&lt;b&gt;c&lt;/b&gt;" in text
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= page.ids
    assert "svg" in page.tags and "link" not in page.tags and not re.search(r"@import|url\(http", text)
    assert "Leaky protocol" in text and "currentColor" in text
    for block in result["runs"]:
        block["leaky"] = False
    assert "Leaky protocol" not in report.comparison_of_runs_html(result)


def test_recipes_that_are_the_same_have_no_table(result: dict[str, Any]) -> None:
    result["recipes"] = []
    assert [table.caption for table in report.comparison_tables(result)][1].startswith("Mean over seeds")
    assert 'id="recipes"' not in report.comparison_of_runs_html(result)


def test_plot_shows_many_pairs_up_to_a_limit_and_the_caption_says_so(result: dict[str, Any]) -> None:
    assert "The first" not in report.comparison_of_runs_html(result)
    [name] = [name for name, block in result["rows"].items() if block["differences"]]
    for place in range(report.MANY_LINES):
        result["rows"][f"run {place}"] = result["rows"][name]
    text = report.comparison_of_runs_html(result)
    assert f"The first {report.MANY_LINES} of {report.MANY_LINES + 1} pairs" in text


@pytest.mark.parametrize("name", ["notes.txt", "evaluation"])
def test_folder_with_other_files_is_refused_and_left_as_it_is(
    result: dict[str, Any], tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=name):
        report.write_run_comparison(result, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(OutputError, match="is a file"):
        report.require_own_folder(tmp_path / name)


def test_nothing_is_left_where_a_file_cannot_be_made(
    result: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> str:
        raise OutputError("no page")

    monkeypatch.setattr(report, "comparison_of_runs_html", fail)
    with pytest.raises(OutputError, match="no page"):
        report.write_run_comparison(result, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
