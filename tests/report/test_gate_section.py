"""The section on the gate: every word and figure of it follows from the block."""

import base64
import copy
import re
from io import BytesIO
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from dermdistill.bundle.image_gate import REASONS
from dermdistill.data.not_skin import KINDS, not_skin
from dermdistill.report.rendering import render_page
from dermdistill.report.sections import gate

Json = dict[str, Any]


def figure(value: float) -> Json:
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def refused(n: int, flagged: int) -> Json:
    return {"n": n, "flagged": flagged, "share": figure(flagged / n)}


def compared(n: int, area: float, flagged: float = 0.9) -> Json:
    areas = {"gate": figure(area), "unsureness": figure(0.45), "entropy": figure(0.47)}
    return {"n": n, "flagged_by_distance": flagged - 0.1, "flagged": flagged, "auroc": areas}


@pytest.fixture
def evaluation() -> Json:
    counts = dict(zip(REASONS, (2, 4, 0, 1, 1, 13), strict=True))
    kinds = {kind: compared(28, 0.999) for kind in KINDS} | {"skin_clouds": compared(28, 0.912, 0.4)}
    return {
        "gate": {
            "n": {"images": 1500, "lesions": 1100, "not_skin": 700},
            "seed": 3,
            "gate": {"size": 32, "images": {"train": 9, "validation": 9}, "quantile": 0.99, "quality_share": 0.003},
            "scores": ["gate", "unsureness", "entropy"],
            "clean": {
                "any": refused(1500, 20),
                "reasons": {name: refused(1500, count) for name, count in counts.items()},
                "per_class": {
                    "df": refused(7, 1) | {"reasons": dict.fromkeys(REASONS, 0)},
                    "mel": refused(160, 2) | {"reasons": dict.fromkeys(REASONS, 0)},
                },
            },
            "melanomas": {
                "n": 160,
                "flagged": 2,
                "lesions": [
                    {"lesion_id": "HAM_1", "reasons": ["blurred", "unlike_training_images"]},
                    {"lesion_id": "<b>HAM_2</b>", "reasons": ["too_dark"]},
                ],
            },
            "not_skin": {"all": compared(700, 0.987, 0.955), "kinds": kinds},
            "corruptions": {"gaussian_blur": compared(1500, 0.93, 0.75)},
            "histogram": {
                "edges": [0.0, 5.0, 10.0, 20.0],
                "threshold": 9.5,
                "lesions": [900, 590, 10],
                "not_skin": [0, 20, 680],
            },
            "notes": ["the pictures are drawings"],
        }
    }  # fmt: skip


def shown(evaluation: Json) -> Json:
    found = gate.section(evaluation)
    assert found is not None
    return found


def test_section_is_none_without_a_block() -> None:
    assert gate.section({"models": {}}) is None


def test_sentences_say_what_is_refused_and_why(evaluation: Json) -> None:
    cost, melanomas, drawn = shown(evaluation)["sentences"]
    assert "refuses 20 of 1,500 good test images, 1.3% (0.3% to 2.3%)" in cost
    assert "“unlike the training images” (13)" in cost
    assert (
        "2 of 160 pictures of melanomas: HAM_1 (blurred, unlike the training images); <b>HAM_2</b> (too dark)"
        in melanomas
    )
    assert "95.5% of 700 drawn pictures" in drawn and "AUROC of .987 (.977-.997)" in drawn
    assert "1 - confidence .450, entropy .470" in drawn
    assert "worst at “clouds in colours of skin” (.912)" in drawn


def test_sentences_change_with_the_numbers(evaluation: Json) -> None:
    other = copy.deepcopy(evaluation)
    block = other["gate"]
    block["melanomas"] = {"n": 160, "flagged": 0, "lesions": []}
    for entry in block["clean"]["reasons"].values():
        entry["flagged"] = 0
    for entry in (block["not_skin"]["all"], *block["not_skin"]["kinds"].values()):
        entry["auroc"] = {"gate": entry["auroc"]["gate"]}
    block["scores"] = ["gate"]
    cost, melanomas, drawn = shown(other)["sentences"]
    assert "most often" not in cost and melanomas == "It refuses none of 160 pictures of melanomas."
    assert "of the model alone" not in drawn
    for missing in (None, {"n": 0, "flagged": 0, "lesions": []}):
        block["melanomas"] = missing
        assert len(shown(other)["sentences"]) == 2
    block["not_skin"] = {"all": {**compared(0, 0.5), "flagged": None}, "kinds": {}}
    assert shown(other)["sentences"][-1] == "It was shown no picture without skin."


def test_rows_hold_counts_shares_and_areas_and_name_few_cases(evaluation: Json) -> None:
    found = shown(evaluation)
    reasons = {row.title: [str(cell) for cell in row.cells] for row in found["reason_rows"]}
    assert len(reasons) == len(REASONS) and reasons["Too dark"][:2] == ["1,500", "4"]
    classes = {row.title: [str(cell) for cell in row.cells] for row in found["class_rows"]}
    assert classes["df"] == ["7", "1", "too few (7)"]
    assert classes["mel"][:2] == ["160", "2"] and classes["mel"][2].startswith(".013")
    kinds = {row.title: [str(cell) for cell in row.cells] for row in found["kind_rows"]}
    assert next(iter(kinds)) == "All drawn pictures" and len(kinds) == 1 + len(KINDS)
    assert kinds["Clouds in colours of skin"][:3] == ["28", "40.0%", ".912 (.902-.922)"]
    assert len(kinds["Brick"]) == len(found["head"]) == 5
    assert [row.title for row in found["corruption_rows"]] == ["Gaussian blur"]
    few = copy.deepcopy(evaluation)
    few["gate"]["not_skin"]["kinds"]["brick"]["n"] = 10
    rows = {row.title: row.cells for row in shown(few)["kind_rows"]}
    assert [str(cell) for cell in rows["Brick"]] == ["10", *["too few (10)"] * 4]


def test_thumbnails_are_the_drawings_of_the_seed(evaluation: Json) -> None:
    images, _ = not_skin(len(KINDS), 48, 3)
    items = shown(evaluation)["thumbnails"]
    assert [item["title"] for item in items] == [gate.kind_title(kind) for kind in KINDS]
    for image, item in zip(images, items, strict=True):
        content = base64.b64decode(item["source"].removeprefix("data:image/png;base64,"))
        assert np.array_equal(np.asarray(Image.open(BytesIO(content))), image)


def test_histogram_is_drawn_in_shares_with_its_threshold(evaluation: Json) -> None:
    svg = str(shown(evaluation)["figure"])
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    texts = [item.text or "" for item in ElementTree.fromstring(svg.replace("<svg", f"<svg {spaces}", 1)).iter()]
    assert {"test images (1,500)", "drawn, no skin (700)", "threshold", "% of the pictures"} <= set(texts)
    ticks = [float(text) for text in texts if re.fullmatch(r"\d+", text)]
    assert 60 <= max(ticks) <= 100  # 900 of 1500, not 90,000
    other = copy.deepcopy(evaluation)
    other["gate"]["histogram"]["lesions"] = [590, 900, 10]
    assert str(shown(other)["figure"]) != svg


def test_partial_renders_escaped_and_whole(evaluation: Json) -> None:
    page = render_page("sections/gate.html.j2", {"section": shown(evaluation), "colours": {}, "class_titles": {}})
    assert "&lt;b&gt;HAM_2" in page and "<b>HAM_2" not in page
    assert page.count("data:image/png") == len(KINDS) and page.count("<table>") == 4
    assert "Gaussian blur" in page and "The pictures are drawings." in page
    assert not re.search(r"\{[{%]", page)
    without = copy.deepcopy(evaluation)
    without["gate"]["corruptions"] = {}
    page = render_page("sections/gate.html.j2", {"section": shown(without), "colours": {}, "class_titles": {}})
    assert page.count("<table>") == 3
