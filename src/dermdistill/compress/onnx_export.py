"""A torch model as one ONNX file, proven to compute the same. Distillation and INT8 stand elsewhere."""

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import nn

from dermdistill.atomic import atomic_path, make_folder
from dermdistill.compress.exact_int8 import ask_exact_products
from dermdistill.errors import ExportError
from dermdistill.preprocess import PreprocessSpec, normalise

INPUT_NAME = "images"
OUTPUT_NAME = "logits"
PARITY_TOLERANCE = 1e-4
PARITY_BATCHES = (1, 3)
EXAMPLE_BATCH = 2

_ORT_ERROR, _ORT_WARNING = 3, 2


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the chatter of exporters and quantizers; what matters is raised, not printed."""
    previous = logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        onnxruntime.set_default_logger_severity(_ORT_ERROR)
        try:
            yield
        finally:
            onnxruntime.set_default_logger_severity(_ORT_WARNING)
            logging.disable(previous)


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line of its text: what fits on one screen."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def run_onnx(path: Path, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Logits of an ONNX file on the CPU, one thread.

    Args:
        path: the ONNX file.
        inputs: float32 [B, 3, S, S], normalised.

    Returns:
        float32 [B, K].
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = _ORT_ERROR
    ask_exact_products(options, path)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([OUTPUT_NAME], {INPUT_NAME: inputs})[0], dtype=np.float32)


def random_inputs(batch: int, spec: PreprocessSpec, seed: int = 0) -> npt.NDArray[np.float32]:
    """Normalised pictures of uniform noise: float32 [batch, 3, S, S]."""
    pixels = np.random.default_rng(seed).integers(0, 256, (batch, spec.size, spec.size, 3), dtype=np.uint8)
    return normalise(pixels, spec)


def torch_logits(model: nn.Module, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Logits [B, K] of a model to export.

    Raises:
        ExportError: it gives something else, or logits that are not finite.
    """
    with torch.inference_mode():
        output = model(torch.from_numpy(inputs))
    if not isinstance(output, torch.Tensor) or output.ndim != 2:
        shape = f"shape {list(output.shape)}" if isinstance(output, torch.Tensor) else type(output).__name__
        raise ExportError(
            f"the model to export returns {shape}",
            rule="images [B, 3, S, S] -> one tensor of logits [B, K]",
            next_step="export model.deployed(), which drops exits and features",
        )
    values: npt.NDArray[np.float32] = output.float().numpy()
    if not np.isfinite(values).all():
        raise ExportError("the model to export gives logits that are not finite", rule="all logits are finite")
    return values


def to_onnx(model: nn.Module, spec: PreprocessSpec) -> Any:
    """The exporter's program, batch size left open, every other dimension fixed."""
    example = torch.from_numpy(random_inputs(EXAMPLE_BATCH, spec))
    try:
        with quiet():
            return torch.onnx.export(
                model,
                (example,),
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamo=True,
                dynamic_shapes=({0: "batch"},),
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        raise ExportError(
            f"{type(model).__name__} cannot be exported to ONNX ({first_line(error)})",
            rule="the forward pass must be traceable by torch.export with an open batch size",
            next_step="choose another backbone, or keep Python branches on tensor values out of the model",
        ) from error


def drop_unused(graph: onnx.GraphProto) -> None:
    """Take the constants out of a graph that no node reads."""
    used = {name for node in graph.node for name in node.input}
    kept = [item for item in graph.initializer if item.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def strip_notes(path: Path) -> None:
    """Take the exporter's notes out of an ONNX file: source lines with paths of this machine, 6% of an INT8 file.

    Shapes that were noted for inner values go too; ONNX Runtime infers them.
    """
    model = onnx.load(str(path))
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        part.ClearField("doc_string")
        if hasattr(part, "metadata_props"):
            part.ClearField("metadata_props")
    model.graph.ClearField("value_info")
    onnx.save(model, str(path))


def check_parity(model: nn.Module, path: Path, spec: PreprocessSpec) -> float:
    """The largest difference of the logits of file and model, over batches of 1 and 3 noise images.

    The difference is absolute, or a share of the largest logit where that is above 1: float32 rounding grows
    with it.

    Raises:
        ExportError: it is above 1e-4, not finite, or the file does not load or run.
    """
    worst = 0.0
    for batch in PARITY_BATCHES:
        inputs = random_inputs(batch, spec, seed=batch)
        expected = torch_logits(model, inputs)
        try:
            found = run_onnx(path, inputs)
        except Exception as error:
            raise ExportError(
                f"the exported file does not run at batch size {batch} ({first_line(error)})",
                rule="it must load in ONNX Runtime and take any batch size",
            ) from error
        scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
        difference = float(np.abs(found - expected).max()) / scale if found.shape == expected.shape else np.inf
        if not difference <= PARITY_TOLERANCE:
            raise ExportError(
                f"the exported file differs from the model by {difference:.2e} at batch size {batch}",
                rule=f"logits may differ by at most {PARITY_TOLERANCE:.0e}",
                next_step="nothing was written; look for layers that behave differently in the exporter",
            )
        worst = max(worst, difference)
    return worst


def export_onnx(model: nn.Module, spec: PreprocessSpec, path: Path) -> None:
    """Write a model as one ONNX file: ``images`` [batch, 3, S, S] in, ``logits`` [batch, K] out.

    The model itself is left as it is: a copy on the CPU in evaluation mode is exported, so BatchNorm is
    folded into the convolutions. Only the batch size is dynamic. The file appears only after its logits
    agreed with the model's (``check_parity``).

    Raises:
        ExportError: the model cannot be exported, or the file computes something else.
        OutputError: the file cannot be written.
    """
    make_folder(path.parent)
    source = copy.deepcopy(model).cpu().eval()
    torch_logits(source, random_inputs(EXAMPLE_BATCH, spec))
    program = to_onnx(source, spec)
    with atomic_path(path) as temporary:
        with quiet():
            program.save(str(temporary), external_data=False)
        strip_notes(temporary)
        check_parity(source, temporary, spec)
