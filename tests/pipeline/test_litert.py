"""``dermdistill bundle litert`` on a small trained run."""

import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from dermdistill.bundle.predictor import softmax
from dermdistill.cli.main import main
from dermdistill.compress.litert_runtime import PACKAGES, LiteRTClassifier
from dermdistill.evaluate import metrics
from dermdistill.pipeline.context import Context
from dermdistill.pipeline.execute import keep_recipe, run_stages
from dermdistill.pipeline.litert import _context
from dermdistill.recipes.load import load_recipe
from dermdistill.run import RunFolder
from dermdistill.training.roles import load_trained, train_role
from dermdistill.training.validation import predict_logits

SETTINGS = [
    "threads=1",
    "synthetic.lesions=60",
    "synthetic.width=64",
    "synthetic.height=48",
    "data.size=32",
    "student.model.branches=[{backbone: small_cnn, options: {widths: [8, 16, 32, 64]}}]",
    "student.epochs=1",
    "compress.calibration_images=16",
]


@pytest.fixture(scope="module")
def packages() -> None:
    for name in PACKAGES:
        pytest.importorskip(name, reason=f"LITERT MISSING: {name} needs an environment of its own; run `make litert`")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERMDISTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def run(packages: None, tmp_path: Path) -> Path:
    """A run folder as far as its student."""
    path = tmp_path / "run"
    recipe = load_recipe("quick", SETTINGS)
    with RunFolder(path).opened(resume=False) as folder:
        keep_recipe(recipe, path)
        context = Context(recipe, folder, None)
        run_stages(context, ("catalog", "split"), Console(file=io.StringIO()))
        alone = recipe.model_copy(update={"student": recipe.student.alone()})
        train_role("student", alone, context.training_data(context.spec), folder=path / "student", inputs="")
    return path


def _call(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["dermdistill", "bundle", "litert", *map(str, words)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _hashes(folder: Path) -> dict[Path, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_command_writes_both_files_and_what_they_lost_on_the_test_part(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, out = _hashes(run), tmp_path / "phone"
    assert _call(monkeypatch, run, "--out", out) == 0
    assert _hashes(run) == before
    assert sorted(path.name for path in out.iterdir()) == ["litert.json", "model.int8.tflite", "model.tflite"]
    result = json.loads((out / "litert.json").read_text())
    assert str(tmp_path) not in json.dumps(result)
    context = _context(run)
    rows = context.rows("test")
    labels = context.training_data(context.spec).labels[rows]
    model = load_trained(run / "student").deployed()
    expected = predict_logits(model, context.store.images, rows, context.spec)
    for name, facts in result["files"].items():
        logits = LiteRTClassifier(out / name, context.spec).logits(context.store.images[rows])
        gaps = np.abs(softmax(logits).astype(np.float64) - softmax(expected))
        assert facts["bytes"] == (out / name).stat().st_size
        assert facts["same_label"] == np.mean(logits.argmax(axis=1) == expected.argmax(axis=1))
        assert facts["probabilities"]["largest"] == pytest.approx(gaps.max(), abs=1e-6)
        auc = metrics.macro_auc(labels, softmax(logits).astype(np.float64))
        assert facts["metrics"]["macro_auc"] == pytest.approx(float(auc), abs=1e-6)
    assert result["files"]["model.tflite"]["faults"] == []
    fp32, int8 = (result["files"][name] for name in ("model.tflite", "model.int8.tflite"))
    assert fp32["same_label"] == 1.0 and fp32["probabilities"]["largest"] < 1e-4
    assert int8["probabilities"]["largest"] > fp32["probabilities"]["largest"]
    assert result["quantization"]["calibration_images"] == 16
    assert set(result["packages"]) == {"litert-torch", "ai-edge-quantizer", "ai-edge-litert"}
    shown = capsys.readouterr().out
    assert f"{int8['bytes']:,} bytes" in shown and f"{int8['same_label']:.2%} of {len(rows)} test images" in shown


def test_folder_without_a_run_is_refused_and_nothing_written(
    packages: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _call(monkeypatch, tmp_path, "--out", tmp_path / "phone") == 2
    assert "holds no run" in capsys.readouterr().err
    assert not (tmp_path / "phone").exists()


def test_without_its_packages_the_command_ends_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    for name in PACKAGES[:2]:
        monkeypatch.setitem(sys.modules, name, None)
    assert _call(monkeypatch, tmp_path, "--out", tmp_path / "phone") == 2
    assert "make litert" in capsys.readouterr().err
    assert not (tmp_path / "phone").exists()
