"""Results of runs for the repository: small files without pictures or paths, and the page made of them."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dermdistill.atomic import write_json, write_text
from dermdistill.errors import RunFolderError
from dermdistill.report import formats, tables
from dermdistill.report.comparison_page import SECTIONS, interval_levels
from dermdistill.report.compression import FILE, compression_markdown, kept_compression, read_compression
from dermdistill.report.evidence_markdown import evidence_markdown
from dermdistill.report.explanations import explanations_markdown, kept_explanations
from dermdistill.report.facts import command_block, fact_lines, origin_facts
from dermdistill.report.markdown import plain, table
from dermdistill.report.run_files import ROLES, RunFiles, distils_without_control, read_run

EXPLANATIONS = "explanations.json"
CURVE_POINTS = 200
# Whole numbers, seeds and hashes about the parts; a list or a table a image never gets in.
SPLIT_KEYS = (
    "protocol", "seed", "leaky", "catalog_sha256", "split_sha256", "counts", "images", "lesions", "fractions",
)  # fmt: skip
ABSOLUTE = re.compile(r"(?<![\w.:/~\\-])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\'\"]+[/\\])*([^\s/\\'\"]+)")
# Each kind of result and the files of its folder.
KINDS = {
    "evaluation": ("evaluation", "provenance", "split"),
    **{kind: (kind, "provenance") for kind in SECTIONS},
}
PAGE_METRICS = (
    ("diagnosis", "accuracy"),
    ("diagnosis", "balanced_accuracy"),
    ("diagnosis", "macro_auc"),
    ("melanoma", "roc_auc"),
    ("melanoma", "sensitivity"),
    ("melanoma", "specificity"),
    ("melanoma", "specificity_at_95_sensitivity"),
    ("diagnosis", "ece"),
)
WITHOUT_CONTROL = "No student without a teacher was trained beside this one: what distillation brought is not known."
INTRODUCTION = """# Results

This page is generated from the files under `results/` by `dermdistill results page`; do not edit it.
In brackets: {level}% intervals from a bootstrap over lesions. The INT8 file itself was evaluated. Thresholds
come from validation. Nothing here is for clinical use.
"""


def collect_results(run: Path, destination: Path) -> Path:
    """Copy what a repository should keep of a run: figures and provenance, nothing of single images.

    Writes ``evaluation.json`` (curves thinned to 200 points), ``provenance.json``, ``split.json`` (counts and
    those of the audit), ``training.json`` (both epoch logs), ``recipe.yaml`` and, where the run has it,
    ``compression.json`` and ``explanations.json`` (what tests say of the methods). Of absolute paths the last part
    alone is kept.

    Raises:
        RunFolderError: a required file of the run is missing or unreadable.
        OutputError: the destination cannot be written.
    """
    files = read_run(run)
    data = {**(files.provenance.get("data") or {}), "source": files.source}
    contents = {
        "evaluation.json": _thinned(files.evaluation),
        "provenance.json": {**files.provenance, "data": data},
        "split.json": _split(files),
        "training.json": {role: files.logs[role] or [] for role in ROLES},
    }
    if files.compression is not None:
        contents[FILE] = kept_compression(files.compression)
    if files.explanations is not None:
        contents[EXPLANATIONS] = kept_explanations(files.explanations)
    for name, content in contents.items():
        write_json(destination / name, without_paths(content))
    for name in {FILE, EXPLANATIONS} - set(contents):
        # One that was collected from an earlier run would be shown as this run's.
        (destination / name).unlink(missing_ok=True)
    write_text(destination / "recipe.yaml", _recipe_text(files))
    return destination


def without_paths(value: Any) -> Any:
    """A JSON value whose texts keep only the last part of every absolute path, and all their other words."""
    if isinstance(value, Mapping):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    return ABSOLUTE.sub(lambda found: found[1], value) if isinstance(value, str) else value


def _recipe_text(files: RunFiles) -> str:
    """The recipe byte by byte where it names no absolute path, so that its hash still fits."""
    cleaned = without_paths(files.recipe)
    return files.recipe_text if cleaned == files.recipe else yaml.safe_dump(cleaned, sort_keys=False)


def _split(files: RunFiles) -> dict[str, Any]:
    kept = {key: files.split[key] for key in SPLIT_KEYS if key in files.split}
    if files.audit:
        audit = files.audit
        counted = ("lesions_across", "exact_copies_across", "near_copies")
        kept["audit"] = {"passed": audit["passed"], **{key: audit[key]["count"] for key in counted}}
    return kept


def _thin(points: list[Any]) -> list[Any]:
    """At most 200 of the points, evenly by place, the first and the last among them, to six digits."""
    last = len(points) - 1
    places = sorted({round(step * last / (CURVE_POINTS - 1)) for step in range(CURVE_POINTS)})
    kept = points if last < CURVE_POINTS else [points[place] for place in places]
    return [round(point, 6) if isinstance(point, float) else point for point in kept]


def _thinned(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    models = {}
    for name, model in evaluation["models"].items():
        curves = {
            kind: {axis: _thin(points) for axis, points in curve.items()} if isinstance(curve, dict) else curve
            for kind, curve in (model.get("curves") or {}).items()
        }
        models[name] = {**model, "curves": curves}
    # Which lesions are shown or were refused is nobody's business outside the run folder.
    kept = {key: value for key, value in evaluation.items() if key != "cases"}
    gate = kept.get("gate")
    if gate and gate.get("melanomas"):
        kept["gate"] = {**gate, "melanomas": {**gate["melanomas"], "lesions": []}}
    return {**kept, "models": models}


def write_results_page(results: Path, page: Path) -> Path:
    """Write the page (Markdown) of all folders of results: runs, ablations, measurements of leakage.

    Raises:
        RunFolderError: a folder is incomplete or unreadable.
        OutputError: the page cannot be written.
    """
    write_text(page, results_page(results, page))
    return page


def results_page_is_current(results: Path, page: Path) -> bool:
    """Whether the page is what ``write_results_page`` would write now."""
    return page.is_file() and page.read_text(encoding="utf-8") == results_page(results, page)


def results_page(results: Path, page: Path | None = None) -> str:
    """The page as Markdown text, one section a result in the order of the folders' names.

    Args:
        results: folders with ``evaluation.json``, ``ablation.json`` or ``leakage.json``.
        page: where the page will stand, so that it can show pictures; by default it shows none.
    """
    found = sorted((path.parent.name, path.stem) for path in results.glob("*/*.json") if path.stem in KINDS)
    levels, sections = set(), []
    for name, kind in found:
        content, provenance = (_load(results / name / f"{file}.json", kind) for file in (kind, "provenance"))
        if kind == "evaluation":
            levels.add(content.get("bootstrap", {}).get("level", 0.95))
            split, recipe = _load(results / name / "split.json", kind), results / name / "recipe.yaml"
            alone = recipe.is_file() and distils_without_control(yaml.safe_load(recipe.read_text()), content["models"])
            section = _section(name, content, provenance, split, without_control=alone)
            explained = results / name / EXPLANATIONS
            section += evidence_markdown(content)
            if explained.is_file():
                section += explanations_markdown(_load(explained, kind), provenance.get("explained"))
            sections.append(section + _compression(results / name / FILE))
        else:
            levels |= interval_levels(content)
            sections.append(SECTIONS[kind](name, content, provenance, _picture(results / name / f"{kind}.svg", page)))
    shown = " or ".join(f"{100 * level:g}" for level in sorted(levels)) or "95"
    return "\n".join([INTRODUCTION.format(level=shown), *(sections or ["No results are committed yet.\n"])])


def _picture(path: Path, page: Path | None) -> str | None:
    """A picture's address relative to the page."""
    if page is None or not path.is_file():
        return None
    return Path(os.path.relpath(path, page.parent)).as_posix()


def _load(path: Path, kind: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(
            f"{path}: cannot be read as JSON ({error})",
            rule=f"a results folder holds {', '.join(f'{name}.json' for name in KINDS[kind])}",
            next_step=f"collect the run again: dermdistill results add RUN {path.parent.name}"
            if kind == "evaluation"
            else "copy it from the folder that the command wrote, or run the command again",
        ) from error
    if not isinstance(content, dict):
        raise RunFolderError(f"{path}: holds no object", rule="a results file is a JSON object")
    return content


def _section(
    name: str, evaluation: dict[str, Any], provenance: dict[str, Any], split: dict[str, Any], *, without_control: bool
) -> str:
    models: dict[str, dict[str, Any]] = evaluation["models"]
    parts = [f"## {plain(name)}\n", _facts(evaluation, provenance, split)]
    titles = [plain(formats.model_title(model)) for model in models]
    rows = [
        [
            _metric_title(group, metric),
            *(str(formats.estimate(item[group].get(metric))) for item in models.values()),
        ]
        for group, metric in PAGE_METRICS
    ]
    parts.append(table(["", *titles], rows + _file_cells(evaluation, list(models))))
    parts.append(_comparison(evaluation) + f"- {WITHOUT_CONTROL}\n" * without_control)
    return "\n".join(part for part in parts if part)


def _compression(path: Path) -> str:
    record = read_compression(path)
    return "" if record is None else f"\n{compression_markdown(record)}"


def _metric_title(group: str, metric: str) -> str:
    title = formats.METRIC_TITLES[metric]
    return title if group == "diagnosis" else f"Melanoma: {title}"


def _file_cells(evaluation: Mapping[str, Any], models: list[str]) -> list[list[str]]:
    files = evaluation.get("files") or {}
    sizes = [f"{formats.megabytes(files[name]['bytes'])}" if name in files else "no file" for name in models]
    times = [str(formats.latency(files.get(name) or {})) for name in models]
    return [["File", *sizes], ["Latency of one image, median (p5-p95)", *times]]


def _facts(evaluation: dict[str, Any], provenance: dict[str, Any], split: dict[str, Any]) -> str:
    leaky = bool(evaluation.get("leaky") or split.get("leaky"))
    n = evaluation["n"]
    warning = (
        f"> **Leaky protocol `{plain(evaluation['protocol'])}`:** photos of one lesion may lie in "
        "training and test, so these figures are inflated and say nothing about new patients.\n\n"
    )
    facts = [
        ("Task", evaluation["task"]),
        ("Protocol", f"{evaluation['protocol']}{' (leaky)' if leaky else ''}{_audited(split)}"),
        ("Test part", f"{n['images']:,} images of {n['lesions']:,} lesions"),
        ("Epochs run", _epochs(provenance)),
        ("Seed", provenance.get("seed", "unknown")),
        *origin_facts(provenance),
    ]
    return warning * leaky + command_block(provenance) + fact_lines(facts)


def _audited(split: Mapping[str, Any]) -> str:
    audit = split.get("audit")
    if not audit:
        return ""
    return f"; lesions in two parts: {audit['lesions_across']}, exact copies: {audit['exact_copies_across']}"


def _epochs(provenance: Mapping[str, Any]) -> str:
    training = provenance.get("training") or {}
    said = [
        f"{role} {facts.get('epochs_run', 'unknown')} (best, from 0: {facts.get('best_epoch', 'unknown')})"
        for role, facts in training.items()
    ]
    return ", ".join(said) or "unknown"


def _comparison(evaluation: Mapping[str, Any]) -> str:
    lines = [
        f"- Size, {plain(key)}: ratio {formats.number(ratio)}, {formats.smaller(ratio)}"
        for key, ratio in (evaluation.get("size_ratios") or {}).items()
        if ratio is not None
    ]
    paired = (evaluation.get("differences") or {}).get("student_int8 - student") or {}
    lines += [
        f"- INT8 minus FP32, paired, {tables.difference_title(metric)}: {formats.difference(entry)}"
        for metric, entry in paired.items()
    ]
    return "".join(f"{line}\n" for line in lines)
