"""The section on calibration: every word and figure of it follows from the block."""

import copy
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch
from xml.etree import ElementTree

import numpy as np
import pytest

from dermdistill.bundle.decisions import Calibration
from dermdistill.evaluate.bootstrap import lesion_weights
from dermdistill.evaluate.calibration_blocks import calibration_block
from dermdistill.labels import CODES
from dermdistill.report.formats import number
from dermdistill.report.rendering import render_page
from dermdistill.report.sections import calibration

RECORD = {"method": "vector", "nll": {"none": 0.7, "temperature": 0.69, "vector": 0.6}, "chosen_by": "folds"}
TRUE = Calibration("vector", (1.0,) * 7, (0.0, 0.0, 0.0, 0.0, -2.0, 1.0, 0.0))


@pytest.fixture(scope="module")
def evaluation() -> dict[str, Any]:
    """A teacher without a calibration and a student whose planted fault, too high for melanoma, is mended."""
    rng = np.random.default_rng(3)
    raw = rng.dirichlet(np.full(7, 0.5), 600)
    true = TRUE.apply(raw)
    labels = (np.log(true) + rng.gumbel(size=true.shape)).argmax(axis=1)
    weights = lesion_weights(np.arange(600), samples=60, seed=0)
    plain = Calibration.identity(7)
    models = {
        "teacher": {"calibration": calibration_block(labels, true, true, plain, {}, "diagnosis", weights, 15)},
        "student_int8": {"calibration": calibration_block(labels, raw, true, TRUE, RECORD, "diagnosis", weights, 15)},
    }
    counts = {code: int((labels == index).sum()) for index, code in enumerate(CODES)}
    return {"models": models, "classes": list(CODES), "n": {"per_class": counts}}


def changed(evaluation: dict[str, Any], *places: tuple[tuple[str, ...], Any]) -> dict[str, Any]:
    """The evaluation with other values in the shipped model's block."""
    other = copy.deepcopy(evaluation)
    for path, value in places:
        node = other["models"]["student_int8"]["calibration"]
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
    return other


def built(evaluation: dict[str, Any], *, figures: bool = False) -> dict[str, Any]:
    """The section; most tests do not wait for its figures."""
    with nullcontext() if figures else patch.object(calibration, "draw", return_value="<svg></svg>"):
        found = calibration.section(evaluation)
    assert found is not None
    return found


def words(evaluation: dict[str, Any]) -> str:
    return " ".join(built(evaluation)["sentences"])


def cell(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def test_section_is_none_without_blocks() -> None:
    assert calibration.section({"models": {"student": {"diagnosis": {}}}}) is None


def test_sentences_hold_the_block_of_the_shipped_model(evaluation: dict[str, Any]) -> None:
    block, said = evaluation["models"]["student_int8"]["calibration"], words(evaluation)
    assert "of the INT8 student are calibrated with a scale and a bias a class" in said
    assert "cross-validated NLL is .600, against .700 with no calibration and .690 with one temperature" in said
    before, after = (block[stage]["melanoma"]["ece"]["value"] for stage in ("before", "after"))
    assert f"probability of melanoma falls from {number(before)} to {number(after)}" in said
    assert "too high before (intercept -" in said
    assert "neither clearly too high nor clearly too low after calibration (intercept " in said


def test_sentences_change_with_the_numbers(evaluation: dict[str, Any]) -> None:
    intercept = ("after", "melanoma", "intercept")
    low = words(changed(evaluation, (intercept, cell(0.4, 0.1, 0.7))))
    assert "too low after calibration (intercept +.400, +.100 to +.700)" in low
    high = words(changed(evaluation, (intercept, cell(-0.4, -0.7, -0.1))))
    assert "too high after calibration (intercept -.400, -.700 to -.100)" in high
    unknown = words(changed(evaluation, (intercept, dict.fromkeys(("value", "low", "high")))))
    assert "not to be judged after calibration (intercept not computable)" in unknown
    errors = ((stage, "label", "ece") for stage in ("before", "after"))
    worse = changed(evaluation, *zip(errors, (cell(0.02, 0.01, 0.03), cell(0.05, 0.04, 0.06)), strict=True))
    assert "confidence in the label rises from .020 to .050" in words(worse)
    temperature = changed(evaluation, (("method",), "temperature"))
    assert "calibrated with one temperature, as was chosen on the validation part" in words(temperature)
    assert "are calibrated with a scale and a bias a class." in words(changed(evaluation, (("cross_validation",), {})))


def test_model_without_a_calibration_has_one_column_and_one_panel(evaluation: dict[str, Any]) -> None:
    alone = {**evaluation, "models": {"teacher": evaluation["models"]["teacher"]}}
    section, said = built(alone), words(alone)
    assert "of the teacher are used as they are" in said and "before" not in said and "falls" not in said
    assert section["tables"][0]["head"] == ["As they are"]
    assert section["parameters"] == section["methods"] == []
    page = render_page("sections/calibration.html.j2", {"section": section})
    assert "The numbers of the calibration" not in page and "Cross-validated" not in page


@pytest.mark.parametrize(("melanomas", "few"), [(10, True), (11, False)])
def test_ten_or_fewer_melanomas_are_named_not_measured(evaluation: dict[str, Any], melanomas: int, few: bool) -> None:
    other = {**evaluation, "n": {"per_class": {**evaluation["n"]["per_class"], "mel": melanomas}}}
    rows = [row for row in built(other)["tables"][1]["rows"] if row.remark == "probability of melanoma"]
    assert len(rows) == 9
    assert all((row.cells[0].value == "too few (10)") is few for row in rows)
    assert ("has 10 melanomas, ten or fewer" in words(other)) is few
    assert ("that of the probability of melanoma" in words(other)) is not few


def test_tables_hold_both_stages_and_every_number_of_the_map(evaluation: dict[str, Any]) -> None:
    section, block = built(evaluation), evaluation["models"]["student_int8"]["calibration"]
    teacher, student = section["tables"]
    assert (teacher["open"], student["open"], student["head"]) == (False, True, ["Before", "After"])
    nll = next(row for row in student["rows"] if row.title == "NLL")
    assert [cell.value for cell in nll.cells] == [number(block[s]["nll"]["value"]) for s in ("before", "after")]
    melanoma = next(row for row in section["parameters"] if row.title == "mel")
    assert [cell.value for cell in melanoma.cells] == ["1.000", "-2.000"]
    assert [cell.value for cell in section["methods"][0].cells] == [
        ".7000",
        ".6900",
        ".6000",
        calibration.METHODS["vector"],
    ]


def markers(svg: str) -> tuple[int, int]:
    """Filled and hollow dots of a reliability figure."""
    text = svg.replace("<svg", '<svg xmlns:xlink="http://www.w3.org/1999/xlink"', 1)
    uses = [item for item in ElementTree.fromstring(text).iter() if item.tag.endswith("use")]
    dots = [item.get("style", "") for item in uses if "#009e73" in item.get("style", "")]
    return sum("fill: #009e73" in style for style in dots), sum("fill: #009e73" not in style for style in dots)


def test_bins_of_ten_or_fewer_are_hollow(evaluation: dict[str, Any]) -> None:
    block = evaluation["models"]["student_int8"]["calibration"]
    for item, view in zip(built(evaluation, figures=True)["figures"], ("label", "melanoma"), strict=True):
        counts = [row["n"] for stage in ("before", "after") for row in block["curves"][stage][view]]
        wanted = sum(n > 10 for n in counts), sum(0 < n <= 10 for n in counts)
        assert markers(str(item["svg"])) == wanted and min(wanted) > 0


def test_page_shows_words_then_figures_then_tables(evaluation: dict[str, Any]) -> None:
    page = render_page("sections/calibration.html.j2", {"section": built(evaluation, figures=True)})
    assert page.count("<svg") == 2 and page.count("<details") == 3 and page.count("<details open") == 1
    assert page.index("<p>") < page.index("<figure>") < page.index("<table>")
    assert "currentColor" in page
