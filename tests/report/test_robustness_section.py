"""The section on robustness: every word, number and shade of it follows from the block."""

import base64
import copy
import io
import re
from typing import Any

import pytest
from PIL import Image

from dermdistill.data.corruptions import CORRUPTIONS
from dermdistill.report.rendering import render_page
from dermdistill.report.sections import robustness
from dermdistill.report.sections.robustness import ACCURACY, CHANGED, SENSITIVITY

Json = dict[str, Any]
KINDS = ("ink", "hair", "noise", "jpeg")
DROPS = {"ink": 0.1, "hair": 0.31, "noise": 0.5, "jpeg": -0.02}
AREA = "melanoma_auc"


def cell(value: float, half: float = 0.05) -> Json:
    return {"value": value, "low": value - half, "high": value + half}


def figures(value: float) -> Json:
    return {ACCURACY: cell(value), SENSITIVITY: cell(value / 2), AREA: cell(value / 4)}


def both(drop: float) -> Json:
    return {"drop": figures(drop), "mean": {CHANGED: cell(0.25)}}


def model(extra: float) -> Json:
    kinds = {}
    for kind, drop in DROPS.items():
        lines = [
            {"severity": severity, "drops": {ACCURACY: step * drop + extra, SENSITIVITY: step * drop / 2, AREA: 0.0}}
            for severity, step in ((1, 0.5), (5, 1.5))
        ]
        kinds[kind] = {"severities": lines, **both(drop + extra)}
    means = {"artefact": 0.205, "corruption": 0.24, "all": 0.2225}
    return {"clean": figures(0.7), "kinds": kinds, "groups": {name: both(mean + extra) for name, mean in means.items()}}


@pytest.fixture
def evaluation() -> Json:
    places = (*KINDS, "artefact", "corruption", "all")
    facts = {kind: {"title": CORRUPTIONS[kind].title, "group": CORRUPTIONS[kind].group} for kind in KINDS}
    block = {
        "sample": {"images": 1300, "lesions": 1200, "per_class": {"mel": 40, "nv": 1260}, "seed": 0},
        "severities": [1, 5],
        "kinds": facts,
        "models": {"teacher": model(-0.03), "student": model(0.0), "student_int8": model(0.01)},
        "differences": {
            "student - teacher": {place: figures(0.09) for place in places},
            "student_int8 - student": {place: figures(0.01) for place in places},
            "student_int8 - teacher": {place: figures(-0.08) for place in places},
        },
    }
    return {"robustness": copy.deepcopy(block)}


def content(evaluation: Json) -> Json:
    found = robustness.section(evaluation)
    assert found is not None
    return found


def test_section_is_none_without_its_block() -> None:
    assert robustness.section({"models": {}}) is None


def test_sentences_name_the_shipped_model_its_loss_and_the_worst_three(evaluation: Json) -> None:
    accuracy, sensitivity, *_ = content(evaluation)["sentences"]
    assert accuracy == (
        "On average over 4 kinds and 2 severities the INT8 student loses .233 of its balanced accuracy of .700; "
        "the worst are noise (.510), hair (.320) and ink of a surgical marker (.110)."
    )
    assert "loses .116 of its melanoma sensitivity at the 95% threshold of .350" in sensitivity
    assert "noise (.255), hair (.160)" in sensitivity


def test_sentences_say_so_where_nothing_is_lost(evaluation: Json) -> None:
    own = evaluation["robustness"]["models"]["student_int8"]
    for entry in own["kinds"].values():
        entry["drop"][ACCURACY] = cell(-0.01)
    own["groups"]["all"]["drop"][ACCURACY] = cell(-0.01)
    assert content(evaluation)["sentences"][0].endswith(
        "the INT8 student gains .010 on its balanced accuracy of .700; no kind costs any."
    )
    own["kinds"]["jpeg"]["drop"][ACCURACY] = cell(0.02)
    assert content(evaluation)["sentences"][0].endswith("; the worst is JPEG (.020).")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.09, "The FP32 student loses more balanced accuracy than the teacher (+.090, +.040 to +.140)."),
        (-0.09, "The FP32 student loses less balanced accuracy than the teacher (-.090, -.140 to -.040)."),
        (0.01, "Whether the FP32 student or the teacher loses more cannot be told (+.010, -.040 to +.060)."),
    ],
)
def test_a_comparison_claims_only_what_its_interval_shows(evaluation: Json, value: float, said: str) -> None:
    evaluation["robustness"]["differences"]["student - teacher"]["all"][ACCURACY] = cell(value)
    assert said in content(evaluation)["sentences"]
    evaluation["robustness"]["differences"]["student - teacher"]["all"][ACCURACY] = {"value": None}
    assert not any("the teacher (" in line and "FP32" in line for line in content(evaluation)["sentences"])


def test_heat_shades_grow_with_the_drop_and_end(evaluation: Json) -> None:
    accuracy, sensitivity = content(evaluation)["heat"]
    rows = {row["title"]: row["cells"] for row in accuracy["rows"]}
    assert list(rows) == [
        "Ink of a surgical marker", "Hair", "Mean over artefacts", "Noise", "JPEG", "Mean over camera and file",
    ]  # fmt: skip
    assert [box["value"] for box in rows["Hair"]] == [".165", ".475", ".320"]
    assert [box["value"] for box in rows["JPEG"]] == [".000", "-.020", "-.010"]
    assert [box["shade"] for box in rows["JPEG"]] == ["", "", ""]
    # 0.165 of the 0.4 that has the deepest shade; then what lies beyond it.
    assert [float(box["shade"]) for box in rows["Hair"]] == pytest.approx([0.227, 0.55, 0.44], abs=1e-3)
    assert [box["value"] for box in rows["Mean over artefacts"]] == ["", "", ".215"]
    assert accuracy["clean"] == ".700 (.650-.750)"
    assert {row["title"]: row["cells"][1]["value"] for row in sensitivity["rows"]}["Hair"] == ".232"


def test_models_stand_side_by_side_with_intervals_and_signed_differences(evaluation: Json) -> None:
    found = content(evaluation)
    assert found["head"][:3] == ["Teacher", "Student FP32", "Student INT8"]
    assert found["head"][3:5] == ["Student FP32 minus Teacher", "Student INT8 minus Student FP32"]
    rows = {row.title: [str(item) for item in row.cells] for row in found["beside"][0]["rows"]}
    assert rows["Clean photographs"] == [".700 (.650-.750)"] * 3 + [""] * 3
    assert rows["Noise"][:3] == [".470 (.420 to .520)", ".500 (.450 to .550)", ".510 (.460 to .560)"]
    assert rows["Noise"][3:] == ["+.090 (+.040 to +.140)", "+.010 (-.040 to +.060)", "-.080 (-.130 to -.030)"]
    assert list(rows)[-3:] == ["Mean over artefacts", "Mean over camera and file", "Mean over all kinds"]
    assert [str(item) for item in found["changed"][0].cells] == ["25.0% (20.0-30.0)"] * 3


def test_too_few_melanomas_give_their_number_and_no_sensitivity(evaluation: Json) -> None:
    evaluation["robustness"]["sample"]["per_class"]["mel"] = 10
    found = content(evaluation)
    assert found["sentences"][1].startswith("There are too few melanomas (10)")
    accuracy, sensitivity = found["heat"]
    assert {box["value"] for row in sensitivity["rows"] for box in row["cells"]} == {"too few (10)", ""}
    assert accuracy["rows"][0]["cells"][0]["value"] == ".060"
    drops = next(group for group in found["beside"] if group["title"].startswith("Melanoma sens"))["rows"]
    assert {str(item) for row in drops for item in row.cells} == {"too few (10)", ""}
    evaluation["robustness"]["sample"]["per_class"]["mel"] = 11
    assert "too few" not in str(content(evaluation)["heat"])


def test_what_is_not_computable_is_said_and_never_zero(evaluation: Json) -> None:
    nothing = {"value": None, "low": None, "high": None}
    own = evaluation["robustness"]["models"]["student_int8"]
    for entry in (*own["kinds"].values(), *own["groups"].values()):
        entry["drop"][ACCURACY] = nothing
    for entry in own["kinds"].values():
        for line in entry["severities"]:
            line["drops"][ACCURACY] = None
    found = content(evaluation)
    assert found["sentences"][0] == "What costs the INT8 student balanced accuracy is not computable on these images."
    assert {box["value"] for row in found["heat"][0]["rows"] for box in row["cells"]} == {"-", ""}
    assert str(found["beside"][0]["rows"][1].cells[2]) == "not computable"


def test_drawn_examples_show_each_kind_once_over_a_drawn_lesion(evaluation: Json) -> None:
    drawn = content(evaluation)["drawn"]
    assert [item["title"] for item in drawn] == ["Clean", "Ink of a surgical marker", "Hair", "Noise", "JPEG"]
    assert len({item["source"] for item in drawn}) == 5
    with Image.open(io.BytesIO(base64.b64decode(drawn[1]["source"].partition(",")[2]))) as picture:
        assert (picture.format, picture.size) == ("JPEG", (112, 112))
    assert sum(len(item["source"]) for item in drawn) < 60_000


def test_page_shows_every_table_shade_and_picture(evaluation: Json) -> None:
    found = content(evaluation)
    text = render_page("sections/robustness.html.j2", {"section": found})
    for sentence in found["sentences"]:
        assert sentence in text
    assert text.count("<table>") == 6
    assert text.count("<img ") == 5
    shades = [box["shade"] for heat in found["heat"] for row in heat["rows"] for box in row["cells"] if box["shade"]]
    assert re.findall(r"rgba\(214,72,48,([\d.]+)\)", text) == shades
    assert "1,300 test images of 1,200 lesions (mel 40, nv 1260)" in text
    # Nothing is fetched, and no ink is fixed: both would fail on a page in dark mode without a network.
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert "color:" not in text.replace("background-color:", "").replace("print-color-adjust:", "")
