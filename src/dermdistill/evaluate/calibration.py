"""How far predicted probabilities can be taken at their word.

Confidence and outcome come from ``top_label`` (many classes: is the predicted class the true one?) or, for
two classes, from the probability of melanoma and whether it is one. Weights as in ``metrics``: [..., N], by
default ones.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dermdistill.errors import ConfigError, DataError
from dermdistill.evaluate.metrics import Bools, Floats, Ints, as_weights, check_scores, ratio

BINS = 15


@dataclass(frozen=True)
class ReliabilityBin:
    """Images with a confidence in (low, high]; confidence and accuracy are their means, NaN where n is 0."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def top_label(labels: Ints, probs: Floats) -> tuple[Floats, Bools]:
    """Confidence [N] (the largest probability) and outcome [N] (the predicted class is the true one)."""
    return probs.max(axis=1), probs.argmax(axis=1) == labels


def _bin_sums(
    outcome: Bools, confidence: Floats, bins: int, weights: npt.ArrayLike | None
) -> tuple[Floats, Floats, Floats]:
    """Weight, summed confidence and summed outcome, [..., bins]; a bin is (low, high], 0 is in the first."""
    check_scores(outcome, confidence)
    if bins < 1:
        raise ConfigError(f"{bins} calibration bins", rule="at least 1")
    if confidence.min() < 0 or confidence.max() > 1:
        raise DataError(f"confidence from {confidence.min()} to {confidence.max()}", rule="it lies in [0, 1]")
    counts = as_weights(weights, len(outcome))
    bin_of = np.searchsorted(np.linspace(0.0, 1.0, bins + 1)[1:-1], confidence, side="left")
    member = np.zeros((len(outcome), bins))
    member[np.arange(len(outcome)), bin_of] = 1.0
    return counts @ member, counts @ (member * confidence[:, None]), counts @ (member * outcome[:, None])


def ece(outcome: Bools, confidence: Floats, *, bins: int = BINS, weights: npt.ArrayLike | None = None) -> Floats:
    """Expected calibration error, in [0, 1] (Naeini et al., AAAI 2015; Guo et al., ICML 2017, equation 3).

    Args:
        outcome: bool [N], what happened.
        confidence: float [N] in [0, 1], how probable it was said to be.
        bins: number of equal-width bins of [0, 1].
        weights: [..., N].

    Raises:
        DataError: a confidence outside [0, 1], NaN, no images, shapes that do not fit.
    """
    weight, said, happened = _bin_sums(outcome, confidence, bins, weights)
    return ratio(np.abs(said - happened).sum(axis=-1), weight.sum(axis=-1))


def mce(outcome: Bools, confidence: Floats, *, bins: int = BINS, weights: npt.ArrayLike | None = None) -> Floats:
    """Maximum calibration error, the largest gap of any bin with images (Guo et al., ICML 2017, equation 5).

    Arguments and errors as ``ece``.
    """
    weight, said, happened = _bin_sums(outcome, confidence, bins, weights)
    gaps = np.nan_to_num(ratio(np.abs(said - happened), weight)).max(axis=-1)
    return np.where(weight.sum(axis=-1) > 0, gaps, np.nan)


def brier(labels: Ints, probs: Floats, weights: npt.ArrayLike | None = None) -> Floats:
    """Brier score, the mean squared error of all class probabilities (Brier 1950), in [0, 2].

    Args:
        labels: int [N].
        probs: float [N, K]. With two classes the score is twice ``binary_brier``.
        weights: [..., N].
    """
    check_scores(labels, probs)
    truth = np.eye(probs.shape[1])[labels]
    return _weighted_mean(((probs - truth) ** 2).sum(axis=1), weights)


def binary_brier(outcome: Bools, confidence: Floats, weights: npt.ArrayLike | None = None) -> Floats:
    """Mean squared error of one probability, in [0, 1] (the usual two-class form of the Brier score)."""
    check_scores(outcome, confidence)
    return _weighted_mean((confidence - outcome) ** 2, weights)


def _weighted_mean(values: Floats, weights: npt.ArrayLike | None) -> Floats:
    counts = as_weights(weights, len(values))
    return ratio(counts @ values, counts.sum(axis=-1))


def reliability_bins(outcome: Bools, confidence: Floats, *, bins: int = BINS) -> list[ReliabilityBin]:
    """The bars of a reliability diagram, from low to high confidence, empty ones included.

    Arguments and errors as ``ece``; the ECE is the mean of |accuracy - confidence| weighted by n.
    """
    weight, said, happened = _bin_sums(outcome, confidence, bins, None)
    edges = np.linspace(0.0, 1.0, bins + 1)
    rows = zip(edges[:-1], edges[1:], weight, ratio(said, weight), ratio(happened, weight), strict=True)
    return [ReliabilityBin(float(a), float(b), int(n), float(c), float(d)) for a, b, n, c, d in rows]
