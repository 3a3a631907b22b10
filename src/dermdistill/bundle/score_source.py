"""What bulk scoring reads: a folder of image files, or a Parquet table of paths or of images, chunk by chunk."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dermdistill.bundle.predictor import ImageLike
from dermdistill.errors import DataError
from dermdistill.pictures import printable

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
CHUNK = 256
# Images inside a table lie in memory until they are scored.
EMBEDDED_CHUNK = 32
TABLE_RULE = (
    "a table has a column `path` (text: image files, relative to the table), or a column `image` (bytes of image "
    "files, or records of `bytes` and `path` as Hugging Face writes them)"
)


@dataclass(frozen=True)
class Item:
    """One image to be scored.

    Attributes:
        name: for its row of the result.
        image: its path or its bytes.
    """

    name: str
    image: ImageLike


class FolderSource:
    """All image files of a folder and its subfolders, by name. Links to folders are not followed.

    Args:
        folder: read when the source is made: later files play no part.

    Raises:
        DataError: a folder cannot be read, or there is no image file.
    """

    chunk = CHUNK

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: list[str] = []
        for where, _, files in os.walk(folder, onerror=_unreadable_folder):
            inside = Path(where).relative_to(folder)
            self._names += [str(inside / name) for name in files if Path(name).suffix.lower() in SUFFIXES]
        self._names.sort()
        if not self._names:
            raise DataError(
                f"{folder}: holds no image file",
                rule=f"files that end with {', '.join(sorted(SUFFIXES))}, in the folder or below",
                next_step="give the folder of the images, or a Parquet table",
            )

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self._names)

    def key(self) -> str:
        """Hash of the files' names, sizes and times of change."""
        return _state(self._names, self.folder)

    def chunks(self) -> Iterator[list[Item]]:
        """The images, ``chunk`` at a time; the last part may be smaller."""
        for start in range(0, self.count, self.chunk):
            names = self._names[start : start + self.chunk]
            yield [Item(printable(name), self.folder / name) for name in names]


class TableSource:
    """The rows of a Parquet table.

    Args:
        path: the table; it is read chunk by chunk.

    Raises:
        DataError: it cannot be read, has no rows, or none of the columns that it needs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with pq.ParquetFile(path) as table:
                schema, self._count = table.schema_arrow, int(table.metadata.num_rows)
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(error) from error
        self.column = next((name for name, fits in COLUMNS.items() if name in schema.names and fits(schema, name)), "")
        if not self.column:
            raise DataError(f"{path}: has the columns {', '.join(schema.names)}", rule=TABLE_RULE)
        if not self._count:
            raise DataError(f"{path}: has no rows", rule="at least one image")
        self._named = "path" in schema.names and _is_text(schema, "path")
        self.chunk = CHUNK if self.column == "path" else EMBEDDED_CHUNK

    @property
    def count(self) -> int:
        """Number of images."""
        return self._count

    def key(self) -> str:
        """Hash of the state of the table, and of the files that it names."""
        digest = hashlib.sha256(_state([self.path.name], self.path.parent).encode())
        if self.column == "path":
            for batch in self._batches(["path"]):
                names = [name or "" for name in batch["path"].to_pylist()]
                digest.update(_state(names, self.path.parent).encode())
        return digest.hexdigest()

    def chunks(self) -> Iterator[list[Item]]:
        """The images, ``chunk`` at a time; the last part may be smaller."""
        columns = list(dict.fromkeys([self.column, *(["path"] if self._named else [])]))
        number, waiting = 0, list[Item]()
        for batch in self._batches(columns):
            for row in batch.to_pylist():
                waiting.append(self._item(row, number))
                number += 1
                if len(waiting) == self.chunk:
                    yield waiting
                    waiting = []
        if waiting:
            yield waiting

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        try:
            # Without these two the reader holds all of a row group, or of the file.
            with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=1 << 20) as table:
                yield from table.iter_batches(batch_size=self.chunk, columns=columns)
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> DataError:
        return DataError(f"{self.path}: is no readable Parquet table ({error})", rule=TABLE_RULE)

    def _item(self, row: dict[str, Any], number: int) -> Item:
        value, name = row[self.column], str(row.get("path") or f"row {number}")
        if isinstance(value, dict):
            inner = value.get("path")
            content: ImageLike = value.get("bytes") or (self.path.parent / inner if inner else b"")
            return Item(str(inner or name), content)
        if self.column == "path":
            return Item(name, self.path.parent / value if value else b"")
        return Item(name, value or b"")


def _state(names: Sequence[str], folder: Path) -> str:
    """Hash of files' names, sizes and times of change; a file that is not there has neither."""
    digest = hashlib.sha256()
    for name in names:
        try:
            stat = (folder / name).stat()
            state = f"{stat.st_size} {stat.st_mtime_ns}"
        except (OSError, ValueError):  # ValueError: a NUL in the name
            state = "none"
        digest.update(os.fsencode(name) + b"\0" + state.encode() + b"\n")
    return digest.hexdigest()


def _unreadable_folder(error: OSError) -> None:
    raise DataError(
        f"{error.filename}: cannot be read ({error.strerror})",
        rule="all folders below the given one can be read, so that no image is left out unseen",
        next_step="give yourself the right to read it, or move it elsewhere",
    ) from error


def _is_text(schema: pa.Schema, name: str) -> bool:
    kind = schema.field(name).type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _holds_images(schema: pa.Schema, name: str) -> bool:
    kind = schema.field(name).type
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _is_bytes(field.type) for field in kind)
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


# {column: whether it is of the right kind}; the first that fits is read.
COLUMNS = {"image": _holds_images, "path": _is_text}

Source = FolderSource | TableSource


def open_source(path: Path) -> Source:
    """A folder, or a Parquet table.

    Raises:
        DataError: there is nothing, or nothing to be scored.
    """
    if not path.exists():
        raise DataError(f"{path}: no such folder or table", rule="a folder of images, or a Parquet table")
    return FolderSource(path) if path.is_dir() else TableSource(path)
