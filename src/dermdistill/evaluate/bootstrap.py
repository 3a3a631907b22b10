"""Intervals from a bootstrap over lesions: photographs of one lesion are drawn, or left out, together.

Images of one lesion resemble each other. A bootstrap over images would take them for independent and give
intervals that are too narrow (Davison and Hinkley 1997, section 3.8; Field and Welsh, JRSS B 69:369, 2007). A
replicate is a row of weights: how often each image was drawn. Every metric takes such rows, so nothing is
copied, and two models measured with the same rows are compared on the same draws.

Percentile intervals take the replicates as they are. BCa intervals (Efron, JASA 82:171, 1987) correct them for
bias and for a spread that changes with the figure, which needs the figure without each lesion: rows of weights too,
from ``jackknife_weights``. Centred intervals are percentile intervals moved by the bootstrap's estimate of its own bias
(Efron and Tibshirani 1993, ch. 10): a calibration error grows with every source of noise, so that all replicates may
lie above the figure, where BCa has no answer.
"""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from dermdistill.errors import ConfigError, DataError
from dermdistill.evaluate.metrics import Floats

Method = Literal["percentile", "bca", "centred"]
Measure = Callable[[Floats], Mapping[str, Floats]]
LEVEL = 0.95
# Weights of one block: 2 MB, so that sorting, summing and comparing stay in the processor's cache.
BLOCK_VALUES = 250_000
# Of many images a block holds more: sorting them, once a block, must not cost more than adding them up.
LEAST_ROWS = 64
# Rows of a jackknife: one a lesion up to so many, groups of lesions beyond.
JACKKNIFE_ROWS = 2_000


@dataclass(frozen=True)
class Interval:
    """Bounds of an interval, NaN where no replicate defines the figure; how many were left out."""

    low: float
    high: float
    skipped: int


def lesion_weights(lesion_ids: npt.ArrayLike, *, samples: int, seed: int) -> npt.NDArray[np.uint16]:
    """How often each image is drawn in each replicate: L of L lesions, with replacement.

    Args:
        lesion_ids: [N], one an image. The draws depend on the set of ids, not on the order of images.
        samples: number of replicates S.
        seed: the same seed gives the same replicates; the first rows do not depend on ``samples``.

    Returns:
        uint16 [S, N]; images of one lesion have equal weights.

    Raises:
        DataError: no images.
        ConfigError: fewer than one replicate.
    """
    lesions, lesion_of = np.unique(np.asarray(lesion_ids), return_inverse=True)
    if not len(lesions):
        raise DataError("there are no images to draw from", rule="a bootstrap needs at least one lesion")
    if samples < 1:
        raise ConfigError(f"{samples} bootstrap samples", rule="at least 1")
    generator = np.random.default_rng(seed)
    weights = np.empty((samples, len(lesion_of)), dtype=np.uint16)
    for row in weights:
        drawn = generator.integers(0, len(lesions), size=len(lesions))
        row[:] = np.bincount(drawn, minlength=len(lesions))[lesion_of]
    return weights


def jackknife_weights(
    lesion_ids: npt.ArrayLike, *, seed: int = 0, rows: int = JACKKNIFE_ROWS
) -> npt.NDArray[np.uint16]:
    """All lesions but one, for every lesion in turn: the rows of weights of a jackknife.

    With more lesions than rows each row leaves out a group of them, all of about one size and drawn at random
    (Shao and Tu 1995, section 2.3). Influences of lesions in a group add up, so the skewness that
    ``acceleration`` takes from groups estimates the same as that from lesions, with some noise.

    Args:
        lesion_ids: [N], one an image.
        seed: of the groups.
        rows: largest number of rows.

    Returns:
        uint16 [min(L, rows), N], 0 for images that are left out and 1 for others.

    Raises:
        DataError: no images.
        ConfigError: fewer than two rows.
    """
    lesions, lesion_of = np.unique(np.asarray(lesion_ids), return_inverse=True)
    if not len(lesions):
        raise DataError("there are no images to leave out", rule="a jackknife needs at least one lesion")
    if rows < 2:
        raise ConfigError(f"{rows} rows of a jackknife", rule="at least 2")
    groups = min(len(lesions), rows)
    places = np.arange(len(lesions))
    group_of = places if groups == len(lesions) else np.random.default_rng(seed).permutation(places) % groups
    kept: npt.NDArray[np.uint16] = (group_of[lesion_of] != np.arange(groups)[:, None]).astype(np.uint16)
    return kept


def replicates(measure: Measure, weights: npt.NDArray[np.uint16]) -> dict[str, Floats]:
    """Every figure in every replicate.

    Args:
        measure: weights [S, N] -> {name: figure [S]}, NaN where a replicate does not define the figure.
        weights: [S, N] from ``lesion_weights`` or ``jackknife_weights``.

    Returns:
        {name: [S]}.
    """
    rows = max(LEAST_ROWS, BLOCK_VALUES // weights.shape[1])
    starts = range(0, len(weights), rows)
    # NumPy lets go of the interpreter while it computes; the blocks do not depend on the number of threads.
    with ThreadPoolExecutor(max(1, min(_cores(), len(starts)))) as threads:
        blocks = list(threads.map(lambda start: measure(_block(weights[start : start + rows])), starts))
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _block(weights: npt.NDArray[np.uint16]) -> Floats:
    """Weights as floats whose columns lie in memory one after the other, as metrics read them fastest."""
    return np.ascontiguousarray(weights.T, dtype=np.float64).T


def interval(values: Floats, *, level: float = LEVEL) -> Interval:
    """Percentile interval over the replicates that define the figure (Efron and Tibshirani 1993, ch. 13).

    Args:
        values: [S], NaN in the replicates to leave out.
        level: share of replicates between the bounds, in (0, 1).

    Raises:
        ConfigError: a level outside (0, 1).
    """
    _check_level(level)
    defined = values[~np.isnan(values)]
    skipped = len(values) - len(defined)
    if not len(defined):
        return Interval(np.nan, np.nan, skipped)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), skipped)


def bca_interval(value: float, values: Floats, left_out: Floats, *, level: float = LEVEL) -> Interval:
    """Bias-corrected and accelerated interval (Efron, JASA 82:171, 1987; Efron and Tibshirani 1993, section 14.3).

    Where all replicates lie on one side of the value the bias cannot be estimated and the bounds are NaN.

    Args:
        value: the figure itself.
        values: the figure in every replicate, [S], NaN in those to leave out.
        left_out: the figure without each lesion, [L], of ``jackknife_weights``; NaN where that defines none.
        level: share of replicates between the bounds, in (0, 1).

    Raises:
        ConfigError: a level outside (0, 1).
    """
    _check_level(level)
    defined = values[~np.isnan(values)]
    skipped = len(values) - len(defined)
    below = ((defined < value).mean() + (defined <= value).mean()) / 2 if len(defined) else 0.0
    if not 0 < below < 1:
        return Interval(np.nan, np.nan, skipped)
    bias, speed = ndtri(below), acceleration(left_out)
    shifted = bias + ndtri([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(defined, ndtr(bias + shifted / (1 - speed * shifted)))
    return Interval(float(low), float(high), skipped)


def centred_interval(value: float, values: Floats, *, level: float = LEVEL) -> Interval:
    """Percentile interval moved so that the replicates' mean lies on the value; for figures that are never negative.

    Args:
        value: the figure itself, at least 0.
        values: the figure in every replicate, [S], NaN in those to leave out.
        level: share of replicates between the bounds, in (0, 1).

    Raises:
        ConfigError: a level outside (0, 1).
    """
    found = interval(values, level=level)
    if np.isnan(found.low):
        return found
    bias = float(np.nanmean(values)) - value
    return Interval(max(0.0, found.low - bias), max(0.0, found.high - bias), found.skipped)


def acceleration(left_out: Floats) -> float:
    """How fast the spread of a figure changes with its value, from a jackknife (Efron 1987, equation 6.6).

    A sixth of the skewness of what each lesion adds to the figure; 0 where no lesion changes it.

    Args:
        left_out: the figure without each lesion, [L]; NaN are left out.
    """
    defined = left_out[~np.isnan(left_out)]
    if not len(defined):
        return 0.0
    influence = defined.mean() - defined
    squares = float((influence**2).sum())
    # Influences far below what a float can tell from the figure itself are rounding.
    if squares <= len(defined) * (np.finfo(np.float64).eps * float(np.abs(defined).max())) ** 2:
        return 0.0
    return float((influence**3).sum() / (6 * squares**1.5))


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ConfigError(f"interval level {level}", rule="a level lies in (0, 1)")


def number_or_none(value: float) -> float | None:
    """A figure as JSON holds it: null where it is not defined."""
    return None if np.isnan(value) else float(value)


def estimate(
    value: float, samples: Floats, *, method: Method = "percentile", left_out: Floats | None = None
) -> dict[str, float | None]:
    """A figure and its interval, JSON-able: ``value, low, high``, all null where the figure is NaN.

    Args:
        value: on the test part itself.
        samples: the same in every replicate, [S].
        method: ``percentile``, ``bca``, or ``centred`` for errors that noise makes larger.
        left_out: for ``bca`` the same without each lesion, [L].

    Raises:
        ConfigError: an unknown method, or ``bca`` without ``left_out``.
    """
    if method not in get_args(Method) or (method == "bca" and left_out is None):
        raise ConfigError(
            f"intervals by {method!r}{'' if left_out is not None else ' without a jackknife'}",
            rule=f"one of {', '.join(get_args(Method))}; bca needs the figure without each lesion",
        )
    bounds = Interval(np.nan, np.nan, 0)
    if not np.isnan(value):
        if method == "bca" and left_out is not None:
            bounds = bca_interval(value, samples, left_out)
        else:
            bounds = centred_interval(value, samples) if method == "centred" else interval(samples)
    named = {"value": value, "low": bounds.low, "high": bounds.high}
    return {name: number_or_none(number) for name, number in named.items()}


def differences(first: Mapping[str, Floats], second: Mapping[str, Floats], names: tuple[str, ...]) -> dict[str, Floats]:
    """``first - second``, replicate by replicate: a paired bootstrap, as both saw the same weights.

    Args:
        first: {name: [S]} from ``replicates``.
        second: the same of the model to compare with.
        names: figures to compare.

    Returns:
        {name: [S]}.
    """
    return {name: first[name] - second[name] for name in names}
