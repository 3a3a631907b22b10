"""``dermdistill explain``: explain a finished run again."""

from pathlib import Path
from typing import Annotated

import typer

from dermdistill.cli.studies import without_folders


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
