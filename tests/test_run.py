"""A run folder knows what is done, notices what changed, and belongs to one process."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dermdistill.errors import OutputError, RunFolderError
from dermdistill.run import RunFolder

HOLD = """
import sys
from pathlib import Path
from dermdistill.run import RunFolder
with RunFolder(Path(sys.argv[1])).opened(resume=True):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """A folder with the finished stage ``train`` of a file and a folder of two."""
    folder = tmp_path / "run"
    with RunFolder(folder).opened(resume=False) as run, run.stage("train", "inputs", ["log.txt", "net"]):
        (folder / "log.txt").write_text("loss 1")
        (folder / "net" / "deep").mkdir(parents=True)
        for name in ("a", "deep/b"):
            (folder / "net" / name).write_text(name)
    return folder


def is_done(folder: Path, inputs: str = "inputs") -> bool:
    with RunFolder(folder).opened(resume=True) as run:
        return run.is_done("train", inputs)


def test_a_finished_stage_is_remembered_with_its_files_and_seconds(done: Path) -> None:
    with RunFolder(done).opened(resume=True) as run:
        assert run.is_done("train", "inputs") and not run.is_done("export", "inputs")
        assert run.output_hashes("train").keys() == {"log.txt", "net/a", "net/deep/b"}
        assert run.seconds()["train"] >= 0


def test_other_inputs_make_a_stage_undone(done: Path) -> None:
    assert not is_done(done, "other inputs") and is_done(done)


@pytest.mark.parametrize("name", ["log.txt", "net/a", "net/deep/b"])
def test_a_changed_or_missing_file_makes_a_stage_undone(name: str, done: Path) -> None:
    text = (done / name).read_text()
    (done / name).write_text(text[::-1] + " ")
    assert not is_done(done)
    (done / name).write_text(text)
    assert is_done(done)
    (done / name).unlink()
    assert not is_done(done)


@pytest.mark.parametrize("inputs", ["inputs", "new inputs"])
def test_a_stage_that_fails_is_not_done_even_if_it_was_before(inputs: str, done: Path) -> None:
    with RunFolder(done).opened(resume=True) as run:
        with pytest.raises(ValueError, match="boom"), run.stage("train", inputs, ["log.txt"]):
            (done / "log.txt").write_text("half")
            raise ValueError("boom")
        assert not run.is_done("train", inputs)
    assert not is_done(done, inputs)


def test_a_stage_without_its_output_is_no_finished_stage(done: Path) -> None:
    with RunFolder(done).opened(resume=True) as run:
        with pytest.raises(FileNotFoundError, match="gone"), run.stage("export", "x", ["gone.onnx"]):
            pass
        assert run.stages.keys() == {"train"}


def test_two_processes_cannot_hold_one_folder_and_a_killed_one_lets_go(done: Path) -> None:
    words = [sys.executable, "-c", HOLD, str(done)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        before = (done / "run.json").read_bytes()
        with pytest.raises(RunFolderError, match="another process runs here"):
            is_done(done)
        assert (done / "run.json").read_bytes() == before
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert is_done(done)


def test_a_second_start_that_finds_the_folder_held_removes_nothing(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run").opened(resume=False) as run, run.stage("train", "x", ["a"]):
        (run.path / "a").write_text("a")
        with pytest.raises(RunFolderError, match="is not empty"), RunFolder(run.path).opened(resume=False):
            pass
        (run.path / "run.json").rename(tmp_path / "kept.json")
        (run.path / "a").rename(tmp_path / "a")
        with pytest.raises(RunFolderError, match="another process"), RunFolder(run.path).opened(resume=False):
            pass
        (tmp_path / "a").rename(run.path / "a")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["stages"].keys() == {"train"}


@pytest.mark.parametrize("existed", [False, True])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_new_run_that_fails_before_its_first_stage_leaves_nothing(
    existed: bool, error: type[BaseException], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    if existed:
        folder.mkdir()
    with pytest.raises(error), RunFolder(folder).opened(resume=False) as run:
        (run.path / "part").mkdir()
        (run.path / "part" / "x").write_text("x")
        raise error
    assert folder.exists() == existed
    assert not existed or list(folder.iterdir()) == []


def test_a_run_that_fails_later_keeps_its_stages(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="later"), RunFolder(tmp_path / "run").opened(resume=False) as run:
        with run.stage("train", "inputs", ["a"]):
            (run.path / "a").write_text("a")
        raise ValueError("later")
    assert is_done(tmp_path / "run")


def test_a_resumed_run_that_fails_at_once_keeps_everything(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"stages": {}}')
    (tmp_path / "checkpoint").write_text("hours of work")
    with pytest.raises(ValueError, match="no"), RunFolder(tmp_path).opened(resume=True):
        raise ValueError("no")
    assert (tmp_path / "checkpoint").read_text() == "hours of work"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"stages": []}', '{"stages": {"train": {}}}', '{"stages": {"train": {"inputs": 1}}}']
)
def test_a_damaged_record_is_named_and_left_as_it_is(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunFolderError, match=r"run\.json: is damaged"), RunFolder(tmp_path).opened(resume=True):
        pass
    assert (tmp_path / "run.json").read_text() == text


def test_folders_that_cannot_be_used_as_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path, resume, said in (
        (tmp_path / "file", False, "is a file"),
        (tmp_path / "file", True, "is a file"),
        (tmp_path, False, "is not empty"),
        (tmp_path, True, "holds no run to resume"),
        (tmp_path / "none", True, "holds no run to resume"),
    ):
        with pytest.raises(RunFolderError, match=said) as caught, RunFolder(path).opened(resume=resume):
            pass
        assert caught.value.next_step
    with pytest.raises(OutputError), RunFolder(tmp_path / "file" / "below").opened(resume=False):
        pass


def test_clear_removes_one_folder_and_does_not_mind_its_absence(done: Path) -> None:
    run = RunFolder(done)
    run.clear("net")
    run.clear("net")
    assert not (done / "net").exists() and (done / "log.txt").exists()
