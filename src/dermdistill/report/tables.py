"""The rows of every table of the report, as plain texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dermdistill.report.formats import (
    CLASS_TITLES,
    METRIC_TITLES,
    NOT_COMPUTABLE,
    TOO_FEW,
    Cell,
    difference,
    estimate,
    latency,
    megabytes,
    metric_title,
    model_title,
    number,
    pair_title,
    smaller,
)
from dermdistill.report.markdown import plain

PER_CLASS = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "auc": "AUC",
}
# A difference of areas is given under the name of the area alone.
DIFFERENCE_TITLES = {
    "roc_auc": "Melanoma ROC AUC",
    "pr_auc": "Melanoma PR AUC",
    "specificity_at_95_sensitivity": "Melanoma specificity at 95% sensitivity",
}
THRESHOLD_TITLES = {
    "youden": "Youden (sensitivity, specificity)",
    "at_80_sensitivity": "For 80% sensitivity",
    "at_90_sensitivity": "For 90% sensitivity",
    "at_95_sensitivity": "For 95% sensitivity",
}
Evaluation = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One row of a table: what it is about, an optional small remark, and its cells."""

    title: str
    cells: tuple[Cell, ...]
    remark: str = ""


def markdown_rows(rows: Sequence[Row]) -> list[list[str]]:
    """Rows as Markdown texts: the title with its remark in brackets, or either alone, then the cells."""
    return [
        [
            plain(f"{row.title} ({row.remark})" if row.title and row.remark else row.title or row.remark),
            *map(str, row.cells),
        ]
        for row in rows
    ]


def _ordered(names: Sequence[str]) -> list[str]:
    known = [name for name in METRIC_TITLES if name in names]
    return known + [name for name in names if name not in METRIC_TITLES]


def metric_rows(evaluation: Evaluation, group: str) -> list[Row]:
    """One row a metric of ``diagnosis`` or ``melanoma``, one cell a model in the order of the evaluation."""
    models = list(evaluation["models"].values())
    names = _ordered(list(dict.fromkeys(name for model in models for name in model[group])))
    return [Row(metric_title(name), tuple(estimate(model[group].get(name)) for model in models)) for name in names]


def difference_title(name: str) -> str:
    """The title of a compared metric; those of melanoma say so."""
    return DIFFERENCE_TITLES.get(name, metric_title(name))


def difference_rows(evaluation: Evaluation) -> list[Row]:
    """One row a metric, one cell a pair of models."""
    pairs = list(evaluation.get("differences", {}).values())
    names = _ordered(list(dict.fromkeys(name for pair in pairs for name in pair)))
    return [Row(difference_title(name), tuple(difference(pair.get(name)) for pair in pairs)) for name in names]


def threshold_rows(evaluation: Evaluation) -> list[Row]:
    """One row an operating point that any model has: its threshold on the probability of melanoma, one cell a model."""
    chosen = [model.get("thresholds") or {} for model in evaluation["models"].values()]
    rows = []
    for name, title in THRESHOLD_TITLES.items():
        if any(name in values for values in chosen):
            values = [own.get(name) for own in chosen]
            cells = [Cell(NOT_COMPUTABLE, word=True) if v is None else Cell(number(v)) for v in values]
            rows.append(Row(title, tuple(cells)))
    return rows


def delong_rows(evaluation: Evaluation) -> list[Row]:
    """One row a pair of models: the difference of melanoma ROC AUC by the bootstrap, by DeLong's method, its p."""
    rows = []
    for pair, entry in (evaluation.get("delong") or {}).items():
        p = entry.get("p")
        drawn = difference((evaluation["differences"].get(pair) or {}).get("roc_auc"))
        chance = Cell(NOT_COMPUTABLE, word=True) if p is None else Cell("<.001" if p < 0.001 else number(p))
        rows.append(Row(pair_title(pair), (drawn, difference(entry), chance)))
    return rows


def count_rows(split: Mapping[str, Any], codes: Sequence[str]) -> list[Row]:
    """One row a diagnosis, then images and lesions; one cell a part, then all parts."""
    parts: Mapping[str, Mapping[str, int]] = split["counts"]
    rows = [
        (code, [by_class.get(code, 0) for by_class in parts.values()], CLASS_TITLES.get(code, "")) for code in codes
    ]
    rows += [(name.capitalize(), [split[name].get(part, 0) for part in parts], "") for name in ("images", "lesions")]
    return [
        Row(title, tuple(Cell(f"{count:,}") for count in [*counts, sum(counts)]), remark)
        for title, counts, remark in rows
    ]


def audit_examples(audit: Mapping[str, Any], most: int = 20) -> list[str]:
    """The first lesions, exact copies and near copies that an audit found across parts, in words."""
    lines = []
    for key, kind in (
        ("lesions_across", "lesion"),
        ("exact_copies_across", "exact"),
        ("near_copies", "near"),
    ):
        found = next((value for value in audit[key].values() if isinstance(value, list)), [])
        lines += [f"{kind}: {_in_words(item)}" for item in found[:most]]
    return lines


def _in_words(item: Any) -> str:
    if isinstance(item, Mapping):
        return "; ".join(f"{key} {_in_words(value)}" for key, value in item.items())
    if isinstance(item, list | tuple):
        return ", ".join(_in_words(value) for value in item)
    return number(item) if isinstance(item, float) else str(item)


def _denominators(confusion: Sequence[Sequence[int]], index: int) -> dict[str, int]:
    """How many images each per-class share rests on."""
    total = sum(sum(row) for row in confusion)
    positive, called = sum(confusion[index]), sum(row[index] for row in confusion)
    rest = total - positive
    return {"sensitivity": positive, "specificity": rest, "ppv": called, "npv": total - called, "auc": rest}


def per_class_rows(evaluation: Evaluation, model: str) -> list[Row]:
    """One row a class. A class, or a share, that rests on ten or fewer images says so instead of a figure."""
    rows = []
    for index, code in enumerate(evaluation["classes"]):
        entry = evaluation["models"][model]["per_class"][code]
        rests_on = _denominators(evaluation["models"][model]["confusion"], index)
        cells = [Cell(f"{entry['n']:,}")]
        for name in PER_CLASS:
            cases = min(int(entry["n"]), rests_on[name])
            few = Cell(f"too few ({cases})", word=True)
            cells.append(few if cases <= TOO_FEW else estimate(entry.get(name)))
        rows.append(Row(code, tuple(cells), CLASS_TITLES.get(code, "")))
    return rows


def file_rows(evaluation: Evaluation) -> list[Row]:
    """One row a model file: size, against the FP32 student, against the teacher, latency."""
    files: Mapping[str, Mapping[str, Any]] = evaluation["files"]
    rows = []
    for name, entry in files.items():
        against = [
            Cell(smaller(entry["bytes"] / files[other]["bytes"])) if other in files and other != name else Cell("-")
            for other in ("student", "teacher")
        ]
        cells = (Cell(megabytes(entry["bytes"]), f"({entry['bytes']:,} bytes)"), *against, latency(entry))
        rows.append(Row(model_title(name), cells, str(entry.get("path", ""))))
    return rows


def called_rows(called: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """One row a diagnosis of a set that lacks some of them: images, share called by its name, what they are called."""
    rows = []
    for code, entry in called.items():
        few = Cell(f"too few ({entry['n']})", word=True)
        names = ", ".join(f"{name} {count:,}" for name, count in entry["called"].items())
        share = few if entry["n"] <= TOO_FEW else estimate(entry["sensitivity"])
        rows.append(Row(code, (Cell(f"{entry['n']:,}"), share, Cell(names)), CLASS_TITLES.get(code, "")))
    return rows


def confusion_rows(evaluation: Evaluation, model: str, top: int = 8) -> list[Row]:
    """The most frequent mistakes of a model: true and predicted class, count, share of the true class."""
    classes, confusion = evaluation["classes"], evaluation["models"][model]["confusion"]
    mistakes = [
        (count, true, predicted)
        for true, row in enumerate(confusion)
        for predicted, count in enumerate(row)
        if true != predicted and count
    ]
    rows = []
    for count, true, predicted in sorted(mistakes, key=lambda item: (-item[0], item[1], item[2]))[:top]:
        total = sum(confusion[true])
        few = total <= TOO_FEW
        share = Cell(f"too few ({total})", word=True) if few else Cell(f"{100 * count / total:.1f}%")
        rows.append(Row(f"{classes[true]} called {classes[predicted]}", (Cell(f"{count:,}"), share)))
    return rows


def term_rows(log: Sequence[Mapping[str, Any]]) -> list[Row]:
    """One row a loss term: weight, first and last value, smallest and last gradient norm."""
    names = list(dict.fromkeys(name for entry in log for name in entry["terms"]))
    rows = []
    for name in names:
        seen = [entry["terms"][name] for entry in log if name in entry["terms"]]
        norms = [term["grad_norm"] for term in seen if term.get("grad_norm") is not None]
        values = [seen[-1].get("weight"), seen[0].get("value"), seen[-1].get("value")]
        values += [min(norms), norms[-1]] if norms else [None, None]
        rows.append(Row(name.replace("_", " "), tuple(_short(value) for value in values)))
    return rows


def _short(value: float | None) -> Cell:
    return Cell(NOT_COMPUTABLE, word=True) if value is None else Cell(f"{value:.3g}")
