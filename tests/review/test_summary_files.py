"""Files of a summary: what stands in them is what the summary says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dermdistill.errors import DataError
from dermdistill.review.study import Study, StudyItem, write_study
from dermdistill.review.summary_files import plot_data, tables, write_summary

TABLES = ("agreement", "diagnosis", "differences", "pairs", "raters", "ratings", "regions")


def make_study(folder: Path) -> Study:
    probs = {"mel": 0.7, "nv": 0.3}
    items = [
        StudyItem(f"i{n:02}", f"m{n}", f"l{n}", "mel", "mel", probs, "grad_cam", "centre_prior" if n % 2 else "")
        for n in range(12)
    ]
    study = Study("Reading room", 1, "2026-01-31", ("mel", "nv"), tuple(items))
    heat = np.zeros((6, 8), np.float32)
    heat[1:3, 1:4] = 1
    picture = np.full((6, 8, 3), 90, np.uint8)
    write_study(folder, study, {i.item: picture for i in items}, {i.item: heat for i in items})
    return study


def make_answers(study: Study, raters: list[str], *, simulated: bool) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for rater in raters:
        for item in study.items:
            row: dict[str, Any] = {"rater": rater, "item": item.item, "before": str(rng.choice(["mel", "nv"]))}
            row |= {"after": "mel", **dict(zip(("spatial", "trust", "usefulness"), rng.integers(1, 6, 3), strict=True))}
            row |= {"comment": "", "region": "[[[0.1,0.2],[0.5,0.2],[0.5,0.5],[0.1,0.5]]]", "seconds": 3.5}
            rows.append({**row, "answered_at": "2026-02-01", "simulated": simulated})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("review") / "study"


@pytest.fixture(scope="module")
def study(folder: Path) -> Study:
    return make_study(folder)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def summary(folder: Path, study: Study, out: Path) -> dict[str, Any]:
    (out / "kept.txt").write_text("another file")
    make_answers(study, ["ada", "ben", "cem"], simulated=True).to_csv(out / "answers.csv", index=False)
    return write_summary(folder, out / "answers.csv", out, samples=100, seed=2)


def test_files_hold_the_summary(summary: dict[str, Any], out: Path):
    assert json.loads((out / "summary.json").read_text()) == summary
    assert json.loads((out / "plots.json").read_text()) == plot_data(summary)
    names = {path.name for path in out.iterdir()}
    assert names == {"answers.csv", "kept.txt", "summary.json", "plots.json", *(f"{name}.csv" for name in TABLES)}


def test_maps_of_the_folder_are_compared_with_regions(summary: dict[str, Any]):
    cell = summary["regions"]["maps"]["grad_cam"]
    assert cell["n"] == 18 and cell["iou"]["value"] > cell["prior_iou"]["value"]


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_marked_as_test_data(summary: dict[str, Any], out: Path, name: str):
    table = pd.read_csv(out / f"{name}.csv")
    assert len(table) and table["simulated"].all()


def test_tables_say_what_the_summary_says(summary: dict[str, Any]):
    found = tables(summary)
    ratings = found["ratings"].set_index(["scale", "kind", "name"]).loc[("trust", "shams", "centre_prior")]
    cell = summary["ratings"]["scales"]["trust"]["shams"]["centre_prior"]
    assert ratings["mean_value"] == cell["mean"]["value"] and ratings["level_5"] == cell["counts"][4]
    agreement = found["agreement"].set_index(["scale", "figure"])
    assert agreement.loc[("spatial", "alpha"), "low"] == summary["agreement"]["scales"]["spatial"]["alpha"]["low"]
    diagnosis = found["diagnosis"].set_index("group").loc["all_maps"]
    assert diagnosis["gain_high"] == summary["diagnosis"]["groups"]["all_maps"]["gain"]["high"]
    raters = found["raters"].set_index("rater").loc["ben"]
    assert raters["answers"] == 12 and raters["median_seconds"] == 3.5
    assert raters["diagnosis_helped"] == summary["diagnosis"]["by_rater"][1]["helped"]
    regions = found["regions"].set_index(["kind", "name"]).loc[("maps", "all_maps")]
    assert regions["iou_gain_low"] == summary["regions"]["maps"]["all_maps"]["iou_gain"]["low"]
    assert len(found["differences"]) == 3 * 2 * 2 and len(found["pairs"]) == 3 * 3


def test_plots_have_all_that_they_draw(summary: dict[str, Any]):
    plots = plot_data(summary)
    assert plots["simulated"] is True
    assert [row["label"] for row in plots["levels"]["trust"]] == ["all_maps", "grad_cam", "all", "centre_prior"]
    assert [row["label"] for row in plots["differences"]["trust"]] == ["all_maps", "grad_cam"]
    assert all(row["verdict"] for row in plots["differences"]["trust"])
    assert [row["label"] for row in plots["alpha"]] == ["spatial", "trust", "usefulness"]
    assert plots["diagnosis"][0]["after"]["value"] == 1.0
    assert [row["label"] for row in plots["regions"]] == ["all_maps", "grad_cam", "all", "centre_prior"]


def test_one_rater_leaves_a_table_of_pairs_with_its_header(folder: Path, study: Study, tmp_path: Path):
    write_summary(folder, make_answers(study, ["ada"], simulated=False), tmp_path, samples=20)
    pairs = pd.read_csv(tmp_path / "pairs.csv")
    assert pairs.empty and list(pairs.columns) == ["scale", "first", "second", "items", "value", "simulated"]


def test_nothing_is_written_without_answers(folder: Path, study: Study, tmp_path: Path):
    with pytest.raises(DataError, match="no rater has answered yet"):
        write_summary(folder, make_answers(study, ["ada"], simulated=False).head(0), tmp_path / "out")
    assert not (tmp_path / "out").exists()
