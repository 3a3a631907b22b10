"""The image store: every image decoded and resized once, kept as one memory-mapped uint8 array.

A store is a folder of the cache, named by what it holds: image ids, the SHA-256 of their files' contents,
size and resize mode. Where the images lie does not matter, so all runs that see the same images share one
store. It is written under a temporary name and renamed when whole; of several builders at once one wins and
the others read its result. ``images.npy`` is the array (any numpy reads it), ``index.json`` says what its
rows are.
"""

import functools
import hashlib
import itertools
import json
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dermdistill.atomic import atomic_folder, write_json
from dermdistill.data import decode
from dermdistill.errors import DataError, OutputError
from dermdistill.preprocess import PreprocessSpec, resize_image
from dermdistill.provenance import sha256_file, sha256_json

if TYPE_CHECKING:
    import pandas as pd

# Raise it when what is stored for the same image changes: every older store is then left alone.
FORMAT_VERSION = 2
ARRAY_FILE = "images.npy"
INDEX_FILE = "index.json"
# Decoded pictures held in memory before they are written.
IMAGES_AT_ONCE = 256

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ImageStore:
    """Stored pictures and whose they are.

    Args:
        images: uint8 [N, S, S, 3], RGB, a read-only memory map.
        image_ids: N ids in sorted order; row ``i`` shows ``image_ids[i]``.
        sha256: of the array's bytes (without the file's header), 64 hex digits.
    """

    images: npt.NDArray[np.uint8]
    image_ids: tuple[str, ...]
    sha256: str

    @functools.cached_property
    def _row_of(self) -> dict[str, int]:
        return {image_id: row for row, image_id in enumerate(self.image_ids)}

    def rows(self, ids: Iterable[str]) -> npt.NDArray[np.int64]:
        """Rows of images, in the order given; an id may come several times.

        Returns:
            int64 [len(ids)].

        Raises:
            DataError: ids that the store does not hold, all of them.
        """
        wanted = list(ids)
        unknown = sorted({image_id for image_id in wanted if image_id not in self._row_of})
        if unknown:
            raise DataError(
                f"{len(unknown)} image ids are not in the image store of {len(self.image_ids)} images",
                faults=[f"unknown image_id {image_id!r}" for image_id in unknown],
                next_step="open the store with the catalog that the ids come from",
            )
        return np.array([self._row_of[image_id] for image_id in wanted], dtype=np.int64)


def open_store(
    catalog: "pd.DataFrame", spec: PreprocessSpec, cache: Path, *, workers: int = 2, verify: bool = False
) -> ImageStore:
    """Open the store of a catalog's images, building it where the cache has no whole one.

    Every file's content is hashed on each opening, so an image that changed gets a new store. A store that
    is cut off or does not match its index is built again.

    Args:
        catalog: needs the columns image_id and path; the order of rows does not matter.
        spec: size and resize mode; mean and std play no part.
        cache: folder of stores, made if missing.
        workers: threads that decode (decoding and resizing let go of the interpreter lock).
        verify: hash the stored array too and build again if it was altered.

    Raises:
        DataError: no images, an id twice, or images that cannot be read, all of them.
        OutputError: the cache cannot be written.
    """
    ids, paths = _sorted_images(catalog)
    index: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "size": spec.size,
        "resize": spec.resize,
        "image_ids": ids,
    }
    index["key"] = sha256_json({**index, "contents": _content_hashes(ids, paths)})
    folder = cache / f"images-{spec.size}-{spec.resize}-{index['key'][:16]}"
    if folder.is_dir():
        try:
            return _read(folder, index, verify=verify)
        except DataError as fault:
            logger.warning("this image store is built again: %s", fault.problem)
    return _build(folder, index, paths, spec, workers)


def _sorted_images(catalog: "pd.DataFrame") -> tuple[list[str], list[Path]]:
    pairs = sorted(zip(catalog["image_id"].astype(str), catalog["path"].astype(str), strict=True))
    ids = [image_id for image_id, _ in pairs]
    twice = sorted({first for first, second in itertools.pairwise(ids) if first == second})
    if twice or not ids:
        raise DataError(
            "the catalog cannot be stored" if ids else "the catalog has no images",
            faults=[f"image_id {image_id!r} comes more than once" for image_id in twice],
            rule="at least one image, each image_id once",
        )
    return ids, [Path(path) for _, path in pairs]


def _content_hashes(ids: Sequence[str], paths: Sequence[Path]) -> list[str]:
    try:
        return [sha256_file(path) for path in paths]
    except OSError as error:
        # Some file is missing or locked. All are decoded then, so that every fault is told at once.
        faults = [f"{ids[row]}: {problem}" for row, problem in decode.check_images(paths).items()]
        raise _unreadable(faults or [f"{error.filename}: {error.strerror or error}"]) from error


def _unreadable(faults: Sequence[str]) -> DataError:
    return DataError(
        f"{len(faults)} images cannot be read",
        faults=faults,
        rule="every image of the catalog exists and can be decoded",
        next_step="mend or remove these files and read the data folder again; no store was written",
    )


def _read(folder: Path, index: dict[str, Any], *, verify: bool) -> ImageStore:
    """Open what lies in a folder; a DataError says why it is not the whole store that the index describes."""
    try:
        found = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
        images = np.lib.format.open_memmap(folder / ARRAY_FILE, mode="r")
        length = (folder / ARRAY_FILE).stat().st_size
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{folder}: cannot be opened ({error})") from error
    wanted = (len(index["image_ids"]), index["size"], index["size"], 3)
    if images.shape != wanted or images.dtype != np.uint8 or not images.flags.c_contiguous:
        raise DataError(f"{folder / ARRAY_FILE}: is {images.dtype} {list(images.shape)}, not uint8 {list(wanted)}")
    if not isinstance(found, dict) or {key: found.get(key) for key in index} != index:
        raise DataError(f"{folder / INDEX_FILE}: does not describe these images")
    if found.get("bytes") != length:
        raise DataError(f"{folder / ARRAY_FILE}: has {length} bytes, not {found.get('bytes')}")
    sha256 = str(found.get("sha256"))
    if verify and hashlib.sha256(images.data).hexdigest() != sha256:
        raise DataError(f"{folder / ARRAY_FILE}: was altered (its sha256 is not {sha256})")
    return ImageStore(images=images, image_ids=tuple(index["image_ids"]), sha256=sha256)


def _build(
    folder: Path, index: dict[str, Any], paths: Sequence[Path], spec: PreprocessSpec, workers: int
) -> ImageStore:
    try:
        with atomic_folder(folder) as temporary:
            sha256 = _write_array(temporary / ARRAY_FILE, index["image_ids"], paths, spec, workers)
            length = (temporary / ARRAY_FILE).stat().st_size
            write_json(temporary / INDEX_FILE, {**index, "bytes": length, "sha256": sha256})
    except OutputError as refused:
        # Another builder may have renamed its folder to this name first: then nothing is left to write.
        try:
            return _await_store(folder, index)
        except DataError:
            raise refused from None
    return _await_store(folder, index)


def _await_store(folder: Path, index: dict[str, Any], seconds: float = 1.0) -> ImageStore:
    """Open the store; where another builder is between its two renames there is nothing for a moment."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            return _read(folder, index, verify=False)
        except DataError:
            time.sleep(0.05)
    return _read(folder, index, verify=False)


def _write_array(file: Path, ids: Sequence[str], paths: Sequence[Path], spec: PreprocessSpec, workers: int) -> str:
    """Decode, resize and write every image; gives the SHA-256 of the array.

    Ordinary writes, not a writable memory map: a full disk is then an error and not the death of the process.

    Raises:
        DataError: images that cannot be decoded, all of them.
    """
    faults: list[str] = []
    digest = hashlib.sha256()
    resize = functools.partial(resize_image, spec=spec)
    shape = (len(paths), spec.size, spec.size, 3)
    with file.open("wb") as handle:
        np.lib.format.write_array_header_1_0(handle, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for start in range(0, len(paths), IMAGES_AT_ONCE):
            part = slice(start, start + IMAGES_AT_ONCE)
            for image_id, image in zip(ids[part], decode.decode_all(paths[part], resize, workers=workers), strict=True):
                if isinstance(image, DataError):
                    faults.append(f"{image_id}: {image.problem}")
                elif not faults:
                    handle.write(image.tobytes())
                    digest.update(image.data)
    if faults:
        raise _unreadable(faults)
    return digest.hexdigest()
