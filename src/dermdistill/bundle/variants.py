"""The model files that a bundle may hold: one trained student for several runtimes, in several precisions."""

from dataclasses import dataclass
from typing import Literal

FP32_FILE = "model.onnx"
INT8_FILE = "model.int8.onnx"
WEB_FILE = "model.web.onnx"
EXECUTORCH_FILE = "model.fp32.pte"
EXECUTORCH_INT8_FILE = "model.pte"

Runtime = Literal["onnxruntime", "executorch"]


@dataclass(frozen=True)
class Variant:
    """One file.

    Attributes:
        name: of its model in ``evaluation.json``, under which its thresholds stand in the manifest.
        file: its name in the bundle.
        runtime: what runs it. An ExecuTorch file takes one image at a time.
        precision: ``fp32``; ``int8`` of weights and activations; ``int8 weights`` alone.
        title: for tables.
    """

    name: str
    file: str
    runtime: Runtime
    precision: Literal["fp32", "int8", "int8 weights"]
    title: str


VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant("student", FP32_FILE, "onnxruntime", "fp32", "ONNX Runtime FP32"),
        Variant("student_int8", INT8_FILE, "onnxruntime", "int8", "ONNX Runtime INT8"),
        Variant("student_web", WEB_FILE, "onnxruntime", "int8 weights", "ONNX Runtime, INT8 weights"),
        Variant("student_executorch", EXECUTORCH_FILE, "executorch", "fp32", "ExecuTorch FP32"),
        Variant("student_int8_executorch", EXECUTORCH_INT8_FILE, "executorch", "int8", "ExecuTorch INT8"),
    )
}
# The name of each file's model.
MODEL_NAMES: dict[str, str] = {variant.file: variant.name for variant in VARIANTS.values()}
