import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from dermdistill.compress.onnx_export import quiet, run_onnx
from dermdistill.compress.pt2e import QuantizationAware, quantized_after_training, require_mobile
from dermdistill.compress.qdq import export_qdq
from dermdistill.errors import ExportError, MissingExtraError

LEAST_DECIBELS = 22.0


def test_static_program_is_near_the_network_and_leaves_it_alone(net: nn.Module, small: SimpleNamespace) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    program = quantized_after_training(small.LogitsOf(net).eval(), small.pictures(64, 1), small.spec)
    images = small.inputs(16, 2)
    with torch.no_grad():
        found = program(images)
    assert small.decibels(net(images).logits.detach(), found) > LEAST_DECIBELS
    assert not torch.equal(found, net(images).logits)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_relu6_is_fused_into_the_layer_before_it(net: nn.Module, small: SimpleNamespace, tmp_path: Path) -> None:
    """Quantized in front of its ReLU6 a layer's range would be that of the unbounded values."""
    program = quantized_after_training(small.LogitsOf(net).eval(), small.pictures(64, 1), small.spec)
    path = tmp_path / "program.onnx"
    export_qdq(program, small.spec, path)
    graph = onnx.load(str(path)).graph
    assert "Clip" not in {node.op_type for node in graph.node}
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    readers = {name: node for node in graph.node for name in node.input}
    widest = [255 * float(constants[readers[node.output[0]].input[1]]) for node in graph.node if node.op_type == "Conv"]
    assert len(widest) == 2
    assert max(widest) <= 6.0001


def test_onnx_form_is_unsigned_with_integer_biases_and_gives_the_same_numbers(
    net: nn.Module, small: SimpleNamespace, tmp_path: Path
) -> None:
    program = quantized_after_training(small.LogitsOf(net).eval(), small.pictures(64, 1), small.spec)
    path = tmp_path / "program.onnx"
    export_qdq(program, small.spec, path)
    graph = onnx.load(str(path)).graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            assert constants[node.input[2]].dtype == np.uint8
        if node.op_type in ("Conv", "Gemm"):
            assert constants[producers[node.input[1]].input[0]].dtype == np.int8
            assert constants[producers[node.input[2]].input[0]].dtype == np.int32
    images = small.inputs(16, 3)
    with torch.no_grad():
        expected = program(images).numpy()
    found = run_onnx(path, images.numpy())
    step = float(np.min(np.abs(np.diff(np.unique(expected.round(6))))))
    assert np.abs(found - expected).max() <= 2.5 * step
    assert np.abs(found - expected).mean() < step


def test_quantization_aware_network_learns_without_touching_the_student(net: nn.Module, small: SimpleNamespace) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    aware = QuantizationAware(net, small.spec)
    aware.find_ranges(small.pictures(64, 1))
    start = {name: value.detach().clone() for name, value in aware.named_parameters()}
    optimizer = torch.optim.SGD(aware.parameters(), lr=0.1)
    images = small.inputs(16, 2)
    aware.train()
    output = aware(images)
    assert output.exits[0].shape == (16, 7)
    (output.logits.square().mean() + output.exits[0].square().mean()).backward()
    gradients = [parameter.grad for parameter in aware.parameters()]
    assert all(gradient is not None and bool(gradient.abs().sum() > 0) for gradient in gradients)
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(not torch.equal(value, start[name]) for name, value in aware.named_parameters())


def test_ranges_stand_still_in_evaluation_and_follow_in_training(net: nn.Module, small: SimpleNamespace) -> None:
    aware = QuantizationAware(net, small.spec)
    aware.find_ranges(small.pictures(64, 1))
    scales = {name: value.clone() for name, value in aware.state_dict().items() if name.endswith(".scale")}
    bright = 3 * small.inputs(16, 2)
    with torch.no_grad():
        aware(bright)
        assert all(torch.equal(value, aware.state_dict()[name]) for name, value in scales.items())
        aware.train()(bright)
    assert any(not torch.equal(value, aware.state_dict()[name]) for name, value in scales.items())


def test_state_of_one_is_taken_by_another_and_converted(net: nn.Module, small: SimpleNamespace) -> None:
    first, second = (QuantizationAware(net, small.spec) for _ in range(2))
    for seed, aware in enumerate((first, second)):
        aware.find_ranges(small.pictures(32, seed))
    images = small.inputs(16, 2)
    with torch.no_grad():
        first.train()(3 * images)
        first.eval()
        second.load_state_dict(first.state_dict())
        expected = first(images).logits
        assert torch.allclose(second(images).logits, expected, atol=1e-5)
        converted = second.converted()(images)
    assert converted.shape == (16, 7)
    assert small.decibels(expected, converted) > LEAST_DECIBELS


def test_network_that_cannot_be_traced_is_refused(small: SimpleNamespace) -> None:
    class Moody(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean(dim=(2, 3)) if float(images.sum()) > 0 else images.amax(dim=(2, 3))

    with pytest.raises(ExportError, match=r"Moody cannot be quantized by PT2E"):
        quantized_after_training(Moody(), small.pictures(4, 0), small.spec)


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with quiet():
        import executorch.backends.xnnpack  # noqa: F401  # what it imports besides is not what is missing
    for name in [name for name in sys.modules if name.partition(".")[0] == "executorch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "executorch", None)
    with pytest.raises(MissingExtraError, match=r"dermdistill\[mobile\]"):
        require_mobile()
