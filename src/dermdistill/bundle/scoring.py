"""Bulk scoring: every image of a folder or table to one row of a Parquet file, over all cores, resumable.

The source is cut into chunks. Each is decoded and scored by one thread (decoding, resizing and ONNX Runtime all let
go of the interpreter lock) and written as a part, whole or not at all; the parts become the result when all are there.
So a killed job goes on with the chunks that have no part yet, and no image is in the result twice. Memory holds a few
chunks, whatever the number of images.
"""

import contextlib
import json
import os
import shutil
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dermdistill import __version__
from dermdistill.atomic import atomic_path, make_folder, move_file, write_json
from dermdistill.bundle.manifest import MANIFEST_FILE
from dermdistill.bundle.predictor import Prediction, Predictor
from dermdistill.bundle.score_source import Item, Source, open_source
from dermdistill.errors import ConfigError, DataError, RunFolderError
from dermdistill.pictures import PictureError
from dermdistill.progress import StepProgress
from dermdistill.provenance import sha256_file
from dermdistill.run import LOCK, locked

PARTS = "0*.parquet"
PARTS_A_ROW_GROUP = 64
JOB_FILE = "job.json"
PROBABILITY = "prob_"


@dataclass(frozen=True)
class Scored:
    """How a job ended.

    Attributes:
        images: rows of the result.
        failed: how many of them hold a reason instead of a prediction.
        now: how many were scored by this call; the others had been before.
    """

    images: int
    failed: int
    now: int


def score_images(
    bundle: Path,
    source: Path,
    out: Path,
    *,
    int8: bool = True,
    flips: bool = False,
    workers: int | None = None,
    resume: bool = False,
) -> Scored:
    """Score all images of a folder or a Parquet table.

    The result has the columns ``image`` (path in the folder, or the table's name for it), ``label``, ``decision``,
    ``melanoma_probability``, ``confidence``, ``prediction_set`` and ``abstain_reasons`` (words joined by commas, empty
    where there are none), ``prob_CLASS`` of each class (float32), ``reason`` and ``problem``; the last two are null
    where the image was scored, the others where it could not be.

    Args:
        bundle: a bundle folder.
        source: a folder with images in it or below, or a Parquet table (``score_source.TABLE_RULE``).
        out: the Parquet file to write. ``OUT.parts`` beside it holds the parts until then.
        int8: which model of the bundle.
        flips: see ``Predictor.predict``.
        workers: threads, by default one a core.
        resume: go on with a job that was stopped.

    Raises:
        BundleError: the bundle is not whole, or its model cannot be run.
        ConfigError: ``workers`` is below 1.
        DataError: the source cannot be read, or holds nothing; or memory does not suffice for an image.
        RunFolderError: ``out`` is there already, is being written, or its parts belong to another job.
        OutputError: a file cannot be written.
    """
    threads = (os.cpu_count() or 1) if workers is None else workers
    if threads < 1:
        raise ConfigError(f"workers is {workers}", rule="at least 1")
    if out.exists() and not resume:
        raise _is_there(out)
    predictor = Predictor(bundle, int8=int8)
    images = open_source(source)
    job: dict[str, object] = {
        "version": __version__,
        "bundle": sha256_file(bundle / MANIFEST_FILE),
        "int8": int8,
        "flips": flips,
        "source": images.key(),
        "images": images.count,
        "chunk": images.chunk,
    }
    parts = out.with_name(f"{out.name}.parts")
    with locked(make_folder(parts), wait=False) as mine:
        if not mine:
            raise RunFolderError(f"{out}: another process writes it", next_step="wait for it, or choose another --out")
        try:
            if _is_finished(out, parts, job, resume=resume):
                now = 0
            else:
                now = _score_missing(images, parts, predictor, threads, flips=flips)
                _join(_part_paths(parts, images), out, _schema(predictor), parts)
            rows, failed = _table_facts([out])
            _remove(parts)
        finally:
            if parts.is_dir() and all(path.name == LOCK for path in parts.iterdir()):
                shutil.rmtree(parts, ignore_errors=True)
    return Scored(images=rows, failed=failed, now=now)


def _is_there(out: Path) -> RunFolderError:
    return RunFolderError(f"{out}: is there already", next_step="choose another --out, or remove it")


def _is_finished(out: Path, parts: Path, job: Mapping[str, object], *, resume: bool) -> bool:
    """Whether the job ended before and only its parts were left; otherwise the parts are made ready for it.

    Raises:
        RunFolderError: the parts, or the result, are of another job, or the user has not asked to go on.
    """
    path = parts / JOB_FILE
    if not path.is_file():
        if out.exists():
            raise _is_there(out)
        if any(parts.glob(PARTS)):
            raise RunFolderError(f"{parts}: holds parts of an unknown job", next_step="remove that folder")
        write_json(path, job)
        return False
    if not resume:
        raise RunFolderError(
            f"{parts}: holds the parts of a job that was stopped",
            next_step="go on with --resume, or remove that folder",
        )
    try:
        before = json.loads(path.read_text())
    except (ValueError, RecursionError):
        before = None
    differing = [key for key, value in job.items() if not isinstance(before, dict) or before.get(key) != value]
    if differing:
        raise RunFolderError(
            f"{parts}: belongs to a job with another {', '.join(differing)}",
            rule="a job goes on with the same version, bundle, options and images",
            next_step="remove that folder, or choose another --out",
        )
    return out.exists()


def _remove(parts: Path) -> None:
    """The name of the job goes last, so that parts are never taken for those of another; what fails stays behind."""
    with contextlib.suppress(OSError):
        for path in parts.glob(PARTS):
            path.unlink()
        (parts / JOB_FILE).unlink(missing_ok=True)
    shutil.rmtree(parts, ignore_errors=True)


def _part_paths(parts: Path, images: Source) -> list[Path]:
    return [parts / f"{start:012d}.parquet" for start in range(0, images.count, images.chunk)]


def _score_missing(images: Source, parts: Path, predictor: Predictor, threads: int, *, flips: bool) -> int:
    """Score every chunk that has no part yet; returns how many images that were."""
    schema, now = _schema(predictor), 0
    paths = _part_paths(parts, images)
    there = {path for path in paths if path.exists()}
    missing = ((path, chunk) for path, chunk in zip(paths, images.chunks(), strict=True) if path not in there)
    before = _table_facts(sorted(there))[0]
    with StepProgress("scoring", steps=images.count, done=before) as progress:
        for count in _side_by_side(missing, predictor, schema, threads, flips=flips):
            now += count
            progress.step(count)
    return now


def _side_by_side(
    work: Iterator[tuple[Path, list[Item]]], predictor: Predictor, schema: pa.Schema, threads: int, *, flips: bool
) -> Iterator[int]:
    """Score chunks in threads, few ahead of the slowest; yields the size of each that is written."""
    running: deque[Future[int]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for path, chunk in work:
                running.append(pool.submit(_write_part, path, chunk, predictor, schema, flips))
                if len(running) > threads:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _write_part(path: Path, chunk: Sequence[Item], predictor: Predictor, schema: pa.Schema, flips: bool) -> int:
    outcomes = predictor.predict_each([item.image for item in chunk], flips=flips)
    for outcome in outcomes:
        if isinstance(outcome, PictureError) and outcome.reason == "no_memory":
            raise DataError(
                outcome.problem,
                rule="lack of memory says nothing about an image, so it becomes no row",
                next_step="give it more memory or fewer --workers, and go on with --resume",
            )
    rows = [_row(item.name, outcome) for item, outcome in zip(chunk, outcomes, strict=True)]
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)
    return len(rows)


def _row(name: str, outcome: Prediction | PictureError) -> dict[str, object]:
    if isinstance(outcome, PictureError):
        return {"image": name, "reason": outcome.reason, "problem": outcome.problem}
    return {
        "image": name,
        "label": outcome.label,
        "decision": outcome.decision,
        "melanoma_probability": outcome.melanoma_probability,
        "confidence": outcome.confidence,
        "prediction_set": ",".join(outcome.prediction_set),
        "abstain_reasons": ",".join(outcome.reasons),
        **{f"{PROBABILITY}{code}": value for code, value in outcome.probs.items()},
    }


def _schema(predictor: Predictor) -> pa.Schema:
    text, number = pa.string(), pa.float32()
    columns = [("image", text), ("label", text), ("decision", text), ("melanoma_probability", number)]
    columns += [("confidence", number), ("prediction_set", text), ("abstain_reasons", text)]
    columns += [(f"{PROBABILITY}{code}", number) for code in predictor.manifest.classes]
    return pa.schema([*columns, ("reason", text), ("problem", text)])


def _read_part(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise RunFolderError(
            f"{path}: cannot be read ({error})", next_step="remove it and go on with --resume"
        ) from error


def _table_facts(paths: Sequence[Path]) -> tuple[int, int]:
    """Rows of some tables, and how many of them hold a reason."""
    rows = failed = 0
    for path in paths:
        reasons = _read_part(path, ["reason"])["reason"]
        rows += len(reasons)
        failed += len(reasons) - reasons.null_count
    return rows, failed


def _join(paths: Sequence[Path], out: Path, schema: pa.Schema, parts: Path) -> None:
    """All parts as one file, a few at a time. What a kill leaves of it lies among the parts."""
    whole = parts / "whole.parquet"
    with atomic_path(whole) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for start in range(0, len(paths), PARTS_A_ROW_GROUP):
            group = paths[start : start + PARTS_A_ROW_GROUP]
            writer.write_table(pa.concat_tables(_read_part(path) for path in group))
    move_file(whole, out)
