"""A whole ablation on few drawn lesions: every file, resumed by row, side by side, with another run's teacher."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dermdistill.config import Recipe
from dermdistill.errors import ConfigError, DataError, RunFolderError
from dermdistill.pipeline import trials
from dermdistill.pipeline.ablate import AblationPlan, _possible, chosen_on_validation, run_ablation
from dermdistill.pipeline.ablation_rows import CONTROL, chosen_rows
from dermdistill.pipeline.study import StudyCall
from dermdistill.recipes.load import load_recipe

SETTINGS = [
    "threads=1",
    "synthetic.lesions=63",
    "synthetic.width=48",
    "synthetic.height=32",
    "data.size=16",
    "teacher.size=32",
    "teacher.model.branches=[{backbone: small_cnn, options: {widths: [4, 8, 12, 16]}}]",
    "student.model.branches=[{backbone: small_cnn, options: {widths: [4, 6, 8, 10]}}]",
    "teacher.epochs=2",
    "student.epochs=2",
    "teacher.batch_size=16",
    "student.batch_size=16",
    "augment.mixup=0.3",
    "evaluate.bootstrap_samples=50",
]
ROWS = ("single_stage", "t2_a50", "multi_stage_fusion", "fusion_teacher_only")


def recipe(*more: str) -> Recipe:
    return load_recipe("quick", [*SETTINGS, *more])


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERMDISTILL_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ablation") / "study"
    run_ablation(recipe(), AblationPlan(ROWS, seeds=2), StudyCall(None, out, command="dermdistill ablate quick"))
    return out


def result_of(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "ablation.json").read_text())
    return content


def test_ablation_leaves_tables_plot_and_provenance(finished: Path) -> None:
    for suffix in ("json", "csv", "md", "tex", "svg"):
        assert (finished / f"ablation.{suffix}").stat().st_size > 0
    provenance = json.loads((finished / "provenance.json").read_text())
    assert provenance["seeds"] == [0, 1] and provenance["command"] == "dermdistill ablate quick"
    assert len(provenance["students"]) == 10
    assert provenance["teacher"]["size"] == 32 and len(provenance["teacher"]["sha256"]) == 64
    assert not list(finished.rglob("checkpoint*")) and not list(finished.rglob("*.part*"))


def test_every_row_is_measured_on_the_test_part_and_compared_with_its_controls(finished: Path) -> None:
    result = result_of(finished)
    rows = result["rows"]
    assert list(rows) == [
        CONTROL,
        "no_teacher_fusion",
        "single_stage",
        "multi_stage_fusion",
        "t2_a50",
        "fusion_teacher_only",
    ]
    split = pd.read_csv(finished / "split.csv")
    assert result["n"]["images"] == int((split["split"] == "test").sum())
    assert set(rows["multi_stage_fusion"]["differences"]) == {CONTROL, "no_teacher_fusion"}
    assert rows[CONTROL]["differences"] == {} and rows["single_stage"]["seeds"] == [0, 1]
    assert set(result["validation"]) == set(rows)


def test_the_note_names_the_setting_that_validation_chooses_whatever_the_test_part_says(finished: Path) -> None:
    result = result_of(finished)
    tried = ("multi_stage_fusion", "fusion_teacher_only")
    best = max(tried, key=lambda name: result["validation"][name]["metrics"]["macro_auc"]["value"])
    assert [note for note in result["notes"] if f"chooses {best} by macro_auc" in note]


def test_nothing_is_chosen_where_nothing_was_searched_or_defined() -> None:
    def rows(**values: float | None) -> dict[str, Any]:
        return {name: {"metrics": {"macro_auc": {"value": value}}} for name, value in values.items()}

    assert chosen_on_validation(rows(no_teacher=0.9, multi_stage_fusion=0.8), "macro_auc") == []
    assert chosen_on_validation(rows(multi_stage_fusion=0.8, fusion_logits=None), "macro_auc") == []
    tried = rows(no_teacher=0.95, multi_stage_fusion=0.8, fusion_logits=0.9)
    [note] = chosen_on_validation(tried, "macro_auc")
    assert "chooses fusion_logits" in note and "no_teacher" not in note


def test_rows_of_one_setting_are_one_training(finished: Path) -> None:
    rows = result_of(finished)["rows"]
    assert rows["single_stage"]["metrics"] == rows["t2_a50"]["metrics"]
    assert not (finished / "trials" / "t2_a50").exists()


def test_all_students_of_a_seed_learn_from_one_store(finished: Path, cache: Path) -> None:
    stores = [json.loads((folder / "index.json").read_text())["key"] for folder in cache.glob("targets-*")]
    assert sorted(key["seed"] for key in stores) == [0, 1]
    assert {key["preprocessing"]["size"] for key in stores} == {32}


def test_resumed_ablation_trains_no_finished_row_again(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("model.safetensors")}
    monkeypatch.setattr(trials, "run_trial", lambda *_: pytest.fail("trained again"))
    run_ablation(recipe(), AblationPlan(ROWS, seeds=2), StudyCall(None, finished, resume=True))
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("model.safetensors")} == before


def test_broken_off_ablation_goes_on_and_ends_the_same(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, done = trials.run_trial, []

    def killed(workshop: trials.Workshop, trial: trials.Trial) -> None:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(trial.label)
        original(workshop, trial)

    plan, out = AblationPlan(ROWS, seeds=2), tmp_path / "study"
    with monkeypatch.context() as patch:
        patch.setattr(trials, "run_trial", killed)
        with pytest.raises(KeyboardInterrupt):
            run_ablation(recipe(), plan, StudyCall(None, out))
    assert len(list(out.rglob("trial.json"))) == 3 and not (out / "ablation.json").exists()
    run_ablation(recipe(), plan, StudyCall(None, out, resume=True))
    assert result_of(out)["rows"] == result_of(finished)["rows"]


def test_damaged_predictions_are_made_again(tmp_path: Path) -> None:
    plan, out = AblationPlan((CONTROL,), seeds=1), tmp_path / "study"
    run_ablation(recipe(), plan, StudyCall(None, out))
    kept = result_of(out)
    path = out / "trials" / CONTROL / "seed-0" / "predictions.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    run_ablation(recipe(), plan, StudyCall(None, out, resume=True))
    assert result_of(out)["rows"] == kept["rows"]


def test_teacher_of_another_run_is_taken_where_the_split_is_the_same(finished: Path, tmp_path: Path) -> None:
    plan = AblationPlan(("t1_a50",), seeds=1, teacher=finished)
    run_ablation(recipe("teacher.epochs=9"), plan, StudyCall(None, tmp_path / "study"))
    own, theirs = (folder / "teacher" / "model.safetensors" for folder in (tmp_path / "study", finished))
    assert own.read_bytes() == theirs.read_bytes()
    assert "epochs: 2" in (tmp_path / "study" / "recipe.yaml").read_text()


def test_teacher_of_another_split_is_refused(finished: Path, tmp_path: Path) -> None:
    plan = AblationPlan(("t1_a50",), seeds=1, teacher=finished)
    with pytest.raises(DataError, match="split"):
        run_ablation(recipe("data.seed=1"), plan, StudyCall(None, tmp_path / "study"))


def test_teacher_that_knows_images_prepared_otherwise_is_refused(finished: Path, tmp_path: Path) -> None:
    plan = AblationPlan(("t1_a50",), seeds=1, teacher=finished)
    with pytest.raises(ConfigError, match=r"trained on images prepared as .*squash.*, not .*crop"):
        run_ablation(recipe("data.resize=crop"), plan, StudyCall(None, tmp_path / "study"))


def test_rows_learn_from_several_teachers_and_the_control_from_none(finished: Path, tmp_path: Path) -> None:
    teachers = f"student.distill.other_teachers=[{{run: {finished}, weight: 2}}]"
    plan = AblationPlan(("t1_a50",), seeds=1)
    run_ablation(recipe(teachers, "teacher.epochs=1"), plan, StudyCall(None, tmp_path / "study"))
    logs = {name: tmp_path / "study" / "trials" / name / "seed-0" / "log.jsonl" for name in (CONTROL, "t1_a50")}
    terms = {name: json.loads(log.read_text().splitlines()[0])["terms"] for name, log in logs.items()}
    assert set(terms[CONTROL]) == {"classification"}
    assert set(terms["t1_a50"]) == {"classification", "logits_kd", "logits_kd@2"}


def test_folder_without_a_teacher_is_refused(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_bytes((finished / "recipe.yaml").read_bytes())
    plan = AblationPlan(("t1_a50",), seeds=1, teacher=tmp_path / "run")
    with pytest.raises(ConfigError, match="no trained teacher"):
        run_ablation(recipe(), plan, StudyCall(None, tmp_path / "study"))


def test_resuming_with_another_recipe_is_refused(finished: Path) -> None:
    with pytest.raises(RunFolderError, match=r"student\.epochs"):
        run_ablation(recipe("student.epochs=3"), AblationPlan(ROWS), StudyCall(None, finished, resume=True))


def test_row_that_the_task_cannot_have_is_refused_by_name_and_left_out_of_its_group(tmp_path: Path) -> None:
    by_name = AblationPlan(("logit_std",), seeds=1)
    with pytest.raises(ConfigError, match="two classes"):
        run_ablation(recipe("task=melanoma"), by_name, StudyCall(None, tmp_path / "named"))
    possible, notes = _possible(recipe("task=melanoma"), chosen_rows(("optional",)), ("optional",))
    assert not {"logit_std", "dkd"} & set(possible) and len(notes) == 2
    assert "row logit_std is left out" in notes[0] and not (tmp_path / "named").exists()


@pytest.mark.slow
def test_command_trains_side_by_side(tmp_path: Path, finished: Path, cache: Path) -> None:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    rows = ["--rows", ",".join(ROWS), "--seeds", "2", "--jobs", "2"]
    main = "from dermdistill.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", main, "ablate", "quick", "--out", str(tmp_path / "study"), *rows, *settings],
        env={**os.environ, "DERMDISTILL_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ablation.md" in done.stdout
    assert result_of(tmp_path / "study")["rows"] == result_of(finished)["rows"]
    command = json.loads((tmp_path / "study" / "provenance.json").read_text())["command"]
    assert command.startswith("dermdistill ablate quick --out study") and str(tmp_path) not in command
