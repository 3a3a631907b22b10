"""INT8 through torchao's PT2E with the XNNPACK quantizer: after training, and while training.

The network is taken as a graph by ``torch.export``; observers or fake quantization stand where XNNPACK will compute in
INT8 (int8 activations per tensor, int8 weights per output channel, after Jacob et al. 2018, arXiv 1712.05877). The
converted program goes to ExecuTorch and, as plain quantize and dequantize nodes, to ONNX. Needs the extra ``mobile``.
"""

import copy
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dermdistill.compress.onnx_export import first_line, quiet
from dermdistill.errors import ExportError, MissingExtraError
from dermdistill.models.output import Output
from dermdistill.preprocess import PreprocessSpec, normalise

LARGEST_BATCH = 4096
BATCH = 32


@contextmanager
def mobile_packages() -> Iterator[None]:
    """Say which extra is missing where torchao or ExecuTorch cannot be imported in the block.

    Raises:
        MissingExtraError: in place of ModuleNotFoundError.
    """
    try:
        with quiet():
            yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("executorch", "torchao"):
            raise
        raise MissingExtraError(
            f"the package {package!r} is not installed",
            rule="ExecuTorch files and quantization-aware training need the extra `mobile`",
            next_step="pip install 'dermdistill[mobile]', or set compress.mobile=false and compress.qat_epochs=0",
        ) from error


def require_mobile() -> None:
    """Fail now where the extra ``mobile`` is missing.

    Raises:
        MissingExtraError: it is.
    """
    with mobile_packages():
        importlib.import_module("executorch.backends.xnnpack.quantizer.xnnpack_quantizer")
        importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")


def _quantizer(*, aware: bool) -> Any:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )

    class BehindClamps(XNNPACKQuantizer):  # type: ignore[misc]  # executorch carries no types
        """XNNPACK's quantizer, which fuses ReLU into the layer before it, but would quantize in front of a ReLU6."""

        def annotate(self, model: Any) -> Any:
            annotated = super().annotate(model)
            _quantize_behind_clamps(annotated.graph)
            return annotated

    return BehindClamps().set_global(get_symmetric_quantization_config(is_per_channel=True, is_qat=aware))


def _quantize_behind_clamps(graph: torch.fx.Graph) -> None:
    """Put a layer's output range behind its ReLU6: in front of it the range is several times wider, bits are lost."""
    from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY, QuantizationAnnotation

    for node in graph.nodes:
        if node.target not in (torch.ops.aten.hardtanh.default, torch.ops.aten.hardtanh_.default):
            continue
        before = node.args[0]
        annotation = before.meta.get(Q_ANNOTATION_KEY)
        if annotation is None or annotation.output_qspec is None or len(before.users) > 1:
            continue
        node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(output_qspec=annotation.output_qspec, _annotated=True)
        annotation.output_qspec = None


def _graph(model: nn.Module, spec: PreprocessSpec) -> Any:
    """A network as an editable graph module, batch size left open. It shares the network's weights: give a copy."""
    example = torch.zeros(2, 3, spec.size, spec.size)
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    return torch.export.export(model, (example,), dynamic_shapes=({0: batch},)).module()


def _calibrate(graph: Any, images: npt.NDArray[np.uint8], spec: PreprocessSpec) -> None:
    with torch.no_grad():
        for start in range(0, len(images), BATCH):
            graph(torch.from_numpy(normalise(np.asarray(images[start : start + BATCH]), spec)))


def quantized_after_training(model: nn.Module, calibration: npt.NDArray[np.uint8], spec: PreprocessSpec) -> nn.Module:
    """A trained network as a program that computes in INT8; ranges from training images.

    Args:
        model: images [B, 3, S, S] -> logits [B, K], in evaluation mode; left as it is.
        calibration: uint8 [N, S, S, 3].
        spec: its preprocessing.

    Returns:
        A graph module with the same inputs and outputs.

    Raises:
        ExportError: the network cannot be quantized.
        MissingExtraError: the extra ``mobile`` is missing.
    """
    with mobile_packages(), _refusing(model):
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        prepared = prepare_pt2e(_graph(copy.deepcopy(model), spec), _quantizer(aware=False))
        _calibrate(prepared, calibration, spec)
        converted: nn.Module = convert_pt2e(prepared)
        return converted


class QuantizationAware(nn.Module):
    """A network with simulated INT8: every step sees the rounding that the deployed file will have.

    It is the network's graph, and gives the same ``Output``. BatchNorm is folded into the layer before it, as it will
    be in the file: its statistics are those of the finished training, as a few epochs of mixed and cut views would
    pull them away. Ranges follow the training as moving averages while it trains, and
    stand still while it is evaluated.

    Args:
        model: a trained network, images [B, 3, S, S] -> ``Output``; left as it is.
        spec: its preprocessing.

    Raises:
        ExportError: the network cannot be quantized.
        MissingExtraError: the extra ``mobile`` is missing.
    """

    def __init__(self, model: nn.Module, spec: PreprocessSpec) -> None:
        super().__init__()
        self.spec = spec
        with mobile_packages(), _refusing(model):
            from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

            # It folds BatchNorm; what it puts in is fake quantization, as the quantizer is the aware one.
            self.graph = prepare_pt2e(_graph(copy.deepcopy(model).eval(), spec), _quantizer(aware=True))
        self.requires_grad_(True)  # the biases that folding made do not learn by themselves
        self.eval()

    def forward(self, images: Tensor) -> Output:
        """As the network's own."""
        output: Output = self.graph(images)
        return output

    def train(self, mode: bool = True) -> "QuantizationAware":
        """Dropout, BatchNorm and ranges learn, or stand still."""
        with mobile_packages():
            from torchao.quantization.pt2e import (
                disable_observer,
                enable_observer,
                move_exported_model_to_eval,
                move_exported_model_to_train,
            )

            (move_exported_model_to_train if mode else move_exported_model_to_eval)(self.graph)
            self.graph.apply(enable_observer if mode else disable_observer)
        self.training = mode
        return self

    def find_ranges(self, images: npt.NDArray[np.uint8]) -> None:
        """Set the first ranges from training images, uint8 [N, S, S, 3], by the network as it is.

        Weights get the shapes of their scales here too: without it no state dict can be loaded.
        """
        with mobile_packages():
            from torchao.quantization.pt2e import disable_fake_quant, enable_fake_quant, enable_observer

        self.eval()
        self.graph.apply(enable_observer)
        self.graph.apply(disable_fake_quant)
        _calibrate(self.graph, images, self.spec)
        self.graph.apply(enable_fake_quant)
        self.eval()
        _calibrate(self.graph, images[:1], self.spec)  # scales are worked out where values are rounded

    def converted(self) -> nn.Module:
        """The program that computes in INT8: images [B, 3, S, S] -> logits [B, K]. This network is used up."""
        self.eval()
        with mobile_packages(), _refusing(self):
            from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

            return _LogitsAlone(convert_pt2e(self.graph))


class _LogitsAlone(nn.Module):
    """The final logits of a program that gives ``Output``; exporting it drops the exits."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def train(self, mode: bool = True) -> "_LogitsAlone":
        """An exported program has one mode, that of evaluation."""
        self.training = False
        return self

    def forward(self, images: Tensor) -> Tensor:
        output: Output = self.program(images)
        return output.logits


@contextmanager
def _refusing(model: nn.Module) -> Iterator[None]:
    try:
        yield
    except (ModuleNotFoundError, ExportError):
        raise
    except Exception as error:
        raise ExportError(
            f"{type(model).__name__} cannot be quantized by PT2E ({first_line(error)})",
            rule="the forward pass must be traceable by torch.export with an open batch size",
            next_step="choose another backbone, or set compress.mobile=false and compress.qat_epochs=0",
        ) from error
