"""The ISIC challenges' layout: a ground-truth table of one-hot columns, images, tables of metadata."""

from pathlib import Path

import pandas as pd

from dermdistill.data.catalog import PLACE, data_faults
from dermdistill.data.source_files import (
    Reading,
    add_paths,
    column,
    csv_files,
    missing_columns,
    read_header,
    read_table,
    without_suffix,
)
from dermdistill.errors import DataError
from dermdistill.labels import CODES

IMAGE_COLUMNS = ("image", "image_id")
# ISIC 2019 writes AK for akiec. It has two more classes, for which HAM10000 has no diagnosis.
ONE_HOT = {**{code: code for code in CODES}, "ak": "akiec"}
OUTSIDE = ("scc", "unk")
METADATA = {
    "lesion_id": "lesion_id",
    "age_approx": "age",
    "sex": "sex",
    "anatom_site_general": "site",
    "diagnosis_confirm_type": "diagnosis_source",
}
CONFIRMED_BY = {
    "histopathology": "histo",
    "serial imaging showing no change": "follow_up",
    "single image expert consensus": "consensus",
    "confocal microscopy with consensus dermoscopy": "confocal",
}


def is_isic(folder: Path) -> bool:
    """Whether a folder holds a table with one-hot columns of diagnoses."""
    return bool(_ground_truths(folder))


def read_isic(folder: Path) -> Reading:
    """An ISIC challenge's folder: ground truth, images at any depth, and tables of metadata if any.

    The ground truth has ``image`` or ``image_id`` and MEL, NV, BCC, AKIEC (2019: AK), BKL, DF, VASC; a 1
    under SCC or UNK is an unknown diagnosis. It, or any other table with an image column, may give
    ``lesion_id, age_approx, sex, anatom_site_general``, or ``lesion_id, diagnosis_confirm_type`` as lesion
    groupings of 2018 do. An image without a known ``lesion_id`` is its own lesion.

    Raises:
        DataError: there is not exactly one ground-truth table, or it has no image column.
    """
    truths = _ground_truths(folder)
    if len(truths) != 1:
        found = ", ".join(path.name for path in truths) or "none"
        raise DataError(f"{folder}: ground-truth tables found: {found}", rule="a folder holds exactly one")
    table, row_faults = read_table(truths[0])
    given = {ONE_HOT.get(name) for name in table.columns}
    lacking = [code.upper() for code in CODES if code not in given]
    image = _image_column(table)
    faults = missing_columns(table, lacking if image else ["image", *lacking], truths[0]) + row_faults
    if image is None:
        raise data_faults(str(folder), faults)
    frame = pd.DataFrame({"image_id": table[image].map(without_suffix)})
    if not lacking:
        frame["diagnosis"] = _diagnoses(table)
    faults += add_paths(frame, [folder], [folder])
    others = [path for path in csv_files(folder) if path != truths[0]]
    frame, metadata_faults = _with_metadata(frame, table, others)
    return Reading(frame.assign(source=truths[0].stem.removesuffix("_GroundTruth")), faults + metadata_faults)


def _ground_truths(folder: Path) -> list[Path]:
    return [path for path in csv_files(folder) if len(_header(path) & set(ONE_HOT)) >= 2]


def _header(path: Path) -> set[str]:
    try:
        return read_header(path)
    except DataError:
        return set()


def _image_column(table: pd.DataFrame) -> str | None:
    return next((name for name in IMAGE_COLUMNS if name in table), None)


def _diagnoses(table: pd.DataFrame) -> list[str]:
    """The code of each row; where there is not exactly one, words that the catalog's check will name."""
    names = [name for name in table.columns if name in ONE_HOT or name in OUTSIDE]
    return [_diagnosis(dict(zip(names, row, strict=True))) for row in table[names].itertuples(index=False, name=None)]


def _diagnosis(cells: dict[str, str]) -> str:
    numbers = {name: _zero_or_one(cell) for name, cell in cells.items()}
    odd = [f"{name.upper()} = {cells[name]}" for name, number in numbers.items() if number is None]
    if odd:
        return f"{', '.join(odd)} (neither 0 nor 1)"
    ones = [name for name, number in numbers.items() if number]
    if len(ones) == 1:
        return ONE_HOT.get(ones[0], ones[0].upper())
    return f"{' and '.join(name.upper() for name in ones)} at once" if ones else "none (no column holds a 1)"


def _zero_or_one(cell: str) -> bool | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return bool(number) if number in (0.0, 1.0) else None


def _with_metadata(frame: pd.DataFrame, truth: pd.DataFrame, others: list[Path]) -> tuple[pd.DataFrame, list[str]]:
    """The frame with the columns of METADATA, each value from the first table that has one; and the faults.

    The index then names the row of the metadata too: ``truth.csv row 5 (metadata.csv row 7)``.
    """
    faults: list[str] = []
    places = pd.Series(frame.index, frame.index, dtype="str")
    values = {name: column(truth, name, None) for name in METADATA}
    for path in others:
        table, table_faults = _metadata_by_image(path)
        faults += table_faults
        if not table.empty:
            places += (" (" + frame["image_id"].map(table[PLACE]) + ")").fillna("")
            for name, cells in values.items():
                values[name] = cells.fillna(frame["image_id"].map(column(table, name, None)))
    ours = {METADATA[name]: cells for name, cells in values.items()}
    ours["lesion_id"] = ours["lesion_id"].fillna(frame["image_id"])
    ours["sex"] = ours["sex"].fillna("unknown").str.lower()
    ours["site"] = ours["site"].fillna("unknown")
    ours["diagnosis_source"] = ours["diagnosis_source"].replace(CONFIRMED_BY)
    return frame.assign(**ours).set_index(pd.Index(places, name=PLACE)), faults


def _metadata_by_image(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """A table of metadata with the image ids as its index, empty where the table is about something else."""
    try:
        table, faults = read_table(path)
    except DataError as error:
        return pd.DataFrame(), [error.problem]
    image = _image_column(table)
    if not set(METADATA) & set(table.columns):
        return pd.DataFrame(), []
    if image is None:
        return pd.DataFrame(), missing_columns(table, ["image"], path)
    ids = table[image].map(without_suffix)
    repeated = ids.duplicated()
    faults += [f"{place}: duplicate {image} {name!r}" for place, name in ids[repeated].items()]
    return table.assign(**{PLACE: table.index}).set_index(ids)[~repeated.to_numpy()], faults
