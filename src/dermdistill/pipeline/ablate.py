"""Ablation: did distillation help, which part of it, and by how much. One split, one stored teacher, many students."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console

from dermdistill.atomic import write_json
from dermdistill.config import Recipe
from dermdistill.distill.signals import SignalPlan, signal_plan
from dermdistill.errors import ConfigError
from dermdistill.evaluate.comparison import compare_rows
from dermdistill.pipeline.ablation_rows import CONTROL, ROWS, chosen_rows, row_recipe, searched_rows
from dermdistill.pipeline.context import Context, cache_folder
from dermdistill.pipeline.execute import PROVENANCE
from dermdistill.pipeline.study import StudyCall, held, prepared, shared_threads, study_provenance, train_all
from dermdistill.pipeline.teachers import adopt_teacher, open_teachers, with_teacher_of
from dermdistill.pipeline.trials import Trial, Workshop, by_row
from dermdistill.provenance import sha256_json
from dermdistill.report.comparison import write_comparison
from dermdistill.training.residence import default_device
from dermdistill.training.teachers import Viewing, store_targets

NAME = "ablation"


@dataclass(frozen=True)
class AblationPlan:
    """What is trained.

    Attributes:
        rows: names of rows and groups.
        seeds: of every row but the optional ones.
        optional_seeds: of the optional rows.
        teacher: folder of a run whose teacher is taken; None trains one.
    """

    rows: tuple[str, ...] = ("arms", "grid", "optional")
    seeds: int = 3
    optional_seeds: int = 1
    teacher: Path | None = None


def run_ablation(recipe: Recipe, plan: AblationPlan, call: StudyCall) -> Path:
    """Train every row with every seed, compare each with the student that had no teacher, and write tables and a plot.

    Args:
        recipe: the fused multi-stage student and its teacher; the rows are made from it.
        plan: which rows and seeds.
        call: where, and in how many processes.

    Returns:
        Path of ``ablation.md``; of the folder where this process is a worker.

    Raises:
        DermdistillError: see the parts.
    """
    names, left_out = _possible(recipe, chosen_rows(plan.rows), plan.rows)
    for note in left_out:
        call.console.print(f"[yellow]{note}[/yellow]", highlight=False)
    recipe = shared_threads(recipe, call)
    if plan.teacher is not None:
        recipe = with_teacher_of(recipe, plan.teacher)
    stages = ("catalog", "split", "audit") + (() if plan.teacher else ("teacher",))
    with prepared(recipe, call, stages=stages) as context:
        if plan.teacher is not None:
            adopt_teacher(plan.teacher, context.path, context.split)
        workshop = Workshop(call.out, context.catalog, context.stores)
        trials, trial_of = _trials(context, names, plan)
        students = list(trials.values())
        if not call.worker:
            _store_all(context, trials, call.console)
    train_all(workshop, students, call)
    if call.worker:
        return call.out
    with held(call):
        result, validation = (
            _compared(recipe, names, trial_of, by_row(workshop, students, part), part) for part in ("test", "val")
        )
        result["validation"] = validation["rows"]
        result["notes"] += [*left_out, *chosen_on_validation(validation["rows"], recipe.student.monitor)]
        write_json(call.out / PROVENANCE, study_provenance(context, workshop, students, call.command))
        write_comparison(result, call.out, name=NAME, titles={name: ROWS[name].title for name in names})
    return call.out / f"{NAME}.md"


def _compared(
    recipe: Recipe,
    names: Sequence[str],
    trial_of: Mapping[str, str],
    frames: Mapping[str, Mapping[int, pd.DataFrame]],
    part: str,
) -> dict[str, Any]:
    """All rows on one part, each against its controls."""
    return compare_rows(
        {name: frames[trial_of[name]] for name in names},
        control=CONTROL,
        controls={name: second for name in names if (second := ROWS[name].control) and second in names},
        task=recipe.task,
        samples=recipe.evaluate.bootstrap_samples,
        seed=recipe.evaluate.bootstrap_seed,
        part=part,
    )


def chosen_on_validation(rows: Mapping[str, Any], metric: str) -> list[str]:
    """Which setting of the fused multi-stage student the validation part chooses, where several were tried.

    Args:
        rows: of the comparison on the validation part.
        metric: of ``rows``; the highest mean over seeds is chosen.
    """
    tried = {name: row["metrics"][metric]["value"] for name, row in rows.items() if name in searched_rows()}
    means = {name: mean for name, mean in tried.items() if mean is not None}
    if len(means) < 2:
        return []
    best = max(means, key=means.__getitem__)
    figures = ", ".join(f"{name} {mean:.4f}" for name, mean in means.items())
    return [
        f"Of {len(means)} settings of multi-stage + layer fusion the validation part chooses {best} by {metric} "
        f"({figures}). Its test figures are those of a setting chosen before; the others' are not to be chosen from."
    ]


def _possible(recipe: Recipe, names: Sequence[str], asked: Sequence[str]) -> tuple[list[str], list[str]]:
    """Rows that this recipe can have, and a note for each that it cannot.

    Raises:
        ConfigError: a row that was asked for by its own name cannot be.
    """
    possible, notes = [], []
    for name in names:
        try:
            row_recipe(recipe, name, seed=recipe.seed)
        except ConfigError as error:
            if name in asked or name == CONTROL:
                raise
            notes.append(f"row {name} is left out: {error.problem}")
        else:
            possible.append(name)
    return possible, notes


def _trials(context: Context, names: Sequence[str], plan: AblationPlan) -> tuple[dict[str, Trial], dict[str, str]]:
    """One trial for each distinct student and seed; and which row's training each row takes its figures from.

    Seed after seed, the optional rows last: a study that is broken off has whole comparisons.
    """
    first = context.recipe.seed
    trials: dict[str, Trial] = {}
    trial_of: dict[str, str] = {}
    owners: dict[str, str] = {}
    asked = shared_plan(context.recipe, names)
    counts = {name: plan.optional_seeds if ROWS[name].group == "optional" else plan.seeds for name in names}
    wanted = [(ROWS[name].group == "optional", seed, name) for name in names for seed in range(counts[name])]
    for _, seed, name in sorted(wanted, key=lambda one: one[:2]):
        recipe = row_recipe(context.recipe, name, seed=first + seed)
        owner = owners.setdefault(sha256_json(recipe.model_dump(mode="json")), name)
        trial_of.setdefault(name, owner)
        needs = recipe.student.distill.needs_teacher
        trials.setdefault(f"{owner}/{first + seed}", Trial(owner, recipe, context.split, asked if needs else None))
    return trials, trial_of


def shared_plan(recipe: Recipe, names: Sequence[str]) -> SignalPlan:
    """The signals that any of the rows needs, so that all learn from one store."""
    plans = []
    for name in names:
        student = row_recipe(recipe, name, seed=recipe.seed).student
        if student.distill.needs_teacher:
            plans.append(signal_plan(student.distill, student.model.exits))
    return SignalPlan(
        exits=tuple(sorted({depth for plan in plans for depth in plan.exits})),
        fused=any(plan.fused for plan in plans),
        attention=tuple(sorted({depth for plan in plans for depth in plan.attention})),
    )


def _store_all(context: Context, trials: dict[str, Trial], console: Console) -> None:
    """Compute the teacher's answers to every view of every trial, once, before the students start.

    All cores work on it, also where the students will share them: weights depend on the number of threads, but these
    answers only to the last bits, which float16 does not keep.
    """
    taught: dict[tuple[str, int], Trial] = {}
    for trial in trials.values():
        if trial.plan is not None:
            taught.setdefault((trial.recipe.augment.model_dump_json(), trial.recipe.seed), trial)
    if not taught:
        return
    console.print("[bold]targets[/bold]", highlight=False)
    some = next(iter(taught.values())).recipe
    teachers = open_teachers(some, context.path / "teacher", context.split, context.stores)
    data = context.training_data(context.spec)
    torch.set_num_threads(os.cpu_count() or 1)
    for trial in taught.values():
        viewing = Viewing(trial.recipe.augment, trial.recipe.seed, data.train_rows)
        epochs, plan = trial.recipe.student.epochs, trial.plan or SignalPlan()
        for teacher in teachers:
            store_targets(teacher, viewing, plan, epochs=epochs, cache=cache_folder(), device=default_device())
    torch.set_num_threads(context.recipe.threads or os.cpu_count() or 1)
