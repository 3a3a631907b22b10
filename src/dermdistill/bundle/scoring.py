"""Bulk scoring: every image of a folder or table to one row of a Parquet file, over all cores, resumable.

The source is cut into chunks. Each is decoded and scored by one thread (decoding, resizing and ONNX Runtime all let
go of the interpreter lock) and written as a part, whole or not at all; the parts become the result when all are there.
So a killed job goes on with the chunks that have no part yet, and no image is in the result twice. Memory holds a few
chunks, whatever the number of images.
"""

import json
import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dermdistill.atomic import atomic_path, make_folder, write_json
from dermdistill.bundle.manifest import MANIFEST_FILE
from dermdistill.bundle.predictor import Prediction, Predictor
from dermdistill.bundle.score_source import Item, open_source
from dermdistill.errors import ConfigError, RunFolderError
from dermdistill.pictures import PictureError
from dermdistill.progress import StepProgress
from dermdistill.provenance import sha256_file
from dermdistill.run import locked

CHUNK = 256
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
    ``melanoma_probability``, ``prob_CLASS`` of each class (float32), ``reason`` and ``problem``; the last two are null
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
        BundleError: the bundle is not whole.
        ConfigError: ``workers`` is below 1.
        DataError: the source cannot be read, or holds nothing.
        RunFolderError: ``out`` is there already, is being written, or its parts belong to another job.
        OutputError: a file cannot be written.
    """
    threads = workers or os.cpu_count() or 1
    if threads < 1:
        raise ConfigError(f"workers is {workers}", rule="at least 1")
    if out.exists():
        raise RunFolderError(f"{out}: is there already", next_step="choose another --out, or remove it")
    predictor = Predictor(bundle, int8=int8)
    images = open_source(source)
    job = {
        "bundle": sha256_file(bundle / MANIFEST_FILE),
        "int8": int8,
        "flips": flips,
        "source": images.key(),
        "images": images.count,
        "chunk": CHUNK,
    }
    parts = out.with_name(f"{out.name}.parts")
    _require_same_job(parts, job, resume=resume)
    with locked(make_folder(parts), wait=False) as mine:
        if not mine:
            raise RunFolderError(f"{out}: another process writes it", next_step="wait for it, or choose another --out")
        write_json(parts / JOB_FILE, job)
        paths = [parts / f"{start:012d}.parquet" for start in range(0, images.count, CHUNK)]
        schema = _schema(predictor)
        now = 0
        missing = ((path, chunk) for path, chunk in zip(paths, images.chunks(CHUNK), strict=True) if not path.exists())
        before = sum(_rows(path) for path in paths if path.exists())
        with StepProgress("scoring", steps=images.count, done=before) as progress:
            for count in _side_by_side(missing, predictor, schema, threads, flips=flips):
                now += count
                progress.step(count)
        failed = _join(paths, out, schema)
        shutil.rmtree(parts)
    return Scored(images=images.count, failed=failed, now=now)


def _require_same_job(parts: Path, job: dict[str, object], *, resume: bool) -> None:
    path = parts / JOB_FILE
    if not path.is_file():
        return
    if not resume:
        raise RunFolderError(
            f"{parts}: holds the parts of a job that was stopped",
            next_step="go on with --resume, or remove that folder",
        )
    try:
        before = json.loads(path.read_text())
    except ValueError:
        before = {}
    differing = [key for key, value in job.items() if not isinstance(before, dict) or before.get(key) != value]
    if differing:
        raise RunFolderError(
            f"{parts}: belongs to a job with another {', '.join(differing)}",
            rule="a job goes on with the same bundle, options and images",
            next_step="remove that folder, or choose another --out",
        )


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
        **{f"{PROBABILITY}{code}": value for code, value in outcome.probs.items()},
    }


def _schema(predictor: Predictor) -> pa.Schema:
    text, number = pa.string(), pa.float32()
    columns = [("image", text), ("label", text), ("decision", text), ("melanoma_probability", number)]
    columns += [(f"{PROBABILITY}{code}", number) for code in predictor.manifest.classes]
    return pa.schema([*columns, ("reason", text), ("problem", text)])


def _rows(path: Path) -> int:
    return int(pq.read_metadata(path).num_rows)


def _join(paths: Sequence[Path], out: Path, schema: pa.Schema) -> int:
    """All parts as one file, a few at a time; returns how many rows have a reason."""
    failed = 0
    with atomic_path(out) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for start in range(0, len(paths), PARTS_A_ROW_GROUP):
            group = paths[start : start + PARTS_A_ROW_GROUP]
            rows = pa.concat_tables(pq.read_table(path, schema=schema) for path in group)
            failed += rows.num_rows - rows["reason"].null_count
            writer.write_table(rows)
    return failed
