"""A study: many students on one catalog, compared. What `ablate` and `leakage` share: folder, recipe, provenance."""

import datetime as dt
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from dermdistill.config import Recipe
from dermdistill.data.catalog import catalog_sha256
from dermdistill.pipeline.context import Context
from dermdistill.pipeline.execute import RECIPE, keep_recipe, run_stages, try_networks
from dermdistill.pipeline.trials import Trial, Workshop, side_by_side, trial_records, work
from dermdistill.provenance import code_version, machine, package_versions, sha256_json
from dermdistill.recipes.load import parse_recipe
from dermdistill.run import RunFolder


@contextmanager
def prepared(
    recipe: Recipe, *, source: Path | None, out: Path, resume: bool, stages: Sequence[str], console: Console
) -> Iterator[Context]:
    """Hold a study's folder while what all its students share is made: the named stages, then the block.

    Several processes may prepare the same study: each waits for the one before it and finds everything done.

    Args:
        recipe: of the study; with ``resume`` the one that it was started with.
        source: folder of images, or None for synthetic ones.
        out: folder of the study.
        resume: go on with it.
        stages: stages of a run that the study needs.
        console: for progress.

    Raises:
        RunFolderError: the folder holds something else, or a study of another recipe.
    """
    torch.set_num_threads(recipe.threads or os.cpu_count() or 1)
    with RunFolder(out).opened(resume=resume, wait=resume) as run:
        keep_recipe(recipe, run.path)
        if not resume:
            try_networks(recipe, teacher="teacher" in stages)
        context = Context(recipe, run, source)
        run_stages(context, stages, console)
        yield context


def shared_threads(recipe: Recipe, *, out: Path, resume: bool, jobs: int) -> Recipe:
    """The recipe with the cores divided between the processes, or with the threads that the study was started with.

    Weights depend on the number of threads, so that a study keeps the one it began with.
    """
    kept = out / RECIPE
    if resume and kept.is_file():
        before = parse_recipe(yaml.safe_load(kept.read_text()), source=str(kept))
        return recipe.model_copy(update={"threads": before.threads})
    threads = recipe.threads or max(1, (os.cpu_count() or 1) // jobs)
    return recipe.model_copy(update={"threads": threads})


def train_all(
    workshop: Workshop,
    trials: Sequence[Trial],
    *,
    jobs: int,
    arguments: Sequence[str],
    worker: bool,
    console: Console,
) -> None:
    """Train what is not trained yet, in ``jobs`` processes.

    Args:
        workshop: of the study.
        trials: all of them.
        jobs: processes on this machine; more can be started by hand, by the same command with --resume.
        arguments: of ``dermdistill`` that start another worker of this study.
        worker: whether this process is such a worker: it leaves when nothing is left to claim.
        console: for progress.
    """
    with side_by_side(arguments, jobs):
        work(workshop, trials, console, wait=False)
    if not worker:
        work(workshop, trials, console)


def study_provenance(context: Context, workshop: Workshop, trials: Sequence[Trial], command: str) -> dict[str, Any]:
    """Where a study's figures come from; without any path of this machine."""
    catalog, recipe = context.catalog, context.recipe
    return {
        "command": command,
        "code": code_version(),
        "machine": machine(),
        "packages": package_versions(),
        "seeds": sorted({trial.recipe.seed for trial in trials}),
        "recipe": {"name": recipe.name, "sha256": sha256_json(recipe.model_dump(mode="json"))},
        "data": {
            "source": str(catalog["source"].iloc[0]),
            "images": len(catalog),
            "lesions": int(catalog["lesion_id"].nunique()),
            "catalog_sha256": catalog_sha256(catalog),
            "store_sha256": context.store.sha256,
            "split_sha256": context.split.info["split_sha256"],
        },
        "students": trial_records(workshop, trials),
        "finished": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }
