"""What cannot work is refused before anything is trained."""

from pathlib import Path

import pytest

from dermdistill.errors import ConfigError
from dermdistill.pipeline.execute import try_networks
from dermdistill.recipes.load import load_recipe, recipe_text


def other_run(folder: Path, *settings: str) -> str:
    """As much of another run as is looked at, and the setting that names it."""
    (folder / "teacher").mkdir(parents=True)
    (folder / "teacher" / "model.safetensors").write_bytes(b"weights")
    (folder / "recipe.yaml").write_text(recipe_text(load_recipe("quick", list(settings))))
    return f"student.distill.other_teachers=[{{run: {folder}}}]"


def test_other_teacher_that_fits_is_taken(tmp_path: Path) -> None:
    try_networks(load_recipe("quick", [other_run(tmp_path / "run")]))


def test_other_teacher_without_the_students_exits_is_refused(tmp_path: Path) -> None:
    setting = other_run(tmp_path / "run", "teacher.model.exits=[1]", "student.model.exits=[1]")
    with pytest.raises(ConfigError, match=r"exits \[1\]\n.*counterpart of the exits \[2\]"):
        try_networks(load_recipe("quick", [setting]))


def test_other_teacher_of_another_task_is_refused(tmp_path: Path) -> None:
    setting = other_run(tmp_path / "run", "task=melanoma")
    with pytest.raises(ConfigError, match="task melanoma"):
        try_networks(load_recipe("quick", [setting]))


def test_run_without_a_teacher_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no trained teacher"):
        try_networks(load_recipe("quick", [f"student.distill.other_teachers=[{{run: {tmp_path}}}]"]))
