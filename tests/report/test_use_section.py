"""The section on use: every word and figure of it follows from the block."""

import copy
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from dermdistill.evaluate.bootstrap import lesion_weights
from dermdistill.evaluate.net_benefit import use_block
from dermdistill.report.rendering import render_page
from dermdistill.report.sections import use

POINTS = {"youden": 0.2, "at_80_sensitivity": 0.25, "at_90_sensitivity": 0.15, "at_95_sensitivity": 0.08}


@pytest.fixture(scope="module")
def evaluation() -> dict[str, Any]:
    rng = np.random.default_rng(5)
    probs = rng.beta(0.3, 2.0, 500)
    melanoma = rng.random(500) < probs
    weights = lesion_weights(np.arange(500), samples=100, seed=0)
    models = {
        name: {"use": use_block(melanoma, np.clip(probs + shift, 0, 1), POINTS, weights)}
        for name, shift in (("teacher", 0.0), ("student", 0.01), ("student_int8", 0.02))
    }
    return {"models": models}


def changed(evaluation: dict[str, Any], *places: tuple[tuple[str, ...], Any]) -> dict[str, Any]:
    """The evaluation with other values in the shipped model's block."""
    other = copy.deepcopy(evaluation)
    for path, value in places:
        node = other["models"]["student_int8"]["use"]
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
    return other


def words(evaluation: dict[str, Any]) -> str:
    found = use.section(evaluation)
    assert found is not None
    return " ".join(found["sentences"])


def test_section_is_none_without_blocks() -> None:
    assert use.section({"models": {"student": {"diagnosis": {}}}}) is None


def test_sentences_hold_the_block_of_the_shipped_model(evaluation: dict[str, Any]) -> None:
    block = evaluation["models"]["student_int8"]["use"]
    point, (part, *_) = block["operating_points"]["at_95_sensitivity"], block["decision_curve"]["better"]
    said = words(evaluation)
    assert f"threshold probabilities of {100 * part['low']:.0f}% to {100 * part['high']:.0f}%" in said
    assert f"refers {point['referred']} of 500 images and finds {point['found']} of {block['melanomas']}" in said
    needed = point["number_needed"]
    assert f"{needed['value']:.1f} ({needed['low']:.1f}-{needed['high']:.1f}) images are referred" in said
    assert f"between {point['better_costs']['low']:.2f} and".replace("0.", ".") in said


def test_sentences_change_with_the_numbers(evaluation: dict[str, Any]) -> None:
    curve = ("decision_curve", "better")
    assert "At no threshold probability of 1% to 50%" in words(changed(evaluation, (curve, [])))
    ranges = [{"low": 0.02, "high": 0.02}, {"low": 0.05, "high": 0.31}]
    assert "probabilities of 2% and 5% to 31%" in words(changed(evaluation, (curve, ranges)))
    point = ("operating_points", "at_95_sensitivity")
    assert "gave no threshold for 95% sensitivity" in words(changed(evaluation, (point, None)))
    dear = changed(evaluation, ((*point, "better_costs"), None))
    assert "costs as much as referring everybody or nobody, or more" in words(dear)
    few = words(changed(evaluation, ((*point, "found"), 10)))
    assert "finds 10 of" in few and "for each one found" not in few


def test_ten_or_fewer_melanomas_found_are_named_not_divided(evaluation: dict[str, Any]) -> None:
    for found, words_ in ((10, True), (11, False)):
        other = changed(evaluation, (("operating_points", "at_90_sensitivity", "found"), found))
        section = use.section(other)
        assert section is not None
        row = next(row for row in section["needed_rows"] if row.title == "Student INT8")
        assert row.cells[1].word is words_
        assert (row.cells[1].value == "too few (10)") is words_


def test_point_rows_count_what_is_missed(evaluation: dict[str, Any]) -> None:
    section = use.section(evaluation)
    assert section is not None
    block = evaluation["models"]["student_int8"]["use"]
    for row, name in zip(section["point_rows"], use.POINTS, strict=True):
        point = block["operating_points"][name]
        values = [cell.value for cell in row.cells]
        assert values[1:4] == [
            str(point["referred"]),
            str(point["found"]),
            str(block["melanomas"] - point["found"]),
        ]
        assert len(row.cells) == len(section["point_columns"])


def test_figures_hold_every_model_and_both_trivial_choices(evaluation: dict[str, Any]) -> None:
    section = use.section(evaluation)
    assert section is not None
    for svg in (section["decision_curve"], section["cost_curve"]):
        text = str(svg).replace("<svg", '<svg xmlns:xlink="http://www.w3.org/1999/xlink"', 1)
        labels = [item.text for item in ElementTree.fromstring(text).iter() if item.tag.endswith("text")]
        assert {"Teacher", "Student FP32", "Student INT8", "Refer everybody", "Refer nobody"} <= set(labels)
        assert "currentColor" in svg and "<style" not in svg


def test_page_shows_both_figures_and_the_prevalence(evaluation: dict[str, Any]) -> None:
    page = render_page("sections/use.html.j2", {"section": use.section(evaluation)})
    melanomas = evaluation["models"]["student_int8"]["use"]["melanomas"]
    assert page.count("<svg") == 2 and f"Here {melanomas} of 500 images are melanomas" in page
    assert page.index("<p>") < page.index("<figure>") < page.index("<table>")


def test_one_class_alone_still_makes_a_section() -> None:
    weights = lesion_weights(np.arange(8), samples=5, seed=0)
    block = use_block(np.zeros(8, dtype=bool), np.full(8, 0.3), dict.fromkeys(POINTS), weights)
    section = use.section({"models": {"student": {"use": block}}})
    page = render_page("sections/use.html.j2", {"section": section})
    assert "At no threshold probability" in page and "not computable" in page
