"""The one way from a file or its bytes to an upright RGB picture (Pillow alone): training, server and bulk scoring.

Whatever the bytes are, the outcome is a picture or a ``PictureError`` with a named reason, in bounded time and memory.
What is done to unusual pictures, everywhere alike:

- an EXIF orientation is applied, so that a photograph lies as its camera held it;
- CMYK, YCbCr, Lab, palettes and grey become RGB as Pillow converts them;
- 16-bit grey is scaled to 8 bits by dividing by 257; 32-bit and float pixels have no known range and are refused;
- transparent parts lie on white;
- of several frames the first counts.
"""

import contextlib
import io
import threading
import warnings
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from dermdistill.errors import DataError

Reason = Literal[
    "missing",
    "not_a_file",
    "unreadable",
    "empty",
    "too_many_bytes",
    "not_an_image",
    "damaged",
    "too_large",
    "pixel_type",
    "wrong_type",
]

RULE = "every image is a whole JPEG, PNG, BMP, TIFF, WebP or GIF file"
FORMATS: Final = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF")
JPEG_START = b"\xff\xd8"
MAX_BYTES = 200_000_000
# 8192 x 6144, a 50-megapixel camera: decoded, converted and resized within 500 MB.
MAX_PIXELS = 50_331_648
# A progressive JPEG may ask for the whole picture to be worked over once a scan; cameras need about ten.
MAX_SCANNED_PIXELS = 12 * MAX_PIXELS
_SCAN_START = b"\xff\xda"
WITH_ALPHA = frozenset({"RGBA", "RGBa", "LA", "La", "PA"})
TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PictureError(DataError):
    """An image that cannot be used.

    Args:
        reason: one of ``Reason``, for programs.
        problem: the same for people, naming the file where there is one.
    """

    def __init__(self, reason: Reason, problem: str) -> None:
        super().__init__(problem, rule=RULE)
        self.reason = reason


class _Quiet:
    """Pillow's warnings (corrupt EXIF, odd palettes, many pixels) off while any thread is inside.

    ``warnings.catch_warnings`` alone is not for threads: two that overlap leave the filters of the first to enter.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._filters.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.close()


_QUIET = _Quiet()


def read_content(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        PictureError: the file is missing, no file, not readable, empty, or above 200 MB.
    """
    try:
        # Looked at before opening: reading a pipe or a device would wait for ever.
        if not path.exists():
            raise PictureError("missing", f"{path}: is missing")
        if not path.is_file():
            raise PictureError("not_a_file", f"{path}: is not a file")
        if path.stat().st_size > MAX_BYTES:
            raise PictureError("too_many_bytes", f"{path}: has more than {MAX_BYTES:,} bytes")
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise PictureError("unreadable", f"{path}: cannot be read ({why})") from error
    if not content:
        raise PictureError("empty", f"{path}: is empty")
    return content


def open_picture(content: bytes, name: str = "image") -> Image.Image:
    """Decode an image.

    Args:
        content: the bytes of a JPEG, PNG, BMP, TIFF, WebP or GIF file.
        name: of the image, for messages.

    Returns:
        mode RGB, upright, loaded.

    Raises:
        PictureError: see ``Reason``.
    """
    if not content:
        raise PictureError("empty", f"{name}: is empty")
    if len(content) > MAX_BYTES:
        raise PictureError("too_many_bytes", f"{name}: has more than {MAX_BYTES:,} bytes")
    with _QUIET:
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
                _check_size(picture, content, name)
                _check_pixels(picture, name)
                picture.load()
                turn = TURNS.get(_orientation(picture))
                rgb = _rgb(picture)
                return rgb if turn is None else rgb.transpose(turn)
        except PictureError:
            raise
        except UnidentifiedImageError as error:
            raise PictureError("not_an_image", f"{name}: is not an image{_guess(content)}") from error
        except Image.DecompressionBombError as error:
            raise PictureError("too_large", f"{name}: has more than {MAX_PIXELS:,} pixels") from error
        # Decoders raise whatever they like on damaged bytes (SyntaxError, struct.error, MemoryError, ...).
        except Exception as error:
            raise damaged(name, error) from error


def damaged(name: str, error: Exception) -> PictureError:
    """What to raise where a decoder failed."""
    text = " ".join(str(error).split())[:300] or type(error).__name__
    short = text[0].lower() + text[1:]
    cut = "truncated: " if "premature end of jpeg" in short.lower() else ""
    return PictureError("damaged", f"{name}: cannot be decoded ({cut}{short})")


def check_pixel_count(width: int, height: int, scans: int, name: str) -> None:
    """Refuse what would take too much memory or time.

    Args:
        width: in pixels.
        height: in pixels.
        scans: how often the decoder works over all pixels, 1 but for a progressive JPEG.
        name: of the image, for messages.

    Raises:
        PictureError: ``too_large``.
    """
    if width * height > MAX_PIXELS:
        raise PictureError("too_large", f"{name}: {width} x {height} pixels; at most {MAX_PIXELS:,} are accepted")
    if width * height * scans > MAX_SCANNED_PIXELS:
        raise PictureError(
            "too_large", f"{name}: {width} x {height} pixels in {scans} scans, which would take too long"
        )


def jpeg_scans(content: bytes) -> int:
    """An upper bound of the scans of a JPEG."""
    return max(1, content.count(_SCAN_START))


def _check_size(picture: Image.Image, content: bytes, name: str) -> None:
    scans = jpeg_scans(content) if content.startswith(JPEG_START) else 1
    check_pixel_count(*picture.size, scans, name)


def _check_pixels(picture: Image.Image, name: str) -> None:
    if picture.mode in ("I", "F"):
        kind = "32-bit integers" if picture.mode == "I" else "floating-point numbers"
        raise PictureError("pixel_type", f"{name}: its pixels are {kind}, whose range is not known")


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or none that can be read. Pillow has turned TIFF already."""
    try:
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # whatever Pillow's parser raises on damaged EXIF: the pixels are sound all the same
        return 1


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(np.asarray(picture))).convert("RGB")
    if picture.mode in WITH_ALPHA or "transparency" in picture.info:
        coloured = picture.convert("RGBA")
        white = Image.new("RGB", coloured.size, "white")
        white.paste(coloured, mask=coloured.getchannel("A"))
        return white
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _eight_bits(grey: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    """0..65535 to 0..255, rounded to the nearest."""
    scaled: npt.NDArray[np.uint8] = ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return scaled


def _guess(content: bytes) -> str:
    start = content[:512]
    if start.startswith(JPEG_START):
        return " (a JPEG cut off in its header)"
    return " (it holds text)" if start.isascii() and b"\0" not in start else ""
