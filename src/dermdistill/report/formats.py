"""Numbers and names as people read them: ``.923 (.905-.941)``, signed differences, sizes, titles."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dermdistill.labels import DIAGNOSES, REST

NOT_COMPUTABLE = "not computable"
TOO_FEW = 10
MODEL_TITLES = {
    "teacher": "Teacher",
    "student": "Student FP32",
    "student_int8": "Student INT8",
    "no_teacher": "No teacher",
    "student_int8_flips": "Student INT8, 4 views",
}
MODEL_PHRASES = {
    "teacher": "teacher",
    "student": "FP32 student",
    "student_int8": "INT8 student",
    "no_teacher": "student without a teacher",
    "student_int8_flips": "INT8 student's average over four views",
}
CLASS_TITLES = {diagnosis.code: diagnosis.name for diagnosis in DIAGNOSES} | {REST: "All other diagnoses"}
METRIC_TITLES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "weighted_f1": "Weighted F1",
    "macro_auc": "Macro AUC",
    "roc_auc": "ROC AUC",
    "melanoma_auc": "Melanoma AUC",
    "pr_auc": "PR AUC",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "sensitivity_at_80_sensitivity": "Sensitivity at the 80% threshold",
    "specificity_at_80_sensitivity": "Specificity at 80% sensitivity",
    "sensitivity_at_90_sensitivity": "Sensitivity at the 90% threshold",
    "specificity_at_90_sensitivity": "Specificity at 90% sensitivity",
    "sensitivity_at_95_sensitivity": "Sensitivity at the 95% threshold",
    "specificity_at_95_sensitivity": "Specificity at 95% sensitivity",
    "ppv_at_95_sensitivity": "PPV at the 95% threshold",
    "npv_at_95_sensitivity": "NPV at the 95% threshold",
    "ece": "ECE (lower is better)",
}
HEADLINES = (
    ("diagnosis", "accuracy"),
    ("diagnosis", "balanced_accuracy"),
    ("diagnosis", "macro_auc"),
    ("melanoma", "roc_auc"),
    ("melanoma", "specificity_at_95_sensitivity"),
)
Entry = Mapping[str, Any] | None


@dataclass(frozen=True)
class Cell:
    """One cell: the figure, its interval or remark, and whether it is a word in place of a figure."""

    value: str
    detail: str = ""
    word: bool = False

    def __str__(self) -> str:
        return f"{self.value} {self.detail}".strip()


def number(value: float, digits: int = 3) -> str:
    """``.923``, ``1.000``, ``-.004``; a value that rounds to zero has no sign."""
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def signed(value: float, digits: int = 3) -> str:
    """``+.004``, ``-.010``, ``.000``."""
    text = number(value, digits)
    return f"+{text}" if value > 0 and float(text) != 0 else text


def pick(entry: Entry) -> tuple[float | None, float | None, float | None]:
    """Value, low and high of an entry; ``None`` for what was not computable."""
    entry = entry or {}
    return entry.get("value"), entry.get("low"), entry.get("high")


def estimate(entry: Entry) -> Cell:
    """A metric with its interval, or the words ``not computable``."""
    value, low, high = pick(entry)
    if value is None:
        return Cell(NOT_COMPUTABLE, word=True)
    if low is None or high is None:
        return Cell(number(value), "(no interval)")
    return Cell(number(value), f"({number(low)}-{number(high)})")


def difference(entry: Entry) -> Cell:
    """A paired difference with its interval, signed."""
    value, low, high = pick(entry)
    if value is None:
        return Cell(NOT_COMPUTABLE, word=True)
    if low is None or high is None:
        return Cell(signed(value), "(no interval)")
    return Cell(signed(value), f"({signed(low)} to {signed(high)})")


def model_title(name: str) -> str:
    """``Student INT8`` for ``student_int8``."""
    return MODEL_TITLES.get(name, name.replace("_", " ").capitalize())


def metric_title(name: str) -> str:
    """``Macro AUC`` for ``macro_auc``."""
    return METRIC_TITLES.get(name, name.replace("_", " ").capitalize())


def megabytes(size: float) -> str:
    """Bytes as ``3.52 MB`` (10^6 bytes), three digits."""
    millions = size / 1e6
    return f"{millions:.0f} MB" if millions >= 100 else f"{millions:.{1 if millions >= 10 else 2}f} MB"


def smaller(ratio: float) -> str:
    """A size ratio below 1 as ``73.4% smaller``, above as ``12.0% larger``."""
    return f"{100 * abs(1 - ratio):.1f}% {'smaller' if ratio <= 1 else 'larger'}"


def pair_title(name: str) -> str:
    """``Student INT8 minus Student FP32`` for ``student_int8 - student``."""
    return " minus ".join(model_title(part.strip()) for part in name.split(" - "))


def latency(entry: Mapping[str, Any]) -> Cell:
    """Median batch-1 latency with its 5th and 95th percentile."""
    times = entry.get("latency_ms") or {}
    if times.get("median") is None:
        return Cell("not measured", word=True)
    spread = f"({times['p5']:.2f}-{times['p95']:.2f})" if {"p5", "p95"} <= set(times) else ""
    return Cell(f"{times['median']:.2f} ms", spread)
