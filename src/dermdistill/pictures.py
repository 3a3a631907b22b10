"""The one way from a file or its bytes to upright RGB pixels: training, server and bulk scoring.

Whatever the bytes are, the outcome is a picture or a ``PictureError`` with a named reason, in bounded time and memory.
What is done to unusual pictures, everywhere alike:

- an EXIF orientation is applied, so that a photograph lies as its camera held it;
- CMYK, YCbCr, Lab, palettes and grey become RGB as Pillow converts them;
- grey of more than 8 bits is scaled to 8; 32-bit and float pixels have no known range and are refused;
- transparent parts lie on white;
- of several frames the first counts.

Pillow decodes all of it. Where simplejpeg is installed (it comes with the extras ``train`` and ``score``) it decodes
plain JPEG, to the same pixels in half the time; and it refuses a JPEG with a hole in its data, which Pillow fills in.
"""

import contextlib
import io
import struct
import threading
import warnings
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, TiffTags, UnidentifiedImageError

from dermdistill.errors import DataError

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

Pixels = npt.NDArray[np.uint8]
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
    "no_memory",
]

RULE = "every image is a whole JPEG, PNG, BMP, TIFF or WebP file"
FORMATS: Final = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
JPEG_START, PNG_START = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
# With these limits no image takes 500 MB or 2 seconds (benchmarks/image_fuzz.py).
MAX_BYTES = 128_000_000
MAX_SIDE = 32_767
MAX_PIXELS = 20_000_000
MAX_JPEG_PIXELS = 36_000_000
# A progressive JPEG may ask for the whole picture to be worked over once a scan; cameras need about ten.
MAX_SCANNED_PIXELS = 12 * MAX_JPEG_PIXELS
# Pillow reads these one by one in Python.
MAX_SEGMENTS = {"JPEG": 4_096, "PNG": 40_000, "TIFF": 1_024}
MAX_TIFF_VALUES = 200_000

_SCAN_START = b"\xff\xda"
_WITH_ALPHA = frozenset({"RGBA", "RGBa", "LA", "La", "PA"})
# EXIF orientation: quarter turns against the clock, then whether left and right are exchanged.
_TURNS: Final = {2: (0, True), 3: (2, False), 4: (2, True), 5: (-1, True), 6: (-1, False), 7: (1, True), 8: (1, False)}
_PLAIN_COLOURS = {"Gray", "YCbCr", "RGB"}
# EXIF, XMP, several pictures in one file: what Pillow must look at.
_SAID_MORE = (b"Exif\0\0", b"Orientation", b"MPF\0")
_BITS_PER_SAMPLE, _TILE_WIDTH, _TILE_LENGTH = 258, 322, 323


class PictureError(DataError):
    """An image that cannot be used.

    Args:
        reason: one of ``Reason``, for programs.
        problem: the same for people, naming the file where there is one.
    """

    def __init__(self, reason: Reason, problem: str) -> None:
        super().__init__(printable(problem), rule=RULE)
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


def printable(name: str) -> str:
    r"""A file's name as UTF-8 can hold it: what is not of that encoding is written as ``\udcff``."""
    return name.encode(errors="backslashreplace").decode()


def read_content(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        PictureError: the file is missing, no file, not readable, empty, or above 128 MB.
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
    except MemoryError as error:
        raise _no_memory(str(path)) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise PictureError("unreadable", f"{path}: cannot be read ({why})") from error
    if not content:
        raise PictureError("empty", f"{path}: is empty")
    return content


def read_pixels(content: bytes, name: str = "image") -> Pixels:
    """Decode an image.

    Args:
        content: the bytes of a JPEG, PNG, BMP, TIFF or WebP file.
        name: of the image, for messages.

    Returns:
        uint8 [H, W, 3], RGB, upright.

    Raises:
        PictureError: see ``Reason``.
    """
    if not content:
        raise PictureError("empty", f"{name}: is empty")
    if len(content) > MAX_BYTES:
        raise PictureError("too_many_bytes", f"{name}: has more than {MAX_BYTES:,} bytes")
    with _QUIET:
        try:
            _check_segments(content, name)
            if (plain := _plain_jpeg(content, name)) is not None:
                return plain
            with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
                _check_size(picture, content, name)
                _check_pixels(picture, name)
                if picture.format == "JPEG" and picture.mode in ("RGB", "L") and _jpeg_header(content) is not None:
                    return _turned(_decoded_strictly(content), _orientation(picture))
                picture.load()
                return _turned(np.asarray(_rgb(picture)), _orientation(picture))
        except PictureError:
            raise
        except MemoryError as error:
            raise _no_memory(name) from error
        except UnidentifiedImageError as error:
            raise PictureError("not_an_image", f"{name}: is not an image{_guess(content)}") from error
        except Image.DecompressionBombError as error:
            raise PictureError("too_large", f"{name}: has more than {MAX_JPEG_PIXELS:,} pixels") from error
        # Decoders raise whatever they like on damaged bytes (SyntaxError, struct.error, ...).
        except Exception as error:
            raise _damaged(name, error) from error


def _no_memory(name: str) -> PictureError:
    return PictureError("no_memory", f"{name}: there is not enough memory to decode it")


def _damaged(name: str, error: Exception) -> PictureError:
    text = " ".join(str(error).split())[:300] or type(error).__name__
    short = text[0].lower() + text[1:]
    cut = "truncated: " if "premature end of jpeg" in short.lower() else ""
    return PictureError("damaged", f"{name}: cannot be decoded ({cut}{short})")


def _check_segments(content: bytes, name: str) -> None:
    """Refuse what Pillow would read piece by piece for minutes."""
    kind, count = "", 0
    if content.startswith(JPEG_START):
        kind, count = "JPEG", _jpeg_segments(content)
    elif content.startswith(PNG_START):
        kind, count = "PNG", _png_chunks(content)
    elif content[:4] in (b"II*\0", b"MM\0*"):
        kind, count = "TIFF", _tiff_entries(content, name)
    if kind and count > MAX_SEGMENTS[kind]:
        most = MAX_SEGMENTS[kind]
        raise PictureError("damaged", f"{name}: cannot be decoded (a {kind} of more than {most:,} segments)")


def _jpeg_segments(content: bytes) -> int:
    """Segments before the first scan; at most one more than are accepted."""
    count, position = 0, 2
    while position + 4 <= len(content) and count <= MAX_SEGMENTS["JPEG"]:
        if content[position] != 0xFF or content[position + 1] == _SCAN_START[1]:
            break
        position += 2 + int.from_bytes(content[position + 2 : position + 4])
        count += 1
    return count


def _png_chunks(content: bytes) -> int:
    count, position = 0, len(PNG_START)
    while position + 8 <= len(content) and count <= MAX_SEGMENTS["PNG"]:
        position += 12 + int.from_bytes(content[position : position + 4])
        count += 1
    return count


def _tiff_entries(content: bytes, name: str) -> int:
    """Entries of the first directory, none of which may list more values than any sound picture has."""
    order = "<" if content.startswith(b"II") else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", content, 4)
        (count,) = struct.unpack_from(f"{order}H", content, start)
        for entry in range(min(count, MAX_SEGMENTS["TIFF"])):
            tag, kind, values = struct.unpack_from(f"{order}HHI", content, start + 2 + 12 * entry)
            if values > MAX_TIFF_VALUES and kind not in (TiffTags.BYTE, TiffTags.ASCII, TiffTags.UNDEFINED):
                raise PictureError("damaged", f"{name}: cannot be decoded (its tag {tag} lists {values:,} values)")
    except struct.error:
        return 0  # cut off: Pillow says so
    return int(count)


def _check_size(picture: Image.Image, content: bytes, name: str) -> None:
    is_jpeg = picture.format == "JPEG"
    most = MAX_JPEG_PIXELS if is_jpeg and picture.mode in ("RGB", "L") else MAX_PIXELS
    _check_pixel_count(*picture.size, most, content.count(_SCAN_START) if is_jpeg else 1, name)
    tags = getattr(picture, "tag_v2", {})
    tile = int(tags.get(_TILE_WIDTH, 0)) * int(tags.get(_TILE_LENGTH, 0))
    if tile > MAX_PIXELS:
        raise PictureError("too_large", f"{name}: has tiles of {tile:,} pixels; at most {MAX_PIXELS:,} are accepted")


def _check_pixel_count(width: int, height: int, most: int, scans: int, name: str) -> None:
    if max(width, height) > MAX_SIDE or width * height > most:
        rule = f"at most {MAX_SIDE:,} a side and {most:,} in all are accepted"
        raise PictureError("too_large", f"{name}: {width} x {height} pixels; {rule}")
    if width * height * scans > MAX_SCANNED_PIXELS:
        size = f"{width} x {height} pixels in {scans} scans"
        raise PictureError("too_large", f"{name}: {size}, which would take too long")


def _check_pixels(picture: Image.Image, name: str) -> None:
    if picture.mode in ("I", "F"):
        kind = "32-bit integers" if picture.mode == "I" else "floating-point numbers"
        raise PictureError("pixel_type", f"{name}: its pixels are {kind}, whose range is not known")


def _plain_jpeg(content: bytes, name: str) -> Pixels | None:
    """Pixels of a JPEG that says nothing of how it was held: no need to ask Pillow, which takes longer to open it."""
    if not content.startswith(JPEG_START) or any(mark in content for mark in _SAID_MORE):
        return None
    header = _jpeg_header(content)
    if header is None or header[2] not in _PLAIN_COLOURS:
        return None
    height, width, _ = header
    _check_pixel_count(width, height, MAX_JPEG_PIXELS, content.count(_SCAN_START), name)
    return _decoded_strictly(content)


def _jpeg_header(content: bytes) -> tuple[int, int, str] | None:
    """Height, width and colours; None without simplejpeg, and for a subsampling that it does not know."""
    if simplejpeg is None:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:
        return None
    return height, width, colours


def _decoded_strictly(content: bytes) -> Pixels:
    """By simplejpeg, whose fast modes stay off."""
    pixels: Pixels = simplejpeg.decode_jpeg(content, colorspace="RGB", strict=True)
    return pixels


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or none that can be read. Pillow has turned TIFF already."""
    try:
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:  # whatever Pillow's parser raises on damaged EXIF: the pixels are sound all the same
        return 1


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    """Upright pixels, in memory row by row."""
    if orientation not in _TURNS:
        return np.ascontiguousarray(pixels)
    quarters, mirrored = _TURNS[orientation]
    turned = np.rot90(pixels, quarters)
    return np.ascontiguousarray(turned[:, ::-1] if mirrored else turned)


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(picture)).convert("RGB")
    if picture.mode in _WITH_ALPHA or "transparency" in picture.info:
        coloured = picture.convert("RGBA")
        white = Image.new("RGB", coloured.size, "white")
        white.paste(coloured, mask=coloured.getchannel("A"))
        return white
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _eight_bits(picture: Image.Image) -> Pixels:
    """Grey of 9 to 16 bits, scaled over its whole range and rounded to the nearest; what is transparent is white."""
    bits = getattr(picture, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))
    highest = 2 ** int(bits[0]) - 1
    deep = np.asarray(picture)
    grey: Pixels = np.minimum((deep.astype(np.uint32) * 255 + highest // 2) // highest, 255).astype(np.uint8)
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        grey[deep == transparent] = 255
    return grey


def _guess(content: bytes) -> str:
    start = content[:512]
    if start.startswith(JPEG_START):
        return " (a JPEG cut off in its header)"
    return " (it holds text)" if start.isascii() and b"\0" not in start else ""
