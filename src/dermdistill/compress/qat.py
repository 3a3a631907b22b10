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


def qat_settings(recipe: Recipe) -> StudentConfig:
    """The student's settings as its quantization-aware training has them.

    Few epochs with a small rate and no averaging of weights, whose scales would not be those of the average.
    """
    compress = recipe.compress
    return recipe.student.model_copy(
        update={
            "epochs": max(1, compress.qat_epochs),
            "learning_rate": compress.qat_learning_rate,
            "warmup_epochs": 0.0,
            "average_decay": 0.0,
            "patience": max(1, compress.qat_epochs),
            "precision": "32-true",
            "compile": False,
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
