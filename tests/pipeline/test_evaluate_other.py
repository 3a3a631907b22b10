"""A bundle and a run on images from elsewhere: answers against numpy, overlap, what is written, what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from scipy.special import softmax

from dermdistill.bundle.decisions import POINTS, Calibration, Decisions
from dermdistill.bundle.fingerprints import SEEN_FILE, write_fingerprints
from dermdistill.bundle.image_gate import ImageGate, fit_gate
from dermdistill.bundle.manifest import write_manifest
from dermdistill.bundle.variants import FP32_FILE, INT8_FILE
from dermdistill.config import DataConfig, EvaluateConfig
from dermdistill.data.catalog import write_catalog
from dermdistill.data.readers import read_catalog
from dermdistill.data.split import make_split, write_split
from dermdistill.errors import BundleError, ConfigError, DataError
from dermdistill.evaluate.predictions import predictions_frame
from dermdistill.labels import CODES
from dermdistill.pipeline import evaluate_other as pipeline
from dermdistill.pipeline.evaluate_other import evaluate_other
from dermdistill.pipeline.model_source import read_source, what_was_seen
from dermdistill.preprocess import PreprocessSpec, normalise, resize_image
from dermdistill.recipes.load import load_recipe

SPEC = PreprocessSpec(24)
CONFIG = EvaluateConfig(bootstrap_samples=50, permutations=50, robustness_images=0, not_skin_images=0)
DECISIONS = Decisions(Calibration("temperature", (0.7,) * 7, (0.0,) * 7), {"youden": 0.2, "at_95_sensitivity": 0.15})
NAMES = {"mel": "melanoma", "nv": "nevus"}
WRITE_REPORT = pipeline._write_report
Weights = np.ndarray


def weights_of(seed: int) -> Weights:
    return np.random.default_rng(seed).normal(size=(3, 7)).astype(np.float32)


def write_model(path: Path, weights: Weights, size: int = SPEC.size) -> None:
    """Mean colour times weights: logits that numpy can check."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, size, size])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 7])
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["colour"], keepdims=0),
        helper.make_node("MatMul", ["colour", "weights"], ["logits"]),
    ]
    constants = [numpy_helper.from_array(np.array([2, 3]), "axes"), numpy_helper.from_array(weights, "weights")]
    graph = helper.make_graph(nodes, "mean colour", [images], [logits], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))


def photo(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((48, 36), Image.Resampling.BICUBIC)
    return np.asarray(coarse)


def write_images(root: Path, classes: dict[str, int], first: int = 0) -> Path:
    seed = first
    for name, count in classes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            Image.fromarray(photo(seed)).save(root / name / f"photo_{seed}.png")
            seed += 1
    return root


def write_bundle(folder: Path, training: Path | None, gate: ImageGate | None = None) -> Path:
    folder.mkdir(parents=True)
    write_model(folder / FP32_FILE, weights_of(0))
    write_model(folder / INT8_FILE, weights_of(1))
    if training is not None:
        catalog = read_catalog(training, "folder")
        parts = ["train" if index % 4 else "val" for index in range(len(catalog))]
        paths = [Path(path) for path in catalog["path"]]
        write_fingerprints(
            folder,
            image_ids=catalog["image_id"].tolist(),
            lesion_ids=catalog["lesion_id"].tolist(),
            paths=paths,
            parts=parts,
        )
    names = {"student": DECISIONS, "student_int8": DECISIONS}
    write_manifest(folder, task="diagnosis", spec=SPEC, decisions=names, provenance={"recipe": "edge"}, gate=gate)
    return folder


@pytest.fixture(autouse=True)
def _no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing a page takes longer than all else; one test has it drawn."""
    monkeypatch.setattr(pipeline, "_write_report", lambda *_: None)


@pytest.fixture
def training(tmp_path: Path) -> Path:
    return write_images(tmp_path / "training", dict.fromkeys(CODES, 12), first=1000)


@pytest.fixture
def bundle(tmp_path: Path, training: Path) -> Path:
    return write_bundle(tmp_path / "bundle", training)


@pytest.fixture
def run(tmp_path: Path, training: Path) -> Path:
    """What an evaluation reads of a finished run: its bundle, teacher, data and stored answers on validation."""
    folder = tmp_path / "run"
    write_bundle(folder / "bundle", None)
    write_model(folder / "teacher" / "model.onnx", weights_of(2), size=32)
    catalog = read_catalog(training, "folder")
    write_catalog(catalog, folder / "catalog.parquet")
    split = make_split(catalog, DataConfig(size=24))
    write_split(split, folder)
    recipe = load_recipe("quick", ["data.size=24", "teacher.size=32"])
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    rows = catalog.set_index("image_id", drop=False).loc[split.ids("val")]
    rng = np.random.default_rng(0)
    answers = predictions_frame("teacher", "val", rows, rng.normal(size=(len(rows), 7)), "diagnosis")
    (folder / "evaluation").mkdir()
    answers.to_parquet(folder / "evaluation" / "predictions.parquet")
    return folder


def read(folder: Path) -> tuple[dict, dict, pd.DataFrame]:
    files = [json.loads((folder / name).read_text()) for name in ("evaluation.json", "provenance.json")]
    return files[0], files[1], pd.read_parquet(folder / "predictions.parquet")


def test_a_bundle_on_all_seven_diagnoses(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_write_report", WRITE_REPORT)
    place = write_images(tmp_path / "elsewhere", dict.fromkeys(CODES, 4))
    result = evaluate_other(bundle, place, out=tmp_path / "out", config=CONFIG, command="dermdistill evaluate b")
    evaluation, provenance, rows = read(tmp_path / "out")
    assert evaluation == json.loads(json.dumps(result))
    names = {"cases", "evaluation.json", "predictions.parquet", "provenance.json", "report.html"}
    assert {item.name for item in (tmp_path / "out").iterdir()} == names
    assert evaluation["n"]["images"] == 28
    assert list(evaluation["models"]) == ["student", "student_int8"]
    assert evaluation["task"] == "diagnosis"
    assert evaluation["overlap"]["dropped"] == 0
    assert evaluation["notes"][0].startswith("overlap with 63 training and 21 validation images")
    assert "none of 28 overlaps" in evaluation["notes"][0]
    for model, seed in (("student", 0), ("student_int8", 1)):
        own = rows[rows["model"] == model].set_index("image_id")
        for number in (0, 13, 27):
            inputs = normalise(resize_image(photo(number), SPEC)[None], SPEC)
            expected = softmax(inputs.mean(axis=(2, 3)) @ weights_of(seed), axis=1)[0]
            found = own.loc[f"photo_{number}", [f"prob_{code}" for code in CODES]].to_numpy(dtype=float)
            assert np.allclose(found, expected, atol=1e-5)
        accuracy = (own[[f"prob_{code}" for code in CODES]].to_numpy().argmax(axis=1) == own["label"]).mean()
        assert evaluation["models"][model]["diagnosis"]["accuracy"]["value"] == pytest.approx(accuracy)
        given = {point: DECISIONS.thresholds.get(point) for point in POINTS}
        assert evaluation["models"][model]["thresholds"] == given
    assert provenance["data"]["source"] == "elsewhere"
    assert provenance["command"] == "dermdistill evaluate b"
    assert str(tmp_path) not in json.dumps([evaluation, provenance])


def test_pictures_give_the_evidence_of_a_run_too(tmp_path: Path, training: Path) -> None:
    """Who is failed, what breaks the models, and what they should not answer, on the images that are evaluated."""
    known = np.stack([resize_image(photo(seed), SPEC) for seed in range(1000, 1060)])
    bundle = write_bundle(tmp_path / "with_gate", training, fit_gate(known[:40], known[40:]))
    place = write_images(tmp_path / "elsewhere", dict.fromkeys(CODES, 3))
    config = CONFIG.model_copy(update={"robustness_images": 7, "not_skin_images": 12})
    evaluation = evaluate_other(bundle, place, out=tmp_path / "out", config=config)
    assert evaluation["robustness"]["sample"]["images"] == 7
    assert list(evaluation["robustness"]["models"]) == ["student", "student_int8"]
    gate = ImageGate.from_dict(json.loads((bundle / "manifest.json").read_text())["gate"])
    shown = np.stack([resize_image(photo(seed), SPEC) for seed in range(21)])
    assert evaluation["gate"]["clean"]["any"]["flagged"] == sum(map(bool, gate.check(shown)))
    assert evaluation["gate"]["n"] == {"images": 21, "lesions": 21, "not_skin": 12}
    assert list(evaluation["subgroups"]["models"]) == ["student", "student_int8"]


def test_partial_labels_are_scored_by_melanoma_alone(tmp_path: Path, bundle: Path) -> None:
    place = write_images(tmp_path / "elsewhere", {"melanoma": 6, "nevus": 9, "benign": 7, "SCC": 3})
    evaluation = evaluate_other(bundle, place, reader="folder", out=tmp_path / "out", config=CONFIG)
    rows = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert evaluation["task"] == "melanoma"
    assert evaluation["n"]["per_class"] == {"rest": 16, "mel": 6}
    assert evaluation["source"]["left_out"] == 3
    assert set(evaluation["called"]["student"]) == {"mel", "nv"}
    assert any(line.startswith("not scored: figures over seven") for line in evaluation["notes"])
    assert any("3 of 'scc'" in line for line in evaluation["notes"])
    assert any(line.startswith("mel: n = 6 in the test part, ten or fewer") for line in evaluation["notes"])
    assert rows["label"].value_counts().to_dict() == {-1: 14, 4: 12, 5: 18}
    own = rows[rows["model"] == "student"]
    scores = DECISIONS.calibration.apply(own[[f"prob_{code}" for code in CODES]].to_numpy(dtype=float))[:, 4]
    called = (scores >= 0.15)[own["diagnosis"] == "mel"].mean()
    figure = evaluation["models"]["student"]["melanoma"]["sensitivity_at_95_sensitivity"]
    assert figure["value"] == pytest.approx(called)
    assert "subgroups" in evaluation and not {"robustness", "gate"} & set(evaluation)


def test_overlap_is_refused_and_named_before_anything_is_written(tmp_path: Path, bundle: Path, training: Path) -> None:
    place = write_images(tmp_path / "elsewhere", {"melanoma": 4, "nevus": 5})
    seen = Image.open(training / "nv" / f"photo_{1000 + 12 * 5}.png")
    seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(place / "nevus" / "mine.jpg", quality=80)
    with pytest.raises(DataError) as caught:
        evaluate_other(bundle, place, out=tmp_path / "out", config=CONFIG)
    assert "bundle has seen 1 of its 10 images" in caught.value.problem
    assert caught.value.faults[0].startswith("1 show a picture of training or validation: mine (distance 0.0")
    assert "--drop-overlap" in caught.value.next_step
    assert not (tmp_path / "out").exists()
    result = evaluate_other(bundle, place, out=tmp_path / "out", drop_overlap=True, config=CONFIG)
    assert (result["n"]["images"], result["overlap"]["dropped"], result["overlap"]["near_copies"]) == (9, 1, 1)
    assert "1 of 10 were dropped (0 by name, 1 near copies, 0 by lesion)" in result["notes"][0]
    assert "mine" not in set(pd.read_parquet(tmp_path / "out" / "predictions.parquet")["image_id"])


def test_a_set_that_was_seen_as_a_whole_leaves_nothing(tmp_path: Path, bundle: Path, training: Path) -> None:
    with pytest.raises(DataError, match="has seen all 84 images; none is left"):
        evaluate_other(bundle, training, out=tmp_path / "out", drop_overlap=True, config=CONFIG)


def test_a_bundle_that_does_not_say_what_it_saw_needs_a_word(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", None)
    place = write_images(tmp_path / "elsewhere", {"melanoma": 3, "nevus": 3})
    with pytest.raises(BundleError, match=rf"cannot be checked(.|\n)*{SEEN_FILE}(.|\n)*--unchecked"):
        evaluate_other(bundle, place, out=tmp_path / "out", config=CONFIG)
    result = evaluate_other(bundle, place, out=tmp_path / "out", unchecked=True, config=CONFIG)
    assert result["overlap"] == {"checked": False, "dropped": 0}
    assert result["notes"][0].startswith("OVERLAP NOT CHECKED")


def test_unchecked_does_not_hide_an_overlap_that_can_be_checked(tmp_path: Path, bundle: Path, training: Path) -> None:
    with pytest.raises(DataError, match="has seen 84 of its 84 images"):
        evaluate_other(bundle, training, out=tmp_path / "out", unchecked=True, config=CONFIG)


def test_a_run_brings_its_teacher_and_its_own_data(tmp_path: Path, run: Path, training: Path) -> None:
    place = write_images(tmp_path / "elsewhere", dict.fromkeys(CODES, 3))
    result = evaluate_other(run, place, out=tmp_path / "out", config=CONFIG)
    assert list(result["models"]) == ["teacher", "student", "student_int8"]
    assert result["source"]["run"] == "run"
    rows = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    spec = PreprocessSpec(32)
    inputs = normalise(resize_image(photo(5), spec)[None], spec)
    expected = softmax(inputs.mean(axis=(2, 3)) @ weights_of(2), axis=1)[0]
    own = rows[(rows["model"] == "teacher") & (rows["image_id"] == "photo_5")]
    assert np.allclose(own[[f"prob_{code}" for code in CODES]].to_numpy()[0], expected, atol=1e-5)
    seen = what_was_seen(read_source(run))
    assert seen is not None
    split = pd.read_csv(run / "split.csv")
    assert len(seen.codes) == (split["split"] != "test").sum()
    assert seen.parts.count("val") == (split["split"] == "val").sum()


def test_the_test_part_of_a_run_is_left_of_its_own_data(tmp_path: Path, run: Path, training: Path) -> None:
    result = evaluate_other(run, training, out=tmp_path / "out", drop_overlap=True, config=CONFIG)
    split = pd.read_csv(run / "split.csv")
    test = set(split["image_id"][split["split"] == "test"])
    assert set(pd.read_parquet(tmp_path / "out" / "predictions.parquet")["image_id"]) == test
    assert result["overlap"]["near_copies"] == result["overlap"]["dropped"] == len(split) - len(test)


def test_a_run_whose_images_are_gone_cannot_be_checked(tmp_path: Path, run: Path, training: Path) -> None:
    shutil.move(training, tmp_path / "away")
    place = write_images(tmp_path / "elsewhere", {"melanoma": 3, "nevus": 3})
    with pytest.raises(DataError, match=r"run: what its models have seen cannot be read(.|\n)*--unchecked"):
        evaluate_other(run, place, out=tmp_path / "out", config=CONFIG)
    assert evaluate_other(run, place, out=tmp_path / "out", unchecked=True, config=CONFIG)["overlap"]["dropped"] == 0


def test_what_cannot_work_is_told_first(tmp_path: Path, bundle: Path) -> None:
    place = write_images(tmp_path / "elsewhere", {"melanoma": 3, "nevus": 3})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="full: is there already"):
        evaluate_other(bundle, place, out=tmp_path / "full", config=CONFIG)
    assert (tmp_path / "full" / "thesis.tex").exists()
    with pytest.raises(BundleError, match="is neither a bundle nor a run"):
        evaluate_other(place, place, out=tmp_path / "out", config=CONFIG)
    with pytest.raises(DataError, match=r"tables PH2_dataset\.txt found: none"):
        evaluate_other(bundle, place, reader="ph2", out=tmp_path / "out", config=CONFIG)
    (place / "nevus" / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1 of 7 images cannot be read(.|\n)*broken: .*broken.jpg"):
        evaluate_other(bundle, place, out=tmp_path / "out", config=CONFIG)
    (bundle / INT8_FILE).write_bytes(b"changed")
    with pytest.raises(BundleError, match="bytes"):
        evaluate_other(bundle, place, out=tmp_path / "out", config=CONFIG)
    assert not (tmp_path / "out").exists()


def test_nothing_stays_where_the_report_fails(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(pipeline, "_write_report", fail)
    place = write_images(tmp_path / "elsewhere", {"melanoma": 3, "nevus": 3})
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RuntimeError, match="no ink"):
        evaluate_other(bundle, place, out=tmp_path / "out", config=CONFIG)
    assert sorted(tmp_path.iterdir()) == before
