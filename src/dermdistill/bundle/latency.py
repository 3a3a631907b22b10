"""How long one image takes: batch 1, after a warm-up, on a fixed number of CPU threads."""

from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

from dermdistill.bundle.predictor import OnnxClassifier
from dermdistill.errors import ConfigError
from dermdistill.preprocess import PreprocessSpec, normalise

WARM_UP = 10


def latency_ms(path: Path, spec: PreprocessSpec, *, repeats: int, threads: int = 1) -> dict[str, Any]:
    """Time of the network alone (no decoding, no resizing) for one normalised image.

    Args:
        path: ONNX file.
        spec: its preprocessing.
        repeats: timed runs, after 10 that are not counted.
        threads: CPU threads.

    Returns:
        ``median``, ``p5``, ``p95`` in milliseconds, ``repeats``, ``threads``.

    Raises:
        BundleError: the file cannot be loaded.
        ConfigError: ``repeats`` or ``threads`` below 1.
    """
    if repeats < 1:
        raise ConfigError(f"repeats is {repeats}", rule="at least 1")
    classifier = OnnxClassifier(path, spec, threads=threads)
    pixels = np.random.default_rng(0).integers(0, 256, (1, spec.size, spec.size, 3), dtype=np.uint8)
    inputs = normalise(pixels, spec)
    for _ in range(WARM_UP):
        classifier.run(inputs)
    times = np.empty(repeats)
    for index in range(repeats):
        start = perf_counter_ns()
        classifier.run(inputs)
        times[index] = (perf_counter_ns() - start) / 1e6
    p5, median, p95 = np.percentile(times, (5, 50, 95))
    return {
        "median": float(median),
        "p5": float(p5),
        "p95": float(p95),
        "repeats": repeats,
        "threads": threads,
    }
