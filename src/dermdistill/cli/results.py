"""``dermdistill results``: keep the figures of a run in the repository, and the page made from them."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Committed result files and docs/results.md.", no_args_is_help=True, rich_markup_mode=None)

Results = Annotated[Path, typer.Option("--results", help="Folder of committed results.")]
Page = Annotated[Path, typer.Option("--page", help="The page that is made from them.")]
STALE = 1


@app.command()
def add(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run or study.")],
    name: Annotated[str, typer.Argument(help="Name of the result, such as edge-64.")],
    results: Results = Path("results"),
) -> None:
    """Copy the figures and provenance of a run or a study (no image, no per-image prediction)."""
    from dermdistill.report.results import collect_results
    from dermdistill.report.study_results import collect_study, study_of

    (collect_study if study_of(run) else collect_results)(run, results / name)
    typer.echo(f"results: {results / name}")


@app.command()
def page(results: Results = Path("results"), page: Page = Path("docs/results.md")) -> None:
    """Write docs/results.md from the committed results."""
    from dermdistill.report.results import write_results_page

    write_results_page(results, page)
    typer.echo(f"page: {page}")


@app.command()
def check(results: Results = Path("results"), page: Page = Path("docs/results.md")) -> None:
    """Status 1 where docs/results.md is not what the committed results make."""
    from dermdistill.report.results import results_page_is_current

    if not results_page_is_current(results, page):
        typer.echo(f"{page} is stale: run `dermdistill results page`", err=True)
        raise typer.Exit(STALE)
    typer.echo(f"{page} is current")
