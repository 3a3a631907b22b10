"""A whole choice of students on few drawn lesions: two small networks, one teacher, their files, and the page of it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from dermdistill.cli.main import app
from dermdistill.config import BranchConfig, Recipe
from dermdistill.errors import ConfigError, WeightsError
from dermdistill.models import weights
from dermdistill.models.students import STUDENTS, Student
from dermdistill.pipeline import stages, student_files, student_result, students, trials
from dermdistill.pipeline.context import Stores
from dermdistill.pipeline.student_files import in_turns
from dermdistill.pipeline.students import StudentsPlan, chosen_students, run_students, student_recipe
from dermdistill.pipeline.study import StudyCall
from dermdistill.preprocess import PreprocessSpec
from dermdistill.recipes.load import load_recipe
from dermdistill.report.results import results_page
from dermdistill.report.study_results import collect_study

SETTINGS = [
    "threads=1",
    "synthetic.lesions=105",
    "synthetic.width=48",
    "synthetic.height=32",
    "data.size=16",
    "teacher.model.branches=[{backbone: small_cnn, options: {widths: [4, 8, 12, 16]}}]",
    "teacher.epochs=1",
    "student.epochs=2",
    "teacher.batch_size=16",
    "student.batch_size=16",
    "compress.calibration_images=8",
    "evaluate.bootstrap_samples=50",
    "evaluate.latency_repeats=5",
    "evaluate.permutations=50",
    "evaluate.robustness_images=4",
    "evaluate.not_skin_images=12",
]
NARROW, WIDE, LOST, VIT = "narrow", "wide", "lost", "vit"
PLAN = StudentsPlan((WIDE, NARROW), seeds=1)


def cnn(widths: list[int]) -> tuple[BranchConfig, ...]:
    return (BranchConfig(backbone="small_cnn", options={"widths": widths}),)


def vit() -> tuple[BranchConfig, ...]:
    options = {"patch_size": 8, "depth": 4, "embed_dim": 24, "num_heads": 3}
    return (BranchConfig(backbone="vit_tiny", options=options),)


def recipe(*more: str) -> Recipe:
    return load_recipe("quick", [*SETTINGS, *more])


@pytest.fixture(scope="module", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERMDISTILL_CACHE", str(folder))
        patch.setattr(student_files, "COMMON_SIZE", 24)
        for name in list(STUDENTS):
            patch.delitem(STUDENTS, name)
        patch.setitem(STUDENTS, NARROW, Student("a narrow one", lambda: cnn([4, 4, 6, 8])))
        patch.setitem(STUDENTS, WIDE, Student("a wide one", lambda: cnn([8, 16, 24, 48])))
        offline = BranchConfig(backbone="efficientnet_lite0", weights="offline")
        patch.setitem(STUDENTS, LOST, Student("with packaged weights", lambda: (offline,)))
        patch.setitem(STUDENTS, VIT, Student("of one size only", vit))
        yield folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("students") / "study"
    run_students(recipe(), PLAN, StudyCall(None, out, command="dermdistill students quick"))
    return out


@pytest.fixture
def untimed(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is timed once more: each timing exports every student at another size."""
    known = {name: found["files"] for name, found in result_of(finished)["students"].items()}
    times = {name: {kind: facts["latency_ms"] for kind, facts in files.items()} for name, files in known.items()}
    monkeypatch.setattr(student_result, "time_students", lambda *_: times)


def result_of(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "students.json").read_text())
    return content


def said(out: Path, name: str, kind: str, part: str) -> pd.DataFrame:
    frame = pd.read_parquet(out / "exports" / name / "seed-0" / "predictions.parquet")
    return frame[(frame["model"] == kind) & (frame["split"] == part)]


def macro_auc(frame: pd.DataFrame) -> float:
    probs = frame.filter(like="prob_").to_numpy(dtype=np.float64)
    hits = [roc_auc_score(frame["label"] == place, probs[:, place]) for place in range(probs.shape[1])]
    return float(np.mean(hits))


def test_study_leaves_tables_plot_and_provenance(finished: Path) -> None:
    text = (finished / "students.md").read_text()
    assert "Recommended: " in text and "| narrow |" in text and "a wide one" in text
    assert (finished / "students.svg").read_text().startswith("<svg")
    provenance = json.loads((finished / "provenance.json").read_text())
    assert provenance["seeds"] == [0] and provenance["command"] == "dermdistill students quick"
    assert [student["name"] for student in provenance["students"]] == [NARROW, WIDE]
    assert not list(finished.rglob("checkpoint*")) and not list(finished.rglob("*.part*"))


def test_figures_are_those_of_the_files_on_their_parts(finished: Path) -> None:
    result = result_of(finished)
    for name in (NARROW, WIDE):
        for kind in ("int8", "fp32"):
            cell = result[kind]["rows"][name]["metrics"]["macro_auc"]
            assert cell["value"] == pytest.approx(macro_auc(said(finished, name, kind, "test")))
            assert cell["low"] <= cell["value"] <= cell["high"]
        validation = result["validation"][name]["macro_auc"]["value"]
        assert validation == pytest.approx(macro_auc(said(finished, name, "int8", "val")))
        quantized = result["int8_minus_fp32"][name]["macro_auc"]["value"]
        both = [result[kind]["rows"][name]["metrics"]["macro_auc"]["value"] for kind in ("int8", "fp32")]
        assert quantized == pytest.approx(both[0] - both[1])
    split = pd.read_csv(finished / "split.csv")
    assert result["n"]["images"] == int((split["split"] == "test").sum())


def test_sizes_are_those_of_the_files_and_every_file_is_timed_at_both_sizes(finished: Path) -> None:
    students_found = result_of(finished)["students"]
    for name, student in students_found.items():
        for kind, file in (("fp32", "model.onnx"), ("int8", "model.int8.onnx")):
            facts = student["files"][kind]
            assert facts["bytes"] == (finished / "exports" / name / "seed-0" / file).stat().st_size
            assert set(facts["latency_ms"]) == {"16", "24"}
            assert all(time["median"] > 0 and time["repeats"] >= 5 for time in facts["latency_ms"].values())
    assert students_found[NARROW]["parameters"] < students_found[WIDE]["parameters"]
    assert students_found[NARROW]["files"]["int8"]["bytes"] < students_found[WIDE]["files"]["int8"]["bytes"]


def test_the_choice_follows_validation_whatever_the_test_part_says(
    finished: Path, untimed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = student_result._compared

    def turned(*arguments: Any) -> Any:
        """The wide student is best on validation, the narrow one on test."""
        found = compared(*arguments)
        for name, row in found["rows"].items():
            row["metrics"]["macro_auc"]["value"] = 0.9 if (name == WIDE) == (arguments[-1] == "val") else 0.6
        return found

    monkeypatch.setattr(student_result, "_compared", turned)
    before = (finished / "students.json").read_bytes()
    run_students(recipe(), PLAN, StudyCall(None, finished, resume=True))
    choice = result_of(finished)["choice"]
    (finished / "students.json").write_bytes(before)
    assert (choice["best"], choice["recommended"], choice["pareto"]) == (WIDE, WIDE, [NARROW, WIDE])


def test_all_students_learn_from_one_store(finished: Path, surroundings: Path) -> None:
    assert len(list(surroundings.glob("targets-*"))) == 1
    lines = [
        json.loads((finished / "trials" / name / "seed-0" / "log.jsonl").read_text().splitlines()[0])
        for name in (NARROW, WIDE)
    ]
    assert all("logits_kd" in line["terms"] for line in lines)


def test_resumed_study_trains_and_exports_nothing_again(
    finished: Path, untimed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "run_trial", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(student_files, "export_onnx", lambda *_: pytest.fail("exported again"))
    rows = result_of(finished)["int8"]["rows"]
    run_students(recipe(), PLAN, StudyCall(None, finished, resume=True))
    assert result_of(finished)["int8"]["rows"] == rows


def test_damaged_file_is_exported_again_and_calibrated_on_training_images_alone(
    finished: Path, untimed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize, seen = student_files.quantize_int8, []

    def spied(fp32: Path, int8: Path, images: npt.NDArray[np.uint8], spec: PreprocessSpec, *more: Any) -> Any:
        seen.extend(image.tobytes() for image in images)
        return quantize(fp32, int8, images, spec, *more)

    monkeypatch.setattr(student_files, "quantize_int8", spied)
    path = finished / "exports" / NARROW / "seed-0" / "model.int8.onnx"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    run_students(recipe(), PLAN, StudyCall(None, finished, resume=True))
    assert path.read_bytes() == whole and len(seen) >= 8
    split = pd.read_csv(finished / "split.csv")
    store = Stores(pd.read_parquet(finished / "catalog.parquet")).at(recipe().data.preprocess())
    ids = split.loc[split["split"] == "train", "image_id"].tolist()
    assert set(seen) <= {store.images[row].tobytes() for row in store.rows(ids)}


def test_teacher_of_another_run_is_taken(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "train_role", lambda *_, **__: pytest.fail("a teacher was trained"))
    monkeypatch.setattr(students, "train_all", stopped)
    plan = StudentsPlan((NARROW,), seeds=1, teacher=finished)
    with pytest.raises(KeyboardInterrupt):
        run_students(recipe("teacher.epochs=9"), plan, StudyCall(None, tmp_path / "study"))
    own, theirs = (folder / "teacher" / "model.safetensors" for folder in (tmp_path / "study", finished))
    assert own.read_bytes() == theirs.read_bytes()


def test_kept_result_has_a_section_of_its_own_on_the_page(finished: Path, tmp_path: Path) -> None:
    kept = collect_study(finished, tmp_path / "results" / "students-16")
    assert {path.name for path in kept.iterdir()} == {
        *(f"students.{suffix}" for suffix in ("json", "md", "svg")),
        *("provenance.json", "split.json", "training.json", "recipe.yaml"),
    }
    page = results_page(tmp_path / "results", tmp_path / "page.md")
    assert "## students-16" in page and "Recommended: " in page and "(results/students-16/students.svg)" in page


def test_branches_change_and_nothing_else_of_the_student() -> None:
    base, mine = recipe(), student_recipe(recipe(), WIDE, seed=3)
    assert mine.student.model.branches == cnn([8, 16, 24, 48]) and mine.seed == 3
    branches = {"branches": base.student.model.branches}
    distill = {"targets": base.student.distill.targets}
    network = {
        "model": mine.student.model.model_copy(update=branches),
        "distill": mine.student.distill.model_copy(update=distill),
    }
    back = mine.model_copy(update={"seed": base.seed, "student": mine.student.model_copy(update=network)})
    assert back == base


def test_unknown_students_are_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown 'giant'\n.*narrow, wide"):
        chosen_students((NARROW, "giant"))
    assert chosen_students(()) == list(STUDENTS) and chosen_students((WIDE, NARROW)) == [NARROW, WIDE]


def test_recipe_without_teaching_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(students, "prepared", lambda *_, **__: pytest.fail("was started"))
    alone = recipe("student.distill.alpha=0", "student.distill.beta=0", "student.distill.gamma=1")
    with pytest.raises(ConfigError, match="learns from no teacher"):
        run_students(alone, PLAN, StudyCall(None, tmp_path / "study"))


def test_missing_packaged_weights_are_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(students, "prepared", lambda *_, **__: pytest.fail("was started"))
    monkeypatch.setitem(weights.OFFLINE, "efficientnet_lite0", ("no_such_package_of_weights", "File"))
    with pytest.raises(WeightsError, match=r"not installed\n.*offline"):
        run_students(recipe(), StudentsPlan((NARROW, LOST)), StudyCall(None, tmp_path / "study"))


def test_student_of_one_size_only_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(students, "prepared", lambda *_, **__: pytest.fail("was started"))
    with pytest.raises(ConfigError, match=r"student vit: a network for 16 x 16 pixels cannot take 24 x 24"):
        run_students(recipe(), StudentsPlan((VIT,)), StudyCall(None, tmp_path / "study"))


def test_files_are_timed_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []

    class Recorder:
        def __init__(self, path: Path, spec: PreprocessSpec, *, threads: int) -> None:
            self.name = path.name

        def run(self, inputs: npt.NDArray[np.float32]) -> None:
            runs.append(self.name)

    monkeypatch.setattr(student_files, "OnnxClassifier", Recorder)
    spec = PreprocessSpec(size=16)
    found = in_turns({name: (Path(name), spec) for name in ("a", "b")}, repeats=15)
    turn = student_files.UNCOUNTED + student_files.TURN
    assert runs == (["a"] * turn + ["b"] * turn) * 2
    assert found["a"]["repeats"] == 20 and found["a"]["p5"] <= found["a"]["median"] <= found["a"]["p95"]


def test_command_passes_its_options_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Recipe, StudentsPlan, StudyCall]] = []

    def recorded(*arguments: Any) -> Path:
        calls.append(arguments)
        return tmp_path / "students.md"

    monkeypatch.setattr(students, "run_students", recorded)
    words = ["students", "quick", "--out", str(tmp_path), "--students", "wide, narrow", "--seeds", "2"]
    done = CliRunner().invoke(app, [*words, "--teacher", "runs/t", "--jobs", "2", "--resume", "--set", "seed=5"])
    assert done.exit_code == 0, done.output
    ((chosen, plan, call),) = calls
    assert chosen.seed == 5 and plan == StudentsPlan((WIDE, NARROW), 2, Path("runs/t"))
    assert call.resume and call.jobs == 2 and not call.worker and call.out == tmp_path
    assert list(call.arguments)[-2:] == ["--resume", "--worker"] and "--students" in call.arguments
    assert str(tmp_path) not in call.command and call.command.startswith("dermdistill students quick")
