"""``dermdistill evaluate``: what it prints, its exit status, and what a mistake looks like."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from dermdistill.bundle.decisions import Decisions
from dermdistill.bundle.fingerprints import write_fingerprints
from dermdistill.bundle.manifest import write_manifest
from dermdistill.bundle.variants import INT8_FILE
from dermdistill.pipeline import evaluate_other
from dermdistill.preprocess import PreprocessSpec

Call = Callable[..., Any]


def save(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((48, 36), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No page is drawn: it is not what is looked at here."""
    monkeypatch.setattr(evaluate_other, "_write_report", lambda folder, *_: (folder / "report.html").write_text("page"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 16, 16])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 7])
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["colour"], keepdims=0),
        helper.make_node("MatMul", ["colour", "weights"], ["logits"]),
    ]
    weights = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    constants = [numpy_helper.from_array(np.array([2, 3]), "axes"), numpy_helper.from_array(weights, "weights")]
    graph = helper.make_graph(nodes, "mean colour", [images], [logits], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, str(folder / INT8_FILE))
    path = save(tmp_path / "seen" / "seen.png", 99)
    write_fingerprints(folder, image_ids=["ISIC_0000001"], lesion_ids=["x"], paths=[path], parts=["train"])
    decisions = {"student_int8": Decisions.plain({"youden": 0.2, "at_95_sensitivity": 0.1}, 7)}
    write_manifest(
        folder, task="diagnosis", spec=PreprocessSpec(16), decisions=decisions, provenance={"recipe": "edge"}
    )
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for number in range(12):
        save(tmp_path / "elsewhere" / ("melanoma" if number < 5 else "benign") / f"{number}.png", number)
    return tmp_path / "elsewhere"


def test_evaluate_prints_overlap_before_figures_and_writes_its_folder(
    call: Call, bundle: Path, place: Path, tmp_path: Path
) -> None:
    few = ("--set", "evaluate.bootstrap_samples=50")
    done = call("evaluate", bundle, "--on", place, "--reader", "folder", "--out", tmp_path / "out", *few)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == (
        "overlap with 1 training and 0 validation images, by name, picture and lesion: none of 12 overlaps"
    )
    assert lines[1] == "n = 12 images of 12 lesions (rest 7, mel 5)"
    assert "Melanoma ROC AUC" in lines[2]
    evaluation = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    cell = evaluation["models"]["student_int8"]["melanoma"]["roc_auc"]
    shown = f"{cell['value']:.3f} ({cell['low']:.3f}-{cell['high']:.3f})".replace("0.", ".")
    row = next(line for line in lines if line.strip().startswith("Student INT8"))
    assert shown in row
    assert "not scored: figures over seven diagnoses" in done.err
    assert lines[-1] == f"report: {tmp_path / 'out' / 'report.html'}"
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert provenance["command"] == (
        "dermdistill evaluate bundle --on elsewhere --reader folder --set evaluate.bootstrap_samples=50"
    )
    assert provenance["evaluate"]["bootstrap_samples"] == 50


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("student.epochs=5", "--set student: is no key of this command"),
        ("evaluate.bootstrap=5", "bootstrap_samples"),
        ("evaluate.bootstrap_samples=5", "evaluate cannot work"),
    ],
)
def test_settings_of_anything_but_the_evaluation_are_refused(
    call: Call, bundle: Path, place: Path, tmp_path: Path, setting: str, expected: str
) -> None:
    done = call("evaluate", bundle, "--on", place, "--out", tmp_path / "out", "--set", setting)
    assert done.status == 2
    assert expected in done.err
    assert not (tmp_path / "out").exists()


def test_evaluate_names_its_folder_itself(
    call: Call, bundle: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("evaluate", "bundle", "--on", "elsewhere")
    assert done.status == 0, done.err
    assert (tmp_path / "bundle-on-elsewhere" / "report.html").is_file()
    again = call("evaluate", "bundle", "--on", "elsewhere")
    assert again.status == 2
    assert "bundle-on-elsewhere: is there already" in again.err


def test_overlap_ends_with_status_2_and_can_be_dropped(call: Call, bundle: Path, place: Path, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "seen" / "seen.png", place / "benign" / "again.png")
    save(place / "benign" / "ISIC_0000001.png", 50)
    words = ("evaluate", bundle, "--on", place, "--out", tmp_path / "out")
    done = call(*words)
    assert done.status == 2
    for expected in (
        "bundle has seen 2 of its 14 images",
        "1 carry the name of a training or validation image: ISIC_0000001",
        "1 show a picture of training or validation: again (as ISIC_0000001, distance 0.0000)",
        "Next: --drop-overlap evaluates the rest",
    ):
        assert expected in done.err
    assert done.out == ""
    dropped = call(*words, "--drop-overlap")
    assert dropped.status == 0, dropped.err
    assert "2 of 14 were dropped (1 by name, 1 near copies, 0 by lesion)" in dropped.out.splitlines()[0]


def test_an_unchecked_evaluation_says_so_first(call: Call, bundle: Path, place: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(bundle / INT8_FILE, bare)
    decisions = {"student_int8": Decisions.plain({}, 7)}
    write_manifest(bare, task="diagnosis", spec=PreprocessSpec(16), decisions=decisions, provenance={})
    words = ("evaluate", bare, "--on", place, "--out", tmp_path / "out")
    refused = call(*words)
    assert refused.status == 2
    assert "go on with --unchecked" in refused.err
    done = call(*words, "--unchecked")
    assert done.status == 0, done.err
    assert done.out.startswith("OVERLAP NOT CHECKED")
    assert "not computable" in done.out, "there is no threshold"


def test_without_on_a_bundle_has_nothing_to_say(call: Call, bundle: Path) -> None:
    done = call("evaluate", bundle)
    assert done.status == 2
    assert "is a bundle, and --on names no images" in done.err
    lone = call("evaluate", bundle, "--reader", "ph2", "--unchecked")
    assert lone.status == 2
    assert "--reader, --unchecked without --on" in lone.err


def test_without_on_a_run_shows_its_own_figures(call: Call, bundle: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(bundle, run / "bundle")
    done = call("evaluate", run)
    assert done.status == 2
    assert f"{run / 'evaluation' / 'evaluation.json'}: cannot be read" in done.err
    assert "--resume" in done.err
    cell = {"value": 0.8125, "low": 0.5, "high": 1.0}
    names = ("balanced_accuracy", "macro_auc", "roc_auc", "sensitivity_at_95_sensitivity")
    block = dict.fromkeys(names, cell) | {"specificity_at_95_sensitivity": {"value": None, "low": None, "high": None}}
    content = {
        "task": "diagnosis",
        "n": {"images": 30, "lesions": 21, "per_class": {"mel": 10, "nv": 20}},
        "models": {"student_int8": {"diagnosis": block, "melanoma": block}},
        "notes": [],
    }
    (run / "evaluation").mkdir()
    (run / "evaluation" / "evaluation.json").write_text(json.dumps(content))
    done = call("evaluate", run)
    assert done.status == 0, done.err
    assert "n = 30 images of 21 lesions (mel 10, nv 20)" in done.out
    assert done.out.count(".812 (.500-1.000)") == 4
    assert "not computable" in done.out
    assert done.out.splitlines()[-1] == f"report: {run / 'report.html'}"


@pytest.mark.parametrize(
    ("on", "words"),
    [("nothing", "no such folder"), ("empty", "the folder is empty"), ("text", "no known layout")],
)
def test_a_wrong_place_is_named(call: Call, bundle: Path, tmp_path: Path, on: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.md").write_text("x")
    done = call("evaluate", bundle, "--on", tmp_path / on, "--out", tmp_path / "out")
    assert done.status == 2
    assert words in done.err
    assert str(tmp_path / on) in done.err
    assert not (tmp_path / "out").exists()
