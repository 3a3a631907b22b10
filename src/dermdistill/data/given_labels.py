"""A table that names each image's diagnosis, beside the images: ``image,diagnosis[,lesion_id,...]``."""

from pathlib import Path

import pandas as pd

from dermdistill.data.catalog import data_faults
from dermdistill.data.source_files import Reading, add_paths, column, csv_files, read_header, read_table, without_suffix
from dermdistill.errors import DataError

IMAGE_COLUMNS = ("image", "image_id", "image_name", "isic_id", "file", "filename", "path")
# The second tells melanoma from the rest alone.
DIAGNOSIS_COLUMNS = ("diagnosis", "melanoma")
LOOKS_LIKE = (
    f"a CSV table with an image column ({', '.join(IMAGE_COLUMNS)}) and a column diagnosis, or melanoma (0 or 1), "
    "beside the images"
)
MELANOMA = {"1": "melanoma", "1.0": "melanoma", "0": "not melanoma", "0.0": "not melanoma"}


def has_given_labels(folder: Path) -> bool:
    """Whether a folder holds a table of images and diagnoses."""
    return any(_fits(path) for path in csv_files(folder))


def read_given_labels(folder: Path) -> Reading:
    """A folder of images at any depth with one such table, or the table itself with images around it.

    An image is named by its id, file name or path; that its name is there only once is required. Further columns, where
    they are there: ``lesion_id`` (else each image is its own lesion), ``diagnosis_source``, ``age``, ``sex``, ``site``.
    The diagnosis stays as it is written; ``other_sets`` reads it.

    Raises:
        DataError: there is not exactly one such table.
    """
    path = _table(folder)
    table, faults = read_table(path)
    image = next(name for name in IMAGE_COLUMNS if name in table)
    if table.empty:
        raise data_faults(str(path), faults or [f"{path.name}: no rows"])
    frame = pd.DataFrame({"image_id": table[image].map(lambda name: without_suffix(Path(name).name))})
    if "diagnosis" in table:
        frame["diagnosis"] = table["diagnosis"]
    else:
        frame["diagnosis"] = table["melanoma"].map(lambda cell: MELANOMA.get(cell, f"melanoma = {cell}"))
    frame["lesion_id"] = column(table, "lesion_id", None).fillna(frame["image_id"])
    frame["diagnosis_source"] = column(table, "diagnosis_source", None)
    if "age" in table:
        frame["age"] = table["age"]
    else:
        frame["age"] = float("nan")
    frame["sex"] = column(table, "sex", "unknown").str.lower()
    frame["site"] = column(table, "site", "unknown")
    faults = faults + add_paths(frame, [path.parent], [path.parent])
    return Reading(frame.assign(source=path.stem), faults)


def _table(folder: Path) -> Path:
    found = [folder] if folder.is_file() else [path for path in csv_files(folder) if _fits(path)]
    if len(found) != 1 or not _fits(found[0]):
        names = ", ".join(str(path) for path in found) or "none"
        raise DataError(
            f"{folder}: tables of images and diagnoses found: {names}",
            rule=f"exactly one: {LOOKS_LIKE}",
            next_step="name the columns so, or give the table's own path, or another --reader",
        )
    return found[0]


def _fits(path: Path) -> bool:
    try:
        header = read_header(path)
    except DataError:
        return False
    return bool(header & set(IMAGE_COLUMNS)) and bool(header & set(DIAGNOSIS_COLUMNS))
