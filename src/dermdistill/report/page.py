"""One run folder to one self-contained report.html: no requests; pictures, styles and the one script inside."""

from collections.abc import Mapping
from pathlib import Path

from dermdistill.atomic import write_text
from dermdistill.report import compression, curves, figures, formats, tables
from dermdistill.report.downloads import folder_pictures, json_download
from dermdistill.report.explanations import explained
from dermdistill.report.parts import navigation, shared
from dermdistill.report.reader_study import reader_study
from dermdistill.report.rendering import Context, drawn, render_page
from dermdistill.report.run_files import ROLES, RunFiles, read_run


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
    pictures = folder_pictures(files.folder / "evaluation" / "cases")
    context = shared(files.evaluation, files.provenance, own=True, pictures=pictures)
    parts = (_header, _data, _training, _compression, _pictures)
    context |= {key: value for part in parts for key, value in part(files).items()}
    evidence = [item["name"] for item in context["evidence"]]
    compressed = ["compression"] if context["compression"] else []
    rated = ["reader_study"] if context["reader_study"] else []
    context["nav"] = navigation(
        (
            ("Summary", ("summary", "purpose")),
            ("How good", ("results", "classes", "curves", *compressed)),
            ("Evidence", (*evidence, "explanations", "failures", *rated)),
            ("How it was made", ("data", "split", "training", "files", "notes", "provenance")),
        )
    )
    return render_page("report.html.j2", context)


def _header(files: RunFiles) -> Context:
    audit = files.audit
    return {
        "run": files,
        "name": (files.provenance.get("recipe") or {}).get("name") or files.recipe.get("name") or "run",
        "kind": "report",
        "folder": "run folder",
        "source": files.source,
        "leaky": files.leaky,
        "synthetic": files.synthetic,
        "broken_promise": bool(audit and audit["promises_disjoint"] and not audit["passed"]),
        "warnings": [],
        "no_control": files.distils_without_control,
        "recipe_text": files.recipe_text,
        "download": json_download(files.folder / "evaluation" / "evaluation.json", "evaluation.json"),
    }


def _data(files: RunFiles) -> Context:
    counts: Mapping[str, Mapping[str, int]] = files.split["counts"]
    codes = [code for code in formats.CLASS_TITLES if any(code in by_class for by_class in counts.values())]
    codes += sorted({code for by_class in counts.values() for code in by_class} - set(codes))
    catalog = files.catalog
    plots = []
    sources: list[tuple[str, int]] = []
    if catalog is not None:
        plots = [drawn(figures.age_sex(catalog)), drawn(figures.class_by_age(catalog, codes))]
        labels = catalog["diagnosis_source"].fillna("not given").value_counts()
        sources = sorted(((str(key), int(labels[key])) for key in labels.index), key=lambda item: -item[1])
    return {
        "counts": counts,
        "count_rows": tables.count_rows(files.split, codes),
        "audit_examples": tables.audit_examples(files.audit) if files.audit else [],
        "class_counts": drawn(figures.class_counts(counts, codes)),
        "age_figures": plots,
        "sources": sources,
        "no_age": int(catalog["age"].isna().sum()) if catalog is not None else 0,
    }


def _training(files: RunFiles) -> Context:
    trained = []
    for role in ROLES:
        log = files.logs[role]
        best = files.best_epoch(role)
        svg = drawn(figures.training_curves(role, log, monitor=files.monitor(role), best=best)) if log else None
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


def _compression(files: RunFiles) -> Context:
    """What the exported files are and lost; ``compression`` is None for a run that kept no record of the loss."""
    evaluation, record = files.evaluation, files.compression
    sizes = {
        "file_rows": tables.file_rows(evaluation) if evaluation.get("files") else [],
        "files_figure": drawn(curves.files(evaluation)) if evaluation.get("files") else "",
    }
    if record is None:
        return {**sizes, "compression": None}
    traced = compression.traced_files(record)
    shown = {
        "sentences": compression.compression_sentences(record),
        "columns": compression.COLUMNS,
        "rows": compression.compression_rows(record),
        "figure": drawn(compression.layer_figure(record)) if traced else "",
        "growth": compression.growth_sentences(record),
        "files": [compression.file_title(name) for name in traced],
        "layer_rows": compression.layer_rows(record),
        "sensitive_rows": compression.sensitive_rows(record),
    }
    return {**sizes, "compression": shown}


def _pictures(files: RunFiles) -> Context:
    shown = explained(files.folder / "explanations", files.explanations)
    wrong = [item for item in shown["items"] if not item["correct"]] if shown else []
    return {"explained": shown, "wrong_items": wrong, "reader_study": reader_study(files.reader_study)}
