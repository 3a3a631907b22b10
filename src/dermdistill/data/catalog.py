"""The catalog: one row an image, checked by a schema that names every fault at once."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa

from dermdistill.atomic import atomic_path
from dermdistill.errors import DataError
from dermdistill.labels import CODES
from dermdistill.provenance import sha256_json

SEXES = ("male", "female", "unknown")
OLDEST = 120
PLACE = "place"
# What tables write where they know nothing.
BLANK = ("", "nan", "na", "n/a", "none", "null", "unknown")


def _text(rule: str, *, optional: bool = False) -> pa.Column:
    return pa.Column(checks=pa.Check(lambda value: value.str.strip() != "", error=rule), nullable=optional)


# The text of a check is the fault in plain words; {value!r} stands for the cell.
schema = pa.DataFrameSchema(
    {
        "image_id": _text("empty image_id"),
        "lesion_id": _text("empty lesion_id"),
        "diagnosis": pa.Column(
            checks=pa.Check.isin(CODES, error=f"unknown diagnosis {{value!r}}; known: {', '.join(CODES)}")
        ),
        "diagnosis_source": _text("empty diagnosis_source", optional=True),
        "age": pa.Column(
            float,
            checks=pa.Check.in_range(0, OLDEST, error=f"age {{value}} is out of range 0 to {OLDEST}"),
            nullable=True,
        ),
        "sex": pa.Column(checks=pa.Check.isin(SEXES, error=f"sex {{value!r}} is none of {', '.join(SEXES)}")),
        "site": _text("empty site"),
        # A reader leaves the path empty where it found no file.
        "path": _text("empty path", optional=True),
        "mask_path": _text("empty mask_path", optional=True),
        "source": _text("empty source"),
    }
)
COLUMNS: tuple[str, ...] = tuple(schema.columns)
TEXT_COLUMNS: tuple[str, ...] = tuple(column for column in COLUMNS if column != "age")


def validate_catalog(frame: pd.DataFrame, *, rows_from: str) -> pd.DataFrame:
    """The frame as a catalog: exactly ``COLUMNS``, typed, sorted by ``image_id``.

    Args:
        frame: one row an image. An index named ``place`` says in words where each row comes from; with any
            other index the rows are numbered from 2, as in a CSV file with a header.
        rows_from: the file or folder that the rows come from, for messages.

    Raises:
        DataError: naming every fault with its row: a missing column, an empty or unknown value, an age that
            is no number or out of range, a duplicate ``image_id``, a lesion with two diagnoses.
    """
    missing = [f"{rows_from}: missing column {column!r}" for column in COLUMNS if column not in frame]
    faults = missing + find_faults(frame, rows_from=rows_from)
    if faults:
        raise data_faults(rows_from, faults)
    return _typed(frame)[list(COLUMNS)].sort_values("image_id", ignore_index=True)


def data_faults(where: str, faults: list[str]) -> DataError:
    """The one error that lists all faults found in a folder or file."""
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return DataError(f"{where}: {count} in the data", faults=faults, next_step="mend these and try again")


def find_faults(frame: pd.DataFrame, *, rows_from: str) -> list[str]:
    """Every fault in the columns that are there, in plain words, by row. Arguments: ``validate_catalog``."""
    if frame.empty:
        return [f"{rows_from}: no rows"]
    places = _places(frame, rows_from)
    cells = _typed(frame)
    found = _age_faults(frame) + _cell_faults(cells) + _duplicates(cells, places)
    found += _contradicted_lesions(cells, places) + _missing_images(cells)
    return [f"{places[row]}: {text}" for row, text in sorted(found, key=lambda fault: fault[0])]


def catalog_sha256(catalog: pd.DataFrame) -> str:
    """SHA-256 over every value of a catalog, independent of the order of rows and of where the folder lies.

    Of ``path`` and ``mask_path`` only the file names count. The content of the images does not: that is the
    image store's hash.
    """
    named = catalog[list(COLUMNS)].copy()
    for column in ("path", "mask_path"):
        named[column] = [Path(value).name if isinstance(value, str) else None for value in catalog[column]]
    rows = [[_plain(value) for value in row] for row in named.itertuples(index=False, name=None)]
    return sha256_json(sorted(rows, key=lambda row: str(row[0])))


def write_catalog(catalog: pd.DataFrame, path: Path) -> None:
    """Write a catalog as a Parquet file, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_path(path) as temporary:
        catalog.to_parquet(temporary, index=False)


def load_catalog(path: Path) -> pd.DataFrame:
    """Read what ``write_catalog`` wrote and check it again.

    Raises:
        DataError: no such file, not a Parquet file, or not a catalog.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such catalog", next_step="make one with: dermdistill data index FOLDER")
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a Parquet file ({error})") from error
    return validate_catalog(frame, rows_from=path.name)


def _places(frame: pd.DataFrame, rows_from: str) -> list[str]:
    if frame.index.name == PLACE:
        return [str(place) for place in frame.index]
    return [f"{rows_from} row {number}" for number in range(2, len(frame) + 2)]


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The catalog's columns that are there, text as ``str`` and ages as ``float`` (NaN where no number)."""
    cells = frame.reset_index(drop=True)
    cells = cells[[column for column in COLUMNS if column in cells]]
    kinds = {column: "str" for column in TEXT_COLUMNS if column in cells}
    cells = cells.astype(kinds)
    if "age" in cells:
        cells["age"] = pd.to_numeric(cells["age"], errors="coerce").astype(float)
    return cells


def _age_faults(frame: pd.DataFrame) -> list[tuple[int, str]]:
    if "age" not in frame or pd.api.types.is_numeric_dtype(frame["age"]):
        return []
    numbers = pd.to_numeric(frame["age"], errors="coerce")
    return [
        (row, f"age {raw!r} is not a number")
        for row, (raw, number) in enumerate(zip(frame["age"], numbers, strict=True))
        if math.isnan(number) and not pd.isna(raw) and str(raw).strip().lower() not in BLANK
    ]


def _cell_faults(cells: pd.DataFrame) -> list[tuple[int, str]]:
    try:
        schema.select_columns(list(cells.columns)).validate(cells, lazy=True)
    except pa.errors.SchemaErrors as errors:
        return [_in_words(case) for case in errors.failure_cases.to_dict("records")]
    return []


def _in_words(case: dict[Any, Any]) -> tuple[int, str]:
    row, column, check = int(case["index"]), case["column"], str(case["check"])
    if check == "not_nullable":
        return row, f"{column} is missing"
    return row, check.format(value=case["failure_case"])


def _missing_images(cells: pd.DataFrame) -> list[tuple[int, str]]:
    if not {"image_id", "path"} <= set(cells.columns):
        return []
    return [
        (row, f"missing image: no image file named {name!r}")
        for row, (name, path) in enumerate(zip(cells["image_id"], cells["path"], strict=True))
        if pd.isna(path)
    ]


def _duplicates(cells: pd.DataFrame, places: list[str]) -> list[tuple[int, str]]:
    first: dict[str, int] = {}
    faults = []
    for row, image_id in enumerate(cells.get("image_id", pd.Series(dtype="str")).fillna("")):
        if image_id and first.setdefault(image_id, row) != row:
            faults.append((row, f"duplicate image_id {image_id!r}, first in {places[first[image_id]]}"))
    return faults


def _contradicted_lesions(cells: pd.DataFrame, places: list[str]) -> list[tuple[int, str]]:
    if not {"lesion_id", "diagnosis"} <= set(cells.columns):
        return []
    known = cells[cells["diagnosis"].isin(CODES) & cells["lesion_id"].notna()]
    first: dict[str, tuple[int, str]] = {}
    faults = []
    for row, lesion, code in zip(known.index, known["lesion_id"], known["diagnosis"], strict=True):
        start, other = first.setdefault(lesion, (row, code))
        if code != other:
            two = f"lesion {lesion!r} has two diagnoses: {code!r} here, {other!r} in {places[start]}"
            faults.append((row, two))
    return faults


def _plain(value: Any) -> Any:
    return None if pd.isna(value) else value
