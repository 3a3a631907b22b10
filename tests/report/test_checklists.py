"""Checklists: complete, each item with a place or a reason, and no place that does not exist."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from dermdistill.report import checklists as lists
from dermdistill.report.parts import TITLES

CLAIM, CLEAR_DERM = lists.checklists()
AXES = {name: {"unavailable": None} for name in ("age", "sex", "label_source", "skin_tone")}
EVERYTHING = {
    "models": {"student_int8": {"use": {"melanomas": 3}}},
    "subgroups": {"axes": AXES},
    "robustness": {"models": {}},
    "gate": {"auc": 1},
    "cases": {"confusions": []},
}


@dataclass(frozen=True)
class Facts:
    evaluation: Mapping[str, Any] | None = None
    source: str = "HAM10000"
    leaky: bool = False


def items() -> list[Any]:
    return [(checklist["title"], item) for checklist in (CLAIM, CLEAR_DERM) for item in checklist["items"]]


def rows_of(facts: Facts, title: str) -> dict[int, str]:
    """{number: the cell that says where} of one checklist."""
    _, _, text = lists.checklist_markdown(facts).partition(f"### {title}")
    found = re.findall(r"^\| (\d+)\. [^|]+ \| ([^|]+) \|$", text.partition("### ")[0], flags=re.M)
    return {int(number): where for number, where in found}


@pytest.mark.parametrize(("checklist", "count"), [(CLAIM, 44), (CLEAR_DERM, 25)])
def test_checklist_has_all_its_items_in_order(checklist: Any, count: int) -> None:
    assert [item["number"] for item in checklist["items"]] == list(range(1, count + 1))
    assert "doi:10." in checklist["reference"]
    assert len(rows_of(Facts(), checklist["title"])) == count


@pytest.mark.parametrize(("title", "item"), items())
def test_item_has_places_that_exist_or_a_reason(title: str, item: Any) -> None:
    assert set(item) <= {"number", "asks", "places", "lacking"} and item["asks"]
    for place in item["places"]:
        where, _, condition = place.partition(" if ")
        kind, name = where.split(": ")
        assert not condition or condition in lists.CONDITIONS
        assert kind in lists.KINDS and (kind != "report" or name in TITLES)
    # Where all conditions fail there must be a reason, and a reason that can never be read is none.
    assert ("lacking" in item) == all(" if " in place for place in item["places"])


@pytest.mark.parametrize("facts", [Facts(), Facts(evaluation=EVERYTHING), Facts(source="folder", leaky=True)])
def test_sentence_counts_the_answered_items(facts: Facts) -> None:
    text = lists.checklist_markdown(facts)
    for checklist in (CLAIM, CLEAR_DERM):
        rows = rows_of(facts, checklist["title"])
        answered = sum(not where.startswith("not available: ") for where in rows.values())
        assert f"{answered} of {len(rows)} have a place" in text
        assert 0 < answered < len(rows)


def test_what_a_run_has_decides_where_items_are_answered() -> None:
    bare, full = Facts(), Facts(evaluation=EVERYTHING)
    for title, number, report in (
        (CLAIM["title"], 30, "robustness"),
        (CLAIM["title"], 37, "subgroups"),
        ("CLEAR Derm", 8, "subgroups"),
    ):
        assert rows_of(bare, title)[number].startswith("not available: ")
        assert f"report: {TITLES[report]}" in rows_of(full, title)[number]
    assert "report: " + TITLES["cases"] in rows_of(full, CLAIM["title"])[39]


def test_skin_tone_without_a_known_value_is_not_available() -> None:
    axes = AXES | {"skin_tone": {"unavailable": "it was not measured"}}
    facts = Facts(evaluation=EVERYTHING | {"subgroups": {"axes": axes}})
    assert rows_of(facts, "CLEAR Derm")[8].startswith("not available: the data do not record it")
    assert not rows_of(facts, "CLEAR Derm")[7].startswith("not available")


def test_leaky_split_claims_no_disjointness() -> None:
    assert "leaky" in rows_of(Facts(leaky=True), CLAIM["title"])[20]
    assert "report: Split proof" in rows_of(Facts(), CLAIM["title"])[20]


def test_unknown_and_drawn_data_claim_no_histopathology() -> None:
    for source in ("folder", "synthetic"):
        assert rows_of(Facts(source=source), "CLEAR Derm")[18].startswith("not available")
    assert "model card: Training data" in rows_of(Facts(), "CLEAR Derm")[18]


def test_every_condition_is_used_and_can_fail() -> None:
    used = {place.partition(" if ")[2] for _, item in items() for place in item["places"]} - {""}
    assert used == set(lists.CONDITIONS)
    worst, best = Facts(source="folder", leaky=True), Facts(evaluation=EVERYTHING)
    assert {name: (holds(worst), holds(best)) for name, holds in lists.CONDITIONS.items()} == dict.fromkeys(
        lists.CONDITIONS, (False, True)
    )
