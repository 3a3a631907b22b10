"""One model file measured in a process of its own, started by ``bench.py``; heavy imports are those of its runtime."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Runtime = Literal["onnxruntime", "executorch", "torch"]
Inputs = npt.NDArray[np.float32]
Run = Callable[[Inputs], object]
Load = Callable[[], tuple[Run, int]]

STATUS = Path("/proc/self/status")
PEAK = "VmHWM"
WARM_UP, UNCOUNTED, FEWEST = 10, 1, 3


@dataclass(frozen=True)
class Order:
    """What one process measures.

    Attributes:
        runtime: what runs the file; ``torch`` takes a folder of ``training.roles``.
        path: absolute.
        size: side of the input, pixels; a folder of ``training.roles`` says it itself.
        threads: CPU threads.
        repeats: timed runs at batch size 1.
        batch_sizes: larger ones, each with about as many images.
    """

    runtime: Runtime
    path: str
    size: int
    threads: int
    repeats: int
    batch_sizes: tuple[int, ...] = ()

    def to_json(self) -> str:
        """As text; ``from_json`` reads it back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Order":
        """Read what ``to_json`` wrote."""
        values = json.loads(text)
        return cls(**{**values, "batch_sizes": tuple(values["batch_sizes"])})


def _with_onnxruntime(order: Order) -> Load:
    from dermdistill.bundle.predictor import OnnxClassifier
    from dermdistill.preprocess import PreprocessSpec

    def load() -> tuple[Run, int]:
        spec = PreprocessSpec(size=order.size)
        return OnnxClassifier(Path(order.path), spec, threads=order.threads).run, order.size

    return load


def _with_executorch(order: Order) -> Load:
    import torch
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime as Library

    def load() -> tuple[Run, int]:
        portable_lib._unsafe_reset_threadpool(order.threads)
        method = Library.get().load_program(order.path).load_method("forward")
        return lambda inputs: method.execute([torch.from_numpy(inputs)]), order.size

    return load


def _with_torch(order: Order) -> Load:
    import torch

    from dermdistill.training.roles import load_description, load_trained

    torch.set_num_threads(order.threads)

    def load() -> tuple[Run, int]:
        folder = Path(order.path)
        model = load_trained(folder).deployed().eval()

        def run(inputs: Inputs) -> object:
            with torch.inference_mode():
                return model(torch.from_numpy(inputs))

        return run, int(load_description(folder)["size"])

    return load


LOADERS: dict[Runtime, Callable[[Order], Load]] = {
    "onnxruntime": _with_onnxruntime,
    "executorch": _with_executorch,
    "torch": _with_torch,
}


def timed_ms(run: Run, inputs: Inputs, repeats: int) -> npt.NDArray[np.float64]:
    """Milliseconds of each of some runs, one after the other."""
    times = np.empty(repeats)
    for index in range(repeats):
        begun = perf_counter()
        run(inputs)
        times[index] = 1e3 * (perf_counter() - begun)
    return times


def peak_memory() -> tuple[str, int | None]:
    """How the largest resident memory of this process so far was read, and what it is, bytes."""
    try:
        lines = STATUS.read_text().splitlines()
        return PEAK, next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{PEAK}:"))
    except (OSError, StopIteration):
        pass
    try:
        usage = import_module("resource").getrusage
    except ImportError:
        return "not available", None
    # macOS counts bytes, the others kilobytes.
    return "ru_maxrss", usage(0).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _noise(batch: int, size: int) -> Inputs:
    return np.random.default_rng(0).standard_normal((batch, 3, size, size), dtype=np.float32)


def measure(order: Order, tell_first: Callable[[], None]) -> dict[str, Any]:
    """Load, run once, and time; memory is read before the larger batches.

    Args:
        order: what to measure.
        tell_first: called as soon as the first logits are there.

    Returns:
        ``size`` pixels, ``load_seconds`` (load and first run, no imports), ``p50_ms``, ``p95_ms``,
        ``images_per_second`` {batch size: n}, ``memory`` (how it was read), ``peak_bytes``.
    """
    load = LOADERS[order.runtime](order)
    begun = perf_counter()
    run, size = load()
    loaded = perf_counter() - begun
    inputs = _noise(1, size)
    loaded += float(timed_ms(run, inputs, 1)[0]) / 1e3
    tell_first()
    timed_ms(run, inputs, WARM_UP)
    times = timed_ms(run, inputs, order.repeats)
    p50, p95 = np.percentile(times, (50, 95))
    memory, peak = peak_memory()
    rates = {"1": 1e3 / float(times.mean())}
    for batch in order.batch_sizes:
        inputs = _noise(batch, size)
        timed_ms(run, inputs, UNCOUNTED)
        rates[str(batch)] = 1e3 * batch / float(timed_ms(run, inputs, max(FEWEST, order.repeats // batch)).mean())
    return {
        "size": size,
        "load_seconds": loaded,
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "images_per_second": rates,
        "memory": memory,
        "peak_bytes": peak,
    }


def main() -> None:
    """Measure what the first argument says: one empty line at the first logits, then one JSON object."""
    # What a runtime prints, also below Python, goes to standard error.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell_first() -> None:
        print(file=answer, flush=True)

    try:
        print(json.dumps(measure(Order.from_json(sys.argv[1]), tell_first)), file=answer, flush=True)
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        sys.exit(f"{type(error).__name__}: {first}")
