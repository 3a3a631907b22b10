from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from dermdistill.config import ModelConfig
from dermdistill.errors import ConfigError
from dermdistill.explain.activations import grids
from dermdistill.explain.gradcam import grad_cam
from dermdistill.explain.target_layers import candidate_layers, target_layers
from dermdistill.models.build import build_model
from dermdistill.models.hybrid import HybridClassifier

SIZE = 64
VIT = {"patch_size": 8, "depth": 4, "embed_dim": 24, "num_heads": 2}
CONVNEXT = {"depths": (1, 1, 2, 1), "dims": (8, 8, 12, 16)}
# The lowest value of an activation at its minimum: SiLU -.28, hard-swish -.375, GELU -.17, the rectifiers 0.
LOWEST_ACTIVATED = -0.376

# Backbone, its options, input size, cells a side and kind of the layer.
FAMILIES: dict[str, tuple[str, dict[str, Any], int, int, str]] = {
    "small CNN": ("small_cnn", {"widths": (4, 8, 8, 8)}, SIZE, 8, "activation"),
    "ResNet": ("resnet18", {"channels": (8, 8, 16, 16)}, SIZE, 8, "activation"),
    "ResNet, last": ("resnet18", {"channels": (8, 8, 16, 16)}, 224, 7, "activation"),
    "EfficientNet": ("efficientnet_b0", {}, SIZE, 8, "stage output"),
    "EfficientNet, last": ("efficientnet_b0", {}, 224, 7, "activation"),
    "EfficientNetV2": ("tf_efficientnetv2_b0", {}, 32, 8, "stage output"),
    "EfficientNet-Lite": ("efficientnet_lite0", {}, SIZE, 8, "stage output"),
    "EfficientNet-Lite, 160 pixels": ("efficientnet_lite0", {}, 160, 10, "stage output"),
    "EfficientNet-Lite, last": ("efficientnet_lite0", {}, 224, 7, "activation"),
    "MobileNetV3": ("mobilenetv3_small", {}, SIZE, 8, "stage output"),
    "MobileNetV3, last": ("mobilenetv3_small", {}, 224, 7, "stage output"),
    "MobileNetV4": ("mobilenetv4_small", {}, SIZE, 8, "stage output"),
    "MobileNetV4, last": ("mobilenetv4_small", {}, 224, 7, "stage output"),
    "ConvNeXt": ("convnext_atto", CONVNEXT, SIZE, 8, "norm"),
    "ConvNeXt, last": ("convnext_atto", CONVNEXT, 224, 7, "stage output"),
    "ViT": ("vit_tiny", VIT, SIZE, 8, "norm"),
}


def _images(size: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def _hybrid(*branches: dict[str, Any], size: int = SIZE, settle: bool = True) -> HybridClassifier:
    config = ModelConfig.model_validate({"branches": branches, "exits": [], "fusion_width": 16})
    model = build_model(config, classes=7, size=size, seed=0)
    with torch.no_grad():
        for _ in range(3 if settle else 0):  # BatchNorm statistics of real activations
            model.train()(_images(size, 4))
    return model.eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_of_each_family_is_activated_or_a_norm_and_its_maps_are_not_blank(family: str) -> None:
    backbone, options, size, cells, kind = FAMILIES[family]
    model = _hybrid({"backbone": backbone, "options": options}, size=size)
    (layer,) = target_layers(model, size)
    assert layer.kind == kind and model.get_submodule(layer.name) is layer.module
    images = _images(size)
    (grid,), _ = grids(model, images, [layer.module])
    assert grid.shape[2:] == (cells, cells)
    if kind == "activation":
        assert float(grid.min()) >= LOWEST_ACTIVATED
        assert float(grid.max()) > 0
    elif kind == "norm":
        # Affine weights are 1 and 0 at the start, so every place has mean 0 and variance 1 over the channels.
        assert float(grid.mean(dim=1).abs().max()) < 1e-4
        torch.testing.assert_close(grid.var(dim=1, correction=0), torch.ones_like(grid[:, 0]), rtol=0.02, atol=0)
    # Nothing may speak for one class of a random network, but something does for most.
    maps = grad_cam(model, images.repeat_interleave(7, dim=0), torch.arange(7).repeat(2), layer.module)
    seen = maps.amax(dim=(1, 2)).view(2, 7).sum(dim=1)
    assert int(seen.min()) >= 4
    assert float(maps.std()) > 0.05


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "efficientnet_b0", "mobilenetv3_small"])
def test_no_shortcut_passes_by_the_layer_that_is_read(backbone: str) -> None:
    """Where all of a stage's effect runs through what is read, setting it to zero hides the image from what follows."""
    model = _hybrid({"backbone": backbone}, size=128)
    (layer,) = target_layers(model, 128)
    branch: Any = model.branches[0]

    def last_features(silenced: nn.Module) -> Tensor:
        handle = silenced.register_forward_hook(lambda module, given, output: torch.zeros_like(output))
        try:
            with torch.no_grad():
                found: Tensor = branch(_images(128)).maps[-1]
        finally:
            handle.remove()
        return found

    first, second = last_features(layer.module)
    assert torch.equal(first, second)
    inside = [m for m in layer.module.modules() if hasattr(m, "running_mean")]
    first, second = last_features(inside[-2])  # the activation inside the last block
    assert not torch.equal(first, second)


def test_cut_network_is_read_at_the_output_of_its_last_stage() -> None:
    model = _hybrid({"backbone": "efficientnet_lite0", "stages": 5}, size=224)
    (layer,) = target_layers(model, 224)
    assert (layer.name, layer.kind) == ("branches.0.network.blocks.6", "stage output")


def test_hybrid_and_what_it_deploys_have_a_layer_for_each_branch() -> None:
    model = _hybrid(
        {"backbone": "vit_tiny", "options": VIT}, {"backbone": "small_cnn", "options": {"widths": (4, 4, 4, 4)}}
    )
    layers, deployed = target_layers(model, SIZE), target_layers(model.deployed(), SIZE)
    assert [layer.name for layer in layers] == ["branches.0.network.blocks.3.norm1", "branches.1.network.stages.2"]
    assert [layer.name for layer in deployed] == [f"model.{layer.name}" for layer in layers]
    assert [layer.module for layer in deployed] == [layer.module for layer in layers]


def test_network_with_its_own_classifier_is_read_where_its_branch_is() -> None:
    model = timm.create_model("efficientnet_lite0", num_classes=3)
    assert [(layer.name, layer.kind) for layer in target_layers(model, 224)] == [("bn2", "activation")]


@pytest.mark.parametrize(
    ("branches", "expected"),
    [
        (
            [{"backbone": "efficientnet_lite0"}],
            {f"0.network.blocks.{end}" for end in ("1", "1.1.bn2", "2", "2.1.bn2", "4", "4.2.bn2", "6", "6.0.bn2")}
            | {"0.network.bn2"},
        ),
        (
            [{"backbone": "vit_tiny", "options": VIT}, {"backbone": "small_cnn", "options": {"widths": (4, 4, 4, 4)}}],
            {f"0.network.blocks.{block}.norm1" for block in range(4)} | {f"1.network.stages.{one}" for one in range(4)},
        ),
    ],
)
def test_candidates_are_the_depths_and_the_activations_inside(
    branches: list[dict[str, Any]], expected: set[str]
) -> None:
    model = _hybrid(*branches, size=256 if len(branches) == 1 else SIZE, settle=False)
    size = 256 if len(branches) == 1 else SIZE
    found = candidate_layers(model, size)
    assert {layer.name.removeprefix("branches.") for layer in found} == expected
    assert {layer.name for layer in target_layers(model, size)} <= {layer.name for layer in found}
    assert all(model.get_submodule(layer.name) is layer.module for layer in found)


def test_family_without_a_rule_is_read_at_its_final_map_and_says_so() -> None:
    model = _hybrid({"backbone": "regnetx_002"}, settle=False)
    assert [layer.kind for layer in target_layers(model, SIZE)] == ["final map"]
    with pytest.raises(ConfigError, match="no rule which layer of a Linear"):
        target_layers(nn.Linear(3, 3), SIZE)
