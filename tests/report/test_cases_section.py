"""Contact sheets: what they show, what they say is missing, and pictures that stay in the run folder."""

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dermdistill.evaluate.cases import GROUPS, case_ids, choose_cases
from dermdistill.labels import CODES
from dermdistill.report.case_pictures import case_pictures, thumbnail, write_case_pictures
from dermdistill.report.rendering import render_page
from dermdistill.report.sections import cases as sheets


@pytest.fixture
def evaluation() -> dict[str, Any]:
    rng = np.random.default_rng(11)
    label = rng.integers(0, 7, 60)
    rows = pd.DataFrame(
        {
            "image_id": [f"img{n:02}" for n in range(60)],
            "lesion_id": [f"l{n}" for n in range(60)],
            "diagnosis": np.array(CODES)[label],
            "label": label,
            "predicted": np.where(rng.random(60) < 0.4, label, rng.integers(0, 7, 60)),
            "confidence": rng.random(60),
            "melanoma_prob": rng.random(60),
        }
    )
    return {"cases": {"model": "student_int8", **choose_cases(rows, classes=CODES, most=5)}}


@pytest.fixture
def catalog(tmp_path: Path, evaluation: dict[str, Any]) -> pd.DataFrame:
    """Pictures of all cases but the first, which is no image, and the second, which the catalog lacks."""
    ids = case_ids(evaluation["cases"])
    for image in ids:
        Image.new("RGB", (200, 150), (180, 120, 90)).save(tmp_path / f"{image}.jpg")
    (tmp_path / f"{ids[0]}.jpg").write_bytes(b"no image")
    kept = [ids[0], *ids[2:]]
    return pd.DataFrame({"image_id": kept, "path": [str(tmp_path / f"{image}.jpg") for image in kept]})


def page_of(evaluation: dict[str, Any], pictures: Any = None) -> str:
    return render_page("sections/cases.html.j2", {"section": sheets.section(evaluation, pictures)})


def test_section_is_none_without_cases() -> None:
    assert sheets.section({"models": {}}) is None


def test_tiles_hold_the_cases_in_their_order(evaluation: dict[str, Any]) -> None:
    section = sheets.section(evaluation)
    assert section is not None
    for name, group in zip(GROUPS, section["groups"], strict=True):
        wanted = evaluation["cases"][name]
        assert [tile["image_id"] for tile in group["tiles"]] == [case["image_id"] for case in wanted]
        for tile, case in zip(group["tiles"], wanted, strict=True):
            assert tile["wrong"] == (case["true"] != case["predicted"])
            assert float(tile["confidence"]) == pytest.approx(case["confidence"], abs=0.0051)
            assert float(tile["melanoma"]) == pytest.approx(case["melanoma_probability"], abs=0.0051)
        assert group["caption"].startswith(f"{len(wanted)} of {evaluation['cases']['lesions'][name]} lesions")
    assert [len(item["tiles"]) for item in section["confusions"]] == [
        len(item["cases"]) for item in evaluation["cases"]["confusions"]
    ]


def test_sentences_name_the_surest_mistake_and_the_missed(evaluation: dict[str, Any]) -> None:
    cases = evaluation["cases"]
    surest, missed = sheets.section(evaluation)["sentences"]  # type: ignore[index]
    assert surest.startswith("The INT8 student") and cases["surest_mistakes"][0]["image_id"] in surest
    assert f"of {cases['lesions']['missed_melanomas']} lesion" in missed
    cases["missed_melanomas"] = []
    assert "It called no melanoma something else." in page_of(evaluation)
    cases |= {name: [] for name in GROUPS} | {"confusions": [], "lesions": dict.fromkeys(GROUPS, 0)}
    page = page_of(evaluation)
    assert "made no mistake" in page and "There are no melanomas called something else." in page


@pytest.mark.parametrize(
    ("true", "predicted", "wrong"),
    [("nv", "rest", False), ("mel", "rest", True), ("mel", "mel", False), ("nv", "mel", True), ("nv", "bkl", True)],
)
def test_rest_is_right_for_all_but_melanoma(evaluation: dict[str, Any], true: str, predicted: str, wrong: bool) -> None:
    first = evaluation["cases"]["least_certain"][0]
    first |= {"true": true, "predicted": predicted}
    tile = sheets.section(evaluation)["groups"][2]["tiles"][0]  # type: ignore[index]
    assert tile["wrong"] is wrong


def test_page_without_pictures_shows_ids_and_says_so(evaluation: dict[str, Any]) -> None:
    page = page_of(evaluation)
    assert "<img" not in page and "it shows the ids of the images alone" in page
    assert all(image in page for image in case_ids(evaluation["cases"]))


def test_pictures_that_cannot_be_read_are_counted(evaluation: dict[str, Any], catalog: pd.DataFrame) -> None:
    ids = case_ids(evaluation["cases"])
    pictures = case_pictures(evaluation["cases"], catalog)
    assert sorted(pictures) == ids[2:]
    page = page_of(evaluation, pictures)
    assert f"2 of {len(ids)} pictures could not be read" in page
    assert page.count("no picture") == sum(page.count(f'class="ids">{image}<') for image in ids[:2])
    assert all(f'alt="{image}"' in page for image in ids[2:])


def test_complete_pictures_leave_no_remark(evaluation: dict[str, Any]) -> None:
    page = page_of(evaluation, dict.fromkeys(case_ids(evaluation["cases"]), "data:image/jpeg;base64,AA"))
    assert "could not be read" not in page and "no picture" not in page and "absent" not in page


def test_thumbnails_are_small_and_keep_their_shape(tmp_path: Path, catalog: pd.DataFrame, evaluation: Any) -> None:
    uri = next(iter(case_pictures(evaluation["cases"], catalog).values()))
    head, _, content = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(BytesIO(base64.b64decode(content))) as picture:
        assert (picture.size, picture.format) == ((128, 96), "JPEG")
    assert thumbnail(tmp_path / "nowhere.jpg") is None


def test_written_pictures_are_the_same_and_replace_older_ones(
    tmp_path: Path, catalog: pd.DataFrame, evaluation: Any
) -> None:
    folder = tmp_path / "cases"
    folder.mkdir()
    (folder / "old.jpg").write_bytes(b"x")
    uris = case_pictures(evaluation["cases"], catalog)
    assert write_case_pictures(folder, evaluation["cases"], catalog) == len(uris)
    for path in folder.iterdir():
        assert uris[path.stem].endswith(base64.b64encode(path.read_bytes()).decode())


def test_ids_that_are_no_file_names_write_nothing_outside(tmp_path: Path, evaluation: dict[str, Any]) -> None:
    ids = case_ids(evaluation["cases"])
    Image.new("RGB", (20, 20)).save(tmp_path / "one.jpg")
    for name in GROUPS:
        evaluation["cases"][name] = [{"image_id": "../../outside"}] if name == "least_certain" else []
    evaluation["cases"]["confusions"] = []
    table = pd.DataFrame({"image_id": ["../../outside", *ids], "path": str(tmp_path / "one.jpg")})
    assert write_case_pictures(tmp_path / "a" / "b" / "cases", evaluation["cases"], table) == 0
    assert not list(tmp_path.rglob("outside*"))
