"""Whether a set of images shows what a model has seen: by names that are unique in the world, and by near copies.

A near copy is found by a code of 128 bits an image: the signs of the 128 lowest coefficients, but for the first few, of
the cosine transform of the centre square in grey at 32 x 32 (after Zauner 2010, pHash). A new picture is compared with
its full coefficients: their distance to a code is the share of their sum of magnitudes that stands under the other
sign. So a coefficient that is nearly zero, whose sign is chance, says nearly nothing. The eight turns and flips are
signs and places of the same coefficients. A square picture is also looked at as the squashed 4:3 photograph that it may
be.

``COPY_DISTANCE`` was set on HAM10000 at 200 x 150 pixels: of its 50 million pairs of images of different lesions one
lies below it, ISIC_0025226 and ISIC_0030074 (.0013), one picture under two lesion ids; the next lies at .0065. Of 400
training images all are found again after JPEG at quality 90, half or three times the size, darker by 30%, a flip, a
quarter turn, a cut to the centre square, or when squashed to a square; 99% or more after JPEG at quality 50, another
white balance, or noise of 8 grey levels; 91% or more after JPEG at quality 20, a third of the size at quality 50, gamma
.6, or exposure that clips. A crop of 2% a side hides two of three, a crop of 5% or a turn by 3 degrees nearly all:
those are found by name alone.

No picture can be rebuilt from a code: 128 signs hold no colour, no brightness and nothing finer than a twelfth of the
square. The best linear guess from them explains a third of how 32 x 32 grey thumbnails differ: a blurred blot.

No pandas here: bundles keep and read such codes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dermdistill.data.decode import decode_all
from dermdistill.errors import DataError
from dermdistill.preprocess import PreprocessSpec, resize_image

COPY_DISTANCE = 0.006
BITS = 128
SIDE = 32
LOWEST = 2.0
GREY = np.array([0.299, 0.587, 0.114])
THUMBNAIL = PreprocessSpec(size=SIDE, resize="crop")
# Coefficients that add up to less are those of a flat picture: rounding, whose signs mean nothing.
FLAT = 0.5
ROWS_AT_ONCE = 256
LISTED = 10
# Names that are given out once: by the ISIC archive, and for lesions in its collections.
PUBLIC_NAME = re.compile(r"(?:ISIC|HAM|BCN|MSK\d?|IL)_\d{5,}")

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Seen:
    """What a model has seen: training and validation images.

    Args:
        names: of each image, ``""`` where its name is not unique in the world.
        parts: of each image, ``train`` or ``val``.
        codes: uint8 [N, 16], see ``code``.
        lesions: names of their lesions, those that are unique in the world.
    """

    names: tuple[str, ...]
    parts: tuple[str, ...]
    codes: Codes
    lesions: frozenset[str]


@dataclass(frozen=True)
class Overlap:
    """Which images of a new set a model has seen; an image is named once, under the first reason that holds.

    Args:
        images: in the new set.
        names: images that carry the name of a seen image.
        copies: images that show a seen picture: (name, name of the seen one or ``""``, distance).
        lesions: other images of a lesion that was seen.
    """

    images: int
    names: tuple[str, ...]
    copies: tuple[tuple[str, str, float], ...]
    lesions: tuple[str, ...]

    @property
    def image_ids(self) -> tuple[str, ...]:
        """All images that overlap, sorted."""
        return tuple(sorted([*self.names, *(name for name, _, _ in self.copies), *self.lesions]))

    def to_dict(self) -> dict[str, Any]:
        """Counts, and the first few of each kind."""
        return {
            "images": self.images,
            "seen": len(self.image_ids),
            "by_name": {"count": len(self.names), "first": list(self.names[:LISTED])},
            "near_copies": {
                "count": len(self.copies),
                "distance": COPY_DISTANCE,
                "first": [
                    {"image_id": name, "seen": seen or None, "distance": round(distance, 4)}
                    for name, seen, distance in self.copies[:LISTED]
                ],
            },
            "by_lesion": {"count": len(self.lesions), "first": list(self.lesions[:LISTED])},
        }


def public_name(name: str) -> str:
    """``ISIC_0000002`` of ``ISIC_0000002_downsampled``, ``HAM_0000550`` as it is; ``""`` of any other name."""
    found = PUBLIC_NAME.match(name)
    return found[0] if found else ""


def coefficients(image: npt.NDArray[np.uint8]) -> Floats:
    """The coefficients that codes are made of.

    Args:
        image: uint8 [H, W, 3], RGB.

    Returns:
        float64 [128], scale of grey levels; zeros where the picture is flat.
    """
    grey = resize_image(image, THUMBNAIL) @ GREY
    values: Floats = (_COSINES @ grey @ _COSINES.T)[_ROWS, _COLUMNS]
    return values if np.abs(values).sum() > FLAT * SIDE else np.zeros(BITS)


def code(values: Floats) -> Codes:
    """The signs of coefficients [..., 128], uint8 [..., 16]; what a bundle keeps of each image."""
    return np.packbits(values > 0, axis=-1)


def looks(image: npt.NDArray[np.uint8]) -> Floats:
    """Every way to look at a new picture, as coefficients float64 [V, 128]: 8 turns and flips, 16 of a square one."""
    height, width = image.shape[:2]
    views = [_turned(coefficients(image))]
    if height == width and width >= 4:
        views.append(_turned(coefficients(_unsquashed(image))))
    return np.concatenate(views)


def picture_looks(paths: Sequence[Path], image_ids: Sequence[str]) -> list[Floats]:
    """``looks`` of files.

    Raises:
        DataError: images that cannot be read, every one of them.
    """
    return _decoded(paths, image_ids, looks)


def picture_codes(paths: Sequence[Path], image_ids: Sequence[str]) -> Codes:
    """``code`` of files, uint8 [N, 16].

    Raises:
        DataError: images that cannot be read, every one of them.
    """
    found = _decoded(paths, image_ids, lambda image: code(coefficients(image)))
    return np.stack(found) if found else np.empty((0, BITS // 8), dtype=np.uint8)


def nearest(views: Sequence[Floats], codes: Codes) -> tuple[Floats, npt.NDArray[np.int64]]:
    """The seen picture nearest to each new one.

    Args:
        views: ``looks`` of each new picture.
        codes: uint8 [M, 16] of the seen ones, M at least 1.

    Returns:
        Distance in [0, 1] float64 [N], NaN of a flat picture, and the row in ``codes``, int64 [N].
    """
    signs = np.unpackbits(codes, axis=1).astype(np.float32).T * 2 - 1
    flat_code = ~codes.any(axis=1)
    owner = np.repeat(np.arange(len(views)), [len(rows) for rows in views])
    stacked = np.concatenate([*views, np.empty((0, BITS))])
    distance, row = np.full(len(views), np.inf), np.zeros(len(views), dtype=np.int64)
    for start in range(0, len(stacked), ROWS_AT_ONCE):
        block = stacked[start : start + ROWS_AT_ONCE]
        total = np.abs(block).sum(axis=1, keepdims=True)
        shares = (block / np.where(total > 0, total, 1)).astype(np.float32)
        apart = (1 - shares @ signs) / 2
        apart[:, flat_code] = 1
        best = apart.argmin(axis=1)
        for image, near, where in zip(
            owner[start : start + len(block)], apart[np.arange(len(block)), best], best, strict=True
        ):
            if near < distance[image]:
                distance[image], row[image] = max(float(near), 0.0), where
    flat = np.array([not rows.any() for rows in views], dtype=bool)
    return np.where(flat, np.nan, distance), row


def find_overlap(image_ids: Sequence[str], lesion_ids: Sequence[str], views: Sequence[Floats], seen: Seen) -> Overlap:
    """Which images of a new set a model has seen.

    Equal names count where they are unique in the world (``ISIC_0024306``), else not: ``1.jpg`` of one folder is not
    that of another. The pictures are compared whatever their names.

    Args:
        image_ids: of the new set, N.
        lesion_ids: of its images.
        views: ``looks`` of its images.
        seen: what the model has seen.
    """
    known = set(seen.names) - {""}
    distance, row = nearest(views, seen.codes) if len(seen.codes) else (np.full(len(views), np.nan), None)
    names, copies, lesions = [], [], []
    for index, (image_id, lesion) in enumerate(zip(image_ids, lesion_ids, strict=True)):
        if public_name(image_id) in known:
            names.append(image_id)
        elif row is not None and distance[index] <= COPY_DISTANCE:
            copies.append((image_id, seen.names[row[index]], float(distance[index])))
        elif public_name(lesion) in seen.lesions:
            lesions.append(image_id)
    return Overlap(len(image_ids), tuple(names), tuple(sorted(copies, key=lambda pair: pair[2])), tuple(lesions))


def _decoded(paths: Sequence[Path], image_ids: Sequence[str], use: Any) -> list[Any]:
    outcomes = decode_all(paths, use)
    faults = [
        f"{name}: {outcome.problem}"
        for name, outcome in zip(image_ids, outcomes, strict=True)
        if isinstance(outcome, DataError)
    ]
    if faults:
        raise DataError(
            f"{len(faults)} of {len(paths)} images cannot be read",
            faults=faults,
            rule="every image of a set can be decoded, or it is not compared with others",
            next_step="mend these files, or remove them with their rows",
        )
    return outcomes


def _unsquashed(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The centre square of the 4:3 photograph that was squashed to this square."""
    width = image.shape[1]
    margin = round(width / 8)
    square: npt.NDArray[np.uint8] = resize_image(
        np.ascontiguousarray(image[:, margin : width - margin]), PreprocessSpec(size=image.shape[0], resize="squash")
    )
    return square


def _turned(values: Floats) -> Floats:
    """Coefficients of the eight turns and flips of a picture, [8, 128]: a flip turns signs, a transposition places."""
    both = np.stack([values, values[_TRANSPOSED]])
    flips = [
        np.where(vertical, _SIGNS[_ROWS], 1.0) * np.where(horizontal, _SIGNS[_COLUMNS], 1.0)
        for vertical in (False, True)
        for horizontal in (False, True)
    ]
    return np.concatenate([both * flip for flip in flips])


def _lowest() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows and columns of the 128 lowest coefficients from ``LOWEST`` on; with a place comes its transposed one."""
    places: list[tuple[int, int]] = []
    halves = [(row, column) for row in range(SIDE) for column in range(row + 1)]
    for row, column in sorted(halves, key=lambda place: (place[0] ** 2 + place[1] ** 2, place)):
        both = list(dict.fromkeys([(row, column), (column, row)]))
        if row**2 + column**2 >= LOWEST**2 and len(places) + len(both) <= BITS:
            places += both
    chosen = np.array(places)
    return chosen[:, 0], chosen[:, 1]


_PLACE = np.arange(SIDE)
# The orthonormal cosine transform (DCT-II) of 32 values.
_COSINES: Floats = np.sqrt(2 / SIDE) * np.cos(np.pi * _PLACE[:, None] * (2 * _PLACE[None, :] + 1) / (2 * SIDE))
_COSINES[0] /= np.sqrt(2)
_SIGNS = np.where(_PLACE % 2, -1.0, 1.0)
_ROWS, _COLUMNS = _lowest()
_PLACES = {place: index for index, place in enumerate(zip(_ROWS.tolist(), _COLUMNS.tolist(), strict=True))}
_TRANSPOSED = np.array([_PLACES[column, row] for row, column in zip(_ROWS.tolist(), _COLUMNS.tolist(), strict=True)])
