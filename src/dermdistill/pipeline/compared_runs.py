"""Runs that are to be compared: read, checked, and refused where they were not tested on the same images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast, get_args

import pandas as pd

from dermdistill.errors import ConfigError, DataError, RunFolderError
from dermdistill.evaluate.prediction_faults import IMAGE, image_list
from dermdistill.evaluate.predictions import read_predictions
from dermdistill.labels import Task
from dermdistill.report.run_files import read_run

PREDICTIONS = "evaluation/predictions.parquet"
NEEDED = ("task", "protocol", "models", "bootstrap")
HASH_LETTERS = 12

Json = dict[str, Any]


@dataclass(frozen=True)
class ComparedRun:
    """One finished run.

    Attributes:
        name: of its folder, told apart from others of the same name.
        recipe: its ``recipe.yaml``.
        provenance: its ``provenance.json``.
        split: its ``split.json``.
        evaluation: its ``evaluation.json``.
        predictions: its long table of predictions.
    """

    name: str
    recipe: Json
    provenance: Json
    split: Json
    evaluation: Json
    predictions: pd.DataFrame

    @property
    def task(self) -> Task:
        """``diagnosis`` or ``melanoma``."""
        return cast(Task, self.evaluation["task"])

    @property
    def seed(self) -> int:
        """Training seed."""
        return int(self.recipe.get("seed") or self.provenance.get("seed") or 0)

    @property
    def leaky(self) -> bool:
        """Whether its protocol lets a lesion be in two parts."""
        return bool(self.evaluation.get("leaky") or self.split.get("leaky"))

    @cached_property
    def models(self) -> list[str]:
        """Its models, in the order of its evaluation."""
        have = set(self.predictions["model"])
        return [model for model in self.evaluation["models"] if model in have]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Its recipe as {dotted key: value}."""
        return flat(self.recipe)

    @cached_property
    def test(self) -> pd.DataFrame:
        """Image, lesion, diagnosis and label of the test part, a row an image."""
        frame = self.predictions
        rows = frame[(frame["split"] == "test") & (frame["model"] == frame["model"].iloc[0])]
        told: pd.DataFrame = rows[[*IMAGE, "label"]].reset_index(drop=True)
        return told

    def facts(self) -> Json:
        """Where its figures come from, JSON-able."""
        code, recipe = (self.provenance.get(key) or {} for key in ("code", "recipe"))
        files = self.evaluation.get("files") or {}
        return {
            "name": self.name,
            "recipe": recipe.get("name") or self.recipe.get("name"),
            "seed": self.seed,
            "protocol": self.evaluation["protocol"],
            "leaky": self.leaky,
            "models": self.models,
            "bytes": {model: entry.get("bytes") for model, entry in files.items()},
            "version": code.get("version"),
            "commit": code.get("commit"),
            "dirty": code.get("dirty"),
            "catalog_sha256": self.split.get("catalog_sha256"),
            "split_sha256": self.split.get("split_sha256"),
            "finished": self.provenance.get("finished"),
        }


def read_compared(folders: Sequence[Path]) -> list[ComparedRun]:
    """Read runs, and refuse those that cannot be compared.

    Raises:
        ConfigError: fewer than two folders, or one of them twice.
        RunFolderError: a folder is no finished run.
        DataError: predictions that are damaged; tasks or test parts unlike those of the first run, all of them.
    """
    resolved = [folder.resolve() for folder in folders]
    if len(resolved) < 2 or len(set(resolved)) < len(resolved):
        what = "one run is given twice" if len(resolved) > 1 else f"{len(resolved)} run"
        raise ConfigError(f"nothing to compare: {what}", rule="two or more different run folders")
    names = _names(resolved)
    runs = [_read(folder, name) for folder, name in zip(folders, names, strict=True)]
    faults = [fault for run in runs[1:] for fault in _faults(run, runs[0])]
    if faults:
        raise DataError(
            f"these runs cannot be compared with {runs[0].name}",
            faults=faults,
            rule="runs are compared on one task and one test part, image by image",
            next_step="compare runs with the same data, data.protocol and data.seed",
        )
    return runs


def flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """A recipe as {dotted key: value}; places in a list count as keys."""
    if isinstance(content, Mapping) and content:
        items: Any = content.items()
    elif isinstance(content, list) and content:
        items = enumerate(content)
    else:
        return {prefix: content}
    parts = [flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in items]
    return {key: value for part in parts for key, value in part.items()}


def _names(folders: Sequence[Path]) -> list[str]:
    """Names of the folders; where two are equal, with the number of their place."""
    names = [folder.name for folder in folders]
    return [f"{name} ({place})" if names.count(name) > 1 else name for place, name in enumerate(names, start=1)]


def _read(folder: Path, name: str) -> ComparedRun:
    files = read_run(folder)
    evaluation = files.evaluation
    missing = [key for key in NEEDED if not evaluation.get(key)]
    if missing or evaluation["task"] not in get_args(Task) or not {"samples", "seed"} <= set(evaluation["bootstrap"]):
        raise RunFolderError(
            f"{folder}/evaluation/evaluation.json: lacks {', '.join(missing) or 'a known task or its bootstrap'}",
            rule="it is a file that the evaluation of a run wrote",
            next_step=f"dermdistill run ... --out {folder} --resume (writes what is missing)",
        )
    table = read_predictions(
        folder / PREDICTIONS, task=evaluation["task"], protocol=evaluation["protocol"], models=None
    )
    return ComparedRun(name, files.recipe, files.provenance, files.split, evaluation, table)


def _faults(run: ComparedRun, first: ComparedRun) -> list[str]:
    """What keeps a run from being compared with the first, a line each."""
    faults = []
    if run.task != first.task:
        faults.append(f"{run.name}: its task is {run.task}, that of {first.name} is {first.task}")
    mine, others = image_list(run.test), image_list(first.test)
    if mine != others:
        ids, theirs = ({image for image, *_ in images} for images in (mine, others))
        lacks, more = len(theirs - ids), len(ids - theirs)
        relabelled = len(set(mine) - set(others)) - more
        faults.append(
            f"{run.name}: {len(mine)} test images, of which {more} are not among the {len(others)} of {first.name}; "
            f"{lacks} of those are missing, {relabelled} have another lesion or diagnosis ({_hashes(run, first)})"
        )
    return faults


def _hashes(run: ComparedRun, first: ComparedRun) -> str:
    said = []
    for key in ("split_sha256", "catalog_sha256"):
        mine, theirs = (str(one.split.get(key, "unknown"))[:HASH_LETTERS] for one in (run, first))
        said.append(f"{key} {mine} against {theirs}" if mine != theirs else f"the same {key}")
    return ", ".join(said)
