"""The evidence of a committed evaluation on the page of results: calibration, sets, abstention, gate, gaps, drops."""

from collections.abc import Mapping
from typing import Any

from dermdistill.report import card_evidence
from dermdistill.report.formats import estimate, model_title, number
from dermdistill.report.markdown import plain, table

Evaluation = Mapping[str, Any]
Path = tuple[str, ...]

ROWS: tuple[tuple[str, Path], ...] = (
    ("Melanoma: PR AUC", ("melanoma", "pr_auc")),
    ("Melanoma: specificity at 80% sensitivity", ("melanoma", "specificity_at_80_sensitivity")),
    ("Melanoma: sensitivity there, on the test part", ("melanoma", "sensitivity_at_80_sensitivity")),
    ("Melanoma: specificity at 90% sensitivity", ("melanoma", "specificity_at_90_sensitivity")),
    ("Melanoma: sensitivity there, on the test part", ("melanoma", "sensitivity_at_90_sensitivity")),
    ("Melanoma: specificity at 95% sensitivity", ("melanoma", "specificity_at_95_sensitivity")),
    ("Melanoma: sensitivity there, on the test part", ("melanoma", "sensitivity_at_95_sensitivity")),
    ("Melanoma: ECE before calibration", ("calibration", "before", "melanoma", "ece")),
    ("Melanoma: ECE after it", ("calibration", "after", "melanoma", "ece")),
    ("Melanoma: calibration slope after it", ("calibration", "after", "melanoma", "slope")),
    ("Label: ECE before calibration", ("calibration", "before", "label", "ece")),
    ("Label: ECE after it", ("calibration", "after", "label", "ece")),
    ("Prediction sets of 90%: coverage", ("conformal", "coverage")),
    ("Prediction sets: mean size", ("conformal", "mean_size")),
    ("Answered above validation's confidence", ("selective", "coverage")),
    ("Accuracy of these answers", ("selective", "accuracy")),
    ("Accuracy at 80% coverage", ("selective", "accuracy_at_80")),
)
# The best published figures of melanoma against the rest on lesions kept apart, each of another model at 224 px
# (the second system of the comparison in the project's brief); whether less is better.
PEERS: tuple[tuple[str, Path, float, bool], ...] = (
    ("ROC AUC", ("melanoma", "roc_auc"), 0.9214, False),
    ("PR AUC", ("melanoma", "pr_auc"), 0.707, False),
    ("specificity at 95% sensitivity", ("melanoma", "specificity_at_95_sensitivity"), 0.637, False),
    ("ECE after calibration", ("calibration", "after", "melanoma", "ece"), 0.03, True),
)


def evidence_markdown(evaluation: Evaluation) -> str:
    """The section as Markdown; an empty text for an evaluation that was made without these parts."""
    models = evaluation["models"]
    if not all("calibration" in model for model in models.values()):
        return ""
    rows = [[title, *(str(estimate(_at(model, path))) for model in models.values())] for title, path in ROWS]
    coverage = _coverage_by_class(evaluation)
    parts = [
        "#### Evidence\n",
        table(["", *(plain(model_title(name)) for name in models)], rows),
        f"{coverage}\n" if coverage else "",
        f"{_against_peers(evaluation)}\n",
    ]
    if evaluation.get("gate"):
        parts.append("".join(f"- {line}\n" for line in card_evidence.gate(evaluation["gate"])))
    for title, text in (
        ("Who it fails", card_evidence.subgroups(evaluation) if evaluation.get("subgroups") else ""),
        ("What breaks it", card_evidence.robustness(evaluation) if evaluation.get("robustness") else ""),
    ):
        parts += [f"#### {title}\n", text] if text else []
    return "\n" + "\n".join(part for part in parts if part)


def _at(block: Any, path: Path) -> Any:
    for key in path:
        block = (block or {}).get(key)
    return block


def _coverage_by_class(evaluation: Evaluation) -> str:
    name = card_evidence.shown_model(evaluation)
    by_class = (evaluation["models"][name].get("conformal") or {}).get("per_class") or {}
    said = [f"{code} {estimate(entry['coverage'])} of {entry['n']}" for code, entry in by_class.items()]
    return f"Coverage of the sets of {plain(model_title(name))} by class: {', '.join(said)}." if said else ""


def _against_peers(evaluation: Evaluation) -> str:
    name = card_evidence.shown_model(evaluation)
    said = []
    for title, path, published, less in PEERS:
        value = (_at(evaluation["models"][name], path) or {}).get("value")
        if value is not None:
            reached = value < published if less else value > published
            said.append(
                f"{title} {number(value)}, asked {'below' if less else 'above'} {published:g}"
                f" ({'reached' if reached else 'not reached'})"
            )
    return f"Melanoma against the rest, {plain(model_title(name))}, point estimates: {'; '.join(said)}."
