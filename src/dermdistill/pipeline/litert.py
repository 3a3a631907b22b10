"""A run's student as LiteRT files, with what they lost on its test part."""

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dermdistill.atomic import make_folder, write_json
from dermdistill.compress.litert import export_litert, quantize_litert
from dermdistill.compress.litert_runtime import LiteRTClassifier, require_litert
from dermdistill.errors import RunFolderError
from dermdistill.evaluate.parity import gate_faults, parity, part_metrics
from dermdistill.pipeline.compression import calibration_images
from dermdistill.pipeline.context import Context
from dermdistill.pipeline.execute import kept_recipe
from dermdistill.provenance import sha256_file
from dermdistill.run import RECORD, RunFolder
from dermdistill.training.roles import WEIGHTS, load_trained
from dermdistill.training.validation import predict_logits

FP32_FILE = "model.tflite"
INT8_FILE = "model.int8.tflite"
RESULT = "litert.json"
PART = "test"
DISTRIBUTIONS = ("litert-torch", "ai-edge-quantizer", "ai-edge-litert")


def write_litert(run: Path, out: Path, *, command: str = "") -> dict[str, Any]:
    """Write ``model.tflite``, ``model.int8.tflite`` and, last, ``litert.json``.

    Args:
        run: folder of a run whose student is trained; nothing in it is changed.
        out: folder to write to.
        command: what the user typed, for the provenance.

    Returns:
        What ``litert.json`` holds: ``part``, ``student`` (metrics of the FP32 PyTorch student), ``files``
        {name: ``bytes``, ``sha256``, what ``evaluate.parity.parity`` says, and ``faults``: which limits of the recipe's
        gate it breaks}, ``quantization``, ``packages`` (of LiteRT), and ``provenance``.

    Raises:
        MissingExtraError: the extra ``litert`` is missing.
        RunFolderError: the folder holds no run, or no trained student.
        ExportError: the student cannot be converted or quantized.
        OutputError: a file cannot be written.
    """
    require_litert()
    context = _context(run)
    model = load_trained(run / "student").deployed()
    fp32, int8 = make_folder(out) / FP32_FILE, out / INT8_FILE
    export_litert(model, context.spec, fp32)
    quantization = quantize_litert(fp32, int8, calibration_images(context), context.spec)
    rows = context.rows(PART)
    labels = context.training_data(context.spec).labels[rows]
    reference = predict_logits(model, context.store.images, rows, context.spec)
    result = {
        "part": PART,
        "student": {
            "sha256": sha256_file(run / "student" / WEIGHTS),
            "metrics": part_metrics(reference, labels, context.recipe.task),
        },
        "files": {path.name: _facts(context, path, reference, labels) for path in (fp32, int8)},
        "quantization": quantization,
        "packages": {name: metadata.version(name) for name in DISTRIBUTIONS},
        "provenance": context.provenance(command),
    }
    write_json(out / RESULT, result)
    return result


def _context(run: Path) -> Context:
    recipe = kept_recipe(run)
    if recipe is None or not (run / RECORD).is_file():
        raise RunFolderError(
            f"{run}: holds no run",
            rule="LiteRT files are made of the student of a run folder",
            next_step="name a folder that `dermdistill run` wrote",
        )
    return Context(recipe, RunFolder(run), None)


def _facts(
    context: Context, path: Path, reference: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> dict[str, Any]:
    images = context.store.images[context.rows(PART)]
    found = LiteRTClassifier(path, context.spec).logits(images)
    result = parity(reference, found, labels, context.recipe.task)
    return {
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
        **result,
        "faults": gate_faults(result, context.recipe.compress.gate),
    }
