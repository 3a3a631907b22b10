"""Prediction sets that hold the true diagnosis in a promised share of cases, for each diagnosis by itself.

Split conformal prediction (Vovk, Gammerman and Shafer 2005; Angelopoulos and Bates, arXiv 2107.07511), one quantile a
class (Mondrian: Vovk, ACML 2012; Sadinle, Lei and Wasserman, JASA 114:223, 2019). One quantile for all would keep the
promise on nevi and break it on melanomas. The score of an image is one minus the calibrated probability of its true
class.

The promise rests on exchangeable cases, and photographs of one lesion are not: they resemble each other. So lesions are
what is counted. A lesion with m images gives each a weight of 1 / m, and the correction for finite samples is that of
the number of lesions (Lee, Barber and Willett, arXiv 2306.06342). All images are used, nothing is drawn, and the
promise is about a photograph of a new lesion, each lesion being as likely as the next. With one image a lesion it is
the ordinary quantile. Figures of the sets keep to that unit with ``lesion_shares`` as weights: lesions that were
photographed often are the harder ones, and where images count equally the coverage looks lower.
"""

import numpy as np
import numpy.typing as npt

from dermdistill.bundle.decisions import Calibration, Decisions
from dermdistill.errors import ConfigError, DataError
from dermdistill.evaluate.metrics import Bools, Floats, Ints, as_weights, check_scores, ratio

# Sums of weights such as 1/3 that should be whole are so by this much.
ROUNDING = 1e-9


def class_quantiles(
    labels: Ints, probs: Floats, level: float, *, lesion_ids: npt.ArrayLike
) -> tuple[float | None, ...]:
    """For each class the largest score, ``1 - p``, at which it belongs into a prediction set.

    Args:
        labels: int [N], of the validation part.
        probs: calibrated, float [N, K].
        level: coverage promised for each class, in (0, 1).
        lesion_ids: [N].

    Returns:
        K scores in [0, 1]: of a class with L lesions the smallest one that lesions of a weight of ``level * (L + 1)``
        do not exceed. None where that is more than L, as for ``level`` 0.9 with fewer than 9 lesions: then no score
        keeps the promise, and the class is in every set.

    Raises:
        ConfigError: a level outside (0, 1).
        DataError: no images, NaN, shapes that do not fit.
    """
    if not 0 < level < 1:
        raise ConfigError(f"coverage {level} of prediction sets", rule="it lies in (0, 1)")
    check_scores(labels, probs)
    lesions = np.asarray(lesion_ids)
    if len(lesions) != len(labels):
        raise DataError(f"{len(lesions)} lesion ids for {len(labels)} images", rule="one an image")
    classes = [labels == index for index in range(probs.shape[1])]
    return tuple(_quantile(1.0 - probs[mine, index], lesions[mine], level) for index, mine in enumerate(classes))


def _quantile(scores: Floats, lesions: npt.NDArray[np.generic], level: float) -> float | None:
    count = len(np.unique(lesions))
    needed = level * (count + 1) - ROUNDING
    if needed > count:
        return None
    order = np.argsort(scores)
    reached = np.cumsum(lesion_shares(lesions)[order])
    return float(scores[order][np.flatnonzero(reached >= needed)[0]])


def lesion_shares(lesion_ids: npt.ArrayLike) -> Floats:
    """Weight of each image that makes lesions count equally, [N]: one over the number of its lesion's images."""
    _, lesion_of, images = np.unique(np.asarray(lesion_ids), return_inverse=True, return_counts=True)
    shares: Floats = 1.0 / images[lesion_of]
    return shares


def prediction_sets(probs: Floats, quantiles: tuple[float | None, ...]) -> Bools:
    """Which classes belong into each image's set, bool [N, K]; never none of them.

    A set that the quantiles leave empty holds the most probable class. That only adds to sets, so what was promised
    still holds. See ``Decisions.sets``, whose rule this is.

    Args:
        probs: calibrated, float [N, K].
        quantiles: K scores of ``class_quantiles``; a class with None is in every set.
    """
    return Decisions(Calibration.identity(probs.shape[1]), {}, quantiles).sets(probs)


def set_figures(labels: Ints, sets: Bools, weights: npt.ArrayLike | None = None) -> dict[str, Floats]:
    """What prediction sets do, each figure [...].

    Args:
        labels: int [N].
        sets: bool [N, K].
        weights: [..., N].

    Returns:
        ``coverage``, the share of images whose set holds the true class; ``mean_size``, classes a set, in [1, K];
        ``singletons``, the share of sets of one class.
    """
    check_scores(labels, sets)
    counts = as_weights(weights, len(labels))
    size = sets.sum(axis=1)
    columns = {"coverage": _covered(labels, sets), "mean_size": size, "singletons": size == 1}
    total = counts.sum(axis=-1)
    return {name: ratio(counts @ values.astype(np.float64), total) for name, values in columns.items()}


def class_coverage(labels: Ints, sets: Bools, weights: npt.ArrayLike | None = None) -> Floats:
    """Share of each class's images whose set holds it, [..., K]; NaN without images of it. Arguments as above."""
    check_scores(labels, sets)
    counts = as_weights(weights, len(labels))
    truth = np.eye(sets.shape[1])[labels]
    return ratio(counts @ (truth * _covered(labels, sets)[:, None]), counts @ truth)


def _covered(labels: Ints, sets: Bools) -> Bools:
    covered: Bools = sets[np.arange(len(labels)), labels]
    return covered
