"""Tables of answers: as the server holds them, through CSV, and every fault."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dermdistill.errors import DataError
from dermdistill.review.study import Study, StudyItem
from dermdistill.review.summary_answers import COLUMNS, Answers, check_answers, polygons_of, read_answers

TRIANGLE = "[[[0, 0], [1, 0], [0.5, 0.75]]]"


def make_item(name: str, repeat_of: str = "") -> StudyItem:
    return StudyItem(
        name, "image", f"l{repeat_of or name}", "mel", "nv", {"mel": 0.5, "nv": 0.5}, "lime", "", repeat_of
    )


@pytest.fixture
def study() -> Study:
    items = (make_item("a"), make_item("b"), make_item("c", "a"))
    return Study("Reading room", 1, "2026-01-31", ("mel", "nv"), items)


def make_row(rater: str, item: str, **changes: Any) -> dict[str, Any]:
    row = {"rater": rater, "item": item, "before": "mel", "after": "nv", "spatial": 1, "trust": 3, "usefulness": 5}
    row |= {"comment": "", "region": "", "seconds": 12.5, "answered_at": "2026-02-01T10:00:00+00:00"}
    return {**row, "simulated": False, **changes}


@pytest.fixture
def frame() -> pd.DataFrame:
    rows = [
        make_row("r2", "a", trust=2),
        make_row("r1", "b", region=TRIANGLE),
        make_row("r1", "a"),
        make_row("r2", "c"),
    ]
    return pd.DataFrame(rows)


def test_answers_come_in_order_and_typed(frame: pd.DataFrame, study: Study):
    found = check_answers(frame, study)
    assert list(found.columns) == list(COLUMNS)
    assert list(zip(found["rater"], found["item"], strict=True)) == [("r1", "a"), ("r1", "b"), ("r2", "a"), ("r2", "c")]
    assert found["spatial"].dtype == np.float64 and found["simulated"].dtype == bool


def test_checked_answers_pass_the_check_again_and_through_csv(frame: pd.DataFrame, study: Study, tmp_path: Path):
    found = check_answers(frame, study)
    pd.testing.assert_frame_equal(check_answers(found, study), found)
    frame.to_csv(tmp_path / "answers.csv", index=False)
    pd.testing.assert_frame_equal(read_answers(tmp_path / "answers.csv", study), found)


def test_names_that_look_like_missing_values_stay_names(frame: pd.DataFrame, study: Study, tmp_path: Path):
    frame["rater"] = frame["rater"].replace({"r1": "NA", "r2": "007"})
    frame["comment"] = 'None, "nan"\nwith a second line'
    frame.to_csv(tmp_path / "answers.csv", index=False)
    found = read_answers(tmp_path / "answers.csv", study)
    assert set(found["rater"]) == {"NA", "007"}
    assert set(found["comment"]) == {'None, "nan"\nwith a second line'}


@pytest.mark.parametrize("blank", [None, np.nan, ""])
def test_fields_left_out_are_missing(frame: pd.DataFrame, study: Study, blank: Any):
    changed = frame.astype(object)
    for name in ("before", "after", "spatial", "seconds", "comment", "region", "answered_at"):
        changed.loc[0, name] = blank
    row = check_answers(changed, study).iloc[2]
    assert row["before"] == row["after"] == row["comment"] == row["region"] == row["answered_at"] == ""
    assert np.isnan(row["spatial"]) and np.isnan(row["seconds"]) and row["trust"] == 2


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("rater", " ", "row 1: rater ' ': empty"),
        ("item", "z", "row 1: item 'z': no item of the study"),
        ("before", "bcc", "row 1: before 'bcc': not one of mel, nv"),
        ("after", "Mel", "row 1: after"),
        ("spatial", 0, "row 1: spatial '0': a whole number from 1 to 5"),
        ("trust", 2.5, "row 1: trust"),
        ("trust", "high", "row 1: trust"),
        ("usefulness", float("inf"), "row 1: usefulness"),
        ("seconds", -1, "row 1: seconds"),
        ("seconds", "inf", "row 1: seconds"),
        ("answered_at", "noon", "row 1: answered_at"),
        ("simulated", "perhaps", "row 1: simulated"),
        ("simulated", None, "row 1: simulated"),
        ("simulated", True, "rater 'r2' is simulated in some rows"),
        ("item", "c", "row 4: 'r2' has answered item 'c' before"),
        ("region", "[[[0, 0], [1, 1]]]", "row 1: region"),
        ("region", "[[[0, 0], [1, 1], [2, 0]]]", "row 1: region"),
        ("region", "[[[0, 0], [1, 1], [NaN, 0]]]", "row 1: region"),
        ("region", "[[[0, 0], [1, 1], [true, 0]]]", "row 1: region"),
        ("region", "{}", "row 1: region"),
        ("region", "[[0, 1, 2]]", "row 1: region"),
        ("region", "drawn", "row 1: region"),
        ("region", "[" * 100_000, "row 1: region"),
    ],
)
def test_every_fault_is_named_with_its_row(frame: pd.DataFrame, study: Study, name: str, value: Any, message: str):
    changed = frame.astype(object)
    changed.loc[0, name] = value
    with pytest.raises(DataError, match=message):
        check_answers(changed, study)


def test_faults_come_together_and_no_more_than_a_screen(frame: pd.DataFrame, study: Study):
    many = pd.concat([frame.assign(spatial=9, before="x")] * 10)
    with pytest.raises(DataError, match=r"\.\.\. and 60 more"):
        check_answers(many, study)


def test_missing_columns_are_named(frame: pd.DataFrame, study: Study):
    with pytest.raises(DataError, match="lack trust, region"):
        check_answers(frame.drop(columns=["trust", "region"]), study)


def test_no_answers_are_an_error_that_says_so(frame: pd.DataFrame, study: Study):
    with pytest.raises(DataError, match="no rater has answered yet"):
        check_answers(frame.head(0), study)


def test_file_that_cannot_be_read_is_named(study: Study, tmp_path: Path):
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_answers(tmp_path / "none.csv", study)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_answers(tmp_path / "empty.csv", study)


def test_grid_is_raters_by_original_items(frame: pd.DataFrame, study: Study):
    answers = Answers.of(study, check_answers(frame, study)[1:])
    assert answers.raters == ("r1", "r2") and [item.item for item in answers.items] == ["a", "b"]
    assert np.array_equal(answers.grid("trust"), [[np.nan, 3], [2, np.nan]], equal_nan=True)
    assert np.array_equal(answers.grid("trust", ["c", "a"]), [[np.nan, np.nan], [3, 2]], equal_nan=True)


def test_polygons_are_read_as_corners():
    assert polygons_of("") == polygons_of("[]") == []
    assert polygons_of(TRIANGLE) == [[(0, 0), (1, 0), (0.5, 0.75)]]
