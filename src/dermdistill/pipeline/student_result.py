"""What is found out about trained students: files, figures on both parts, latency, and which of them to take."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from dermdistill.config import Recipe
from dermdistill.evaluate.comparison import compare_rows
from dermdistill.evaluate.student_choice import pareto_front, smallest_within
from dermdistill.models.students import STUDENTS
from dermdistill.pipeline.compression import calibration_images
from dermdistill.pipeline.context import Context
from dermdistill.pipeline.student_files import (
    FP32,
    INT8,
    KINDS,
    Exported,
    export_student,
    time_students,
    timed_sizes,
)
from dermdistill.pipeline.trials import Trial, Workshop
from dermdistill.report.students import student_notes
from dermdistill.training.roles import load_description

METRIC = "macro_auc"
TOLERANCE = 0.005

Json = dict[str, Any]
Files = Mapping[str, Mapping[int, Exported]]


def students_result(context: Context, workshop: Workshop, trials: Sequence[Trial], console: Console) -> Json:
    """Export what was trained and find out everything about it; the choice is made on the validation part.

    Args:
        context: of the study.
        workshop: of the study.
        trials: all students, trained.
        console: for progress.

    Returns:
        JSON-able: ``task, protocol, leaky, n, bootstrap, sizes, students, validation, int8, fp32, int8_minus_fp32,
        choice, titles, notes``. ``int8`` and ``fp32`` are of ``compare_rows``.

    Raises:
        ExportError: a student cannot be exported or quantized.
    """
    recipe, info = context.recipe, context.split.info
    calibration = calibration_images(context)
    files: dict[str, dict[int, Exported]] = {}
    for number, trial in enumerate(trials, start=1):
        console.print(f"[bold]export {trial.label}[/bold] ({number} of {len(trials)})", highlight=False)
        exported = export_student(
            context, workshop.folder_of(trial), workshop.folder / "exports" / trial.label, calibration
        )
        files.setdefault(trial.name, {})[trial.recipe.seed] = exported
    first = {trial.name: workshop.folder_of(trial) for trial in reversed(trials)}
    console.print("[bold]evaluation[/bold]", highlight=False)
    validation = _compared(recipe, _frames(files, INT8, "val"), next(iter(files)), "val")
    scores = {name: row["metrics"][METRIC]["value"] for name, row in validation["rows"].items()}
    choice = _choice(files, scores)
    control = choice["best"] or next(iter(files))
    figures = {kind: _compared(recipe, _frames(files, kind, "test"), control, "test") for kind in KINDS}
    console.print("[bold]latency[/bold]", highlight=False)
    own = {name: (folder, files[name][recipe.seed]) for name, folder in first.items() if name in files}
    latency = time_students(context, own, calibration)
    students = {name: _student(name, first[name], files[name], latency[name]) for name in files}
    result: Json = {
        "task": recipe.task,
        "protocol": info["protocol"],
        "leaky": bool(info["leaky"]),
        "n": figures[INT8]["n"],
        "bootstrap": figures[INT8]["bootstrap"],
        "sizes": list(timed_sizes(recipe)),
        "students": students,
        "validation": {name: row["metrics"] for name, row in validation["rows"].items()},
        **figures,
        "int8_minus_fp32": {name: _quantized(recipe, files[name]) for name in files},
        "choice": choice,
        "titles": {name: f"{name}: {STUDENTS[name].title}" for name in files},
    }
    return result | {"notes": student_notes(result)}


def _choice(files: Files, scores: Mapping[str, float | None]) -> Json:
    """The Pareto front and the recommended student, by INT8 bytes and a validation figure of the INT8 file."""
    known = {name: score for name, score in scores.items() if score is not None}
    sizes = {name: _bytes(seeds, INT8) for name, seeds in files.items()}
    return {
        "metric": METRIC,
        "part": "val",
        "tolerance": TOLERANCE,
        "best": max(known, key=known.__getitem__, default=None),
        "pareto": pareto_front(sizes, known),
        "recommended": smallest_within(sizes, known, TOLERANCE),
    }


def _frames(files: Files, kind: str, part: str) -> dict[str, dict[int, pd.DataFrame]]:
    return {
        name: {seed: exported.predictions(kind, part) for seed, exported in seeds.items()}
        for name, seeds in files.items()
    }


def _compared(recipe: Recipe, frames: Mapping[str, Mapping[int, pd.DataFrame]], control: str, part: str) -> Json:
    settings = recipe.evaluate
    samples, seed = settings.bootstrap_samples, settings.bootstrap_seed
    return compare_rows(frames, control=control, task=recipe.task, samples=samples, seed=seed, part=part)


def _quantized(recipe: Recipe, files: Mapping[int, Exported]) -> Json:
    """What INT8 changes in one student's test figures, paired."""
    frames = {kind: {seed: exported.predictions(kind, "test") for seed, exported in files.items()} for kind in KINDS}
    differences: Json = _compared(recipe, frames, FP32, "test")["rows"][INT8]["differences"][FP32]
    return differences


def _student(name: str, trained: Path, files: Mapping[int, Exported], latency: Mapping[str, Json]) -> Json:
    described = load_description(trained)
    return {
        "title": STUDENTS[name].title,
        "branches": described["model"]["branches"],
        "weights": described["weights"],
        "pretrained": STUDENTS[name].pretrained,
        "parameters": described["parameters"],
        "files": {kind: {"bytes": _bytes(files, kind), "latency_ms": latency[kind]} for kind in KINDS},
    }


def _bytes(files: Mapping[int, Exported], kind: str) -> int:
    """Of the largest of a student's files, which differ by some bytes from seed to seed."""
    return max(exported.sizes[kind] for exported in files.values())
