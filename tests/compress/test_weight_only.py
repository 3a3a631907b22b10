from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from torch import nn

from dermdistill.compress.dynamic_int8 import quantize_dynamically
from dermdistill.compress.onnx_export import export_onnx, run_onnx
from dermdistill.compress.weight_only import quantize_weights
from dermdistill.errors import ExportError


@pytest.fixture
def fp32(net: nn.Module, small: SimpleNamespace, tmp_path: Path) -> Path:
    export_onnx(small.LogitsOf(net), small.spec, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def _constants(path: Path) -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in onnx.load(str(path)).graph.initializer}


def test_weights_are_rounded_to_127ths_of_each_channels_largest(
    fp32: Path, small: SimpleNamespace, tmp_path: Path
) -> None:
    path = tmp_path / "web.onnx"
    made = quantize_weights(fp32, path, small.spec)
    before, after = _constants(fp32), _constants(path)
    large = {name: value for name, value in before.items() if value.dtype == np.float32 and value.size >= 512}
    assert made == {"weights": len(large), "parameters": sum(value.size for value in large.values())}
    assert large
    for name, weights in large.items():
        for channel, scale, given in zip(weights, after[f"{name}_scale"], after[f"{name}_int8"], strict=True):
            assert scale == pytest.approx(np.abs(channel).max() / 127)
            assert given.dtype == np.int8
            assert np.abs(given * scale - channel).max() <= scale * 0.5001
    images = small.inputs(8, 2).numpy()
    expected, found = run_onnx(fp32, images), run_onnx(path, images)
    assert 0 < np.abs(expected - found).max() < 0.05 * np.abs(expected).max()


def test_file_without_weights_is_refused(small: SimpleNamespace, tmp_path: Path) -> None:
    class Mean(nn.Module):
        def forward(self, images):  # type: ignore[no-untyped-def]
            return images.mean(dim=(2, 3))

    export_onnx(Mean(), small.spec, tmp_path / "mean.onnx")
    with pytest.raises(ExportError, match=r"mean\.onnx: holds no weights"):
        quantize_weights(tmp_path / "mean.onnx", tmp_path / "web.onnx", small.spec)
    assert not (tmp_path / "web.onnx").exists()


def test_dynamic_file_measures_ranges_as_it_runs(fp32: Path, small: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "dynamic.onnx"
    quantize_dynamically(fp32, path, small.spec)
    kinds = {node.op_type for node in onnx.load(str(path)).graph.node}
    assert {"ConvInteger", "DynamicQuantizeLinear"} <= kinds
    images = small.inputs(8, 2).numpy()
    expected, found = run_onnx(fp32, images), run_onnx(path, images)
    assert 10 * np.log10(np.square(expected).sum() / np.square(expected - found).sum()) > 15
    assert sorted(item.name for item in tmp_path.iterdir()) == ["dynamic.onnx", "model.onnx"]
