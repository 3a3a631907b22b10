"""LiteRT files. All but the tests of what happens without its packages run in the environment of `make litert`."""

import logging
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from dermdistill.compress.litert import check_litert_parity, export_litert, quantize_litert
from dermdistill.compress.litert_runtime import PACKAGES, LiteRTClassifier, require_litert
from dermdistill.compress.onnx_export import random_inputs
from dermdistill.config import BranchConfig, ModelConfig
from dermdistill.errors import BundleError, ConfigError, DataError, ExportError, MissingExtraError
from dermdistill.models.build import build_model
from dermdistill.preprocess import PreprocessSpec, normalise

SPEC = PreprocessSpec(32)
LAYERS = 4


@pytest.fixture(scope="session")
def packages() -> None:
    for name in PACKAGES:
        pytest.importorskip(name, reason=f"LITERT MISSING: {name} needs an environment of its own; run `make litert`")


class ConvNet(nn.Module):
    """Dense, depthwise and pointwise convolutions with a residual, as in EfficientNet-Lite."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _block(3, 16, 3, 2)
        self.depthwise = _block(16, 16, 3, 1, groups=16)
        self.pointwise = _block(16, 16, 1, 1)
        self.head = nn.Linear(16, 7)
        nn.init.constant_(self.head.bias, 0.5)  # so that the zero point of the logits is not 0

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        return self.head((features + self.pointwise(self.depthwise(features))).mean(dim=(2, 3)))


class ChangesInExport(ConvNet):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + (1e-3 if torch.compiler.is_exporting() else 0.0)


class BranchesOnValues(ConvNet):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images * 2 if images.mean() > 0 else images)


class Diverged(ConvNet):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * torch.nan


class ReturnsTuple(ConvNet):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(images), images


def _block(width_in: int, width: int, kernel: int, stride: int, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(width_in, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU6())


def _pictures(count: int, seed: int) -> npt.NDArray[np.uint8]:
    """Smooth coloured blobs: closer to photographs than noise is."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:32, 0:32]
    centre, radius = rng.uniform(10, 22, (count, 2, 1, 1)), rng.uniform(3, 9, (count, 1, 1))
    blob = np.exp(-((y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2) / (2 * radius**2))
    skin, spot = rng.uniform(140, 250, (2, count, 1, 1, 3)) * np.array([1, 0.4])[:, None, None, None, None]
    pixels = skin + (spot - skin) * blob[..., None] + rng.normal(0, 4, (count, 32, 32, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def _settled(model: nn.Module) -> nn.Module:
    """In training mode, its BatchNorm statistics no longer those of an untouched layer."""
    for _ in range(20):
        model.train()(torch.from_numpy(normalise(_pictures(64, 1), SPEC)))
    return model


@pytest.fixture(scope="module")
def convnet() -> nn.Module:
    torch.manual_seed(0)
    return _settled(ConvNet())


@pytest.fixture(scope="module")
def fp32(packages: None, convnet: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fp32") / "model.tflite"
    export_litert(convnet, SPEC, path)
    return path


def _expected(model: nn.Module, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    was_training = model.training
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(normalise(images, SPEC))).numpy()
    model.train(was_training)
    return logits


def _signal_to_noise(expected: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> float:
    """dB of logits [N, K]."""
    noise = float(((found - expected) ** 2).mean(axis=0).sum())
    return float(10 * np.log10(expected.var(axis=0).sum() / noise))


def test_exported_file_agrees_with_torch_on_pictures(convnet: nn.Module, fp32: Path) -> None:
    images = _pictures(5, 3)
    found = LiteRTClassifier(fp32, SPEC).logits(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, _expected(convnet, images), atol=1e-4)


def test_exported_file_takes_named_images_channels_last(fp32: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(fp32))
    runner = interpreter.get_signature_runner()
    assert list(interpreter.get_signature_list()) == ["serving_default"]
    assert {name: list(item["shape"]) for name, item in runner.get_input_details().items()} == {
        "images": [1, 32, 32, 3]
    }
    assert {name: list(item["shape"]) for name, item in runner.get_output_details().items()} == {"logits": [1, 7]}


def test_export_and_quantization_are_silent_and_leave_the_model_as_it_was(
    packages: None,
    convnet: nn.Module,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = {name: value.clone() for name, value in convnet.state_dict().items()}
    with caplog.at_level(logging.INFO):
        export_litert(convnet, SPEC, tmp_path / "bundle" / "model.tflite")
        quantize_litert(tmp_path / "bundle" / "model.tflite", tmp_path / "int8.tflite", _pictures(4, 2), SPEC)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert all(module.training for module in convnet.modules())
    assert all(torch.equal(value, before[name]) for name, value in convnet.state_dict().items())
    assert sorted(item.name for item in tmp_path.rglob("*.*")) == ["int8.tflite", "model.tflite"]


def test_parity_with_another_model_is_refused(convnet: nn.Module, fp32: Path) -> None:
    assert check_litert_parity(convnet.eval(), fp32, SPEC) <= 1e-4
    torch.manual_seed(5)
    with pytest.raises(ExportError, match="differs from the model by"):
        check_litert_parity(_settled(ConvNet()).eval(), fp32, SPEC)
    convnet.train()


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (ChangesInExport, "differs from the model by 1.00e-03"),
        (BranchesOnValues, "BranchesOnValues cannot be converted to LiteRT"),
        (Diverged, "not finite"),
        (ReturnsTuple, "returns tuple"),
    ],
)
def test_export_that_cannot_be_right_writes_nothing(
    packages: None, make: type[nn.Module], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=problem):
        export_litert(make(), SPEC, tmp_path / "model.tflite")
    assert list(tmp_path.iterdir()) == []


def test_int8_file_takes_and_gives_int8_and_keeps_the_logits(convnet: nn.Module, fp32: Path, tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    int8 = tmp_path / "model.int8.tflite"
    facts = quantize_litert(fp32, int8, _pictures(40, 2), SPEC)
    assert facts == {"quantized_layers": LAYERS, "calibration_images": 40, "method": "minmax"}
    interpreter = Interpreter(model_path=str(int8))
    for details in (*interpreter.get_input_details(), *interpreter.get_output_details()):
        assert details["dtype"] == np.int8 and details["quantization"][0] > 0
    images = _pictures(64, 7)
    found = LiteRTClassifier(int8, SPEC).logits(images)
    assert found.dtype == np.float32
    assert _signal_to_noise(_expected(convnet, images), found) > 20


def test_classifier_translates_by_the_scales_of_the_file(fp32: Path, tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    quantize_litert(fp32, tmp_path / "int8.tflite", _pictures(40, 2), SPEC)
    interpreter = Interpreter(model_path=str(tmp_path / "int8.tflite"))
    interpreter.allocate_tensors()
    given, gives = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    (scale_in, zero_in), (scale_out, zero_out) = given["quantization"], gives["quantization"]
    assert zero_in != 0 and zero_out != 0
    image = _pictures(1, 7)
    values = np.rint(normalise(image, SPEC).transpose(0, 2, 3, 1) / scale_in + zero_in)
    interpreter.set_tensor(given["index"], values.clip(-128, 127).astype(np.int8))
    interpreter.invoke()
    answer = interpreter.get_tensor(gives["index"]).astype(np.float64)
    found = LiteRTClassifier(tmp_path / "int8.tflite", SPEC).logits(image)
    np.testing.assert_allclose(found, (answer - zero_out) * scale_out, atol=1e-6)


def test_fp32_file_has_no_quantized_layer(fp32: Path) -> None:
    assert LiteRTClassifier(fp32, SPEC).quantized_layers == 0


def test_int8_input_beyond_the_calibrated_range_is_clipped_not_wrapped(fp32: Path, tmp_path: Path) -> None:
    quantize_litert(fp32, tmp_path / "int8.tflite", np.full((8, 32, 32, 3), 100, dtype=np.uint8), SPEC)
    classifier = LiteRTClassifier(tmp_path / "int8.tflite", SPEC)
    white, bright = (classifier.logits(np.full((1, 32, 32, 3), value, dtype=np.uint8)) for value in (255, 254))
    np.testing.assert_array_equal(white, bright)


def test_ranges_are_the_extremes_of_the_calibration_images_in_any_order(
    convnet: nn.Module, fp32: Path, tmp_path: Path
) -> None:
    images, grey = _pictures(24, 2), np.full((8, 32, 32, 3), 128, dtype=np.uint8)
    for name, chosen in (("a", images), ("b", images[::-1]), ("grey", grey)):
        quantize_litert(fp32, tmp_path / f"{name}.tflite", chosen, SPEC)
    assert (tmp_path / "a.tflite").read_bytes() == (tmp_path / "b.tflite").read_bytes()
    expected = _expected(convnet, _pictures(64, 7))
    real, poor = (
        _signal_to_noise(expected, LiteRTClassifier(tmp_path / f"{name}.tflite", SPEC).logits(_pictures(64, 7)))
        for name in ("a", "grey")
    )
    assert real > poor + 6


def test_layer_fusion_survives_int8(packages: None, tmp_path: Path) -> None:
    branch = BranchConfig(backbone="small_cnn", options={"widths": [8, 16, 24, 32]})
    config = ModelConfig(branches=(branch,), exits=(1,), fusion=True, fusion_width=32)
    model = build_model(config, classes=7, size=32, seed=0)
    deployed = _settled(model).deployed()
    export_litert(deployed, SPEC, tmp_path / "model.tflite")
    quantize_litert(tmp_path / "model.tflite", tmp_path / "int8.tflite", _pictures(40, 2), SPEC)
    images = _pictures(64, 7)
    found = LiteRTClassifier(tmp_path / "int8.tflite", SPEC).logits(images)
    assert _signal_to_noise(_expected(deployed, images), found) > 15


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        (np.zeros((0, 32, 32, 3), np.uint8), "no calibration images"),
        (np.zeros((8, 64, 64, 3), np.uint8), r"uint8 \[8, 64, 64, 3\]"),
        (np.zeros((8, 32, 32, 3), np.float32), "float32"),
    ],
)
def test_unfit_calibration_images_are_refused(tmp_path: Path, images: npt.NDArray[np.uint8], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        quantize_litert(tmp_path / "model.tflite", tmp_path / "int8.tflite", images, SPEC)
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_no_litert_file_is_refused_by_quantizer_and_classifier(packages: None, tmp_path: Path) -> None:
    broken = tmp_path / "model.tflite"
    broken.write_bytes(b"not a model")
    with pytest.raises(ExportError, match=r"model\.tflite cannot be quantized"):
        quantize_litert(broken, tmp_path / "int8.tflite", _pictures(8, 2), SPEC)
    with pytest.raises(BundleError, match="cannot be loaded"):
        LiteRTClassifier(broken, SPEC)
    assert [item.name for item in tmp_path.iterdir()] == ["model.tflite"]


def test_classifier_refuses_another_size_and_images_of_another_form(fp32: Path) -> None:
    with pytest.raises(BundleError, match=r"has inputs \[\[1, 32, 32, 3\]\]"):
        LiteRTClassifier(fp32, PreprocessSpec(64))
    classifier = LiteRTClassifier(fp32, SPEC)
    with pytest.raises(DataError, match="float32"):
        classifier.logits(random_inputs(1, SPEC))  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="cannot be run on an input"):
        classifier.run(random_inputs(2, SPEC))
    assert classifier.logits(_pictures(0, 0)).shape == (0, 7)


def test_without_its_packages_the_extra_and_the_environment_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        monkeypatch.delitem(sys.modules, name)
    for name in PACKAGES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match="'ai_edge_litert' is not installed") as caught:
        require_litert()
    assert "make litert" in str(caught.value) and "dermdistill[litert]" in str(caught.value)
    with pytest.raises(MissingExtraError):
        LiteRTClassifier(tmp_path / "model.tflite", SPEC)
    with pytest.raises(MissingExtraError):
        export_litert(ConvNet(), SPEC, tmp_path / "model.tflite")
    assert list(tmp_path.iterdir()) == []
