"""Learning rate over a run: linear warm-up, then a cosine to zero."""

import math

from torch import nn
from torch.optim import AdamW

from dermdistill.config import OptimConfig
from dermdistill.models.hybrid import HybridClassifier


def learning_rate_factor(step: int, *, steps: int, warmup_steps: int) -> float:
    """Share of the peak learning rate at a step, in (0, 1]; Loshchilov & Hutter 2017 (arXiv 1608.03983), eq. 5.

    Args:
        step: counted from 0.
        steps: of the whole run.
        warmup_steps: steps of linear growth from near zero.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def make_optimizer(model: nn.Module, objective: nn.Module, config: OptimConfig) -> AdamW:
    """AdamW (Loshchilov & Hutter 2019); pretrained branches may learn more slowly, vectors have no weight decay.

    Each group keeps its peak rate as ``peak``.
    """
    pretrained = model.pretrained_parameters() if isinstance(model, HybridClassifier) else ()
    slow = {id(parameter) for parameter in pretrained}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in [*model.parameters(), *objective.parameters()]:
        groups.setdefault((id(parameter) in slow, parameter.ndim > 1), []).append(parameter)
    settings = []
    for (is_slow, decays), parameters in sorted(groups.items()):
        peak = config.learning_rate * (config.backbone_factor if is_slow else 1.0)
        decay = config.weight_decay if decays else 0.0
        settings.append({"params": parameters, "lr": peak, "peak": peak, "weight_decay": decay})
    return AdamW(settings, fused=True)


def set_learning_rate(optimizer: AdamW, factor: float) -> None:
    """Set each group's rate to its peak times the factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
