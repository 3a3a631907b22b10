"""Fuzz the image path: altered, cut, spliced and invented files, absurd sizes, wrong types, 100,000 of them by default.

Each must end as a prepared picture or as a ``PictureError`` with a named reason, within 2 seconds and 500 MB. A worker
process takes the inputs, made from a seed and a number; where it dies or hangs, the number is on record and the next
worker goes on behind it. Status 1 where any input broke the rule.
"""

import argparse
import io
import json
import math
import multiprocessing
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import ExifTags, Image

from dermdistill.bundle.predictor import prepare
from dermdistill.pictures import MAX_JPEG_PIXELS, MAX_PIXELS, MAX_SIDE, PictureError, Reason
from dermdistill.preprocess import PreprocessSpec
from dermdistill.provenance import origin

SECONDS, MEGABYTES = 2.0, 500
PATIENCE = 30.0
SPEC = PreprocessSpec(224)
# Kinds and modes of whole files of the greatest accepted size.
WHOLE = (
    ("PNG", "RGB"),
    ("PNG", "RGBA"),
    ("PNG", "P"),
    ("TIFF", "CMYK"),
    ("TIFF", "LAB"),
    ("BMP", "RGB"),
    ("WEBP", "RGBA"),
    ("JPEG", "CMYK"),
)
Generator = np.random.Generator


def _encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def seeds() -> list[bytes]:
    """Small sound files of every kind that is read, and of some that are not."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    photo = Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned = {"exif": exif.tobytes()}
    deep = Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21)
    files = [_encoded(photo, kind, **turned) for kind in ("JPEG", "PNG", "TIFF", "WEBP")]
    files += [_encoded(photo, "JPEG", progressive=True), _encoded(photo.convert("CMYK"), "JPEG")]
    files += [_encoded(photo.convert(mode), "PNG") for mode in ("L", "LA", "RGBA", "P", "1")]
    files += [_encoded(photo, "PNG", interlace=True), _encoded(deep, "PNG"), _encoded(deep, "TIFF")]
    files += [_encoded(photo, "TIFF", compression=kind) for kind in ("tiff_lzw", "jpeg", "tiff_deflate", "packbits")]
    files += [_encoded(photo, "WEBP", lossless=True), _encoded(photo, "BMP"), _encoded(photo.convert("P"), "BMP")]
    files += [_encoded(photo, "GIF"), _encoded(photo, "PPM")]
    return [*files, _encoded(photo, "JPEG2000"), b"%PDF-1.7\n", b"<svg/>", b""]


def large() -> dict[str, bytes]:
    """Whole files of the greatest accepted size, of each kind and mode; and files of endless small segments."""
    Image.MAX_IMAGE_PIXELS = None
    coarse = Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    side = math.isqrt(MAX_PIXELS)
    other = coarse.resize((side, side), Image.Resampling.BILINEAR)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 7
    files = {f"{kind} {mode}": _encoded(other.convert(mode), kind) for kind, mode in WHOLE}
    files["16-bit PNG"] = _encoded(Image.fromarray(np.full((side, side), 40000, dtype=np.uint16)), "PNG")
    side = math.isqrt(MAX_JPEG_PIXELS)
    plain = coarse.resize((side, side), Image.Resampling.BILINEAR)
    for progressive in (False, True):
        options = {"progressive": progressive, "subsampling": 0, "exif": exif.tobytes()}
        files[f"turned JPEG, progressive {progressive}"] = _encoded(plain, "JPEG", **options)
    small = _encoded(coarse, "JPEG")
    files["JPEG of comments"] = small[:2] + b"\xff\xfe\x00\x02" * 30_000_000 + small[2:]
    chunk = struct.pack(">I", 0) + b"teSt" + struct.pack(">I", zlib.crc32(b"teSt"))
    files["PNG of empty chunks"] = _encoded(coarse, "PNG")[:33] + chunk * 10_000_000
    thin = Image.new("L", (MAX_SIDE, MAX_PIXELS // MAX_SIDE), 9)
    files["widest"], files["highest"] = _encoded(thin, "PNG"), _encoded(thin.rotate(90, expand=True), "PNG")
    return files


def _flipped(content: bytes, rng: Generator, files: list[bytes]) -> bytes:
    changed = bytearray(content)
    for position in rng.integers(0, max(1, len(changed)), rng.integers(1, 12)):
        if changed:
            changed[position] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _overwritten(content: bytes, rng: Generator, files: list[bytes]) -> bytes:
    start = int(rng.integers(0, max(1, len(content))))
    return content[:start] + rng.bytes(int(rng.integers(1, 64))) + content[start + 8 :]


def _cut(content: bytes, rng: Generator, files: list[bytes]) -> bytes:
    return content[: int(rng.integers(0, len(content) + 1))]


def _spliced(content: bytes, rng: Generator, files: list[bytes]) -> bytes:
    other = files[int(rng.integers(len(files)))]
    return content[: int(rng.integers(0, len(content) + 1))] + other[int(rng.integers(0, len(other) + 1)) :]


def _repeated(content: bytes, rng: Generator, files: list[bytes]) -> bytes:
    start = int(rng.integers(0, max(1, len(content))))
    part = content[start : start + int(rng.integers(1, 400))]
    return content[:start] + part * int(rng.integers(2, 200)) + content[start:]


def _noise(content: bytes, rng: Generator, files: list[bytes]) -> bytes:
    return content[: int(rng.integers(0, 16))] + rng.bytes(int(rng.integers(0, 600)))


def _absurd_size(content: bytes, rng: Generator, files: list[bytes]) -> bytes:
    """A header that claims any size: of a JPEG or PNG at its place, else a whole PNG of one colour, a true bomb."""
    width, height = (int(2 ** rng.uniform(0, 16)) for _ in range(2))
    frame = max(content.find(b"\xff\xc0"), content.find(b"\xff\xc2"))
    if content.startswith(b"\xff\xd8") and frame > 0:
        return content[: frame + 5] + struct.pack(">HH", height % 65536, width % 65536) + content[frame + 9 :]
    if content.startswith(b"\x89PNG"):
        header = struct.pack(">II", width, height) + content[24:29]
        return content[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + content[33:]
    return _encoded(Image.new("L", (min(width, 20000), min(height, 2000))), "PNG")


ALTERED: tuple[Callable[[bytes, Generator, list[bytes]], bytes], ...] = (
    _flipped, _flipped, _flipped, _overwritten, _cut, _spliced, _repeated, _noise, _absurd_size,
)  # fmt: skip


def _wrong_type(rng: Generator) -> Any:
    shape = tuple(int(side) for side in rng.integers(0, 9, rng.integers(0, 5)))
    kinds: tuple[Any, ...] = (np.uint8, np.float32, np.int64, bool, object)
    return [
        np.zeros(shape, dtype=kinds[int(rng.integers(len(kinds)))]),
        None,
        int(rng.integers(99)),
        "no/such/file.jpg",
        "a\0b",
        "x" * 5000,
        bytearray(b"\xff\xd8"),
        [b""],
    ][int(rng.integers(8))]


def made(number: int, seed: int, files: list[bytes]) -> Any:
    """Input ``number``: the same in every process."""
    rng = np.random.default_rng((seed, number))
    if rng.random() < 0.03:
        return _wrong_type(rng)
    content = files[int(rng.integers(len(files)))]
    for _ in range(int(rng.integers(1, 4))):
        content = ALTERED[int(rng.integers(len(ALTERED)))](content, rng, files)
    return content


def outcome(image: Any) -> str:
    """``picture`` or the reason, or what else came out of it."""
    try:
        prepared = prepare(image, SPEC)
    except PictureError as error:
        return error.reason if error.reason in get_args(Reason) else f"unnamed reason {error.reason!r}"
    except BaseException as error:
        return f"uncaught {type(error).__name__}: {error}"
    return "picture" if prepared.shape == (224, 224, 3) and prepared.dtype == np.uint8 else f"form {prepared.shape}"


def peak_megabytes() -> float:
    """Of this process alone: ru_maxrss would begin with the peak of the one that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def measured(path: str, pipe: Connection) -> None:
    """Send outcome, seconds and peak megabytes of one file, in a process of its own."""
    begun = time.perf_counter()
    found = outcome(path)
    pipe.send((found, time.perf_counter() - begun, peak_megabytes()))


def extremes() -> dict[str, dict[str, Any]]:
    """What becomes of each of the largest files."""
    found = {}
    context = multiprocessing.get_context("spawn")
    with tempfile.NamedTemporaryFile() as file:
        for name, content in large().items():
            Path(file.name).write_bytes(content)
            ours, theirs = context.Pipe(duplex=False)
            worker = context.Process(target=measured, args=(file.name, theirs))
            worker.start()
            theirs.close()
            try:
                what, seconds, megabytes = ours.recv() if ours.poll(PATIENCE) else ("hangs", PATIENCE, 0.0)
            except EOFError:
                what, seconds, megabytes = "ends the process", 0.0, 0.0
            worker.kill()
            worker.join()
            found[name] = {"outcome": what, "seconds": round(seconds, 2), "peak_megabytes": round(megabytes)}
    return found


def work(start: int, count: int, seed: int, pipe: Connection) -> None:
    """Send (number, outcome, seconds, peak megabytes) of each input; the number alone before it begins."""
    files = seeds()
    for number in range(start, count):
        image = made(number, seed, files)
        pipe.send((number, None, 0.0, 0.0))
        begun = time.perf_counter()
        found = outcome(image)
        seconds = time.perf_counter() - begun
        pipe.send((number, found, seconds, peak_megabytes()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    outcomes: Counter[str] = Counter()
    broken: dict[int, str] = {}
    slowest, peak, following = 0.0, 0.0, 0
    context = multiprocessing.get_context("spawn")
    while following < options.inputs:
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=work, args=(following, options.inputs, options.seed, theirs))
        worker.start()
        theirs.close()
        try:
            while following < options.inputs:
                if not ours.poll(PATIENCE):
                    broken[following] = f"hangs for {PATIENCE:g} s"
                    break
                number, found, seconds, megabytes = ours.recv()
                if found is None:
                    continue
                following = number + 1
                outcomes[found if found in ("picture", *get_args(Reason)) else "broken"] += 1
                slowest, peak = max(slowest, seconds), max(peak, megabytes)
                if found not in ("picture", *get_args(Reason)):
                    broken[number] = found
                elif seconds > SECONDS:
                    broken[number] = f"{found} after {seconds:.1f} s"
        except EOFError:
            worker.join()
            broken[following] = f"ends the process (status {worker.exitcode})"
        if following in broken:
            following += 1
        worker.kill()
        worker.join()
    largest = extremes()
    slowest = max(slowest, *(one["seconds"] for one in largest.values()))
    peak = max(peak, *(one["peak_megabytes"] for one in largest.values()))
    named = all(one["outcome"] in ("picture", *get_args(Reason)) for one in largest.values())
    passed = not broken and named and peak <= MEGABYTES and slowest <= SECONDS
    result = {
        "benchmark": "image_fuzz",
        "passed": passed,
        "inputs": options.inputs,
        "seed": options.seed,
        "largest": largest,
        "outcomes": dict(outcomes.most_common()),
        "broken": {str(number): what for number, what in list(broken.items())[:20]},
        "slowest_seconds": round(slowest, 3),
        "peak_megabytes": round(peak, 1),
        "limits": {"seconds": SECONDS, "megabytes": MEGABYTES},
        **origin(),
    }
    print(json.dumps(result))
    sys.exit(not passed)


if __name__ == "__main__":
    main()
