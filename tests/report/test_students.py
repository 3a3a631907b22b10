"""The tables, notes and plot of a choice of students, from hand-made figures."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from dermdistill.errors import RunFolderError
from dermdistill.report.comparison_page import students_section
from dermdistill.report.students import student_notes, students_markdown, students_plot, write_students

Json = dict[str, Any]
METRICS = ("macro_auc", "balanced_accuracy", "melanoma_auc")
BYTES = {"nano": 976_000, "lite0": 3_520_000, "mobile|net": 2_140_000}


def cell(value: float | None, **more: Any) -> Json:
    bounds = {"low": value - 0.01, "high": value + 0.01} if value is not None else {"low": None, "high": None}
    return {"value": value, **bounds, "spread": None, "per_seed": [value], **more}


def comparison(values: dict[str, float | None]) -> Json:
    rows = {
        name: {
            "seeds": [0],
            "metrics": {metric: cell(value) for metric in METRICS},
            "differences": {"lite0": {metric: cell(-0.02, verdict="hurt") for metric in METRICS}}
            if name != "lite0"
            else {},
        }
        for name, value in values.items()
    }
    drawn = {"samples": 100, "seed": 0, "unit": "lesion", "level": 0.95}
    return {
        "task": "diagnosis", "paired": True, "verdicts": ["helped", "hurt"], "control": "lite0", "bootstrap": drawn,
        "metrics": list(METRICS), "rows": rows, "notes": ["One seed only."], "n": {"images": 50, "lesions": 40},
    }  # fmt: skip


def latency(median: float) -> Json:
    return {"median": median, "p5": median - 0.1, "p95": median + 0.1, "repeats": 200, "threads": 1}


def student(name: str) -> Json:
    times = {"64": latency(0.5), "224": latency(4.25)}
    files = {kind: {"bytes": size, "latency_ms": times} for kind, size in (("int8", BYTES[name]), ("fp32", 4_000_000))}
    return {"title": f"the {name}", "pretrained": name != "mobile|net", "parameters": 754_151, "files": files}


@pytest.fixture
def result() -> Json:
    figures = {"nano": 0.931, "lite0": 0.951, "mobile|net": 0.902}
    content: Json = {
        **{key: comparison({})[key] for key in ("task", "bootstrap", "n")},
        "protocol": "lesion",
        "leaky": False,
        "sizes": [64, 224],
        "students": {name: student(name) for name in figures},
        "validation": {name: {"macro_auc": cell(value + 0.01)} for name, value in figures.items()},
        "int8": comparison(dict(figures)),
        "fp32": comparison({name: value + 0.003 for name, value in figures.items()}),
        "int8_minus_fp32": {
            name: {metric: cell(-0.003, verdict="no evidence") for metric in METRICS} for name in figures
        },
        "choice": {
            "metric": "macro_auc", "part": "val", "tolerance": 0.005, "best": "lite0", "pareto": ["nano", "lite0"],
            "recommended": "lite0",
        },
    }  # fmt: skip
    return content | {"notes": student_notes(content)}


def test_tables_show_files_figures_and_differences(result: Json) -> None:
    text = students_markdown(result)
    for shown in ("754,151", "0.98 MB", "4.25 ms (4.15-4.35)", ".931 (.921-.941)", ".934 (.924-.944)", "**hurt**"):
        assert shown in text, shown
    assert "| INT8 at 64 px | FP32 at 64 px | INT8 at 224 px | FP32 at 224 px |" in text
    assert "**lite0**: the lite0 (recommended)" in text and text.count("(recommended)") == 1


def test_names_are_taken_literally(result: Json) -> None:
    rows = [line for line in students_markdown(result).splitlines() if line.startswith("| mobile")]
    assert rows and all(row.startswith(r"| mobile\|net |") for row in rows)


def test_notes_say_what_was_chosen_how_and_who_had_weights(result: Json) -> None:
    first, second, third, fourth, *rest = result["notes"]
    assert "validation part by Macro AUC of the INT8 file, never on the test part" in first
    assert "nano, lite0. Beaten by one at most as large and at least as good: mobile|net." in first
    assert second.startswith("Recommended: lite0,") and ".005 of the best (lite0)" in second
    assert "pretrained weights: nano, lite0. Started at random: mobile|net." in third and "starts as much" in third
    assert "200 runs" in fourth and "evaluated at 64 px" in fourth and "At 224 px" in fourth
    assert rest == ["One seed only."]


def test_leaky_protocol_is_named(result: Json) -> None:
    assert not [note for note in result["notes"] if "leaky" in note]
    notes = student_notes({**result, "protocol": "published", "leaky": True})
    assert [note for note in notes if "protocol published is leaky" in note]


def test_nothing_is_recommended_where_validation_defines_nothing(result: Json) -> None:
    for row in result["validation"].values():
        row["macro_auc"] = cell(None)
    for row in result["int8"]["rows"].values():
        row["metrics"]["macro_auc"] = cell(None)
    result["choice"] |= {"best": None, "pareto": [], "recommended": None}
    assert "nothing is recommended" in student_notes(result)[0]
    assert "not computable" in students_markdown(result) and "(recommended)" not in students_markdown(result)
    assert "recommended" not in students_plot(result)


def test_plot_shows_every_student_with_its_interval(result: Json) -> None:
    svg = students_plot(result)
    texts = {element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}
    assert {"nano", "lite0 (recommended)", "mobile|net", "front on validation"} <= texts
    assert any("hollow" in (text or "") for text in texts) and svg == students_plot(result)
    for one in result["students"].values():
        one["pretrained"] = True
    assert "hollow" not in students_plot(result)


def test_files_are_written_and_the_page_has_a_section(result: Json, tmp_path: Path) -> None:
    write_students(result, tmp_path)
    content = json.loads((tmp_path / "students.json").read_text())
    section = students_section("students-64", content, {"seeds": [0], "command": "dermdistill students"}, "a.svg")
    assert section.startswith("## students-64") and "(a.svg)" in section and "50 images of 40 lesions" in section
    assert (tmp_path / "students.md").read_text().splitlines()[-1] == "- One seed only."
    for note in content["notes"][1:2]:
        assert note in section


def test_incomplete_file_is_refused(result: Json) -> None:
    del result["choice"]
    with pytest.raises(RunFolderError, match=r"students-64/students\.json: lacks choice"):
        students_section("students-64", result, {}, None)
