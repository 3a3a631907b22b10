"""The one training loop, for teachers and students alike.

It trains on one device; it does not split a model, shard data or tune anything. After each whole epoch everything that
matters is in one checkpoint file; a run that was killed goes on from there and ends with the same weights, bit for bit
on a CPU with the same number of threads, since order, views and dropout depend on (seed, epoch) alone.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from dermdistill.atomic import write_text
from dermdistill.config import AugmentConfig, LossConfig, OptimConfig
from dermdistill.data.augment import make_views
from dermdistill.distill.balance import balance_factors, rescaled
from dermdistill.distill.losses import label_targets, mixed_targets
from dermdistill.distill.objective import Objective, Terms, total
from dermdistill.labels import Task, class_names
from dermdistill.models.output import Output
from dermdistill.preprocess import PreprocessSpec
from dermdistill.training.averaging import WeightAverage
from dermdistill.training.checkpoint import (
    Progress,
    flatten_optimizer,
    load_checkpoint,
    restore_optimizer,
    save_checkpoint,
)
from dermdistill.training.log import log_text
from dermdistill.training.memory import keep_freed_memory
from dermdistill.training.order import batches, epoch_order
from dermdistill.training.progress import TrainingProgress
from dermdistill.training.record import EpochRecord, gradient_norms
from dermdistill.training.residence import resident
from dermdistill.training.schedule import learning_rate_factor, make_optimizer, set_learning_rate
from dermdistill.training.teachers import SignalSource
from dermdistill.training.tracking import open_trackers, tracking_place
from dermdistill.training.validation import predict_logits, validation_figures

CHECKPOINT = "checkpoint.safetensors"
Role = Literal["teacher", "student", "quantized"]
LOG = "log.jsonl"
# A finite check waits for the device: on a GPU it is made every so many steps, and at the end of an epoch.
GPU_STEPS_A_CHECK = 20


@dataclass(frozen=True)
class TrainingData:
    """Stored images and which of them are for what.

    Attributes:
        images: the store's uint8 [N, S, S, 3].
        labels: class index of each stored image, int64 [N].
        train_rows: rows to learn from, int64; repeats allowed.
        val_rows: rows that choose the best epoch.
        spec: preprocessing.
        task: names the classes.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    train_rows: npt.NDArray[np.int64]
    val_rows: npt.NDArray[np.int64]
    spec: PreprocessSpec
    task: Task

    def class_counts(self) -> Tensor:
        """Training images of each class, [K]."""
        counts = np.bincount(self.labels[self.train_rows], minlength=len(class_names(self.task)))
        return torch.from_numpy(counts)


@dataclass(frozen=True)
class TrainingJob:
    """One training: what, from what, how.

    Attributes:
        role: ``teacher``, ``student``, or ``quantized`` for a student whose training knows of its quantization.
        model: is trained in place; gives ``Output``.
        objective: gives the loss terms; its own parameters are trained too.
        teachers: give the student's targets; None where nothing is learnt from a teacher.
        data: images and labels.
        augment: random views.
        optim: optimizer, schedule, stopping.
        loss: says whether the order is balanced, and the label smoothing.
        seed: of order, views and dropout.
        folder: where checkpoint and log are written.
        inputs: hash of all of this, so that a checkpoint resumes only its own training.
        balance: whether the terms' weights are rescaled each epoch by their gradients.
        tracking: names of trackers that are told each epoch.
    """

    role: Role
    model: nn.Module
    objective: Objective
    teachers: SignalSource | None
    data: TrainingData
    augment: AugmentConfig
    optim: OptimConfig
    loss: LossConfig
    seed: int
    folder: Path
    inputs: str
    balance: bool = False
    tracking: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingResult:
    """Weights of the best epoch and how they came about."""

    state: dict[str, Tensor]
    progress: Progress


def _precision(asked: Literal["auto", "32-true", "bf16-mixed"]) -> Literal["32-true", "bf16-mixed"]:
    """What is asked for; ``auto`` is bfloat16 on a GPU and 32-bit elsewhere."""
    if asked != "auto":
        return asked
    return "bf16-mixed" if torch.cuda.is_available() else "32-true"


class _Trainer:
    """The state of a running training; ``train`` below is its only user."""

    def __init__(self, job: TrainingJob) -> None:
        self.job = job
        self.fabric = Fabric(accelerator="auto", devices=1, precision=_precision(job.optim.precision))
        job.model.to(memory_format=torch.channels_last)
        optimizer = make_optimizer(job.model, job.objective.to(self.fabric.device), job.optim)
        self.network, self.optimizer = self.fabric.setup(job.model, optimizer)
        if job.optim.compile:
            job.model.compile()
        if job.teachers is not None:
            job.teachers.to(self.fabric.device)
        self.factors: dict[str, float] = {}
        self.average = WeightAverage(job.model, job.optim.average_decay)
        self.best = {name: value.clone() for name, value in self.average.state.items()}
        self.progress = Progress(inputs=job.inputs)
        on_cpu = self.fabric.device.type == "cpu"
        self.images = resident(job.data.images, self.fabric.device)
        self.check_every = 1 if on_cpu else GPU_STEPS_A_CHECK
        train_labels = job.data.labels[job.data.train_rows]
        self.train_labels = train_labels
        self.steps_an_epoch = len(batches(np.arange(len(train_labels)), job.optim.batch_size))
        self.parameters = [*job.model.parameters(), *job.objective.parameters()]

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        path = self.job.folder / CHECKPOINT
        if not path.is_file():
            return
        self.progress, parts = load_checkpoint(path, self.job.inputs)
        self.job.model.load_state_dict(parts["model"])
        self.job.objective.load_state_dict(parts.get("objective", {}))
        self.average.load(parts["average"])
        for name, value in self.best.items():
            value.copy_(parts["best"][name])
        restore_optimizer(self.optimizer.optimizer, parts["optimizer"])

    def save(self) -> None:
        """Checkpoint first, then the log that is made from it: the log never runs ahead."""
        parts = {
            "model": self.job.model.state_dict(),
            "objective": self.job.objective.state_dict(),
            "average": self.average.state,
            "best": self.best,
            "optimizer": flatten_optimizer(self.optimizer.optimizer),
        }
        save_checkpoint(self.job.folder / CHECKPOINT, self.progress, parts)
        write_text(self.job.folder / LOG, log_text(self.progress.log))

    def targets(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Targets [B, K] of stored images."""
        labels = torch.from_numpy(self.job.data.labels[rows])
        classes = len(class_names(self.job.data.task))
        return label_targets(labels, classes, smoothing=self.job.loss.label_smoothing)

    def batch(self, rows: npt.NDArray[np.int64], epoch: int) -> tuple[Tensor, Tensor]:
        """Views [B, 3, S, S] and targets [B, K] on the device."""
        job = self.job
        views = make_views(
            self.images,
            rows,
            epoch=epoch,
            seed=job.seed,
            config=job.augment,
            spec=job.data.spec,
            partner_rows=job.data.train_rows,
        )
        partners = np.where(views.partners < 0, rows, views.partners)
        shares = torch.as_tensor(views.shares).cpu()
        targets = mixed_targets(self.targets(rows), self.targets(partners), shares)
        device = self.fabric.device
        images = views.images.to(device).contiguous(memory_format=torch.channels_last)
        return images, targets.to(device)

    def forward(self, images: Tensor) -> Output:
        """The model's output in full precision, computed in that of the training.

        Fabric's own wrapper is gone round: in half precision it refuses the gradient of a single term.
        """
        with self.fabric.autocast():
            output: Output = self.job.model(images)
        return output.full_precision()

    def step(self, rows: npt.NDArray[np.int64], epoch: int, record: EpochRecord) -> None:
        """One optimizer step."""
        job = self.job
        warmup = round(job.optim.warmup_epochs * self.steps_an_epoch)
        factor = learning_rate_factor(
            self.progress.step, steps=job.optim.epochs * self.steps_an_epoch, warmup_steps=warmup
        )
        set_learning_rate(self.optimizer.optimizer, factor)
        images, targets = self.batch(rows, epoch)
        taught = () if job.teachers is None else job.teachers.signals(rows, images, job.data.spec)
        terms: Terms = job.objective(self.forward(images), targets, taught)
        if record.steps == 0:
            record.grad_norms = gradient_norms(terms, self.parameters)
            if job.balance:
                weights = {name: term.weight for name, term in terms.items()}
                self.factors = balance_factors(weights, record.grad_norms)
        if job.balance:
            terms = rescaled(terms, self.factors)
        record.add(terms, len(rows))
        if record.steps % self.check_every == 0:
            record.check_finite()
        self.fabric.backward(total(terms))
        norm = nn.utils.clip_grad_norm_(self.parameters, job.optim.clip_norm)
        record.add_gradient_norm(norm)
        if record.steps % self.check_every == 0:
            record.check_finite()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(job.model, self.progress.step)
        self.progress.step += 1

    def validate(self) -> dict[str, float]:
        """Figures of the averaged weights on the validation part."""
        job = self.job
        current = {name: value.clone() for name, value in job.model.state_dict().items()}
        job.model.load_state_dict(self.average.state)
        logits = predict_logits(self.network, self.images, job.data.val_rows, job.data.spec)
        job.model.load_state_dict(current)
        return validation_figures(logits, job.data.labels[job.data.val_rows], job.data.task)

    def epoch(self, epoch: int, bar: TrainingProgress) -> dict[str, Any]:
        """One epoch, its validation and its checkpoint; gives its line of the log."""
        job, started = self.job, time.perf_counter()
        torch.manual_seed(np.random.SeedSequence([job.seed, epoch]).generate_state(1)[0].item())
        self.network.train()
        if job.teachers is not None:
            job.teachers.start_epoch(epoch)
        record = EpochRecord(job.role, epoch)
        order = epoch_order(self.train_labels, seed=job.seed, epoch=epoch, balanced=job.loss.sampler)
        for positions in batches(order, job.optim.batch_size):
            self.step(job.data.train_rows[positions], epoch, record)
            bar.step()
        record.check_finite()
        record.check_alive()
        figures = self.validate()
        better = figures[job.optim.monitor] > self.progress.best_value
        if better:
            self.progress.best_value, self.progress.best_epoch = figures[job.optim.monitor], epoch
            for name, value in self.average.state.items():
                self.best[name].copy_(value)
        seconds = time.perf_counter() - started
        self.progress.epochs_done = epoch + 1
        self.progress.seconds += seconds
        line = {
            "epoch": epoch,
            "seconds": round(seconds, 3),
            "learning_rate": max(float(group["lr"]) for group in self.optimizer.param_groups),
            **record.summary(),
            "val": figures,
            "best": better,
        }
        self.progress.log.append(line)
        self.save()
        bar.epoch(line)
        return line

    def finished(self) -> bool:
        """All epochs done, or no better figure for too long."""
        progress = self.progress
        stale = progress.epochs_done - 1 - progress.best_epoch
        return progress.epochs_done >= self.job.optim.epochs or (
            progress.best_epoch >= 0 and stale >= self.job.optim.patience
        )


def train(job: TrainingJob) -> TrainingResult:
    """Train, or go on training, and return the averaged weights of the best epoch on the validation part.

    Raises:
        NonFiniteLossError: a term or the gradient is not finite.
        DeadTermError: a term is zero throughout an epoch or moves nothing.
        RunFolderError: the folder holds another training's checkpoint.
        OutputError: checkpoint or log cannot be written.
    """
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    keep_freed_memory()
    trainer = _Trainer(job)
    trainer.resume()
    progress = trainer.progress
    with (
        TrainingProgress(
            job.role,
            steps=job.optim.epochs * trainer.steps_an_epoch,
            done=progress.step,
            epochs=job.optim.epochs,
            monitor=job.optim.monitor,
        ) as bar,
        open_trackers(job.tracking, *tracking_place(job.folder)) as tracker,
    ):
        tracker.start({job.role: {"seed": job.seed, **job.optim.model_dump(mode="json")}})
        for line in progress.log:
            tracker.epoch(job.role, line)
        while not trainer.finished():
            tracker.epoch(job.role, trainer.epoch(progress.epochs_done, bar))
    return TrainingResult({name: value.cpu() for name, value in trainer.best.items()}, progress)
