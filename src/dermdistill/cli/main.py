"""``dermdistill``: the commands, and what a user sees when one of them fails."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from dermdistill import __version__
from dermdistill.cli import bench, bundles, compare, data, evaluate, explain, litert, recipes, results, review, studies
from dermdistill.errors import DataError, DermdistillError

USER_MISTAKE = 2
FAULTS_A_SCREEN = 30
# Packages that an extra other than `train` brings too.
EXTRAS = {
    "pyarrow": "score",
    **dict.fromkeys(("alembic", "fastapi", "itsdangerous", "sqlalchemy", "uvicorn"), "review"),
}

app = typer.Typer(
    name="dermdistill",
    help="Dermatoscopic images to a small, calibrated, explained and deployable skin-lesion classifier.",
    epilog="Not a medical device. Exit status: 0 fine, 1 an audit found leaks, 2 something to mend.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes twice as long to load as everything else that the help needs
    add_completion=False,
)
app.add_typer(data.app, name="data")
app.add_typer(recipes.app, name="recipes")
app.add_typer(results.app, name="results")
app.add_typer(review.app, name="review")
app.command()(studies.ablate)
app.command()(studies.leakage)
app.command()(studies.students)
app.command()(evaluate.evaluate)
app.command()(explain.explain)
app.command()(explain.layers)
app.command()(compare.compare)
app.command()(bundles.predict)
app.command()(bundles.score)
app.command()(bench.bench)
bundles.app.command()(litert.litert)
app.add_typer(bundles.app, name="bundle")


class _Shown:
    """What ``--all-faults`` decides, for the message in ``main``."""

    all_faults = False


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    all_faults: Annotated[
        bool,
        typer.Option("--all-faults", help=f"List every fault of the data, not the first {FAULTS_A_SCREEN}."),
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that stand before the command."""
    _Shown.all_faults = all_faults


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe (see `recipes list`) or a YAML file.")],
    out: Annotated[Path, typer.Option("--out", help="Run folder to write.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of images; without it, synthetic lesions are drawn.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, such as student.epochs=5. Repeatable.")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option("--teacher", help="Run folder whose teacher is taken; otherwise one is trained.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
) -> None:
    """Train, distil, quantize, evaluate, explain, report: the whole job."""
    from dermdistill.recipes.load import load_recipe

    chosen = load_recipe(recipe, settings)  # before the slow imports: a wrong key is told at once
    from dermdistill.pipeline.execute import run_recipe
    from dermdistill.pipeline.teachers import taking_teacher

    chosen = taking_teacher(chosen, teacher) if teacher else chosen
    report = run_recipe(
        chosen,
        source=data,
        out=out,
        resume=resume,
        command=_command(recipe, data, teacher, settings),
    )
    typer.echo(f"report: {report}")


def _command(recipe: str, data: Path | None, teacher: Path | None, settings: list[str] | None) -> str:
    """The command for the provenance: of absolute paths the last part alone, as the rest is nobody's business."""
    words = ["dermdistill run", recipe if not Path(recipe).is_file() else Path(recipe).name]
    for option, folder in (("--data", data), ("--teacher", teacher)):
        if folder is not None:
            words.append(f"{option} {folder if not folder.is_absolute() else folder.name}")
    words += [f"--set {setting}" for setting in settings or []]
    return " ".join(words)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="Run folder.")]) -> None:
    """Write report.html of a finished run again."""
    from dermdistill.report.page import write_report

    typer.echo(f"report: {write_report(folder)}")


@app.command()
def models() -> None:
    """List the backbones: parameters, size, channels/stride at four depths, weights to be had."""
    from rich.console import Console
    from rich.table import Table

    from dermdistill.models.build import list_backbones

    table = Table("backbone", "parameters", "MB (FP32)", "stages (channels/stride)", "weights")
    for column in (1, 2):
        table.columns[column].justify = "right"
    for item in list_backbones():
        table.add_row(
            item.name,
            f"{item.parameters:,}",
            f"{item.megabytes:.1f}",
            "  ".join(item.stages),
            ", ".join(item.weights),
        )
    Console(width=None if sys.stdout.isatty() else 130).print(table)
    typer.echo("Any other timm name works too. Several branches make a hybrid: see `dermdistill recipes show fusion`.")


def _message(error: DermdistillError) -> str:
    if not isinstance(error, DataError) or _Shown.all_faults or len(error.faults) <= FAULTS_A_SCREEN:
        return str(error)
    more = len(error.faults) - FAULTS_A_SCREEN
    shown = [
        *error.faults[:FAULTS_A_SCREEN],
        f"... and {more} more; `dermdistill --all-faults ...` lists them",
    ]
    return str(DataError(error.problem, faults=shown, rule=error.rule, next_step=error.next_step))


def main() -> None:
    """Entry point: a mistake of the user ends with a message and status 2, never with a traceback."""
    try:
        app()
    except DermdistillError as error:
        typer.echo(f"error: {_message(error)}", err=True)
        sys.exit(USER_MISTAKE)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "dermdistill"):
            raise
        typer.echo(
            f"error: this command needs the package {package!r}, which is not installed\n"
            f"Next: pip install 'dermdistill[{EXTRAS.get(package, 'train')}]'",
            err=True,
        )
        sys.exit(USER_MISTAKE)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        typer.echo(
            f"error: {where}{error.strerror or error}\nNext: check that path, its rights and the disk",
            err=True,
        )
        sys.exit(USER_MISTAKE)
