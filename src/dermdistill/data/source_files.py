"""The files of a data set as it was downloaded: CSV tables as text with row numbers, images by name."""

import csv
import filecmp
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dermdistill.data.catalog import BLANK, PLACE
from dermdistill.errors import DataError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
MASK_ENDING = "_segmentation"
CSV_RULE = "tables are CSV in UTF-8"


@dataclass(frozen=True)
class Reading:
    """What a reader found in a folder, faults included.

    Args:
        frame: the catalog's columns as far as they could be read. The index ``place`` says in words where
            each row comes from (``HAM10000_metadata.csv row 7``); an image not found has no ``path``.
        faults: what the catalog's own checks cannot see, such as a column that the source lacks.
    """

    frame: pd.DataFrame
    faults: list[str]


def read_table(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """A CSV table (comma, semicolon or tab) with every cell as stripped text.

    Returns:
        The table, column names in lower case, with an index ``place`` (``table.csv row 2`` is the first below
        the header), and the faults of single rows; such rows are left out.

    Raises:
        DataError: the whole file cannot be read: missing, binary, empty, not UTF-8, a column named twice.
    """
    records = _records(path)
    header = [name.strip().lower() for name in next(records, [])]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path}: column {twice[0]!r} stands twice in the header", rule="each column has its own name")
    rows, places, faults = [], [], []
    for number, record in enumerate(records, start=2):
        place = f"{path.name} row {number}"
        if len(record) == len(header):
            rows.append([cell.strip() for cell in record])
            places.append(place)
        elif any(cell.strip() for cell in record):
            faults.append(f"{place}: {len(record)} values where the header has {len(header)} columns")
    index = pd.Index(places, name=PLACE, dtype="str")
    return pd.DataFrame(rows, columns=pd.Index(header, dtype="str"), index=index, dtype="str"), faults


def read_header(path: Path) -> set[str]:
    """The column names of a CSV table in lower case.

    Raises:
        DataError: as ``read_table``.
    """
    return {name.strip().lower() for name in next(_records(path), [])}


def missing_columns(table: pd.DataFrame, wanted: Iterable[str], path: Path) -> list[str]:
    """One fault for each wanted column that a table lacks."""
    found = ", ".join(map(repr, table.columns))
    return [f"{path.name}: missing column {name!r} (found: {found})" for name in wanted if name not in table]


def column(table: pd.DataFrame, name: str, default: str | None) -> "pd.Series[str]":
    """A column's text with ``default`` in blank cells, or everywhere where the table lacks the column."""
    if name not in table:
        return pd.Series(default, index=table.index, dtype="str")
    cells = table[name]
    return cells.mask(cells.str.lower().isin(BLANK), default)


def csv_files(folder: Path) -> list[Path]:
    """The CSV tables in a folder and in the folders directly below it."""
    found = [*folder.glob("*.csv"), *folder.glob("*/*.csv")]
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def subfolders(folder: Path) -> list[Path]:
    """The folders directly below a folder, hidden ones left out, by name."""
    return sorted(item for item in folder.iterdir() if item.is_dir() and not item.name.startswith("."))


def is_image_name(path: Path) -> bool:
    """Whether a file is named like an image; hidden files (``._x.jpg`` of a Mac archive) are not."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def image_files(folder: Path) -> list[Path]:
    """The files at any depth below a folder that are named like images; folder links are followed once."""
    files: list[Path] = []
    seen = {os.path.realpath(folder)}
    for here, below, names in os.walk(folder, followlinks=True):
        files += [path for name in names if is_image_name(path := Path(here, name))]
        for name in sorted(below):
            real = os.path.realpath(Path(here, name))
            if name.startswith(".") or real in seen:
                below.remove(name)
            seen.add(real)
    return sorted(files)


def without_suffix(image: str) -> str:
    """``ISIC_0024306.jpg`` as ``ISIC_0024306``; anything else as it is."""
    return image[: -len(Path(image).suffix)] if Path(image).suffix.lower() in IMAGE_SUFFIXES else image


def with_masks(files: Sequence[Path]) -> Iterator[tuple[Path, Path | None]]:
    """Each image with its mask, a file of its name plus ``_segmentation``, if that is among the files."""
    masks = {path.stem: path for path in files if path.stem.endswith(MASK_ENDING)}
    return ((path, masks.get(path.stem + MASK_ENDING)) for path in files if path.stem not in masks)


def add_paths(frame: pd.DataFrame, images: Sequence[Path], masks: Sequence[Path]) -> list[str]:
    """Set the absolute ``path`` and ``mask_path`` of each ``image_id``, from any depth below some folders.

    Returns:
        A fault for each name with several files of different content; the same file twice is none.
    """
    names = {"path": frame["image_id"], "mask_path": frame["image_id"] + MASK_ENDING}
    faults: list[str] = []
    for target, folders in (("path", images), ("mask_path", masks)):
        by_name: dict[str, list[Path]] = {}
        for path in (path for folder in folders for path in image_files(folder)):
            by_name.setdefault(path.stem, []).append(path)
        found = [by_name.get(name, []) for name in names[target]]
        frame[target] = pd.Series([str(files[0].absolute()) if files else None for files in found], frame.index, "str")
        faults += [
            f"{place}: several files of one name that differ: {', '.join(map(str, files))}"
            for place, files in zip(frame.index, found, strict=True)
            if any(not filecmp.cmp(files[0], other, shallow=False) for other in files[1:])
        ]
    return faults


def _records(path: Path) -> Iterator[list[str]]:
    text = _text(path)
    header = text.split("\n", 1)[0]
    lines = io.StringIO(text, newline="")
    try:
        yield from csv.reader(lines, delimiter=max(",;\t", key=header.count), strict=True)
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as a CSV table ({error})", rule=CSV_RULE) from error


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})", rule=CSV_RULE) from error
    if not content.strip():
        raise DataError(f"{path}: the file is empty", rule=CSV_RULE)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start})", rule=CSV_RULE) from error
    if "\0" in text:
        raise DataError(f"{path}: is a binary file, not a table", rule=CSV_RULE)
    return text
