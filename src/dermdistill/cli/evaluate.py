"""``dermdistill evaluate``: a finished model on images from elsewhere, or the figures that a run found itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

# Room for all columns of a table that goes into a pipe.
COLUMNS = 180
SEVEN = (
    ("diagnosis", "balanced_accuracy"),
    ("diagnosis", "macro_auc"),
    ("melanoma", "roc_auc"),
    ("melanoma", "sensitivity_at_95_sensitivity"),
    ("melanoma", "specificity_at_95_sensitivity"),
)
TWO = SEVEN[2:]


def evaluate(
    source: Annotated[Path, typer.Argument(metavar="RUN|BUNDLE", help="Folder of a finished run, or a bundle folder.")],
    on: Annotated[
        Path | None,
        typer.Option(
            "--on", help="Images from elsewhere; without it, the figures that the run itself found are printed."
        ),
    ] = None,
    reader: Annotated[
        str | None,
        typer.Option("--reader", help="ham10000, isic, folder, given or ph2; by default what the folder looks like."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write; by default SOURCE-on-IMAGES in the current one.")
    ] = None,
    drop_overlap: Annotated[
        bool, typer.Option("--drop-overlap", help="Leave out what the model has seen; otherwise that is an error.")
    ] = False,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Go on where nothing says what the model has seen.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value, such as evaluate.robustness_images=0. Repeatable."),
    ] = None,
) -> None:
    """Evaluate a model on images from elsewhere, with its own thresholds, after a look for images that it has seen."""
    from dermdistill.errors import ConfigError

    if on is None:
        given = {
            "--reader": reader,
            "--out": out,
            "--drop-overlap": drop_overlap,
            "--unchecked": unchecked,
            "--set": settings,
        }
        lone = [name for name, value in given.items() if value]
        if lone:
            raise ConfigError(
                f"{', '.join(lone)} without --on", rule="these go with --on PATH", next_step="name the images with --on"
            )
        _print_own(source)
        return
    from dermdistill.pipeline.evaluate_other import evaluate_other
    from dermdistill.recipes.load import evaluate_settings

    folder = out or Path(f"{source.resolve().name}-on-{on.resolve().stem}")
    result = evaluate_other(
        source,
        on,
        reader=reader,
        out=folder,
        drop_overlap=drop_overlap,
        unchecked=unchecked,
        config=evaluate_settings(settings or []),
        command=_command(source, on, reader, settings or [], drop_overlap=drop_overlap, unchecked=unchecked),
    )
    _print_figures(result)
    for line in result["scored"]:
        typer.echo(line, err=True)
    typer.echo(f"report: {folder / 'report.html'}")


def _command(
    source: Path, on: Path, reader: str | None, settings: list[str], *, drop_overlap: bool, unchecked: bool
) -> str:
    """The command for the provenance, with the last part alone of every path."""
    words = ["dermdistill evaluate", source.name, "--on", on.name]
    words += ["--reader", reader] if reader else []
    words += ["--drop-overlap"] if drop_overlap else []
    words += ["--unchecked"] if unchecked else []
    words += [word for setting in settings for word in ("--set", setting)]
    return " ".join(words)


def _print_own(source: Path) -> None:
    """What a run's own evaluation found."""
    import json

    from dermdistill.bundle.pack import bundle_of
    from dermdistill.errors import ConfigError, RunFolderError

    path = source / "evaluation" / "evaluation.json"
    if bundle_of(source) == source:
        raise ConfigError(
            f"{source}: is a bundle, and --on names no images",
            rule="a bundle alone holds no images to evaluate it on",
            next_step="name a set of images with --on, or give the folder of a run",
        )
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        _print_figures(result)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{path}: cannot be read ({type(error).__name__}: {error})",
            rule="the run's own evaluation, as its stage wrote it",
            next_step="finish the run with --resume, or name a set of images with --on",
        ) from error
    typer.echo(f"report: {source / 'report.html'}")


def _print_figures(result: Mapping[str, Any]) -> None:
    """The overlap first, then n, then each model's headline figures with their intervals."""
    import sys

    from rich.console import Console
    from rich.table import Table

    from dermdistill.report.formats import estimate, metric_title, model_title

    if "overlap" in result:
        typer.echo(result["notes"][0])
    n = result["n"]
    counts = ", ".join(f"{code} {count}" for code, count in n["per_class"].items())
    typer.echo(f"n = {n['images']} images of {n['lesions']} lesions ({counts})")
    figures = TWO if result["task"] == "melanoma" else SEVEN
    table = Table(
        "model",
        *(f"{'Melanoma ' if view == 'melanoma' else ''}{metric_title(name)}" for view, name in figures),
        box=None,
    )
    for name, block in result["models"].items():
        table.add_row(model_title(name), *(str(estimate(block[view].get(key))) for view, key in figures))
    Console(width=None if sys.stdout.isatty() else COLUMNS, highlight=False, emoji=False).print(table)
