from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from dermdistill.compress import static_int8
from dermdistill.compress.layer_errors import decibels
from dermdistill.compress.onnx_export import export_onnx, quiet, run_onnx
from dermdistill.compress.static_int8 import METHODS, calibrated, count_nodes, quantize_int8, write_int8
from dermdistill.config import CompressConfig
from dermdistill.errors import ConfigError, ExportError
from dermdistill.preprocess import PreprocessSpec, normalise

SPEC = PreprocessSpec(32)
CONVOLUTIONS = 5


def _pictures(count: int, seed: int) -> npt.NDArray[np.uint8]:
    """Smooth coloured blobs: closer to photographs than noise is."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:32, 0:32]
    centre, radius = rng.uniform(10, 22, (count, 2, 1, 1)), rng.uniform(3, 9, (count, 1, 1))
    blob = np.exp(-((y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2) / (2 * radius**2))
    skin, spot = rng.uniform(140, 250, (2, count, 1, 1, 3)) * np.array([1, 0.4])[:, None, None, None, None]
    pixels = skin + (spot - skin) * blob[..., None] + rng.normal(0, 4, (count, 32, 32, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def _block(width_in: int, width: int, stride: int, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(width_in, width, 3, stride, 1, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU6())


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = nn.Sequential(
        _block(3, 16, 2),
        _block(16, 16, 1, groups=16),
        _block(16, 32, 2),
        _block(32, 32, 1, groups=32),
        _block(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 7),
    )
    for _ in range(20):
        model.train()(torch.from_numpy(normalise(_pictures(64, 1), SPEC)))
    path = tmp_path_factory.mktemp("fp32") / "model.onnx"
    export_onnx(model, SPEC, path)
    return path


def _signal_to_noise(fp32: Path, int8: Path) -> float:
    """dB of logits over images that were not calibrated on."""
    inputs = normalise(_pictures(64, 7), SPEC)
    expected, found = run_onnx(fp32, inputs), run_onnx(int8, inputs)
    noise = float(((found - expected) ** 2).mean(axis=0).sum())
    return float(10 * np.log10(expected.var(axis=0).sum() / noise))


@pytest.mark.parametrize("method", METHODS)
def test_quantize_int8_keeps_the_logits_and_quantizes_everything(
    fp32: Path, tmp_path: Path, method: str, capfd: pytest.CaptureFixture[str]
) -> None:
    int8 = tmp_path / "model.int8.onnx"
    config = CompressConfig.model_validate({"method": method})
    counts = quantize_int8(fp32, int8, _pictures(45, 2), SPEC, config)
    assert counts["convolutions"] == counts["quantized_convolutions"] == CONVOLUTIONS
    assert counts["matrix_products"] == counts["quantized_matrix_products"] == 1
    assert (counts["calibration_images"], counts["method"]) == (45, method)
    assert _signal_to_noise(fp32, int8) > 15
    assert [item.name for item in tmp_path.iterdir()] == ["model.int8.onnx"]
    assert capfd.readouterr() == ("", "")


def test_count_nodes_of_an_fp32_file_finds_nothing_quantized(fp32: Path) -> None:
    counts = count_nodes(fp32)
    assert counts["convolutions"] == CONVOLUTIONS
    assert counts["quantized_convolutions"] == counts["quantized_matrix_products"] == 0


class _OneByOne(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: npt.NDArray[np.uint8]) -> None:
        self._rows = iter(normalise(images, SPEC))

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        row = next(self._rows, None)
        return None if row is None else {"images": row[None]}


def test_minmax_gives_what_quantize_static_gives(fp32: Path, tmp_path: Path) -> None:
    images = _pictures(45, 2)
    with quiet():
        quant_pre_process(str(fp32), str(tmp_path / "prepared.onnx"))
        quantize_static(
            str(tmp_path / "prepared.onnx"),
            str(tmp_path / "theirs.onnx"),
            _OneByOne(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    quantize_int8(fp32, tmp_path / "ours.onnx", images, SPEC, CompressConfig())
    inputs = normalise(_pictures(16, 3), SPEC)
    np.testing.assert_allclose(
        run_onnx(tmp_path / "ours.onnx", inputs), run_onnx(tmp_path / "theirs.onnx", inputs), atol=1e-5
    )


def test_minmax_does_not_depend_on_how_images_are_batched(
    fp32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize_int8(fp32, tmp_path / "a.onnx", _pictures(21, 2), SPEC, CompressConfig())
    monkeypatch.setattr(static_int8, "PIXELS_A_BATCH", 4 * 32 * 32)
    quantize_int8(fp32, tmp_path / "b.onnx", _pictures(21, 2), SPEC, CompressConfig())
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_calibration_images_are_what_sets_the_ranges(fp32: Path, tmp_path: Path) -> None:
    quantize_int8(fp32, tmp_path / "real.onnx", _pictures(40, 2), SPEC, CompressConfig())
    grey = np.full((8, 32, 32, 3), 128, dtype=np.uint8)
    quantize_int8(fp32, tmp_path / "grey.onnx", grey, SPEC, CompressConfig())
    gain = _signal_to_noise(fp32, tmp_path / "real.onnx") - _signal_to_noise(fp32, tmp_path / "grey.onnx")
    assert gain > 6


def _largest_weight(path: Path) -> int:
    weights = [numpy_helper.to_array(item) for item in onnx.load(str(path)).graph.initializer]
    return max(int(np.abs(w.astype(np.int64)).max()) for w in weights if w.dtype == np.int8 and w.ndim > 1)


def test_reduce_range_keeps_weights_within_seven_bits(fp32: Path, tmp_path: Path) -> None:
    quantize_int8(fp32, tmp_path / "full.onnx", _pictures(8, 2), SPEC, CompressConfig())
    quantize_int8(fp32, tmp_path / "reduced.onnx", _pictures(8, 2), SPEC, CompressConfig(reduce_range=True))
    assert _largest_weight(tmp_path / "full.onnx") == 127
    assert _largest_weight(tmp_path / "reduced.onnx") <= 64


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        (np.zeros((0, 32, 32, 3), np.uint8), "no calibration images"),
        (np.zeros((8, 64, 64, 3), np.uint8), r"uint8 \[8, 64, 64, 3\]"),
        (np.zeros((8, 32, 32, 3), np.float32), "float32"),
    ],
)
def test_unfit_calibration_images_are_refused(
    fp32: Path, tmp_path: Path, images: npt.NDArray[np.uint8], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        quantize_int8(fp32, tmp_path / "model.int8.onnx", images, SPEC, CompressConfig())
    assert list(tmp_path.iterdir()) == []


def test_broken_onnx_file_is_an_export_error_and_leaves_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(ExportError, match=r"model\.onnx cannot be quantized"):
        quantize_int8(broken, tmp_path / "model.int8.onnx", _pictures(8, 2), SPEC, CompressConfig())
    assert [item.name for item in tmp_path.iterdir()] == ["model.onnx"]


def test_model_without_a_quantizable_operator_is_an_export_error(tmp_path: Path) -> None:
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 32, 32])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    axes = numpy_helper.from_array(np.array([2, 3]), "axes")
    node = helper.make_node("ReduceMax", ["images", "axes"], ["logits"], keepdims=0)
    graph = helper.make_graph([node], "maximum", [images], [logits], [axes])
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), str(tmp_path / "model.onnx"))
    with pytest.raises(ExportError, match="nothing was quantized"):
        quantize_int8(tmp_path / "model.onnx", tmp_path / "model.int8.onnx", _pictures(8, 2), SPEC, CompressConfig())
    assert [item.name for item in tmp_path.iterdir()] == ["model.onnx"]


def test_layers_may_stay_in_float(fp32: Path, tmp_path: Path) -> None:
    with calibrated(fp32, _pictures(32, 2), SPEC, CompressConfig()) as model:
        layers = list(model.nodes)
        counts = write_int8(model, tmp_path / "some.onnx", float_layers=layers[:2])
        with pytest.raises(ConfigError, match=r"no layer 'nonsense'"):
            write_int8(model, tmp_path / "none.onnx", float_layers=["nonsense"])
    assert len(layers) == CONVOLUTIONS + 1
    assert counts["quantized_convolutions"] == CONVOLUTIONS - 2
    assert counts["quantized_matrix_products"] == 1
    assert not (tmp_path / "none.onnx").exists()


def test_sensitivity_ranks_a_layer_with_one_huge_weight_first(fp32: Path, tmp_path: Path) -> None:
    """One outlier takes the range of its channel: all other weights of it are rounded away."""
    model = onnx.load(str(fp32))
    (weights,) = [item for item in model.graph.initializer if item.name.endswith("4.0.weight")]
    values = numpy_helper.to_array(weights).copy()
    values[:, 0, 0, 0] = 300 * np.abs(values).max()
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    onnx.save(model, str(tmp_path / "spoilt.onnx"))
    for path, first in ((tmp_path / "spoilt.onnx", True), (fp32, False)):
        with calibrated(path, _pictures(32, 2), SPEC, CompressConfig()) as quantizer:
            ranking = quantizer.sensitivity(_pictures(8, 3))
        assert [item.decibels for item in ranking] == sorted(item.decibels for item in ranking)
        assert len(ranking) == CONVOLUTIONS + 1
        assert (ranking[0].layer == "4.0") == first


def test_float_layer_is_not_quantized_by_the_runtime_behind_our_back(fp32: Path, tmp_path: Path) -> None:
    """Between two quantized layers ONNX Runtime would round the weights of a float layer per tensor."""
    model = onnx.load(str(fp32))
    (weights,) = [item for item in model.graph.initializer if item.name.endswith("1.0.weight")]
    values = numpy_helper.to_array(weights).copy()
    values[::2] *= 300  # per tensor, nothing would be left of the other channels
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    uneven = tmp_path / "uneven.onnx"
    onnx.save(model, str(uneven))
    inputs = normalise(_pictures(16, 3), SPEC)
    expected = run_onnx(uneven, inputs)
    with calibrated(uneven, _pictures(64, 2), SPEC, CompressConfig()) as quantizer:
        write_int8(quantizer, tmp_path / "all.onnx")
        write_int8(quantizer, tmp_path / "but.onnx", float_layers=["1.0"])
    found = {name: decibels(expected, run_onnx(tmp_path / f"{name}.onnx", inputs)) for name in ("all", "but")}
    assert found["but"] > found["all"] - 1
