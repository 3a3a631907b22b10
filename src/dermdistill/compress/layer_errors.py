"""Where an INT8 file loses its accuracy: layer by layer, its outputs beside those of the FP32 file."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from dermdistill.compress.onnx_export import INPUT_NAME
from dermdistill.errors import ExportError

LAYERS = ("Conv", "Gemm", "MatMul")
# Decibels of a difference that is none: the two outputs are the same to the last bit.
SAME = 200.0
_ORT_ERROR = 3


@dataclass(frozen=True)
class LayerError:
    """One convolution or matrix product.

    Attributes:
        layer: name of its parameters, such as ``branches.0.network.blocks.1.0.conv_pw``, or of its node.
        decibels: signal to quantization noise of its output, 10 log10(sum x^2 / sum (x - q)^2); higher is better.
    """

    layer: str
    decibels: float


def decibels(expected: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> float:
    """Signal to noise of ``found`` against ``expected``, 10 log10(sum x^2 / sum (x - q)^2), at most 200."""
    signal = float(np.square(expected, dtype=np.float64).sum())
    noise = float(np.square(expected.astype(np.float64) - found).sum())
    if noise == 0:
        return SAME
    return min(SAME, 10 * float(np.log10(max(signal, 1e-300) / noise)))


def layer_errors(fp32: Path, int8: Path, inputs: npt.NDArray[np.float32]) -> list[LayerError]:
    """Signal to noise behind every layer, in the order of computation; the errors of earlier layers are in it.

    Args:
        fp32: file of ``export_onnx``.
        int8: any version of it with the same layers in the same order.
        inputs: float32 [B, 3, S, S], normalised.

    Raises:
        ExportError: the second file lacks a layer of the first.
    """
    expected, found = _outputs(fp32, inputs), _outputs(int8, inputs)
    errors = []
    for name, value in expected.items():
        # Exporters put names of their own modules in front.
        same = [other for other in found if other == name or other.endswith(f".{name}")]
        if len(same) != 1:
            raise ExportError(
                f"{int8.name} has {len(same)} layers {name!r} of {fp32.name}",
                rule="errors are followed through two files of one network",
            )
        errors.append(LayerError(name, decibels(value, found[same[0]])))
    return errors


def where_error_grows(errors: Sequence[LayerError]) -> str:
    """The layer that adds most noise, as a share of the signal: ``NAME (31.2 -> 18.4 dB)``; empty without layers."""
    if not errors:
        return ""
    noise = [0.0, *(10 ** (-item.decibels / 10) for item in errors)]
    worst = int(np.argmax(np.diff(noise)))
    before = f"{errors[worst - 1].decibels:.1f}" if worst else "the input"
    return f"{errors[worst].layer} ({before} -> {errors[worst].decibels:.1f} dB)"


def layer_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Convolutions and matrix products, in the order of computation."""
    return [node for node in graph.node if node.op_type in LAYERS]


def layer_name(node: onnx.NodeProto) -> str:
    """The name of a layer's parameters without what exporters and quantizers add to it, or that of its node."""
    if len(node.input) < 3:
        return str(node.name)
    name = str(node.input[2]).removesuffix("_dequantized")
    return name.removeprefix("model.").removesuffix(".bias").removesuffix(".weight_bias")


def _outputs(path: Path, inputs: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
    model = onnx.load(str(path))
    nodes = layer_nodes(model.graph)
    known = {item.name for item in model.graph.output}
    wanted = [node.output[0] for node in nodes]
    for name in wanted:
        if name not in known:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ORT_ERROR
    with tempfile.TemporaryDirectory(prefix="dermdistill-layers-") as folder:
        file = Path(folder) / "model.onnx"
        onnx.save(model, str(file))
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    values = session.run(wanted, {INPUT_NAME: inputs})
    return {layer_name(node): np.asarray(value, dtype=np.float32) for node, value in zip(nodes, values, strict=True)}
