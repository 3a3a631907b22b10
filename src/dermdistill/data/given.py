"""Reading a table that says which image lies in which part."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from dermdistill.errors import DataError

COLUMNS = ("image_id", "split")
LISTED_MISSING = 20


def read_table(path: Path) -> pd.DataFrame:
    """The columns ``image_id, split`` of a CSV file as text, rows as they stand.

    Raises:
        DataError: the file is missing, is not a CSV table in UTF-8, or lacks a column.
    """
    rule = f"a CSV file with the columns {','.join(COLUMNS)}"
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})", rule=rule) from error
    except ValueError as error:
        # pandas: ParserError, EmptyDataError and UnicodeDecodeError are all ValueErrors
        raise DataError(f"{path}: not a table ({str(error).strip()})", rule=rule) from error
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)} among {', '.join(table.columns)}", rule=rule)
    return table[list(COLUMNS)]


def table_faults(table: pd.DataFrame, name: str, known: Iterable[str], parts: Sequence[str]) -> list[str]:
    """What is wrong with a split table, a line a fault; the header of the file is row 1.

    Args:
        table: columns image_id, split.
        name: file name for the messages.
        known: image ids of the catalog; each must be named exactly once.
        parts: names of the parts; each must have an image.
    """
    faults, first_row, known_ids = [], dict[str, int](), set(known)
    rows = zip(table["image_id"].astype(str), table["split"].astype(str), strict=True)
    for row, (image_id, part) in enumerate(rows, start=2):
        if image_id in first_row:
            faults.append(f"{name} row {row}: image_id {image_id!r} already stands in row {first_row[image_id]}")
        if image_id not in known_ids:
            faults.append(f"{name} row {row}: image_id {image_id!r} is not in the data")
        if part not in parts:
            faults.append(f"{name} row {row}: split {part!r} is none of {', '.join(parts)}")
        first_row.setdefault(image_id, row)
    missing = sorted(known_ids - set(first_row))
    faults += [f"{name}: image {image_id!r} has no row" for image_id in missing[:LISTED_MISSING]]
    if len(missing) > LISTED_MISSING:
        faults.append(f"{name}: {len(missing) - LISTED_MISSING} more images have no row")
    return faults + [f"{name}: no image in part {part!r}" for part in parts if part not in set(table["split"])]


def read_given(path: Path, known: Iterable[str], parts: Sequence[str]) -> pd.DataFrame:
    """A split made elsewhere: each image of the catalog once, each part with at least one image.

    Raises:
        DataError: the file cannot be read, or with every fault of its rows.
    """
    table = read_table(path)
    faults = table_faults(table, path.name, known, parts)
    if faults:
        raise DataError(
            f"{path}: the split does not fit the data",
            faults=faults,
            rule=f"one row an image of the data, split is one of {', '.join(parts)}, no part is empty",
        )
    return table
