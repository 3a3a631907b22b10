"""Calibration slope and calibration-in-the-large: a logistic regression of what happened on what was said.

Slope 1 and intercept 0 are ideal. A slope below 1 means probabilities that are too extreme, an intercept below 0
probabilities that are too high on the whole (Cox, Biometrika 45:562, 1958; Van Calster et al., J. Clin. Epidemiol.
74:167, 2016, and BMC Med. 17:230, 2019).
"""

import numpy as np
import numpy.typing as npt

from dermdistill.evaluate.calibration import SMALLEST, check_confidence
from dermdistill.evaluate.metrics import Bools, Floats, as_weights

STEPS = 100
# Largest change of any image's logit by the last step: Newton's method squares it, so a millionth is left.
ENOUGH = 1e-3


def calibration_slope(outcome: Bools, confidence: Floats, weights: npt.ArrayLike | None = None) -> Floats:
    """Slope of logit P(outcome) over logit(confidence), fitted together with an intercept; [...].

    Args:
        outcome: bool [N].
        confidence: float [N] in [0, 1]; it counts as at least 1e-12 away from 0 and 1.
        weights: [..., N].

    Returns:
        The slope. NaN where it has no finite value: one kind of outcome only, or confidences that separate the two.

    Raises:
        DataError: a confidence outside [0, 1], NaN, no images, shapes that do not fit.
    """
    said, counts = _logits(outcome, confidence), as_weights(weights, len(outcome))
    rows = counts.reshape(-1, len(said))
    slope = np.full(len(rows), np.nan)
    defined = ~_separated(outcome, said, rows)
    if defined.any():
        # The scale of the regressor does not change the fit and keeps its equations well conditioned.
        spread = float(said.std())
        design = np.stack([np.ones(len(said)), (said - said.mean()) / spread], axis=1)
        slope[defined] = _fit(design, np.zeros(len(said)), outcome, rows[defined])[:, 1] / spread
    return slope.reshape(counts.shape[:-1])


def calibration_intercept(outcome: Bools, confidence: Floats, weights: npt.ArrayLike | None = None) -> Floats:
    """Calibration-in-the-large: the intercept with the slope held at 1; [...], NaN with one kind of outcome only.

    Arguments and errors as ``calibration_slope``.
    """
    said, counts = _logits(outcome, confidence), as_weights(weights, len(outcome))
    rows = counts.reshape(-1, len(said))
    intercept = np.full(len(rows), np.nan)
    events = rows @ outcome.astype(np.float64)
    defined = (events > 0) & (events < rows.sum(axis=-1))
    if defined.any():
        intercept[defined] = _fit(np.ones((len(said), 1)), said, outcome, rows[defined])[:, 0]
    return intercept.reshape(counts.shape[:-1])


def _logits(outcome: Bools, confidence: Floats) -> Floats:
    check_confidence(outcome, confidence)
    logits: Floats = np.log(np.maximum(confidence, SMALLEST)) - np.log(np.maximum(1 - confidence, SMALLEST))
    return logits


def _separated(outcome: Bools, said: Floats, rows: Floats) -> Bools:
    """Rows [S] whose drawn images have a threshold with all events on one side, ties on it allowed (or lack a kind).

    Exactly there the likelihood has no maximum (Albert and Anderson, Biometrika 71:1, 1984).
    """
    (low, high), (other_low, other_high) = (_ends(said, rows, kind) for kind in (outcome, ~outcome))
    separated: Bools = (low >= other_high) | (other_low >= high)
    return separated


def _ends(said: Floats, rows: Floats, kind: Bools) -> tuple[Floats, Floats]:
    """Least and largest logit of the drawn images of one kind, [S] each; inf and -inf where none is drawn."""
    members = np.flatnonzero(kind)
    ranked = members[np.argsort(said[members])]
    if not len(ranked):
        return np.full(len(rows), np.inf), np.full(len(rows), -np.inf)
    drawn, values = rows[:, ranked] > 0, said[ranked]
    some = drawn.any(axis=1)
    low, high = values[drawn.argmax(axis=1)], values[::-1][drawn[:, ::-1].argmax(axis=1)]
    return np.where(some, low, np.inf), np.where(some, high, -np.inf)


def _fit(design: Floats, offset: Floats, outcome: Bools, rows: Floats) -> Floats:
    """Maximum likelihood of each row of weights, [S, D]; rows start where all of them together end."""
    together = rows.sum(axis=0, keepdims=True) / len(rows)
    theta = _newton(design, offset, outcome, together, np.zeros(design.shape[1]))
    return theta if len(rows) == 1 else _newton(design, offset, outcome, rows, theta[0])


def _newton(design: Floats, offset: Floats, outcome: Bools, rows: Floats, start: Floats) -> Floats:
    """Newton's method with the step of Sun and Tran-Dinh (Math. Program. 178:145, 2019).

    A logistic likelihood cannot overshoot with it: it rises in every step, from any start.
    """
    width = design.shape[1]
    squares = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    reach = np.abs(design).max(axis=0)
    # 1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2, which never overflows; what is without the tanh stays in all steps.
    fixed_slope, fixed_squares = rows @ (design * (outcome - 0.5)[:, None]), rows @ squares
    theta = np.repeat(start[None], len(rows), axis=0)
    half = np.tanh(0.5 * (design @ start + offset))[None]
    # Columns one after the other in memory, as the bootstrap gives them, so that no product mixes the two orders.
    moving, drawn = np.arange(len(rows)), np.asfortranarray(rows)
    for _ in range(STEPS):
        drawn_half = drawn * half
        slope = fixed_slope[moving] - 0.5 * (drawn_half @ design)
        drawn_half *= half
        curvature = 0.25 * (fixed_squares[moving] - drawn_half @ squares).reshape(-1, width, width)
        step = np.linalg.solve(curvature, slope[:, :, None])[:, :, 0]
        change = np.abs(step) @ reach
        damped = np.log1p(change) / np.maximum(change, np.finfo(np.float64).tiny)
        close = change <= ENOUGH
        theta[moving] += step * np.where(close, 1.0, damped)[:, None]
        if close.all():
            return theta
        if close.any():
            moving, drawn = moving[~close], drawn.T[:, ~close].T
        half = ((0.5 * design) @ theta[moving].T).T
        half += 0.5 * offset
        np.tanh(half, out=half)
    theta[moving] = np.nan
    return theta
