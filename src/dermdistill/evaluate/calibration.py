"""How far predicted probabilities can be taken at their word.

Confidence and outcome come from ``top_label`` (many classes: is the predicted class the true one?) or, for
two classes, from the probability of melanoma and whether it is one. Weights as in ``metrics``: [..., N], by
default ones.

A calibration error is never 0 on a finite sample, even of a perfect model, and few images make it larger. A
bootstrap repeats images and so makes it larger again: percentile intervals of an ECE lean upwards, and are therefore
moved (``interval_method``).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dermdistill.errors import ConfigError, DataError
from dermdistill.evaluate.bootstrap import Method
from dermdistill.evaluate.metrics import Bools, Floats, Ints, as_weights, check_scores, ratio

BINS = 15
# The least probability, of an event or of its contrary, that a logarithm sees.
SMALLEST = 1e-12
# Figures that noise alone makes larger.
LEANING = ("ece", "ece_equal_mass", "mce", "reliability")


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


def _membership(outcome: Bools, confidence: Floats, bins: int, *, equal_mass: bool = False) -> Floats:
    """1 where an image (row) is in a bin (column), [N, bins]; a bin is (low, high], 0 is in the first, 1 in the last.

    Bins of equal mass hold equal numbers of images, up to equal confidences, which are never parted.
    """
    check_confidence(outcome, confidence)
    if bins < 1:
        raise ConfigError(f"{bins} calibration bins", rule="at least 1")
    inner = np.arange(1, bins) / bins
    edges = np.quantile(confidence, inner, method="inverted_cdf") if equal_mass else np.linspace(0, 1, bins + 1)[1:-1]
    member = np.zeros((len(outcome), bins))
    member[np.arange(len(outcome)), np.searchsorted(edges, confidence, side="left")] = 1.0
    return member


def check_confidence(outcome: Bools, confidence: Floats) -> None:
    """Refuse what no calibration figure is defined on.

    Raises:
        DataError: a confidence outside [0, 1], NaN, no images, shapes that do not fit.
    """
    check_scores(outcome, confidence)
    if confidence.min() < 0 or confidence.max() > 1:
        raise DataError(f"confidence from {confidence.min()} to {confidence.max()}", rule="it lies in [0, 1]")


def _bin_sums(
    outcome: Bools, confidence: Floats, bins: int, weights: npt.ArrayLike | None, *, equal_mass: bool = False
) -> tuple[Floats, Floats, Floats]:
    """Weight, summed confidence and summed outcome, [..., bins]."""
    member = _membership(outcome, confidence, bins, equal_mass=equal_mass)
    counts = as_weights(weights, len(outcome))
    return counts @ member, counts @ (member * confidence[:, None]), counts @ (member * outcome[:, None])


def interval_method(name: str) -> Method:
    """The bootstrap interval for a figure by its dotted name: errors that noise alone makes larger are centred."""
    return "centred" if name.rpartition(".")[2] in LEANING else "percentile"


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


def equal_mass_ece(
    outcome: Bools, confidence: Floats, *, bins: int = BINS, weights: npt.ArrayLike | None = None
) -> Floats:
    """ECE with bins of equal numbers of images (Nguyen and O'Connor, EMNLP 2015), in [0, 1].

    Equal widths leave most bins of a rare class almost empty. The bins are those of the images themselves, whatever
    the weights, so that a bootstrap does not move them. Arguments and errors as ``ece``.
    """
    weight, said, happened = _bin_sums(outcome, confidence, bins, weights, equal_mass=True)
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


def brier_parts(
    outcome: Bools, confidence: Floats, *, bins: int = BINS, weights: npt.ArrayLike | None = None
) -> tuple[Floats, Floats, Floats]:
    """Reliability, resolution and uncertainty, whose ``reliability - resolution + uncertainty`` is ``binary_brier``.

    Murphy's decomposition (J. Appl. Meteorol. 12:595, 1973) is exact only where all confidences of a bin are equal.
    With bins of a width, what varies inside them counts as resolution: the generalised resolution of Stephenson, Coelho
    and Jolliffe (Weather Forecast. 23:752, 2008), less the variance within bins, plus twice the covariance there.

    Arguments and errors as ``ece``; each part is [...].
    """
    weight, said, happened = _bin_sums(outcome, confidence, bins, weights)
    counts, member = as_weights(weights, len(outcome)), _membership(outcome, confidence, bins)
    total = weight.sum(axis=-1)
    mean_said, mean_happened = np.nan_to_num(ratio(said, weight)), np.nan_to_num(ratio(happened, weight))
    base = ratio(happened.sum(axis=-1), total)
    reliability = ratio((weight * (mean_said - mean_happened) ** 2).sum(axis=-1), total)
    between = ratio((weight * (mean_happened - base[..., None]) ** 2).sum(axis=-1), total)
    variance = ratio((counts @ (member * confidence[:, None] ** 2) - said * mean_said).sum(axis=-1), total)
    products = counts @ (member * (confidence * outcome)[:, None])
    covariance = ratio((products - said * mean_happened).sum(axis=-1), total)
    return reliability, between - variance + 2 * covariance, base * (1 - base)


def log_loss(labels: Ints, probs: Floats, weights: npt.ArrayLike | None = None) -> Floats:
    """Mean negative log probability of the true class, in nats; a probability counts as at least 1e-12.

    Args:
        labels: int [N].
        probs: float [N, K].
        weights: [..., N].
    """
    return _weighted_mean(image_log_loss(labels, probs), weights)


def image_log_loss(labels: Ints, probs: Floats) -> Floats:
    """The same of every image, [N]."""
    check_scores(labels, probs)
    losses: Floats = -np.log(np.maximum(probs[np.arange(len(labels)), labels], SMALLEST))
    return losses


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
