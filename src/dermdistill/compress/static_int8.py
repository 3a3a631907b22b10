"""Static INT8 quantization of an ONNX file: calibrate on training images, insert quantize and dequantize
nodes.

ONNX Runtime's calibrators and QDQ quantizer are driven one batch at a time instead of through
``quantize_static``, which for the histogram methods keeps every activation of all images in memory and fails
where the last batch is smaller. A test holds the result of min-max to that of ``quantize_static``.
"""

import copy
import tempfile
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
from onnxruntime.quantization.shape_inference import quant_pre_process

from dermdistill.atomic import atomic_path
from dermdistill.compress.layer_errors import LayerError, decibels, layer_name, layer_nodes
from dermdistill.compress.onnx_export import INPUT_NAME, first_line, quiet, random_inputs, run_onnx, strip_notes
from dermdistill.config import CompressConfig
from dermdistill.errors import ConfigError, ExportError
from dermdistill.preprocess import PreprocessSpec, normalise

# Histogram methods look at all activations of a batch at once: about 32 images of 64 px, 2 of 224 px.
PIXELS_A_BATCH = 32 * 64 * 64

# Activations that a quantized layer takes in: their bounds become those of its range.
ACTIVATIONS = ("Clip", "Relu")

# method -> (ONNX Runtime's name, its options). Entropy keeps ONNX Runtime's 128 bins: its divergence is
# dominated by the zeros behind a ReLU, and with 512 bins it clips so hard that an ImageNet Lite0 falls from
# 13 to 4 dB.
METHODS: dict[str, tuple[CalibrationMethod, dict[str, Any]]] = {
    "minmax": (CalibrationMethod.MinMax, {}),
    "entropy": (CalibrationMethod.Entropy, {}),
    "percentile": (CalibrationMethod.Percentile, {"percentile": 99.999, "symmetric": False}),
}


class _OneBatch(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime carries no types
    """A calibration reader of a single batch."""

    def __init__(self, inputs: npt.NDArray[np.float32]) -> None:
        self._inputs: npt.NDArray[np.float32] | None = inputs

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        inputs, self._inputs = self._inputs, None
        return None if inputs is None else {INPUT_NAME: inputs}


def _batches(images: npt.NDArray[np.uint8], spec: PreprocessSpec) -> Iterator[npt.NDArray[np.float32]]:
    step = max(1, PIXELS_A_BATCH // (spec.size * spec.size))
    for start in range(0, len(images), step):
        yield normalise(np.asarray(images[start : start + step]), spec)


def check_calibration(images: npt.NDArray[np.uint8], spec: PreprocessSpec) -> None:
    """Refuse calibration images that are not in the form of the store, or none.

    Raises:
        ConfigError: they are.
    """
    wanted = (spec.size, spec.size, 3)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != wanted:
        raise ConfigError(
            f"calibration images are {images.dtype} {list(images.shape)}",
            rule=f"uint8 [N, {spec.size}, {spec.size}, 3], as the image store keeps them",
        )
    if len(images) == 0:
        raise ConfigError(
            "no calibration images were given",
            rule="static INT8 measures the ranges of activations on training images",
            next_step="pass some hundreds of training images (compress.calibration_images)",
        )


def _ranges(prepared: Path, images: npt.NDArray[np.uint8], spec: PreprocessSpec, method: str, folder: Path) -> Any:
    """Calibrated range of every activation tensor (ONNX Runtime's ``TensorsData``)."""
    kind, options = METHODS[method]
    calibrator = create_calibrator(
        prepared, _operators(), str(folder / "augmented.onnx"), calibrate_method=kind, extra_options=options
    )
    for inputs in _batches(images, spec):
        calibrator.collect_data(_OneBatch(inputs))
    return calibrator.compute_data()


def _operators() -> list[str]:
    return sorted({*QLinearOpsRegistry, *QDQRegistry})


def _keep_in_float(graph: onnx.GraphProto, names: Set[str]) -> None:
    """Keep ONNX Runtime from quantizing the weights of float layers between quantized ones by itself, per tensor.

    Its optimizer does so where nothing but an activation stands between a layer and the next quantization (it costs a
    depthwise layer 10 dB). A maximum with the lowest float, which changes nothing, stands there now.
    """
    kept = [node for node in graph.node if node.name in names]
    if not kept:
        return
    lowest = numpy_helper.from_array(np.array(np.finfo(np.float32).min), "lowest_float")
    graph.initializer.append(lowest)
    for node in kept:
        result = node.output[0]
        node.output[0] = f"{result}_in_float"
        guard = helper.make_node("Max", [node.output[0], lowest.name], [result], name=f"{node.name}_in_float")
        graph.node.insert(list(graph.node).index(node) + 1, guard)


def _bounded(ranges: Any, graph: onnx.GraphProto) -> Any:
    """Ranges in which what an activation cuts off has no part: rounding into its range cuts off the same.

    Where a neighbour stays in float, ONNX Runtime quantizes in front of the activation, over a far wider range.
    """
    for node in graph.node:
        readers = [other for other in graph.node if node.input[:1] and node.input[0] in other.input]
        if node.op_type in ACTIVATIONS and len(readers) == 1 and node.input[0] in ranges:
            ranges[node.input[0]] = ranges[node.output[0]]
    return ranges


class Calibrated:
    """An exported model with the ranges of its activations; ``calibrated`` makes one.

    Args:
        prepared: the model, its shapes inferred.
        ranges: of every activation.
        spec: its preprocessing.
        config: says whether weights get 7 bits.
    """

    def __init__(self, prepared: Path, ranges: Any, spec: PreprocessSpec, config: CompressConfig) -> None:
        self.model = onnx.load(str(prepared))
        self.ranges = _bounded(ranges, self.model.graph)
        self.spec = spec
        self.config = config
        self.nodes = {layer_name(node): str(node.name) for node in layer_nodes(self.model.graph)}

    def save(self, path: Path, *, only: Sequence[str] = (), but: Sequence[str] = ()) -> None:
        """Write an INT8 version of the whole model, of the layers ``only``, or of all layers ``but`` these."""
        with quiet():
            quantizer = QDQQuantizer(
                copy.deepcopy(self.model),
                per_channel=True,
                reduce_range=self.config.reduce_range,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=self.ranges,
                nodes_to_quantize=[self.nodes[layer] for layer in only],
                nodes_to_exclude=[self.nodes[layer] for layer in but],
                op_types_to_quantize=_operators(),
                extra_options={},
            )
            quantizer.quantize_model()
            _keep_in_float(quantizer.model.model.graph, {self.nodes[layer] for layer in but})
            quantizer.model.save_model_to_file(str(path), False)
        strip_notes(path)

    def sensitivity(self, images: npt.NDArray[np.uint8]) -> list[LayerError]:
        """How much each layer costs: the logits' signal to noise where it alone is quantized, worst first.

        Args:
            images: uint8 [N, S, S, 3], training images.
        """
        inputs = normalise(np.asarray(images), self.spec)
        with tempfile.TemporaryDirectory(prefix="dermdistill-layers-") as name:
            path = Path(name) / "model.onnx"
            onnx.save(self.model, str(path))
            expected = run_onnx(path, inputs)
            found = []
            for layer in self.nodes:
                self.save(path, only=[layer])
                found.append(LayerError(layer, decibels(expected, run_onnx(path, inputs))))
        return sorted(found, key=lambda item: item.decibels)


@contextmanager
def calibrated(
    fp32: Path, calibration: npt.NDArray[np.uint8], spec: PreprocessSpec, config: CompressConfig
) -> Iterator[Calibrated]:
    """Measure the ranges of all activations on training images.

    Args:
        fp32: file written by ``export_onnx``.
        calibration: uint8 [N, S, S, 3], training images only; streamed, so a memory map is fine.
        spec: the preprocessing of the model.
        config: calibration method (a key of ``METHODS``) and weight range.

    Raises:
        ConfigError: no calibration images, or not in the form of the store.
        ExportError: the model cannot be quantized.
    """
    check_calibration(calibration, spec)
    with tempfile.TemporaryDirectory(prefix="dermdistill-int8-") as name:
        folder = Path(name)
        prepared = folder / "prepared.onnx"
        with _refusing(fp32), quiet():
            quant_pre_process(str(fp32), str(prepared))
            ranges = _ranges(prepared, calibration, spec, config.method, folder)
        yield Calibrated(prepared, ranges, spec, config)


@contextmanager
def _refusing(fp32: Path) -> Iterator[None]:
    try:
        yield
    except (ExportError, OSError):
        raise
    except Exception as error:
        raise ExportError(
            f"{fp32.name} cannot be quantized ({first_line(error)})",
            rule="a file written by export_onnx, made of operators that ONNX Runtime can run in INT8",
        ) from error


def count_nodes(path: Path) -> dict[str, int]:
    """Nodes of an ONNX file, and how many convolutions and matrix products take quantized inputs.

    Returns:
        ``nodes``, ``convolutions``, ``quantized_convolutions``, ``matrix_products``,
        ``quantized_matrix_products``.
    """
    nodes = onnx.load(str(path)).graph.node
    dequantized = {output for node in nodes if node.op_type == "DequantizeLinear" for output in node.output}
    counts = {"nodes": len(nodes)}
    for name, kinds in (("convolutions", {"Conv"}), ("matrix_products", {"Gemm", "MatMul"})):
        members = [node for node in nodes if node.op_type in kinds]
        counts[name] = len(members)
        counts[f"quantized_{name}"] = sum(set(node.input[:2]) <= dequantized for node in members)
    return counts


def _check_result(path: Path, spec: PreprocessSpec) -> dict[str, int]:
    counts = count_nodes(path)
    logits = run_onnx(path, random_inputs(2, spec))
    if not np.isfinite(logits).all():
        raise ExportError("the INT8 file gives logits that are not finite", rule="every logit is a finite number")
    if counts["quantized_convolutions"] + counts["quantized_matrix_products"] == 0:
        raise ExportError(
            f"nothing was quantized: {counts}",
            rule="an INT8 file computes its convolutions and matrix products in INT8",
            next_step="export with dermdistill.compress.onnx_export, which keeps the operators quantizable",
        )
    return counts


def write_int8(model: Calibrated, int8: Path, *, float_layers: Sequence[str] = ()) -> dict[str, int]:
    """Write the INT8 version of a calibrated model: QDQ, uint8 activations, int8 weights per output channel.

    Args:
        model: see ``calibrated``.
        int8: file to write, whole or not at all.
        float_layers: layers that stay in float, by their names in ``model.nodes``.

    Returns:
        The counts of ``count_nodes``.

    Raises:
        ConfigError: there is no such layer.
        ExportError: the model cannot be quantized, or the result does not load, run or quantize anything.
        OutputError: the file cannot be written.
    """
    unknown = sorted(set(float_layers) - set(model.nodes))
    if unknown:
        raise ConfigError(f"no layer {unknown[0]!r}", rule=f"one of {', '.join(model.nodes)}")
    with atomic_path(int8) as temporary, _refusing(int8):
        model.save(temporary, but=float_layers)
        return _check_result(temporary, model.spec)


def quantize_int8(
    fp32: Path, int8: Path, calibration: npt.NDArray[np.uint8], spec: PreprocessSpec, config: CompressConfig
) -> dict[str, Any]:
    """``calibrated`` and ``write_int8`` in one.

    Returns:
        The counts of ``count_nodes`` with ``calibration_images`` and ``method``.
    """
    with calibrated(fp32, calibration, spec, config) as model:
        counts = write_int8(model, int8)
    return {**counts, "calibration_images": len(calibration), "method": config.method}
