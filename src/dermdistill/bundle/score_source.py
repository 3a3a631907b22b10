"""What bulk scoring reads: a folder of image files, or a Parquet table of paths or of images, chunk by chunk."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dermdistill.bundle.predictor import ImageLike
from dermdistill.errors import DataError
from dermdistill.provenance import sha256_json

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"})
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
    """All image files of a folder and its subfolders, by name.

    Args:
        folder: read when the source is made: later files play no part.

    Raises:
        DataError: no such folder, or no image file in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        self._names = sorted(str(path.relative_to(folder)) for path in found)
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
        stats = [(self.folder / name).stat() for name in self._names]
        rows = zip(self._names, stats, strict=True)
        return sha256_json([[name, stat.st_size, stat.st_mtime_ns] for name, stat in rows])

    def chunks(self, size: int) -> Iterator[list[Item]]:
        """The images, ``size`` at a time; the last chunk may be smaller."""
        names = iter(self._names)
        while part := list(islice(names, size)):
            yield [Item(name, self.folder / name) for name in part]


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
            raise DataError(f"{path}: is no readable Parquet table ({error})", rule=TABLE_RULE) from error
        self.column = next((name for name, fits in COLUMNS.items() if name in schema.names and fits(schema, name)), "")
        if not self.column:
            raise DataError(f"{path}: has the columns {', '.join(schema.names)}", rule=TABLE_RULE)
        if not self._count:
            raise DataError(f"{path}: has no rows", rule="at least one image")
        self._named = "path" in schema.names and _is_text(schema, "path")

    @property
    def count(self) -> int:
        """Number of images."""
        return self._count

    def key(self) -> str:
        """Hash of the table's size and time of change."""
        stat = self.path.stat()
        return sha256_json([self.path.name, stat.st_size, stat.st_mtime_ns, self._count])

    def chunks(self, size: int) -> Iterator[list[Item]]:
        """The images, ``size`` at a time; the last chunk may be smaller."""
        columns = list(dict.fromkeys([self.column, *(["path"] if self._named else [])]))
        number, waiting = 0, list[Item]()
        with pq.ParquetFile(self.path) as table:
            for batch in table.iter_batches(batch_size=size, columns=columns):
                for row in batch.to_pylist():
                    waiting.append(self._item(row, number))
                    number += 1
                    if len(waiting) == size:
                        yield waiting
                        waiting = []
        if waiting:
            yield waiting

    def _item(self, row: dict[str, Any], number: int) -> Item:
        value, name = row[self.column], str(row.get("path") or f"row {number}")
        if self.column == "path":
            return Item(name, self.path.parent / value if value else b"")
        if isinstance(value, dict):
            return Item(str(value.get("path") or name), value.get("bytes") or b"")
        return Item(name, value or b"")


def _is_text(schema: pa.Schema, name: str) -> bool:
    kind = schema.field(name).type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _holds_images(schema: pa.Schema, name: str) -> bool:
    kind = schema.field(name).type
    if pa.types.is_struct(kind):
        return "bytes" in [field.name for field in kind]
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
