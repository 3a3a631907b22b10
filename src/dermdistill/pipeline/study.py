"""A study: many students on one catalog, compared. What `ablate` and `leakage` share: folder, recipe, provenance."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from dermdistill.config import Recipe
from dermdistill.pipeline.context import Context
from dermdistill.pipeline.execute import keep_recipe, kept_recipe, run_stages, try_networks
from dermdistill.pipeline.trials import Trial, Workshop, side_by_side, trial_records, work
from dermdistill.run import RunFolder
from dermdistill.training.roles import DESCRIPTION

TEACHER_KEYS = ("sha256", "size", "parameters", "weights", "epochs_run", "best_epoch", "monitor", "best_value", "code")


@dataclass(frozen=True)
class StudyCall:
    """How a study is called.

    Attributes:
        source: folder of images; None draws synthetic ones.
        out: folder of the study.
        resume: go on with it; finished students are kept.
        jobs: processes on this machine; more can be started by hand, by the same command with --resume.
        worker: train what nobody has claimed, and leave the comparison to the process that started this one.
        arguments: of ``dermdistill`` that start such a worker.
        command: what the user typed, for the provenance.
        console: for progress; standard error by default.
    """

    source: Path | None
    out: Path
    resume: bool = False
    jobs: int = 1
    worker: bool = False
    arguments: Sequence[str] = ()
    command: str = ""
    console: Console = field(default_factory=lambda: Console(stderr=True))


@contextmanager
def prepared(recipe: Recipe, call: StudyCall, *, stages: Sequence[str]) -> Iterator[Context]:
    """Hold a study's folder while what all its students share is made: the named stages, then the block.

    Several processes may prepare the same study: each waits for the one before it and finds everything done.

    Args:
        recipe: of the study; a study that is resumed has the one that it was started with.
        call: how it is called.
        stages: stages of a run that the study needs.

    Raises:
        RunFolderError: the folder holds something else, or a study of another recipe.
    """
    torch.set_num_threads(recipe.threads or os.cpu_count() or 1)
    with RunFolder(call.out).opened(resume=call.resume, wait=call.resume) as run:
        keep_recipe(recipe, run.path)
        if not call.resume:
            try_networks(recipe, teacher="teacher" in stages)
        context = Context(recipe, run, call.source)
        run_stages(context, stages, call.console)
        yield context


@contextmanager
def held(call: StudyCall) -> Iterator[None]:
    """Hold a prepared study's folder while its results are written."""
    with RunFolder(call.out).opened(resume=True, wait=True):
        yield


def shared_threads(recipe: Recipe, call: StudyCall) -> Recipe:
    """The recipe with the cores divided between the processes, or with the threads that the study was started with.

    Weights depend on the number of threads, so that a study keeps the one it began with.
    """
    before = kept_recipe(call.out) if call.resume else None
    threads = before.threads if before else recipe.threads or max(1, (os.cpu_count() or 1) // call.jobs)
    return recipe.model_copy(update={"threads": threads})


def train_all(workshop: Workshop, trials: Sequence[Trial], call: StudyCall) -> None:
    """Train what is not trained yet, in as many processes as the call says."""
    with side_by_side(call.arguments, call.jobs):
        work(workshop, trials, call.console, wait=False)
    if not call.worker:
        work(workshop, trials, call.console)


def study_provenance(context: Context, workshop: Workshop, trials: Sequence[Trial], command: str) -> dict[str, Any]:
    """Where a study's figures come from; without any path of this machine."""
    described = context.path / "teacher" / DESCRIPTION
    teacher = json.loads(described.read_text()) if described.is_file() else {}
    return {
        **context.provenance(command),
        **({"teacher": {key: teacher[key] for key in TEACHER_KEYS}} if teacher else {}),
        "seeds": sorted({trial.recipe.seed for trial in trials}),
        "students": trial_records(workshop, trials),
    }
