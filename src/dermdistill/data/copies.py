"""Pictures that occur twice: exact copies by the hash of their pixels, near copies by their fine structure.

A near copy is the same photograph after small changes: other white balance or brightness, another
compression, a slight shift, a flip, a quarter turn; or a second photograph from almost the same place. The
distance of two pictures is one minus the correlation of their *details*: the centre square in grey at 32 x
32, less its Gaussian blur (sigma 2). Without that subtraction every two dark blots on bright skin are alike
(1,484 pairs of different lesions of HAM10000 correlate by more than .95; with it, 1). The least over the
eight turns and flips counts. 0 is the same structure, 1 is unrelated.

``NEAR_DISTANCE`` was set by looking at pairs of HAM10000: among all its images 92 pairs lie below it, 91 of
them photographs of one lesion and one a picture that stands under two lesion ids (ISIC_0025226 and
ISIC_0030074, at .005). From .065 on, small round lesions of different patients begin to match: 16 such pairs
below .09, 112 below .12.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermdistill.data.decode import decode_all
from dermdistill.data.store import ImageStore
from dermdistill.errors import DataError
from dermdistill.preprocess import PreprocessSpec, resize_image

NEAR_DISTANCE = 0.06
SIDE = 32
SIGMA = 2.0
# Less structure than this (grey levels, root mean square) is rounding: nothing to compare.
FLAT = 0.1
ROWS_AT_ONCE = 512
GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
THUMBNAIL = PreprocessSpec(size=SIDE, resize="crop")

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Fingerprints:
    """What two pictures are compared by.

    Args:
        image_ids: in the order of the catalog.
        keys: hash of the decoded pixels and their shape, one an image.
        details: float32 [N, 32, 32], each of mean 0 and norm 1, or all 0 where the picture is flat.
    """

    image_ids: tuple[str, ...]
    keys: tuple[str, ...]
    details: Floats


def pixel_key(image: npt.NDArray[np.uint8]) -> str:
    """SHA-256 of the shape and the pixels of a picture."""
    content = np.ascontiguousarray(image)
    return hashlib.sha256(repr(content.shape).encode() + content.tobytes()).hexdigest()


def grey_thumbnail(image: npt.NDArray[np.uint8]) -> Floats:
    """The centre square of uint8 [H, W, 3] in grey, float32 [32, 32] in 0..255."""
    grey: Floats = resize_image(image, THUMBNAIL).astype(np.float32) @ GREY
    return grey


def details(thumbnails: Floats) -> Floats:
    """Fine structure of grey thumbnails: the picture less its Gaussian blur, at mean 0 and norm 1.

    Args:
        thumbnails: [N, 32, 32] in 0..255.

    Returns:
        float32 [N, 32, 32]; all 0 for a flat picture.
    """
    place = np.arange(SIDE)
    kernel = np.exp(-((place[:, None] - place[None, :]) ** 2) / (2 * SIGMA**2))
    kernel = (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)
    fine = thumbnails - kernel @ thumbnails @ kernel.T
    fine = fine - fine.mean(axis=(1, 2), keepdims=True)
    norm = np.linalg.norm(fine, axis=(1, 2), keepdims=True)
    result: Floats = np.where(norm > FLAT * SIDE, fine / np.maximum(norm, 1e-12), 0).astype(np.float32)
    return result


def fingerprints(catalog: pd.DataFrame) -> Fingerprints:
    """Decode every image of a catalog once and keep its hash and its details.

    Raises:
        DataError: images cannot be decoded; each is named.
    """
    paths = [Path(path) for path in catalog["path"]]
    outcomes = decode_all(paths, lambda image: (pixel_key(image), grey_thumbnail(image)))
    faults = [outcome.problem for outcome in outcomes if isinstance(outcome, DataError)]
    if faults:
        raise DataError("images cannot be compared", faults=faults, next_step="repair or remove these files")
    good = [outcome for outcome in outcomes if not isinstance(outcome, DataError)]
    thumbnails = np.stack([thumbnail for _, thumbnail in good])
    return Fingerprints(tuple(catalog["image_id"]), tuple(key for key, _ in good), details(thumbnails))


def pixel_keys(source: pd.DataFrame | ImageStore) -> dict[str, str]:
    """Hash of the pixels by image id: of the decoded files of a catalog, or of the rows of a store.

    Raises:
        DataError: images of the catalog cannot be decoded; each is named.
    """
    if isinstance(source, pd.DataFrame):
        prints = fingerprints(source)
        return dict(zip(prints.image_ids, prints.keys, strict=True))
    return {name: pixel_key(image) for name, image in zip(source.image_ids, source.images, strict=True)}


def copies_of(keys: Mapping[str, str]) -> list[tuple[str, str]]:
    """Pairs (first image, copy of it) of images with the same hash, sorted; the first is the smallest id."""
    first: dict[str, str] = {}
    pairs = [(first.setdefault(keys[name], name), name) for name in sorted(keys)]
    return sorted((one, other) for one, other in pairs if one != other)


def exact_copies(source: pd.DataFrame | ImageStore) -> list[tuple[str, str]]:
    """Pairs of images with the same pixels, as ``make_split`` takes them to keep copies together.

    Of k copies of one picture, k - 1 pairs: each later id with the smallest.

    Raises:
        DataError: images of the catalog cannot be decoded; each is named.
    """
    return copies_of(pixel_keys(source))


def near_pairs(
    structure: Floats,
    left: npt.NDArray[np.int64],
    right: npt.NDArray[np.int64],
    distance: float = NEAR_DISTANCE,
) -> dict[tuple[int, int], float]:
    """Pairs of one image of ``left`` and one of ``right`` that are no farther apart than ``distance``.

    Args:
        structure: float32 [N, 32, 32] from ``details``.
        left: indices into it; an image is never paired with itself.
        right: indices into it.
        distance: in [0, 1).

    Returns:
        distance by pair of indices (smaller, larger).
    """
    found: dict[tuple[int, int], float] = {}
    others = structure[right].reshape(len(right), -1).T
    for start in range(0, len(left), ROWS_AT_ONCE):
        rows = left[start : start + ROWS_AT_ONCE]
        best = np.full((len(rows), len(right)), -1, dtype=np.float32)
        for turns in range(4):
            turned = np.rot90(structure[rows], turns, axes=(1, 2))
            for view in (turned, turned[:, :, ::-1]):
                np.maximum(best, np.ascontiguousarray(view).reshape(len(rows), -1) @ others, out=best)
        for row, column in zip(*np.nonzero(best >= 1 - distance), strict=True):
            one, other = sorted((int(rows[row]), int(right[column])))
            if one != other:
                found[one, other] = max(0.0, 1.0 - float(best[row, column]))
    return found


def all_copies(catalog: pd.DataFrame, distance: float = NEAR_DISTANCE) -> list[tuple[str, str]]:
    """Pairs of exact or near copies among all images of a catalog, sorted, as ``make_split`` takes them.

    Under the protocol ``lesion`` this also keeps together what stands under two lesion ids by mistake.

    Args:
        catalog: one row an image.
        distance: pairs up to this distance, in [0, 1).

    Raises:
        DataError: images of the catalog cannot be decoded; each is named.
    """
    prints = fingerprints(catalog)
    names, rows = prints.image_ids, np.arange(len(prints.image_ids))
    pairs = set(copies_of(dict(zip(names, prints.keys, strict=True))))
    for start in range(0, len(rows), ROWS_AT_ONCE):
        block = rows[start : start + ROWS_AT_ONCE]
        found = near_pairs(prints.details, block, rows[start:], distance)
        pairs |= {(min(names[i], names[j]), max(names[i], names[j])) for i, j in found}
    return sorted(pairs)
