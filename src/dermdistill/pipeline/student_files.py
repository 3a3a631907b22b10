"""The ONNX files of trained students: exported, quantized, asked for predictions, and timed side by side."""

import json
import tempfile
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermdistill import __version__
from dermdistill.atomic import atomic_path, write_json
from dermdistill.bundle.predictor import OnnxClassifier
from dermdistill.compress.onnx_export import export_onnx, random_inputs
from dermdistill.compress.static_int8 import quantize_int8
from dermdistill.config import Recipe
from dermdistill.evaluate.predictions import predictions_frame
from dermdistill.pipeline.context import Context
from dermdistill.preprocess import PreprocessSpec, resize_image
from dermdistill.provenance import sha256_bytes, sha256_file, sha256_json
from dermdistill.training.roles import WEIGHTS, load_trained

FP32, INT8 = KINDS = ("fp32", "int8")
FILES = {FP32: "model.onnx", INT8: "model.int8.onnx"}
PREDICTIONS = "predictions.parquet"
DONE = "export.json"
PARTS = ("val", "test")
COMMON_SIZE = 224
# Ranges decide what an INT8 file answers, hardly how fast: files that are only timed need few images.
TIMING_IMAGES = 16
TURN, UNCOUNTED = 10, 2

Name = TypeVar("Name", bound=Hashable)
Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Exported:
    """The files of one trained student.

    Attributes:
        folder: holds them and their predictions.
        sizes: {``fp32`` or ``int8``: bytes}.
    """

    folder: Path
    sizes: Mapping[str, int]

    def path(self, kind: str) -> Path:
        """Where one of the files is."""
        return self.folder / FILES[kind]

    def predictions(self, kind: str, part: str) -> pd.DataFrame:
        """What a file says of ``val`` or ``test``."""
        frame = pd.read_parquet(self.folder / PREDICTIONS)
        return frame[(frame["model"] == kind) & (frame["split"] == part)].reset_index(drop=True)


def timed_sizes(recipe: Recipe) -> tuple[int, ...]:
    """Sides of the input, pixels, that files are timed at: the recipe's own, and one to compare studies by."""
    return tuple(dict.fromkeys((recipe.data.size, COMMON_SIZE)))


def export_student(context: Context, trained: Path, folder: Path, calibration: Images) -> Exported:
    """Export a trained student, quantize it on training images, and ask both files for their predictions.

    What was exported before from the same weights and settings is kept.

    Args:
        context: of the study.
        trained: folder of ``train_role``.
        folder: where to.
        calibration: uint8 [N, S, S, 3], training images.

    Raises:
        ExportError: the student cannot be exported or quantized.
        RunFolderError: the trained network is missing or damaged.
    """
    inputs = _inputs(context, trained, calibration)
    if not _is_done(folder, inputs):
        fp32, int8 = (folder / FILES[kind] for kind in KINDS)
        export_onnx(load_trained(trained).deployed(), context.spec, fp32)
        counts = quantize_int8(fp32, int8, calibration, context.spec, context.recipe.compress)
        frames = [_predictions(context, folder, kind, part) for kind in KINDS for part in PARTS]
        with atomic_path(folder / PREDICTIONS) as temporary:
            pd.concat(frames, ignore_index=True).to_parquet(temporary)
        hashes = {name: sha256_file(folder / name) for name in (*FILES.values(), PREDICTIONS)}
        write_json(folder / DONE, {"inputs": inputs, "files": hashes, "quantization": counts})
    return Exported(folder, {kind: (folder / name).stat().st_size for kind, name in FILES.items()})


def _inputs(context: Context, trained: Path, calibration: Images) -> str:
    """Hash of everything that the files and their predictions depend on."""
    return sha256_json(
        {
            "version": __version__,
            "weights": sha256_file(trained / WEIGHTS),
            "recipe": context.recipe.model_dump(mode="json", include={"compress", "task", "data"}),
            "calibration": sha256_bytes(calibration.tobytes()),
            "images": context.store.sha256,
            "split": context.split.info["split_sha256"],
        }
    )


def _is_done(folder: Path, inputs: str) -> bool:
    try:
        record = json.loads((folder / DONE).read_text())
        return bool(
            record["inputs"] == inputs
            and all(sha256_file(folder / name) == kept for name, kept in record["files"].items())
        )
    except (OSError, ValueError, KeyError):
        return False


def _predictions(context: Context, folder: Path, kind: str, part: str) -> pd.DataFrame:
    ids, store = context.split.ids(part), context.store
    rows = context.catalog.set_index("image_id", drop=False).loc[ids]
    logits = OnnxClassifier(folder / FILES[kind], context.spec).logits(store.images[store.rows(ids)])
    return predictions_frame(kind, part, rows, logits, context.recipe.task, models=None)


def export_resized(
    context: Context, trained: Path, folder: Path, spec: PreprocessSpec, calibration: Images
) -> dict[str, Path]:
    """The same weights as files for another size, to be timed: their INT8 ranges come from a few enlarged images.

    Raises:
        ExportError: the student cannot be exported at that size.
    """
    fp32, int8 = (folder / FILES[kind] for kind in KINDS)
    enlarged = np.stack([resize_image(image, spec) for image in calibration[:TIMING_IMAGES]])
    export_onnx(load_trained(trained).deployed(), spec, fp32)
    quantize_int8(fp32, int8, enlarged, spec, context.recipe.compress)
    return {FP32: fp32, INT8: int8}


def time_students(
    context: Context, exported: Mapping[str, tuple[Path, Exported]], calibration: Images
) -> dict[str, dict[str, dict[str, Any]]]:
    """Latency of all students' files at several sizes, measured in turns: student -> kind -> size -> figures.

    Args:
        context: of the study.
        exported: {student: folder of its trained network, its files at the study's size}.
        calibration: uint8 [N, S, S, 3], training images.

    Raises:
        ExportError: a student cannot be exported at another size.
    """
    sizes = timed_sizes(context.recipe)
    with tempfile.TemporaryDirectory(prefix="dermdistill-timing-") as temporary:
        files: dict[tuple[str, str, int], tuple[Path, PreprocessSpec]] = {}
        for name, (trained, own) in exported.items():
            for size in sizes:
                spec = context.recipe.data.preprocess(size)
                if spec == context.spec:
                    paths = {kind: own.path(kind) for kind in KINDS}
                else:
                    paths = export_resized(context, trained, Path(temporary) / name / str(size), spec, calibration)
                files |= {(name, kind, size): (path, spec) for kind, path in paths.items()}
        measured = in_turns(files, repeats=context.recipe.evaluate.latency_repeats)
    return {
        name: {kind: {str(size): measured[name, kind, size] for size in sizes} for kind in KINDS} for name in exported
    }


def in_turns(files: Mapping[Name, tuple[Path, PreprocessSpec]], *, repeats: int) -> dict[Name, dict[str, Any]]:
    """Batch-1 latency of several files on one thread, ten runs a turn, file after file, until each has its repeats.

    What slows the machine down for a while slows all of them, not the one that was being timed. The first two runs of
    a turn are not counted.

    Args:
        files: {name: ONNX file and its preprocessing}.
        repeats: counted runs a file, at least.

    Returns:
        {name: ``median``, ``p5``, ``p95`` in milliseconds, ``repeats``, ``threads``}.
    """
    sessions = {
        name: (OnnxClassifier(path, spec, threads=1), random_inputs(1, spec)) for name, (path, spec) in files.items()
    }
    times: dict[Name, list[float]] = {name: [] for name in files}
    for _ in range(-(-repeats // TURN)):
        for name, (classifier, inputs) in sessions.items():
            for run in range(UNCOUNTED + TURN):
                start = perf_counter_ns()
                classifier.run(inputs)
                if run >= UNCOUNTED:
                    times[name].append((perf_counter_ns() - start) / 1e6)
    return {name: _figures(values) for name, values in times.items()}


def _figures(values: list[float]) -> dict[str, Any]:
    p5, median, p95 = np.percentile(values, (5, 50, 95))
    return {"median": float(median), "p5": float(p5), "p95": float(p95), "repeats": len(values), "threads": 1}
