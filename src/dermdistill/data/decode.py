"""Image files to RGB pixels, many at once, with every unreadable one reported."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from dermdistill import pictures
from dermdistill.errors import DataError

T = TypeVar("T")

# Below this a pool costs more than it saves.
SMALL_SET = 64
CHUNK = 32


def decode_image(path: Path) -> npt.NDArray[np.uint8]:
    """Decode one image file, see ``pictures``.

    Args:
        path: a JPEG, PNG, BMP, TIFF or WebP, whatever its name ends with.

    Returns:
        uint8 [H, W, 3], RGB, upright.

    Raises:
        PictureError: the file is missing, empty, not an image, damaged, too large, or of another kind of pixels.
    """
    return pictures.read_pixels(pictures.read_content(path), str(path))


def decode_all(
    paths: Sequence[Path],
    use: Callable[[npt.NDArray[np.uint8]], T],
    *,
    workers: int | None = None,
) -> list[T | DataError]:
    """Decode many files, in parallel where there are enough of them, without stopping at a fault.

    Threads serve better than processes here: simplejpeg lets go of the interpreter lock while it decodes.

    Args:
        paths: the image files.
        use: what to keep of each image; gets uint8 [H, W, 3], in a worker thread.
        workers: number of threads; by default one a processor core, at most 8.

    Returns:
        For each path, in order, what ``use`` returned, or the ``DataError`` that says what is wrong.
    """
    threads = workers or min(8, os.cpu_count() or 1)
    if threads == 1 or len(paths) < SMALL_SET:
        return _decode_chunk(paths, use)
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    with ThreadPoolExecutor(threads) as pool:
        return list(chain.from_iterable(pool.map(lambda chunk: _decode_chunk(chunk, use), chunks)))


def check_images(paths: Sequence[Path], *, workers: int | None = None) -> dict[int, str]:
    """Decode every file once and throw the pixels away.

    Returns:
        Position in ``paths`` -> what is wrong with that file; empty where all can be decoded.
    """
    outcomes = decode_all(paths, lambda image: None, workers=workers)
    return {i: outcome.problem for i, outcome in enumerate(outcomes) if isinstance(outcome, DataError)}


def _decode_chunk(paths: Sequence[Path], use: Callable[[npt.NDArray[np.uint8]], T]) -> list[T | DataError]:
    results: list[T | DataError] = []
    for path in paths:
        try:
            image = decode_image(path)
        except DataError as fault:
            results.append(fault)
        else:
            results.append(use(image))
    return results
