"""Trials: students that differ in one thing, trained one by one or side by side, each done once.

A trial's folder holds its weights, log and predictions; ``trial.json`` stands last and says from which inputs. A trial
is claimed by a lock on its folder, so several processes, on several devices, can work through one list: what another
process has claimed is left to it, and taken over where that process died.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console

from dermdistill import __version__
from dermdistill.atomic import atomic_path, make_folder, write_json
from dermdistill.config import Recipe
from dermdistill.data.catalog import catalog_sha256
from dermdistill.data.split import Split
from dermdistill.distill.signals import SignalPlan
from dermdistill.evaluate.predictions import predictions_frame
from dermdistill.pipeline.context import Stores, training_data
from dermdistill.pipeline.teachers import student_teaching
from dermdistill.provenance import code_version, sha256_file, sha256_json
from dermdistill.run import locked
from dermdistill.training.residence import default_device
from dermdistill.training.roles import WEIGHTS, load_trained, train_role
from dermdistill.training.validation import predict_logits

DONE = "trial.json"
PREDICTIONS = "predictions.parquet"
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, eq=False)
class Trial:
    """One student to train.

    Attributes:
        name: of its row.
        recipe: complete, with its own seed.
        split: its images; predictions are made on its parts val and test.
        plan: signals to ask stored targets for, alike for all trials that share them; None without a teacher.
    """

    name: str
    recipe: Recipe
    split: Split
    plan: SignalPlan | None

    @property
    def label(self) -> str:
        """Row and seed, as the folder under ``trials/``."""
        return f"{self.name}/seed-{self.recipe.seed}"


@dataclass(frozen=True, eq=False)
class Workshop:
    """What all trials of a study share.

    Attributes:
        folder: of the study.
        catalog: all images.
        stores: decoded images.
    """

    folder: Path
    catalog: pd.DataFrame
    stores: Stores

    @cached_property
    def _catalog_hash(self) -> str:
        return catalog_sha256(self.catalog)

    @cached_property
    def _teacher_hash(self) -> str:
        return sha256_file(self.folder / "teacher" / WEIGHTS)

    def folder_of(self, trial: Trial) -> Path:
        """Where a trial's files are."""
        return self.folder / "trials" / trial.label

    def inputs(self, trial: Trial) -> str:
        """Hash of everything that a trial's weights depend on."""
        recipe = trial.recipe
        return sha256_json(
            {
                "version": __version__,
                "recipe": recipe.model_dump(
                    mode="json", include={"task", "seed", "threads", "augment", "student", "data"}
                ),
                "teacher": self._teacher_hash if recipe.student.distill.needs_teacher else "",
                "catalog": self._catalog_hash,
                "images": self.stores.at(recipe.data.preprocess()).sha256,
                "split": trial.split.info["split_sha256"],
            }
        )

    def is_done(self, trial: Trial) -> bool:
        """Whether a trial was finished from the same inputs and its predictions are as it left them."""
        folder = self.folder_of(trial)
        try:
            record = json.loads((folder / DONE).read_text())
            return bool(
                record["inputs"] == self.inputs(trial) and record["predictions"] == sha256_file(folder / PREDICTIONS)
            )
        except (OSError, ValueError, KeyError):
            return False


def run_trial(workshop: Workshop, trial: Trial) -> None:
    """Train one student and keep its predictions on val and test, by PyTorch in FP32."""
    recipe, folder = trial.recipe, workshop.folder_of(trial)
    spec = recipe.data.preprocess()
    store = workshop.stores.at(spec)
    data = training_data(workshop.catalog, trial.split, store, spec, recipe.task)
    source, shapes = student_teaching(
        recipe, workshop.folder / "teacher", trial.split, workshop.stores, data, plan=trial.plan
    )
    inputs = workshop.inputs(trial)
    described = train_role("student", recipe, data, folder=folder, inputs=inputs, teachers=source, shapes=shapes)
    model = load_trained(folder)
    model.to(default_device())
    rows = workshop.catalog.set_index("image_id", drop=False)
    frames = []
    for part in ("val", "test"):
        ids = trial.split.ids(part)
        logits = predict_logits(model, store.images, store.rows(ids), spec)
        frames.append(predictions_frame("student", part, rows.loc[ids], logits, recipe.task))
    with atomic_path(folder / PREDICTIONS) as temporary:
        pd.concat(frames, ignore_index=True).to_parquet(temporary)
    write_json(
        folder / DONE,
        {
            "inputs": inputs,
            "predictions": sha256_file(folder / PREDICTIONS),
            "name": trial.name,
            "seed": recipe.seed,
            "epochs_run": described["epochs_run"],
            "best_epoch": described["best_epoch"],
            "best_value": described["best_value"],
            "seconds": described["seconds"],
            "code": code_version(),
        },
    )


def work(workshop: Workshop, trials: Sequence[Trial], console: Console, *, wait: bool = True) -> None:
    """Do every trial that nobody else has done or claimed; then, with ``wait``, those whose process died."""
    for waiting in (False, True) if wait else (False,):
        for number, trial in enumerate(trials, start=1):
            if workshop.is_done(trial):
                continue
            with locked(make_folder(workshop.folder_of(trial)), wait=waiting) as mine:
                if not mine or workshop.is_done(trial):
                    continue
                console.print(f"[bold]{trial.label}[/bold] ({number} of {len(trials)})", highlight=False)
                run_trial(workshop, trial)


def device_names(count: int, visible: str | None) -> list[str]:
    """The GPUs that a process sees, by their names in ``CUDA_VISIBLE_DEVICES``: numbers, or UUIDs where it says so.

    Args:
        count: of these GPUs. CUDA ignores what follows an invalid name, so that the list may be longer.
        visible: the variable's value in this process; None or empty where it says nothing.
    """
    names = visible.split(",") if visible else [str(number) for number in range(count)]
    return [name.strip() for name in names[:count]]


@contextmanager
def side_by_side(arguments: Sequence[str], jobs: int) -> Iterator[None]:
    """Run the same command in ``jobs - 1`` more processes while the block does its own share.

    With several GPUs each new process gets one of those that this one sees, in turn.

    Args:
        arguments: of ``dermdistill``, such that the command goes on with the same study.
        jobs: processes in all.
    """
    devices = device_names(torch.cuda.device_count(), os.environ.get(VISIBLE))
    children = []
    for number in range(1, jobs):
        environment = dict(os.environ)
        if len(devices) > 1:
            environment[VISIBLE] = devices[number % len(devices)]
        command = [sys.executable, "-c", "from dermdistill.cli import main; main()", *arguments]
        children.append(subprocess.Popen(command, env=environment))
    try:
        yield
    except BaseException:
        for child in children:
            child.terminate()
        raise
    finally:
        for child in children:
            child.wait()


def predictions(workshop: Workshop, trial: Trial, part: str) -> pd.DataFrame:
    """A finished trial's predictions on one part."""
    frame = pd.read_parquet(workshop.folder_of(trial) / PREDICTIONS)
    return frame[frame["split"] == part].reset_index(drop=True)


def by_row(workshop: Workshop, trials: Sequence[Trial], part: str) -> dict[str, dict[int, pd.DataFrame]]:
    """Predictions of all trials: row -> seed -> frame."""
    rows: dict[str, dict[int, pd.DataFrame]] = {}
    for trial in trials:
        rows.setdefault(trial.name, {})[trial.recipe.seed] = predictions(workshop, trial, part)
    return rows


def trial_records(workshop: Workshop, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """What each finished trial says about itself: epochs, best validation figure, seconds, code."""
    kept = ("name", "seed", "epochs_run", "best_epoch", "best_value", "seconds", "code")
    records = [json.loads((workshop.folder_of(trial) / DONE).read_text()) for trial in trials]
    return [{key: record[key] for key in kept} for record in records]
