from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from dermdistill.compress.executorch_export import ExecuTorchClassifier, export_executorch
from dermdistill.compress.pt2e import quantized_after_training
from dermdistill.errors import BundleError, ExportError
from dermdistill.preprocess import normalise


def test_fp32_file_computes_what_the_network_does(net: nn.Module, small: SimpleNamespace, tmp_path: Path) -> None:
    model = small.LogitsOf(net).eval()
    export_executorch(model, small.spec, tmp_path / "model.pte")
    images = small.pictures(5, 2)
    with torch.no_grad():
        expected = model(torch.from_numpy(normalise(images, small.spec))).numpy()
    found = ExecuTorchClassifier(tmp_path / "model.pte", small.spec).logits(images)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_int8_file_computes_what_its_program_does(net: nn.Module, small: SimpleNamespace, tmp_path: Path) -> None:
    model = small.LogitsOf(net).eval()
    program = quantized_after_training(model, small.pictures(64, 1), small.spec)
    export_executorch(model, small.spec, tmp_path / "fp32.pte")
    export_executorch(program, small.spec, tmp_path / "int8.pte")
    images = small.pictures(8, 2)
    with torch.no_grad():
        expected = program(torch.from_numpy(normalise(images, small.spec)))
    found = torch.from_numpy(ExecuTorchClassifier(tmp_path / "int8.pte", small.spec).logits(images))
    assert small.decibels(expected, found) > 22
    assert (tmp_path / "int8.pte").stat().st_size < (tmp_path / "fp32.pte").stat().st_size


def test_broken_file_is_refused(small: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "model.pte").write_bytes(b"no program" * 100)
    with pytest.raises(BundleError, match=r"model\.pte: cannot be loaded"):
        ExecuTorchClassifier(tmp_path / "model.pte", small.spec)


def test_network_that_cannot_be_traced_writes_nothing(small: SimpleNamespace, tmp_path: Path) -> None:
    class Moody(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean(dim=(2, 3)) if float(images.sum()) > 0 else images.amax(dim=(2, 3))

    with pytest.raises(ExportError, match=r"Moody cannot be lowered"):
        export_executorch(Moody(), small.spec, tmp_path / "model.pte")
    assert list(tmp_path.iterdir()) == []
