"""Trackers against the real TensorBoard and MLflow, read back with their own readers."""

import math
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dermdistill.atomic import make_folder
from dermdistill.errors import ConfigError, OutputError
from dermdistill.run import RECORD
from dermdistill.training import tracking
from dermdistill.training.mlflow_tracker import EXPERIMENT, _mlflow_client
from dermdistill.training.tracked import numbers, settings_text
from dermdistill.training.tracking import TRACKERS, open_trackers, tracking_place

BOTH = ("tensorboard", "mlflow")
SETTINGS = {"seed": 3, "student": {"model": {"branches": [{"backbone": "small_cnn"}], "exits": [1, 2]}, "name": "x"}}
Curves = dict[str, list[tuple[int, float]]]


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as MLflow makes it: over a second of work, so it is made once and copied."""
    file = tmp_path_factory.mktemp("empty") / "mlflow.db"
    _mlflow_client(file)
    return file


@pytest.fixture
def place(tmp_path: Path, empty_database: Path) -> Path:
    """A tracking folder with an empty database."""
    shutil.copy(empty_database, make_folder(tmp_path / "tracking"))
    return tmp_path / "tracking"


def line(epoch: int, shift: float = 0.0) -> dict[str, Any]:
    """A line of the log as the loop makes it."""
    return {
        "epoch": epoch,
        "seconds": 1.5,
        "learning_rate": 1e-3 / (epoch + 1),
        "images": 640,
        "loss": 2.0 / (epoch + 1) + shift,
        "grad_norm": 0.75,
        "terms": {"logits_kd": {"value": 0.1 * epoch + shift, "weight": 0.3, "grad_norm": 1 / 3}},
        "val": {"macro_auc": 0.5 + 0.01 * epoch, "loss": 1.9},
        "best": epoch % 2 == 0,
    }


def expected(*lines: Mapping[str, Any], role: str = "student") -> Curves:
    """The curves of these lines, the names written out by hand."""
    return {
        f"{role}/{name}": [(line["epoch"], float(value(line))) for line in lines]
        for name, value in {
            "seconds": lambda one: one["seconds"],
            "learning_rate": lambda one: one["learning_rate"],
            "images": lambda one: one["images"],
            "loss": lambda one: one["loss"],
            "grad_norm": lambda one: one["grad_norm"],
            "terms/logits_kd/value": lambda one: one["terms"]["logits_kd"]["value"],
            "terms/logits_kd/weight": lambda one: one["terms"]["logits_kd"]["weight"],
            "terms/logits_kd/grad_norm": lambda one: one["terms"]["logits_kd"]["grad_norm"],
            "val/macro_auc": lambda one: one["val"]["macro_auc"],
            "val/loss": lambda one: one["val"]["loss"],
            "best": lambda one: one["best"],
        }.items()
    }


def tensorboard_curves(folder: Path, role: str = "student") -> Curves:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard" / role))
    events.Reload()
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def mlflow_runs(folder: Path) -> tuple[Any, list[Any]]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    return client, client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])


def mlflow_curves(folder: Path) -> Curves:
    client, runs = mlflow_runs(folder)
    assert len(runs) == 1
    names = runs[0].data.metrics
    history = {name: client.get_metric_history(runs[0].info.run_id, name) for name in names}
    return {name: [(point.step, point.value) for point in points] for name, points in history.items()}


def track(folder: Path, *lines: Mapping[str, Any], role: str = "student", names: tuple[str, ...] = BOTH) -> None:
    with open_trackers(names, folder, "demo") as tracker:
        tracker.start(SETTINGS)
        for one in lines:
            tracker.epoch(role, one)


def assert_curves(folder: Path, curves: Curves) -> None:
    assert mlflow_curves(folder) == curves
    found = tensorboard_curves(folder)
    assert {name: [step for step, _ in points] for name, points in found.items()} == {
        name: [step for step, _ in points] for name, points in curves.items()
    }
    for name, points in curves.items():
        assert found[name] == [(step, pytest.approx(value, rel=1e-6)) for step, value in points]


def test_both_packages_hold_every_number_of_the_log(place: Path) -> None:
    track(place, line(0), line(1), line(2))
    assert_curves(place, expected(line(0), line(1), line(2)))
    _, (found,) = mlflow_runs(place)
    assert found.info.run_name == "demo"
    assert found.info.status == "FINISHED"
    assert found.data.params == {
        "seed": "3",
        "student.model.branches.0.backbone": "small_cnn",
        "student.model.exits": "[1, 2]",
        "student.name": "x",
    }
    assert found.info.artifact_uri.startswith((place / "artifacts").as_uri())


def test_resumed_training_goes_on_with_one_curve(place: Path) -> None:
    track(place, line(0), line(1))
    _, (before,) = mlflow_runs(place)
    track(place, line(2), line(3))
    assert_curves(place, expected(*map(line, range(4))))
    _, (after,) = mlflow_runs(place)
    assert after.info.run_id == before.info.run_id


def test_lines_told_again_do_not_double_points(place: Path) -> None:
    track(place, line(0), line(1))
    track(place, line(0), line(1), line(2), line(2))
    assert_curves(place, expected(*map(line, range(3))))


def test_training_begun_anew_drops_the_old_curve_and_keeps_the_other_role(place: Path) -> None:
    with open_trackers(BOTH, place, "demo") as tracker:
        tracker.start({"teacher": {"epochs": 3}})
        for epoch in range(3):
            tracker.epoch("teacher", line(epoch))
    track(place, line(0), line(1), line(2))
    track(place, line(1, shift=0.25))
    student = expected(line(0), line(1, shift=0.25))
    assert mlflow_curves(place) == student | expected(*map(line, range(3)), role="teacher")
    params = mlflow_runs(place)[1][0].data.params
    assert (params["teacher.epochs"], params["seed"]) == ("3", "3")
    found = tensorboard_curves(place)
    assert found["student/loss"] == [(0, 2.0), (1, 1.25)]
    assert [step for step, _ in tensorboard_curves(place, "teacher")["teacher/loss"]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("training", "folder", "name"),
    [
        ("run/teacher", "run/tracking", "run"),
        ("run/student", "run/tracking", "run"),
        ("run/controls/no_teacher", "run/tracking/controls/no_teacher", "run/controls/no_teacher"),
        ("run/trials/row/seed-1", "run/tracking/trials/row/seed-1", "run/trials/row/seed-1"),
        ("elsewhere/student", "elsewhere/student/tracking", "student"),
    ],
)
def test_trainings_share_a_tracking_folder_only_as_teacher_and_student_of_a_run(
    training: str, folder: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (make_folder(tmp_path / "run") / RECORD).write_text("{}")
    assert tracking_place(tmp_path / training) == (tmp_path / folder, name)
    monkeypatch.chdir(make_folder((tmp_path / training).parent))
    assert tracking_place(Path(Path(training).name)) == (tmp_path / folder, name)


def test_seeds_of_one_row_keep_a_curve_each(tmp_path: Path, empty_database: Path) -> None:
    (tmp_path / RECORD).write_text("{}")
    places = [tracking_place(tmp_path / "trials" / "row" / f"seed-{seed}")[0] for seed in (0, 1)]
    for seed, place in enumerate(places):
        shutil.copy(empty_database, make_folder(place))
        track(place, line(0, shift=seed), line(1, shift=seed))
    for seed, place in enumerate(places):
        assert_curves(place, expected(line(0, shift=seed), line(1, shift=seed)))


def test_changed_setting_of_a_resumed_run_is_a_tag(place: Path) -> None:
    track(place, line(0), names=("mlflow",))
    with open_trackers(("mlflow",), place, "demo") as tracker:
        tracker.start({**SETTINGS, "seed": 4, "more": None})
    _, (found,) = mlflow_runs(place)
    assert (found.data.params["seed"], found.data.tags["later.seed"], found.data.params["more"]) == ("3", "4", "null")


def test_non_finite_numbers_are_kept_and_not_doubled(place: Path) -> None:
    odd = {"epoch": 0, "loss": math.inf, "val": {"auc": math.nan}}
    track(place, odd)
    track(place, odd)
    points = mlflow_curves(place)
    assert points["student/loss"] == [(0, sys.float_info.max)]
    assert math.isnan(points["student/val/auc"][0][1])
    assert tensorboard_curves(place)["student/loss"] == [(0, math.inf)]


def test_failed_training_is_marked_as_failed_and_goes_on_later(place: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_trackers(("mlflow",), place, "demo") as tracker:
        tracker.start(SETTINGS)
        raise KeyboardInterrupt
    assert mlflow_runs(place)[1][0].info.status == "FAILED"
    track(place, line(0), names=("mlflow",))
    assert [found.info.status for found in mlflow_runs(place)[1]] == ["FINISHED"]


def test_trackers_draw_no_global_random_number(place: Path) -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    with open_trackers(BOTH, place, "") as tracker:
        tracker.start(SETTINGS)
        tracker.epoch("student", line(0))
        tracker.epoch("student", line(0, shift=1))
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_no_tracker_does_nothing_and_imports_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from dermdistill.training.tracking import open_trackers\n"
        "with open_trackers((), pathlib.Path(sys.argv[1]), 'x') as tracker:\n"
        "    tracker.start({}); tracker.epoch('student', {'epoch': 0})\n"
        "print(sorted({'torch', 'mlflow', 'tensorboard', 'sqlalchemy'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
    assert list(tmp_path.iterdir()) == []


def test_mlflow_starts_without_telemetry_a_word_or_a_file_elsewhere(tmp_path: Path) -> None:
    # MLflow turns its telemetry off by itself where it sees pytest or a CI service: here it must not see them.
    clean = {name: value for name, value in os.environ.items() if name in ("PATH", "VIRTUAL_ENV", "LANG", "HOME")}
    code = (
        "import pathlib; from dermdistill.training.tracking import open_trackers\n"
        "with open_trackers(('mlflow',), pathlib.Path('run'), 'x') as tracker:\n"
        "    tracker.start({}); tracker.epoch('student', {'epoch': 0, 'loss': 1.0})\n"
        "from mlflow.telemetry.client import get_telemetry_client; print(get_telemetry_client())"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    ran = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("None\n", "")
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == [
        "run",
        "run/mlflow.db",
    ]


@pytest.mark.parametrize(
    ("name", "module"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow.tracking"), ("mlflow", "alembic")]
)
def test_missing_package_names_the_extra(
    name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"pip install 'dermdistill\[{name}\]'"), open_trackers([name], tmp_path, ""):
        pass


def test_unknown_tracker_lists_the_known(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"unknown wandb\n.*tensorboard, mlflow"),
        open_trackers(["wandb"], tmp_path, ""),
    ):
        pass


def test_file_that_is_no_database_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("hello " * 1000)
    with pytest.raises(OutputError, match=r"mlflow.db: mlflow cannot write there .*not a database"):
        TRACKERS["mlflow"](tmp_path, "")


def test_database_deleted_in_the_same_process_is_refused(place: Path) -> None:
    track(place, line(0), names=("mlflow",))
    (place / "mlflow.db").unlink()
    with pytest.raises(OutputError, match="deleted while open"):
        TRACKERS["mlflow"](place, "")


def test_folder_that_cannot_stand_in_a_database_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no \? or % in the path"):
        TRACKERS["mlflow"](tmp_path / "50%", "")


def test_every_tracker_is_closed_though_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    class Recorder:
        def __init__(self, folder: Path, name: str) -> None:
            pass

        def close(self, *, failed: bool = False) -> None:
            closed.append(failed)
            raise OutputError("full")

    monkeypatch.setattr(tracking, "TRACKERS", {"one": Recorder, "two": Recorder})
    with pytest.raises(OutputError, match="full"), open_trackers(["one", "two", "one"], tmp_path, "x"):
        pass
    assert closed == [False, False]


nested = st.recursive(
    st.integers(-5, 5) | st.floats(allow_nan=False) | st.booleans() | st.none() | st.text(max_size=3),
    lambda part: st.dictionaries(st.text("ab_c/ é", min_size=1, max_size=3), part, max_size=3),
)


@given(st.dictionaries(st.text("xyz", min_size=1, max_size=4), nested, max_size=4))
def test_numbers_are_as_many_as_leaves_that_are_numbers(body: dict[str, Any]) -> None:
    def leaves(value: Any) -> list[float]:
        if isinstance(value, dict):
            return [leaf for part in value.values() for leaf in leaves(part)]
        return [float(value)] if isinstance(value, int | float) else []

    found = numbers("student", {"epoch": 7, **body})
    assert set(found.values()) <= set(leaves(body))
    assert all(name.startswith("student/") for name in found)
    # A slash inside a key becomes an underscore, so only such keys can fall together.
    if "/" not in repr(body):
        assert sorted(found.values()) == sorted(leaves(body))


def test_settings_are_named_as_set_takes_them() -> None:
    settings = {"a": {"b": [{"c": 1}, {"c": "two"}], "d": []}, "e": None, "f": (1, 2), "g h": True}
    assert settings_text(settings) == {
        "a.b.0.c": "1",
        "a.b.1.c": "two",
        "a.d": "[]",
        "e": "null",
        "f": "[1, 2]",
        "g h": "true",
    }
