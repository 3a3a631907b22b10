from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from dermdistill.errors import ConfigError
from dermdistill.explain.activations import normalised
from dermdistill.explain.scorecam import ScoreCamSettings, score_cam, score_cams

CLASSES = torch.tensor([0, 2, 4])


class Net(nn.Module):
    """Two branches of different grids and scales, each with dead channels; one linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.left = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU())
        self.right = nn.Sequential(nn.Conv2d(3, 10, 3, stride=2, padding=1), nn.ReLU(inplace=True))
        self.head = nn.Linear(22, 5)
        with torch.no_grad():
            self.left[0].bias[:3] = -100  # dead
            self.left[0].weight[3:5] = 0  # the same everywhere
            self.left[0].bias[3:5] = 2

    def forward(self, images: Tensor) -> Tensor:
        branches = [branch(images).square().mean(dim=(2, 3)) for branch in (self.left, self.right)]
        logits: Tensor = self.head(torch.cat(branches, dim=1))
        return logits


def _images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def _small_cnn() -> tuple[nn.Module, nn.Module]:
    """A network with a real depth, and its rectified layer of 4 x 4 cells."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in ((3, 8), (8, 16), (16, 32)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5))
    with torch.no_grad():
        for _ in range(5):
            model.train()(torch.randn(8, 3, 32, 32))
    return model.eval(), model[8]


def _by_hand(model: nn.Module, image: Tensor, layer: nn.Module, target: int, *, paper: bool) -> Tensor:
    """The equations, channel by channel; not yet normalised."""
    colour = torch.zeros(3, 1, 1) if paper else image.mean(dim=(1, 2), keepdim=True)

    def score(shown: Tensor) -> Tensor:
        logits = model(shown[None])[0]
        return logits[target] if paper else logits[target] - logits.mean()

    grid = layer(image[None])[0]
    total = torch.zeros_like(grid[0])
    for channel in grid:
        mask = interpolate(channel[None, None], size=image.shape[1:], mode="bilinear", align_corners=False)[0, 0]
        if mask.max() > mask.min():
            mask = (mask - mask.min()) / (mask.max() - mask.min())
            shown = image * mask + colour * (1 - mask)
            total = total + (score(shown) - score(colour.expand_as(image))) * channel
    return interpolate(total.relu()[None, None], size=image.shape[1:], mode="bilinear", align_corners=False)[0, 0]


def _correlations(one: Tensor, other: Tensor) -> list[float]:
    return [float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for a, b in zip(one.numpy(), other.numpy(), strict=True)]


@torch.no_grad()
@pytest.mark.parametrize("name", ["left", "right"])
@pytest.mark.parametrize("weighting", ["increase", "paper"])
def test_score_cam_is_that_of_its_equations(name: str, weighting: Any) -> None:
    model, images = Net(), _images()
    layer = getattr(model, name)
    pairs = zip(images, CLASSES.tolist(), strict=True)
    raw = torch.stack([_by_hand(model, image, layer, one, paper=weighting == "paper") for image, one in pairs])
    assert float(raw.amax()) > 0
    found = score_cam(model, images, CLASSES, layer, ScoreCamSettings(weighting=weighting))
    torch.testing.assert_close(found, normalised(raw), rtol=1e-4, atol=1e-4)


def test_softmax_weighting_agrees_with_the_package_grad_cam() -> None:
    from pytorch_grad_cam import ScoreCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, layer = _small_cnn()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    classes = torch.tensor([1, 3])
    found = score_cam(model, images, classes, layer, ScoreCamSettings(weighting="softmax"))
    with ScoreCAM(model=model, target_layers=[layer]) as cam:
        package = cam(input_tensor=images, targets=[ClassifierOutputTarget(one) for one in classes.tolist()])
    assert min(_correlations(found, torch.from_numpy(package))) > 0.9999


def test_all_classes_come_from_one_pass_and_equal_those_one_by_one() -> None:
    model, images = Net(), _images()
    layers = [model.left, model.right]
    every = score_cams(model, images, layers).fused()
    assert every.shape == (3, 5, 16, 16)
    for target in range(5):
        alone = score_cam(model, images, torch.full((3,), target), layers)
        torch.testing.assert_close(every[:, target], alone)


class Counting:
    """A scorer that counts the images it is given."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.images, self.most = model, 0, 0

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        self.images += len(images)
        self.most = max(self.most, len(images))
        scores: Tensor = self.model(images)
        return scores


@pytest.mark.parametrize(("weighting", "scored"), [("increase", 7), ("paper", 7), ("softmax", 9)])
def test_channels_that_cannot_matter_are_not_scored(weighting: Any, scored: int) -> None:
    model, images = Net(), _images(1)
    counting = Counting(model)
    found = score_cams(model, images, model.left, ScoreCamSettings(weighting=weighting, batch_size=4), counting)
    assert found.scored.tolist() == [[scored]] and found.of == (12,)
    assert counting.images == 1 + scored  # a blank image first
    assert counting.most <= 4


def test_batch_size_does_not_change_the_maps() -> None:
    model, images = Net(), _images()
    expected = score_cam(model, images, CLASSES, [model.left, model.right])
    for size in (1, 5, 100):
        found = score_cam(model, images, CLASSES, [model.left, model.right], ScoreCamSettings(batch_size=size))
        torch.testing.assert_close(found, expected)


def test_half_of_the_channels_give_nearly_the_same_map() -> None:
    model, layer = _small_cnn()
    coarse = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    images, classes = interpolate(coarse, size=(32, 32), mode="bicubic"), torch.tensor([0, 1, 2, 3])
    counting = Counting(model)
    half = score_cam(model, images, classes, layer, ScoreCamSettings(channels=16), counting)
    assert counting.images == 4 * (1 + 16)
    full = score_cam(model, images, classes, layer)
    assert min(_correlations(half, full)) > 0.98
    most = score_cam(model, images, classes, layer, ScoreCamSettings(channels=1000))
    assert torch.equal(most, full)


@torch.no_grad()
def test_branches_are_weighted_by_how_much_each_raises_the_score() -> None:
    model, images = Net(), _images()
    blank = model(torch.zeros_like(images[:1]))[0, CLASSES]
    expected = torch.zeros(3, 16, 16)
    effects, paper = [], ScoreCamSettings(weighting="paper")
    for layer in (model.left, model.right):
        alone = score_cam(model, images, CLASSES, layer, paper)
        shown = model(images * alone[:, None]).gather(1, CLASSES[:, None])[:, 0]
        effects.append((shown - blank).relu())
        expected += effects[-1][:, None, None] * alone
    assert not torch.allclose(*effects, rtol=0.2)
    found = score_cam(model, images, CLASSES, [model.left, model.right], paper)
    torch.testing.assert_close(found, normalised(expected), rtol=1e-4, atol=1e-4)


def _detector() -> nn.Module:
    """Logit 0 is the mean of red less that of green, logit 1 the other way round."""
    model = nn.Sequential(
        nn.Conv2d(3, 2, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
    )
    with torch.no_grad():
        model[0].weight[:] = torch.eye(3)[:2, :, None, None]
        model[4].weight[:] = torch.tensor([[1.0, -1], [-1, 1]])
    return model


def test_increase_tells_the_classes_apart_and_softmax_does_not() -> None:
    images = torch.zeros(2, 3, 32, 32)
    images[:, 0, 4:8, 20:24] = 1  # class 0: red, upper right
    images[:, 1, 24:28, 6:10] = 1  # class 1: green, lower left
    model, classes = _detector(), torch.tensor([0, 1])
    maps = score_cam(model, images, classes, model[1])
    assert torch.equal(maps[0] == 1, images[0, 0] == 1) and torch.equal(maps[1] == 1, images[1, 1] == 1)
    assert set(maps.unique().tolist()) == {0.0, 1.0}
    common = score_cam(model, images, classes, model[1], ScoreCamSettings(weighting="softmax"))
    assert min(_correlations(common[:1], common[1:])) > 0.9


def test_scorer_gives_the_scores_and_the_network_only_the_masks() -> None:
    images = torch.zeros(1, 3, 32, 32)
    images[:, 0, 4:8, 20:24] = 1
    images[:, 1, 24:28, 6:10] = 1
    model, turned = _detector(), _detector()
    with torch.no_grad():
        turned[4].weight.neg_()
    first = torch.tensor([0])
    own = score_cam(model, images, first, model[1])
    other = score_cam(model, images, first, model[1], scorer=turned.forward)
    assert torch.equal(own[0] == 1, images[0, 0] == 1) and torch.equal(other[0] == 1, images[0, 1] == 1)


def test_image_on_which_nothing_acts_has_a_blank_map() -> None:
    model = Net()
    with torch.no_grad():
        model.head.weight[2] = 0
    maps = score_cam(model, _images(), CLASSES, [model.left, model.right], ScoreCamSettings(weighting="paper"))
    assert not maps[1].any() and maps[0].max() == maps[2].max() == 1


def test_network_is_left_as_it_was() -> None:
    model = Net().train()
    images = _images()
    score_cam(model, images, CLASSES, [model.left, model.right])
    assert all(module.training for module in model.modules())
    assert not model.left._forward_hooks and not images.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("wrong", [{"channels": 0}, {"batch_size": 0}, {"weighting": "mean"}])
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ScoreCamSettings(**wrong)


def test_class_that_does_not_exist_is_refused() -> None:
    model = Net()
    with pytest.raises(ConfigError, match="do not fit"):
        score_cam(model, _images(), torch.tensor([0, 1, 5]), model.left)
