"""Thirteen ways to spoil a photograph, five severities each, at a model's input size: what robustness is measured on.

Five are artefacts (``artefacts.py``), eight are faults of camera and file. Severity 1 is mild and 5 strong, after
ImageNet-C (Hendrycks and Dietterich, ICLR 2019) and MedMNIST-C (Di Salvo et al., 2024): blur and JPEG have
ImageNet-C's strengths, contrast those of its small form CIFAR-10-C; noise begins weaker (severity 3 is ImageNet-C's
first), as a network that never saw noise is lost at that already; the others are our own.

Strengths are those of one photograph, whatever size a model reads it at: lengths are shares of the side, noise has one
strength per area, a JPEG has one number of blocks. So a teacher and a student with inputs of two sizes are shown the
same fault, and the same artefact in the same place.

A draw depends on (key, kind, severity) alone, not on the size, the order or the other pictures.
"""

import hashlib
import io
import math
import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from dermdistill.data import artefacts
from dermdistill.data.artefacts import Picture
from dermdistill.errors import ConfigError, DataError

Group = Literal["artefact", "corruption"]
Apply = Callable[[np.random.Generator, Picture, Any], Picture]
GROUPS: tuple[Group, ...] = ("artefact", "corruption")
SEVERITIES = (1, 2, 3, 4, 5)
# The side that ImageNet-C's strengths are meant for, pixels.
REFERENCE_SIDE = 224
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Kind:
    """One way to spoil a picture.

    Attributes:
        title: what it is called in a report.
        group: ``artefact`` or ``corruption``.
        strengths: of severities 1 to 5.
        apply: (generator, uint8 [S, S, 3], strength) -> a new picture of the same shape.
    """

    title: str
    group: Group
    strengths: tuple[Any, ...]
    apply: Apply


def _bytes(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.asarray(np.clip(values + np.float32(0.5), 0, 255), dtype=np.uint8)


def _resized(picture: Image.Image, side: int, resampling: Image.Resampling) -> Image.Image:
    return picture if picture.width == side else picture.resize((side, side), resampling)


def blur(rng: np.random.Generator, picture: Picture, sigma: float) -> Picture:
    """Out of focus: a Gaussian of ``sigma`` pixels at a side of 224."""
    radius = sigma * picture.shape[0] / REFERENCE_SIDE
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def noise(rng: np.random.Generator, picture: Picture, deviation: float) -> Picture:
    """Gaussian noise in every channel, of ``deviation`` (of the range 1) at a side of 224.

    A pixel of a smaller input gathers light from a larger part of the photograph, so its noise is smaller.
    """
    scale = np.float32(255 * deviation * picture.shape[0] / REFERENCE_SIDE)
    return _bytes(picture + scale * rng.standard_normal(picture.shape, dtype=np.float32))


def jpeg(rng: np.random.Generator, picture: Picture, quality: int) -> Picture:
    """Saved as a JPEG of ``quality`` at a side of at least 224 pixels, then read and brought back to size."""
    side = picture.shape[0]
    buffer = io.BytesIO()
    _resized(Image.fromarray(picture), max(side, REFERENCE_SIDE), Image.Resampling.BICUBIC).save(
        buffer, "JPEG", quality=quality
    )
    with Image.open(buffer) as saved:
        return np.asarray(_resized(saved.convert("RGB"), side, Image.Resampling.BOX))


def brightness(rng: np.random.Generator, picture: Picture, stops: float) -> Picture:
    """Exposed too long or too short, by ``stops`` factors of two; beyond 255 light is lost."""
    factor = 2 ** (stops if rng.random() < 0.5 else -stops)
    return _bytes(factor * np.arange(256))[picture]


def contrast(rng: np.random.Generator, picture: Picture, share: float) -> Picture:
    """Each channel drawn towards its mean over the picture; ``share`` of the contrast is left."""
    levels = np.arange(256, dtype=np.float32)
    means = picture.mean(axis=(0, 1))
    return _by_channel(picture, [mean + share * (levels - mean) for mean in means])


def colour_cast(rng: np.random.Generator, picture: Picture, stops: float) -> Picture:
    """Wrong white balance: gains up to ``stops`` factors of two, towards a random hue; mean luma of greys stays."""
    turn = rng.uniform(0, 2 * math.pi)
    gains = 2 ** (stops * np.cos(turn - 2 * math.pi / 3 * np.arange(3)))
    gains /= float(np.dot(LUMA, gains))
    return _by_channel(picture, [gain * np.arange(256) for gain in gains])


def _by_channel(picture: Picture, tables: Sequence[npt.NDArray[Any]]) -> Picture:
    changed = [_bytes(table)[picture[:, :, channel]] for channel, table in enumerate(tables)]
    return np.stack(changed, axis=2)


def zoom(rng: np.random.Generator, picture: Picture, factor: float) -> Picture:
    """Taken from too near: the middle, enlarged by ``factor``; what lay around it is cut off."""
    side = picture.shape[0]
    edge = side * (1 - 1 / factor) / 2
    box = (edge, edge, side - edge, side - edge)
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC, box=box))


def pixelation(rng: np.random.Generator, picture: Picture, across: int) -> Picture:
    """As many as ``across`` square blocks of one colour along a side, and at most 7 for 8 pixels."""
    side = picture.shape[0]
    count = max(1, min(across, side * 7 // 8))
    blocks = Image.fromarray(picture).resize((count, count), Image.Resampling.BOX)
    return np.asarray(blocks.resize((side, side), Image.Resampling.NEAREST))


CORRUPTIONS: dict[str, Kind] = {
    "ink": Kind("Ink of a surgical marker", "artefact", artefacts.INK, artefacts.over_with_ink),
    "ruler": Kind("Ruler", "artefact", artefacts.RULER, artefacts.over_with_ruler),
    "hair": Kind("Hair", "artefact", artefacts.HAIR, artefacts.over_with_hair),
    "corners": Kind("Dark corners", "artefact", artefacts.CORNERS, artefacts.over_with_corners),
    "bubbles": Kind("Gel bubbles", "artefact", artefacts.BUBBLES, artefacts.over_with_bubbles),
    "blur": Kind("Out of focus", "corruption", (1.0, 2.0, 3.0, 4.0, 6.0), blur),
    "noise": Kind("Noise", "corruption", (0.02, 0.04, 0.08, 0.12, 0.18), noise),
    "jpeg": Kind("JPEG", "corruption", (25, 18, 15, 10, 7), jpeg),
    "brightness": Kind("Brightness", "corruption", (0.15, 0.3, 0.45, 0.6, 0.75), brightness),
    "contrast": Kind("Low contrast", "corruption", (0.75, 0.5, 0.4, 0.3, 0.15), contrast),
    "colour_cast": Kind("Colour cast", "corruption", (0.05, 0.1, 0.15, 0.22, 0.3), colour_cast),
    "zoom": Kind("Too near", "corruption", (1.15, 1.3, 1.5, 1.75, 2.0), zoom),
    "pixelation": Kind("Pixelation", "corruption", (80, 60, 45, 34, 26), pixelation),
}


def picture_key(seed: int, image_id: str) -> tuple[int, ...]:
    """The key of an image's draws: the seed and 128 bits of the SHA-256 of its id."""
    digest = hashlib.sha256(image_id.encode()).digest()
    return (seed, *(int.from_bytes(digest[start : start + 4], "little") for start in range(0, 16, 4)))


def corrupt(picture: Picture, kind: str, severity: int, key: Sequence[int]) -> Picture:
    """One spoilt picture.

    Args:
        picture: uint8 [S, S, 3]; it stays as it is.
        kind: a name of ``CORRUPTIONS``.
        severity: 1 to 5.
        key: non-negative integers that name the picture and the seed, see ``picture_key``.

    Returns:
        uint8 [S, S, 3].

    Raises:
        ConfigError: an unknown kind or severity.
        DataError: not a square uint8 picture.
    """
    if kind not in CORRUPTIONS:
        raise ConfigError(f"corruption {kind!r}", rule=f"one of {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ConfigError(f"severity {severity}", rule="a whole number from 1 to 5")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape != (picture.shape[0], picture.shape[0], 3):
        raise DataError(f"picture {picture.dtype} {list(picture.shape)}", rule="uint8 [S, S, 3]")
    found = CORRUPTIONS[kind]
    # The name's checksum, not its place in the table: a kind that is added leaves the draws of all others.
    rng = np.random.default_rng([*key, zlib.crc32(kind.encode()), severity])
    return found.apply(rng, picture, found.strengths[severity - 1])


def corrupt_all(pictures: Picture, kind: str, severity: int, keys: Sequence[Sequence[int]]) -> Picture:
    """Many spoilt pictures, made by as many threads as there are cores: Pillow and numpy let go of Python's lock.

    Args:
        pictures: uint8 [N, S, S, 3]; they stay as they are.
        kind: a name of ``CORRUPTIONS``.
        severity: 1 to 5.
        keys: one a picture.

    Returns:
        uint8 [N, S, S, 3].
    """
    spoilt = np.empty_like(pictures)

    def one(place: int) -> None:
        spoilt[place] = corrupt(pictures[place], kind, severity, keys[place])

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        list(pool.map(one, range(len(pictures))))
    return spoilt


def random_artefact(picture: Picture, key: int) -> Picture:
    """The picture with one artefact over it, whose kind, severity and place follow from the key.

    Args:
        picture: uint8 [S, S, 3]; it stays as it is.
        key: not negative.

    Returns:
        uint8 [S, S, 3].
    """
    rng = np.random.default_rng(key)
    kinds = [name for name, kind in CORRUPTIONS.items() if kind.group == "artefact"]
    return corrupt(picture, kinds[int(rng.integers(len(kinds)))], int(rng.choice(SEVERITIES)), (key,))
