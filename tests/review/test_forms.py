"""Drawn regions and texts, whatever comes in."""

import json
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermdistill.labels import CODES
from dermdistill.review.forms import MOST_POINTS, MOST_POLYGONS, clean, draft_fields, region_of, second_of

POINT = st.lists(st.floats(0, 1), min_size=2, max_size=2)
POLYGONS = st.lists(st.lists(POINT, min_size=3, max_size=6), max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)


@given(POLYGONS)
@settings(max_examples=60, deadline=None)
def test_region_keeps_every_point_to_four_decimals(polygons: list) -> None:
    text = region_of(json.dumps(polygons))
    back = json.loads(text) if text else []
    assert [len(polygon) for polygon in back] == [len(polygon) for polygon in polygons]
    for one, other in zip(chain.from_iterable(back), chain.from_iterable(polygons), strict=True):
        assert one == pytest.approx(other, abs=0.00005 + 1e-12)
    assert region_of(text) == text


@given(JSON)
@settings(max_examples=100, deadline=None)
def test_region_is_polygons_or_refused(content) -> None:
    try:
        text = region_of(json.dumps(content))
    except ValueError:
        return
    for polygon in json.loads(text or "[]"):
        assert len(polygon) >= 3
        assert all(0 <= x <= 1 and 0 <= y <= 1 for x, y in polygon)


@pytest.mark.parametrize(
    "text",
    ["x", "{}", "[[]]", "[[[0,0],[1,1],[1,2]]]", "[[[0,0],[1,1],[NaN,1]]]", "[[[0,0],[1,1],[true,1]]]", "[" * 50000],
)
def test_region_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="could not be read"):
        region_of(text)


def test_region_with_too_many_parts_is_refused() -> None:
    triangle = [[0, 0], [1, 0], [1, 1]]
    with pytest.raises(ValueError, match="too many parts"):
        region_of(json.dumps([triangle] * (MOST_POLYGONS + 1)))
    with pytest.raises(ValueError, match="too many parts"):
        region_of(json.dumps([[[0, 0]] * (MOST_POINTS + 1)]))
    assert region_of(json.dumps([triangle] * MOST_POLYGONS))


@given(st.text())
def test_cleaned_text_is_what_any_database_takes(text: str) -> None:
    cleaned = clean(text)
    assert "\0" not in cleaned and "\r" not in cleaned
    assert clean(cleaned) == cleaned
    cleaned.encode()


def test_second_step_names_every_fault_at_once() -> None:
    given_, faults = second_of({"trust": "0"}, CODES)
    assert given_ is None and set(faults) == {"after", "spatial", "trust", "usefulness"}


def test_draft_keeps_fields_of_its_step_alone() -> None:
    form = {"csrf": "x", "before": "nv", "trust": "2", "comment": "y" * 4001, "label": "z"}
    assert draft_fields(form, "first") == {"before": "nv"}
    assert draft_fields(form, "second") == {"trust": "2"}
