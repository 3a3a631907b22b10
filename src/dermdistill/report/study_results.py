"""What a repository should keep of a study, such as an ablation: figures and provenance, no single image."""

import json
from pathlib import Path
from typing import Any

import yaml

from dermdistill.atomic import write_bytes, write_json, write_text
from dermdistill.errors import RunFolderError
from dermdistill.report.comparison_page import SECTIONS
from dermdistill.report.results import SPLIT_KEYS, without_paths

STUDIES = tuple(SECTIONS)
TEXTS = (".md", ".csv", ".tex", ".svg")


def study_of(folder: Path) -> str | None:
    """Which finished study a folder holds (a key of ``SECTIONS``); None where it holds none."""
    return next((name for name in STUDIES if (folder / f"{name}.json").is_file()), None)


def collect_study(folder: Path, destination: Path) -> Path:
    """Copy a finished study's tables, picture, provenance, recipe, counts of its split and curves of its students.

    Of absolute paths the last part alone is kept.

    Raises:
        RunFolderError: the folder holds no finished study, or a file that cannot be read.
        OutputError: the destination cannot be written.
    """
    name = study_of(folder)
    if name is None:
        raise RunFolderError(
            f"{folder}: holds no finished study",
            rule=f"one of {', '.join(f'{study}.json' for study in STUDIES)} stands there when it is done",
            next_step="go on with it by --resume",
        )
    split = _read(folder / "split.json")
    contents = {
        f"{name}.json": _read(folder / f"{name}.json"),
        "provenance.json": _read(folder / "provenance.json"),
        "split.json": {key: split[key] for key in SPLIT_KEYS if key in split},
        "training.json": _curves(folder / "trials"),
    }
    recipe = _read(folder / "recipe.yaml")
    for file, content in contents.items():
        write_json(destination / file, without_paths(content))
    write_text(destination / "recipe.yaml", yaml.safe_dump(without_paths(recipe), sort_keys=False))
    for path in sorted(folder.glob(f"{name}*")):
        if path.suffix in TEXTS:
            write_bytes(destination / path.name, path.read_bytes())
    return destination


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text()) if path.suffix == ".yaml" else json.loads(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunFolderError(
            f"{path}: cannot be read ({error})", next_step="go on with the study by --resume"
        ) from error


def _curves(trials: Path) -> dict[str, list[dict[str, Any]]]:
    """Row and seed -> the epochs of its log, without the terms."""
    kept = ("epoch", "seconds", "loss", "val", "best")
    return {
        str(log.parent.relative_to(trials)): [
            {key: line[key] for key in kept} for line in map(json.loads, log.read_text().splitlines())
        ]
        for log in sorted(trials.glob("*/*/log.jsonl"))
    }
