"""Readers: from a folder as it was downloaded to a catalog. A reader writes nothing.

Adding a layout is one function ``folder -> Reading``, one that recognises it, one entry in ``READERS``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dermdistill.data.catalog import PLACE, data_faults, find_faults, validate_catalog
from dermdistill.data.decode import check_images as find_undecodable
from dermdistill.data.isic import is_isic, read_isic
from dermdistill.data.source_files import (
    Reading,
    add_paths,
    column,
    csv_files,
    image_files,
    is_image_name,
    missing_columns,
    read_header,
    read_table,
    subfolders,
    with_masks,
    without_suffix,
)
from dermdistill.errors import ConfigError, DataError
from dermdistill.labels import CODES, parse_diagnosis

HAM10000_METADATA = "ham10000_metadata.csv"
HAM10000_COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
LESIONS = "lesions.csv"


@dataclass(frozen=True)
class Reader:
    """One layout of a data set. Called with a folder it gives the checked catalog, the images not decoded."""

    read: Callable[[Path], Reading]
    recognises: Callable[[Path], bool]
    looks_like: str

    def __call__(self, folder: Path) -> pd.DataFrame:
        """The catalog of a folder, every value checked.

        Raises:
            DataError: with every fault.
        """
        _require_folder(folder)
        return _checked(self.read(folder), folder, decode=False)


def detect_layout(folder: Path) -> str:
    """Which of ``READERS`` a folder is laid out for.

    Raises:
        DataError: the folder is missing, empty, or like none of the layouts.
    """
    _require_folder(folder)
    for name, reader in READERS.items():
        if reader.recognises(folder):
            return name
    raise DataError(f"{folder}: no known data layout", faults=_unreadable_tables(folder), rule=_layouts())


def read_catalog(folder: Path, layout: str | None = None, *, check_images: bool = True) -> pd.DataFrame:
    """Read and check a folder of images.

    Args:
        folder: as downloaded.
        layout: a key of ``READERS``; by default the one that the folder looks like.
        check_images: decode every image once, to prove that it can be.

    Returns:
        The catalog, sorted by ``image_id``.

    Raises:
        DataError: with every fault of tables and images at once, each with its file and row.
        ConfigError: the layout is not known.
    """
    if layout is not None and layout not in READERS:
        raise ConfigError(f"unknown layout {layout!r}", rule=f"one of {', '.join(READERS)}")
    _require_folder(folder)
    reader = READERS[layout or detect_layout(folder)]
    return _checked(reader.read(folder), folder, decode=check_images)


def read_ham10000(folder: Path) -> Reading:
    """HAM10000 as published (Tschandl et al. 2018, doi:10.1038/sdata.2018.161), at any resolution.

    ``HAM10000_metadata.csv``, images at any depth below folders named ``HAM10000_images*`` and, if any, masks
    ``<image_id>_segmentation.png`` below ``HAM10000_segmentations*``. Letter case of these names is free.
    """
    metadata = _ham10000_metadata(folder)
    if metadata is None:
        raise DataError(f"{folder}: no HAM10000_metadata.csv", rule=READERS["ham10000"].looks_like)
    table, row_faults = read_table(metadata)
    faults = missing_columns(table, HAM10000_COLUMNS, metadata) + row_faults
    if "image_id" not in table:
        raise data_faults(str(folder), faults)
    frame = pd.DataFrame({"image_id": table["image_id"].map(without_suffix)})
    frame = frame.join(table[[name for name in ("lesion_id", "age") if name in table]])
    if "dx" in table:
        frame["diagnosis"] = table["dx"].map(_code)
    frame["diagnosis_source"] = column(table, "dx_type", None)
    frame["sex"] = column(table, "sex", "unknown").str.lower()
    frame["site"] = column(table, "localization", "unknown")
    frame["source"] = "HAM10000"
    images = _folders_named(folder, "ham10000_images")
    if not images:
        return Reading(frame, [f"{folder}: no folder HAM10000_images_part_1 or the like", *faults])
    return Reading(frame, faults + add_paths(frame, images, _folders_named(folder, "ham10000_segmentations")))


def read_class_folders(folder: Path) -> Reading:
    """A folder per class, named by its code or name (``mel``, ``melanoma``, ``basal cell carcinoma``).

    ``lesions.csv`` (``image_id,lesion_id``, every image listed) says which images show the same lesion.
    Without it every image is its own lesion, and two photos of one lesion can then land in different parts of
    a split. A mask lies in the folder of its class as ``<image_id>_segmentation.png``. Age, sex and site are
    unknown.
    """
    rows = [
        (
            path.relative_to(folder).as_posix(),
            path.stem,
            _code(item.name),
            str(path.absolute()),
            mask and str(mask.absolute()),
        )
        for item in subfolders(folder)
        for path, mask in with_masks(image_files(item))
    ]
    frame = pd.DataFrame(rows, columns=[PLACE, "image_id", "diagnosis", "path", "mask_path"], dtype="str")
    frame = frame.set_index(PLACE).assign(lesion_id=frame["image_id"].to_numpy(), diagnosis_source=None)
    frame = frame.assign(age=float("nan"), sex="unknown", site="unknown", source="folder")
    loose = [item for item in sorted(folder.iterdir()) if item.is_file() and is_image_name(item)]
    faults = [f"{item.name}: lies in no class folder" for item in loose]
    faults += _set_lesions(frame, folder / LESIONS) if (folder / LESIONS).exists() else []
    return Reading(frame, faults)


def _checked(reading: Reading, folder: Path, *, decode: bool) -> pd.DataFrame:
    faults = reading.faults + find_faults(reading.frame, rows_from=str(folder))
    if decode and "path" in reading.frame:
        paths = reading.frame["path"].dropna()
        bad = find_undecodable([Path(path) for path in paths])
        faults += [f"{paths.index[position]}: {problem}" for position, problem in bad.items()]
    if faults:
        raise data_faults(str(folder), faults)
    return validate_catalog(reading.frame, rows_from=str(folder))


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {what}", next_step="give the folder that holds the images")
    try:
        names = [item.name for item in folder.iterdir()]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
    if all(name.startswith(".") for name in names):
        raise DataError(f"{folder}: the folder is empty", rule=_layouts())


def _layouts() -> str:
    return "one of these layouts" + "".join(f"\n  {name}: {item.looks_like}" for name, item in READERS.items())


def _unreadable_tables(folder: Path) -> list[str]:
    faults = []
    for path in csv_files(folder):
        try:
            read_header(path)
        except DataError as error:
            faults.append(error.problem)
    return faults


def _code(text: str) -> str:
    """The code of a diagnosis; an unknown one stays as it is, for the catalog's check to name."""
    try:
        return parse_diagnosis(text)
    except DataError:
        return text


def _ham10000_metadata(folder: Path) -> Path | None:
    tables = (path for path in csv_files(folder) if path.parent == folder)
    return next((path for path in tables if path.name.lower() == HAM10000_METADATA), None)


def _folders_named(folder: Path, start: str) -> list[Path]:
    return [item for item in subfolders(folder) if item.name.lower().startswith(start)]


def _has_class_folders(folder: Path) -> bool:
    return any(_code(item.name) in CODES and image_files(item) for item in subfolders(folder))


def _set_lesions(frame: pd.DataFrame, path: Path) -> list[str]:
    """Set ``lesion_id`` from ``lesions.csv``; gives the faults."""
    try:
        table, faults = read_table(path)
    except DataError as error:
        return [error.problem]
    lacking = missing_columns(table, ("image_id", "lesion_id"), path)
    if lacking:
        return lacking + faults
    ids, images = table["image_id"].map(without_suffix), frame["image_id"]
    faults += [f"{place}: duplicate image_id {name!r}" for place, name in ids[ids.duplicated()].items()]
    faults += [
        f"{place}: missing image: no image file named {name!r}" for place, name in ids[~ids.isin(images)].items()
    ]
    faults += [f"{place}: is not listed in {path.name}" for place in images.index[~images.isin(ids)]]
    lesions = dict(zip(ids, table["lesion_id"], strict=True))
    frame["lesion_id"] = images.map(lesions).fillna(images)
    return faults


# In the order in which they are tried.
READERS: dict[str, Reader] = {
    "ham10000": Reader(
        read_ham10000,
        lambda folder: _ham10000_metadata(folder) is not None,
        "HAM10000_metadata.csv beside folders HAM10000_images_part_1, ... of images ISIC_0024306.jpg, ...",
    ),
    "isic": Reader(
        read_isic,
        is_isic,
        "a CSV table with columns image, MEL, NV, BCC, AKIEC, BKL, DF, VASC (0 or 1); images in any folder",
    ),
    "folder": Reader(
        read_class_folders,
        _has_class_folders,
        f"a folder of images per class, named {', '.join(CODES)} or by the diagnosis in full",
    ),
}
