"""What a layer of a network gives for some images: captured on the way, and brought into the form of a grid.

Grad-CAM differentiates at these points, Score-CAM makes masks of them. The model is left as it was: mode and hooks.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from dermdistill.errors import ConfigError

Select = Callable[[Any], Tensor]

# Class, distillation and register tokens: what timm's transformers put before the patches.
MOST_PREFIX_TOKENS = 8


def whole(output: Any) -> Any:
    """What a layer returns, as it is: the ``Select`` of layers that return one tensor."""
    return output


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
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
def captured(layers: Sequence[nn.Module], select: Select, *, gradients: bool) -> Iterator[list[list[Tensor]]]:
    """Activations of the layers during a forward pass.

    The network goes on with a clone: an in-place ReLU behind the layer would otherwise clip what was captured.

    Args:
        layers: of the model that runs inside the block.
        select: picks the tensor out of what a layer returns.
        gradients: make the activations points at which to differentiate.
    """
    stores: list[list[Tensor]] = [[] for _ in layers]

    def hook_into(store: list[Tensor]) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            found = select(output)
            fresh = gradients and not found.requires_grad
            activation = found.detach().requires_grad_() if fresh else found
            store.append(activation)
            return _replaced(output, found, activation.clone())

        return hook

    handles = [layer.register_forward_hook(hook_into(store)) for layer, store in zip(layers, stores, strict=True)]
    try:
        yield stores
    finally:
        for handle in handles:
            handle.remove()


def only(stores: Sequence[Sequence[Tensor]], layers: Sequence[nn.Module]) -> list[Tensor]:
    """The one activation of each layer.

    Raises:
        ConfigError: a layer ran several times or never.
    """
    for store, layer in zip(stores, layers, strict=True):
        if len(store) != 1:
            raise ConfigError(
                f"the target layer {type(layer).__name__} ran {len(store)} times in one forward pass",
                rule="a target layer belongs to the model and runs exactly once",
                next_step="choose the layer after the last block of a branch",
            )
    return [store[0] for store in stores]


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


def as_layers(layers: nn.Module | Sequence[nn.Module]) -> list[nn.Module]:
    """One target layer or several as a list.

    Raises:
        ConfigError: none.
    """
    targets = [layers] if isinstance(layers, nn.Module) else list(layers)
    if not targets:
        raise ConfigError("no target layer was given", rule="a class activation map needs at least one layer")
    return targets


def grids(
    model: nn.Module, images: Tensor, layers: Sequence[nn.Module], select: Select = whole
) -> tuple[list[Tensor], Any]:
    """One forward pass without gradients: the grid [B, C, h, w] of each layer, float32, and what the model returns.

    Raises:
        ConfigError: a layer that does not run exactly once or has an unknown shape.
    """
    with torch.no_grad(), evaluation_mode(model), captured(layers, select, gradients=False) as stores:
        output = model(images)
    return [as_grid(found.float()) for found in only(stores, layers)], output


def logits_in(output: Any) -> Tensor:
    """The logits [B, K] in what a classifier returns: the tensor itself, or the first of a tuple.

    Raises:
        ConfigError: something else.
    """
    logits = output if isinstance(output, Tensor) else output[0] if isinstance(output, (tuple, list)) else None
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        shape = list(logits.shape) if isinstance(logits, Tensor) else type(output).__name__
        raise ConfigError(f"the model gives {shape}", rule="logits [B, K], or a tuple with the logits first")
    return logits


def check_classes(classes: Tensor, batch: int, logits: Tensor) -> None:
    """Refuse classes that are not one index an image among the classes of the logits [B, K].

    Raises:
        ConfigError: another number of them, or an index outside 0..K-1.
    """
    sound = classes.shape == (batch,) and not classes.is_floating_point()
    if not sound or (batch and (int(classes.min()) < 0 or int(classes.max()) >= logits.shape[1])):
        raise ConfigError(
            f"classes {classes.tolist()} do not fit {batch} images with logits {list(logits.shape)}",
            rule="one class index an image, each among the classes of logits [B, K]",
        )


def enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [B, h, w] at the size of the images, [B, H, W], bilinear: each cell keeps its place."""
    return interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def normalised(maps: Tensor) -> Tensor:
    """Maps [B, S, S] >= 0, each divided by its largest value; an all-zero map stays zero."""
    largest = maps.amax(dim=(1, 2), keepdim=True)
    return torch.where(largest > 0, maps / torch.where(largest > 0, largest, 1.0), 0.0)
