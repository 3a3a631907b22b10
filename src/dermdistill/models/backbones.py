"""Backbones by name: the listed ones, and any other that timm knows.

Adding one is an entry in ``BACKBONES`` (a timm name) or, for a network of our own, in ``OWN_BACKBONES``.
"""

from collections.abc import Callable
from typing import Any

import timm
from torch import nn

from dermdistill.errors import ConfigError
from dermdistill.models.small_cnn import SmallCNN

DEPTHS = 4

BACKBONES: dict[str, str] = {
    **{f"resnet{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101, 152)},
    **{f"efficientnet_b{scale}": f"efficientnet_b{scale}" for scale in range(8)},
    **{f"efficientnet_lite{scale}": f"efficientnet_lite{scale}" for scale in range(3)},
    "mobilenetv3_small": "mobilenetv3_small_100",
    "mobilenetv3_large": "mobilenetv3_large_100",
    "mobilenetv4_small": "mobilenetv4_conv_small",
    "convnext_atto": "convnext_atto",
    "convnext_tiny": "convnext_tiny",
    "vit_tiny": "vit_tiny_patch16_224",
    "vit_small": "vit_small_patch16_224",
}
OWN_BACKBONES: dict[str, Callable[..., nn.Module]] = {"small_cnn": SmallCNN}


def timm_name(backbone: str) -> str:
    """The timm name behind a listed backbone, or the name itself where timm knows it.

    Raises:
        ConfigError: nobody knows the name.
    """
    name = BACKBONES.get(backbone, backbone)
    if not timm.is_model(name):
        close = timm.list_models(f"*{backbone.split('_', maxsplit=1)[0]}*")[:8]
        raise ConfigError(
            f"unknown backbone {backbone!r}",
            rule=f"one of {', '.join([*BACKBONES, *OWN_BACKBONES])}, or any timm name",
            next_step=f"close timm names: {', '.join(close) or 'none'}",
        )
    return name


def create_backbone(
    backbone: str, *, size: int, options: dict[str, Any] | None = None, pretrained: bool = False
) -> nn.Module:
    """A headless network with ``forward_intermediates`` and ``forward_head``.

    Residual networks start with ordinary last BatchNorm gammas: zeros there break quantization-aware training and fake
    the sizes of quantized files.

    Args:
        backbone: listed name or timm name.
        size: side of the input in pixels, for networks whose shape depends on it.
        options: further keyword arguments of the network.
        pretrained: fetch timm's hub weights.

    Raises:
        ConfigError: unknown name, unfit options, or a network whose depths cannot be read.
    """
    arguments = dict(options or {})
    if backbone in OWN_BACKBONES:
        return _call(backbone, OWN_BACKBONES[backbone], arguments)
    name = timm_name(backbone)
    settings = timm.get_pretrained_cfg(name)
    if settings is not None and settings.fixed_input_size:
        arguments.setdefault("img_size", size)
    if name.startswith("resnet"):
        arguments.setdefault("zero_init_last", False)
    network = _call(
        backbone,
        lambda **kwargs: timm.create_model(name, pretrained=pretrained, num_classes=0, **kwargs),
        arguments,
    )
    if not hasattr(network, "forward_intermediates"):
        raise ConfigError(
            f"backbone {backbone!r} does not give its intermediate features",
            rule="a timm network with forward_intermediates",
        )
    return network


def keep_stages(network: nn.Module, stages: int) -> None:
    """Cut a pyramid, in place, behind the first ``stages`` of its stages, together with its final convolution.

    What is left keeps its weights, pretrained ones too: an EfficientNet-Lite0 cut behind its fourth stage is a fifth of
    the whole. Its final map is the output of the last stage that is kept.

    Args:
        network: of ``create_backbone``.
        stages: as ``feature_info`` counts them, from the shallowest; all of them drops the final convolution alone.

    Raises:
        ConfigError: the network has fewer stages, or cannot be cut.
    """
    speaker: Any = network
    info = [dict(stage) for stage in speaker.feature_info]
    if not DEPTHS <= stages <= len(info):
        raise ConfigError(
            f"a backbone is cut behind stage {stages}", rule=f"at least {DEPTHS}, and it has {len(info)} stages"
        )
    if not hasattr(network, "prune_intermediate_layers") or len({stage["reduction"] for stage in info}) == 1:
        raise ConfigError(
            f"a {type(network).__name__} cannot be cut",
            rule="a timm pyramid with prune_intermediate_layers",
            next_step="leave `stages` of that branch away",
        )
    speaker.prune_intermediate_layers([stages - 1], prune_norm=True, prune_head=True)
    speaker.feature_info = info[:stages]
    speaker.head_hidden_size = speaker.num_features = int(info[stages - 1]["num_chs"])


def _call(backbone: str, build: Callable[..., nn.Module], arguments: dict[str, Any]) -> nn.Module:
    try:
        return build(**arguments)
    except (TypeError, AssertionError, ValueError) as error:
        raise ConfigError(
            f"backbone {backbone!r} refuses its options {arguments}: {error}",
            next_step="check `options` of that branch in the recipe",
        ) from error
