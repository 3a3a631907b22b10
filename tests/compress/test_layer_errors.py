from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from torch import nn

from dermdistill.compress.layer_errors import LayerError, decibels, layer_errors, where_error_grows
from dermdistill.compress.onnx_export import export_onnx
from dermdistill.errors import ExportError


def test_decibels_by_hand() -> None:
    signal = np.array([[3.0, 4.0]], dtype=np.float32)
    assert decibels(signal, signal + np.array([[0.3, 0.4]], dtype=np.float32)) == pytest.approx(20.0, abs=1e-4)
    assert decibels(signal, signal) == 200.0


def test_error_grows_where_noise_is_added_as_a_share_of_the_signal() -> None:
    errors = [LayerError("a", 40.0), LayerError("b", 20.0), LayerError("c", 10.0), LayerError("d", 11.0)]
    assert where_error_grows(errors) == "c (20.0 -> 10.0 dB)"
    assert where_error_grows(errors[:1]) == "a (the input -> 40.0 dB)"
    assert where_error_grows([]) == ""


def test_spoilt_layer_is_found(net: nn.Module, small: SimpleNamespace, tmp_path: Path) -> None:
    export_onnx(small.LogitsOf(net), small.spec, tmp_path / "model.onnx")
    model = onnx.load(str(tmp_path / "model.onnx"))
    (weights,) = [item for item in model.graph.initializer if item.name.endswith("second.0.weight")]
    spoilt = numpy_helper.to_array(weights) + np.random.default_rng(0).normal(0, 0.1, (24, 16, 3, 3)).astype("f4")
    weights.CopyFrom(numpy_helper.from_array(spoilt, weights.name))
    onnx.save(model, str(tmp_path / "spoilt.onnx"))
    errors = layer_errors(tmp_path / "model.onnx", tmp_path / "spoilt.onnx", small.inputs(8, 2).numpy())
    assert [item.layer for item in errors] == ["first.0", "second.0", "classifier"]
    assert errors[0].decibels == 200.0
    assert where_error_grows(errors).startswith("second.0 (200.0 -> ")


def test_another_network_is_refused(net: nn.Module, small: SimpleNamespace, tmp_path: Path) -> None:
    export_onnx(small.LogitsOf(net), small.spec, tmp_path / "model.onnx")
    export_onnx(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 7)), small.spec, tmp_path / "other.onnx")
    with pytest.raises(ExportError, match=r"other\.onnx has 0 layers"):
        layer_errors(tmp_path / "model.onnx", tmp_path / "other.onnx", small.inputs(2, 0).numpy())
