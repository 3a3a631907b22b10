"""Explain a finished run again with other settings: more images, other methods."""

import datetime as dt
import json
import os
from pathlib import Path

import torch
from rich.console import Console

from dermdistill.atomic import write_json, write_text
from dermdistill.errors import RunFolderError
from dermdistill.pipeline.bundling import write_run_card
from dermdistill.pipeline.context import Context
from dermdistill.pipeline.execute import PROVENANCE, RECIPE, kept_recipe, run_stages
from dermdistill.pipeline.stages import STAGES
from dermdistill.provenance import origin, sha256_json
from dermdistill.recipes.load import load_recipe, recipe_text
from dermdistill.report.page import write_report
from dermdistill.run import RunFolder

STAGE = "explanations"


def explain_run(
    path: Path, settings: list[str], *, threads: int = 0, command: str = "", console: Console | None = None
) -> Path:
    """Do the stage of explanations again, nothing else, and write the report anew.

    The run's recipe says afterwards what its explanations were made with, its provenance which command made them; a
    kill leaves the older explanations or the newer ones, and the same command goes on.

    Args:
        path: a finished run.
        settings: ``explain.key=value`` each; none: as the recipe says.
        threads: CPU threads; 0 is all cores. Maps may differ by rounding.
        command: what the user typed, for the provenance.
        console: for progress; standard error by default.

    Returns:
        Path of ``report.html``.

    Raises:
        ConfigError: another section, an unknown key, or a value that cannot work.
        RunFolderError: no finished run, or files that were altered since.
        DermdistillError: see the stage.
    """
    if kept_recipe(path) is None or not (path / PROVENANCE).is_file():
        raise RunFolderError(
            f"{path}: is no finished run",
            rule="explanations are made of a run's student, test images and predictions",
            next_step="finish the run with --resume, or name another folder",
        )
    recipe = load_recipe(str(path / RECIPE), settings)
    torch.set_num_threads(threads or os.cpu_count() or 1)
    with RunFolder(path).opened(resume=True) as run:
        _check_intact(run)
        context = Context(recipe, run, None)
        provenance = json.loads((path / PROVENANCE).read_text(encoding="utf-8"))
        write_text(path / RECIPE, recipe_text(recipe))
        run.stages.pop(STAGE, None)
        run_stages(context, (STAGE,), console or Console(stderr=True))
        explained = {"command": command, **origin(), "finished": dt.datetime.now(dt.UTC).isoformat(timespec="seconds")}
        described = {"name": recipe.name, "sha256": sha256_json(recipe.model_dump(mode="json"))}
        made = {"recipe": described, "explained": explained, "seconds": run.seconds()}
        write_json(path / PROVENANCE, {**provenance, **made})
        write_run_card(context)
        return write_report(path)


def _check_intact(run: RunFolder) -> None:
    """What the stage reads is as the run left it."""
    lost = [
        name
        for name in STAGES[STAGE].reads
        if name not in run.stages or not run.is_done(name, run.stages[name]["inputs"])
    ]
    if lost:
        raise RunFolderError(
            f"{run.path}: {', '.join(lost)}: not finished, or with files that were altered since",
            rule="explanations are made of what the run itself made",
            next_step="finish the run with --resume, which makes anew what is missing",
        )
