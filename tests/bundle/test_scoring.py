"""Bulk scoring: every image once, whatever happens to the process; a reason for every image that cannot be used."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from dermdistill import pictures
from dermdistill.bundle import score_source, scoring
from dermdistill.bundle.decisions import Decisions
from dermdistill.bundle.manifest import write_manifest
from dermdistill.bundle.predictor import Predictor
from dermdistill.bundle.score_source import FolderSource
from dermdistill.bundle.scoring import score_images
from dermdistill.bundle.variants import FP32_FILE, INT8_FILE
from dermdistill.errors import ConfigError, DataError, RunFolderError
from dermdistill.preprocess import PreprocessSpec
from dermdistill.run import locked

SPEC = PreprocessSpec(8)


def _write_model(path: Path, seed: int) -> None:
    """Mean colour times random weights."""
    weights = np.random.default_rng(seed).normal(size=(3, 7)).astype(np.float32)
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 7])
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["colour"], keepdims=0),
        helper.make_node("MatMul", ["colour", "weights"], ["logits"]),
    ]
    constants = [numpy_helper.from_array(np.array([2, 3]), "axes"), numpy_helper.from_array(weights, "weights")]
    graph = helper.make_graph(nodes, "mean colour", [images], [logits], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    for seed, name in enumerate((FP32_FILE, INT8_FILE)):
        _write_model(folder / name, seed)
    decisions = {"student_int8": Decisions.plain({"at_95_sensitivity": 0.1}, 7)}
    write_manifest(folder, task="diagnosis", spec=SPEC, decisions=decisions, provenance={})
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """30 pictures, one of them in a subfolder, and a text that is none."""
    images = tmp_path / "images"
    (images / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(30):
        pixels = np.broadcast_to(rng.integers(0, 256, 3, dtype=np.uint8), (12, 9, 3))
        Image.fromarray(np.ascontiguousarray(pixels)).save(images / ("deep" if index == 7 else "") / f"{index:02d}.png")
    (images / "notes.txt").write_text("no image")
    return images


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FolderSource, "chunk", 4)
    monkeypatch.setattr(score_source, "CHUNK", 4)
    monkeypatch.setattr(score_source, "EMBEDDED_CHUNK", 4)


def table(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def expected(bundle: Path, name: str, image: Any, **options: Any) -> dict[str, Any]:
    (one,) = Predictor(bundle).predict([image], **options)
    probs = {f"prob_{code}": np.float32(value) for code, value in one.probs.items()}
    return {
        "image": name,
        "label": one.label,
        "decision": one.decision,
        "melanoma_probability": np.float32(one.melanoma_probability),
        "confidence": np.float32(one.confidence),
        "prediction_set": ",".join(one.prediction_set),
        "abstain_reasons": ",".join(one.reasons),
        **probs,
        "reason": None,
        "problem": None,
    }


@pytest.mark.parametrize("workers", [1, 3, None])
def test_every_image_of_a_folder_has_the_row_of_its_prediction(bundle: Path, folder: Path, workers: int | None) -> None:
    out = folder.parent / "scores.parquet"
    done = score_images(bundle, folder, out, workers=workers)
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    assert (done.images, done.failed, done.now) == (30, 0, 30)
    assert table(out) == [expected(bundle, name, folder / name) for name in names]
    assert not out.with_name("scores.parquet.parts").exists()


def test_failed_image_is_a_row_with_its_reason(bundle: Path, folder: Path) -> None:
    (folder / "05.png").write_bytes(b"")
    (folder / "06.png").write_bytes(b"no image at all")
    out = folder.parent / "scores.parquet"
    assert score_images(bundle, folder, out).failed == 2
    rows = {row["image"]: row for row in table(out)}
    assert len(rows) == 30
    assert rows["05.png"]["reason"] == "empty" and rows["06.png"]["reason"] == "not_an_image"
    assert rows["06.png"]["label"] is None and rows["06.png"]["prob_mel"] is None
    assert rows["06.png"]["problem"] == f"{folder / '06.png'}: is not an image (it holds text)"
    assert rows["08.png"] == expected(bundle, "08.png", folder / "08.png")


def _bytes(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 5), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_tables_of_paths_of_bytes_and_of_records(bundle: Path, folder: Path, tmp_path: Path) -> None:
    colours = [(index * 9, 255 - index * 9, 40) for index in range(11)]
    content = [_bytes(colour) for colour in colours]
    kinds = {
        "paths": {"path": [f"images/{index:02d}.png" for index in range(6)]},
        "bytes": {"image": content, "path": [f"p{index}" for index in range(11)]},
        "plain": {"image": content},
        "records": {"image": [{"bytes": one, "path": f"r{index}"} for index, one in enumerate(content)]},
    }
    for kind, columns in kinds.items():
        pq.write_table(pa.table(columns), tmp_path / f"{kind}.parquet")
        score_images(bundle, tmp_path / f"{kind}.parquet", tmp_path / f"{kind}.scores")
    assert table(tmp_path / "paths.scores") == [
        expected(bundle, f"images/{index:02d}.png", folder / f"{index:02d}.png") for index in range(6)
    ]
    for kind, name in (("bytes", "p{}"), ("plain", "row {}"), ("records", "r{}")):
        assert table(tmp_path / f"{kind}.scores") == [
            expected(bundle, name.format(index), one) for index, one in enumerate(content)
        ]


def test_missing_value_of_a_table_is_a_row_with_a_reason(bundle: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": pa.array([None, "gone.png"], pa.string())}), tmp_path / "t.parquet")
    score_images(bundle, tmp_path / "t.parquet", tmp_path / "scores.parquet")
    assert [row["reason"] for row in table(tmp_path / "scores.parquet")] == ["empty", "missing"]


def test_options_change_the_model_and_the_views(bundle: Path, folder: Path, tmp_path: Path) -> None:
    for name, options in (("int8", {}), ("fp32", {"int8": False}), ("flips", {"flips": True})):
        score_images(bundle, folder, tmp_path / name, **options)
    int8, fp32, flips = (table(tmp_path / name)[0] for name in ("int8", "fp32", "flips"))
    assert int8["prob_mel"] != fp32["prob_mel"]
    assert int8["decision"] != "no_threshold" and flips["decision"] == "no_threshold"


class _KilledError(Exception):
    pass


def test_stopped_job_goes_on_and_scores_nothing_twice(
    bundle: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = folder.parent / "scores.parquet"
    seen: list[str] = []
    limit = [9]
    real = Predictor.predict_each

    def counted(self: Predictor, images: Any, **options: Any) -> list[Any]:
        if len(seen) >= limit[0]:
            raise _KilledError
        seen.extend(map(str, images))
        return real(self, images, **options)

    monkeypatch.setattr(Predictor, "predict_each", counted)
    with pytest.raises(_KilledError):
        score_images(bundle, folder, out, workers=1)
    assert not out.exists() and len(seen) == 12
    with pytest.raises(RunFolderError, match="--resume"):
        score_images(bundle, folder, out)
    limit[0] = 99
    done = score_images(bundle, folder, out, resume=True)
    assert (done.images, done.now) == (30, 18)
    assert len(seen) == len(set(seen)) == 30
    assert len(table(out)) == len({row["image"] for row in table(out)}) == 30


@pytest.mark.parametrize("change", ["bundle", "images", "option"])
def test_job_does_not_go_on_with_something_else(
    change: str, bundle: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = folder.parent / "scores.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "_join", lambda *_: (_ for _ in ()).throw(_KilledError()))
        with pytest.raises(_KilledError):
            score_images(bundle, folder, out)
    if change == "bundle":
        write_manifest(bundle, task="diagnosis", spec=SPEC, decisions={}, provenance={})
    if change == "images":
        (folder / "00.png").write_bytes(_bytes((1, 2, 3)))
    what = {"bundle": "bundle", "images": "source", "option": "flips"}[change]
    with pytest.raises(RunFolderError, match=f"a job with another {what}"):
        score_images(bundle, folder, out, resume=True, flips=change == "option")


def test_parts_of_an_unknown_job_are_not_taken_over(bundle: Path, folder: Path) -> None:
    """A removal that was broken off half-way may leave parts without the name of their job."""
    out = folder.parent / "scores.parquet"
    parts = out.with_name("scores.parquet.parts")
    parts.mkdir()
    (parts / f"{0:012d}.parquet").write_bytes(b"of another bundle")
    for resume in (False, True):
        with pytest.raises(RunFolderError, match="unknown job"):
            score_images(bundle, folder, out, resume=resume)


def test_job_that_was_killed_while_it_cleaned_up_is_finished(
    bundle: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = folder.parent / "scores.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "_remove", lambda parts: None)
        score_images(bundle, folder, out)
    whole, parts = out.read_bytes(), out.with_name("scores.parquet.parts")
    next(parts.glob("0*.parquet")).unlink()
    with pytest.raises(RunFolderError, match="is there already"):
        score_images(bundle, folder, out)
    done = score_images(bundle, folder, out, resume=True)
    assert (done.images, done.failed, done.now) == (30, 0, 0)
    assert out.read_bytes() == whole and not parts.exists()


def test_damaged_part_is_named(bundle: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = folder.parent / "scores.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "_join", lambda *_: (_ for _ in ()).throw(_KilledError()))
        with pytest.raises(_KilledError):
            score_images(bundle, folder, out)
    part = sorted(out.with_name("scores.parquet.parts").glob("0*.parquet"))[2]
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(RunFolderError, match=part.name):
        score_images(bundle, folder, out, resume=True)
    part.unlink()
    assert score_images(bundle, folder, out, resume=True).now == 4


def test_lack_of_memory_stops_the_job_and_is_no_row(
    bundle: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = folder.parent / "scores.parquet"

    def fails(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(pictures, "_check_size", fails)
        with pytest.raises(DataError, match="fewer --workers"):
            score_images(bundle, folder, out)
    assert not out.exists()
    assert score_images(bundle, folder, out, resume=True).failed == 0


def test_file_that_is_gone_or_has_an_odd_name_is_a_row(bundle: Path, folder: Path) -> None:
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    odd = os.fsencode(folder) + b"/od\xffd.png"
    Path(os.fsdecode(odd)).write_bytes((folder / "00.png").read_bytes())
    out = folder.parent / "scores.parquet"
    score_images(bundle, folder, out)
    rows = {row["image"]: row for row in table(out)}
    assert rows["dangling.png"]["reason"] == "missing"
    assert rows["od\\udcffd.png"]["label"] == rows["00.png"]["label"]


def test_folder_that_cannot_be_read_is_not_left_out_unseen() -> None:
    with pytest.raises(DataError, match="secret: cannot be read"):
        score_source._unreadable_folder(PermissionError(13, "Permission denied", "secret"))


def test_changed_image_of_a_path_table_stops_a_resumed_job(
    bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"path": [f"images/{index:02d}.png" for index in range(6)]}), tmp_path / "t.parquet")
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "_join", lambda *_: (_ for _ in ()).throw(_KilledError()))
        with pytest.raises(_KilledError):
            score_images(bundle, tmp_path / "t.parquet", tmp_path / "out")
    (folder / "03.png").write_bytes(_bytes((1, 2, 3)))
    with pytest.raises(RunFolderError, match="another source"):
        score_images(bundle, tmp_path / "t.parquet", tmp_path / "out", resume=True)


def test_damaged_page_of_a_table_is_an_error_with_its_name(bundle: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [_bytes((i, 0, 0)) for i in range(40)]}), tmp_path / "t.parquet")
    content = bytearray((tmp_path / "t.parquet").read_bytes())
    content[4:60] = b"\xff" * 56
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"t\.parquet: is no readable Parquet table"):
        score_images(bundle, tmp_path / "t.parquet", tmp_path / "out")


def test_result_that_is_there_is_not_overwritten(bundle: Path, folder: Path) -> None:
    out = folder.parent / "scores.parquet"
    out.write_text("mine")
    with pytest.raises(RunFolderError, match="is there already"):
        score_images(bundle, folder, out)
    assert out.read_text() == "mine"


def test_two_processes_do_not_write_one_result(bundle: Path, folder: Path) -> None:
    out = folder.parent / "scores.parquet"
    parts = out.with_name("scores.parquet.parts")
    parts.mkdir()
    with locked(parts, wait=False), pytest.raises(RunFolderError, match="another process"):
        score_images(bundle, folder, out)


def test_source_that_holds_nothing_is_refused(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "text.parquet").write_text("not a table")
    pq.write_table(pa.table({"name": ["a"], "image": [3]}), tmp_path / "other.parquet")
    pq.write_table(pa.table({"path": pa.array([], pa.string())}), tmp_path / "empty.parquet")
    for name, said in (
        ("none", "holds no image file"),
        ("gone", "no such folder or table"),
        ("text.parquet", "no readable Parquet table"),
        ("other.parquet", "has the columns name, image"),
        ("empty.parquet", "has no rows"),
    ):
        with pytest.raises(DataError, match=said):
            score_images(bundle, tmp_path / name, tmp_path / "out")
    for workers in (0, -1):
        with pytest.raises(ConfigError, match=f"workers is {workers}"):
            score_images(bundle, tmp_path / "none", tmp_path / "out", workers=workers)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.parts").exists()


@pytest.mark.slow
def test_killed_process_goes_on_with_every_image_once(bundle: Path, folder: Path) -> None:
    """Kill -9 while it scores, slowly enough to be caught in the middle."""
    out = folder.parent / "scores.parquet"
    code = """if True:
        import sys, time
        from pathlib import Path
        from dermdistill.bundle import scoring
        from dermdistill.bundle.score_source import FolderSource
        FolderSource.chunk = 4
        real = scoring._write_part
        def slow(*words):
            time.sleep(0.2)
            return real(*words)
        scoring._write_part = slow
        scoring.score_images(*map(Path, sys.argv[1:4]), workers=1, resume=True)
    """
    words = [sys.executable, "-c", code, str(bundle), str(folder), str(out)]
    process = subprocess.Popen(words)
    parts = out.with_name("scores.parquet.parts")
    deadline = time.monotonic() + 60
    while len(list(parts.glob("0*.parquet"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = {path.name: path.stat().st_mtime_ns for path in parts.glob("0*.parquet")}
    assert 3 <= len(done) < 8 and not out.exists()
    result = score_images(bundle, folder, out, resume=True)
    assert result.images == 30 and result.now == 30 - 4 * len(done)
    assert len({row["image"] for row in table(out)}) == len(table(out)) == 30
