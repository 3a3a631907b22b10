"""A run folder: which stage wrote what, from which inputs, so that a killed run goes on where it was."""

import fcntl
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dermdistill.atomic import make_folder, write_json
from dermdistill.errors import OutputError, RunFolderError
from dermdistill.provenance import sha256_file

RECORD = "run.json"
LOCK = ".lock"


@contextmanager
def locked(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a folder for this process; the lock goes with the process, however that ends.

    Args:
        folder: exists.
        wait: until another process lets go of it; otherwise the block is run with False where one holds it.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        handle = (folder / LOCK).open("w")
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror})",
            next_step="choose another folder with --out",
        ) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            mine = False
        else:
            mine = True
        yield mine


class RunFolder:
    """The folder of one run.

    ``run.json`` keeps for each finished stage the hash of its inputs, the SHA-256 of its output files, and its
    seconds. A stage is skipped only where its hashes still hold.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stages: dict[str, dict[str, Any]] = {}

    @contextmanager
    def opened(self, *, resume: bool, wait: bool = False) -> Iterator["RunFolder"]:
        """Hold the folder for this process; with ``wait``, when another process lets go of it.

        A new run that fails before its first stage is done leaves nothing: mended, the same command works.

        Raises:
            RunFolderError: it holds something and ``resume`` is off, holds no run and ``resume`` is on, is in
                use, or its record is damaged.
            OutputError: it cannot be made or written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderError(f"{self.path}: is a file", next_step="choose another folder with --out")
        record = self.path / RECORD
        filled = self.path.is_dir() and any(item.name != LOCK for item in self.path.iterdir())
        if filled and not resume:
            raise RunFolderError(
                f"{self.path}: is not empty",
                rule="a new run starts in an empty folder",
                next_step="go on with --resume, or choose another folder with --out",
            )
        if resume and not record.is_file():
            raise RunFolderError(
                f"{self.path}: holds no run to resume",
                next_step="start it without --resume, or name its folder",
            )
        existed = self.path.is_dir()
        make_folder(self.path)
        with self._lock(wait=wait):
            self.stages = self._read(record) if record.is_file() else {}
            try:
                self._write()
                yield self
            except BaseException:
                if not resume and not self.stages:
                    self._leave_nothing(remove=not existed)
                raise

    @contextmanager
    def _lock(self, *, wait: bool) -> Iterator[None]:
        with locked(self.path, wait=wait) as mine:
            if not mine:
                raise RunFolderError(
                    f"{self.path}: another process runs here",
                    next_step="wait for it, or choose another --out",
                )
            yield

    @staticmethod
    def _read(record: Path) -> dict[str, dict[str, Any]]:
        try:
            stages = json.loads(record.read_text(encoding="utf-8"))["stages"]
            return {
                name: {
                    "inputs": str(entry["inputs"]),
                    "outputs": dict(entry["outputs"]),
                    "seconds": float(entry["seconds"]),
                }
                for name, entry in stages.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunFolderError(
                f"{record}: is damaged ({type(error).__name__}: {error})",
                rule="the record of finished stages, as a run writes it",
                next_step="choose another folder with --out",
            ) from error

    def _leave_nothing(self, *, remove: bool) -> None:
        """Empty the folder, which was empty when the run began, or remove it if it was missing then."""
        for item in self.path.iterdir():
            if item.is_dir() and not item.is_symlink():
                shutil.rmtree(item)
            else:
                item.unlink()
        if remove:
            self.path.rmdir()

    def _write(self) -> None:
        write_json(self.path / RECORD, {"stages": self.stages})

    def output_hashes(self, stage: str) -> dict[str, str]:
        """SHA-256 of each output file of a finished stage, by its path in the folder."""
        return dict(self.stages[stage]["outputs"])

    def seconds(self) -> dict[str, float]:
        """Seconds of each finished stage."""
        return {name: entry["seconds"] for name, entry in self.stages.items()}

    def is_done(self, stage: str, inputs: str) -> bool:
        """Whether a stage was finished from these inputs and its files are as it left them."""
        entry = self.stages.get(stage)
        if entry is None or entry["inputs"] != inputs:
            return False
        return all(
            (self.path / name).is_file() and sha256_file(self.path / name) == digest
            for name, digest in entry["outputs"].items()
        )

    @contextmanager
    def stage(self, name: str, inputs: str, outputs: list[str]) -> Iterator[None]:
        """Record a stage when its block ends well.

        Args:
            name: of the stage.
            inputs: hash of what it reads.
            outputs: files that it writes, as paths in the folder; a folder stands for all files in it.
        """
        started = time.perf_counter()
        self.stages.pop(name, None)
        yield
        self.stages[name] = {
            "inputs": inputs,
            "outputs": {
                str(file.relative_to(self.path)): sha256_file(file)
                for output in outputs
                for file in _files(self.path / output)
            },
            "seconds": round(time.perf_counter() - started, 3),
        }
        self._write()

    def clear(self, name: str) -> None:
        """Remove a folder that an unfinished stage may have left."""
        shutil.rmtree(self.path / name, ignore_errors=True)


def _files(path: Path) -> list[Path]:
    return sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
