"""``dermdistill ablate``, ``leakage`` and ``students``: many students on one catalog, compared."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

Recipe = Annotated[str, typer.Argument(help="Name of a recipe (see `recipes list`) or a YAML file.")]
Out = Annotated[Path, typer.Option("--out", help="Folder of the study.")]
Data = Annotated[Path | None, typer.Option("--data", help="Folder of images; without it, synthetic lesions are drawn.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="key=value, such as student.epochs=5. Repeatable.")]
Seeds = Annotated[int, typer.Option("--seeds", min=1, max=1000, help="Seeds a row.")]
Teacher = Annotated[
    Path | None, typer.Option("--teacher", help="Run folder whose teacher is taken; otherwise one is trained.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with a study, also beside other processes that work on it.")
]
Jobs = Annotated[int, typer.Option("--jobs", min=1, max=256, help="Students trained side by side.")]
Worker = Annotated[bool, typer.Option("--worker", hidden=True)]


def ablate(
    recipe: Recipe,
    out: Out,
    *,
    data: Data = None,
    rows: Annotated[
        str, typer.Option("--rows", help="Groups (arms, grid, search, optional) and rows, commas between.")
    ] = "arms,grid,optional",
    seeds: Seeds = 3,
    optional_seeds: Annotated[
        int, typer.Option("--optional-seeds", min=1, max=1000, help="Seeds of the optional rows.")
    ] = 1,
    teacher: Teacher = None,
    settings: Settings = None,
    jobs: Jobs = 1,
    resume: Resume = False,
    worker: Worker = False,
) -> None:
    """Does distillation help? Train students with and without a teacher on one split, and compare them."""
    from dermdistill.recipes.load import load_recipe

    chosen = load_recipe(recipe, settings)  # before the slow imports: a wrong key is told at once
    from dermdistill.pipeline.ablate import AblationPlan, run_ablation
    from dermdistill.pipeline.study import StudyCall

    options = {"--out": out, "--rows": rows, "--seeds": seeds, "--optional-seeds": optional_seeds}
    words = _words("ablate", recipe, {**options, "--data": data, "--teacher": teacher}, settings)
    call = StudyCall(data, out, resume, jobs, worker, [*words, "--resume", "--worker"], without_folders(words))
    table = run_ablation(chosen, AblationPlan(_names(rows), seeds, optional_seeds, teacher), call)
    typer.echo(f"table: {table}")


def leakage(
    recipe: Recipe,
    out: Out,
    data: Data = None,
    seeds: Seeds = 3,
    settings: Settings = None,
    jobs: Jobs = 1,
    resume: Resume = False,
    worker: Worker = False,
) -> None:
    """What does leakage buy? Train one student under leaky and honest splits, and with sisters of its test lesions."""
    from dermdistill.recipes.load import load_recipe

    chosen = load_recipe(recipe, settings)  # before the slow imports: a wrong key is told at once
    from dermdistill.pipeline.leakage import run_leakage
    from dermdistill.pipeline.study import StudyCall

    words = _words("leakage", recipe, {"--out": out, "--seeds": seeds, "--data": data}, settings)
    call = StudyCall(data, out, resume, jobs, worker, [*words, "--resume", "--worker"], without_folders(words))
    table = run_leakage(chosen, call, seeds=seeds)
    typer.echo(f"table: {table}")


def students(
    recipe: Recipe,
    out: Out,
    data: Data = None,
    students: Annotated[
        str | None, typer.Option("--students", help="Names of students, commas between; without it, all of them.")
    ] = None,
    seeds: Seeds = 3,
    teacher: Teacher = None,
    settings: Settings = None,
    jobs: Jobs = 1,
    resume: Resume = False,
    worker: Worker = False,
) -> None:
    """Which student should I take? Train students of several sizes with one teacher; compare, weigh and time them."""
    from dermdistill.recipes.load import load_recipe

    chosen = load_recipe(recipe, settings)  # before the slow imports: a wrong key is told at once
    from dermdistill.pipeline.students import StudentsPlan, run_students
    from dermdistill.pipeline.study import StudyCall

    options = {"--out": out, "--students": students, "--seeds": seeds, "--data": data, "--teacher": teacher}
    words = _words("students", recipe, options, settings)
    call = StudyCall(data, out, resume, jobs, worker, [*words, "--resume", "--worker"], without_folders(words))
    names = _names(students or "")
    table = run_students(chosen, StudentsPlan(names, seeds, teacher), call)
    typer.echo(f"table: {table}")


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in listed.split(",") if name.strip())


def _words(command: str, recipe: str, options: Mapping[str, object], settings: list[str] | None) -> list[str]:
    """The command as it was typed, without the options that only say how this process takes part."""
    given = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    return [command, recipe, *given, *(word for setting in settings or [] for word in ("--set", setting))]


def without_folders(words: list[str]) -> str:
    """The command for the provenance: of absolute paths the last part alone, which is enough to repeat it."""
    shown = [Path(word).name if Path(word).is_absolute() else word for word in words]
    return " ".join(["dermdistill", *shown])
