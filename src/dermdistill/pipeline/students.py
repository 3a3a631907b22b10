"""Accuracy against size and latency: students of several sizes, one teacher, one split, and which of them to take."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dermdistill.atomic import write_json
from dermdistill.config import Recipe
from dermdistill.distill.signals import SignalPlan, signal_plan
from dermdistill.errors import ConfigError
from dermdistill.labels import class_names
from dermdistill.models.build import build_model
from dermdistill.models.students import STUDENTS
from dermdistill.pipeline.context import Context, cache_folder
from dermdistill.pipeline.execute import PROVENANCE
from dermdistill.pipeline.student_files import COMMON_SIZE, timed_sizes
from dermdistill.pipeline.student_result import students_result
from dermdistill.pipeline.study import StudyCall, held, prepared, shared_threads, study_provenance, train_all
from dermdistill.pipeline.teachers import adopt_teacher, open_teachers, signal_source, with_teacher_of
from dermdistill.pipeline.trials import Trial, Workshop
from dermdistill.recipes.load import parse_recipe
from dermdistill.report.students import write_students

NAME = "students"


@dataclass(frozen=True)
class StudentsPlan:
    """What is trained.

    Attributes:
        students: keys of ``STUDENTS``; none means all.
        seeds: of every student.
        teacher: folder of a run whose teacher is taken; None trains one.
    """

    students: tuple[str, ...] = ()
    seeds: int = 3
    teacher: Path | None = None


def run_students(recipe: Recipe, plan: StudentsPlan, call: StudyCall) -> Path:
    """Train every student with every seed, evaluate and time their files, and write tables and a plot.

    Args:
        recipe: teacher, data, and how a student learns; its student's branches are replaced.
        plan: which students and seeds.
        call: where, and in how many processes.

    Returns:
        Path of ``students.md``; of the folder where this process is a worker.

    Raises:
        ConfigError: an unknown student, or one that cannot be built; a recipe whose student has no teacher.
        WeightsError: packaged weights that are not installed.
        DermdistillError: see the parts.
    """
    names = chosen_students(plan.students)
    _require_teaching(recipe)
    recipe = shared_threads(recipe, call)
    if plan.teacher is not None:
        recipe = with_teacher_of(recipe, plan.teacher)
    if not call.worker:
        for name in names:
            _try_student(recipe, name)
    stages = ("catalog", "split", "audit") + (() if plan.teacher else ("teacher",))
    with prepared(recipe, call, stages=stages) as context:
        if plan.teacher is not None:
            adopt_teacher(plan.teacher, context.path, context.split)
        workshop = Workshop(call.out, context.catalog, context.stores)
        trials = _trials(context, names, plan.seeds)
        if not call.worker:
            call.console.print("[bold]targets[/bold]", highlight=False)
            _store_answers(context, trials)
    train_all(workshop, trials, call)
    if call.worker:
        return call.out
    with held(call):
        result = students_result(context, workshop, trials, call.console)
        write_json(call.out / PROVENANCE, study_provenance(context, workshop, trials, call.command))
        write_students(result, call.out, name=NAME)
    return call.out / f"{NAME}.md"


def chosen_students(names: Sequence[str]) -> list[str]:
    """The named students in the order of ``STUDENTS``; all of them where none is named.

    Raises:
        ConfigError: an unknown name.
    """
    unknown = [name for name in names if name not in STUDENTS]
    if unknown:
        raise ConfigError(
            f"--students: unknown {', '.join(map(repr, unknown))}", rule=f"students are {', '.join(STUDENTS)}"
        )
    return [name for name in STUDENTS if name in names or not names]


def student_recipe(recipe: Recipe, name: str, *, seed: int) -> Recipe:
    """The recipe of one student and seed: other branches, everything else as it is. Targets are stored."""
    values = recipe.model_dump(mode="json")
    branches = STUDENTS[name].branches()
    values["seed"] = seed
    values["student"]["model"]["branches"] = [branch.model_dump(mode="json") for branch in branches]
    values["student"]["distill"]["targets"] = "stored"
    return parse_recipe(values, source=f"{recipe.name}, student {name}")


def _require_teaching(recipe: Recipe) -> None:
    if not recipe.student.distill.needs_teacher:
        raise ConfigError(
            f"students: the student of {recipe.name} learns from no teacher",
            rule="all students of the curve are taught by the same teacher",
            next_step="give student.distill.alpha or beta a weight",
        )


def _try_student(recipe: Recipe, name: str) -> None:
    """Build a student and show it an image of every size it will be timed at: what cannot work fails now."""
    settings = student_recipe(recipe, name, seed=recipe.seed).student.model
    own = recipe.data.size
    network = build_model(settings, classes=len(class_names(recipe.task)), size=own, seed=0).deployed()
    for size in timed_sizes(recipe):
        try:
            with torch.inference_mode():
                network(torch.zeros(1, 3, size, size))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"student {name}: a network for {own} x {own} pixels cannot take {size} x {size}: {error}",
                rule=f"students are timed at the size they learn at and at {COMMON_SIZE} pixels",
                next_step="leave it out of --students, or change data.size",
            ) from error


def _trials(context: Context, names: Sequence[str], seeds: int) -> list[Trial]:
    """Seed after seed: a study that is broken off has whole comparisons. All ask for the same signals."""
    student, first = context.recipe.student, context.recipe.seed
    asked: SignalPlan = signal_plan(student.distill, student.model.exits)
    return [
        Trial(name, student_recipe(context.recipe, name, seed=seed), context.split, asked)
        for seed in range(first, first + seeds)
        for name in names
    ]


def _store_answers(context: Context, trials: Sequence[Trial]) -> None:
    """Compute the teacher's answers once a seed, on all cores, before the students start."""
    teachers = open_teachers(context.recipe, context.path / "teacher", context.split, context.stores)
    data = context.training_data(context.spec)
    torch.set_num_threads(os.cpu_count() or 1)
    for trial in {trial.recipe.seed: trial for trial in trials}.values():
        signal_source(trial.recipe, teachers, data, cache=cache_folder(), plan=trial.plan)
    torch.set_num_threads(context.recipe.threads or os.cpu_count() or 1)
