"""The table that the summary reads."""

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermdistill.errors import DataError
from dermdistill.review.export import COLUMNS, _safe, answers_csv, answers_frame, read_answers


def test_frame_and_file_hold_the_same(server: Any) -> None:
    browser = server.rater("R1")
    browser.answer(1, comment='two\nlines, "quoted"', region="[[[0,0],[1,0],[1,1]]]")
    browser.answer(2)
    with server.room.database.reading() as session:
        frame, text = answers_frame(session), answers_csv(session)
    read = pd.read_csv(io.BytesIO(text), keep_default_na=False)
    pd.testing.assert_frame_equal(read, frame, check_dtype=False)
    assert frame["item"].tolist() == list(server.room.order(0)[:2])


def test_answers_are_read_without_a_server(server: Any, study_folder: Path) -> None:
    server.rater("R1").answer(1)
    frame = read_answers(study_folder)
    assert frame["rater"].tolist() == ["R1"] and frame.columns.tolist() == list(COLUMNS)


def test_study_that_was_never_served_has_no_answers(study_folder: Path) -> None:
    with pytest.raises(DataError, match="there are no answers"):
        read_answers(study_folder)
    assert not list(study_folder.glob("*.sqlite3"))


def test_frame_without_answers_has_the_same_columns(server: Any) -> None:
    with server.room.database.reading() as session:
        frame = answers_frame(session)
    assert frame.columns.tolist() == list(COLUMNS) and frame.empty


@given(st.text())
def test_no_text_begins_as_a_formula(text: str) -> None:
    safe = _safe(text)
    assert not safe.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert safe.removeprefix("'") == text or safe == text
