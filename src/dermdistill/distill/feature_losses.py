"""Losses between the features of a student and of its teacher; each returns a scalar, and the teacher gets no gradient.

Half precision is widened to float32 first: squares of float16 features overflow at 256.
"""

import torch
from torch import Tensor
from torch.nn import functional

from dermdistill.distill.losses import at_least_float32

SMALLEST_MEAN_DISTANCE = 1e-12


def feature_matching(projected: Tensor, teacher_features: Tensor) -> Tensor:
    """Mean squared difference from the teacher's features, standardised over their width.

    Romero et al., "FitNets: hints for thin deep nets", ICLR 2015 (arXiv 1412.6550), equation 3; standardising makes
    the weight of the term independent of the teacher's scale.

    Args:
        projected: [B, W], the student's features through a learned projection.
        teacher_features: [B, W]; no gradient.
    """
    wanted = functional.layer_norm(at_least_float32(teacher_features.detach()), teacher_features.shape[1:])
    return functional.mse_loss(at_least_float32(projected), wanted)


def attention_map(features: Tensor) -> Tensor:
    """Where a layer looks: the mean over channels of squared activations, [B, C, H, W] to [B, H, W], at least 0.

    Zagoruyko and Komodakis, "Paying more attention to attention", ICLR 2017 (arXiv 1612.03928), section 3.1.
    """
    return at_least_float32(features).square().mean(dim=1)


def attention_transfer(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Mean squared difference between two attention maps, each flattened and divided by its Euclidean norm.

    Zagoruyko and Komodakis, ICLR 2017 (arXiv 1612.03928), equation 2, with the mean of the authors' code. Of maps of
    different sizes both are average-pooled to the smaller height and width first. A map of zeros stays 0 and gets no
    gradient.

    Args:
        student_map: [B, H, W], see ``attention_map``.
        teacher_map: [B, h, w].
    """
    student, teacher = at_least_float32(student_map), at_least_float32(teacher_map.detach())
    if student.shape != teacher.shape:
        sides = (min(student.shape[1], teacher.shape[1]), min(student.shape[2], teacher.shape[2]))
        student, teacher = (functional.adaptive_avg_pool2d(one[:, None], sides)[:, 0] for one in (student, teacher))
    return functional.mse_loss(_units(student.flatten(1)), _units(teacher.flatten(1)))


def relational_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss between the distances of images in the student's and in the teacher's features.

    Park et al., "Relational knowledge distillation", CVPR 2019 (arXiv 1904.05068), L_RKD-D, for the features t of the
    teacher and s of the student

        L = sum_(i, j) huber(psi(t_i, t_j), psi(s_i, s_j)),    psi(x_i, x_j) = |x_i - x_j| / mu,
        huber(x, y) = (x - y)^2 / 2 where |x - y| <= 1, else |x - y| - 1/2,

    with Euclidean distances and mu their mean over pairs; here the mean over pairs of different images in place of the
    sum. The widths may differ.

    Args:
        student: [B, W].
        teacher: [B, V].

    Raises:
        ValueError: a batch of one image, which has no distance.
    """
    _refuse_single(student)
    own = _relative_distances(at_least_float32(student))
    return functional.smooth_l1_loss(own, _relative_distances(at_least_float32(teacher.detach())))


def relational_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss between the cosines of the angles that three images form, in the student's and the teacher's features.

    Park et al., CVPR 2019 (arXiv 1904.05068), L_RKD-A, with huber as in ``relational_distance``

        L = sum_(i, j, k) huber(psi(t_i, t_j, t_k), psi(s_i, s_j, s_k)),
        psi(x_i, x_j, x_k) = cos(angle x_i x_j x_k) = <e_ij, e_kj>,    e_ij = (x_i - x_j) / |x_i - x_j|;

    here the mean over triplets of different images in place of the sum, so 0 for a batch of two. Where two images
    coincide, the cosine is taken as 0 and has no gradient. Memory grows with B^3.

    Args:
        student: [B, W].
        teacher: [B, V].

    Raises:
        ValueError: a batch of one image.
    """
    _refuse_single(student)
    own, wanted = _cosines(at_least_float32(student)), _cosines(at_least_float32(teacher.detach()))
    size = len(student)
    other = ~torch.eye(size, dtype=torch.bool, device=student.device)
    distinct = other[:, :, None] & other[:, None, :] & other[None, :, :]
    differences = functional.smooth_l1_loss(own, wanted, reduction="none")
    return (differences * distinct).sum() / max(size * (size - 1) * (size - 2), 1)


def _refuse_single(features: Tensor) -> None:
    if len(features) < 2:
        raise ValueError("relational distillation of a batch of one image: there is no pair of images to relate")


def _relative_distances(features: Tensor) -> Tensor:
    """Distance of each pair of images over the mean distance, [B (B - 1) / 2]."""
    # pdist subtracts before it squares and has gradient 0 at distance 0, unlike a root of inner products
    distances = functional.pdist(features)
    return distances / distances.mean().clamp_min(SMALLEST_MEAN_DISTANCE)


def _cosines(features: Tensor) -> Tensor:
    """Cosine of the angle at image j between i and k, as [j, i, k]."""
    edges = features[None, :, :] - features[:, None, :]
    units = _units(edges)
    return units @ units.transpose(1, 2)


def _units(vectors: Tensor) -> Tensor:
    """Vectors [..., W] over their Euclidean norm; one of zeros, which points nowhere, stays 0 and has no gradient."""
    squared = vectors.square().sum(dim=-1, keepdim=True)
    nothing = squared == 0
    # the root of 0 has an infinite gradient, which a mask after it would turn into NaN
    return (vectors / squared.masked_fill(nothing, 1.0).sqrt()).masked_fill(nothing, 0.0)
