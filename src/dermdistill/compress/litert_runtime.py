"""Running LiteRT files (``.tflite``), and the packages of the extra ``litert``.

litert-torch wants an older PyTorch than the one that this project is locked to. So the extra lives in an environment of
its own, and its packages are imported only where they are used.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dermdistill.compress.executorch_export import quiet_libraries
from dermdistill.compress.onnx_export import first_line, quiet
from dermdistill.errors import BundleError, MissingExtraError
from dermdistill.preprocess import PreprocessSpec, check_prepared, normalise

PACKAGES = ("ai_edge_litert", "ai_edge_quantizer", "litert_torch")


@contextmanager
def litert_packages() -> Iterator[None]:
    """Keep the packages quiet in the block, and say which extra is missing where one cannot be imported.

    Raises:
        MissingExtraError: in place of ModuleNotFoundError.
    """
    try:
        with quiet(), quiet_libraries():
            yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in PACKAGES:
            raise
        raise MissingExtraError(
            f"the package {package!r} is not installed",
            rule="LiteRT files need the extra `litert`, in an environment of its own: it wants an older PyTorch",
            next_step="`make litert` makes .venv-litert, then .venv-litert/bin/dermdistill ...; elsewhere, in a new "
            "environment: pip install 'dermdistill[litert]'",
        ) from error


def require_litert() -> None:
    """Fail now where the extra ``litert`` is missing.

    Raises:
        MissingExtraError: it is.
    """
    with litert_packages():
        for name in PACKAGES:
            importlib.import_module(name)


def channels_last(inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Inputs [B, 3, S, S] as LiteRT files take them, [B, S, S, 3]."""
    return np.ascontiguousarray(inputs.transpose(0, 2, 3, 1))


class LiteRTClassifier:
    """A LiteRT file on the CPU, one image a call. Where it takes or gives int8, its own scales translate.

    Args:
        path: file of ``export_litert`` or ``quantize_litert``.
        spec: the preprocessing that it was exported with.
        threads: CPU threads.

    Raises:
        BundleError: the file cannot be loaded or expects another input.
        MissingExtraError: the extra ``litert`` is missing.
    """

    def __init__(self, path: Path, spec: PreprocessSpec, *, threads: int = 1) -> None:
        self.path = path
        self.spec = spec
        with litert_packages():
            from ai_edge_litert.interpreter import Interpreter

            try:
                self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
                self._interpreter.allocate_tensors()
            except Exception as error:
                raise BundleError(
                    f"{path}: cannot be loaded ({first_line(error)})",
                    rule="a LiteRT file that the LiteRT interpreter can run",
                    next_step="export it again",
                ) from error
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        wanted = [1, spec.size, spec.size, 3]
        if [list(item["shape"]) for item in inputs] != [wanted] or len(outputs) != 1:
            raise BundleError(
                f"{path}: has inputs {[list(map(int, item['shape'])) for item in inputs]} and {len(outputs)} outputs",
                rule=f"one input {wanted} and one output [1, K]",
                next_step="use the preprocessing that the file was exported with",
            )
        self._input, self._output = inputs[0], outputs[0]
        self.classes = int(self._output["shape"][1])

    @property
    def quantized_layers(self) -> int:
        """Layers whose weights are int8 with a scale for each output channel."""
        tensors = self._interpreter.get_tensor_details()
        return sum(item["dtype"] == np.int8 and len(item["quantization_parameters"]["scales"]) > 1 for item in tensors)

    def run(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits float32 [1, K] of one normalised image float32 [1, 3, S, S].

        Raises:
            BundleError: LiteRT cannot run the file on it.
        """
        try:
            self._interpreter.set_tensor(self._input["index"], _quantized(channels_last(inputs), self._input))
            self._interpreter.invoke()
            return _dequantized(self._interpreter.get_tensor(self._output["index"]), self._output)
        except (RuntimeError, ValueError) as error:
            raise BundleError(
                f"{self.path}: cannot be run on an input {list(inputs.shape)} ({first_line(error)})",
                next_step="export it again",
            ) from error

    def logits(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Logits of stored pictures, one by one.

        Args:
            images: uint8 [N, S, S, 3], RGB, already resized; a memory map is read image by image.

        Returns:
            float32 [N, K].

        Raises:
            DataError: another shape or type.
        """
        check_prepared(images, self.spec)
        rows = [self.run(normalise(np.asarray(image[None]), self.spec)) for image in images]
        return np.concatenate([np.empty((0, self.classes), dtype=np.float32), *rows])


def _quantized(values: npt.NDArray[np.float32], details: dict[str, Any]) -> npt.NDArray[Any]:
    """Float values as a tensor of the file holds them."""
    if details["dtype"] == np.float32:
        return values
    scale, zero_point = details["quantization"]
    limits = np.iinfo(details["dtype"])
    held: npt.NDArray[Any] = np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max)
    return held.astype(details["dtype"])


def _dequantized(values: npt.NDArray[Any], details: dict[str, Any]) -> npt.NDArray[np.float32]:
    """The float values that a tensor of the file stands for."""
    if details["dtype"] == np.float32:
        return np.array(values, dtype=np.float32)
    scale, zero_point = details["quantization"]
    meant: npt.NDArray[np.float32] = (values.astype(np.float32) - zero_point) * np.float32(scale)
    return meant
