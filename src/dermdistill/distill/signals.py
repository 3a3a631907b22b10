"""What a student can learn from a teacher's answer to a batch, and which parts of it are wanted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from dermdistill.config import DistillConfig
from dermdistill.distill.feature_losses import attention_map
from dermdistill.models.backbones import DEPTHS
from dermdistill.models.output import Output


@dataclass(frozen=True)
class SignalPlan:
    """Parts of a teacher's answer beside its final logits.

    Attributes:
        exits: depths whose exit logits are wanted.
        fused: whether the fused features are wanted.
        attention: depths whose attention maps are wanted.
    """

    exits: tuple[int, ...] = ()
    fused: bool = False
    attention: tuple[int, ...] = ()


class Signals(NamedTuple):
    """A teacher's answer to B views.

    Attributes:
        logits: [B, K].
        exits: [B, K] by depth.
        fused: [B, W], or None where it is not wanted.
        attention: [B, H, W] by depth, each row non-negative.
    """

    logits: Tensor
    exits: dict[int, Tensor]
    fused: Tensor | None
    attention: dict[int, Tensor]


@dataclass(frozen=True)
class ExitWeights:
    """What one exit learns from, and how much: features, the teacher's exit, labels."""

    depth: int
    features: float
    logits: float
    labels: float
    temperature: float


def exit_weights(config: DistillConfig, exit_depths: Sequence[int]) -> list[ExitWeights]:
    """The weights of each exit: its own entry in ``stages``, or an equal part of ``alpha``.

    Of alpha, ``feature_share`` goes to matching the teacher's fused features, from the final fused features and from
    each exit in equal parts, and the rest to the exits' logits.
    """
    own = {stage.depth: stage for stage in config.stages}
    weights = []
    for depth in exit_depths:
        if depth in own:
            stage = own[depth]
            temperature = stage.temperature or config.temperature
            weights.append(ExitWeights(depth, stage.alpha, stage.beta, stage.gamma, temperature))
        else:
            logits = config.alpha * (1 - config.feature_share) / len(exit_depths)
            weights.append(ExitWeights(depth, final_features(config, exit_depths), logits, 0.0, config.temperature))
    return weights


def final_features(config: DistillConfig, exit_depths: Sequence[int]) -> float:
    """Weight of matching the final fused features: the part of alpha that each exit has too."""
    return config.alpha * config.feature_share / (1 + len(exit_depths))


def signal_plan(config: DistillConfig, exit_depths: Sequence[int]) -> SignalPlan:
    """What a student with exits at these depths wants from its teachers."""
    weights = exit_weights(config, exit_depths)
    features = final_features(config, exit_depths) > 0 or any(exit.features > 0 for exit in weights)
    return SignalPlan(
        exits=tuple(sorted(exit.depth for exit in weights if exit.logits > 0)),
        fused=features or config.relational > 0,
        attention=attention_depths(exit_depths) if config.attention > 0 else (),
    )


def attention_depths(exit_depths: Sequence[int]) -> tuple[int, ...]:
    """Depths at which attention is transferred: those of the exits, and the last."""
    return tuple(sorted({*exit_depths, DEPTHS - 1}))


def attention_of(output: Output, depth: int) -> Tensor:
    """Attention of all branches at a depth, [B, H, W]: each divided by its mean, pooled to the smallest, averaged."""
    maps = [attention_map(features) for features in output.features[depth::DEPTHS]]
    sides = (min(one.shape[1] for one in maps), min(one.shape[2] for one in maps))
    scaled = [one / one.mean(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(one.dtype).tiny) for one in maps]
    pooled = [functional.adaptive_avg_pool2d(one[:, None], sides)[:, 0] for one in scaled]
    return torch.stack(pooled).mean(dim=0)


def signals_of(output: Output, exit_depths: Sequence[int], plan: SignalPlan) -> Signals:
    """The wanted parts of a teacher's output.

    Args:
        output: of the teacher.
        exit_depths: depths of the teacher's exits, in the order of ``output.exits``.
        plan: what is wanted; its exits are among the teacher's.
    """
    exits = dict(zip(exit_depths, output.exits, strict=True))
    return Signals(
        logits=output.logits,
        exits={depth: exits[depth] for depth in plan.exits},
        fused=output.fused if plan.fused else None,
        attention={depth: attention_of(output, depth) for depth in plan.attention},
    )
