"""Losses between the logits [B, K] of a student and of its teacher; each returns a scalar, the mean over the batch.

Throughout, ``student_logits`` and ``teacher_logits`` are [B, K], ``labels`` the true class of each image [B], and
``temperature`` is T > 0. The teacher gets no gradient. Half precision is widened to float32 first, and divergences
are computed in log space, so that values and gradients are finite however sure the two are. Adding a loss is one
function and one entry in ``LOGITS_LOSSES`` (its name also stands in ``dermdistill.config.LogitsLoss``).
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from dermdistill.config import LogitsLoss
from dermdistill.distill.losses import at_least_float32

# Of the papers' reference code; the published values depend on them.
STANDARDISE_EPSILON = 1e-7
CORRELATION_EPSILON = 1e-8
# Of a target row's largest weight; float32 and bfloat16 hold 1 exactly.
ONE_HOT_TOLERANCE = 1e-6


def distillation_kl(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """``T^2 * KL(softmax(z_t / T) || softmax(z_s / T))``, the mean over images (not over classes).

    Hinton et al., "Distilling the knowledge in a neural network", 2015 (arXiv 1503.02531), section 2: per image
    ``T^2 sum_k p_k log(p_k / q_k)``, where the teacher's p and the student's q are by equation 1
    ``exp(z_k / T) / sum_j exp(z_j / T)``. The paper has the cross-entropy ``-sum_k p_k log q_k``: the same gradient, as
    the teacher's own entropy is constant.
    """
    student, teacher = _tempered(student_logits, teacher_logits, temperature)
    return temperature**2 * _kl(functional.log_softmax(teacher, dim=1), functional.log_softmax(student, dim=1))


def target_class_kl(student_logits: Tensor, teacher_logits: Tensor, *, labels: Tensor, temperature: float) -> Tensor:
    """TCKD: ``T^2 * KL`` between the two-way distributions (true class, all others).

    Zhao et al., "Decoupled knowledge distillation", CVPR 2022 (arXiv 2203.08679), equation 6: per image,
    ``KD = TCKD + (1 - p_t) NCKD`` with the teacher's probability p_t of the true class.
    """
    student, teacher = _tempered(student_logits, teacher_logits, temperature)
    return temperature**2 * _kl(_log_true_and_rest(teacher, labels), _log_true_and_rest(student, labels))


def non_target_class_kl(
    student_logits: Tensor, teacher_logits: Tensor, *, labels: Tensor, temperature: float
) -> Tensor:
    """NCKD: ``T^2 * KL`` between the distributions over the classes other than the true one; 0 where K is 2.

    Zhao et al., CVPR 2022 (arXiv 2203.08679), equation 6.
    """
    student, teacher = (_others(z, labels) for z in _tempered(student_logits, teacher_logits, temperature))
    return temperature**2 * _kl(functional.log_softmax(teacher, dim=1), functional.log_softmax(student, dim=1))


def decoupled_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    labels: Tensor,
    temperature: float,
    alpha: float = 1.0,
    beta: float = 8.0,
) -> Tensor:
    """DKD: ``alpha * TCKD + beta * NCKD``; Zhao et al., CVPR 2022 (arXiv 2203.08679), equation 7.

    Args:
        alpha: weight of the target part.
        beta: weight of the non-target part, which plain KD scales down where the teacher is sure.
    """
    target = target_class_kl(student_logits, teacher_logits, labels=labels, temperature=temperature)
    others = non_target_class_kl(student_logits, teacher_logits, labels=labels, temperature=temperature)
    return alpha * target + beta * others


def standardised_kl(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Plain KD of z-scored logits, ``(z - mean) / standard deviation`` (of a sample) over the classes of each image.

    Sun et al., "Logit standardization in knowledge distillation", CVPR 2024 (arXiv 2403.01427), algorithms 1 and 2.
    The student need not match the teacher's scale. With two classes the z-scores are constant. A row of equal logits
    has z-scores 0 and, as it points nowhere, no gradient.
    """
    student, teacher = (_z_scores(at_least_float32(z)) for z in (student_logits, teacher_logits))
    return distillation_kl(student, teacher, temperature=temperature)


def inter_class_relation(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """``T^2 * (1 - Pearson correlation)`` of an image's probabilities over the classes, the mean over images.

    Huang et al., "Knowledge distillation from a stronger teacher", NeurIPS 2022 (arXiv 2205.10536), L_inter: with Y_s
    and Y_t the probabilities [B, K] at temperature T,

        L_inter = 1/B sum_i d(Y_s[i, :], Y_t[i, :]),    d(u, v) = 1 - rho(u, v),
        rho(u, v) = sum_k (u_k - mean u) (v_k - mean v) / (|u - mean u| |v - mean v|);

    T^2 is that of the authors' code. With two classes the correlation is always 1 or -1: no gradient. Equal
    probabilities correlate 0 and get no gradient.
    """
    student, teacher = _tempered(student_logits, teacher_logits, temperature)
    return temperature**2 * (1 - _correlations(student.softmax(dim=1), teacher.softmax(dim=1)).mean())


def intra_class_relation(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """``T^2 * (1 - Pearson correlation)`` of a class's probabilities over the batch, the mean over classes.

    Huang et al., NeurIPS 2022 (arXiv 2205.10536), L_intra: ``1/K sum_k d(Y_s[:, k], Y_t[:, k])``, the terms as in
    ``inter_class_relation``.

    Raises:
        ValueError: a batch of one image, over which nothing can correlate.
    """
    if len(student_logits) < 2:
        raise ValueError("DIST of a batch of one image: the relation within a class is undefined, it needs two images")
    student, teacher = _tempered(student_logits, teacher_logits, temperature)
    return temperature**2 * (1 - _correlations(student.softmax(dim=1).T, teacher.softmax(dim=1).T).mean())


def dist_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float, beta: float = 1.0, gamma: float = 1.0
) -> Tensor:
    """DIST: ``beta L_inter + gamma L_intra``; Huang et al., NeurIPS 2022 (arXiv 2205.10536).

    See ``inter_class_relation`` and ``intra_class_relation``; the paper's classification loss is a term of its own.

    Raises:
        ValueError: a batch of one image.
    """
    inter = inter_class_relation(student_logits, teacher_logits, temperature=temperature)
    return beta * inter + gamma * intra_class_relation(student_logits, teacher_logits, temperature=temperature)


def class_rebalanced_kl(
    student_logits: Tensor, teacher_logits: Tensor, *, class_weights: Tensor, temperature: float
) -> Tensor:
    """``T^2 * KL(q || softmax(z_s / T))``, where q is ``w * softmax(z_t / T)``, divided by its sum over the classes.

    Zhang et al., "Balanced knowledge distillation for long-tailed learning", 2021 (arXiv 2104.10510): with the
    probabilities p_t and p_s at temperature T, per image

        L = T^2 sum_k q_k log(q_k / p_s[k]),    q_k = w_k p_t[k] / sum_j w_j p_t[j];

    the division is that of the authors' code. Equal weights give plain KD.

    Args:
        class_weights: w > 0, [K], such as those of ``effective_number_weights``; their scale does not matter.
    """
    student, teacher = _tempered(student_logits, teacher_logits, temperature)
    rebalanced = functional.log_softmax(teacher + class_weights.detach().to(teacher).log(), dim=1)
    return temperature**2 * _kl(rebalanced, functional.log_softmax(student, dim=1))


def effective_number_weights(counts: Tensor, beta: float) -> Tensor:
    """Class weights ``(1 - beta) / (1 - beta^n)``, scaled to mean 1: float32 [K].

    Cui et al., "Class-balanced loss based on effective number of samples", CVPR 2019 (arXiv 1901.05555).

    Args:
        counts: training images n of each class, [K].
        beta: in [0, 1); 0 gives ones, towards 1 the weights become inverse to the counts.

    Raises:
        ValueError: a class without an image, or beta outside its range.
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta {beta}: the effective number of samples needs 0 <= beta < 1")
    if bool((counts < 1).any()):
        raise ValueError(f"training images of each class: {counts.tolist()}: every class needs at least one")
    # 1 - beta^n by expm1: near beta 1 the difference of two almost equal numbers would lose its digits
    log_beta = torch.tensor(beta, dtype=torch.float64, device=counts.device).log()
    weights = -1 / torch.expm1(counts.to(torch.float64) * log_beta)
    return (weights / weights.mean()).to(torch.float32)


class LogitsCall(Protocol):
    """The one way to call any loss of ``LOGITS_LOSSES``; each takes from the settings what it needs."""

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        /,
        *,
        temperature: float,
        targets: Tensor,
        class_weights: Tensor,
        dkd_beta: float,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            targets: [B, K], rows of non-negative weights that sum to 1.
            class_weights: [K], of ``effective_number_weights``.
            dkd_beta: weight of the non-target part of DKD.

        Raises:
            ValueError: mixed targets for DKD, or a batch of one for DIST.
        """
        ...


LOGITS_LOSSES: dict[LogitsLoss, LogitsCall] = {
    "kd": lambda student, teacher, *, temperature, **_: distillation_kl(student, teacher, temperature=temperature),
    "dkd": lambda student, teacher, *, temperature, targets, dkd_beta, **_: decoupled_kl(
        student, teacher, labels=_true_classes(targets), temperature=temperature, beta=dkd_beta
    ),
    "logit_std": lambda student, teacher, *, temperature, **_: standardised_kl(
        student, teacher, temperature=temperature
    ),
    "dist": lambda student, teacher, *, temperature, **_: dist_loss(student, teacher, temperature=temperature),
    "class_rebalanced": lambda student, teacher, *, temperature, class_weights, **_: class_rebalanced_kl(
        student, teacher, class_weights=class_weights, temperature=temperature
    ),
}


def _tempered(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    return at_least_float32(student_logits) / temperature, at_least_float32(teacher_logits.detach()) / temperature


def _kl(log_teacher: Tensor, log_student: Tensor) -> Tensor:
    """KL of log probabilities [B, K], the mean over images."""
    return (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1).mean()


def _others(values: Tensor, labels: Tensor) -> Tensor:
    """Each row [K] without its true class: [B, K - 1]."""
    places = torch.arange(values.shape[1] - 1, device=values.device)
    return values.gather(1, places + (places >= labels[:, None]))


def _log_true_and_rest(logits: Tensor, labels: Tensor) -> Tensor:
    """Log probabilities of the true class and of all others together, [B, 2]."""
    log_probs = functional.log_softmax(logits, dim=1)
    rest = _others(log_probs, labels).logsumexp(dim=1, keepdim=True)
    return torch.cat([log_probs.gather(1, labels[:, None]), rest], dim=1)


def _flat(rows: Tensor) -> Tensor:
    """Which rows [N, M] are constant, [N, 1]; their spread need not be exactly 0, as means are rounded."""
    return rows.amax(dim=1, keepdim=True) == rows.amin(dim=1, keepdim=True)


def _z_scores(logits: Tensor) -> Tensor:
    spread = logits.std(dim=1, keepdim=True) + STANDARDISE_EPSILON
    return ((logits - logits.mean(dim=1, keepdim=True)) / spread).masked_fill(_flat(logits), 0.0)


def _correlations(student: Tensor, teacher: Tensor) -> Tensor:
    """Pearson correlation of each pair of rows [N, M]: [N]."""
    own = student - student.mean(dim=1, keepdim=True)
    other = teacher - teacher.mean(dim=1, keepdim=True)
    lengths: Tensor = torch.linalg.vector_norm(own, dim=1) * torch.linalg.vector_norm(other, dim=1)
    correlations = (own * other).sum(dim=1) / (lengths + CORRELATION_EPSILON)
    return correlations.masked_fill((_flat(student) | _flat(teacher))[:, 0], 0.0)


def _true_classes(targets: Tensor) -> Tensor:
    """The class of each one-hot row [B, K]: [B]."""
    largest, labels = targets.max(dim=1)
    mixed = largest < 1 - ONE_HOT_TOLERANCE
    if bool(mixed.any()):
        row = int(mixed.nonzero()[0])
        raise ValueError(
            f"DKD needs one true class an image; targets of image {row} of the batch: {targets[row].tolist()} "
            "(mixup and label smoothing mix them)"
        )
    return labels
