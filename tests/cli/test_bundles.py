"""`predict` and `score` with and without a bundle's name; `bundle where`, `install`, `uninstall` and `pack`."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from dermdistill.bundle import shipped
from dermdistill.bundle.decisions import Decisions
from dermdistill.bundle.manifest import CARD_FILE, MANIFEST_FILE, write_manifest
from dermdistill.bundle.variants import FP32_FILE, INT8_FILE
from dermdistill.labels import CODES
from dermdistill.preprocess import PreprocessSpec

SIZE = 16
TRAINING_PACKAGES = (
    "torch", "timm", "torchvision", "pandas", "sklearn", "matplotlib", "pyarrow", "scipy", "onnx", "yaml",
    "simplejpeg", "safetensors", "jinja2", "lightning", "pandera",
)  # fmt: skip
REFUSE = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {TRAINING_PACKAGES!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
"""


def write_model(path: Path, favourite: str) -> None:
    """A network that says the same of every image: the favourite class."""
    bias = np.zeros(len(CODES), dtype=np.float32)
    bias[CODES.index(favourite)] = 3
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(CODES)])
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["colour"], keepdims=0),
        helper.make_node("MatMul", ["colour", "weights"], ["none"]),
        helper.make_node("Add", ["none", "bias"], ["logits"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([2, 3]), "axes"),
        numpy_helper.from_array(np.zeros((3, len(CODES)), dtype=np.float32), "weights"),
        numpy_helper.from_array(bias, "bias"),
    ]
    graph = helper.make_graph(nodes, "favourite", [images], [logits], constants)
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), str(path))


def write_bundle(folder: Path, favourite: str) -> Path:
    folder.mkdir(parents=True)
    write_model(folder / FP32_FILE, favourite)
    write_model(folder / INT8_FILE, favourite)
    (folder / CARD_FILE).write_text("# Model card\n")
    decisions = {"student_int8": Decisions.plain({"at_95_sensitivity": 0.5}, len(CODES))}
    provenance = {"recipe": f"for-{favourite}"}
    write_manifest(folder, task="diagnosis", spec=PreprocessSpec(SIZE), decisions=decisions, provenance=provenance)
    return folder


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's place, empty; a package without a shipped bundle."""
    monkeypatch.delenv(shipped.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setattr(shipped, "PACKAGE", tmp_path / "site-packages" / "dermdistill")
    return tmp_path / "share" / "dermdistill" / "bundle"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder whose bundle calls everything a melanoma."""
    write_bundle(tmp_path / "run" / "bundle", "mel")
    return tmp_path / "run"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "b.png"):
        Image.new("RGB", (20, 30), (200, 120, 100)).save(folder / name)
    return folder


def labels(outcome: Any) -> list[str]:
    assert outcome.status == 0, outcome.err
    return [json.loads(line)["label"] for line in outcome.out.splitlines()]


def told(outcome: Any, *words: str) -> None:
    assert (outcome.status, outcome.out) == (2, ""), outcome
    assert outcome.err.startswith("error: ") and "Next: " in outcome.err
    assert [word for word in words if word not in outcome.err] == []


def test_predict_takes_the_named_bundle_and_says_nothing_of_it(call: Any, run: Path, photos: Path, user: Path) -> None:
    write_bundle(user, "nv")
    outcome = call("predict", run / "bundle", photos / "a.jpg", photos / "b.png", "--json")
    assert labels(outcome) == ["mel", "mel"]
    assert outcome.err == ""


def test_predict_without_a_bundle_takes_the_installed_one_and_says_so(
    call: Any, run: Path, photos: Path, user: Path
) -> None:
    assert call("bundle", "install", run).out == f"installed: {user}\n"
    outcome = call("predict", photos / "a.jpg", photos / "b.png", "--json")
    assert labels(outcome) == ["mel", "mel"]
    assert outcome.err == f"bundle: {user} (installed)\n"
    table = call("predict", photos / "a.jpg")
    assert table.out.splitlines()[1].split()[:2] == [str(photos / "a.jpg"), "mel"]
    assert table.err.splitlines()[0] == outcome.err.strip()


def test_predict_of_images_without_any_bundle_says_how_to_get_one(call: Any, photos: Path) -> None:
    told(call("predict", photos / "a.jpg"), "none is installed", "dermdistill bundle install RUN")


def test_predict_with_a_folder_that_is_no_bundle(call: Any, photos: Path, user: Path) -> None:
    write_bundle(user, "nv")
    told(call("predict", photos, photos / "a.jpg"), f"{photos / MANIFEST_FILE}: cannot be read")
    told(call("predict", photos.parent / "typo", photos / "a.jpg"), "typo/manifest.json: cannot be read")


@pytest.mark.parametrize("kind", ["bundle", "folder"])
def test_predict_without_images_says_so(kind: str, call: Any, run: Path, photos: Path, user: Path) -> None:
    write_bundle(user, "nv")
    outcome = call("predict", run / "bundle" if kind == "bundle" else photos)
    told(outcome, "no image was named", "dermdistill score")


def test_predict_of_a_missing_image_names_the_image(call: Any, photos: Path, user: Path) -> None:
    write_bundle(user, "nv")
    for words in ((photos / "gone.jpg", photos / "a.jpg"), (photos / "gone",)):
        outcome = call("predict", *words)
        assert (outcome.status, outcome.out) == (2, "")
        assert f"{words[0]}: " in outcome.err and f"1 of {len(words)} images" in outcome.err


def test_predict_without_any_word_is_a_usage_error(call: Any) -> None:
    outcome = call("predict")
    assert outcome.status == 2 and "Missing argument '[BUNDLE] IMAGE...'" in outcome.err


def test_score_takes_the_named_bundle_or_the_installed_one(call: Any, run: Path, photos: Path, user: Path) -> None:
    write_bundle(user, "nv")
    named = call("score", run / "bundle", photos, "--out", photos.parent / "named.parquet")
    other = call("score", photos, "--out", photos.parent / "other.parquet")
    assert (named.status, other.status) == (0, 0), named.err + other.err
    assert list(pd.read_parquet(photos.parent / "named.parquet")["label"]) == ["mel", "mel"]
    assert list(pd.read_parquet(photos.parent / "other.parquet")["label"]) == ["nv", "nv"]
    assert f"bundle: {user} (installed)" in other.err and "bundle:" not in named.err


def test_score_with_too_many_or_no_sources_writes_nothing(call: Any, run: Path, photos: Path) -> None:
    out = photos.parent / "out.parquet"
    told(call("score", run / "bundle", "--out", out), "is a bundle, and no images", "score [BUNDLE] SOURCE")
    told(call("score", run / "bundle", photos, photos, "--out", out), "3 names were given")
    told(call("score", photos, photos, "--out", out), f"{photos / MANIFEST_FILE}: cannot be read")
    assert not out.exists()


def test_where_names_place_recipe_and_size(call: Any, run: Path, user: Path, monkeypatch: Any) -> None:
    told(call("bundle", "where"), "none is installed")
    size = sum(path.stat().st_size for path in (run / "bundle").iterdir() if path.name != MANIFEST_FILE)
    call("bundle", "install", run)
    assert call("bundle", "where").out.splitlines() == [
        f"{user}: installed",
        "recipe for-mel, task diagnosis, input 16 x 16 pixels",
        f"MODEL_CARD.md, model.int8.onnx, model.onnx: {size:,} bytes",
    ]
    monkeypatch.setenv("DERMDISTILL_BUNDLE", str(run / "bundle"))
    assert call("bundle", "where").out.splitlines()[0] == f"{run / 'bundle'}: named by DERMDISTILL_BUNDLE"
    (run / "bundle" / CARD_FILE).write_text("# Another card\n")
    told(call("bundle", "where"), "MODEL_CARD.md: ")


def test_uninstall_ends_with_what_was_there_before(call: Any, run: Path, user: Path) -> None:
    call("bundle", "install", run)
    outcome = call("bundle", "uninstall")
    assert (outcome.status, outcome.out) == (0, f"removed: {user}\n")
    assert not user.exists()
    told(call("bundle", "uninstall"), "no bundle is installed there")


def test_install_of_no_bundle_is_told(call: Any, photos: Path, user: Path) -> None:
    told(call("bundle", "install", photos), "neither a bundle nor a run with one")
    assert not user.exists()


def test_pack_writes_a_bundle_that_predicts(call: Any, run: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    packed = call("bundle", "pack", run, "--out", out)
    assert packed.status == 0 and packed.out.startswith(f"{out}: MODEL_CARD.md, model.int8.onnx, ")
    assert not (out / FP32_FILE).exists()
    assert labels(call("predict", out, photos / "a.jpg", "--json")) == ["mel"]
    told(call("bundle", "pack", run, "--out", tmp_path / "none", "--only", "model.tflite"), "no model model.tflite")
    both = ("--only", FP32_FILE, "--only", INT8_FILE)
    assert call("bundle", "pack", run, "--out", tmp_path / "both", *both).status == 0
    assert {FP32_FILE, INT8_FILE} <= {path.name for path in (tmp_path / "both").iterdir()}


def test_help_names_the_commands_of_bundles(call: Any) -> None:
    shown = call("bundle", "--help").out
    assert [name for name in ("verify", "diff", "install", "uninstall", "where", "pack") if name not in shown] == []


def test_plain_package_runs_bundles_without_any_training_package(
    process: Any, run: Path, photos: Path, user: Path, tmp_path: Path
) -> None:
    """A server has none of them: whoever imports one there fails."""
    shutil.copytree(run / "bundle", user)
    for words, said in (
        (("predict", run / "bundle", photos / "a.jpg"), "mel"),
        (("predict", photos / "a.jpg", photos / "b.png", "--json"), '"label": "mel"'),
        (("bundle", "verify", run / "bundle"), "whole"),
        (("bundle", "where"), "installed"),
        (("bundle", "diff", run / "bundle", user), "the same"),
        (("bundle", "pack", run, "--out", tmp_path / "small"), "small"),
    ):
        outcome = process(*words, before=REFUSE)
        assert outcome.status == 0 and said in outcome.out, outcome.err
    told(process("models", before=REFUSE), "needs the package", "pip install 'dermdistill[train]'")


def test_json_on_stdout_stays_clean(process: Any, run: Path, photos: Path, user: Path) -> None:
    shutil.copytree(run / "bundle", user)
    outcome = process("predict", photos / "a.jpg", "--json")
    assert [json.loads(line)["label"] for line in outcome.out.splitlines()] == ["mel"]
    assert outcome.err == f"bundle: {user} (installed)\n"
