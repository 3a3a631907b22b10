"""``dermdistill bundle litert``: a run's student as LiteRT files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer


def litert(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write the files to.")],
) -> None:
    """Write a run's student as LiteRT files, FP32 and INT8, and compare them with it. Extra `litert`."""
    from dermdistill.pipeline.litert import RESULT, write_litert

    result = write_litert(run, out, command=f"dermdistill bundle litert {run.name if run.is_absolute() else run}")
    for name, facts in result["files"].items():
        typer.echo(f"{out / name}: {_summary(facts)}")
        for fault in facts["faults"]:
            typer.echo(f"  beyond the recipe's gate: {fault}", err=True)
    typer.echo(f"figures: {out / RESULT}")


def _summary(facts: Mapping[str, Any]) -> str:
    values = facts["metrics"]
    metrics = [
        f"{title} {'-' if values[key] is None else format(values[key], '.4f')}"
        for key, title in (("macro_auc", "macro AUC"), ("balanced_accuracy", "balanced accuracy"))
    ]
    return ", ".join(
        [
            f"{facts['bytes']:,} bytes",
            *metrics,
            f"{facts['same_label']:.2%} of {facts['n']:,} test images keep their label",
            f"largest difference of a probability {facts['probabilities']['largest']:.4f}",
        ]
    )
