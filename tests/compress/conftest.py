from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from dermdistill.models.output import Output
from dermdistill.preprocess import PreprocessSpec, normalise

SPEC = PreprocessSpec(32)


def pictures(count: int, seed: int) -> npt.NDArray[np.uint8]:
    """Smooth coloured blobs: closer to photographs than noise is."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:32, 0:32]
    centre, radius = rng.uniform(10, 22, (count, 2, 1, 1)), rng.uniform(3, 9, (count, 1, 1))
    blob = np.exp(-((y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2) / (2 * radius**2))
    skin, spot = rng.uniform(140, 250, (2, count, 1, 1, 3)) * np.array([1, 0.4])[:, None, None, None, None]
    pixels = skin + (spot - skin) * blob[..., None] + rng.normal(0, 4, (count, 32, 32, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def inputs(count: int, seed: int) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(normalise(pictures(count, seed), SPEC)))


class SmallNet(nn.Module):
    """Convolutions with BatchNorm and ReLU6, an exit, a classifier; gives ``Output`` as a student does."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.second = nn.Sequential(nn.Conv2d(16, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6())
        self.exit = nn.Linear(16, 7)
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(24, 7)

    def forward(self, images: Tensor) -> Output:
        shallow = self.first(images)
        deep = self.second(shallow)
        pooled = (shallow.mean(dim=(2, 3)), deep.mean(dim=(2, 3)))
        logits = self.classifier(self.dropout(pooled[1]))
        return Output(logits, (self.exit(pooled[0]),), (shallow, deep), pooled[1], pooled)


class LogitsOf(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        output: Output = self.model(images)
        return output.logits


@pytest.fixture
def net() -> SmallNet:
    """A network whose BatchNorm knows these pictures and whose activations go beyond 6."""
    torch.manual_seed(0)
    model = SmallNet()
    with torch.no_grad():
        for block in (model.first, model.second):
            block[1].weight.fill_(3.0)
    for _ in range(30):
        model.train()(inputs(64, 1))
    return model.eval()


def signal_to_noise(expected: Tensor, found: Tensor) -> float:
    return float(10 * torch.log10(expected.square().sum() / (expected - found).square().sum()))


@pytest.fixture(scope="session")
def small() -> SimpleNamespace:
    """What the tests of this folder share; test modules cannot import from here."""
    return SimpleNamespace(
        spec=SPEC, pictures=pictures, inputs=inputs, LogitsOf=LogitsOf, SmallNet=SmallNet, decibels=signal_to_noise
    )
