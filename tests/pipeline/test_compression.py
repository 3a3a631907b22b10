"""The stage that makes a bundle, with every export, on drawn lesions."""

import contextlib
import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dermdistill.bundle.fingerprints import SEEN_FILE
from dermdistill.bundle.manifest import CARD_FILE, read_manifest
from dermdistill.bundle.predictor import Predictor
from dermdistill.bundle.variants import VARIANTS
from dermdistill.config import Recipe
from dermdistill.errors import GateError
from dermdistill.pipeline.execute import run_recipe
from dermdistill.recipes.load import load_recipe, recipe_text

SMALL = "[{backbone: small_cnn, options: {widths: [4, 6, 8, 10]}}]"
OPEN = "{macro_auc: 1, balanced_accuracy: 1, same_label: 0}"
SETTINGS = [
    "threads=1",
    "control=false",
    "synthetic.lesions=70",
    "synthetic.width=64",
    "synthetic.height=48",
    "data.size=32",
    f"teacher.model.branches={SMALL}",
    f"student.model.branches={SMALL}",
    "teacher.epochs=1",
    "student.epochs=2",
    "teacher.batch_size=16",
    "student.batch_size=16",
    "evaluate.bootstrap_samples=50",
    "evaluate.latency_repeats=5",
    "evaluate.permutations=50",
    "evaluate.robustness_images=4",
    "evaluate.not_skin_images=12",
    "explain.correct=1",
    "explain.wrong=1",
    "explain.methods=[grad_cam]",
    "explain.scored_images=0",
    "compress.calibration_images=16",
    "compress.sensitivity_images=4",
]


def _recipe(*more: str) -> Recipe:
    return load_recipe("quick", [*SETTINGS, *more])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("compression")
    deterministic = torch.are_deterministic_algorithms_enabled()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("DERMDISTILL_CACHE", str(folder / "cache"))
        warnings.simplefilter("default")
        recipe = _recipe("compress.qat_epochs=1", f"compress.gate={OPEN}")
        run_recipe(recipe, source=None, out=folder / "run")
        yield folder / "run"
    torch.use_deterministic_algorithms(deterministic)


def test_every_file_is_made_measured_and_told_from_comparisons(run: Path) -> None:
    record = json.loads((run / "compression" / "compression.json").read_text())
    manifest = read_manifest(run / "bundle")
    assert set(manifest.files) == {variant.file for variant in VARIANTS.values()} | {CARD_FILE, SEEN_FILE}
    assert set(VARIANTS) < set(record["files"])
    others = set(record["files"]) - set(VARIANTS)
    assert others in (
        {"dynamic", "aware", "aware_executorch"},
        {"dynamic", "static", "static_executorch"},
    )
    assert set(manifest.decisions) == set(VARIANTS)
    for name, entry in record["files"].items():
        assert entry["shipped"] == (name in VARIANTS)
        folder = run / ("bundle" if entry["shipped"] else "compression")
        assert (folder / entry["file"]).stat().st_size == entry["bytes"]
        assert entry["n"] == len(pd.read_csv(run / "split.csv").query("split == 'test'"))
    for name in ("student", "student_executorch"):
        assert record["files"][name]["logits"]["largest"] < 1e-3
        assert record["files"][name]["same_label"] == 1.0
    assert record["choices"]["int8"] in ("static", "aware")


def test_shipped_int8_is_the_better_one_on_validation(run: Path) -> None:
    choices = json.loads((run / "compression" / "compression.json").read_text())["choices"]
    figures = {how: found["macro_auc"] for how, found in choices["int8_on_validation"].items()}
    assert set(figures) == {"static", "aware"}
    assert figures[choices["int8"]] == max(figures.values())


def test_evaluation_and_predictor_agree_with_the_record(run: Path) -> None:
    record = json.loads((run / "compression" / "compression.json").read_text())
    evaluation = json.loads((run / "evaluation" / "evaluation.json").read_text())
    for name in ("student", "student_int8"):
        accuracy = evaluation["models"][name]["diagnosis"]["accuracy"]["value"]
        assert record["files"][name]["metrics"]["accuracy"] == pytest.approx(accuracy)
        assert read_manifest(run / "bundle").decisions[name].thresholds == evaluation["models"][name]["thresholds"]
    saved = pd.read_parquet(run / "evaluation" / "predictions.parquet")
    rows = saved[(saved["model"] == "student_int8") & (saved["split"] == "test")].set_index("image_id")
    catalog = pd.read_parquet(run / "catalog.parquet").set_index("image_id")
    paths = catalog.loc[rows.index, "path"].tolist()
    found = Predictor(run / "bundle").predict(paths)
    for prediction, (_, row) in zip(found, rows.iterrows(), strict=True):
        for code, value in prediction.probs.items():
            assert value == pytest.approx(row[f"prob_{code}"], abs=1e-6)


def test_gate_stops_the_run_keeps_the_record_and_leaves_no_bundle(run: Path, tmp_path: Path) -> None:
    """One kilobyte is too little for any INT8 file."""
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    before = read_manifest(folder / "bundle")
    recipe = _recipe("compress.qat_epochs=1", "compress.max_megabytes=0.001", f"compress.gate={OPEN}")
    (folder / "recipe.yaml").write_text(recipe_text(recipe))
    with pytest.raises(GateError, match=r"student_int8 \(.*\): has [\d,]+ bytes, at most 1,000") as caught:
        run_recipe(recipe, source=None, out=folder, resume=True)
    assert "its error grows most at " in str(caught.value)
    assert "student_int8_executorch" in str(caught.value)
    assert "student (" not in str(caught.value)
    assert read_manifest(folder / "bundle") == before, "the old bundle stands, whole"
    record = json.loads((folder / "compression" / "compression.json").read_text())
    assert record["files"]["student_int8"]["faults"]
    assert not [item for item in folder.iterdir() if item.name.startswith(".bundle")]


def test_layers_stay_in_float_where_the_gate_asks_for_it(run: Path, tmp_path: Path) -> None:
    """A gate that INT8 cannot pass on validation: one layer after the other is left in float."""
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    settings = ("compress.float_layers=2", "compress.qat_epochs=0", "compress.mobile=false")
    recipe = _recipe(*settings, "compress.gate={macro_auc: 0, balanced_accuracy: 0, same_label: 1}")
    (folder / "recipe.yaml").write_text(recipe_text(recipe))
    with contextlib.suppress(GateError):
        run_recipe(recipe, source=None, out=folder, resume=True)
    choices = json.loads((folder / "compression" / "compression.json").read_text())["choices"]
    tried = choices["float_layers_tried"]
    ranked = [item["layer"] for item in choices["sensitivity"]]
    assert [len(one["float_layers"]) for one in tried] == list(range(len(tried)))
    assert all(one["float_layers"] == ranked[: len(one["float_layers"])] for one in tried)
    assert choices["float_layers"] in [one["float_layers"] for one in tried]
    passed = [one for one in tried if one["same_label"] == 1.0 and not _fell(one)]
    assert choices["float_layers"] == passed[0]["float_layers"] if passed else len(tried) == 3
    assert np.all(np.diff([item["decibels"] for item in choices["sensitivity"]]) >= 0)


def _fell(one: dict[str, object]) -> bool:
    differences = one["differences"]
    assert isinstance(differences, dict)
    return any((differences[name] or 0.0) < 0 for name in ("macro_auc", "balanced_accuracy"))
