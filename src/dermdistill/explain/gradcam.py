"""Grad-CAM: which parts of an image raised the logit of a class.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV
2017, equations 1 and 2. The backward pass stops at the target layer, so it costs little more than a forward
pass, works on frozen backbones and leaves no gradients behind.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dermdistill.errors import ConfigError
from dermdistill.explain.activations import (
    Select,
    as_grid,
    as_layers,
    captured,
    check_classes,
    enlarged,
    evaluation_mode,
    logits_in,
    normalised,
    only,
    whole,
)


def weighted_map(activation: Tensor, gradient: Tensor) -> Tensor:
    """Equations 1 and 2: channels [B, C, h, w] weighted by mean gradient, summed, rectified: [B, h, w]."""
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * activation).sum(dim=1).relu()


def grad_cam(
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    layers: nn.Module | Sequence[nn.Module],
    *,
    select: Select = whole,
) -> Tensor:
    """Grad-CAM heat maps. The model is left as it was: mode, hooks, weights, gradients.

    Args:
        model: images -> logits [B, K], or a tuple with the logits first. In evaluation mode images must not
            act on each other.
        images: float32 [B, 3, S, S], normalised.
        classes: int64 [B], the class whose logit is explained.
        layers: target layer, or one for each branch of a hybrid: their maps are added up before they are
            normalised, so a branch counts by how much it moves the logit (see ``branch_effects``). Take the last
            post-activation layer of a convolutional network (behind a linear bottleneck maps are blank), and
            ``norm1`` of the last block of a ViT (behind its attention only the class token has a gradient);
            ``target_layers`` does.
        select: picks the tensor [B, C, H, W] or [B, N, C] out of what a layer returns.

    Returns:
        float32 [B, S, S] in [0, 1]; the largest value of each map is 1, a blank map is all zero.

    Raises:
        ConfigError: a layer that does not run exactly once, does not act on the logits or has an unknown
            shape; classes that do not fit.
    """
    return normalised(branch_effects(model, images, classes, layers, select=select).sum(dim=0))


def branch_effects(
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    layers: nn.Module | Sequence[nn.Module],
    *,
    select: Select = whole,
) -> Tensor:
    """The map of each layer before it is normalised: how much of the logit a place explains, per area of the image.

    A cell of a map is the share of the logit that its activation explains, to first order. Grids differ in cells:
    the same effect spread over more of them has smaller values. So a map is multiplied by its number of cells; its
    mean over the image is then the branch's effect on the logit, and maps of different grids can be added.

    Returns:
        float32 [L, B, S, S] >= 0, one map a layer; units of the logit.

    Raises:
        ConfigError: as ``grad_cam``.
    """
    targets = as_layers(layers)
    frozen = {name: parameter.detach() for name, parameter in model.named_parameters()}
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        evaluation_mode(model),
        captured(targets, select, gradients=True) as stores,
    ):
        output = functional_call(model, frozen, (images.detach(),))
        activations = only(stores, targets)
        logits = logits_in(output)
        check_classes(classes, len(images), logits)
        wanted = logits.gather(1, classes[:, None].to(logits.device)).sum()
        gradients = _gradients(wanted, activations)
    size = (images.shape[2], images.shape[3])
    return torch.stack(
        [
            _effect(as_grid(a.detach().float()), as_grid(g.float()), size)
            for a, g in zip(activations, gradients, strict=True)
        ]
    )


def _effect(activation: Tensor, gradient: Tensor, size: tuple[int, int]) -> Tensor:
    small = weighted_map(activation, gradient)
    return enlarged(small * (small.shape[1] * small.shape[2]), size)


def _gradients(wanted: Tensor, activations: list[Tensor]) -> tuple[Tensor, ...]:
    found = torch.autograd.grad(wanted, activations, allow_unused=True) if wanted.requires_grad else (None,)
    if any(gradient is None for gradient in found):
        raise ConfigError(
            "a target layer does not act on the logits",
            rule="Grad-CAM needs a layer between the image and the classifier",
        )
    return tuple(gradient for gradient in found if gradient is not None)
