"""The only copy of diagnosis names and their order."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermdistill.errors import DataError
from dermdistill.labels import ALIASES, CODES, DIAGNOSES, class_names, encode, melanoma_index, parse_diagnosis


def test_codes_are_those_of_ham10000_in_alphabetical_order() -> None:
    assert CODES == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


def test_malignant_are_the_three_that_a_dermatologist_treats() -> None:
    assert {item.code for item in DIAGNOSES if item.malignant} == {"akiec", "bcc", "mel"}


@pytest.mark.parametrize("code", CODES)
def test_encode_is_the_place_among_the_class_names(code: str) -> None:
    assert class_names("diagnosis")[encode(code, "diagnosis")] == code
    assert class_names("melanoma")[encode(code, "melanoma")] == ("mel" if code == "mel" else "rest")


@pytest.mark.parametrize("task", ["diagnosis", "melanoma"])
def test_melanoma_index_points_at_melanoma(task: str) -> None:
    assert class_names(task)[melanoma_index(task)] == "mel"  # type: ignore[arg-type]
    assert melanoma_index(task) == encode("mel", task)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(sorted(ALIASES)), st.data())
def test_parse_diagnosis_does_not_mind_case_spaces_and_underscores(name: str, data: st.DataObject) -> None:
    letters = [data.draw(st.sampled_from([letter, letter.upper()])) for letter in name]
    text = "".join("_" if letter == " " and data.draw(st.booleans()) else letter for letter in letters)
    assert parse_diagnosis(f" {text}\t") == ALIASES[name]


def test_parse_diagnosis_names_in_full() -> None:
    full = {"Melanoma": "mel", "basal_cell_carcinoma": "bcc", "Dermatofibroma": "df", "nevus": "nv"}
    assert {name: parse_diagnosis(name) for name in full} == full


@settings(deadline=None, max_examples=50)
@given(st.text().filter(lambda text: text.strip().lower().replace("_", " ") not in ALIASES))
def test_parse_diagnosis_of_anything_else_lists_what_is_known(text: str) -> None:
    with pytest.raises(DataError, match="akiec, bcc, bkl, df, mel, nv, vasc") as caught:
        parse_diagnosis(text)
    assert repr(text) in caught.value.problem
