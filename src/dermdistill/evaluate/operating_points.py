"""Decisions from a score: how a threshold is chosen (on validation images) and what it does (on test images).

A decision is ``score >= threshold``, everywhere. A threshold is always one of the scores it was chosen on.
"""

import numpy as np
import numpy.typing as npt

from dermdistill.errors import ConfigError, DataError
from dermdistill.evaluate.metrics import Bools, Floats, as_weights, check_scores, ranked_counts, ratio


def threshold_at_sensitivity(positive: Bools, scores: Floats, target: float) -> float:
    """The HIGHEST threshold whose sensitivity is at least ``target``.

    Sensitivity only grows as the threshold falls, so a whole range of thresholds reaches the target. The
    highest of them calls the fewest negative images positive. The lowest calls all of them positive
    (specificity 0).

    Args:
        positive: bool [N].
        scores: float [N].
        target: in (0, 1].

    Raises:
        DataError: there is no positive image.
        ConfigError: the target lies outside (0, 1].
    """
    if not 0 < target <= 1:
        raise ConfigError(f"target sensitivity {target}", rule="a target sensitivity lies in (0, 1]")
    check_scores(positive, scores)
    if not positive.any():
        raise DataError("no positive image to choose a threshold on", rule="a sensitivity needs positive images")
    thresholds, tp, _ = ranked_counts(positive, scores)
    return float(thresholds[np.flatnonzero(tp / tp[-1] >= target)[0]])


def youden(positive: Bools, scores: Floats) -> float:
    """The threshold with the largest sensitivity + specificity - 1 (Youden, Cancer 3:32, 1950).

    Among equals, the highest.

    Args:
        positive: bool [N].
        scores: float [N].

    Raises:
        DataError: all images are positive, or none is.
    """
    check_scores(positive, scores)
    if positive.all() or not positive.any():
        raise DataError("only one class to choose a threshold on", rule="Youden's index needs both classes")
    thresholds, tp, fp = ranked_counts(positive, scores)
    # Whole numbers: quotients would break ties between equal indices by rounding.
    return float(thresholds[int(np.argmax(tp * fp[-1] - fp * tp[-1]))])


def sensitivity_at(positive: Bools, scores: Floats, threshold: float, weights: npt.ArrayLike | None = None) -> Floats:
    """Share of positives with ``score >= threshold``, [...] for weights [..., N]; NaN without positives.

    Raises:
        DataError: see ``metrics.check_scores``, or a threshold that is NaN.
    """
    return _share(positive, positive & _called(positive, scores, threshold), weights)


def specificity_at(positive: Bools, scores: Floats, threshold: float, weights: npt.ArrayLike | None = None) -> Floats:
    """Share of negatives with ``score < threshold``, [...] for weights [..., N]; NaN without negatives.

    Raises:
        DataError: see ``metrics.check_scores``, or a threshold that is NaN.
    """
    return _share(~positive, ~positive & ~_called(positive, scores, threshold), weights)


def _called(positive: Bools, scores: Floats, threshold: float) -> Bools:
    check_scores(positive, scores)
    if np.isnan(threshold):
        raise DataError("the threshold is NaN", rule="choose it on validation images of both classes")
    return scores >= threshold


def _share(group: Bools, right: Bools, weights: npt.ArrayLike | None) -> Floats:
    counts = as_weights(weights, len(group))
    return ratio(counts @ right.astype(np.float64), counts @ group.astype(np.float64))


def roc_curve(positive: Bools, scores: Floats) -> tuple[Floats, Floats]:
    """Corners of the ROC curve, (0, 0) to (1, 1): false positive rate [G], sensitivity [G] (Fawcett 2006).

    Points on the line between their neighbours are left out. Nothing changes in the picture, or in the area.

    Raises:
        DataError: all images are positive, or none is.
    """
    _need_both(positive, "a ROC curve")
    _, tp, fp = ranked_counts(positive, scores)
    tp, fp = np.append(0.0, tp), np.append(0.0, fp)
    turns = np.diff(tp)[1:] * np.diff(fp)[:-1] != np.diff(tp)[:-1] * np.diff(fp)[1:]
    kept = np.concatenate(([True], turns, [True]))
    return fp[kept] / fp[-1], tp[kept] / tp[-1]


def pr_curve(positive: Bools, scores: Floats) -> tuple[Floats, Floats]:
    """Recall [G] from 0 to 1 and precision [G]: (0, 1), then each threshold that adds a positive image.

    Raises:
        DataError: all images are positive, or none is.
    """
    _need_both(positive, "a precision-recall curve")
    _, tp, fp = ranked_counts(positive, scores)
    kept = np.diff(tp, prepend=0.0) > 0
    recall, precision = tp[kept] / tp[-1], tp[kept] / (tp[kept] + fp[kept])
    return np.append(0.0, recall), np.append(1.0, precision)


def _need_both(positive: Bools, what: str) -> None:
    if positive.all() or not positive.any():
        raise DataError(f"{what} of one class only", rule="both positive and negative images are needed")
