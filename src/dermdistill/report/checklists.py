"""Checklists for AI in imaging and in dermatology: for each item where a run answers it, or why it does not."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, Protocol

import yaml

from dermdistill.report.data_terms import HAM10000, UNKNOWN, terms_of
from dermdistill.report.markdown import plain, table

FILE: Final = Path(__file__).parent / "templates" / "checklists.yaml"
KINDS: Final = {"card": "model card: {}", "report": "report: {}", "file": "`{}`"}
Item = Mapping[str, Any]


class Reported(Protocol):
    """What a checklist asks of a run; ``CardFacts`` is one."""

    @property
    def evaluation(self) -> Mapping[str, Any] | None:
        """``evaluation.json``; None before it is there."""

    @property
    def source(self) -> str:
        """Name of the data."""

    @property
    def leaky(self) -> bool:
        """Whether the split promises no disjointness."""


def _has(block: str) -> Callable[[Reported], bool]:
    return lambda facts: bool((facts.evaluation or {}).get(block))


def _axis(*names: str) -> Callable[[Reported], bool]:
    """Whether the subgroups have groups by one of these axes."""

    def known(facts: Reported) -> bool:
        axes = ((facts.evaluation or {}).get("subgroups") or {}).get("axes") or {}
        return any(name in axes and axes[name].get("unavailable") is None for name in names)

    return known


# What " if NAME" in the file of checklists means.
CONDITIONS: Final[Mapping[str, Callable[[Reported], bool]]] = {
    "evaluation": lambda facts: facts.evaluation is not None,
    "use": lambda facts: any(model.get("use") for model in (facts.evaluation or {}).get("models", {}).values()),
    "cases": _has("cases"),
    "subgroups": _has("subgroups"),
    "robustness": _has("robustness"),
    "gate": _has("gate"),
    "skin_tone": _axis("skin_tone"),
    "demographics": _axis("age", "sex"),
    "label_source": _axis("label_source"),
    "disjoint": lambda facts: not facts.leaky,
    "labels_known": lambda facts: terms_of(facts.source) is not UNKNOWN,
    "histology": lambda facts: terms_of(facts.source) is HAM10000,
}


@cache
def checklists() -> tuple[Mapping[str, Any], ...]:
    """Every checklist as it stands in the file: ``title``, ``reference``, ``items``."""
    return tuple(yaml.safe_load(FILE.read_text(encoding="utf-8")))


def checklist_markdown(facts: Reported) -> str:
    """A table a checklist, with a sentence that counts what is answered; the wording of items is a paraphrase."""
    titles = _report_titles()
    return "\n".join(_one(checklist, facts, titles) for checklist in checklists())


def _one(checklist: Mapping[str, Any], facts: Reported, titles: Mapping[str, str]) -> str:
    items = checklist["items"]
    answers = [answer(item, facts, titles) for item in items]
    answered = sum(places is not None for places in answers)
    rows = [
        (f"{item['number']}. {plain(item['asks'])}", places or f"not available: {plain(item['lacking'])}")
        for item, places in zip(items, answers, strict=True)
    ]
    return (
        f"### {checklist['title']}\n\n{checklist['reference']}. Items in our own words; "
        f"{answered} of {len(items)} have a place.\n\n{table(('item', 'where'), rows)}"
    )


def answer(item: Item, facts: Reported, titles: Mapping[str, str]) -> str | None:
    """Where a run answers an item, as Markdown; None where it does not.

    Args:
        item: of a checklist.
        facts: of the run.
        titles: of the report's sections by their id.
    """
    places = []
    for place in item["places"]:
        where, _, condition = place.partition(" if ")
        if not condition or CONDITIONS[condition](facts):
            kind, name = where.split(": ", maxsplit=1)
            places.append(KINDS[kind].format(titles.get(name, name) if kind == "report" else name))
    return "; ".join(places) or None


def _report_titles() -> Mapping[str, str]:
    # The sections draw with matplotlib, which a bundle's card should not wait for before it is written.
    from dermdistill.report.parts import TITLES

    return TITLES
