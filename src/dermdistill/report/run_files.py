"""Reads the files of a run folder that the report and the results page are made of, and nothing else."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from dermdistill.config import DistillConfig, OptimConfig
from dermdistill.errors import RunFolderError
from dermdistill.report.compression import FILE, read_compression
from dermdistill.report.reader_study import SUMMARY

REQUIRED = ("recipe.yaml", "provenance.json", "split.json", "evaluation/evaluation.json")
ROLES = ("teacher", "student")
Json = dict[str, Any]


@dataclass(frozen=True)
class RunFiles:
    """The content of a run folder; ``None`` for an optional file that is not there."""

    folder: Path
    recipe_text: str
    recipe: Json
    provenance: Json
    split: Json
    evaluation: Json
    audit: Json | None
    logs: dict[str, list[Json] | None]
    explanations: Json | None
    reader_study: Json | None
    manifest: Json | None
    compression: Json | None
    catalog: pd.DataFrame | None

    @property
    def leaky(self) -> bool:
        """Whether the protocol promises no disjointness of training and test lesions."""
        return bool(self.evaluation.get("leaky") or self.split.get("leaky"))

    @property
    def synthetic(self) -> bool:
        """Whether the lesions were drawn: such data lie in HAM10000's layout, their labels say so."""
        named = "synthetic" in str((self.provenance.get("data") or {}).get("source", "")).lower()
        drawn = self.catalog is not None and bool((self.catalog["diagnosis_source"] == "synthetic").any())
        return named or drawn

    @property
    def source(self) -> str:
        """The name of the data set; one of drawn lesions never goes by the name of its layout."""
        name = str((self.provenance.get("data") or {}).get("source") or "data set not named")
        if self.synthetic and "synthetic" not in name.lower():
            return f"synthetic lesions ({name} layout)"
        return name

    @property
    def distils_without_control(self) -> bool:
        """See ``distils_without_control``."""
        return distils_without_control(self.recipe, self.evaluation["models"])

    def monitor(self, role: str) -> str:
        """The validation figure that chose the weights of a role."""
        training = (self.provenance.get("training") or {}).get(role) or {}
        settings = self.recipe.get(role) or {}
        return str(training.get("monitor") or settings.get("monitor") or OptimConfig().monitor)

    def best_epoch(self, role: str) -> int:
        """The chosen epoch, counted from 0; -1 where nothing says it."""
        training = (self.provenance.get("training") or {}).get(role) or {}
        if training.get("best_epoch") is not None:
            return int(training["best_epoch"])
        return max((int(line["epoch"]) for line in self.logs[role] or [] if line.get("best")), default=-1)


def distils_without_control(recipe: Mapping[str, Any], models: Iterable[str]) -> bool:
    """Whether a run's student learnt from a teacher and no student without one was evaluated beside it."""
    distill = DistillConfig.model_validate((recipe.get("student") or {}).get("distill") or {})
    return distill.needs_teacher and not any("control" in name or "no_teacher" in name for name in models)


def _unusable(path: Path, what: str, run: Path) -> RunFolderError:
    return RunFolderError(
        f"{path}: {what}",
        rule="the report is made of the files that the stages of a run wrote",
        next_step=f"dermdistill run ... --out {run} --resume (writes what is missing)",
    )


def _json(path: Path, run: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unusable(path, f"cannot be read as JSON ({error})", run) from error


def _mapping(path: Path, run: Path) -> Json:
    content = _json(path, run)
    if not isinstance(content, dict):
        raise _unusable(path, f"holds a {type(content).__name__}, not an object", run)
    return content


def _optional(path: Path, run: Path) -> Json | None:
    return _mapping(path, run) if path.is_file() else None


def _log(path: Path, run: Path) -> list[Json] | None:
    if not path.is_file():
        return None
    lines = []
    for row, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            lines.append(json.loads(line))
        except ValueError as error:
            raise _unusable(path, f"line {row} is not JSON ({error})", run) from error
    return lines or None


def _recipe(path: Path, run: Path) -> tuple[str, Json]:
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _unusable(path, f"cannot be read as YAML ({error})", run) from error
    if not isinstance(content, dict):
        raise _unusable(path, "is no recipe", run)
    return text, content


def _catalog(path: Path, run: Path) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    try:
        return pd.read_parquet(path, columns=["diagnosis", "diagnosis_source", "age", "sex"])
    except (OSError, ValueError) as error:
        raise _unusable(path, f"cannot be read as a catalog ({error})", run) from error


def read_run(run: Path) -> RunFiles:
    """Everything the report needs of a run folder.

    Raises:
        RunFolderError: required files are missing (all of them are named) or a file cannot be read.
    """
    missing = [name for name in REQUIRED if not (run / name).is_file()]
    if missing:
        raise _unusable(run, f"has no {', '.join(missing)}", run)
    text, recipe = _recipe(run / "recipe.yaml", run)
    return RunFiles(
        folder=run,
        recipe_text=text,
        recipe=recipe,
        provenance=_mapping(run / "provenance.json", run),
        split=_mapping(run / "split.json", run),
        evaluation=_mapping(run / "evaluation" / "evaluation.json", run),
        audit=_optional(run / "audit.json", run),
        logs={role: _log(run / role / "log.jsonl", run) for role in ROLES},
        explanations=_optional(run / "explanations" / "explanations.json", run),
        reader_study=_optional(run / SUMMARY, run),
        manifest=_optional(run / "bundle" / "manifest.json", run),
        compression=read_compression(run / "compression" / FILE),
        catalog=_catalog(run / "catalog.parquet", run),
    )
