"""Which layer of a network a class activation map reads: a rule for each family of backbones.

- A network that rectifies its trunk (ResNet, the small CNN): the output of a stage, behind its activation.
- Inverted residuals (EfficientNet, EfficientNet-Lite, MobileNetV3 and V4): behind the last stage the activation of the
  head's convolution, where there is one; else the output of a stage. The last activation inside a stage lies on a
  branch that a shortcut passes by: maps of it were blank for up to a third of pictures (docs/explanations.md).
- ConvNeXt, whose trunk has no activation: the norm that reads a stage's output, and behind the last stage, where the
  norm comes after pooling, the output itself. A norm's gradient is orthogonal to what it reads, so the map before
  rectifying sums to nearly zero over the image and is not blank.
- A ViT: the norm before the last attention; behind it only the class token has a gradient.

Where a small input leaves the last stage fewer than seven cells a side, the deepest stage with as many is read.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import nn

from dermdistill.errors import ConfigError
from dermdistill.models.branch import Branch, depth_indices, is_transformer
from dermdistill.models.hybrid import Deployed, HybridClassifier

# What a stride of 32 leaves of the usual 224 pixels. Fewer a side tell a quadrant, not a place.
LEAST_CELLS = 7


class TargetLayer(NamedTuple):
    """A layer to read.

    Attributes:
        name: dotted path in the model.
        module: the layer.
        kind: ``activation``, ``norm``, ``stage output`` of a trunk without activations, or ``final map`` of a family
            without a rule.
    """

    name: str
    module: nn.Module
    kind: str


class _Read(NamedTuple):
    """A stage of a pyramid to read: its number in ``feature_info``, its module, and whether it is the last."""

    number: int
    stage: nn.Module
    last: bool


Found = tuple[nn.Module, str]


def _inverted_residual(network: Any, read: _Read) -> Found:
    head = getattr(network, "bn2", None)
    if read.last and isinstance(head, nn.Module) and _is_activated(head):
        return head, "activation"
    return read.stage, "stage output"


def _rectified(network: Any, read: _Read) -> Found:
    return read.stage, "activation"


def _convnext(network: Any, read: _Read) -> Found:
    if read.last:
        return read.stage, "stage output"
    reader: nn.Module = network.stages[read.number + 1].downsample[0]
    return reader, "norm"


PYRAMIDS: dict[str, Callable[[Any, _Read], Found]] = {
    "SmallCNN": _rectified,
    "ResNet": _rectified,
    "EfficientNet": _inverted_residual,
    "MobileNetV3": _inverted_residual,
    "ConvNeXt": _convnext,
}


def target_layers(model: nn.Module, size: int) -> tuple[TargetLayer, ...]:
    """The layer of each branch that class activation maps read, for square inputs of ``size`` pixels.

    Args:
        model: a ``HybridClassifier`` or what it deploys; or a timm network of a family that has a rule.
        size: side of the input in pixels.

    Raises:
        ConfigError: a network without a rule.
    """
    whole = model.model if isinstance(model, Deployed) else model
    if isinstance(whole, HybridClassifier):
        found = [_branch_layer(branch, size) for branch in whole.branches if isinstance(branch, Branch)]
    else:
        found = [_network_layer(whole, size)]
    names = {module: name for name, module in model.named_modules()}
    return tuple(TargetLayer(names[module], module, kind) for module, kind in found)


def candidate_layers(model: nn.Module, size: int) -> tuple[TargetLayer, ...]:
    """Layers that a class activation map could read, to try the rule or find one for a new family.

    Of each branch: the four depths that fusion and exits read, the last activation inside each of these stages (in a
    ViT the norms before their attention instead of both), and what ``target_layers`` chooses. One of them alone is
    read at a time.

    Args, Raises: as ``target_layers``.
    """
    whole = model.model if isinstance(model, Deployed) else model
    networks = [branch.network for branch in whole.branches] if isinstance(whole, HybridClassifier) else [whole]
    found = [one for network in networks for one in _candidates(network)]
    names = {module: name for name, module in model.named_modules()}
    every = [TargetLayer(names[module], module, kind) for module, kind in found] + [*target_layers(model, size)]
    return tuple({layer.name: layer for layer in every}.values())


def _candidates(network: Any) -> Iterator[Found]:
    info = [dict(stage) for stage in network.feature_info]
    for index in depth_indices(info):
        stage = network.get_submodule(info[index]["module"])
        if is_transformer(network):
            yield stage.norm1, "norm"
            continue
        yield stage, "stage output"
        inside = [module for module in stage.modules() if hasattr(module, "running_mean") and _is_activated(module)]
        yield from ((module, "activation inside") for module in inside[-1:])


def _is_activated(module: Any) -> bool:
    """Whether it is one of timm's norms with an activation of its own."""
    act = getattr(module, "act", None)
    return isinstance(act, nn.Module) and not isinstance(act, nn.Identity)


def _branch_layer(branch: Branch, size: int) -> Found:
    known = is_transformer(branch.network) or _rule_of(branch.network) is not None
    return _network_layer(branch.network, size) if known else (branch.last_map, "final map")


def _rule_of(network: nn.Module) -> Callable[[Any, _Read], Found] | None:
    names = [kind.__name__ for kind in type(network).__mro__]
    return next((PYRAMIDS[name] for name in names if name in PYRAMIDS), None)


def _network_layer(network: Any, size: int) -> Found:
    if is_transformer(network):
        return network.blocks[-1].norm1, "norm"
    rule = _rule_of(network)
    if rule is None:
        raise ConfigError(
            f"no rule which layer of a {type(network).__name__} to read",
            rule=f"known are {', '.join(PYRAMIDS)} and vision transformers, alone or as branches",
            next_step="name the layers in the settings of the method",
        )
    return rule(network, _read(network, size))


def _read(network: Any, size: int) -> _Read:
    info = [dict(stage) for stage in network.feature_info]
    depths = depth_indices(info)
    fine = [index for index in depths if size // int(info[index]["reduction"]) >= LEAST_CELLS]
    index = max(fine, default=depths[0])
    return _Read(index, network.get_submodule(info[index]["module"]), index == depths[-1])
