"""One image file to RGB pixels, and many files at once, with every unreadable one reported.

Files are told apart by their content, not by their name. JPEG goes through simplejpeg, whose strict mode
refuses truncated files (its fast modes stay off, so the pixels equal Pillow's); the rest goes through Pillow.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

from dermdistill.errors import DataError

T = TypeVar("T")

JPEG_START = b"\xff\xd8"
PLAIN_COLOURS = {"Gray", "YCbCr", "RGB"}
MAX_PIXELS = 80_000_000
# Below this a pool costs more than it saves.
SMALL_SET = 64
CHUNK = 32


def decode_image(path: Path) -> npt.NDArray[np.uint8]:
    """Decode one image file.

    Grey and palette images become RGB, an alpha channel is dropped, an EXIF orientation is not applied: the
    pixels are those of ``PIL.Image.open(path).convert("RGB")``.

    Args:
        path: a JPEG, PNG, BMP, TIFF, WebP or anything else that Pillow reads, whatever its name ends with.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        DataError: the file is missing, empty, not an image, truncated, or not of 8 bits a channel.
    """
    content = _read(path)
    try:
        if content.startswith(JPEG_START):
            return _decode_jpeg(content)
        return _decode_other(content)
    except UnidentifiedImageError as error:
        raise _fault(path, "is not an image" + _guess(content)) from error
    # Decoders raise whatever they like on damaged bytes (SyntaxError, struct.error, ...).
    except Exception as error:
        raise _fault(path, f"cannot be decoded ({_reason(error)})") from error


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


def _read(path: Path) -> bytes:
    try:
        # Looked at before opening: reading a pipe or a device would wait for ever.
        if not path.exists():
            raise _fault(path, "is missing")
        if not path.is_file():
            raise _fault(path, "is not a file")
        content = path.read_bytes()
    except OSError as error:
        raise _fault(path, f"cannot be read ({error.strerror})") from error
    if not content:
        raise _fault(path, "is empty")
    return content


def _decode_jpeg(content: bytes) -> npt.NDArray[np.uint8]:
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:
        # Damaged, or of a chroma subsampling that simplejpeg does not know: Pillow tells which.
        return _decode_other(content)
    _check_size(width, height)
    if colours not in PLAIN_COLOURS:
        return _decode_other(content)
    image: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(content, colorspace="RGB", strict=True)
    return image


def _decode_other(content: bytes) -> npt.NDArray[np.uint8]:
    with Image.open(BytesIO(content)) as picture:
        _check_size(*picture.size)
        if picture.mode[0] in "IF":
            raise ValueError(f"pixels of mode {picture.mode}; 8 bits a channel are needed")
        # Pillow wants palettes with transparency to pass through RGBA.
        whole = picture.convert("RGBA") if "transparency" in picture.info else picture
        return np.asarray(whole.convert("RGB"), dtype=np.uint8)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels; at most {MAX_PIXELS:,} are accepted")


def _fault(path: Path, reason: str) -> DataError:
    return DataError(f"{path}: {reason}", rule="every image is a whole JPEG, PNG, BMP, TIFF or WebP file")


def _guess(content: bytes) -> str:
    start = content[:512]
    if start.startswith(JPEG_START):
        return " (a JPEG cut off in its header)"
    return " (it holds text)" if start.isascii() and b"\0" not in start else ""


def _reason(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    short = text[0].lower() + text[1:]
    return f"truncated: {short}" if "premature end of jpeg" in short.lower() else short
