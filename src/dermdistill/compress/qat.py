"""Quantization-aware training of a distilled student: the same loop, objective and teachers, with INT8 simulated."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.torch import load_file

from dermdistill.compress.pt2e import QuantizationAware
from dermdistill.config import Recipe, StudentConfig
from dermdistill.distill.objective import TeacherShape
from dermdistill.errors import RunFolderError
from dermdistill.models.hybrid import HybridClassifier
from dermdistill.provenance import sha256_file
from dermdistill.training.loop import TrainingData, TrainingJob, train
from dermdistill.training.roles import NEXT_STEP, WEIGHTS, build_objective, keep_trained, load_description
from dermdistill.training.teachers import SignalSource

# Of the averaged weights: an epoch of the student's own decay would hardly move them.
_AVERAGE_DECAY = 0.99


def qat_settings(recipe: Recipe) -> StudentConfig:
    """The student's settings as its quantization-aware training has them: few epochs with a small rate.

    What matches features through learned projections is left out: the projections ended with the student's training,
    and new ones would pull the features elsewhere. Labels, logits, exits, attention and relations teach as before.
    """
    compress, student = recipe.compress, recipe.student
    distill = student.distill
    exits = student.model.exits and distill.feature_share < 1
    taught = distill.model_copy(
        update={
            "feature_share": 0.0,
            "alpha": distill.alpha * (1 - distill.feature_share) if exits else 0.0,
            "stages": tuple(stage.model_copy(update={"alpha": 0.0}) for stage in distill.stages),
        }
    )
    return student.model_copy(
        update={
            "epochs": max(1, compress.qat_epochs),
            "learning_rate": compress.qat_learning_rate,
            "backbone_factor": 1.0,
            "warmup_epochs": 0.0,
            "average_decay": _AVERAGE_DECAY,
            "patience": max(1, compress.qat_epochs),
            "precision": "32-true",
            "compile": False,
            "distill": taught,
        }
    )


def train_quantized(
    student: HybridClassifier,
    recipe: Recipe,
    data: TrainingData,
    calibration: npt.NDArray[np.uint8],
    *,
    folder: Path,
    inputs: str,
    teachers: SignalSource | None,
    shapes: tuple[TeacherShape, ...],
) -> dict[str, Any]:
    """Train a student on while INT8 is simulated, and keep the best epoch on the validation part.

    Args:
        student: trained; left as it is.
        recipe: the whole recipe; the student learns from what it learnt from before.
        data: images, labels, parts.
        calibration: uint8 [N, S, S, 3], training images that set the first ranges.
        folder: where to.
        inputs: hash of everything that the weights depend on.
        teachers: what the student learns from, where a term needs it.
        shapes: of these teachers.

    Returns:
        What ``model.json`` holds.

    Raises:
        ExportError: the network cannot be quantized.
        MissingExtraError: the extra ``mobile`` is missing.
        TrainingError: see ``train``.
    """
    settings = qat_settings(recipe)
    model = QuantizationAware(student, data.spec)
    model.find_ranges(calibration)
    job = TrainingJob(
        role="quantized",
        model=model,
        objective=build_objective(settings, data, student, shapes, seed=2 * recipe.seed + 1),
        teachers=teachers,
        data=data,
        augment=recipe.augment,
        optim=settings,
        loss=settings.loss,
        seed=recipe.seed,
        folder=folder,
        inputs=inputs,
        tracking=recipe.tracking,
    )
    return keep_trained(job, settings, student, train(job))


def load_quantized(
    folder: Path, student: HybridClassifier, data: TrainingData, calibration: npt.NDArray[np.uint8]
) -> QuantizationAware:
    """What ``train_quantized`` kept, in evaluation mode.

    Args:
        folder: of the training.
        student: the one that it began with.
        data: says the preprocessing.
        calibration: some training images; the ranges that they give are replaced by the trained ones.

    Raises:
        RunFolderError: a file is missing, damaged, or not the one that was written.
    """
    description = load_description(folder)
    if not (folder / WEIGHTS).is_file() or sha256_file(folder / WEIGHTS) != description["sha256"]:
        raise RunFolderError(
            f"{folder / WEIGHTS}: is missing or was changed after training", rule="its hash", next_step=NEXT_STEP
        )
    model = QuantizationAware(student, data.spec)
    model.find_ranges(calibration)
    model.load_state_dict(load_file(folder / WEIGHTS))
    return model
