import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from scipy.special import softmax as scipy_softmax

from dermdistill.bundle.decisions import Decisions
from dermdistill.bundle.latency import latency_ms
from dermdistill.bundle.manifest import write_manifest
from dermdistill.bundle.predictor import OnnxClassifier, Predictor, decide, softmax
from dermdistill.bundle.variants import FP32_FILE, INT8_FILE
from dermdistill.errors import BundleError, ConfigError, DataError
from dermdistill.labels import CODES, Task, class_names
from dermdistill.pictures import PictureError
from dermdistill.preprocess import PreprocessSpec, normalise, resize_image

SPEC = PreprocessSpec(24)
TRAINING_PACKAGES = ("torch", "timm", "torchvision", "pandas", "sklearn", "matplotlib", "onnx")


def _weights(classes: int, seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(3, classes)).astype(np.float32)


def _write_model(
    path: Path, weights: npt.NDArray[np.float32], size: int = SPEC.size, *, sees_place: bool = False
) -> None:
    """Mean colour times ``weights``, logits that numpy can check; on request of the first quarter alone."""
    classes = weights.shape[1]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, size, size])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])
    nodes = [
        helper.make_node("Slice", ["images", "start", "end", "axes"], ["part"]),
        helper.make_node("ReduceMean", ["part", "axes"], ["colour"], keepdims=0),
        helper.make_node("MatMul", ["colour", "weights"], ["logits"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([2, 3]), "axes"),
        numpy_helper.from_array(np.array([0, 0]), "start"),
        numpy_helper.from_array(np.array([size // 2 if sees_place else size] * 2), "end"),
        numpy_helper.from_array(weights, "weights"),
    ]
    graph = helper.make_graph(nodes, "mean colour", [images], [logits], constants)
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), str(path))


def _write_bundle(
    folder: Path,
    *,
    task: Task = "diagnosis",
    student: float | None = 0.0,
    int8: float | None = 1.0,
    sees_place: bool = False,
) -> Path:
    folder.mkdir(exist_ok=True)
    classes = len(class_names(task))
    _write_model(folder / FP32_FILE, _weights(classes, 0))
    _write_model(folder / INT8_FILE, _weights(classes, 1), sees_place=sees_place)
    decisions = {
        name: Decisions.plain({"at_95_sensitivity": threshold}, classes)
        for name, threshold in (("student", student), ("student_int8", int8))
    }
    write_manifest(folder, task=task, spec=SPEC, decisions=decisions, provenance={})
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return _write_bundle(tmp_path / "bundle")


def _photos(count: int, seed: int = 0) -> list[npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    return [
        np.clip(rng.integers(0, 256, 3) + rng.normal(0, 9, (int(h), int(w), 3)), 0, 255).astype(np.uint8)
        for h, w in rng.integers(20, 60, (count, 2))
    ]


def _expected(photos: list[npt.NDArray[np.uint8]], weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    inputs = normalise(np.stack([resize_image(photo, SPEC) for photo in photos]), SPEC)
    probs: npt.NDArray[np.float64] = scipy_softmax(inputs.mean(axis=(2, 3), dtype=np.float64) @ weights, axis=1)
    return probs


@pytest.mark.parametrize(("int8", "seed"), [(True, 1), (False, 0)])
def test_predict_agrees_with_numpy(bundle: Path, int8: bool, seed: int) -> None:
    photos = _photos(5)
    expected = _expected(photos, _weights(7, seed))
    predictions = Predictor(bundle, int8=int8).predict(photos)
    for prediction, row in zip(predictions, expected, strict=True):
        assert list(prediction.probs) == list(CODES)
        assert list(prediction.probs.values()) == pytest.approx(row, abs=1e-5)
        assert prediction.label == CODES[int(row.argmax())]
        assert prediction.melanoma_probability == prediction.probs["mel"]


def test_each_model_decides_by_its_own_threshold(bundle: Path) -> None:
    photos = _photos(3)
    assert {p.decision for p in Predictor(bundle, int8=False).predict(photos)} == {"refer"}
    assert {p.decision for p in Predictor(bundle, int8=True).predict(photos)} == {"no_referral"}


def test_threshold_is_reached_by_an_equal_probability() -> None:
    probability = float(np.float32(0.1))
    assert decide(probability, probability) == "refer"
    assert decide(float(np.nextafter(probability, 0)), probability) == "no_referral"
    assert decide(1.0, None) == "no_threshold"


def test_melanoma_task_has_two_classes_and_may_lack_a_threshold(tmp_path: Path) -> None:
    (prediction,) = Predictor(_write_bundle(tmp_path / "b", task="melanoma", int8=None)).predict(_photos(1))
    assert list(prediction.probs) == ["rest", "mel"]
    assert prediction.melanoma_probability == prediction.probs["mel"]
    assert prediction.decision == "no_threshold"


def test_files_and_arrays_give_the_same_prediction(bundle: Path, tmp_path: Path) -> None:
    photo = _photos(1)[0]
    grey = np.repeat(photo[..., :1], 3, axis=2)
    Image.fromarray(photo).save(tmp_path / "a.png")
    Image.fromarray(grey[..., 0]).save(tmp_path / "grey.png")
    predictor = Predictor(bundle)
    from_files = predictor.predict([tmp_path / "a.png", str(tmp_path / "grey.png")])
    assert from_files == predictor.predict([photo, grey])


def test_bytes_give_the_prediction_of_their_file(bundle: Path, tmp_path: Path) -> None:
    Image.fromarray(_photos(1)[0]).save(tmp_path / "a.jpg")
    predictor = Predictor(bundle)
    assert predictor.predict([(tmp_path / "a.jpg").read_bytes()]) == predictor.predict([tmp_path / "a.jpg"])


def test_predict_each_goes_on_after_a_bad_image(bundle: Path) -> None:
    photos, predictor = _photos(3), Predictor(bundle)
    first, fault, second = predictor.predict_each([photos[0], b"no image", photos[1]])
    assert [first, second] == predictor.predict(photos[:2])
    assert isinstance(fault, PictureError) and fault.reason == "not_an_image"
    assert predictor.predict_each([b""])[0].reason == "empty"  # type: ignore[union-attr]


def test_flips_average_the_four_reflections_and_decide_nothing(tmp_path: Path) -> None:
    bundle = _write_bundle(tmp_path / "bundle", sees_place=True)
    photo, predictor = _photos(1)[0], Predictor(bundle)
    views = [photo, photo[::-1], photo[:, ::-1], photo[::-1, ::-1]]
    plain = predictor.predict([np.ascontiguousarray(view) for view in views])
    (flipped,) = predictor.predict([photo], flips=True)
    mean = np.mean([list(one.probs.values()) for one in plain], axis=0)
    assert list(flipped.probs.values()) == pytest.approx(mean, abs=1e-6)
    assert len({one.melanoma_probability for one in plain}) == 4
    assert flipped.decision == "no_threshold" and plain[0].decision != "no_threshold"


def test_predict_of_nothing_is_nothing(bundle: Path) -> None:
    assert Predictor(bundle).predict([]) == []


def test_every_bad_image_is_listed_and_nothing_predicted(bundle: Path, tmp_path: Path) -> None:
    photo = _photos(1)[0]
    Image.fromarray(photo).save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.jpg").write_text("not an image")
    Image.new("F", (9, 9)).save(tmp_path / "deep.tiff")
    bad = [
        tmp_path / "missing.jpg",
        tmp_path / "cut.jpg",
        tmp_path / "text.jpg",
        tmp_path / "deep.tiff",
        tmp_path,
        photo.astype(np.float32),
        photo[..., 0],
        np.zeros((0, 9, 3), dtype=np.uint8),
        None,
    ]
    with pytest.raises(DataError) as caught:
        Predictor(bundle).predict([photo, *bad])  # type: ignore[list-item]
    assert [fault.split(":")[0] for fault in caught.value.faults] == [f"image {i}" for i in range(1, 10)]
    for word in ("missing.jpg", "cut.jpg", "text.jpg", "floating-point", "float32", "NoneType"):
        assert word in str(caught.value)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_logits_do_not_depend_on_the_batch_size(bundle: Path, batch_size: int) -> None:
    images = np.random.default_rng(3).integers(0, 256, (7, 24, 24, 3), dtype=np.uint8)
    expected = normalise(images, SPEC).mean(axis=(2, 3)) @ _weights(7, 0)
    found = OnnxClassifier(bundle / FP32_FILE, SPEC).logits(images, batch_size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_logits_of_no_images_have_no_rows(bundle: Path) -> None:
    assert OnnxClassifier(bundle / FP32_FILE, SPEC).logits(np.zeros((0, 24, 24, 3), np.uint8)).shape == (0, 7)


@pytest.mark.parametrize("images", [np.zeros((2, 25, 24, 3), np.uint8), np.zeros((2, 24, 24, 3), np.float32)])
def test_logits_of_another_form_are_refused(bundle: Path, images: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(DataError, match=r"uint8 \[N, 24, 24, 3\]"):
        OnnxClassifier(bundle / FP32_FILE, SPEC).logits(images)


def test_classifier_of_another_size_or_a_broken_file_is_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="one input"):
        OnnxClassifier(bundle / FP32_FILE, PreprocessSpec(32))
    (tmp_path / "broken.onnx").write_bytes(b"broken")
    with pytest.raises(BundleError, match=r"broken\.onnx: cannot be loaded"):
        OnnxClassifier(tmp_path / "broken.onnx", SPEC)
    with pytest.raises(ConfigError, match="threads is 0"):
        OnnxClassifier(bundle / FP32_FILE, SPEC, threads=0)


def test_predictor_refuses_a_changed_bundle(bundle: Path) -> None:
    _write_model(bundle / INT8_FILE, _weights(7, 5))
    with pytest.raises(BundleError, match=r"model\.int8\.onnx: its content was changed"):
        Predictor(bundle, int8=False)


def test_predictor_refuses_a_bundle_without_the_wanted_model(tmp_path: Path) -> None:
    _write_model(tmp_path / FP32_FILE, _weights(7, 0))
    write_manifest(tmp_path, task="diagnosis", spec=SPEC, decisions={}, provenance={})
    assert Predictor(tmp_path, int8=False).predict(_photos(1))[0].decision == "no_threshold"
    with pytest.raises(BundleError, match=r"holds no model\.int8\.onnx"):
        Predictor(tmp_path)


def test_predictor_refuses_a_model_with_other_classes(tmp_path: Path) -> None:
    _write_model(tmp_path / FP32_FILE, _weights(3, 0))
    write_manifest(tmp_path, task="diagnosis", spec=SPEC, decisions={}, provenance={})
    with pytest.raises(BundleError, match="gives 3 logits"):
        Predictor(tmp_path, int8=False)


@settings(deadline=None)
@given(hnp.arrays(np.float32, (4, 7), elements=st.floats(-200, 200, width=32)))
def test_softmax_agrees_with_scipy(logits: npt.NDArray[np.float32]) -> None:
    np.testing.assert_allclose(softmax(logits), scipy_softmax(logits.astype(np.float64), axis=1), atol=1e-6)


def test_latency_is_ordered_and_says_how_it_was_measured(bundle: Path) -> None:
    found = latency_ms(bundle / FP32_FILE, SPEC, repeats=20)
    assert 0 < found["p5"] <= found["median"] <= found["p95"]
    assert (found["repeats"], found["threads"]) == (20, 1)


def test_latency_of_more_work_is_longer(bundle: Path, tmp_path: Path) -> None:
    _write_model(tmp_path / "large.onnx", _weights(7, 0), size=512)
    large = latency_ms(tmp_path / "large.onnx", PreprocessSpec(512), repeats=15)
    assert large["median"] > 2 * latency_ms(bundle / FP32_FILE, SPEC, repeats=15)["median"]


def test_latency_without_a_repeat_is_refused(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="repeats is 0"):
        latency_ms(bundle / FP32_FILE, SPEC, repeats=0)


def _training_packages_after(statement: str) -> set[str]:
    """Which training packages a fresh interpreter holds after a statement."""
    code = f"import sys\n{statement}\nprint(*[name for name in {TRAINING_PACKAGES!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(answer.stdout.split())


@pytest.mark.parametrize("module", ["predictor", "manifest", "latency"])
def test_bundle_needs_no_training_package(module: str) -> None:
    assert _training_packages_after(f"import dermdistill.bundle.{module}") == set()


def test_the_check_for_training_packages_can_fail() -> None:
    assert "pandas" in _training_packages_after("import dermdistill.bundle.predictor, pandas")
