"""A whole small run as a user starts it: its files, and killing it at any moment."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

SETTINGS = [
    "threads=1",
    "synthetic.lesions=70",
    "synthetic.width=64",
    "synthetic.height=48",
    "data.size=32",
    "teacher.model.branches=[{backbone: small_cnn, options: {widths: [4, 8, 12, 16]}}]",
    "student.model.branches=[{backbone: small_cnn, options: {widths: [4, 6, 8, 10]}}]",
    "teacher.epochs=4",
    "student.epochs=4",
    "teacher.batch_size=16",
    "student.batch_size=16",
    "augment.mixup=0.3",
    "evaluate.bootstrap_samples=50",
    "evaluate.latency_repeats=5",
    "evaluate.permutations=50",
    "evaluate.robustness_images=4",
    "evaluate.not_skin_images=12",
    "compress.calibration_images=16",
    "compress.mobile=false",
    "compress.gate={macro_auc: 1, balanced_accuracy: 1, same_label: 0}",
    "explain.correct=2",
    "explain.wrong=2",
    "explain.methods=[grad_cam]",
    "explain.scored_images=0",
]
WEIGHTS = ("teacher/model.safetensors", "student/model.safetensors")
KILLS = 10


def command(out: Path, *more: str) -> list[str]:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    main = "from dermdistill.cli import main; main()"
    return [sys.executable, "-c", main, "run", "quick", "--out", str(out), *settings, *more]


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "DERMDISTILL_CACHE": str(cache), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    out = folder / "run"
    done = subprocess.run(command(out), env=environment(folder / "cache"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def test_run_leaves_every_file(unbroken: Path) -> None:
    wanted = (
        "recipe.yaml provenance.json catalog.parquet split.csv split.json audit.json teacher/model.safetensors "
        "teacher/log.jsonl teacher/model.onnx student/model.safetensors student/log.jsonl bundle/manifest.json "
        "bundle/model.onnx bundle/model.int8.onnx evaluation/predictions.parquet evaluation/evaluation.json "
        "explanations/explanations.json report.html"
    )
    assert [name for name in wanted.split() if not (unbroken / name).is_file()] == []
    assert not list(unbroken.rglob("*.part*")) and not list(unbroken.rglob("checkpoint*"))


def test_evaluation_has_the_promised_form(unbroken: Path) -> None:
    result = json.loads((unbroken / "evaluation" / "evaluation.json").read_text())
    assert set(result["models"]) == {"teacher", "student", "student_int8", "no_teacher"}
    diagnosis = ["accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "macro_auc"]
    melanoma = ["roc_auc", "pr_auc", "sensitivity", "specificity", "specificity_at_95_sensitivity", "ece"]
    for model in result["models"].values():
        for group, names in (("diagnosis", diagnosis), ("melanoma", melanoma)):
            for name in names:
                assert set(model[group][name]) == {"value", "low", "high"}
    for facts in result["files"].values():
        assert facts["bytes"] > 0 and facts["latency_ms"]["median"] > 0


def test_no_image_of_validation_or_test_was_trained_or_calibrated_on(unbroken: Path) -> None:
    split = pd.read_csv(unbroken / "split.csv")
    catalog = pd.read_parquet(unbroken / "catalog.parquet")
    merged = split.merge(catalog, on="image_id")
    assert merged.groupby("lesion_id")["split"].nunique().max() == 1
    predictions = pd.read_parquet(unbroken / "evaluation" / "predictions.parquet")
    for part, rows in predictions.groupby("split"):
        assert set(rows["image_id"]) == set(split.loc[split["split"] == part, "image_id"])


def test_provenance_names_what_a_figure_depends_on(unbroken: Path) -> None:
    provenance = json.loads((unbroken / "provenance.json").read_text())
    assert {"code", "machine", "packages", "seed", "recipe", "data", "models", "training"} <= set(provenance)
    text = (unbroken / "provenance.json").read_text()
    assert str(unbroken.parent) not in text and str(Path.home()) not in text


def test_finished_run_resumes_without_doing_anything_again(unbroken: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in unbroken.rglob("model.*")}
    done = subprocess.run(
        command(unbroken, "--resume"),
        env=environment(unbroken.parent / "cache"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in unbroken.rglob("model.*")} == before


def kill_at_work(out: Path, env: dict[str, str], delay: float) -> bool:
    """Start or resume a run and kill it so many seconds after it took up work; False where it was done by then."""
    record = out / "run.json"
    before = record.stat().st_mtime_ns if record.is_file() else 0
    more = ["--resume"] if record.is_file() else []
    with (out.parent / "errors.txt").open("w") as errors:
        process = subprocess.Popen(command(out, *more), env=env, stdout=subprocess.DEVNULL, stderr=errors)
        while process.poll() is None and not (record.is_file() and record.stat().st_mtime_ns != before):
            time.sleep(0.01)
        try:
            process.wait(timeout=delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert process.returncode in (0, -signal.SIGKILL), (out.parent / "errors.txt").read_text()
    return process.returncode != 0


def seconds_left(out: Path, stages: dict[str, dict[str, float]]) -> float:
    """What the stages that a run has not finished took in the unbroken one."""
    record = out / "run.json"
    done = json.loads(record.read_text())["stages"] if record.is_file() else {}
    return sum(stage["seconds"] for name, stage in stages.items() if name not in done)


@pytest.mark.slow
def test_killed_ten_times_and_resumed_it_ends_with_the_same_weights(unbroken: Path, tmp_path: Path) -> None:
    """Kill -9 at ten random moments, spread over what is left of the work each time; resume each time."""
    draw = random.Random(0)
    env, out = environment(tmp_path / "cache"), tmp_path / "run"
    stages = json.loads((unbroken / "run.json").read_text())["stages"]
    kills = 0
    for later in reversed(range(KILLS)):
        # on average an equal share of what is left, at most a share and a half: the last one cannot come too late
        reach = 1.5 * seconds_left(out, stages) / (later + 2)
        kills += kill_at_work(out, env, draw.uniform(0.0, reach))
    assert kills == KILLS, "the run ended before its last kill: the test would prove less than it says"
    assert not (out / "provenance.json").exists(), "the run was complete before its last kill"
    done = subprocess.run(command(out, "--resume"), env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in WEIGHTS:
        expected, found = load_file(unbroken / name), load_file(out / name)
        assert expected.keys() == found.keys()
        assert all(expected[key].equal(found[key]) for key in expected), name
    assert not list(out.rglob("*.part*"))
