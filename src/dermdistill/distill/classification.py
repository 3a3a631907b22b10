"""The classification loss that a configuration means, bound to the training part's class frequencies."""

from collections.abc import Callable

import torch
from torch import Tensor

from dermdistill.config import LossConfig
from dermdistill.distill.losses import cross_entropy, focal_loss, logit_adjusted_cross_entropy
from dermdistill.errors import ConfigError

ClassificationLoss = Callable[[Tensor, Tensor], Tensor]


def classification_loss(config: LossConfig, counts: Tensor) -> ClassificationLoss:
    """A function (logits [B, K], targets [B, K]) -> scalar.

    Args:
        config: which remedy for class imbalance, if any: logit adjustment, focal loss, or weights ``1 / (K f_k)`` with
            a class's share f_k of the training images. The sampler acts on the order of images, not here.
        counts: training images of each class, [K].

    Raises:
        ConfigError: a class has no training image, or alpha is asked for with other than two classes.
    """
    frequencies = counts.to(torch.float32) / counts.sum()
    if bool((counts == 0).any()):
        raise ConfigError(
            f"training images of each class: {counts.tolist()}",
            rule="every class needs at least one training image",
            next_step="use more data or another split",
        )
    if config.logit_adjustment > 0:
        log_priors = frequencies.log()
        return lambda logits, targets: logit_adjusted_cross_entropy(
            logits, targets, log_priors=log_priors.to(logits.device), tau=config.logit_adjustment
        )
    if config.focal_gamma > 0:
        alpha = _focal_alpha(config.focal_alpha, len(counts))
        return lambda logits, targets: focal_loss(
            logits,
            targets,
            gamma=config.focal_gamma,
            alpha=None if alpha is None else alpha.to(logits.device),
        )
    weights = 1 / (len(counts) * frequencies) if config.class_weights else None
    return lambda logits, targets: cross_entropy(
        logits, targets, class_weights=None if weights is None else weights.to(logits.device)
    )


def _focal_alpha(alpha: float | None, classes: int) -> Tensor | None:
    if alpha is None:
        return None
    if classes != 2:
        raise ConfigError(f"focal_alpha with {classes} classes", rule="alpha weighs melanoma against the rest")
    return torch.tensor([1 - alpha, alpha])
