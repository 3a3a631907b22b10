"""``dermdistill bench``: size, start, speed and memory of a bundle's files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

# Room for all columns behind the first.
COLUMNS = 180


def bench(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    teacher: Annotated[
        Path | None,
        typer.Option("--teacher", help="ONNX file to measure beside it; by default ../teacher/model.onnx, if there."),
    ] = None,
    pytorch: Annotated[
        bool, typer.Option("--pytorch", help="Also the networks in ../student and ../teacher, in PyTorch.")
    ] = False,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Timed runs of one image in each round.")] = 100,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Processes for each file and number of threads.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write bench.json, bench.md and bench.svg to.")
    ] = None,
) -> None:
    """Measure size, start, latency, throughput and memory of every file of a bundle, on this machine."""
    import json
    from importlib import import_module

    from dermdistill.atomic import make_folder
    from dermdistill.pipeline.bench import bench_bundle, write_bench
    from dermdistill.pipeline.bench_rounds import BenchPlan

    if out is not None:  # what would fail is told before minutes of measuring
        import_module("dermdistill.report.bench")
        make_folder(out)
    plan = BenchPlan(repeats=repeats, rounds=rounds)
    result = bench_bundle(bundle, teacher=teacher, pytorch=pytorch, plan=plan)
    if as_json:
        typer.echo(json.dumps(result))
    else:
        _print_table(result)
    if out is not None:
        write_bench(result, out)
        typer.echo(f"bench: {out}", err=as_json)


def _print_table(result: Mapping[str, Any]) -> None:
    import sys

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from dermdistill.report.bench_table import bench_facts, bench_head, bench_rows

    table = Table(*bench_head(result), box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    rows = bench_rows(result)
    for line in rows:
        table.add_row(*(Text(cell) for cell in line))
    # A pipe gets whole lines, whatever the reason for which a file was not measured.
    width = None if sys.stdout.isatty() else COLUMNS + max(len(line[0]) for line in rows)
    Console(width=width, highlight=False, emoji=False).print(table)
    for fact in bench_facts(result):
        typer.echo(fact, err=True)
