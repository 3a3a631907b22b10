"""Run a recipe: stage after stage, skipping what is done, and the provenance and report at the end."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from dermdistill.atomic import write_json, write_text
from dermdistill.compress.pt2e import require_mobile
from dermdistill.config import Recipe
from dermdistill.distill.signals import signal_plan
from dermdistill.errors import ConfigError, RunFolderError
from dermdistill.evaluate.predictions import CONTROL
from dermdistill.labels import class_names
from dermdistill.models.build import build_model
from dermdistill.pipeline.bundling import write_run_card
from dermdistill.pipeline.context import Context
from dermdistill.pipeline.stages import STAGES, stage_inputs
from dermdistill.pipeline.teachers import other_teacher_hashes, taken_teacher_hash
from dermdistill.recipes.load import load_recipe, parse_recipe, recipe_text
from dermdistill.report.page import write_report
from dermdistill.run import RunFolder
from dermdistill.training.roles import DESCRIPTION

RECIPE = "recipe.yaml"
PROVENANCE = "provenance.json"


def run_recipe(
    recipe: Recipe,
    *,
    source: Path | None,
    out: Path,
    resume: bool = False,
    command: str = "",
    console: Console | None = None,
) -> Path:
    """From images to a report.

    Args:
        recipe: all settings.
        source: folder of images; None draws synthetic ones.
        out: run folder, new or, with ``resume``, the one to go on with.
        resume: go on after a kill; the recipe must be the one that the folder was started with.
        command: what the user typed, for the provenance.
        console: for progress; standard error by default.

    Returns:
        Path of ``report.html``.

    Raises:
        DermdistillError: see the stages.
    """
    console = console or Console(stderr=True)
    torch.set_num_threads(recipe.threads or os.cpu_count() or 1)
    with RunFolder(out).opened(resume=resume) as run:
        keep_recipe(recipe, run.path)
        if not resume:
            try_networks(recipe)
        context = Context(recipe, run, source)
        run_stages(context, STAGES, console)
        write_json(run.path / PROVENANCE, _provenance(context, command))
        write_run_card(context)
        return write_report(run.path)


def run_stages(context: Context, names: Iterable[str], console: Console) -> None:
    """Do the named stages, in the order given, those that are not done already."""
    for name in names:
        stage = STAGES[name]
        if not stage.wanted(context.recipe):
            continue
        inputs = stage_inputs(context, name)
        if context.run.is_done(name, inputs):
            console.print(f"[dim]{name}: done before[/dim]", highlight=False)
            continue
        console.print(f"[bold]{name}[/bold]", highlight=False)
        with context.run.stage(name, inputs, list(stage.writes)):
            stage.work(context, inputs)


def kept_recipe(path: Path) -> Recipe | None:
    """The recipe that a run folder was started with; None where it keeps none yet.

    Raises:
        RunFolderError: it cannot be read.
    """
    kept = path / RECIPE
    if not kept.is_file():
        return None
    try:
        return parse_recipe(yaml.safe_load(kept.read_text()), source=str(kept))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RunFolderError(f"{kept}: is damaged ({error})", next_step="choose another folder with --out") from error


def keep_recipe(recipe: Recipe, path: Path) -> None:
    """Write the recipe of a new run; compare it with that of a resumed one."""
    before = kept_recipe(path)
    if before is None:
        write_text(path / RECIPE, recipe_text(recipe))
        return
    changed = _differences(before.model_dump(mode="json"), recipe.model_dump(mode="json"))
    if changed:
        raise RunFolderError(
            f"{path}: was started with another recipe; different keys: {', '.join(changed)}",
            rule="--resume goes on with the run as it was started",
            next_step="repeat the same --set options, or choose another folder with --out",
        )


def try_networks(recipe: Recipe, *, teacher: bool = True) -> None:
    """Build the networks, show them one image, look for other teachers: what cannot work fails now, not after hours."""
    _try_other_teachers(recipe)
    taken_teacher_hash(recipe)
    if recipe.compress.mobile or recipe.compress.qat_epochs:
        require_mobile()
    classes, own = len(class_names(recipe.task)), recipe.data.size
    roles = (("teacher", recipe.teacher, recipe.teacher.size or own), ("student", recipe.student, own))
    for role, settings, size in roles if teacher else roles[1:]:
        network = build_model(settings.model, classes=classes, size=size, seed=0).eval()
        try:
            with torch.inference_mode():
                network(torch.zeros(1, 3, size, size))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"the {role} network cannot take images of {size} x {size} pixels: {error}",
                rule="data.size fits every branch; a ViT wants a multiple of its patch size",
                next_step=f"change data.size, or the options in {role}.model.branches",
            ) from error


def _try_other_teachers(recipe: Recipe) -> None:
    """Other runs' teachers are there, of the same task, and have the exits that the student learns from.

    Whether they have seen a lesion that they must not is known once there is a split.
    """
    distill = recipe.student.distill
    other_teacher_hashes(recipe)
    for other in distill.other_teachers:
        theirs = load_recipe(str(Path(other.run) / RECIPE))
        missing = sorted(set(signal_plan(distill, recipe.student.model.exits).exits) - set(theirs.teacher.model.exits))
        if theirs.task != recipe.task or missing:
            raise ConfigError(
                f"student.distill.other_teachers: {other.run} has a teacher of the task {theirs.task} with exits "
                f"{list(theirs.teacher.model.exits)}",
                rule=f"the task {recipe.task}" + (f", and a counterpart of the exits {missing}" if missing else ""),
                next_step="take another run, or leave it out",
            )


def _differences(before: Any, after: Any, prefix: str = "") -> list[str]:
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return [] if before == after else [prefix]
    return [
        name
        for key in {**before, **after}
        for name in _differences(before.get(key), after.get(key), f"{prefix}.{key}" if prefix else key)
    ]


def _provenance(context: Context, command: str) -> dict[str, Any]:
    """Where the run's figures come from; without any path of this machine."""
    folders = {"teacher": "teacher", "student": "student"}
    if context.recipe.has_control:
        folders[CONTROL] = f"controls/{CONTROL}"
    described = {role: json.loads((context.path / name / DESCRIPTION).read_text()) for role, name in folders.items()}
    return {
        **context.provenance(command),
        "seed": context.recipe.seed,
        "weights": {role: description["weights"] for role, description in described.items()},
        "models": {
            role: {"parameters": description["parameters"], "sha256": description["sha256"]}
            for role, description in described.items()
        },
        "training": {
            role: {
                key: description[key]
                for key in ("epochs_run", "best_epoch", "monitor", "best_value", "seconds", "code")
            }
            for role, description in described.items()
        },
        "seconds": context.run.seconds(),
    }
