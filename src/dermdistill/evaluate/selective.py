"""What a model gains by withholding its least confident answers (El-Yaniv and Wiener, JMLR 11:1605, 2010).

Coverage is the share of images that are answered, risk the share of wrong answers among them. An image is answered
where ``confidence >= threshold``; images of equal confidence are answered together.
"""

import numpy as np
import numpy.typing as npt

from dermdistill.errors import ConfigError, DataError
from dermdistill.evaluate.metrics import Bools, Floats, as_weights, check_scores, ranked_counts, ratio

# The share of images that a model is to answer.
TARGET_COVERAGE = 0.8
# Sums of shares that should reach a coverage do so by this much.
ROUNDING = 1e-9


def confidence_threshold(confidence: Floats, coverage: float) -> float:
    """The highest confidence that at least so large a share of images reaches; to be chosen on the validation part.

    Args:
        confidence: float [N].
        coverage: in (0, 1].

    Raises:
        ConfigError: a coverage outside (0, 1].
        DataError: no images, or NaN.
    """
    _check_coverage(coverage)
    check_scores(np.zeros(len(confidence)), confidence)
    needed = int(np.ceil(coverage * len(confidence) - ROUNDING))
    return float(np.sort(confidence)[::-1][needed - 1])


def _check_coverage(coverage: float) -> None:
    if not 0 < coverage <= 1:
        raise ConfigError(f"coverage {coverage}", rule="it lies in (0, 1]")


def risk_coverage(correct: Bools, confidence: Floats, weights: npt.ArrayLike | None = None) -> tuple[Floats, Floats]:
    """Coverage and risk at every threshold, from the highest to the lowest; each [..., G], G distinct confidences.

    Risk is NaN where no image is answered.

    Args:
        correct: bool [N], whether the label that was given is the true one.
        confidence: float [N], larger means surer.
        weights: [..., N].

    Raises:
        DataError: no images, NaN, shapes that do not fit.
    """
    _, right, wrong = ranked_counts(correct, confidence, weights)
    answered = right + wrong
    return ratio(answered, answered[..., -1:]), ratio(wrong, answered)


def aurc(coverage: Floats, risk: Floats) -> Floats:
    """Area under the risk-coverage curve, [...] in [0, 1]: the mean, over images, of the risk at their confidence.

    Geifman and El-Yaniv (NeurIPS 2017); with distinct confidences the mean of the risks at coverage 1/N, 2/N, ... 1.

    Args:
        coverage: [..., G] of ``risk_coverage``.
        risk: [..., G].
    """
    area: Floats = (np.diff(coverage, axis=-1, prepend=0.0) * np.nan_to_num(risk)).sum(axis=-1)
    return np.where(np.isnan(coverage[..., -1]), np.nan, area)


def excess_aurc(coverage: Floats, risk: Floats) -> Floats:
    """``aurc`` less that of a confidence that puts every mistake last, r + (1 - r) ln(1 - r) for a risk r of all.

    Geifman, Uziel and El-Yaniv (ICLR 2019). Near 0 is a perfect order, whatever the accuracy. Arguments as ``aurc``.
    """
    wrong = risk[..., -1]
    best = wrong + (1 - wrong) * np.log(np.where(wrong < 1, 1 - wrong, 1.0))
    excess: Floats = aurc(coverage, risk) - best
    return excess


def accuracy_at_coverage(coverage: Floats, risk: Floats, target: float) -> Floats:
    """Share of right answers at the highest threshold that answers at least so large a share of images, [...].

    The threshold is that of these very images (of each row of weights); one to be used comes from others, see
    ``accuracy_at``.

    Args:
        coverage: [..., G] of ``risk_coverage``.
        risk: [..., G].
        target: in (0, 1].

    Raises:
        ConfigError: a coverage outside (0, 1].
    """
    _check_coverage(target)
    first = (coverage >= target - ROUNDING).argmax(axis=-1)
    return 1.0 - np.take_along_axis(risk, first[..., None], axis=-1)[..., 0]


def coverage_at(confidence: Floats, threshold: float, weights: npt.ArrayLike | None = None) -> Floats:
    """Share of images with ``confidence >= threshold``, [...]."""
    counts = as_weights(weights, len(confidence))
    return ratio(counts @ _answered(confidence, threshold).astype(np.float64), counts.sum(axis=-1))


def accuracy_at(correct: Bools, confidence: Floats, threshold: float, weights: npt.ArrayLike | None = None) -> Floats:
    """Share of right answers among images with ``confidence >= threshold``, [...]; NaN where there are none."""
    check_scores(correct, confidence)
    counts, answered = as_weights(weights, len(confidence)), _answered(confidence, threshold)
    return ratio(counts @ (answered & correct).astype(np.float64), counts @ answered.astype(np.float64))


def _answered(confidence: Floats, threshold: float) -> Bools:
    if np.isnan(threshold):
        raise DataError("the threshold is NaN", rule="choose it on validation images")
    return confidence >= threshold
