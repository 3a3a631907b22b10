"""From the trained student to the files of its bundle: exported, quantized, run in their own runtimes, and gated."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dermdistill.atomic import make_folder, write_json
from dermdistill.bundle.predictor import OnnxClassifier
from dermdistill.bundle.variants import VARIANTS
from dermdistill.compress.calibration import calibration_rows
from dermdistill.compress.dynamic_int8 import quantize_dynamically
from dermdistill.compress.executorch_export import ExecuTorchClassifier, export_executorch
from dermdistill.compress.layer_errors import layer_errors, where_error_grows
from dermdistill.compress.onnx_export import export_onnx
from dermdistill.compress.pt2e import quantized_after_training
from dermdistill.compress.qat import load_quantized
from dermdistill.compress.qdq import export_qdq
from dermdistill.compress.static_int8 import Calibrated, calibrated, write_int8
from dermdistill.compress.weight_only import quantize_weights
from dermdistill.errors import GateError
from dermdistill.evaluate.parity import gate_faults, parity, part_metrics
from dermdistill.models.hybrid import HybridClassifier
from dermdistill.pipeline.context import Context
from dermdistill.preprocess import normalise
from dermdistill.training.loop import TrainingData
from dermdistill.training.roles import load_trained
from dermdistill.training.validation import predict_logits

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
FOLDER = "compression"
RECORD = f"{FOLDER}/compression.json"
QAT_FOLDER = "student_qat"
PARTS = ("val", "test")
# Training images on which errors are followed through the layers.
TRACED = 32
MEGABYTE = 1e6


@dataclass(frozen=True)
class Export:
    """One file that was made.

    Attributes:
        name: in ``VARIANTS`` where it is shipped; another where it stands for comparison.
        path: of the file.
        runtime: ``onnxruntime`` or ``executorch``.
        how: it was made.
        layers: an ONNX file of the same arithmetic, whose layers can be compared with those of the FP32 file; None
            where there is nothing to find.
    """

    name: str
    path: Path
    runtime: str
    how: str
    layers: Callable[[], Path] | None = None

    @property
    def shipped(self) -> bool:
        """Whether it is part of the bundle."""
        return self.name in VARIANTS


class Compression:
    """All files of one student.

    Args:
        context: of the run.
        bundle: folder for the files that are shipped.
        others: folder for those that stand for comparison.
    """

    def __init__(self, context: Context, bundle: Path, others: Path) -> None:
        self.context = context
        self.bundle = bundle
        self.others = make_folder(others)
        self.config = context.recipe.compress
        self.spec = context.spec
        self.exports: list[Export] = []
        self.choices: dict[str, Any] = {}

    @cached_property
    def student(self) -> HybridClassifier:
        """The trained student."""
        return load_trained(self.context.path / "student")

    @cached_property
    def calibration(self) -> Images:
        """Training images that set ranges."""
        return calibration_images(self.context)

    @cached_property
    def reference(self) -> dict[str, Floats]:
        """Logits of the FP32 PyTorch student on both parts."""
        store = self.context.store
        deployed = self.student.deployed()
        return {
            part: predict_logits(deployed, store.images, self.context.rows(part), self.spec, batch_size=64)
            for part in PARTS
        }

    @cached_property
    def data(self) -> TrainingData:
        """Images, labels and parts."""
        return self.context.training_data(self.spec)

    @cached_property
    def aware(self) -> torch.nn.Module:
        """The INT8 program of the quantization-aware training."""
        folder = self.context.path / QAT_FOLDER
        return load_quantized(folder, self.student, self.data, self.calibration[:TRACED]).converted()

    def labels(self, part: str) -> npt.NDArray[np.int64]:
        """Classes of a part's images."""
        return self.data.labels[self.context.rows(part)]

    def path(self, name: str) -> Path:
        """Where a file that is shipped goes."""
        return self.bundle / VARIANTS[name].file

    def add(
        self, name: str, path: Path, how: str, *, runtime: str = "onnxruntime", layers: Callable[[], Path] | None = None
    ) -> None:
        """Take note of a file that stands at ``path``."""
        self.exports.append(Export(name, path, runtime, how, layers))

    def logits(self, runtime: str, path: Path, part: str) -> Floats:
        """A file's logits on a part, in its own runtime."""
        store = self.context.store
        images = store.images[self.context.rows(part)]
        if runtime == "executorch":
            return ExecuTorchClassifier(path, self.spec).logits(images)
        return OnnxClassifier(path, self.spec).logits(images)

    def make(self) -> None:
        """Write every file that the recipe asks for."""
        fp32 = self.path("student")
        export_onnx(self.student.deployed(), self.spec, fp32)
        self.add("student", fp32, "exported")
        static = self.others / "static.onnx"
        with calibrated(fp32, self.calibration, self.spec, self.config) as model:
            self._static(model, static)
        files = {"static": static}
        if self.config.qat_epochs:
            files["aware"] = self.others / "aware.onnx"
            export_qdq(self.aware, self.spec, files["aware"])
        self._choose(files)
        quantize_weights(fp32, self.path("student_web"), self.spec)
        self.add("student_web", self.path("student_web"), "int8 weights alone")
        dynamic = self.others / "dynamic.onnx"
        quantize_dynamically(fp32, dynamic, self.spec)
        self.add("dynamic", dynamic, "dynamic quantization")
        if self.config.mobile:
            self._mobile()

    def _static(self, model: Calibrated, path: Path) -> None:
        """Static INT8 with as few layers in float as the gate needs on the validation part."""
        count = min(self.config.sensitivity_images, len(self.calibration))
        ranking = model.sensitivity(self.calibration[:: max(1, len(self.calibration) // count)][:count])
        most = min(self.config.float_layers, len(ranking) - 1)
        tries: list[dict[str, Any]] = []
        for number in range(most + 1):
            kept = [item.layer for item in ranking[:number]]
            write_int8(model, path, float_layers=kept)
            result = parity(
                self.reference["val"],
                self.logits("onnxruntime", path, "val"),
                self.labels("val"),
                self.context.recipe.task,
            )
            tries.append({"float_layers": kept, **result})
            if not gate_faults(result, self.config.gate):
                break
        passed = not gate_faults(tries[-1], self.config.gate)
        chosen = tries[-1] if passed else max(tries, key=lambda tried: tried["same_label"])
        if chosen is not tries[-1]:
            write_int8(model, path, float_layers=chosen["float_layers"])
        self.choices["float_layers"] = chosen["float_layers"]
        self.choices["float_layers_tried"] = tries
        self.choices["sensitivity"] = [{"layer": item.layer, "decibels": item.decibels} for item in ranking]

    def _choose(self, files: Mapping[str, Path]) -> None:
        """Ship the better INT8 file on the validation part; the other one is kept beside it."""
        monitor, task = self.context.recipe.student.monitor, self.context.recipe.task
        figures = {
            how: part_metrics(self.logits("onnxruntime", path, "val"), self.labels("val"), task)
            for how, path in files.items()
        }
        best = max(files, key=lambda how: (figures[how][monitor] or 0.0, how == "static"))
        self.choices |= {"int8": best, "int8_chosen_by": f"val {monitor}", "int8_on_validation": figures}
        for how, path in files.items():
            target = self.path("student_int8") if how == best else path
            if how == best:
                path.replace(target)
            self.add("student_int8" if how == best else how, target, _TITLES[how], layers=partial(Path, target))

    def _mobile(self) -> None:
        fp32 = self.path("student_executorch")
        export_executorch(self.student.deployed(), self.spec, fp32)
        self.add("student_executorch", fp32, "exported", runtime="executorch")
        programs: dict[str, Callable[[], torch.nn.Module]] = {
            "static": lambda: quantized_after_training(self.student.deployed(), self.calibration, self.spec)
        }
        if self.config.qat_epochs:
            programs["aware"] = lambda: self.aware
        for how, program in programs.items():
            shipped = how == self.choices["int8"]
            name = "student_int8_executorch" if shipped else f"{how}_executorch"
            path = self.path(name) if shipped else self.others / f"{how}.pte"
            made = program()
            export_executorch(made, self.spec, path)
            traced = self.others / f"{how}_traced.onnx"
            self.add(
                name,
                path,
                f"PT2E, {_TITLES[how]}",
                runtime="executorch",
                layers=partial(self._traced, made, traced),
            )

    def _traced(self, program: torch.nn.Module, path: Path) -> Path:
        """A PT2E program as ONNX, whose layers can be looked into."""
        export_qdq(program, self.spec, path)
        return path

    def measured(self) -> tuple[dict[str, Any], dict[str, Floats]]:
        """Every file on the test part in its own runtime, and the logits of those that are shipped on validation.

        Returns:
            what ``compression.json`` holds, and validation logits by name.
        """
        task = self.context.recipe.task
        files, validation = {}, {}
        traced = normalise(np.asarray(self.calibration[:TRACED]), self.spec)
        for export in self.exports:
            found = self.logits(export.runtime, export.path, "test")
            if export.shipped:
                validation[export.name] = self.logits(export.runtime, export.path, "val")
            result = parity(self.reference["test"], found, self.labels("test"), task)
            # Comparisons are measured and never gated.
            faults = gate_faults(result, self.config.gate) if export.shipped else []
            faults += self._too_large(export)
            errors = []
            if export.layers is not None and (faults or export.runtime == "onnxruntime"):
                errors = layer_errors(self.path("student"), export.layers(), traced)
            files[export.name] = {
                "file": export.path.name,
                "runtime": export.runtime,
                "how": export.how,
                "shipped": export.shipped,
                "bytes": export.path.stat().st_size,
                **result,
                "faults": faults,
                "error_grows_at": where_error_grows(errors),
                "layers": [{"layer": item.layer, "decibels": item.decibels} for item in errors],
            }
        record = {
            "reference": {part: part_metrics(self.reference[part], self.labels(part), task) for part in PARTS},
            "gate": self.config.gate.model_dump(),
            "calibration_images": len(self.calibration),
            "method": self.config.method,
            "choices": self.choices,
            "files": files,
        }
        return record, validation

    def _too_large(self, export: Export) -> list[str]:
        limit, size = self.config.max_megabytes, export.path.stat().st_size
        small = export.shipped and VARIANTS[export.name].precision != "fp32"
        if limit is None or not small or size <= limit * MEGABYTE:
            return []
        return [f"has {size:,} bytes, at most {limit * MEGABYTE:,.0f} are allowed (compress.max_megabytes)"]


_TITLES = {"static": "static, after training", "aware": "static, quantization-aware training"}


def calibration_images(context: Context) -> Images:
    """The run's calibration images, uint8 [N, S, S, 3]: a stratified sample of its training part."""
    data = context.training_data(context.spec)
    rows = data.train_rows
    count, seed = context.recipe.compress.calibration_images, context.recipe.seed
    return np.asarray(context.store.images[calibration_rows(rows, data.labels[rows], count, seed)])


def compress_student(context: Context, bundle: Path) -> tuple[dict[str, Any], dict[str, Floats]]:
    """Write all model files into ``bundle``, measure every one, and keep the record of it in ``compression/``.

    Returns:
        the record, and the validation logits of each file of the bundle, by name.

    Raises:
        GateError: a file lost more than the recipe allows, or is too large. The record is kept.
    """
    work = Compression(context, bundle, context.path / FOLDER)
    work.make()
    record, validation = work.measured()
    write_json(context.path / RECORD, record)
    refuse(record["files"])
    return record, validation


def refuse(files: Mapping[str, Mapping[str, Any]]) -> None:
    """Stop where a file did not pass its gate.

    Raises:
        GateError: with every fault, and where the error grows.
    """
    lines: Sequence[str] = [
        f"{name} ({entry['how']}): {fault}{_grows(entry)}" for name, entry in files.items() for fault in entry["faults"]
    ]
    if lines:
        raise GateError(
            "\n".join(lines),
            rule="compress.gate and compress.max_megabytes say what an exported file may lose, and weigh",
            next_step=(
                f"see {RECORD}; allow more layers in float (compress.float_layers), train with "
                "compress.qat_epochs, or widen the gate"
            ),
        )


def _grows(entry: Mapping[str, Any]) -> str:
    return f"; its error grows most at {entry['error_grows_at']}" if entry["error_grows_at"] else ""
