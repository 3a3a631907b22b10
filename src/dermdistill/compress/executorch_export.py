"""ExecuTorch files for phones: a network or a quantized program, lowered to XNNPACK. Needs the extra ``mobile``."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from dermdistill.atomic import write_bytes
from dermdistill.compress.onnx_export import first_line
from dermdistill.compress.pt2e import mobile_packages
from dermdistill.errors import BundleError, ExportError
from dermdistill.preprocess import PreprocessSpec, normalise


def export_executorch(model: nn.Module, spec: PreprocessSpec, path: Path) -> None:
    """Write a network, or a program of ``pt2e.py``, as one ExecuTorch file for one image at a time.

    Args:
        model: images [1, 3, S, S] -> logits [1, K], in evaluation mode.
        spec: its preprocessing.
        path: a ``.pte`` file; written whole or not at all.

    Raises:
        ExportError: it cannot be lowered.
        MissingExtraError: the extra ``mobile`` is missing.
        OutputError: the file cannot be written.
    """
    with mobile_packages(), quiet_libraries():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        try:
            program = torch.export.export(model, (torch.zeros(1, 3, spec.size, spec.size),))
            lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
            content = bytes(lowered.to_executorch().buffer)
        except Exception as error:
            raise ExportError(
                f"{type(model).__name__} cannot be lowered to ExecuTorch ({first_line(error)})",
                rule="the forward pass must be traceable by torch.export",
                next_step="choose another backbone, or set compress.mobile=false",
            ) from error
    write_bytes(path, content)


class ExecuTorchClassifier:
    """An ExecuTorch file on the CPU, one image a call.

    Args:
        path: file of ``export_executorch``.
        spec: the preprocessing that it was exported with.
        threads: CPU threads, of the whole process.

    Raises:
        BundleError: the file cannot be loaded.
        MissingExtraError: the extra ``mobile`` is missing.
    """

    def __init__(self, path: Path, spec: PreprocessSpec, *, threads: int = 1) -> None:
        self.path = path
        self.spec = spec
        with mobile_packages(), quiet_libraries():
            from executorch.extension.pybindings import portable_lib
            from executorch.runtime import Runtime

            portable_lib._unsafe_reset_threadpool(threads)
            try:
                self._method = Runtime.get().load_program(str(path)).load_method("forward")
                self.run(np.zeros((1, 3, spec.size, spec.size), dtype=np.float32))
            except Exception as error:
                raise BundleError(
                    f"{path}: cannot be loaded ({first_line(error)})",
                    rule="an ExecuTorch file whose operators this build of ExecuTorch has",
                    next_step="export it again",
                ) from error

    def run(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits float32 [1, K] of one normalised image float32 [1, 3, S, S]."""
        output: torch.Tensor = self._method.execute([torch.from_numpy(inputs)])[0]
        return output.numpy().copy()

    def logits(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Logits float32 [N, K] of stored pictures uint8 [N, S, S, 3], one by one; N at least 1."""
        return np.concatenate([self.run(normalise(np.asarray(image[None]), self.spec)) for image in images])


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep what C++ code writes to standard error out of the terminal; errors are raised."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
