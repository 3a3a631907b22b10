"""The section on abstention and prediction sets: every word and figure of it follows from the blocks."""

import copy
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from dermdistill.bundle.decisions import Calibration, Decisions
from dermdistill.evaluate.bootstrap import lesion_weights
from dermdistill.evaluate.calibration_blocks import conformal_block, selective_block
from dermdistill.labels import CODES
from dermdistill.report.rendering import render_page
from dermdistill.report.sections import abstention

DECISIONS = Decisions(Calibration.identity(7), {}, (0.8, 0.8, 0.8, None, 0.8, 0.5, 0.8), 0.9, 0.4)


@pytest.fixture(scope="module")
def evaluation() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    labels = rng.choice(7, 500, p=(0.1, 0.1, 0.1, 0.02, 0.15, 0.46, 0.07))
    logits = rng.normal(size=(500, 7))
    logits[np.arange(500), labels] += 2
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    weights, correct = lesion_weights(np.arange(500), samples=60, seed=0), probs.argmax(axis=1) == labels
    model = {
        "conformal": conformal_block(labels, probs, DECISIONS, "diagnosis", weights, lesion_ids=np.arange(500) // 2),
        "selective": selective_block(correct, probs.max(axis=1), DECISIONS, weights, melanoma=labels == 4),
    }
    return {"models": {"teacher": copy.deepcopy(model), "student_int8": model}, "classes": list(CODES)}


def changed(evaluation: dict[str, Any], *places: tuple[tuple[str, ...], Any]) -> dict[str, Any]:
    """The evaluation with other values in the shipped model's blocks."""
    other = copy.deepcopy(evaluation)
    for path, value in places:
        node = other["models"]["student_int8"]
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
    return other


def built(evaluation: dict[str, Any], *, figures: bool = False) -> dict[str, Any]:
    """The section; most tests do not wait for its figures."""
    with nullcontext() if figures else patch.object(abstention, "draw", return_value="<svg></svg>"):
        found = abstention.section(evaluation)
    assert found is not None
    return found


def words(evaluation: dict[str, Any]) -> str:
    return " ".join(built(evaluation)["sentences"])


def cell(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def test_section_is_none_without_blocks() -> None:
    assert abstention.section({"models": {"student": {"diagnosis": {}, "conformal": {}}}}) is None


def test_sentences_hold_the_blocks_of_the_shipped_model(evaluation: dict[str, Any]) -> None:
    other = changed(
        evaluation,
        (("selective", "coverage"), cell(0.774, 0.75, 0.799)),
        (("selective", "accuracy"), cell(0.888, 0.865, 0.91)),
        (("selective", "curve"), {"coverage": [0.5, 1.0], "risk": [0.1, 0.226]}),
        (
            ("selective", "melanoma"),
            {"n": 167, "coverage": cell(0.581, 0.4, 0.6), "sensitivity": cell(0.546, 0.4, 0.7)},
        ),
        (("conformal", "coverage"), cell(0.9, 0.884, 0.917)),
        (("conformal", "mean_size"), cell(2.07, 2, 2.1)),
    )
    said = words(other)
    assert "INT8 student below a confidence of .400 are withheld; 80% of the validation images reach it" in said
    assert "77.4% (75.0% to 79.9%) are answered, and 88.8% (86.5% to 91.0%) of these answers are right" in said
    assert "against 77.4% of all" in said
    assert "Of 167 melanomas 58.1% (40.0% to 60.0%) are answered, and of these 54.6% (40.0% to 70.0%)" in said
    assert "in 90% of cases" in said and "hold it in 90.0% (88.4% to 91.7%), with 2.07 diagnoses a set" in said
    assert "so in every set: df." in said


def test_diagnosis_below_the_promise_with_its_whole_interval_is_named(evaluation: dict[str, Any]) -> None:
    entry = {"n": 11, "coverage": cell(0.8, 0.7, 0.89)}
    place = ("conformal", "per_class", "mel")
    everything = [
        (("conformal", "per_class", code), {"n": 50, "coverage": cell(0.9, 0.85, 0.95)})
        for code in CODES
        if code != "mel"
    ]
    assert "Clearly below the promise: mel (80.0% (70.0% to 89.0%))" in words(
        changed(evaluation, *everything, (place, entry))
    )
    none = cell(0.0, 0.0, 0.0)
    assert "below the promise: mel (0.0%" in words(
        changed(evaluation, *everything, (place, {"n": 11, "coverage": none}))
    )
    for harmless in ({**entry, "n": 10}, {"n": 11, "coverage": cell(0.8, 0.7, 0.9)}):
        assert "No diagnosis with more than ten images is clearly" in words(
            changed(evaluation, *everything, (place, harmless))
        )


def test_sentences_follow_what_is_missing(evaluation: dict[str, Any]) -> None:
    assert "withholds no answer" in words(changed(evaluation, (("selective", "threshold"), None)))
    assert "too few (10)" in words(changed(evaluation, (("selective", "melanoma", "n"), 10)))
    full = changed(evaluation, (("conformal", "quantiles"), [0.8] * 7))
    assert "in every set" not in words(full)
    for key, gone, there in (("selective", "withheld", "promise"), ("conformal", "promise", "withheld")):
        only = {
            "models": {"student": {key: {}, **{k: v for k, v in evaluation["models"]["teacher"].items() if k != key}}}
        }
        assert gone not in words(only) and there in words(only)
        assert len(built(only)["figures"]) == 1
        render_page("sections/abstention.html.j2", {"section": built(only)})


def test_class_rows_name_few_images_and_classes_that_are_always_in(evaluation: dict[str, Any]) -> None:
    for n, few in ((10, True), (11, False)):
        other = changed(evaluation, (("conformal", "per_class", "vasc", "n"), n))
        rows = {row.title: [str(cell.value) for cell in row.cells] for row in built(other)["tables"][2]["rows"]}
        assert (rows["vasc"][2] == "too few (10)") is few
        assert rows["df"][1] == "always" and rows["nv"][1] == ".500" and rows["mel"][1] == ".200"


def test_tables_hold_every_model(evaluation: dict[str, Any]) -> None:
    withheld, sets, _ = built(evaluation)["tables"]
    for table in (withheld, sets):
        assert [row.title for row in table["rows"]] == ["Teacher", "Student INT8"]
        assert all(len(row.cells) == len(table["head"]) for row in table["rows"])


def test_page_shows_words_then_figures_then_tables(evaluation: dict[str, Any]) -> None:
    page = render_page("sections/abstention.html.j2", {"section": built(evaluation, figures=True)})
    assert page.count("<svg") == 2 and page.count("<table") == 3
    assert page.index("<p>") < page.index("<figure>") < page.index("<table>")
    assert all(f">{code}<" in page for code in CODES) and "currentColor" in page
