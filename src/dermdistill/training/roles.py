"""Teacher and student of a recipe: built, trained, and kept as weights plus a description."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from dermdistill.atomic import write_bytes, write_json
from dermdistill.config import ModelConfig, NetworkConfig, Recipe, StudentConfig
from dermdistill.distill.classification import classification_loss
from dermdistill.distill.logits_losses import effective_number_weights
from dermdistill.distill.objective import Objective, StudentObjective, TeacherObjective, TeacherShape
from dermdistill.errors import RunFolderError
from dermdistill.labels import class_names
from dermdistill.models.build import build_model
from dermdistill.models.hybrid import HybridClassifier
from dermdistill.models.weights import without_weights
from dermdistill.provenance import code_version, sha256_file
from dermdistill.training.loop import CHECKPOINT, Role, TrainingData, TrainingJob, TrainingResult, train
from dermdistill.training.teachers import SignalSource

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"
NEXT_STEP = "run again with --resume"
# Teacher and student of one seed differ in their random start, but see the same views.
_SEED_OFFSETS: dict[Role, int] = {"teacher": 0, "student": 1}


def train_role(
    role: Role,
    recipe: Recipe,
    data: TrainingData,
    *,
    folder: Path,
    inputs: str,
    teachers: SignalSource | None = None,
    shapes: tuple[TeacherShape, ...] = (),
) -> dict[str, Any]:
    """Train one network of a recipe and write ``model.safetensors``, ``model.json`` and ``log.jsonl``.

    Args:
        role: which network.
        recipe: the whole recipe.
        data: images, labels, parts.
        folder: where to.
        inputs: hash of everything that the weights depend on.
        teachers: what a student learns from, where a term needs it.
        shapes: of these teachers.

    Returns:
        What ``model.json`` holds.
    """
    settings: NetworkConfig = recipe.teacher if role == "teacher" else recipe.student
    classes = len(class_names(data.task))
    start = 2 * recipe.seed + _SEED_OFFSETS[role]
    model = build_model(settings.model, classes=classes, size=data.spec.size, seed=start)
    job = TrainingJob(
        role=role,
        model=model,
        objective=build_objective(settings, data, model, shapes, seed=start),
        teachers=teachers,
        data=data,
        augment=recipe.augment,
        optim=settings,
        loss=settings.loss,
        seed=recipe.seed,
        folder=folder,
        inputs=inputs,
        balance=isinstance(settings, StudentConfig) and settings.distill.balance == "gradient_norm",
        tracking=recipe.tracking,
    )
    return keep_trained(job, settings, model, train(job))


def build_objective(
    settings: NetworkConfig,
    data: TrainingData,
    model: HybridClassifier,
    teachers: tuple[TeacherShape, ...],
    *,
    seed: int,
) -> Objective:
    """What a network learns from; learned projections start from the seed, whatever was drawn before."""
    counts = data.class_counts()
    loss = classification_loss(settings.loss, counts)
    if not isinstance(settings, StudentConfig):
        return TeacherObjective(loss, model.exit_depths, settings.loss.exit_weight)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return StudentObjective(
            loss,
            settings.distill,
            exit_depths=model.exit_depths,
            exit_widths=model.exit_widths,
            width=model.fused_width,
            teachers=teachers,
            class_weights=effective_number_weights(counts, settings.distill.rebalance_beta),
        )


def keep_trained(
    job: TrainingJob, settings: NetworkConfig, model: HybridClassifier, result: TrainingResult
) -> dict[str, Any]:
    """Write a finished training's weights and what is to be known of them; its checkpoint goes.

    Args:
        job: the training.
        settings: of the network.
        model: the network that was trained, or of which a version that knows of its quantization was trained.
        result: weights of the best epoch.

    Returns:
        What ``model.json`` holds.
    """
    weights = job.folder / WEIGHTS
    write_bytes(weights, save({name: value.contiguous() for name, value in result.state.items()}))
    description = {
        "role": job.role,
        "model": settings.model.model_dump(mode="json"),
        "classes": list(class_names(job.data.task)),
        "size": job.data.spec.size,
        "weights": model.weight_records,
        "parameters": model.deployed().parameter_count(),
        "epochs_run": result.progress.epochs_done,
        "best_epoch": result.progress.best_epoch,
        "monitor": job.optim.monitor,
        "best_value": result.progress.best_value,
        "seconds": round(result.progress.seconds, 1),
        "sha256": sha256_file(weights),
        "code": code_version(),
    }
    write_json(job.folder / DESCRIPTION, description)
    (job.folder / CHECKPOINT).unlink(missing_ok=True)
    return description


def load_description(folder: Path) -> dict[str, Any]:
    """What ``model.json`` in a folder of ``train_role`` holds.

    Raises:
        RunFolderError: it is missing or damaged.
    """
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_text())
        if not isinstance(description, dict):
            raise ValueError(f"{DESCRIPTION} holds no object")
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{folder}: no trained network ({error})", next_step=NEXT_STEP) from error
    return description


def load_trained(folder: Path) -> HybridClassifier:
    """The network that ``train_role`` kept in a folder, in evaluation mode.

    Raises:
        RunFolderError: a file is missing, damaged, or not the one that was written.
    """
    description = load_description(folder)
    try:
        state = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise RunFolderError(f"{folder}: no trained network ({error})", next_step=NEXT_STEP) from error
    if sha256_file(folder / WEIGHTS) != description["sha256"]:
        raise RunFolderError(
            f"{folder / WEIGHTS}: was changed after training",
            rule=f"its SHA-256 stands in {DESCRIPTION}",
            next_step=NEXT_STEP,
        )
    config = ModelConfig.model_validate(description["model"])
    bare = config.model_copy(update={"branches": tuple(without_weights(b) for b in config.branches)})
    model = build_model(bare, classes=len(description["classes"]), size=description["size"], seed=0)
    model.load_state_dict(state)
    model.weight_records = description["weights"]
    return model.eval()
