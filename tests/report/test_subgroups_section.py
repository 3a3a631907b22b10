"""The section on subgroups: every word and figure of it follows from the block."""

import copy
import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from dermdistill.evaluate.subgroup_axes import Axis
from dermdistill.evaluate.subgroups import SubgroupScores, subgroups_block
from dermdistill.report.rendering import render_page
from dermdistill.report.sections import subgroups

CLASSES = ("bcc", "mel", "nv")
SENSITIVITY = "sensitivity_at_95_sensitivity"
Json = dict[str, Any]


@pytest.fixture(scope="module")
def evaluation() -> Json:
    """The old are failed on purpose; the sexes are alike; five images are of unknown sex; nothing has a mask."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, 300)
    old = np.repeat([0, 1], 150)
    lesions = np.arange(300) // 2
    sex = np.where(np.arange(300) % 10 == 0, 1, lesions % 2)
    sex[:5] = 2
    probs = np.where(labels == 1, 0.6, 0.2) + rng.normal(0, 0.05, 300) - 0.4 * (old & (labels == 1))
    predicted = np.where(rng.random(300) < 0.8, labels, 2)
    scores = SubgroupScores(labels, predicted, labels == 1, probs.clip(0, 1), 0.4, CLASSES)
    axes = {
        "age": Axis("Age, years", ("under 60", "60 <and> over", "of none"), old),
        "sex": Axis("Sex", ("female", "male", "unknown"), sex, notes=("a note",)),
        "skin_tone": Axis("Skin tone", (), np.empty(0, dtype=np.int64), unavailable="unknown for every image: no mask"),
    }
    models = {"teacher": scores, "student_int8": scores}
    return {"subgroups": subgroups_block(models, axes, lesions, samples=30, seed=0, permutations=199)}


def changed(evaluation: Json, path: tuple[str, ...], value: Any) -> Json:
    """The evaluation with another value in the shipped model's part of the block."""
    other = copy.deepcopy(evaluation)
    node = other["subgroups"]["models"]["student_int8"]
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return other


def built(evaluation: Json) -> Json:
    found = subgroups.section(evaluation)
    assert found is not None
    return found


def page(evaluation: Json) -> str:
    return render_page("sections/subgroups.html.j2", {"section": built(evaluation), "colours": {}})


def test_section_is_none_without_a_block() -> None:
    assert subgroups.section({"models": {}}) is None


def test_lead_counts_the_gaps_that_chance_hardly_gives(evaluation: Json) -> None:
    entry = evaluation["subgroups"]["models"]["student_int8"]
    corrected = [gap["p_holm"] for axis in entry.values() for gap in axis["gaps"].values()]
    far = sum(p < 0.05 for p in corrected)
    assert 0 < far < len(corrected) == 8
    found = built(evaluation)
    assert found["lead"].startswith(f"{far} of 8 tested gaps between groups of the INT8 student")
    assert len(found["gaps"]) == far


def test_gap_is_said_with_both_groups_and_their_figures(evaluation: Json) -> None:
    groups = evaluation["subgroups"]["models"]["student_int8"]["age"]["groups"]
    low, high = (f"{groups[name][SENSITIVITY]['value']:.3f}" for name in ("60 <and> over", "under 60"))
    said = next(line for line in built(evaluation)["gaps"] if line.startswith("Age, years: sensitivity"))
    expected = f"Age, years: sensitivity {low} in '60 <and> over' against {high} in 'under 60'."
    assert said.startswith(re.sub(r"\b0\.", ".", expected))
    assert said.endswith("does not explain it.")


def test_gap_that_the_mix_could_give_says_so(evaluation: Json) -> None:
    other = changed(evaluation, ("age", "gaps", SENSITIVITY, "p_same_diagnosis_holm"), 0.4)
    said = next(line for line in built(other)["gaps"] if line.startswith("Age, years: sensitivity"))
    assert said.endswith("The mix of diagnoses alone could give it.")


def test_lead_without_such_gaps_claims_no_equality(evaluation: Json) -> None:
    other = copy.deepcopy(evaluation)
    for axis in other["subgroups"]["models"]["student_int8"].values():
        for gap in axis["gaps"].values():
            gap["p_holm"] = 0.05
    found = built(other)
    assert found["lead"].startswith("0 of 8 tested gaps")
    assert "proves no equal treatment" in found["lead"]
    assert found["gaps"] == []


def test_lead_without_any_test_says_so(evaluation: Json) -> None:
    other = copy.deepcopy(evaluation)
    for axis in other["subgroups"]["models"]["student_int8"].values():
        for gap in axis["gaps"].values():
            gap.update(value=None, p=None, p_holm=None)
    assert built(other)["lead"] == "No two groups have figures that could be compared."


def test_unavailable_axis_is_named_with_its_reason(evaluation: Json) -> None:
    assert "Skin tone: unavailable, as unknown for every image: no mask." in built(evaluation)["remarks"]
    assert "Unavailable: unknown for every image: no mask." in page(evaluation)
    assert built(evaluation)["tone"] is None


def test_untested_figures_are_named(evaluation: Json) -> None:
    other = changed(evaluation, ("sex", "gaps", "melanoma_auc", "value"), None)
    gaps = other["subgroups"]["models"]["student_int8"]["sex"]["gaps"]
    gaps[SENSITIVITY]["value"] = gaps["accuracy"]["p"] = None
    expected = {
        "Sex: fewer than two groups have figures to compare of melanoma AUC and sensitivity.",
        "Sex: no test of accuracy, as most images of all lesions lie in one group.",
    }
    assert expected <= set(built(other)["remarks"])
    assert not expected & set(built(evaluation)["remarks"])


def test_interval_without_width_is_explained_only_where_there_is_one(evaluation: Json) -> None:
    flat = {"value": 1.0, "low": 1.0, "high": 1.0, "cases": 40}
    other = copy.deepcopy(evaluation)
    for axis in other["subgroups"]["models"]["student_int8"].values():
        for group in axis["groups"].values():
            for cell in group.values():
                if cell["value"] is not None and cell["low"] == cell["high"]:
                    cell["low"] -= 0.1
    assert not any("without width" in line for line in built(other)["remarks"])
    other["subgroups"]["models"]["student_int8"]["sex"]["groups"]["male"]["accuracy"] = flat
    assert any("without width" in line for line in built(other)["remarks"])


def test_tables_give_counts_and_name_few_cases_in_place_of_figures(evaluation: Json) -> None:
    age, sex, _ = built(evaluation)["axes"]
    assert [row.title for row in age["rows"]] == ["under 60", "60 <and> over", "of none"]
    assert [cell.value for cell in age["rows"][0].cells[:2]] == ["150", "75"]
    assert sex["rows"][2].cells[0].value == "5"
    few = sex["rows"][2].cells[3]
    assert (few.value, few.word) == ("too few (5)", True)
    assert [cell.value for cell in age["rows"][2].cells[3:]] == ["too few (0)"] * 6
    assert age["rows"][2].remark == ""
    assert len(age["rows"][0].cells) == len(built(evaluation)["head"])
    assert len(age["gap_rows"][0].cells) == len(built(evaluation)["gap_head"])


def test_p_says_how_many_regroupings_were_as_far_apart(evaluation: Json) -> None:
    other = changed(evaluation, ("age", "gaps", "accuracy", "p"), 13 / 200)
    cells = built(other)["axes"][0]["gap_rows"][0].cells
    assert (cells[3].value, cells[3].detail) == (".065", "(12 of 199)")


def test_notes_tell_lesions_in_several_groups(evaluation: Json) -> None:
    sex = built(evaluation)["axes"][1]
    assert sex["notes"][0] == "a note."
    several = evaluation["subgroups"]["axes"]["sex"]["lesions_in_several_groups"]
    assert several > 10
    assert f"The images of {several} lesions lie in several groups" in sex["notes"][1]
    assert len(built(evaluation)["axes"][0]["notes"]) == 0


def test_tone_is_described_by_its_counts(evaluation: Json) -> None:
    other = copy.deepcopy(evaluation)
    counts = {"very light": 50, "light": 10, "tan": 15, "brown": 4, "dark": 1, "unknown": 20}
    bands = ("very light", "light", "intermediate", "tan", "brown", "dark", "unknown")
    groups = {band: {"images": counts.get(band, 0)} for band in bands}
    other["subgroups"]["axes"]["skin_tone"] = {"unavailable": None, "groups": groups}
    tone = subgroups._tone(other["subgroups"])
    assert tone is not None
    assert (tone["known"], tone["light"], tone["dark"]) == ("80 of 100", "75%", "5")


def test_page_holds_a_drawing_of_every_known_axis_and_the_other_models_below(evaluation: Json) -> None:
    text = page(evaluation)
    drawings = re.findall(r"<svg.*?</svg>", text, flags=re.S)
    assert len(drawings) == 2
    for drawing in drawings:
        ElementTree.fromstring(drawing.replace("xlink:href", "href"))
    assert "60 &lt;and&gt; over" in text
    assert "<and>" not in text
    details = text[text.index("<details>") :]
    assert "Teacher" in details
    assert "Student INT8" not in details
    assert "<svg" not in details


def test_drawing_names_few_cases_and_counts(evaluation: Json) -> None:
    drawing = built(evaluation)["axes"][1]["svg"]
    assert "unknown (n = 5)" in drawing
    assert "too few (" in drawing


def test_last_model_is_shown_where_none_is_shipped(evaluation: Json) -> None:
    other = copy.deepcopy(evaluation)
    models = other["subgroups"]["models"]
    other["subgroups"]["models"] = {"student": models["student_int8"], "teacher": models["teacher"]}
    found = built(other)
    assert found["phrase"] == "teacher"
    assert [entry["title"] for entry in found["others"]] == ["Student FP32"]
