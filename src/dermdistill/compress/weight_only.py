"""INT8 weights alone: a quarter of the size, FP32 arithmetic. For WebAssembly, where INT8 arithmetic is slower."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dermdistill.atomic import atomic_path
from dermdistill.compress.onnx_export import drop_unused, first_line, random_inputs, run_onnx
from dermdistill.errors import ExportError
from dermdistill.preprocess import PreprocessSpec

# Smaller tensors are left: a dequantization costs more than they take.
SMALLEST = 512
_LARGEST = 127


def quantize_weights(fp32: Path, path: Path, spec: PreprocessSpec) -> dict[str, Any]:
    """Write a file whose convolutions and matrix products read int8 weights through DequantizeLinear.

    Weights are symmetric, one scale an output channel.

    Args:
        fp32: file of ``export_onnx``.
        path: file to write, whole or not at all.
        spec: the preprocessing of the model.

    Returns:
        ``weights``: tensors that were quantized; ``parameters``: their numbers.

    Raises:
        ExportError: nothing can be quantized, or the file does not run.
        OutputError: the file cannot be written.
    """
    model = onnx.load(str(fp32))
    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    done: dict[str, str] = {}
    parameters = 0
    for node in list(graph.node):
        axis = _output_axis(node)
        if axis is None or len(node.input) < 2 or node.input[1] not in constants:
            continue
        name = node.input[1]
        weights = numpy_helper.to_array(constants[name])
        if weights.dtype != np.float32 or weights.size < SMALLEST:
            continue
        if name not in done:
            done[name] = _dequantized(graph, constants[name], axis)
            parameters += int(weights.size)
        node.input[1] = done[name]
    if not done:
        raise ExportError(f"{fp32.name}: holds no weights to quantize", rule=f"tensors of at least {SMALLEST} numbers")
    drop_unused(graph)
    with atomic_path(path) as temporary:
        onnx.save(model, str(temporary))
        try:
            logits = run_onnx(temporary, random_inputs(2, spec))
        except Exception as error:
            raise ExportError(
                f"the file with INT8 weights does not run ({first_line(error)})", rule="it loads in ONNX Runtime"
            ) from error
        if not np.isfinite(logits).all():
            raise ExportError("the file with INT8 weights gives logits that are not finite")
    return {"weights": len(done), "parameters": parameters}


def _output_axis(node: onnx.NodeProto) -> int | None:
    """The axis of output channels in the weights of a node, or None where it has none to quantize."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        transposed = any(item.name == "transB" and item.i == 1 for item in node.attribute)
        return 0 if transposed else 1
    return None


def _dequantized(graph: onnx.GraphProto, tensor: onnx.TensorProto, axis: int) -> str:
    """Put int8 weights in the place of a tensor, and give the name of what reads them."""
    weights = numpy_helper.to_array(tensor)
    others = tuple(index for index in range(weights.ndim) if index != axis)
    largest = np.abs(weights).max(axis=others)
    scale = np.where(largest > 0, largest / _LARGEST, 1.0).astype(np.float32)
    shape = [-1 if index == axis else 1 for index in range(weights.ndim)]
    whole = np.clip(np.rint(weights / scale.reshape(shape)), -_LARGEST, _LARGEST).astype(np.int8)
    names = [f"{tensor.name}_int8", f"{tensor.name}_scale"]
    graph.initializer.append(numpy_helper.from_array(whole, names[0]))
    graph.initializer.append(numpy_helper.from_array(scale, names[1]))
    node = helper.make_node("DequantizeLinear", names, [f"{tensor.name}_dequantized"], axis=axis)
    graph.node.insert(0, node)
    output: str = node.output[0]
    return output
