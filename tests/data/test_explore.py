"""Charts, contact sheet and the numbers behind them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dermdistill.data.catalog import COLUMNS
from dermdistill.data.contact_sheet import GAP, LABEL_HEIGHT, TILE, choose, contact_sheet
from dermdistill.data.explore import CHARTS, bar_chart, explore, images_by_age, summary
from dermdistill.data.readers import READERS
from dermdistill.errors import DataError


@pytest.fixture
def catalog(tmp_path: Path) -> pd.DataFrame:
    """Seven images of five lesions: red nevi, blue melanomas."""
    folder = tmp_path / "images"
    folder.mkdir()
    frame = pd.DataFrame(
        {
            "image_id": [f"im{number}" for number in range(7)],
            "lesion_id": ["A", "A", "A", "B", "C", "D", "E"],
            "diagnosis": ["nv"] * 5 + ["mel"] * 2,
            "diagnosis_source": ["histo", "histo", "histo", "consensus", None, "histo", "consensus"],
            "age": [30, 30, 39.5, 0, 70, np.nan, 85],
            "sex": ["male", "male", "male", "female", "female", "unknown", "female"],
            "site": ["back", "back", "back", "unknown", "unknown", "unknown", "foot"],
            "mask_path": [None, "m.png", None, None, None, None, None],
            "source": "made up",
        }
    )
    frame["path"] = [str(folder / f"{name}.png") for name in frame["image_id"]]
    for path, code in zip(frame["path"], frame["diagnosis"], strict=True):
        Image.new("RGB", (60, 40), "red" if code == "nv" else "blue").save(path)
    return frame[list(COLUMNS)]


def test_explore_writes_a_picture_a_chart_a_contact_sheet_and_a_summary(catalog: pd.DataFrame, tmp_path: Path) -> None:
    explore(catalog, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"{name}.png" for name in CHARTS} | {"contact_sheet.png", "summary.json"}
    for name in names - {"summary.json"}:
        with Image.open(tmp_path / "out" / name) as image:
            assert image.size[0] > 300 and len(image.convert("RGB").getcolors(1 << 20) or []) > 5
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary(catalog)


def test_summary_counts_images_and_lesions(catalog: pd.DataFrame) -> None:
    numbers = summary(catalog)
    assert numbers["images"] == 7 and numbers["lesions"] == 5 and numbers["with_mask"] == 1
    assert numbers["lesions_by_diagnosis"]["nv"] == 3 and numbers["lesions_by_diagnosis"]["df"] == 0
    assert numbers["age"] == {"known": 6, "median": 34.75, "lowest": 0.0, "highest": 85.0}
    counts = numbers["counts"]
    assert list(counts["diagnosis"].items())[:2] == [("nv", 5), ("mel", 2)] and len(counts["diagnosis"]) == 7
    assert list(counts["sex"].items()) == [("female", 3), ("male", 3), ("unknown", 1)]
    assert list(counts["site"].items()) == [("back", 3), ("foot", 1), ("unknown", 3)]
    assert list(counts["label_source"].items()) == [("histo", 4), ("consensus", 2), ("unknown", 1)]
    assert counts["images_per_lesion"] == {"1 image": 4, "3 images": 1}


def test_age_bands_have_no_gap_and_end_with_unknown(catalog: pd.DataFrame) -> None:
    bands = images_by_age(catalog)
    assert list(bands.index) == [f"{low}-{low + 9}" for low in range(0, 90, 10)] + ["unknown"]
    assert bands["0-9"] == 1 and bands["30-39"] == 3 and bands["40-49"] == 0 and bands["unknown"] == 1
    assert dict(images_by_age(catalog.assign(age=np.nan))) == {"unknown": 7}


def test_summary_without_any_age_says_none(catalog: pd.DataFrame) -> None:
    assert summary(catalog.assign(age=np.nan))["age"] == {
        "known": 0,
        "median": None,
        "lowest": None,
        "highest": None,
    }


def test_bar_chart_shows_each_count_and_share(catalog: pd.DataFrame) -> None:
    chart = CHARTS["diagnosis"]
    figure = bar_chart(chart.count(catalog), chart.title, chart.unit)
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    assert "5  (71.4%)" in texts and "2  (28.6%)" in texts and "■ malignant or pre-malignant" in texts
    assert axes.get_title(loc="left") == "Images by diagnosis (n = 7)"
    assert [label.get_text() for label in axes.get_yticklabels()][:2] == [
        "Melanocytic nevus (nv)",
        "Melanoma (mel)",
    ]
    assert [bar.get_width() for bar in axes.patches][:3] == [5, 2, 0]


def test_charts_leave_the_global_state_of_pyplot_alone() -> None:
    source = Path(__file__).parents[2] / "src" / "dermdistill" / "data" / "explore.py"
    assert "pyplot" not in source.read_text() and "rcParams" not in source.read_text()


def test_contact_sheet_has_a_row_of_different_lesions_a_diagnosis(catalog: pd.DataFrame) -> None:
    sheet = contact_sheet(catalog, per_class=4)
    assert sheet.size == (GAP + 4 * (TILE[0] + GAP), GAP + 2 * (TILE[1] + LABEL_HEIGHT + GAP))

    def colours(row: int) -> list[object]:
        y = GAP + row * (TILE[1] + LABEL_HEIGHT + GAP) + LABEL_HEIGHT + TILE[1] // 2
        return [sheet.getpixel((GAP + column * (TILE[0] + GAP) + TILE[0] // 2, y)) for column in range(4)]

    red, blue, white = (255, 0, 0), (0, 0, 255), (255, 255, 255)
    # Labels are in the order of labels.DIAGNOSES: mel, then nv. nv has three lesions, mel two.
    assert colours(0) == [blue, blue, white, white]
    assert colours(1) == [red, red, red, white]


def test_contact_sheet_choice_depends_on_the_seed_alone(catalog: pd.DataFrame) -> None:
    chosen = [choose(catalog, 2, seed) for seed in range(8)]
    assert choose(catalog[::-1], 2, 0) == chosen[0]
    assert len({tuple(choice["nv"]) for choice in chosen}) > 1
    assert all(len(choice["nv"]) == 2 for choice in chosen)


def test_explore_that_fails_leaves_the_old_folder_as_it_was(catalog: pd.DataFrame, tmp_path: Path) -> None:
    explore(catalog, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for path in catalog["path"]:
        Path(path).write_bytes(b"damaged")
    with pytest.raises(DataError) as error:
        explore(catalog, tmp_path / "out")
    assert len(error.value.faults) == 5
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out"]


@pytest.mark.real
def test_summary_of_ham10000_has_the_published_numbers(ham10000: Path) -> None:
    numbers = summary(READERS["ham10000"](ham10000))
    assert (numbers["images"], numbers["lesions"]) == (10_015, 7_470)
    assert numbers["counts"]["diagnosis"] == {
        "nv": 6705, "mel": 1113, "bkl": 1099, "bcc": 514, "akiec": 327, "vasc": 142, "df": 115,
    }  # fmt: skip
    assert numbers["counts"]["age"]["unknown"] == 57
    assert sum(numbers["counts"]["images_per_lesion"].values()) == 7_470
