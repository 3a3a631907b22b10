import copy
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
from torch import Tensor, nn

from dermdistill.compress.onnx_export import check_parity, export_onnx, random_inputs, run_onnx
from dermdistill.errors import ExportError, OutputError
from dermdistill.preprocess import PreprocessSpec

SPEC = PreprocessSpec(32)


class ConvNet(nn.Module):
    """Dense, depthwise and pointwise convolutions with a residual, as in EfficientNet-Lite."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.head = nn.Linear(8, 7)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        return self.head((features + self.deep(features)).mean(dim=(2, 3)))


class Hybrid(nn.Module):
    """A transformer and a convolutional branch side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = ConvNet()
        self.vit = _vit()

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images) + self.vit(images)


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


def _vit() -> nn.Module:
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=1, embed_dim=24, num_heads=2, num_classes=7
    )


def _settled(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """In training mode, its BatchNorm statistics no longer those of an untouched layer."""
    torch.manual_seed(seed)
    model = make()
    model.train()(torch.from_numpy(random_inputs(16, SPEC)))
    return model


@pytest.fixture(scope="module")
def convnet() -> nn.Module:
    return _settled(ConvNet, seed=0)


@pytest.fixture(scope="module")
def exported(convnet: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export_onnx(convnet, SPEC, path)
    return path


def _assert_agrees(model: nn.Module, path: Path) -> None:
    model = copy.deepcopy(model).eval()
    for batch in (1, 5):
        inputs = random_inputs(batch, SPEC, seed=99)
        with torch.no_grad():
            expected = model(torch.from_numpy(inputs)).numpy()
        np.testing.assert_allclose(run_onnx(path, inputs), expected, atol=1e-4)


def test_exported_convnet_agrees_with_torch_at_other_batch_sizes(convnet: nn.Module, exported: Path) -> None:
    _assert_agrees(convnet, exported)


def test_export_folds_batchnorm_and_leaves_only_the_batch_open(exported: Path) -> None:
    graph = onnx.load(str(exported)).graph
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    dimensions = graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dimensions] == [0, 3, 32, 32]
    assert dimensions[0].dim_param == "batch"
    assert (graph.input[0].name, graph.output[0].name) == ("images", "logits")


def test_export_writes_a_single_file(exported: Path) -> None:
    assert [item.name for item in exported.parent.iterdir()] == ["model.onnx"]


def test_export_of_a_hybrid_agrees_is_silent_and_leaves_the_model_as_it_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = _settled(Hybrid, seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    path = tmp_path / "bundle" / "model.onnx"
    with caplog.at_level(logging.INFO):
        export_onnx(model, SPEC, path)
    _assert_agrees(model, path)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert logging.root.manager.disable == logging.NOTSET
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_check_parity_of_another_model_is_refused(convnet: nn.Module, exported: Path) -> None:
    assert check_parity(copy.deepcopy(convnet).eval(), exported, SPEC) <= 1e-4
    with pytest.raises(ExportError, match="differs from the model by"):
        check_parity(_settled(ConvNet, seed=2).eval(), exported, SPEC)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (ChangesInExport, "differs from the model by 1.00e-03"),
        (BranchesOnValues, "cannot be exported"),
        (Diverged, "not finite"),
        (ReturnsTuple, "returns tuple"),
    ],
)
def test_export_that_cannot_be_right_writes_nothing(make: type[nn.Module], problem: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=problem):
        export_onnx(make(), SPEC, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_export_into_a_folder_that_cannot_be_is_an_output_error(convnet: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        export_onnx(convnet, SPEC, tmp_path / "file" / "model.onnx")
