"""`dermdistill compare` on small run folders of random predictions: figures, pairs, files, and mistakes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from dermdistill.evaluate.predictions import predictions_frame, write_predictions
from dermdistill.labels import CODES, class_names, encode

MODELS = ("teacher", "student", "student_int8")
Make = Callable[..., Path]


def part(name: str, images: int, first: int = 0) -> pd.DataFrame:
    """Two photographs a lesion, all diagnoses in turn."""
    places = np.arange(first, first + images)
    return pd.DataFrame(
        {
            "image_id": [f"{name}{place:04}" for place in places],
            "lesion_id": [f"{name}L{place // 2:04}" for place in places],
            "diagnosis": [CODES[place // 2 % 7] for place in places],
        }
    )


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes a finished run: ``make("a", seed=1, recipe={"student": {"epochs": 3}})``."""

    def write(
        name: str,
        *,
        seed: int = 0,
        skill: float = 1.5,
        recipe: dict[str, Any] | None = None,
        task: Any = "diagnosis",
        first: int = 0,
        split: dict[str, Any] | None = None,
        evaluation: dict[str, Any] | None = None,
        relabel: int = 0,
    ) -> Path:
        folder = tmp_path / name
        (folder / "evaluation").mkdir(parents=True)
        rng, frames = np.random.default_rng(seed), []
        for split_name, rows in (("val", part("V", 84)), ("test", part("T", 112, first))):
            rows.loc[: relabel - 1, "diagnosis"] = "nv"
            labels = [encode(code, task) for code in rows["diagnosis"]]
            for model in MODELS:
                logits = rng.normal(size=(len(rows), len(class_names(task))))
                logits[np.arange(len(rows)), labels] += skill
                frames.append(predictions_frame(model, split_name, rows, logits, task))
        table = folder / "evaluation" / "predictions.parquet"
        write_predictions(pd.concat(frames, ignore_index=True), table, task=task, protocol="lesion")
        contents = {
            "evaluation/evaluation.json": {
                "task": task,
                "protocol": "lesion",
                "leaky": False,
                "models": {model: {} for model in MODELS},
                "bootstrap": {"samples": 60, "seed": 0},
            }
            | (evaluation or {}),
            "provenance.json": {"seed": seed, "recipe": {"name": "edge"}, "code": {"version": "0.1.0"}},
            "split.json": {"catalog_sha256": "c" * 64, "split_sha256": "d" * 64} | (split or {}),
        }
        for file, content in contents.items():
            (folder / file).write_text(json.dumps(content))
        settings = {"name": "edge", "task": task, "seed": seed, "student": {"epochs": 26}} | (recipe or {})
        (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))
        return folder

    return write


OTHER = {"student": {"epochs": 7}}


def compared(call: Any, folder: Path, *words: object) -> dict[str, Any]:
    outcome = call("compare", *words, "--out", folder)
    assert outcome.status == 0, outcome.err
    result: dict[str, Any] = json.loads((folder / "comparison.json").read_text())
    return result


def test_compare_prints_runs_recipes_figures_and_differences(call: Any, make: Make, tmp_path: Path) -> None:
    make("a"), make("b", skill=0.2, recipe=OTHER)
    outcome = call("compare", tmp_path / "a", tmp_path / "b")
    assert outcome.status == 0, outcome.err
    assert "student.epochs" in outcome.out and "b: Student INT8" in outcome.out and "Macro AUC" in outcome.out
    assert "lower" in outcome.out and "DeLong" in outcome.out
    assert "note: " in outcome.err and {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_compare_out_writes_all_files_and_compares_the_shipped_student_with_that_of_the_first(
    call: Any, make: Make, tmp_path: Path
) -> None:
    folders = [make("a"), make("b", recipe=OTHER), make("c", recipe={"student": {"epochs": 9}})]
    result = compared(call, tmp_path / "out", *folders)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "comparison.json",
        "comparison.md",
        "comparison.html",
    }
    assert list(result["rows"]) == ["a: Student INT8", "b: Student INT8", "c: Student INT8"]
    pairs = {name: list(row["differences"]) for name, row in result["rows"].items()}
    assert pairs == {
        "a: Student INT8": [],
        "b: Student INT8": ["a: Student INT8"],
        "c: Student INT8": ["a: Student INT8"],
    }
    assert result["recipes"] == [{"key": "student.epochs", "values": {"a": 26, "b": 7, "c": 9}}]
    assert result["bootstrap"]["samples"] == 60 and str(tmp_path) not in json.dumps(result)


def spoilt(value: float, images: int = 40) -> dict[str, Any]:
    """The part of an evaluation on spoilt pictures."""
    cells = {name: {"value": value, "low": 0.1, "high": 0.9} for name in ("macro_auc", "balanced_accuracy")}
    groups = {"artefact": {"mean": cells, "drop": {}}, "corruption": {"mean": cells, "drop": {}}}
    return {
        "robustness": {
            "sample": {"images": images, "seed": 0},
            "severities": [1, 2],
            "kinds": {"ink": {"title": "Ink", "group": "artefact"}},
            "models": {"student_int8": {"clean": cells, "groups": groups}},
            "bootstrap": {"level": 0.95},
        }
    }


def test_compare_shows_spoilt_pictures_where_the_runs_spoilt_the_same(call: Any, make: Make, tmp_path: Path) -> None:
    folders = [make("a", evaluation=spoilt(0.5)), make("b", evaluation=spoilt(0.75), recipe=OTHER)]
    block = compared(call, tmp_path / "out", *folders)["robustness"]
    assert (block["images"], [row["run"] for row in block["rows"]]) == (40, ["a", "b"])
    assert block["rows"][1]["groups"]["artefact"]["macro_auc"]["value"] == 0.75
    assert "| b: Student INT8 | .750 (.100-.900) |" in (tmp_path / "out" / "comparison.md").read_text()
    for name, evaluation in (("c", spoilt(0.5, images=41)), ("d", None)):
        other = make(name, evaluation=evaluation, recipe=OTHER)
        assert compared(call, tmp_path / f"out-{name}", folders[0], other)["robustness"] is None


def test_compare_takes_the_models_that_are_named(call: Any, make: Make, tmp_path: Path) -> None:
    folders = [make("a"), make("b", recipe=OTHER)]
    result = compared(call, tmp_path / "out", *folders, "--model", "student", "--model", "teacher")
    pairs = [(name, other) for name, row in result["rows"].items() for other in row["differences"]]
    assert pairs == [("b: Student FP32", "a: Student FP32"), ("b: Teacher", "a: Teacher")]


def test_compare_all_pairs_holds_every_two_models_once(call: Any, make: Make, tmp_path: Path) -> None:
    folders = [make("a"), make("b", recipe=OTHER)]
    result = compared(call, tmp_path / "all", *folders, "--all-pairs")
    pairs = [{name, other} for name, row in result["rows"].items() for other in row["differences"]]
    assert len(result["rows"]) == 6 and len(pairs) == 15 == len({frozenset(pair) for pair in pairs})
    some = compared(call, tmp_path / "some", *folders, "--all-pairs", "--model", "student")
    assert list(some["rows"]["b: Student FP32"]["differences"]) == ["a: Student FP32"] and len(some["rows"]) == 2


def test_compare_makes_one_row_of_runs_that_differ_in_the_seed_alone(call: Any, make: Make, tmp_path: Path) -> None:
    folders = [make("a", seed=0), make("b", seed=0, recipe=OTHER), make("c", seed=1)]
    result = compared(call, tmp_path / "out", *folders)
    together = "edge, 2 seeds (a, c): Student INT8"
    assert list(result["rows"]) == [together, "b: Student INT8"]
    assert result["rows"][together]["seeds"] == [0, 1]
    assert result["rows"]["b: Student INT8"]["paired_seeds"] == {together: [0]}
    assert [run["group"] for run in result["runs"]] == ["edge, 2 seeds (a, c)", "b", "edge, 2 seeds (a, c)"]
    assert any("One recipe, trained with the seeds 0, 1: a, c." in note for note in result["notes"])
    assert [item["key"] for item in result["recipes"]] == ["seed", "student.epochs"]


def test_compare_keeps_a_repeated_run_apart_and_says_so(call: Any, make: Make, tmp_path: Path) -> None:
    make("x/run"), shutil.copytree(tmp_path / "x", tmp_path / "y")
    result = compared(call, tmp_path / "out", tmp_path / "x" / "run", tmp_path / "y" / "run")
    assert list(result["rows"]) == ["run (1): Student INT8", "run (2): Student INT8"] and not result["recipes"]
    cells = result["rows"]["run (2): Student INT8"]["differences"]["run (1): Student INT8"]
    assert {cell["value"] for cell in cells.values()} == {0.0}
    assert any("a seed more than once: run (1), run (2)." in note for note in result["notes"])


def test_compare_notes_another_split_with_the_same_test_part(call: Any, make: Make, tmp_path: Path) -> None:
    folders = [make("a"), make("b", recipe=OTHER, split={"split_sha256": "e" * 64, "leaky": True})]
    notes = compared(call, tmp_path / "out", *folders)["notes"]
    assert any(note.startswith("Another split than a, although the test images are the same: b.") for note in notes)
    assert any(note.startswith("Leaky protocol: b.") for note in notes)
    assert not any("Another catalog" in note for note in notes)


def test_compare_refuses_other_test_images_with_their_number_and_the_hashes(
    call: Any, make: Make, tmp_path: Path
) -> None:
    folders = [make("a"), make("b", first=12, split={"split_sha256": "e" * 64}), make("c", relabel=3)]
    outcome = call("compare", *folders, "--out", tmp_path / "out")
    assert outcome.status == 2 and "Traceback" not in outcome.err and not (tmp_path / "out").exists()
    assert "b: 112 test images, of which 12 are not among the 112 of a; 12 of those are missing, 0 have" in outcome.err
    assert f"split_sha256 {'e' * 12} against {'d' * 12}, the same catalog_sha256" in outcome.err
    assert "c: 112 test images, of which 0 are not among the 112 of a; 0 of those are missing, 3 have" in outcome.err


def test_compare_refuses_another_task(call: Any, make: Make) -> None:
    outcome = call("compare", make("a"), make("b", task="melanoma"))
    assert outcome.status == 2 and "b: its task is melanoma, that of a is diagnosis" in outcome.err


def test_compare_works_for_the_task_melanoma(call: Any, make: Make, tmp_path: Path) -> None:
    folders = [make("a", task="melanoma"), make("b", task="melanoma", recipe=OTHER)]
    assert compared(call, tmp_path / "out", *folders)["n"]["per_class"] == {"rest": 96, "mel": 16}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a"], "1 run"),
        (["a", "a/../a"], "one run is given twice"),
        (["a", "nowhere"], "has no recipe.yaml, provenance.json, split.json"),
        (["a", "b", "--model", "student_int4"], "a lacks student_int4, b lacks student_int4"),
        (["a", "same"], "all runs are one recipe"),
        (["a", "old"], "lacks bootstrap"),
        (["a", "torn"], "cannot be read as Parquet"),
    ],
)
def test_compare_tells_a_mistake_with_status_2(
    call: Any, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    make("a"), make("b", recipe=OTHER), make("same", seed=4), make("old", evaluation={"bootstrap": {}})
    (make("torn") / "evaluation" / "predictions.parquet").write_bytes(b"no table")
    monkeypatch.chdir(tmp_path)
    outcome = call("compare", *words, "--out", "out")
    assert outcome.status == 2 and message in outcome.err and "Traceback" not in outcome.err
    assert "Next: " in outcome.err or "Rule: " in outcome.err
    assert not Path("out").exists()


def test_compare_refuses_a_folder_that_is_not_its_own_before_it_reads_a_run(
    call: Any, make: Make, tmp_path: Path
) -> None:
    folder = make("a")
    outcome = call("compare", folder, "nowhere", "--out", folder)
    assert outcome.status == 2 and "holds other files" in outcome.err and (folder / "recipe.yaml").is_file()
