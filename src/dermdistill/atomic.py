"""Files and folders that are written whole or not at all: temporary name, fsync, rename."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dermdistill.errors import OutputError


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path}: cannot be written ({error.strerror or error})",
        rule="the output folder must be writable and have room",
        next_step="choose another folder with --out, or free some space; nothing was left half-written",
    )


def _require(fits: bool, path: Path, kind: str) -> None:
    """Never take the place of something else: not of a folder, a pipe, or a device such as /dev/null."""
    if not fits:
        raise OutputError(
            f"{path}: exists and is no {kind}",
            rule=f"a {kind} is written there",
            next_step="choose another name",
        )


def make_folder(path: Path) -> Path:
    """Make a folder and its parents.

    Raises:
        OutputError: where that is not possible.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error
    return path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary file name beside ``path`` that takes its place when the block ends well.

    The temporary name keeps the suffix of ``path``, as some writers go by it.

    Raises:
        OutputError: the file cannot be written; the old one, if any, still stands.
    """
    make_folder(path.parent)
    _require(path.is_file() or not path.exists(), path, "file")
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
        _fsync_folder(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def move_file(source: Path, path: Path) -> None:
    """Give a whole file its name, in place of an older file; both names lie on one disk.

    Raises:
        OutputError: that is not possible; the file keeps its old name.
    """
    _require(path.is_file() or not path.exists(), path, "file")
    try:
        source.replace(path)
        _fsync_folder(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _take_place(temporary: Path, path: Path) -> None:
    """Rename one folder over another; where that fails the old one goes back to its name."""
    if not path.exists():
        temporary.replace(path)
        return
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    path.replace(old)
    try:
        temporary.replace(path)
    except BaseException:
        old.replace(path)
        raise
    shutil.rmtree(old)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its place (and its content's) when the block ends well.

    Raises:
        OutputError: the folder cannot be written; the old one, if any, still stands.
    """
    make_folder(path.parent)
    _require(path.is_dir() or not path.exists(), path, "folder")
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield temporary
        for file in sorted(item for item in temporary.rglob("*") if item.is_file()):
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())
        temporary.chmod(0o755)
        _take_place(temporary, path)
        _fsync_folder(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    except OutputError as error:
        # A file inside it: the user knows the folder, not its temporary name.
        if isinstance(error.__cause__, OSError):
            raise _cannot_write(path, error.__cause__) from error.__cause__
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write JSON, indented, keys in the order given, a last newline; NaN and infinity are refused."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
