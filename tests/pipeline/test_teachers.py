"""Which teachers a student may have, and where its targets come from."""

import gc
import json
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest

from dermdistill.config import Recipe
from dermdistill.data.catalog import catalog_sha256
from dermdistill.data.readers import read_catalog
from dermdistill.data.split import make_split, write_split
from dermdistill.data.synthetic import write_synthetic
from dermdistill.errors import ConfigError, DataError, RunFolderError
from dermdistill.models.hybrid import HybridClassifier
from dermdistill.pipeline import teachers as module
from dermdistill.pipeline.context import Stores, training_data
from dermdistill.pipeline.teachers import open_teachers, other_teacher_hashes, student_teaching
from dermdistill.recipes.load import load_recipe, recipe_text
from dermdistill.training.loop import TrainingData
from dermdistill.training.roles import DESCRIPTION, WEIGHTS, load_trained, train_role
from dermdistill.training.teachers import LiveTeachers, StoredTeachers

SMALL = "[{backbone: small_cnn, options: {widths: [2, 4, 6, 8]}}]"
SETTINGS = [
    "threads=1",
    "synthetic.lesions=42",
    "synthetic.width=32",
    "synthetic.height=32",
    "data.size=16",
    f"teacher.model.branches={SMALL}",
    f"student.model.branches={SMALL}",
    "teacher.epochs=1",
    "student.epochs=1",
    "teacher.batch_size=8",
    "student.batch_size=8",
]


def recipe_of(*more: str) -> Recipe:
    return load_recipe("quick", [*SETTINGS, *more])


class Runs:
    """Run folders of one data set with a trained teacher each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.catalog = read_catalog(write_synthetic(folder / "images", recipe_of().synthetic))
        self.stores = Stores(self.catalog)
        self.own, self.other_split = self.make("own"), self.make("other", "data.seed=1")
        self.second = self.make("second", "teacher.size=32", "seed=5", "teacher.model.fusion_width=24")

    def make(self, name: str, *more: str) -> Path:
        run, recipe = self.folder / name, recipe_of(*more)
        split = make_split(self.catalog, recipe.data)
        write_split(split, run)
        (run / "recipe.yaml").write_text(recipe_text(recipe))
        spec = recipe.data.preprocess(recipe.teacher.size)
        data = training_data(self.catalog, split, self.stores.at(spec), spec, recipe.task)
        train_role("teacher", recipe, data, folder=run / "teacher", inputs=name)
        return run

    def data(self, recipe: Recipe) -> TrainingData:
        spec = recipe.data.preprocess()
        return training_data(self.catalog, self.split(recipe), self.stores.at(spec), spec, recipe.task)

    def split(self, recipe: Recipe):  # type: ignore[no-untyped-def]
        return make_split(self.catalog, recipe.data)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERMDISTILL_CACHE", str(folder / "cache"))
        yield Runs(folder)


def with_others(*paths: Path, targets: str = "live") -> Recipe:
    others = ", ".join(f"{{run: {path}, weight: 3}}" for path in paths)
    return recipe_of(f"student.distill.other_teachers=[{others}]", f"student.distill.targets={targets}")


def test_teachers_share_the_weight_and_each_sees_its_own_size(runs: Runs) -> None:
    recipe = with_others(runs.second)
    teachers = open_teachers(recipe, runs.own / "teacher", runs.split(recipe), runs.stores)
    assert [teacher.share for teacher in teachers] == [0.25, 0.75]
    assert [teacher.spec.size for teacher in teachers] == [16, 32]
    assert [teacher.model.fused_width for teacher in teachers] == [64 * 2, 24]


@pytest.mark.parametrize("targets", ["live", "stored"])
def test_student_of_two_teachers_trains_and_logs_both(runs: Runs, tmp_path: Path, targets: str) -> None:
    recipe = with_others(runs.second, targets=targets)
    data = runs.data(recipe)
    source, shapes = student_teaching(recipe, runs.own / "teacher", runs.split(recipe), runs.stores, data)
    assert isinstance(source, StoredTeachers if targets == "stored" else LiveTeachers)
    train_role("student", recipe, data, folder=tmp_path, inputs="x", teachers=source, shapes=shapes)
    log = (tmp_path / "log.jsonl").read_text()
    assert '"logits_kd"' in log and '"logits_kd@2"' in log and '"exit_features_1@2"' in log


def test_teacher_that_saw_the_test_lesions_is_refused(runs: Runs) -> None:
    recipe = with_others(runs.other_split)
    with pytest.raises(DataError, match="validation and test") as error:
        open_teachers(recipe, runs.own / "teacher", runs.split(recipe), runs.stores)
    assert error.value.faults and "data.seed" in str(error.value)


def test_student_without_taught_terms_opens_no_teacher(runs: Runs) -> None:
    recipe = recipe_of("student.distill.alpha=0", "student.distill.beta=0", "student.distill.gamma=1")
    source, shapes = student_teaching(recipe, Path("nowhere"), runs.split(recipe), runs.stores, runs.data(recipe))
    assert source is None and shapes == ()


def test_other_teachers_weights_are_part_of_what_the_student_depends_on(runs: Runs, tmp_path: Path) -> None:
    assert len(set(other_teacher_hashes(with_others(runs.second, runs.other_split)))) == 2
    with pytest.raises(ConfigError, match="no trained teacher"):
        other_teacher_hashes(with_others(tmp_path))


def test_teacher_of_another_task_is_refused(runs: Runs) -> None:
    recipe = recipe_of("task=melanoma")
    with pytest.raises(ConfigError, match="7 classes"):
        open_teachers(recipe, runs.own / "teacher", runs.split(recipe), runs.stores)


@pytest.mark.parametrize("change", ["swapped", "renamed", "dropped", "missing"])
def test_teacher_whose_description_lists_other_classes_is_refused(runs: Runs, tmp_path: Path, change: str) -> None:
    recipe, folder = recipe_of(), tmp_path / "teacher"
    shutil.copytree(runs.own / "teacher", folder)
    path = folder / DESCRIPTION
    description = json.loads(path.read_text())
    classes, problem = description["classes"], r"logit 1 is 'nevus' where 'bcc' belongs"
    if change == "swapped":
        classes[0], classes[5] = classes[5], classes[0]
        problem = r"logit 0 is 'nv' where 'akiec' belongs, logit 5 is 'akiec' where 'nv' belongs"
    elif change == "renamed":
        classes[1] = "nevus"
    elif change == "dropped":
        classes.pop()
        problem = "tells 6 classes"
    else:
        del description["classes"]
        problem = "tells 0 classes"
    path.write_text(json.dumps(description))
    with pytest.raises(ConfigError, match=problem) as error:
        open_teachers(recipe, folder, runs.split(recipe), runs.stores)
    assert str(path) in str(error.value) and "in this order: akiec, bcc" in str(error.value)
    assert "train this teacher again" in str(error.value)


def test_teacher_of_which_a_byte_was_changed_is_refused(runs: Runs, tmp_path: Path) -> None:
    recipe, folder = recipe_of(), tmp_path / "teacher"
    shutil.copytree(runs.own / "teacher", folder)
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(RunFolderError, match=rf"{WEIGHTS}: was changed after training"):
        open_teachers(recipe, folder, runs.split(recipe), runs.stores)


@pytest.mark.parametrize("content", ["{", "[]", None])
def test_teacher_without_a_readable_description_is_refused(runs: Runs, tmp_path: Path, content: str | None) -> None:
    recipe, folder = recipe_of(), tmp_path / "teacher"
    shutil.copytree(runs.own / "teacher", folder)
    (folder / DESCRIPTION).unlink()
    if content is not None:
        (folder / DESCRIPTION).write_text(content)
    with pytest.raises(RunFolderError, match="no trained network"):
        open_teachers(recipe, folder, runs.split(recipe), runs.stores)


@pytest.mark.parametrize("targets", ["live", "stored"])
def test_no_teacher_stays_in_memory_with_stored_targets(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, targets: str
) -> None:
    opened: list[weakref.ref[HybridClassifier]] = []

    def load(folder: Path) -> HybridClassifier:
        model = load_trained(folder)
        opened.append(weakref.ref(model))
        return model

    monkeypatch.setattr(module, "load_trained", load)
    recipe = with_others(runs.second, targets=targets)
    # Kept until the end, as while the student trains. A first student stores the answers, a second finds them.
    taught = [
        student_teaching(recipe, runs.own / "teacher", runs.split(recipe), runs.stores, runs.data(recipe))
        for _ in range(2)
    ]
    gc.collect()
    held = [model() is not None for model in opened]
    assert held == [targets == "live"] * 4 and all(source is not None for source, _ in taught)


def test_rows_are_the_same_at_every_size(runs: Runs) -> None:
    recipe = recipe_of()
    ids = runs.split(recipe).ids("train")
    rows = [runs.stores.at(recipe.data.preprocess(size)).rows(ids) for size in (16, 32)]
    assert np.array_equal(rows[0], rows[1]) and catalog_sha256(runs.catalog)
