"""Grad-CAM: which parts of an image raised the logit of a class.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV
2017, equations 1 and 2. The backward pass stops at the target layer, so it costs little more than a forward
pass, works on frozen backbones and leaves no gradients behind.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import interpolate

from dermdistill.errors import ConfigError

Select = Callable[[Any], Tensor]

# Class, distillation and register tokens: what timm's transformers put before the patches.
MOST_PREFIX_TOKENS = 8


def _whole(output: Any) -> Any:
    return output


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards every module has its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _replaced(output: Any, old: Tensor, new: Tensor) -> Any:
    """``output`` with the tensor ``old``, which it is or holds, replaced by ``new``."""
    if output is old:
        return new
    if isinstance(output, (tuple, list)) and any(item is old for item in output):
        items = [new if item is old else item for item in output]
        return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
    raise ConfigError(
        f"the target layer returns {type(output).__name__}, and select gives something else",
        rule="select picks a tensor out of what the layer returns, without computing a new one",
    )


@contextmanager
def _captured(layers: Sequence[nn.Module], select: Select) -> Iterator[list[list[Tensor]]]:
    """Activations of the layers during a forward pass, as points at which to differentiate.

    The network goes on with a clone: an in-place ReLU behind the layer would otherwise clip what was
    captured.
    """
    captured: list[list[Tensor]] = [[] for _ in layers]

    def hook_into(store: list[Tensor]) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            found = select(output)
            activation = found if found.requires_grad else found.detach().requires_grad_()
            store.append(activation)
            return _replaced(output, found, activation.clone())

        return hook

    handles = [layer.register_forward_hook(hook_into(store)) for layer, store in zip(layers, captured, strict=True)]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


def _only(stores: list[list[Tensor]], layers: Sequence[nn.Module]) -> list[Tensor]:
    for store, layer in zip(stores, layers, strict=True):
        if len(store) != 1:
            raise ConfigError(
                f"the target layer {type(layer).__name__} ran {len(store)} times in one forward pass",
                rule="a target layer belongs to the model and runs exactly once",
                next_step="choose the layer after the last block of a branch",
            )
    return [store[0] for store in stores]


def _logits_of(output: Any, classes: Tensor, batch: int) -> Tensor:
    logits = output if isinstance(output, Tensor) else output[0]
    sound = isinstance(logits, Tensor) and logits.ndim == 2 and classes.shape == (batch,)
    if not sound or (batch and (int(classes.min()) < 0 or int(classes.max()) >= logits.shape[1])):
        shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ConfigError(
            f"classes {classes.tolist()} do not fit {batch} images with logits {shape}",
            rule="one class index an image, each among the classes of logits [B, K]",
        )
    picked: Tensor = logits
    return picked


def as_grid(values: Tensor) -> Tensor:
    """Activations as [B, C, h, w]: convolution outputs as they are, tokens [B, N, C] as a square grid.

    Raises:
        ConfigError: neither, or tokens that are not a square and at most 8 prefix tokens.
    """
    if values.ndim == 4:
        return values
    side = isqrt(values.shape[1]) if values.ndim == 3 else 0
    prefix = values.shape[1] - side * side if side else 0
    if side == 0 or prefix > MOST_PREFIX_TOKENS:
        raise ConfigError(
            f"the target layer gives {list(values.shape)}",
            rule="[B, C, H, W], or tokens [B, N, C] of a square grid with at most 8 tokens before it",
        )
    return values[:, prefix:].transpose(1, 2).reshape(values.shape[0], values.shape[2], side, side)


def weighted_map(activation: Tensor, gradient: Tensor) -> Tensor:
    """Equations 1 and 2: channels [B, C, h, w] weighted by mean gradient, summed, rectified: [B, h, w]."""
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * activation).sum(dim=1).relu()


def normalised(maps: Tensor) -> Tensor:
    """Maps [B, S, S] >= 0, each divided by its largest value; an all-zero map stays zero."""
    largest = maps.amax(dim=(1, 2), keepdim=True)
    return torch.where(largest > 0, maps / torch.where(largest > 0, largest, 1.0), 0.0)


def grad_cam(
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    layers: nn.Module | Sequence[nn.Module],
    *,
    select: Select = _whole,
) -> Tensor:
    """Grad-CAM heat maps. The model is left as it was: mode, hooks, weights, gradients.

    Args:
        model: images -> logits [B, K], or a tuple with the logits first. In evaluation mode images must not
            act on each other.
        images: float32 [B, 3, S, S], normalised.
        classes: int64 [B], the class whose logit is explained.
        layers: target layer, or one for each branch of a hybrid: their maps are averaged before they are
            normalised, so a branch counts by how much it moves the logit. Take the last post-activation layer
            of a convolutional network (behind a linear bottleneck maps are blank), and ``norm1`` of the last
            block of a ViT (behind its attention only the class token has a gradient).
        select: picks the tensor [B, C, H, W] or [B, N, C] out of what a layer returns.

    Returns:
        float32 [B, S, S] in [0, 1]; the largest value of each map is 1, a blank map is all zero.

    Raises:
        ConfigError: a layer that does not run exactly once, does not act on the logits or has an unknown
            shape; classes that do not fit.
    """
    targets = [layers] if isinstance(layers, nn.Module) else list(layers)
    if not targets:
        raise ConfigError("no target layer was given", rule="Grad-CAM needs at least one layer")
    frozen = {name: parameter.detach() for name, parameter in model.named_parameters()}
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        _evaluation_mode(model),
        _captured(targets, select) as stores,
    ):
        output = functional_call(model, frozen, (images.detach(),))
        activations = _only(stores, targets)
        logits = _logits_of(output, classes, len(images))
        wanted = logits.gather(1, classes[:, None].to(logits.device)).sum()
        gradients = _gradients(wanted, activations)
    raw = [
        weighted_map(as_grid(a.detach().float()), as_grid(g.float()))
        for a, g in zip(activations, gradients, strict=True)
    ]
    size = (images.shape[2], images.shape[3])
    resized = [interpolate(one[:, None], size=size, mode="bilinear", align_corners=False)[:, 0] for one in raw]
    return normalised(torch.stack(resized).mean(dim=0))


def _gradients(wanted: Tensor, activations: list[Tensor]) -> tuple[Tensor, ...]:
    found = torch.autograd.grad(wanted, activations, allow_unused=True) if wanted.requires_grad else (None,)
    if any(gradient is None for gradient in found):
        raise ConfigError(
            "a target layer does not act on the logits",
            rule="Grad-CAM needs a layer between the image and the classifier",
        )
    return tuple(gradient for gradient in found if gradient is not None)
