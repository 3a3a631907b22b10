"""Classification losses as pure functions of logits [B, K], and the targets they learn from.

Each loss returns a scalar, the mean over the batch. Hard labels come as ``targets`` [B, K], rows of non-negative
weights that sum to 1: one-hot, or mixed by mixup.
"""

import torch
from torch import Tensor
from torch.nn import functional


def cross_entropy(logits: Tensor, targets: Tensor, *, class_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy ``-sum_k w_k t_k log softmax(z)_k``, the mean over images.

    Bishop, "Pattern recognition and machine learning", 2006, equation 4.108 (there a sum over images, without w).

    Args:
        logits: [B, K].
        targets: [B, K].
        class_weights: [K], or None for ones. The sum is divided by B, not by the sum of weights: a batch of rare
            classes counts for more.
    """
    weighted = targets if class_weights is None else targets * class_weights
    return -(weighted * functional.log_softmax(logits, dim=1)).sum(dim=1).mean()


def logit_adjusted_cross_entropy(logits: Tensor, targets: Tensor, *, log_priors: Tensor, tau: float) -> Tensor:
    """Cross-entropy ``-sum_k t_k log softmax(z + tau log prior)_k``; nothing is added at inference.

    Menon et al., "Long-tail learning via logit adjustment", ICLR 2021 (arXiv 2007.07314), equation 10; with tau 1 the
    balanced softmax of Ren et al. 2020.

    Args:
        logits: [B, K].
        targets: [B, K].
        log_priors: [K], log of the training frequencies.
        tau: strength, 0 is plain cross-entropy.
    """
    return cross_entropy(logits + tau * log_priors, targets)


def focal_loss(logits: Tensor, targets: Tensor, *, gamma: float, alpha: Tensor | None = None) -> Tensor:
    """Focal loss ``-sum_k a_k t_k (1 - p_k)^gamma log p_k`` on the softmax.

    Lin et al., "Focal loss for dense object detection", ICCV 2017 (arXiv 1708.02002), equation 5.

    Args:
        logits: [B, K].
        targets: [B, K].
        gamma: 0 gives (alpha-weighted) cross-entropy.
        alpha: [K] class weights, or None for ones.
    """
    log_probs = functional.log_softmax(logits, dim=1)
    # 1 - p as expm1 keeps its gradient finite where p is 1 to the last bit
    rest = (-torch.expm1(log_probs)).clamp_min(torch.finfo(log_probs.dtype).tiny)
    weighted = targets if alpha is None else targets * alpha
    return -(weighted * rest.pow(gamma) * log_probs).sum(dim=1).mean()


def label_targets(labels: Tensor, classes: int, *, smoothing: float = 0.0) -> Tensor:
    """Labels [B] to targets [B, K]: one-hot, of which ``smoothing`` is spread evenly over all classes."""
    one_hot = functional.one_hot(labels, classes).to(torch.float32)
    return one_hot * (1 - smoothing) + smoothing / classes


def mixed_targets(own: Tensor, partner: Tensor, shares: Tensor) -> Tensor:
    """Targets of mixed images: ``share * own + (1 - share) * partner``.

    Args:
        own: [B, K].
        partner: [B, K].
        shares: [B] in [0, 1].
    """
    return shares[:, None] * own + (1 - shares[:, None]) * partner


def at_least_float32(values: Tensor) -> Tensor:
    """The same values, widened to float32 where they are float16 or bfloat16."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
