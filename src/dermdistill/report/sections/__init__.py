"""The sections of evidence of a report, in the order of a reader's questions.

Each is a module with its title, the question that it answers and a function from ``evaluation.json`` to what its
partial template ``templates/sections/NAME.html.j2`` shows. Adding one is such a module, its partial and one entry here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dermdistill.report.sections import abstention, calibration, cases, gate, robustness, subgroups, use

Evaluation = Mapping[str, Any]
Pictures = Mapping[str, str]


@dataclass(frozen=True)
class Section:
    """One section: its place on the page, title and question, and its content from evaluation and pictures.

    The content is None where the evaluation holds nothing of the kind.
    """

    name: str
    title: str
    question: str
    build: Callable[[Evaluation, Pictures], dict[str, Any] | None]


def _of_evaluation(
    section: Callable[[Evaluation], dict[str, Any] | None],
) -> Callable[[Evaluation, Pictures], dict[str, Any] | None]:
    return lambda evaluation, pictures: section(evaluation)


SECTIONS = (
    Section("use", use.TITLE, use.QUESTION, _of_evaluation(use.section)),
    Section("calibration", calibration.TITLE, calibration.QUESTION, _of_evaluation(calibration.section)),
    Section("abstention", abstention.TITLE, abstention.QUESTION, _of_evaluation(abstention.section)),
    Section("gate", gate.TITLE, gate.QUESTION, _of_evaluation(gate.section)),
    Section("subgroups", subgroups.TITLE, subgroups.QUESTION, _of_evaluation(subgroups.section)),
    Section("robustness", robustness.TITLE, robustness.QUESTION, _of_evaluation(robustness.section)),
    Section("cases", cases.TITLE, cases.QUESTION, cases.section),
)
