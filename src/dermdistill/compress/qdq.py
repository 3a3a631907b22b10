"""A PT2E program as an ONNX file that ONNX Runtime computes in INT8: the same numbers in the form that it can fuse.

The exporter's quantize and dequantize nodes are those of XNNPACK: int8 activations, float biases, a ReLU6 in front of
the quantization that cuts off the same. ONNX Runtime's fast kernels on x86 want uint8 activations, int32 biases, and
nothing between a layer and its quantization. The first and the last change nothing; a bias is rounded to the product
of the two scales, finer than one part in 2^15 of what it is added to.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from torch import nn

from dermdistill.atomic import atomic_path
from dermdistill.compress.onnx_export import (
    drop_unused,
    first_line,
    quiet,
    random_inputs,
    run_onnx,
    strip_notes,
    to_onnx,
)
from dermdistill.errors import ExportError
from dermdistill.preprocess import PreprocessSpec

LAYERS = ("Conv", "Gemm")
_UNSIGNED_SHIFT = 128
_LARGEST_INT32 = 2**31 - 1


def export_qdq(program: nn.Module, spec: PreprocessSpec, path: Path) -> None:
    """Write a program of ``pt2e.py`` as one ONNX file with uint8 activations, int8 weights and int32 biases.

    Args:
        program: images [B, 3, S, S] -> logits [B, K].
        spec: its preprocessing.
        path: file to write, whole or not at all.

    Raises:
        ExportError: it cannot be exported, or the file does not run.
        OutputError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        with quiet():
            to_onnx(program, spec).save(str(temporary), external_data=False)
        model = onnx.load(str(temporary))
        Repair(model.graph).all()
        onnx.save(model, str(temporary))
        strip_notes(temporary)
        try:
            finite = bool(np.isfinite(run_onnx(temporary, random_inputs(2, spec))).all())
        except Exception as error:
            raise ExportError(
                f"the INT8 program does not run as ONNX ({first_line(error)})", rule="it loads in ONNX Runtime"
            ) from error
        if not finite:
            raise ExportError("the INT8 file gives logits that are not finite", rule="every logit is a finite number")


class Repair:
    """Changes of one graph, in place.

    Args:
        graph: with per-tensor activations and per-channel weights, as the exporter writes them.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.constants = {item.name: item for item in graph.initializer}
        self.producers = {name: node for node in graph.node for name in node.output}
        self.users: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)

    def all(self) -> None:
        """Every change, and nothing left over."""
        for node in list(self._activations("Clip")):
            self._drop_clip(node)
        for node in list(self._activations("QuantizeLinear")):
            self._unsigned(node)
        for node in [node for node in self.graph.node if node.op_type in LAYERS]:
            self._integer_bias(node)
        for node in list(self._activations("DequantizeLinear")):
            self._own_zero(node)
        drop_unused(self.graph)

    def _activations(self, kind: str) -> Iterator[onnx.NodeProto]:
        return (node for node in self.graph.node if node.op_type == kind)

    def _value(self, name: str) -> npt.NDArray[np.generic]:
        return np.asarray(numpy_helper.to_array(self.constants[name]))

    def _add(self, name: str, value: npt.NDArray[np.generic]) -> str:
        if name not in self.constants:
            tensor = numpy_helper.from_array(np.asarray(value), name)
            self.graph.initializer.append(tensor)
            self.constants[name] = tensor
        return name

    def _drop_clip(self, clip: onnx.NodeProto) -> None:
        """A clip whose only reader is a quantization that cuts off at the same places does nothing."""
        readers = self.users.get(clip.output[0], [])
        if len(readers) != 1 or readers[0].op_type != "QuantizeLinear" or len(clip.input) < 3:
            return
        (reader,) = readers
        scale, zero = (self._value(name) for name in reader.input[1:3])
        step = float(scale)
        smallest = -_UNSIGNED_SHIFT if zero.dtype == np.int8 else 0
        reach = [(limit - int(zero)) * step for limit in (smallest, smallest + 255)]
        low, high = (float(self._value(name)) for name in clip.input[1:3])
        if reach[0] < low - step / 2 or reach[1] > high + step / 2:
            return
        reader.input[0] = clip.input[0]
        self.users[clip.input[0]] = [reader]
        self.graph.node.remove(clip)

    def _unsigned(self, quantize: onnx.NodeProto) -> None:
        """int8 to uint8: every value and the zero point move up by 128."""
        zero = self._value(quantize.input[2])
        if zero.dtype != np.int8:
            return
        shifted = np.asarray(zero.astype(np.int32) + _UNSIGNED_SHIFT, dtype=np.uint8)
        for node in (quantize, *self.users.get(quantize.output[0], [])):
            if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
                raise ExportError(
                    f"a {node.op_type} reads quantized values", rule="only DequantizeLinear reads what was quantized"
                )
        for node in (quantize, *self.users.get(quantize.output[0], [])):
            node.input[2] = self._add(f"{node.input[2]}_unsigned", shifted)

    def _own_zero(self, dequantize: onnx.NodeProto) -> None:
        """int8 weights get zero points of their own: ONNX Runtime asks for it where it rewrites both."""
        weight, zero = dequantize.input[0], dequantize.input[2] if len(dequantize.input) > 2 else ""
        if weight in self.constants and zero in self.constants and self._value(zero).dtype == np.int8:
            dequantize.input[2] = self._add(f"{weight}_zero", self._value(zero))

    def _integer_bias(self, layer: onnx.NodeProto) -> None:
        """A float bias becomes int32 with the scale of the products that it is added to."""
        if len(layer.input) < 3 or layer.input[2] not in self.constants:
            return
        inputs = [self.producers.get(name) for name in layer.input[:2]]
        if any(node is None or node.op_type != "DequantizeLinear" for node in inputs):
            return
        scales = [self._value(node.input[1]).astype(np.float64) for node in inputs if node is not None]
        scale = np.asarray(scales[0] * scales[1], dtype=np.float32)
        bias = self._value(layer.input[2]).astype(np.float64)
        whole = np.rint(bias / scale.astype(np.float64))
        if np.abs(whole).max(initial=0.0) > _LARGEST_INT32:
            return
        name = layer.input[2]
        names = [
            self._add(f"{name}_quantized", whole.astype(np.int32)),
            self._add(f"{name}_scale", np.broadcast_to(scale, whole.shape).copy()),
            self._add(f"{name}_zero", np.zeros(whole.shape, dtype=np.int32)),
        ]
        node = helper.make_node("DequantizeLinear", names, [f"{name}_dequantized"], axis=0)
        self.graph.node.insert(list(self.graph.node).index(layer), node)
        layer.input[2] = node.output[0]
