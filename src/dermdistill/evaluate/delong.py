"""Intervals and tests of ROC AUCs without resampling, as a cross-check of the bootstrap.

An AUC is a mean over pairs of a positive and a negative image, so its variance follows from the placement of each
image among those of the other class (DeLong, DeLong and Clarke-Pearson, Biometrics 44:837, 1988). Placements come from
one sort (Sun and Xu, IEEE Signal Processing Letters 21:1389, 2014).

DeLong's variance takes images for independent. With ``lesion_ids`` placements are added up lesion by lesion first
(Obuchowski, Biometrics 53:567, 1997); where every lesion has one image both are the same. Both are of large samples:
with a few positive lesions, or an AUC near 1, believe the bootstrap.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from dermdistill.errors import ConfigError, DataError
from dermdistill.evaluate.bootstrap import LEVEL, number_or_none
from dermdistill.evaluate.metrics import Bools, Floats, check_scores

Cell = dict[str, float | None]


@dataclass(frozen=True)
class Placements:
    """Where each image stands among those of the other class, for M scores of the same images.

    Attributes:
        positive: [M, P], share of negative images that a positive one beats, ties half; its mean is the AUC.
        negative: [M, Q], share of positive images that beat a negative one, ties half; the same mean.
    """

    positive: Floats
    negative: Floats

    @property
    def aucs(self) -> Floats:
        """ROC AUC of each score, [M]; NaN with one class."""
        if not self.positive.size or not self.negative.size:
            return np.full(len(self.positive), np.nan)
        means: Floats = self.positive.mean(axis=1)
        return means


def placements(positive: Bools, scores: Floats) -> Placements:
    """Placement of every image, from one sort a score.

    Args:
        positive: bool [N].
        scores: float [M, N], M scores of the same images.

    Raises:
        DataError: no images, shapes that do not fit, NaN or infinite scores.
    """
    for row in scores:
        check_scores(positive, row)
    hits, others = scores[:, positive], scores[:, ~positive]
    beaten = np.stack([_share_below(row, mine) for row, mine in zip(others, hits, strict=True)])
    beating = np.stack([1.0 - _share_below(row, mine) for row, mine in zip(hits, others, strict=True)])
    return Placements(beaten, beating)


def _share_below(ranked: Floats, values: Floats) -> Floats:
    """Share of ``ranked`` below each value, ties half; NaN where there is none to rank."""
    ordered = np.sort(ranked)
    if not len(ordered):
        return np.full(len(values), np.nan)
    shares: Floats = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2
    return shares / len(ordered)


def auc_covariance(positive: Bools, scores: Floats, lesion_ids: npt.ArrayLike | None = None) -> Floats:
    """Covariance of the AUCs of M scores of the same images.

    Args:
        positive: bool [N].
        scores: float [M, N].
        lesion_ids: [N]; without them images are independent.

    Returns:
        [M, M], NaN where a class has fewer than two images (or lesions).

    Raises:
        DataError: see ``placements``, or other than one lesion an image.
    """
    placed = placements(positive, scores)
    lesions = np.arange(len(positive)) if lesion_ids is None else np.asarray(lesion_ids)
    if lesions.shape != positive.shape:
        raise DataError(f"{lesions.size} lesion ids for {len(positive)} images", rule="one lesion an image")
    lesion_of = np.unique(lesions, return_inverse=True)[1]
    groups = lesion_of[positive], lesion_of[~positive]
    clusters = [len(np.unique(group)) for group in groups]
    if min(clusters) < 2:
        return np.full((len(scores), len(scores)), np.nan)
    total = int(lesion_of.max()) + 1
    # What each lesion adds to the AUC beyond its share, [M, L] for its positive and for its negative images.
    above, below = (
        _sum_by_lesion((values - placed.aucs[:, None]) / values.shape[1], group, total)
        for values, group in zip((placed.positive, placed.negative), groups, strict=True)
    )
    # A lesion with images of both classes makes the two parts covary; Obuchowski's third term.
    both = above @ below.T * (total / (total - 1))
    parts = zip((above, below), clusters, strict=True)
    own: Floats = sum((one @ one.T) * (count / (count - 1)) for one, count in parts) + both + both.T
    return own


def _sum_by_lesion(values: Floats, lesion_of: npt.NDArray[np.int64], lesions: int) -> Floats:
    return np.stack([np.bincount(lesion_of, weights=row, minlength=lesions) for row in values])


def delong_interval(
    positive: Bools, scores: Floats, lesion_ids: npt.ArrayLike | None = None, *, level: float = LEVEL
) -> Cell:
    """A ROC AUC and its normal interval, cut at 0 and 1.

    Args:
        positive: bool [N].
        scores: float [N], larger means more positive.
        lesion_ids: [N]; without them images are taken for independent.
        level: of the interval, in (0, 1).

    Returns:
        ``value, low, high``; null where the images do not define them.

    Raises:
        DataError: see ``auc_covariance``.
        ConfigError: a level outside (0, 1).
    """
    rows = np.asarray(scores, dtype=np.float64)[None]
    value = float(placements(positive, rows).aucs[0])
    low, high = _normal(value, float(auc_covariance(positive, rows, lesion_ids)[0, 0]), level)
    return _cell(value=value, low=np.maximum(low, 0.0), high=np.minimum(high, 1.0))


def delong_difference(
    positive: Bools,
    scores_a: Floats,
    scores_b: Floats,
    lesion_ids: npt.ArrayLike | None = None,
    *,
    level: float = LEVEL,
) -> Cell:
    """AUC of ``scores_a`` minus that of ``scores_b`` on the same images, its normal interval and two-sided p.

    Args:
        positive: bool [N].
        scores_a: float [N].
        scores_b: float [N].
        lesion_ids: [N]; without them images are taken for independent.
        level: of the interval, in (0, 1).

    Returns:
        ``value, low, high, p``; null where the images do not define them. ``p`` is null where the difference cannot
        vary, as with two equal scores.

    Raises:
        DataError: see ``auc_covariance``; scores of different lengths.
        ConfigError: a level outside (0, 1).
    """
    if np.shape(scores_a) != np.shape(scores_b):
        raise DataError(
            f"scores {list(np.shape(scores_a))} and {list(np.shape(scores_b))}", rule="both are of the same images"
        )
    rows = np.stack([scores_a, scores_b]).astype(np.float64)
    aucs, covariance = placements(positive, rows).aucs, auc_covariance(positive, rows, lesion_ids)
    value = float(aucs[0] - aucs[1])
    # Rounding can leave a variance of equal scores a hair below or above zero.
    scale = np.finfo(np.float64).eps * float(np.trace(covariance))
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    variance = 0.0 if variance <= 4 * scale else variance
    low, high = _normal(value, variance, level)
    p = 2 * float(ndtr(-abs(value) / np.sqrt(variance))) if variance > 0 else np.nan
    return _cell(value=value, low=low, high=high, p=p)


def _normal(value: float, variance: float, level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ConfigError(f"interval level {level}", rule="a level lies in (0, 1)")
    half = float(ndtri((1 + level) / 2)) * float(np.sqrt(variance))
    return value - half, value + half


def _cell(**numbers: float) -> Cell:
    return {name: number_or_none(float(number)) for name, number in numbers.items()}
