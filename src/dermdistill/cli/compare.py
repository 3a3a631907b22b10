"""``dermdistill compare``: finished runs side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs, two or more.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write comparison.json, .md and .html to.")
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="Model to compare, such as student; student_int8 by default. Repeatable."),
    ] = None,
    all_pairs: Annotated[
        bool,
        typer.Option("--all-pairs", help="Every two models, of all models unless --model says which."),
    ] = False,
) -> None:
    """Compare runs on their common test part: recipes, figures, paired differences with intervals."""
    from dermdistill.pipeline.compare import compare_runs
    from dermdistill.report.run_comparison import require_own_folder, write_run_comparison

    if out is not None:  # what would fail is told before anything is computed
        require_own_folder(out)
    result = compare_runs(runs, models=models or [], all_pairs=all_pairs)
    _print(result)
    if out is not None:
        typer.echo(f"comparison: {write_run_comparison(result, out)}")


def _print(result: Mapping[str, Any]) -> None:
    import sys

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from dermdistill.report.run_comparison import comparison_tables, summary_sentences

    for content in comparison_tables(result):
        lines = [content.head, *content.rows]
        room = sum(max(len(line[place]) for line in lines) + 2 for place in range(len(content.head)))
        # A pipe gets whole lines, however long.
        width = None if sys.stdout.isatty() else max(room, len(content.caption))
        console = Console(width=width, highlight=False, emoji=False, markup=False)
        table = Table(*content.head, box=None, title=content.caption, title_justify="left")
        for column in table.columns[1:]:
            column.justify = "right"
        for line in content.rows:
            table.add_row(*(Text(cell) for cell in line))
        console.print(table)
        console.print()
    for sentence in summary_sentences(result):
        typer.echo(sentence)
    for note in result["notes"]:
        typer.echo(f"note: {note}", err=True)
