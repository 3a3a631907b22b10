"""LiteRT files for phones: FP32 by litert-torch, INT8 by the AI Edge Quantizer. Needs the extra ``litert``."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, from_numpy, nn

from dermdistill.atomic import atomic_path
from dermdistill.compress.litert_runtime import LiteRTClassifier, channels_last, litert_packages
from dermdistill.compress.onnx_export import (
    INPUT_NAME,
    OUTPUT_NAME,
    PARITY_TOLERANCE,
    first_line,
    random_inputs,
    torch_logits,
)
from dermdistill.compress.static_int8 import check_calibration
from dermdistill.errors import BundleError, ExportError
from dermdistill.preprocess import PreprocessSpec, normalise

SIGNATURE = "serving_default"
PARITY_IMAGES = 3
# What is computed in INT8. LayerNorm, the pooling before it and the gates of layer fusion stay in float: they are
# little work, and the softmax of the gates holds a constant of minus infinity, which INT8 has not.
INT8_OPERATORS = (
    "INPUT",
    "OUTPUT",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "BATCH_MATMUL",
    "ADD",
    "PAD",
    "PADV2",
    "MAX_POOL_2D",
    "RELU",
    "HARD_SWISH",
    "TRANSPOSE",
    "RESHAPE",
)


class _ChannelsLast(nn.Module):
    """Images [1, S, S, 3], as phones hold them, to named logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {OUTPUT_NAME: self.model(images.permute(0, 3, 1, 2))}


def _convert(model: nn.Module, spec: PreprocessSpec) -> Any:
    import litert_torch

    example = from_numpy(channels_last(random_inputs(1, spec)))
    try:
        return litert_torch.convert(_ChannelsLast(model).eval(), sample_kwargs={INPUT_NAME: example})
    except Exception as error:
        raise ExportError(
            f"{type(model).__name__} cannot be converted to LiteRT ({first_line(error)})",
            rule="the forward pass must be traceable by torch.export, of operators that litert-torch knows",
            next_step="choose another backbone, or keep Python branches on tensor values out of the model",
        ) from error


def check_litert_parity(model: nn.Module, path: Path, spec: PreprocessSpec) -> float:
    """The largest difference of the logits of an FP32 file and its model, over three noise images.

    It is absolute, or a share of the largest logit where that is above 1, as in ``onnx_export.check_parity``.

    Raises:
        ExportError: it is above 1e-4, not finite, or the file does not load or run.
        MissingExtraError: the extra ``litert`` is missing.
    """
    inputs = random_inputs(PARITY_IMAGES, spec, seed=1)
    expected = torch_logits(model, inputs)
    found = _checked_logits(path, spec, inputs)
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    difference = float(np.abs(found - expected).max()) / scale if found.shape == expected.shape else np.inf
    if not difference <= PARITY_TOLERANCE:
        raise ExportError(
            f"the LiteRT file differs from the model by {difference:.2e}",
            rule=f"logits may differ by at most {PARITY_TOLERANCE:.0e}",
            next_step="nothing was written; look for layers that behave differently in the exporter",
        )
    return difference


def _checked_logits(path: Path, spec: PreprocessSpec, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Logits of a file that was just made; that it does not run is the export's fault."""
    try:
        classifier = LiteRTClassifier(path, spec)
        return np.concatenate([classifier.run(image[None]) for image in inputs])
    except BundleError as error:
        raise ExportError(
            f"the LiteRT file does not run ({first_line(error)})", rule="it must load and run in LiteRT"
        ) from error


def export_litert(model: nn.Module, spec: PreprocessSpec, path: Path) -> None:
    """Write a model as one FP32 LiteRT file: ``images`` float32 [1, S, S, 3], normalised, in; ``logits`` [1, K] out.

    The model itself is left as it is. The file appears only after its logits agreed with the model's.

    Args:
        model: images [1, 3, S, S] -> logits [1, K].
        spec: its preprocessing.
        path: a ``.tflite`` file; written whole or not at all.

    Raises:
        ExportError: the model cannot be converted, or the file computes something else.
        MissingExtraError: the extra ``litert`` is missing.
        OutputError: the file cannot be written.
    """
    source = copy.deepcopy(model).cpu().eval()
    torch_logits(source, random_inputs(1, spec))
    with litert_packages(), atomic_path(path) as temporary:
        _convert(source, spec).export(str(temporary))
        check_litert_parity(source, temporary, spec)


def quantize_litert(
    fp32: Path, int8: Path, calibration: npt.NDArray[np.uint8], spec: PreprocessSpec
) -> dict[str, int | str]:
    """Write the static INT8 version of an exported file: int8 in, int8 out, int8 weights per output channel.

    The ranges of activations are the extremes over all calibration images, as in ONNX Runtime's min-max; the
    quantizer's own default, a moving average, clips.

    Args:
        fp32: file of ``export_litert``.
        int8: file to write, whole or not at all.
        calibration: uint8 [N, S, S, 3], training images only; a memory map is read one by one.
        spec: the preprocessing of the model.

    Returns:
        ``quantized_layers`` (with weights), ``calibration_images``, ``method``.

    Raises:
        ConfigError: no calibration images, or not in the form of the store.
        ExportError: the file cannot be quantized, or the result does not load, run or quantize anything.
        MissingExtraError: the extra ``litert`` is missing.
        OutputError: the file cannot be written.
    """
    check_calibration(calibration, spec)
    with litert_packages(), atomic_path(int8) as temporary:
        temporary.write_bytes(_quantize(fp32, calibration, spec))
        logits = _checked_logits(temporary, spec, random_inputs(1, spec))
        layers = LiteRTClassifier(temporary, spec).quantized_layers
    if not np.isfinite(logits).all() or layers == 0:
        raise ExportError(f"{fp32.name}: nothing was quantized", rule="an INT8 file computes its layers in INT8")
    return {"quantized_layers": layers, "calibration_images": len(calibration), "method": "minmax"}


def _quantize(fp32: Path, images: npt.NDArray[np.uint8], spec: PreprocessSpec) -> bytes:
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.calibrator import Calibrator
    from ai_edge_quantizer.quantizer import Quantizer
    from ai_edge_quantizer.recipe_manager import RecipeManager
    from ai_edge_quantizer.utils.qsv_utils import min_max_update

    recipe = RecipeManager()
    for name in INT8_OPERATORS:
        recipe.add_static_config(".*", qtyping.TFLOperationName[name], activation_num_bits=8, weight_num_bits=8)
    try:
        calibrator = Calibrator(str(fp32), num_threads=1, qsv_update_func=min_max_update)
        for image in images:
            sample = channels_last(normalise(np.asarray(image[None]), spec))
            calibrator.calibrate({SIGNATURE: [{INPUT_NAME: sample}]}, recipe)
        quantizer = Quantizer(str(fp32), recipe.get_quantization_recipe())
        result = quantizer.quantize(calibrator.get_model_qsvs(), enable_progress_report=False)
    except Exception as error:
        raise ExportError(
            f"{fp32.name} cannot be quantized ({first_line(error)})",
            rule="a file written by export_litert, made of operators that LiteRT can run in INT8",
        ) from error
    return bytes(result.quantized_model)
