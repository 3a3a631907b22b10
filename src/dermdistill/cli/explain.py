"""``dermdistill explain`` and ``layers``: explain a finished run again, and choose what its maps read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dermdistill.cli.studies import without_folders

# Column of the table of layers: the score that it shows, and the one in brackets beside it; None: its own interval.
LAYER_COLUMNS = {
    "off centre (blob)": ("moved_energy", "moved_energy_prior"),
    "gain on the blob": ("moved_gain", None),
    "energy (blob)": ("energy", "energy_prior"),
    "deletion (random)": ("deletion", "deletion_random"),
    "random weights": ("randomisation", None),
    "blank": ("blank", None),
}


def explain(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="explain.key=value, such as explain.scored_images=300. Repeatable."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=0, max=1024, help="CPU threads; 0 is all cores.")] = 0,
) -> None:
    """Explain a finished run again, with more images to test the methods on, or other methods."""
    from dermdistill.recipes.load import check_section

    chosen = settings or []
    check_section(chosen, "explain", example="explain.scored_images=300")  # before the slow imports
    from dermdistill.pipeline.explain_run import explain_run

    command = without_folders(["explain", str(run), *(word for one in chosen for word in ("--set", one))])
    typer.echo(f"report: {explain_run(run, chosen, threads=threads, command=command)}")


def layers(
    run: Annotated[Path, typer.Argument(help="Folder of a run whose model is trained.")],
    role: Annotated[Literal["student", "teacher"], typer.Option("--role", help="Whose layers.")] = "student",
    method: Annotated[Literal["grad_cam", "score_cam"], typer.Option("--method", help="Whose maps.")] = "grad_cam",
    images: Annotated[int, typer.Option("--images", min=1, help="Validation images, one a lesion.")] = 200,
    random: Annotated[int, typer.Option("--random", min=0, help="Of these for the test by random weights.")] = 20,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Layers with this in their name, such as blocks.4. Repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="JSON file to write, with intervals.")] = None,
    threads: Annotated[int, typer.Option("--threads", min=0, max=1024, help="CPU threads; 0 is PyTorch's choice.")] = 0,
) -> None:
    """Try every layer that a class activation map could read, on validation images: which one should it be?"""
    from dermdistill.atomic import write_json
    from dermdistill.pipeline.layer_trials import TrialPlan, layer_trials

    plan = TrialPlan(role, method, images, min(random, images), tuple(only or ()))
    result = layer_trials(run, plan, threads=threads)
    _print_layers(result)
    if out is not None:
        write_json(out, result)
        typer.echo(f"layers: {out}")


def _print_layers(result: Mapping[str, Any]) -> None:
    import sys

    from rich.console import Console
    from rich.table import Table

    table = Table("layer", "cells", *LAYER_COLUMNS, box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for layer in result["layers"]:
        name = f"{layer['name']}{' <- the rule' if layer['chosen'] else ''}"
        cells = [_of_score(layer["scores"], *names) for names in LAYER_COLUMNS.values()]
        table.add_row(name, str(layer["cells"]), *cells)
    Console(width=None if sys.stdout.isatty() else 200, highlight=False, emoji=False).print(table)
    typer.echo(
        f"{result['images']} validation images, {result['moved']} with the lesion moved off the centre", err=True
    )


def _of_score(scores: Mapping[str, Any], name: str, beside: str | None) -> str:
    def shown(score: str, end: str = "value") -> str:
        value = scores.get(score, {}).get(end)
        return "-" if value is None else f"{value:.3f}"

    within = shown(beside) if beside else " to ".join(shown(name, end) for end in ("low", "high"))
    return f"{shown(name)} ({within})"
