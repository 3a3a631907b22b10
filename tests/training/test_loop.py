"""The training loop: learns, resumes bit for bit, stops early, stops on what is dead or not finite."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dermdistill.config import AugmentConfig, BranchConfig, DistillConfig, LossConfig, ModelConfig, OptimConfig
from dermdistill.distill.classification import classification_loss
from dermdistill.distill.objective import StudentObjective, TeacherObjective, TeacherShape
from dermdistill.distill.signals import signal_plan, signals_of
from dermdistill.errors import DeadTermError, NonFiniteLossError, RunFolderError
from dermdistill.labels import class_names
from dermdistill.models.build import build_model
from dermdistill.models.hybrid import HybridClassifier
from dermdistill.preprocess import PreprocessSpec
from dermdistill.run import RECORD
from dermdistill.training import loop
from dermdistill.training.log import read_log
from dermdistill.training.loop import TrainingData, TrainingJob, TrainingResult, _precision, _Trainer, train
from dermdistill.training.teachers import LiveTeachers, Teacher, Viewing

SIZE = 16


def make_model(seed: int = 0, dropout: float = 0.2) -> HybridClassifier:
    branch = BranchConfig(backbone="small_cnn", options={"widths": [4, 6, 8, 10]})
    config = ModelConfig(branches=(branch,), exits=(1, 2), fusion_width=8, dropout=dropout)
    return build_model(config, classes=7, size=SIZE, seed=seed)


@pytest.fixture(scope="module")
def data() -> TrainingData:
    """Flat pictures whose grey level tells the class, with noise."""
    generator = np.random.default_rng(0)
    labels = np.arange(140) % 7
    grey = 20 + 32 * labels[:, None, None, None] + generator.integers(-15, 16, (140, SIZE, SIZE, 3))
    return TrainingData(
        images=grey.clip(0, 255).astype(np.uint8),
        labels=labels.astype(np.int64),
        train_rows=np.arange(105),
        val_rows=np.arange(105, 140),
        spec=PreprocessSpec(SIZE),
        task="diagnosis",
    )


def make_teacher(data: TrainingData, model: HybridClassifier) -> Teacher:
    return Teacher(
        model=model,
        sha256="teacher",
        classes=class_names("diagnosis"),
        images=data.images,
        images_sha256="images",
        image_ids=tuple(f"image-{row:03}" for row in range(len(data.images))),
        spec=data.spec,
    )


def make_job(
    data: TrainingData, folder: Path, *, student: bool = False, distill: DistillConfig | None = None, **optim: object
) -> TrainingJob:
    model, config = make_model(0), distill or DistillConfig()
    loss, augment = LossConfig(logit_adjustment=1.0), AugmentConfig(mixup=0.5, hue=0.0, brightness=0.0)
    function = classification_loss(loss, data.class_counts())
    torch.manual_seed(3)
    objective = (
        StudentObjective(
            function,
            config,
            exit_depths=(1, 2),
            exit_widths=model.exit_widths,
            width=8,
            teachers=(TeacherShape(1.0, 8),),
            class_weights=torch.ones(7),
        )
        if student
        else TeacherObjective(function, (1, 2), 0.3)
    )
    settings = {"epochs": 3, "batch_size": 20, "learning_rate": 0.01, "average_decay": 0.9, **optim}
    viewing = Viewing(augment, 0, data.train_rows)
    plan = signal_plan(config, (1, 2))
    return TrainingJob(
        role="student" if student else "teacher",
        model=model,
        objective=objective,
        teachers=LiveTeachers([make_teacher(data, make_model(1))], viewing, plan) if student else None,
        data=data,
        augment=augment,
        optim=OptimConfig.model_validate(settings),
        loss=loss,
        seed=0,
        folder=folder,
        inputs="inputs",
        balance=config.balance == "gradient_norm",
    )


def assert_same(first: TrainingResult, second: TrainingResult) -> None:
    assert first.state.keys() == second.state.keys()
    assert all(torch.equal(first.state[name], second.state[name]) for name in first.state)
    without_time = [
        [{key: value for key, value in line.items() if key != "seconds"} for line in result.progress.log]
        for result in (first, second)
    ]
    assert without_time[0] == without_time[1]


def test_training_learns(data: TrainingData, tmp_path: Path) -> None:
    result = train(make_job(data, tmp_path, epochs=12))
    log = read_log(tmp_path / "log.jsonl")
    assert log == result.progress.log and len(log) == 12
    assert log[-1]["loss"] < log[0]["loss"]
    assert result.progress.best_value > 0.9


def test_log_has_every_term_with_value_weight_and_gradient(data: TrainingData, tmp_path: Path) -> None:
    train(make_job(data, tmp_path, student=True, epochs=1))
    (line,) = read_log(tmp_path / "log.jsonl")
    exits = {f"{kind}_{depth}" for kind in ("exit_kd", "exit_features") for depth in (1, 2)}
    assert set(line["terms"]) == {*exits, "fused_features", "logits_kd", "classification"}
    for term in line["terms"].values():
        assert term["value"] > 0 and term["weight"] > 0 and term["grad_norm"] > 0
    assert line["loss"] == pytest.approx(sum(t["value"] * t["weight"] for t in line["terms"].values()))


class Killed(BaseException):
    """Stands for a kill: nothing of the loop may catch it."""


@pytest.mark.parametrize("student", [False, True])
@pytest.mark.parametrize("step", [2, 5, 11])
def test_resumed_training_ends_with_the_same_weights(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, student: bool, step: int
) -> None:
    unbroken = train(make_job(data, tmp_path / "unbroken", student=student))
    original = _Trainer.step

    def killed(self: _Trainer, *arguments: object) -> None:
        if self.progress.step == step:
            raise Killed
        original(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(_Trainer, "step", killed)
        with pytest.raises(Killed):
            train(make_job(data, tmp_path / "broken", student=student))
    assert_same(unbroken, train(make_job(data, tmp_path / "broken", student=student)))


def test_other_seed_gives_other_weights(data: TrainingData, tmp_path: Path) -> None:
    first = train(make_job(data, tmp_path / "a", epochs=1))
    second = train(replace(make_job(data, tmp_path / "b", epochs=1), seed=1))
    assert not torch.equal(first.state["classifier.weight"], second.state["classifier.weight"])


def test_training_stops_early_and_keeps_the_best_epoch(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = iter([0.6, 0.8, 0.7, 0.7, 0.9])
    states = []

    def validate(self: _Trainer) -> dict[str, float]:
        states.append({name: value.clone() for name, value in self.average.state.items()})
        value = next(figures)
        return {"macro_auc": value, "balanced_accuracy": value, "melanoma_auc": value, "loss": 1.0}

    monkeypatch.setattr(_Trainer, "validate", validate)
    result = train(make_job(data, tmp_path, epochs=5, patience=2))
    assert (result.progress.epochs_done, result.progress.best_epoch) == (4, 1)
    assert all(torch.equal(result.state[name], states[1][name]) for name in result.state)


def test_dead_term_stops_the_run_and_is_named(data: TrainingData, tmp_path: Path) -> None:
    job = make_job(data, tmp_path, student=True, epochs=1)
    objective = job.objective
    assert isinstance(objective, StudentObjective)
    # the published code's fault: the student is its own target, so the KL is identically zero
    original = StudentObjective.forward

    def forward(self: StudentObjective, output, targets, teachers=()):  # type: ignore[no-untyped-def]
        return original(self, output, targets, [signals_of(output, (1, 2), self.plan)])

    job.objective.forward = forward.__get__(job.objective)  # type: ignore[method-assign]
    with pytest.raises(DeadTermError, match="exit_kd_1"):
        train(job)


def test_weights_by_gradient_norm_pull_alike_are_logged_and_resume(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DistillConfig(balance="gradient_norm")
    unbroken = train(make_job(data, tmp_path / "unbroken", student=True, distill=config))
    wanted = {"exit_kd_1": 0.075, "exit_features_1": 0.05, "logits_kd": 0.3, "classification": 0.4}
    for line in unbroken.progress.log:
        terms = line["terms"]
        pulls = [terms[name]["weight"] / weight * terms[name]["grad_norm"] for name, weight in wanted.items()]
        assert pulls == pytest.approx([pulls[0]] * len(pulls), rel=1e-3)
    assert unbroken.progress.log[0]["terms"]["logits_kd"]["weight"] != pytest.approx(0.3)
    original = _Trainer.epoch

    def killed(self: _Trainer, epoch: int, bar: Any) -> Any:
        if epoch == 2:
            raise Killed
        return original(self, epoch, bar)

    with monkeypatch.context() as patch:
        patch.setattr(_Trainer, "epoch", killed)
        with pytest.raises(Killed):
            train(make_job(data, tmp_path / "broken", student=True, distill=config))
    assert_same(unbroken, train(make_job(data, tmp_path / "broken", student=True, distill=config)))


def test_non_finite_weights_stop_the_run_and_keep_nothing(data: TrainingData, tmp_path: Path) -> None:
    job = make_job(data, tmp_path, epochs=1)
    with torch.no_grad():
        job.model.classifier.bias[0] = float("nan")
    with pytest.raises(NonFiniteLossError, match="classification"):
        train(job)
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_of_another_training_is_refused(data: TrainingData, tmp_path: Path) -> None:
    train(make_job(data, tmp_path, epochs=1))
    with pytest.raises(RunFolderError, match="other settings"):
        train(replace(make_job(data, tmp_path, epochs=1), inputs="other"))


def test_sampler_balances_what_is_seen(data: TrainingData, tmp_path: Path) -> None:
    rows = np.concatenate([data.train_rows[data.labels[data.train_rows] == 0], np.arange(1, 7)])
    skewed = replace(data, train_rows=rows)
    job = replace(make_job(skewed, tmp_path, epochs=1, batch_size=len(rows)), loss=LossConfig(sampler=True))
    seen: list[np.ndarray] = []
    trainer = _Trainer(job)
    original = trainer.batch

    def batch(rows: np.ndarray, epoch: int):  # type: ignore[no-untyped-def,type-arg]
        seen.append(data.labels[rows])
        return original(rows, epoch)

    trainer.batch = batch  # type: ignore[method-assign]
    from dermdistill.training.progress import TrainingProgress

    with TrainingProgress("teacher", steps=1, done=0, epochs=1, monitor="macro_auc") as bar:
        trainer.epoch(0, bar)
    counts = np.bincount(np.concatenate(seen), minlength=7)
    assert counts[0] < len(rows) / 2  # 15 of 21 images are of class 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_compiled_network_learns_what_the_plain_one_learns(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    original = HybridClassifier.compile

    def compile_eagerly(self: HybridClassifier) -> None:
        # the whole path but the code generator, which takes minutes and belongs to PyTorch
        compiled.append("yes")
        original(self, backend="eager")

    monkeypatch.setattr(HybridClassifier, "compile", compile_eagerly)
    first = train(make_job(data, tmp_path / "plain", epochs=1))
    second = train(make_job(data, tmp_path / "compiled", epochs=1, compile=True))
    assert compiled == ["yes"]
    assert first.state.keys() == second.state.keys()
    for name, value in first.state.items():
        assert torch.allclose(value, second.state[name], atol=1e-5), name


def test_half_precision_learns_and_keeps_full_precision_weights(data: TrainingData, tmp_path: Path) -> None:
    result = train(make_job(data, tmp_path, student=True, epochs=2, precision="bf16-mixed"))
    assert all(value.dtype != torch.bfloat16 for value in result.state.values())
    assert result.progress.log[-1]["loss"] < result.progress.log[0]["loss"]


@pytest.mark.parametrize(("gpu", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_automatic_precision_is_half_on_a_gpu_alone(gpu: bool, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert _precision("auto") == precision
    assert (_precision("32-true"), _precision("bf16-mixed")) == ("32-true", "bf16-mixed")


def test_validation_takes_the_images_that_lie_on_the_device(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[object] = []
    on_host = _Trainer(make_job(data, tmp_path, epochs=1)).validate()
    original = loop.predict_logits

    def seen(model: Any, images: Any, *arguments: Any) -> Any:
        taken.append(images)
        return original(model, images, *arguments)

    monkeypatch.setattr(loop, "predict_logits", seen)
    monkeypatch.setattr(loop, "resident", lambda images, device: torch.from_numpy(images))
    trainer = _Trainer(make_job(data, tmp_path, epochs=1))
    assert trainer.validate() == on_host
    assert isinstance(trainer.images, torch.Tensor) and len(taken) == 1 and taken[0] is trainer.images


def test_trackers_change_no_weight(data: TrainingData, tmp_path: Path) -> None:
    plain = train(make_job(data, tmp_path / "plain", student=True, epochs=2))
    job = make_job(data, tmp_path / "tracked", student=True, epochs=2)
    assert_same(plain, train(replace(job, tracking=("tensorboard", "mlflow"))))
    assert {item.name for item in (tmp_path / "tracked" / "tracking").iterdir()} == {"tensorboard", "mlflow.db"}


def test_seeds_of_one_row_keep_a_curve_each(data: TrainingData, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tmp_path / RECORD).write_text("{}")
    for seed in (0, 1):
        job = make_job(data, tmp_path / "trials" / "row" / f"seed-{seed}", epochs=2)
        log = train(replace(job, seed=seed, tracking=("tensorboard",))).progress.log
        wanted = [(line["epoch"], pytest.approx(line["loss"], rel=1e-6)) for line in log]
        (events,) = (tmp_path / "tracking").rglob(f"seed-{seed}/**/events.*")
        curve = EventAccumulator(str(events)).Reload().Scalars("teacher/loss")
        assert [(point.step, point.value) for point in curve] == wanted
