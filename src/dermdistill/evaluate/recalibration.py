"""Probabilities that fit the frequencies of a validation part: which map from raw ones, and its numbers.

A network trained with logit adjustment treats all diagnoses as equally frequent. What it calls the probability of a
rare one, melanoma above all, is then far too high for the clinic that its images come from. One temperature cannot
mend that, a bias a class can.

The label stays the largest raw probability: calibration changes what is said about it, not what it is.
"""

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from dermdistill.bundle.decisions import Calibration, Method
from dermdistill.errors import DataError
from dermdistill.evaluate.calibration import SMALLEST, image_log_loss
from dermdistill.evaluate.metrics import Floats, Ints, check_scores

FOLDS = 5
# Standard deviation of the normal prior on each number around the identity: next to nothing on a thousand images, but
# it keeps a class of three images, or a perfect model, from numbers without bounds.
PRIOR = 1.0
SCALES = (0.01, 100.0)
BIASES = (-100.0, 100.0)
OPTIONS = {"maxiter": 1000, "ftol": 1e-13, "gtol": 1e-8}

Fit = Callable[[Ints, Floats], Calibration]


def fit_temperature(labels: Ints, probs: Floats) -> Calibration:
    """One scale for all classes, 1 / T, that makes the true classes most probable (Guo et al., ICML 2017, section 4.2).

    Args:
        labels: int [N].
        probs: raw, float [N, K].

    Raises:
        DataError: no images, NaN, shapes that do not fit, a label that is no class.
    """
    logs, truth = _prepared(labels, probs)
    classes = truth.shape[1]

    def loss(theta: Floats) -> tuple[float, Floats]:
        value, slope = _mean_nll(logs, truth, np.full(classes, theta[0]), np.zeros(classes))
        apart = theta - 1.0
        return value + _prior(apart, len(logs)), slope[:classes].sum(keepdims=True) + _pull(apart, len(logs))

    found = minimize(loss, np.ones(1), jac=True, method="L-BFGS-B", bounds=[SCALES], options=OPTIONS)
    return Calibration.of_temperature(1.0 / float(found.x[0]), classes)


def fit_vector(labels: Ints, probs: Floats) -> Calibration:
    """A scale and a bias a class, on log probabilities.

    Vector scaling (Guo et al., ICML 2017, section 4.2) where only probabilities are known: diagonal Dirichlet
    calibration (Kull et al., NeurIPS 2019). A class without images keeps scale 1 and bias 0.

    Arguments and errors as ``fit_temperature``.
    """
    logs, truth = _prepared(labels, probs)
    classes = truth.shape[1]
    identity = np.repeat([1.0, 0.0], classes)
    free = np.tile(truth.any(axis=0), 2)

    def loss(theta: Floats) -> tuple[float, Floats]:
        values = identity.copy()
        values[free] = theta
        value, slope = _mean_nll(logs, truth, values[:classes], values[classes:])
        apart = theta - identity[free]
        return value + _prior(apart, len(logs)), slope[free] + _pull(apart, len(logs))

    bounds = [pair for pair, moves in zip([SCALES] * classes + [BIASES] * classes, free, strict=True) if moves]
    found = minimize(loss, identity[free], jac=True, method="L-BFGS-B", bounds=bounds, options=OPTIONS)
    theta = identity.copy()
    theta[free] = found.x
    return Calibration("vector", tuple(map(float, theta[:classes])), tuple(map(float, theta[classes:])))


def _prepared(labels: Ints, probs: Floats) -> tuple[Floats, Floats]:
    """Log probabilities and one-hot labels, both [N, K]."""
    check_scores(labels, probs)
    classes = probs.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"labels {labels.min()} to {labels.max()}", rule=f"labels are 0 to {classes - 1}")
    return np.log(np.maximum(probs, SMALLEST)), np.eye(classes)[labels]


def _mean_nll(logs: Floats, truth: Floats, scale: Floats, bias: Floats) -> tuple[float, Floats]:
    """Mean NLL of ``softmax(scale * logs + bias)`` and its gradient, of the scales and then of the biases [2 K]."""
    values = logs * scale + bias
    top = values.max(axis=1, keepdims=True)
    totals = top + np.log(np.exp(values - top).sum(axis=1, keepdims=True))
    excess = (np.exp(values - totals) - truth) / len(logs)
    slope = np.concatenate([(excess * logs).sum(axis=0), excess.sum(axis=0)])
    loss = float((totals - (values * truth).sum(axis=1, keepdims=True)).mean())
    return loss, slope


def _prior(apart: Floats, images: int) -> float:
    return float(apart @ apart) / (2 * PRIOR**2 * images)


def _pull(apart: Floats, images: int) -> Floats:
    return apart / (PRIOR**2 * images)


def _identity(labels: Ints, probs: Floats) -> Calibration:
    return Calibration.identity(probs.shape[1])


# From the simplest to the one with the most numbers.
FITS: dict[Method, Fit] = {"none": _identity, "temperature": fit_temperature, "vector": fit_vector}
assert tuple(FITS) == get_args(Method), "every calibration that a bundle may hold is one that can be fitted"


def choose_calibration(
    labels: Ints, probs: Floats, lesion_ids: npt.ArrayLike, *, seed: int
) -> tuple[Calibration, dict[str, Any]]:
    """The simplest calibration that loses nothing, fitted on all images of the validation part.

    Each method is fitted on four fifths of the lesions and judged by the mean NLL of the images of the last fifth, in
    turn. Of the methods whose NLL is within one standard error of the lowest, the simplest is taken (Breiman et al.,
    1984, section 3.4.3). The error is that of the paired difference, over lesions.

    Args:
        labels: int [N].
        probs: raw, float [N, K], of the validation part.
        lesion_ids: [N]; images of one lesion are in one fold.
        seed: of the folds.

    Returns:
        the calibration, and how it was chosen: ``method``, ``nll`` {method: mean NLL} (null with a single lesion,
        where nothing can be compared and nothing is calibrated), ``chosen_by``.

    Raises:
        DataError: no images, NaN, shapes that do not fit.
    """
    _prepared(labels, probs)
    lesions, lesion_of = np.unique(np.asarray(lesion_ids), return_inverse=True)
    if len(lesion_of) != len(labels):
        raise DataError(f"{len(lesion_of)} lesion ids for {len(labels)} images", rule="one an image")
    if len(lesions) < 2:
        record = {"method": "none", "nll": dict.fromkeys(FITS), "chosen_by": "a single lesion: nothing to compare"}
        return Calibration.identity(probs.shape[1]), record
    folds = min(FOLDS, len(lesions))
    fold_of = (np.random.default_rng(seed).permutation(len(lesions)) % folds)[lesion_of]
    losses = {method: _held_out(fit, labels, probs, fold_of) for method, fit in FITS.items()}
    means = {method: float(values.mean()) for method, values in losses.items()}
    best = min(means, key=lambda method: means[method])
    chosen = next(
        method
        for method in FITS
        if means[method] - means[best] <= _standard_error(losses[method] - losses[best], lesion_of)
    )
    chosen_by = f"the simplest within one standard error of the lowest NLL, {folds} folds over validation lesions"
    return FITS[chosen](labels, probs), {"method": chosen, "nll": means, "chosen_by": chosen_by}


def _held_out(fit: Fit, labels: Ints, probs: Floats, fold_of: Ints) -> Floats:
    """NLL of every image under the calibration that was fitted without its fold, [N]."""
    losses = np.empty(len(labels))
    for fold in np.unique(fold_of):
        out = fold_of == fold
        calibrated = fit(labels[~out], probs[~out]).apply(probs[out])
        losses[out] = image_log_loss(labels[out], calibrated)
    return losses


def _standard_error(differences: Floats, lesion_of: Ints) -> float:
    """Of the mean over images whose lesions were drawn together (Cochran 1977, section 6.3: a ratio estimate)."""
    sums = np.bincount(lesion_of, weights=differences - differences.mean())
    lesions = len(sums)
    return float(np.sqrt(lesions / (lesions - 1) * (sums @ sums)) / len(differences))
