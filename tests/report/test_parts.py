from collections.abc import Callable
from typing import Any

import pytest

from dermdistill.report import parts
from dermdistill.report.rendering import TEMPLATES
from dermdistill.report.sections import SECTIONS, Section


def section(name: str, key: str) -> Section:
    return Section(name, name.title(), f"{name}?", lambda evaluation, pictures: evaluation.get(key))


@pytest.fixture
def two_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "SECTIONS", (section("first", "a"), section("second", "b")))


@pytest.mark.parametrize(
    ("evaluation", "owed", "shown"),
    [
        ({"a": {"x": 1}, "b": {"y": 2}}, True, [("first", {"x": 1}), ("second", {"y": 2})]),
        ({"b": {"y": 2}}, True, [("first", None), ("second", {"y": 2})]),
        ({"b": {"y": 2}}, False, [("second", {"y": 2})]),
        ({}, True, []),
    ],
)
def test_missing_section_is_shown_only_where_it_is_owed(
    two_sections: None, evaluation: dict[str, Any], owed: bool, shown: list[Any]
) -> None:
    found = parts.evidence(evaluation, {}, owed=owed)
    assert [(item["name"], item["content"]) for item in found] == shown


def test_every_section_has_title_question_partial_and_a_place_in_the_navigation() -> None:
    assert [item.name for item in SECTIONS] == [
        *("use", "calibration", "abstention", "gate", "subgroups", "robustness", "cases"),
    ]
    for item in SECTIONS:
        assert item.question.endswith("?")
        assert (TEMPLATES / "sections" / f"{item.name}.html.j2").is_file()
        assert parts.navigation([("x", [item.name])]) == [("x", [(item.name, item.title)])]


def test_sections_know_an_evaluation_without_their_block() -> None:
    bare: dict[str, Any] = {"models": {"student": {}}, "classes": ["rest", "mel"], "n": {"per_class": {}}}
    assert [item.name for item in SECTIONS if item.build(bare, {}) is not None] == []


def test_pictures_reach_the_cases() -> None:
    seen: list[Any] = []
    build: Callable[..., Any] = lambda evaluation, pictures: seen.append(pictures)  # noqa: E731
    parts_sections = (Section("cases", "Cases", "?", build),)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "SECTIONS", parts_sections)
        parts.evidence({}, {"id": "data:,"}, owed=True)
    assert seen == [{"id": "data:,"}]
