import numpy as np
import pytest
import timm
import torch
from scipy import stats
from torch import Tensor, nn

from dermdistill.config import ModelConfig
from dermdistill.errors import ConfigError
from dermdistill.explain.explainer import maps_of
from dermdistill.explain.gradcam import grad_cam
from dermdistill.explain.randomisation import cascade, draw_seed, layers_from_the_top, randomisation_test, randomised
from dermdistill.models.build import build_model

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 1, 2, 1])


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 3)  # defined first, runs last
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).mean(dim=(2, 3)))


def _model() -> Net:
    torch.manual_seed(1000)  # a seed of the tests would start the same weights again
    return Net()


def _cam(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    assert isinstance(model, Net)
    return grad_cam(model, images, classes, model.features[2])


def _edges(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """A method that shows the image and asks no model."""
    return images.mean(dim=1).sigmoid()


def test_correlation_is_that_of_scipy_with_the_altered_copy() -> None:
    model = _model()
    found = randomisation_test(_cam, model, IMAGES, CLASSES, seed=5, repeats=2, batch_size=3)
    before = maps_of(_cam, model, IMAGES, CLASSES)
    for row in range(4):
        others = [randomised(model, ["head"], seed=draw_seed(5, row, repeat)) for repeat in (0, 1)]
        after = [maps_of(_cam, other, IMAGES, CLASSES)[row] for other in others]
        pairs = [(before[row].ravel(), one.ravel()) for one in after]
        each = [stats.spearmanr(*pair).statistic if np.ptp(pair[1]) else np.nan for pair in pairs]
        assert found[row] == pytest.approx(np.nanmean(each), abs=1e-9)
    assert found.mean() < 0.9


def test_every_image_has_new_classifiers_of_its_own() -> None:
    model, same = _model(), IMAGES[:1].repeat(4, 1, 1, 1)
    found = randomisation_test(_cam, model, same, torch.zeros(4, dtype=torch.int64), seed=0, repeats=1)
    assert len(set(found[np.isfinite(found)].tolist())) == np.isfinite(found).sum() > 1
    assert len({draw_seed(seed, row, repeat) for seed in (0, 1) for row in range(9) for repeat in range(3)}) == 54


def test_model_and_random_numbers_are_left_as_they_were() -> None:
    model = _model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    randomisation_test(_cam, model, IMAGES, CLASSES, seed=0, repeats=1)
    cascade(_cam, model, IMAGES, CLASSES, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training and model.features[1].training
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_method_that_asks_no_model_correlates_wholly_at_every_depth() -> None:
    model = _model()
    assert randomisation_test(_edges, model, IMAGES, CLASSES, seed=0).tolist() == pytest.approx([1] * 4)
    found = cascade(_edges, model, IMAGES, CLASSES, seed=0)
    assert list(found) == ["head", "features.1", "features.0"]
    assert all(values.tolist() == pytest.approx([1] * 4) for values in found.values())


def test_only_the_named_modules_are_initialised_anew() -> None:
    model = _model()
    with torch.no_grad():
        model.features[1].weight.mul_(3)
        model.features[1].running_mean.add_(1)
    other = randomised(model, ["head", "features.1"], seed=0)
    assert isinstance(other, Net)
    assert torch.equal(other.features[0].weight, model.features[0].weight)
    assert not torch.equal(other.head.weight, model.head.weight)
    assert torch.equal(other.features[1].weight, torch.ones(8)) and not other.features[1].running_mean.any()
    again, another = (randomised(model, ["head"], seed=seed) for seed in (0, 1))
    assert isinstance(again, Net) and isinstance(another, Net)
    assert torch.equal(again.head.weight, other.head.weight)
    assert not torch.equal(another.head.weight, other.head.weight)


def test_weights_without_a_start_of_their_own_are_shuffled() -> None:
    class Scaled(Net):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.arange(8.0))

    model = Scaled()
    other = randomised(model, [""], seed=0)
    assert isinstance(other, Scaled)
    assert not torch.equal(other.scale, model.scale)
    assert torch.equal(other.scale.sort().values, model.scale)
    assert torch.equal(other.head.weight, model.head.weight)


@pytest.mark.parametrize("repeats", [1, 3])
def test_correlation_of_a_blank_map_is_not_defined(repeats: int) -> None:
    def some(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        return _edges(model, images, classes) * (classes != 1)[:, None, None]

    found = randomisation_test(some, _model(), IMAGES, CLASSES, seed=0, repeats=repeats)
    assert np.isnan(found).tolist() == [False, True, False, True]


def test_classifier_of_a_hybrid_is_found_and_the_stem_comes_last() -> None:
    vit = {"patch_size": 8, "depth": 4, "embed_dim": 24, "num_heads": 2}
    branches = [
        {"backbone": "small_cnn", "options": {"widths": [8, 8, 8, 8]}},
        {"backbone": "vit_tiny", "options": vit},
    ]
    config = ModelConfig.model_validate({"branches": branches, "exits": [1], "fusion_width": 16})
    model = build_model(config, classes=3, size=32, seed=0).deployed()
    names = layers_from_the_top(model, torch.zeros(1, 3, 32, 32))
    owners = {name for name, module in model.named_modules() if list(module.parameters(recurse=False))}
    assert set(names) == owners and len(names) == len(owners)
    assert names[0] == "model.classifier"
    assert names.index("model.fusion") < names.index("model.branches.1.network.blocks.3.mlp.fc2")
    assert names[-1].startswith("model.branches.0.")


def test_tokens_of_a_vision_transformer_belong_to_its_lowest_layer() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=3)
    names = layers_from_the_top(model, torch.zeros(1, 3, 32, 32))
    assert names[0] == "head" and names[-1] == ""


def test_cascade_goes_down_to_the_whole_model() -> None:
    model = _model()
    found = cascade(_cam, model, IMAGES, CLASSES, seed=0, stops=2)
    assert list(found) == ["head", "features.0"]
    whole = randomised(model, ["head", "features.1", "features.0"], seed=0)
    before, after = (maps_of(_cam, one, IMAGES, CLASSES) for one in (model, whole))
    wanted = [
        stats.spearmanr(a.ravel(), b.ravel()).statistic if np.ptp(b) else np.nan
        for a, b in zip(before, after, strict=True)
    ]
    np.testing.assert_allclose(found["features.0"], wanted)


def test_model_whose_classifier_cannot_be_found_is_refused() -> None:
    class Asides(Net):
        def __init__(self) -> None:
            super().__init__()
            self.aside = nn.Linear(3, 1)

        def forward(self, images: Tensor) -> Tensor:
            logits = super().forward(images)
            self.aside(logits)
            return logits

    with pytest.raises(ConfigError, match="logits stayed the same"):
        randomisation_test(_edges, Asides(), IMAGES, CLASSES, seed=0)
    with pytest.raises(ConfigError, match="has no weights"):
        randomisation_test(_edges, nn.Flatten(), IMAGES, CLASSES, seed=0)
