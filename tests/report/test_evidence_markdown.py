"""The evidence on the page of results: only where it was measured, and told from the numbers."""

from typing import Any

import pytest

from dermdistill.report.evidence_markdown import evidence_markdown


def cell(value: float | None) -> dict[str, float | None]:
    return {"value": value, "low": value and value - 0.01, "high": value and value + 0.01}


def model(auc: float, ece: float) -> dict[str, Any]:
    view = {"ece": cell(ece), "slope": cell(1.0)}
    return {
        "diagnosis": {},
        "melanoma": {"roc_auc": cell(auc), "pr_auc": cell(0.6), "specificity_at_95_sensitivity": cell(0.65)},
        "calibration": {"before": {"melanoma": {"ece": cell(0.07)}}, "after": {"melanoma": view, "label": view}},
        "conformal": {"coverage": cell(0.9), "per_class": {"mel": {"n": 167, "coverage": cell(0.92)}}},
        "selective": {"accuracy_at_80": cell(0.88)},
    }


def evaluation(auc: float = 0.93, ece: float = 0.02) -> dict[str, Any]:
    return {"models": {"student": model(0.95, 0.02), "student_int8": model(auc, ece)}}


def test_evaluation_without_this_evidence_has_no_section() -> None:
    assert evidence_markdown({"models": {"student_int8": {"diagnosis": {}, "melanoma": {}}}}) == ""


def test_rows_hold_every_model_and_say_what_is_not_computable() -> None:
    text = evidence_markdown(evaluation())
    assert "| Melanoma: ECE before calibration | .070 (.060-.080) | .070 (.060-.080) |" in text
    assert "| Label: ECE before calibration | not computable | not computable |" in text
    assert "by class: mel .920 (.910-.930) of 167" in text


@pytest.mark.parametrize(
    ("auc", "ece", "said"),
    [
        (0.9215, 0.029, ("ROC AUC .921, asked above 0.9214 (reached)", "asked below 0.03 (reached)")),
        (0.9214, 0.03, ("asked above 0.9214 (not reached)", "asked below 0.03 (not reached)")),
    ],
)
def test_published_figures_are_reached_only_by_better_ones_of_the_shipped_file(
    auc: float, ece: float, said: tuple[str, str]
) -> None:
    text = evidence_markdown(evaluation(auc, ece))
    assert all(words in text for words in said)
    assert "specificity at 95% sensitivity .650, asked above 0.637 (reached)" in text
    assert "PR AUC .600, asked above 0.707 (not reached)" in text
