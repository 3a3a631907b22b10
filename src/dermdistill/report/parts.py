"""What every page of figures shows, of a run's own test part or of other images: summary, results, evidence."""

from collections.abc import Mapping, Sequence
from typing import Any

from dermdistill.report import curves, figures, formats, tables
from dermdistill.report.conclusions import conclusions
from dermdistill.report.rendering import Context, count, drawn
from dermdistill.report.sections import SECTIONS, Pictures

SHIPPED = "student_int8"
TITLES = {
    "summary": "Conclusions",
    "purpose": "Intended use",
    "tested": "What was tested",
    "results": "Results",
    "classes": "Per class",
    "curves": "Curves",
    "compression": "Compression",
    "explanations": "Explanations",
    "failures": "Failures",
    "reader_study": "What experts said",
    "data": "Data",
    "split": "Split proof",
    "training": "Training",
    "files": "Files",
    "notes": "Notes",
    "provenance": "Provenance",
} | {section.name: section.title for section in SECTIONS}
Evaluation = Mapping[str, Any]


def shipped_model(evaluation: Evaluation) -> str:
    """The model that a page speaks of first: the INT8 student, else the last."""
    names = list(evaluation["models"])
    return SHIPPED if SHIPPED in names else names[-1]


def shared(evaluation: Evaluation, provenance: Mapping[str, Any], *, own: bool, pictures: Pictures) -> Context:
    """The context of the parts that pages share.

    Args:
        evaluation: ``evaluation.json``.
        provenance: ``provenance.json``.
        own: whether the images are the test part of the models' own run.
        pictures: data URIs of images by their id, for the cases.
    """
    names = list(evaluation["models"])
    found = evidence(evaluation, pictures, owed=own)
    return {
        "evaluation": evaluation,
        "provenance": provenance,
        "data": provenance.get("data") or {},
        "code": provenance.get("code") or {},
        "level": f"{100 * (evaluation.get('bootstrap', {}).get('level') or 0.95):g}",
        "own": own,
        "part": "test part" if own else "evaluated images",
        "models": names,
        "colours": {name: figures.model_colour(name, names) for name in names},
        "cards": [_card(evaluation, provenance, name) for name in names],
        "shipped": shipped_model(evaluation),
        "conclusions": conclusions(
            evaluation, shipped_model(evaluation), own=own, places={item["name"] for item in found}
        ),
        "class_titles": formats.CLASS_TITLES,
        "titles": TITLES,
        "evidence": found,
        "gate_tested": any(item["name"] == "gate" and item["content"] for item in found),
        "called": {name: tables.called_rows(rows) for name, rows in (evaluation.get("called") or {}).items()},
        **_results(evaluation),
        **_mistakes(evaluation),
    }


def evidence(evaluation: Evaluation, pictures: Pictures, *, owed: bool) -> list[Context]:
    """The sections of evidence that a page shows, in their order.

    A section that the evaluation lacks is left out, unless it is owed: where others are there, a page of a run then
    says that it is missing.
    """
    contents = [(section, section.build(evaluation, pictures)) for section in SECTIONS]
    some = any(content is not None for _, content in contents)
    return [
        {
            "name": section.name,
            "title": section.title,
            "question": section.question,
            "template": f"sections/{section.name}.html.j2",
            "content": content,
        }
        for section, content in contents
        if content is not None or (owed and some)
    ]


def navigation(groups: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of places on a page with the titles that its navigation shows."""
    return [(heading, [(place, TITLES[place]) for place in places]) for heading, places in groups]


def _card(evaluation: Evaluation, provenance: Mapping[str, Any], name: str) -> Context:
    model = evaluation["models"][name]
    entry = (evaluation.get("files") or {}).get(name)
    parameters = ((provenance.get("models") or {}).get(name) or {}).get("parameters")
    return {
        "title": formats.model_title(name),
        "colour": figures.model_colour(name, list(evaluation["models"])),
        "figures": [
            ("Macro AUC", formats.estimate(model["diagnosis"].get("macro_auc"))),
            ("Balanced accuracy", formats.estimate(model["diagnosis"].get("balanced_accuracy"))),
            ("Melanoma AUC", formats.estimate(model["melanoma"].get("roc_auc"))),
        ],
        "size": formats.megabytes(entry["bytes"]) if entry else "no file",
        "latency": formats.latency(entry or {}),
        "parameters": count(parameters) if parameters is not None else "",
    }


def _results(evaluation: Evaluation) -> Context:
    names = list(evaluation["models"])
    plots = (curves.roc, curves.precision_recall, curves.reliability)
    groups = [
        ("Diagnosis", tables.metric_rows(evaluation, "diagnosis")),
        ("Melanoma against the rest", tables.metric_rows(evaluation, "melanoma")),
        ("Melanoma thresholds, from validation", tables.threshold_rows(evaluation)),
    ]
    return {
        "metric_groups": [(title, rows) for title, rows in groups if rows],
        "pairs": [formats.pair_title(name) for name in evaluation.get("differences") or {}],
        "difference_rows": tables.difference_rows(evaluation),
        "delong_rows": tables.delong_rows(evaluation),
        "per_class": {name: tables.per_class_rows(evaluation, name) for name in names},
        "per_class_titles": list(tables.PER_CLASS.values()),
        "few_melanomas": _few_melanomas(evaluation),
        "intervals": drawn(curves.intervals(evaluation)),
        "confusions": drawn(curves.confusions(evaluation)),
        "curves": [drawn(plot(evaluation)) for plot in plots],
    }


def _few_melanomas(evaluation: Evaluation) -> int | None:
    """The number of melanomas where it is ten or fewer."""
    melanomas = int(evaluation["n"]["per_class"].get("mel", 0))
    return melanomas if melanomas <= formats.TOO_FEW else None


def _mistakes(evaluation: Evaluation) -> Context:
    shipped = shipped_model(evaluation)
    return {
        "mistakes": tables.confusion_rows(evaluation, shipped),
        "missed": _missed_melanomas(evaluation, shipped),
    }


def _missed_melanomas(evaluation: Evaluation, model: str) -> tuple[int, int] | None:
    """Melanomas called something else, of how many; ``None`` where the classes have no melanoma."""
    if "mel" not in evaluation["classes"]:
        return None
    place = evaluation["classes"].index("mel")
    row = evaluation["models"][model]["confusion"][place]
    return sum(row) - row[place], sum(row)
