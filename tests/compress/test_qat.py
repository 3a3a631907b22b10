from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dermdistill.compress.qat import load_quantized, qat_settings, train_quantized
from dermdistill.config import Recipe
from dermdistill.distill.objective import TeacherShape
from dermdistill.distill.signals import SignalPlan, signal_plan
from dermdistill.errors import RunFolderError
from dermdistill.labels import CODES
from dermdistill.models.build import build_model
from dermdistill.models.hybrid import HybridClassifier
from dermdistill.recipes.load import load_recipe
from dermdistill.training.loop import TrainingData
from dermdistill.training.teachers import LiveTeachers, Teacher, Viewing

SMALL = "[{backbone: small_cnn, options: {widths: [4, 6, 8, 10]}}]"


def recipe_of(*more: str) -> Recipe:
    return load_recipe(
        "quick",
        [
            "threads=1",
            "data.size=32",
            f"teacher.model.branches={SMALL}",
            f"student.model.branches={SMALL}",
            "student.batch_size=16",
            "compress.qat_epochs=2",
            *more,
        ],
    )


@pytest.fixture
def data(small: SimpleNamespace) -> TrainingData:
    labels = np.arange(56) % len(CODES)
    return TrainingData(small.pictures(56, 1), labels, np.arange(42), np.arange(42, 56), small.spec, "diagnosis")


@pytest.fixture
def student() -> HybridClassifier:
    return build_model(recipe_of().student.model, classes=7, size=32, seed=1).eval()


def _trained(student: HybridClassifier, data: TrainingData, folder: Path, *more: str) -> dict[str, Any]:
    recipe = recipe_of(*more)
    model = build_model(recipe.teacher.model, classes=7, size=32, seed=2).eval()
    teacher = Teacher(model, "0" * 64, CODES, data.images, "", tuple(map(str, range(56))), data.spec)
    plan = signal_plan(qat_settings(recipe).distill, recipe.student.model.exits)
    source = LiveTeachers([teacher], Viewing(recipe.augment, recipe.seed, data.train_rows), plan)
    return train_quantized(
        student,
        recipe,
        data,
        data.images[:16],
        folder=folder,
        inputs="same",
        teachers=source,
        shapes=(TeacherShape(1.0, model.fused_width),),
    )


def test_it_is_taught_by_everything_but_new_projections() -> None:
    recipe = recipe_of("student.distill.relational=1")
    settings = qat_settings(recipe)
    before, after = recipe.student.distill, settings.distill
    assert (after.beta, after.gamma, after.relational) == (before.beta, before.gamma, before.relational)
    assert after.alpha == before.alpha * (1 - before.feature_share)
    assert (after.feature_share, settings.epochs) == (0.0, 2)
    assert settings.learning_rate == recipe.compress.qat_learning_rate
    plain = qat_settings(recipe_of("student.distill.feature_share=1", "student.distill.alpha=0.5"))
    assert plain.distill.alpha == 0.0
    assert signal_plan(plain.distill, (1, 2)) == SignalPlan()


def test_it_learns_is_kept_and_comes_back(student: HybridClassifier, data: TrainingData, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in student.state_dict().items()}
    described = _trained(student, data, tmp_path)
    assert described["role"] == "quantized"
    assert described["epochs_run"] == 2
    log = (tmp_path / "log.jsonl").read_text()
    assert "logits_kd" in log and "exit_kd_1" in log and "fused_features" not in log
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    model = load_quantized(tmp_path, student, data, data.images[:4])
    weights = dict(model.graph.state_dict())
    assert any(not torch.equal(value, before[name]) for name, value in weights.items() if name in before)
    again = load_quantized(tmp_path, student, data, data.images[4:8])
    with torch.no_grad():
        images = torch.zeros(3, 3, 32, 32)
        assert torch.equal(model(images).logits, again(images).logits)


def test_broken_off_and_resumed_it_ends_with_the_same_weights(
    student: HybridClassifier, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _trained(student, data, tmp_path / "whole")

    class KilledError(Exception):
        pass

    def killed(*arguments: Any, **settings: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        from dermdistill.training import loop

        save = loop._Trainer.save

        def save_once(self: Any) -> None:
            save(self)
            killed()

        patch.setattr(loop._Trainer, "save", save_once)
        with pytest.raises(KilledError):
            _trained(student, data, tmp_path / "resumed")
    assert (tmp_path / "resumed" / "checkpoint.safetensors").is_file()
    assert _trained(student, data, tmp_path / "resumed")["sha256"] == whole["sha256"]


def test_changed_weights_are_refused(student: HybridClassifier, data: TrainingData, tmp_path: Path) -> None:
    _trained(student, data, tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(RunFolderError, match=r"model\.safetensors: is missing or was changed"):
        load_quantized(tmp_path, student, data, data.images[:4])
