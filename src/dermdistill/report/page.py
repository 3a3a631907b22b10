"""One run folder to one self-contained report.html: no scripts, no requests, pictures and styles inside."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dermdistill.atomic import write_text
from dermdistill.report import compression, curves, figures, formats, tables
from dermdistill.report.run_files import ROLES, RunFiles, read_run

TEMPLATES = Path(__file__).parent / "templates"
SHIPPED = "student_int8"
Context = dict[str, Any]


def write_report(run: Path) -> Path:
    """Write ``report.html`` into a run folder from the files that are there.

    The same files give the same bytes. Optional files that are missing are named in their section.

    Raises:
        RunFolderError: a required file is missing or unreadable; it says which and how to get it.
        OutputError: the page cannot be written.
    """
    page = run / "report.html"
    write_text(page, render(read_run(run)))
    return page


def render(files: RunFiles) -> str:
    """The page as HTML text."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Our own stylesheet and matplotlib's SVG, whose texts matplotlib escapes, are the only unescaped parts.
    css = Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))
    environment.filters["title_of"] = formats.model_title
    environment.filters["millions"] = _count
    environment.filters["phrase_of"] = lambda name: formats.MODEL_PHRASES.get(name, name)
    parts = (_header, _data, _training, _results, _compression, _pictures)
    context = {key: value for part in parts for key, value in part(files).items()}
    return environment.get_template("report.html.j2").render(css=css, run=files, **context)


def _count(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value / 1e6:.2f} M" if value >= 1e6 else f"{value:,.0f}"


def _svg(text: str) -> Markup:
    return Markup(text)


def _header(files: RunFiles) -> Context:
    evaluation = files.evaluation
    names = list(evaluation["models"])
    cards = [_card(files, name, names) for name in names]
    shipped = SHIPPED if SHIPPED in names else names[-1]
    return {
        "name": (files.provenance.get("recipe") or {}).get("name") or files.recipe.get("name") or "run",
        "models": names,
        "colours": {name: figures.model_colour(name, names) for name in names},
        "cards": cards,
        "shipped": shipped,
        "verdict": _verdict(files, shipped),
        "class_titles": formats.CLASS_TITLES,
    }


def _card(files: RunFiles, name: str, names: list[str]) -> Context:
    model = files.evaluation["models"][name]
    entry = (files.evaluation.get("files") or {}).get(name)
    parameters = ((files.provenance.get("models") or {}).get(name) or {}).get("parameters")
    return {
        "title": formats.model_title(name),
        "colour": figures.model_colour(name, names),
        "figures": [
            ("Macro AUC", formats.estimate(model["diagnosis"].get("macro_auc"))),
            ("Balanced accuracy", formats.estimate(model["diagnosis"].get("balanced_accuracy"))),
            ("Melanoma AUC", formats.estimate(model["melanoma"].get("roc_auc"))),
        ],
        "size": formats.megabytes(entry["bytes"]) if entry else "no file",
        "latency": formats.latency(entry or {}),
        "parameters": _count(parameters) if parameters is not None else "",
    }


def _verdict(files: RunFiles, shipped: str) -> list[str]:
    """Sentences that a reader in a hurry may take away, made of the numbers below them."""
    evaluation = files.evaluation
    model, n = evaluation["models"][shipped], evaluation["n"]
    phrase = formats.MODEL_PHRASES.get(shipped, shipped)
    melanoma = formats.estimate(model["melanoma"].get("roc_auc"))
    macro, balanced = (formats.estimate(model["diagnosis"].get(key)) for key in ("macro_auc", "balanced_accuracy"))
    sentences = [
        f"On {n['images']:,} test images of {n['lesions']:,} lesions the {phrase} reaches macro AUC {macro} "
        f"and balanced accuracy {balanced}; melanoma AUC {melanoma}."
    ]
    paired = (evaluation.get("differences") or {}).get("student_int8 - student", {}).get("macro_auc")
    if paired:
        sentences.append(f"INT8 minus FP32, paired: macro AUC {formats.difference(paired)}.")
    ratios = evaluation.get("size_ratios") or {}
    sizes = [
        f"{formats.smaller(ratios[key])} than the {words}"
        for key, words in (("student_int8 / student", "FP32 student"), ("student_int8 / teacher", "teacher"))
        if ratios.get(key) is not None
    ]
    if sizes:
        sentences.append(f"Its file is {' and '.join(sizes)}.")
    return sentences


def _data(files: RunFiles) -> Context:
    counts: Mapping[str, Mapping[str, int]] = files.split["counts"]
    codes = [code for code in formats.CLASS_TITLES if any(code in by_class for by_class in counts.values())]
    codes += sorted({code for by_class in counts.values() for code in by_class} - set(codes))
    catalog = files.catalog
    drawn = []
    sources: list[tuple[str, int]] = []
    if catalog is not None:
        drawn = [_svg(figures.age_sex(catalog)), _svg(figures.class_by_age(catalog, codes))]
        labels = catalog["diagnosis_source"].fillna("not given").value_counts()
        sources = sorted(((str(key), int(labels[key])) for key in labels.index), key=lambda item: -item[1])
    return {
        "counts": counts,
        "count_rows": tables.count_rows(files.split, codes),
        "audit_examples": tables.audit_examples(files.audit) if files.audit else [],
        "class_counts": _svg(figures.class_counts(counts, codes)),
        "age_figures": drawn,
        "sources": sources,
        "no_age": int(catalog["age"].isna().sum()) if catalog is not None else 0,
    }


def _training(files: RunFiles) -> Context:
    trained = []
    for role in ROLES:
        log = files.logs[role]
        best = files.best_epoch(role)
        svg = _svg(figures.training_curves(role, log, monitor=files.monitor(role), best=best)) if log else None
        facts = (files.provenance.get("training") or {}).get(role) or {}
        trained.append(
            {
                "role": role,
                "svg": svg,
                "terms": tables.term_rows(log) if log else [],
                "best": best,
                "monitor": formats.metric_title(files.monitor(role)),
                "epochs": facts.get("epochs_run", len(log or [])),
                "minutes": facts["seconds"] / 60 if facts.get("seconds") is not None else None,
            }
        )
    return {"trained": trained}


def _results(files: RunFiles) -> Context:
    evaluation = files.evaluation
    names = list(evaluation["models"])
    plots = (curves.roc, curves.precision_recall, curves.reliability)
    return {
        "metric_groups": [
            ("Diagnosis", tables.metric_rows(evaluation, "diagnosis")),
            ("Melanoma against the rest", tables.metric_rows(evaluation, "melanoma")),
        ],
        "pairs": [formats.pair_title(name) for name in evaluation.get("differences") or {}],
        "difference_rows": tables.difference_rows(evaluation),
        "per_class": {name: tables.per_class_rows(evaluation, name) for name in names},
        "per_class_titles": list(tables.PER_CLASS.values()),
        "thresholds": [(name, evaluation["models"][name].get("thresholds") or {}) for name in names],
        "number": formats.number,
        "few_melanomas": _few_melanomas(evaluation),
        "intervals": _svg(curves.intervals(evaluation)),
        "confusions": _svg(curves.confusions(evaluation)),
        "curves": [_svg(plot(evaluation)) for plot in plots],
        "file_rows": tables.file_rows(evaluation) if evaluation.get("files") else [],
        "files_figure": _svg(curves.files(evaluation)) if evaluation.get("files") else "",
    }


def _few_melanomas(evaluation: Mapping[str, Any]) -> int | None:
    """The number of test melanomas where it is ten or fewer."""
    count = int(evaluation["n"]["per_class"].get("mel", 0))
    return count if count <= formats.TOO_FEW else None


def _compression(files: RunFiles) -> Context:
    """What the exported files lost; None for a run that kept no record of it."""
    record = files.compression
    if record is None:
        return {"compression": None}
    traced = compression.traced_files(record)
    shown = {
        "sentences": compression.compression_sentences(record),
        "columns": compression.COLUMNS,
        "rows": compression.compression_rows(record),
        "figure": _svg(compression.layer_figure(record)) if traced else "",
        "growth": compression.growth_sentences(record),
        "files": [compression.file_title(name) for name in traced],
        "layer_rows": compression.layer_rows(record),
        "sensitive_rows": compression.sensitive_rows(record),
    }
    return {"compression": shown}


def _pictures(files: RunFiles) -> Context:
    shipped = SHIPPED if SHIPPED in files.evaluation["models"] else list(files.evaluation["models"])[-1]
    items = [_pair(files, item) for item in (files.explanations or {}).get("items", [])]
    wrong = sorted((item for item in items if not item["correct"]), key=lambda item: -item["prob"])
    return {
        "correct_items": [item for item in items if item["correct"]],
        "wrong_items": wrong,
        "mistakes": tables.confusion_rows(files.evaluation, shipped),
        "missed": _missed_melanomas(files.evaluation, shipped),
    }


def _pair(files: RunFiles, item: Mapping[str, Any]) -> Context:
    folder = files.folder / "explanations"
    pictures = {key: _data_uri(folder / Path(str(item[key])).name) for key in ("image", "overlay")}
    return {**item, **pictures, "prob_text": formats.number(item["prob"])}


def _data_uri(path: Path) -> str:
    """A PNG as a data URI; an empty text where the file is missing."""
    if not path.is_file():
        return ""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _missed_melanomas(evaluation: Mapping[str, Any], model: str) -> tuple[int, int] | None:
    """Melanomas called something else, of how many; ``None`` where the classes have no melanoma."""
    if "mel" not in evaluation["classes"]:
        return None
    place = evaluation["classes"].index("mel")
    row = evaluation["models"][model]["confusion"][place]
    return sum(row) - row[place], sum(row)
