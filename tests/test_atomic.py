"""Files and folders are whole or not there: after errors, a full disk, and a killed process."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dermdistill import atomic
from dermdistill.atomic import atomic_folder, atomic_path, make_folder, write_bytes, write_json, write_text
from dermdistill.errors import OutputError

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
INTERRUPTIONS = [ValueError("no"), KeyboardInterrupt(), FULL]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def caught_as(error: BaseException) -> type[BaseException]:
    return OutputError if isinstance(error, OSError) else type(error)


@pytest.mark.parametrize("content", [b"", b"\0\xff\r\n", bytes(100_000)])
def test_write_bytes_writes_them_and_nothing_else(content: bytes, tmp_path: Path) -> None:
    for _ in range(2):
        write_bytes(tmp_path / "a" / "b" / "x.bin", content)
    assert files(tmp_path) == {"a/b/x.bin": content}


def test_write_text_and_json_are_utf8_and_keep_order(tmp_path: Path) -> None:
    write_text(tmp_path / "x.txt", "größer\n")
    write_json(tmp_path / "x.json", {"b": 1.5, "a": ["é"]})
    assert (tmp_path / "x.txt").read_bytes() == "größer\n".encode()
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert text.endswith("}\n") and list(json.loads(text).items()) == [("b", 1.5), ("a", ["é"])]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_json_that_no_other_program_reads_is_not_written(value: Any, tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", 1)
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "x.json", value)
    assert files(tmp_path) == {"x.json": b"1\n"}


@pytest.mark.parametrize("error", INTERRUPTIONS, ids=repr)
@pytest.mark.parametrize("old", [{}, {"x.npy": b"old"}])
def test_atomic_path_that_fails_leaves_what_was_there(
    error: BaseException, old: dict[str, bytes], tmp_path: Path
) -> None:
    for name, content in old.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(caught_as(error)), atomic_path(tmp_path / "x.npy") as temporary:
        assert temporary.suffix == ".npy" and temporary.parent == tmp_path
        temporary.write_bytes(b"half")
        raise error
    assert files(tmp_path) == old


def test_atomic_path_whose_block_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"x\.npy: cannot be written"), atomic_path(tmp_path / "x.npy"):
        pass
    assert files(tmp_path) == {}


def fill(folder: Path, content: bytes) -> None:
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "x").write_bytes(content)


@pytest.mark.parametrize("error", INTERRUPTIONS, ids=repr)
@pytest.mark.parametrize("exists", [False, True])
def test_atomic_folder_that_fails_leaves_what_was_there(error: BaseException, exists: bool, tmp_path: Path) -> None:
    if exists:
        fill(tmp_path / "store", b"old")
    with pytest.raises(caught_as(error)), atomic_folder(tmp_path / "store") as temporary:
        fill(temporary, b"half")
        raise error
    assert files(tmp_path) == ({"store/deep/x": b"old"} if exists else {})
    assert len(list(tmp_path.iterdir())) == exists


@pytest.mark.parametrize("exists", [False, True])
def test_atomic_folder_takes_the_place_of_the_old_one_whole(exists: bool, tmp_path: Path) -> None:
    if exists:
        fill(tmp_path / "store", b"old")
        (tmp_path / "store" / "gone").write_bytes(b"")
    with atomic_folder(tmp_path / "store") as temporary:
        fill(temporary, b"new")
    assert files(tmp_path) == {"store/deep/x": b"new"}
    assert [item.name for item in tmp_path.iterdir()] == ["store"]
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o755


def test_atomic_folder_puts_the_old_one_back_where_it_cannot_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "store", b"old")
    replace = Path.replace

    def refuse(path: Path, target: Path) -> Path:
        if path.name.endswith(".part"):
            raise FULL
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    refused = pytest.raises(OutputError, match="store: cannot be written")
    with refused, atomic_folder(tmp_path / "store") as temporary:
        fill(temporary, b"new")
    assert files(tmp_path) == {"store/deep/x": b"old"}
    assert [item.name for item in tmp_path.iterdir()] == ["store"]


def test_a_file_inside_an_atomic_folder_is_reported_by_the_folders_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise FULL

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OutputError) as caught, atomic_folder(tmp_path / "store") as temporary:
        write_text(temporary / "x.txt", "x")
    assert caught.value.problem == f"{tmp_path / 'store'}: cannot be written (No space left on device)"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "write"),
    [
        (Path.mkdir, lambda path: write_text(path, "x")),
        (os.mkfifo, lambda path: write_text(path, "x")),
        (lambda path: path.write_text("x"), lambda path: atomic_folder(path).__enter__()),
    ],
)
def test_nothing_else_loses_its_place(
    make: Callable[[Path], object], write: Callable[[Path], object], tmp_path: Path
) -> None:
    make(tmp_path / "x")
    before = (tmp_path / "x").stat()
    with pytest.raises(OutputError, match=r"exists and is no (file|folder)"):
        write(tmp_path / "x")
    after = (tmp_path / "x").stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert [item.name for item in tmp_path.iterdir()] == ["x"]


def test_make_folder_below_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    with pytest.raises(OutputError, match="cannot be written") as caught:
        make_folder(tmp_path / "x" / "y")
    assert caught.value.rule and caught.value.next_step


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from dermdistill.atomic import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), 9)
"""
    (tmp_path / "x").write_bytes(b"old")
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], check=False).returncode == -9
    assert (tmp_path / "x").read_bytes() == b"old"
