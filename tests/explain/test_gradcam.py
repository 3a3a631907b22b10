import copy
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import timm
import torch
from captum.attr import LayerAttribution, LayerGradCam
from torch import Tensor, nn
from torch.nn.functional import interpolate

from dermdistill.config import ModelConfig
from dermdistill.errors import ConfigError
from dermdistill.explain.activations import normalised
from dermdistill.explain.gradcam import branch_effects, grad_cam
from dermdistill.explain.target_layers import target_layers
from dermdistill.models.build import build_model

SIZE = 64


def _images(count: int = 3, seed: int = 0, size: int = SIZE) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def _settled(model: nn.Module) -> nn.Module:
    """BatchNorm statistics of real activations, so that deep maps are not degenerate; evaluation mode."""
    with torch.no_grad():
        for _ in range(5):
            model.train()(_images(8, seed=5))
    return model.eval()


def _resnet() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=7, zero_init_last=False)
    return _settled(model), model.layer3


def _lite0() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    model = timm.create_model("efficientnet_lite0", num_classes=7)
    return _settled(model), model.bn2


def _vit(depth: int = 2) -> nn.Module:
    torch.manual_seed(0)
    options = {"img_size": SIZE, "patch_size": 8, "depth": depth, "embed_dim": 24, "num_heads": 2}
    return timm.create_model("vit_tiny_patch16_224", num_classes=7, **options).eval()


def _captum(model: nn.Module, images: Tensor, classes: Tensor, layer: nn.Module) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = LayerGradCam(model, layer).attribute(images, classes, relu_attributions=True)
        large = LayerAttribution.interpolate(raw, images.shape[2:], "bilinear")
    return normalised(large[:, 0].detach())


@pytest.mark.parametrize("make", [_resnet, _lite0])
def test_grad_cam_agrees_with_captum(make: Callable[[], tuple[nn.Module, nn.Module]]) -> None:
    model, layer = make()
    images, classes = _images(), torch.tensor([0, 3, 6])
    found = grad_cam(model, images, classes, layer)
    expected = _captum(model, images, classes, layer)
    assert found.shape == (3, SIZE, SIZE) and found.dtype == torch.float32
    for one, other in zip(found.numpy(), expected.numpy(), strict=True):
        assert other.std() > 0.05
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.9999
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_vit_map_comes_from_the_norm_before_the_last_attention() -> None:
    model, images, classes = _vit(), _images(), torch.tensor([0, 3, 6])
    block = model.blocks[-1]
    assert not grad_cam(model, images, classes, block).any(), "the last block's patches do not act on the logits"

    with torch.enable_grad():
        tokens = model.blocks[:-1](model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images)))))
        normed = block.norm1(tokens).detach().requires_grad_()
        after = tokens + block.attn(normed)
        logits = model.forward_head(model.norm(after + block.mlp(block.norm2(after))))
        (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), normed)
    weights = gradient[:, 1:].mean(dim=1, keepdim=True)
    expected = (weights * normed[:, 1:]).sum(dim=2).relu().reshape(3, 1, 8, 8).detach()
    expected = interpolate(expected, size=(SIZE, SIZE), mode="bilinear")[:, 0]
    torch.testing.assert_close(grad_cam(model, images, classes, block.norm1), normalised(expected))


class Output(NamedTuple):
    logits: Tensor
    extra: Tensor


class Net(nn.Module):
    """Two branches, each a convolution and a rectifier, one linear classifier."""

    def __init__(self, *, inplace: bool = False, named: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.left = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.right = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.act = nn.ReLU(inplace=inplace)
        self.head = nn.Linear(8, 5)
        self.idle = nn.Conv2d(3, 1, 1)
        self.named = named

    def forward(self, images: Tensor) -> Tensor | Output:
        left = self.act(self.norm(self.left(images)))
        right = torch.relu_(self.right(images)) if self.act.inplace else torch.relu(self.right(images))
        pooled = torch.cat([left.mean(dim=(2, 3)), right.mean(dim=(2, 3))], dim=1)
        logits = self.head(pooled)
        return Output(logits, self.idle(images)) if self.named else logits


CLASSES = torch.tensor([0, 2, 4])


@pytest.mark.parametrize("layer", ["norm", "right", "left"])
def test_in_place_rectifier_behind_the_layer_does_not_clip_it(layer: str) -> None:
    apart, inplace = Net(), Net(inplace=True)
    images = _images(size=16)
    expected = grad_cam(apart, images, CLASSES, getattr(apart, layer))
    torch.testing.assert_close(grad_cam(inplace, images, CLASSES, getattr(inplace, layer)), expected, atol=0, rtol=0)


def test_frozen_network_and_no_grad_give_the_same_maps() -> None:
    model, images = Net(), _images(size=16)
    expected = grad_cam(model, images, CLASSES, model.norm)
    model.requires_grad_(False)
    with torch.no_grad():
        assert torch.equal(grad_cam(model, images, CLASSES, model.norm), expected)
    with torch.inference_mode():
        assert torch.equal(grad_cam(model, images, CLASSES, model.norm), expected)


def test_nothing_below_the_layer_is_recorded_for_the_backward_pass() -> None:
    model, outputs = Net(), []

    def look(output: Tensor) -> Tensor:
        outputs.append(output)
        return output

    grad_cam(model, _images(size=16), CLASSES, model.norm, select=look)
    assert [output.requires_grad for output in outputs] == [False]


def test_named_tuple_output_gives_the_same_maps() -> None:
    images = _images(size=16)
    plain, named = Net(), Net(named=True)
    assert torch.equal(grad_cam(named, images, CLASSES, named.norm), grad_cam(plain, images, CLASSES, plain.norm))


def test_model_is_left_as_it_was() -> None:
    model = Net().train()
    model.norm.eval()
    model.right.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    wants = [parameter.requires_grad for parameter in model.parameters()]
    images = _images(size=16)
    grad_cam(model, images, CLASSES, [model.norm, model.right])
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == wants
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert not images.requires_grad


def test_model_is_left_as_it_was_after_an_error() -> None:
    model = Net().train()
    with pytest.raises(ConfigError):
        grad_cam(model, _images(size=16), torch.tensor([0, 2, 5]), model.norm)
    assert model.training and not model.norm._forward_hooks


def test_maps_of_a_training_model_are_those_of_evaluation() -> None:
    model, images = Net(), _images(size=16)
    expected = grad_cam(model.eval(), images, CLASSES, model.norm)
    assert torch.equal(grad_cam(model.train(), images, CLASSES, model.norm), expected)


def test_images_of_a_batch_do_not_act_on_each_other() -> None:
    model, images = Net(), _images(size=16)
    together = grad_cam(model, images, CLASSES, model.norm)
    for index in range(3):
        alone = grad_cam(model, images[index : index + 1], CLASSES[index : index + 1], model.norm)
        torch.testing.assert_close(alone[0], together[index])


def test_several_layers_are_added_by_their_effect_before_they_are_normalised() -> None:
    model, images = Net().eval(), _images(size=16)
    left, right = model.norm(model.left(images)).detach(), model.right(images).detach()
    weights = model.head.weight.detach()[CLASSES]
    raw = []
    for values, part in ((left, weights[:, :4]), (right, weights[:, 4:])):
        count = values.shape[2] * values.shape[3]
        alive = (values > 0).float()  # derivative of the rectifier; mean pooling divides by the number of pixels
        gradient = alive * part[:, :, None, None] / count
        # One cell explains its share of the logit, so a map of a quarter of the cells counts four times as much a cell.
        small = count * (gradient.mean(dim=(2, 3), keepdim=True) * values).sum(dim=1, keepdim=True).relu()
        raw.append(interpolate(small, size=(16, 16), mode="bilinear")[:, 0])
    expected = raw[0] + raw[1]
    expected = expected / expected.amax(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(grad_cam(model, images, CLASSES, [model.norm, model.right]), expected)


class TwoGrids(nn.Module):
    """The same rectified channel, once as it is and once pooled to a quarter of its cells; both act alike."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.ReLU(), nn.AvgPool2d(2)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.fine(images)
        return fine.mean(dim=(2, 3)) + self.coarse(images.relu()).mean(dim=(2, 3))


def test_effect_of_a_branch_is_its_share_of_the_logit_whatever_its_grid() -> None:
    model, images = TwoGrids(), _images(size=16)
    classes = torch.tensor([0, 1, 2])
    effects = branch_effects(model, images, classes, [model.fine, model.coarse]).mean(dim=(2, 3))
    wanted = model(images).gather(1, classes[:, None])[:, 0] / 2  # each branch gives half of it
    torch.testing.assert_close(effects, wanted.expand(2, -1), rtol=0.02, atol=0)


def _package(model: nn.Module, images: Tensor, classes: Tensor, layer: nn.Module) -> Tensor:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with GradCAM(model=model, target_layers=[layer]) as cam:
        found = cam(input_tensor=images, targets=[ClassifierOutputTarget(one) for one in classes.tolist()])
    return torch.from_numpy(found)


@pytest.mark.parametrize("make", [_resnet, _lite0])
def test_grad_cam_agrees_with_the_package_grad_cam(make: Callable[[], tuple[nn.Module, nn.Module]]) -> None:
    model, layer = make()
    images, classes = _images(2), torch.tensor([0, 3])
    pairs = zip(grad_cam(model, images, classes, layer), _package(model, images, classes, layer), strict=True)
    for one, other in pairs:
        assert float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]) > 0.999


def test_blank_map_stays_zero_beside_others() -> None:
    model = Net()
    with torch.no_grad():
        model.head.weight[2] = 0
    maps = grad_cam(model, _images(size=16), CLASSES, model.norm)
    assert not maps[1].any()
    assert maps[0].max() == maps[2].max() == 1


def test_map_lies_where_the_class_is() -> None:
    detector = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        detector[0].weight[:] = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])[..., None, None]
    images = torch.zeros(2, 3, 32, 32)
    images[:, 0, 4:8, 20:24] = 1  # class 0: red, upper right
    images[:, 1, 24:28, 6:10] = 1  # class 1: green, lower left
    maps = grad_cam(detector, images, torch.tensor([0, 1]), detector[1])
    assert torch.equal(maps[0] == 1, images[0, 0] == 1)
    assert torch.equal(maps[1] == 1, images[0, 1] == 1)
    assert set(maps.unique().tolist()) == {0.0, 1.0}


class ReturnsPair(nn.Module):
    def forward(self, values: Tensor) -> tuple[Tensor, str]:
        return values, "note"


class Paired(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.pair = Net(), ReturnsPair()

    def forward(self, images: Tensor) -> Tensor:
        left, _ = self.pair(self.net.act(self.net.norm(self.net.left(images))))
        return self.net.head(torch.cat([left.mean(dim=(2, 3)), left.amax(dim=(2, 3))], dim=1))


def test_select_picks_the_tensor_of_a_layer_that_returns_several() -> None:
    model, images = Paired(), _images(size=16)
    found = grad_cam(model, images, CLASSES, model.pair, select=lambda pair: pair[0])
    assert torch.equal(found, grad_cam(model, images, CLASSES, model.net.act))
    with pytest.raises(ConfigError, match="without computing a new one"):
        grad_cam(model, images, CLASSES, model.pair, select=lambda pair: pair[0] * 2)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(self.conv(images)).mean(dim=(2, 3))


def test_layers_that_cannot_be_explained_are_refused() -> None:
    net, twice, images = Net(named=True), Twice(), _images(size=16)
    zeros = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ConfigError, match="ran 2 times"):
        grad_cam(twice, images, zeros, twice.conv)
    with pytest.raises(ConfigError, match="ran 0 times"):
        grad_cam(net, images, zeros, nn.ReLU())
    with pytest.raises(ConfigError, match="does not act on the logits"):
        grad_cam(net, images, zeros, net.idle)
    with pytest.raises(ConfigError, match=r"gives \[3, 5\]"):
        grad_cam(net, images, zeros, net.head)
    with pytest.raises(ConfigError, match="no target layer"):
        grad_cam(net, images, zeros, [])


@pytest.mark.parametrize("classes", [[0, 1], [0, 1, 5], [-1, 0, 1]])
def test_classes_that_do_not_fit_are_refused(classes: list[int]) -> None:
    model = Net()
    with pytest.raises(ConfigError, match="do not fit 3 images"):
        grad_cam(model, _images(size=16), torch.tensor(classes), model.norm)


def test_every_branch_of_a_hybrid_classifier_has_a_map() -> None:
    vit = {"patch_size": 8, "depth": 4, "embed_dim": 24, "num_heads": 2}
    branches = [
        {"backbone": "vit_tiny", "options": vit},
        {"backbone": "small_cnn", "options": {"widths": [8, 8, 8, 8]}},
    ]
    config = ModelConfig.model_validate({"branches": branches, "exits": [1], "fusion_width": 16})
    model = build_model(config, classes=7, size=SIZE, seed=0)
    images, classes = _images(), torch.tensor([0, 3, 6])
    layers = [layer.module for layer in target_layers(model, SIZE)]
    assert len(layers) == 2
    for chosen in (layers, *layers):
        maps = grad_cam(model, images, classes, chosen)
        assert maps.shape == (3, SIZE, SIZE)
        assert maps.amax(dim=(1, 2)).max() == 1
