"""Intervals from a bootstrap over lesions: photographs of one lesion are drawn, or left out, together.

Images of one lesion resemble each other. A bootstrap over images would take them for independent and give
intervals that are too narrow (Davison and Hinkley 1997, section 3.8; Field and Welsh, JRSS B 69:369, 2007). A
replicate is a row of weights: how often each image was drawn. Every metric takes such rows, so nothing is
copied, and two models measured with the same rows are compared on the same draws.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dermdistill.errors import ConfigError, DataError
from dermdistill.evaluate.metrics import Floats

Measure = Callable[[Floats], Mapping[str, Floats]]
LEVEL = 0.95
# Weights of one block: 2 MB, so that sorting, summing and comparing stay in the processor's cache.
BLOCK_VALUES = 250_000


@dataclass(frozen=True)
class Interval:
    """Bounds of a percentile interval, NaN where no replicate defines the figure; how many were left out."""

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


def replicates(measure: Measure, weights: npt.NDArray[np.uint16]) -> dict[str, Floats]:
    """Every figure in every replicate.

    Args:
        measure: weights [S, N] -> {name: figure [S]}, NaN where a replicate does not define the figure.
        weights: [S, N] from ``lesion_weights``.

    Returns:
        {name: [S]}.
    """
    rows = max(1, BLOCK_VALUES // weights.shape[1])
    blocks = [measure(weights[start : start + rows].astype(np.float64)) for start in range(0, len(weights), rows)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def interval(values: Floats, *, level: float = LEVEL) -> Interval:
    """Percentile interval over the replicates that define the figure (Efron and Tibshirani 1993, ch. 13).

    Args:
        values: [S], NaN in the replicates to leave out.
        level: share of replicates between the bounds, in (0, 1).

    Raises:
        ConfigError: a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ConfigError(f"interval level {level}", rule="a level lies in (0, 1)")
    defined = values[~np.isnan(values)]
    skipped = len(values) - len(defined)
    if not len(defined):
        return Interval(np.nan, np.nan, skipped)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), skipped)


def number_or_none(value: float) -> float | None:
    """A figure as JSON holds it: null where it is not defined."""
    return None if np.isnan(value) else float(value)


def estimate(value: float, samples: Floats) -> dict[str, float | None]:
    """A figure and its interval, JSON-able: ``value, low, high``, all null where the figure is NaN.

    Args:
        value: on the test part itself.
        samples: the same in every replicate, [S].
    """
    bounds = interval(samples) if not np.isnan(value) else Interval(np.nan, np.nan, 0)
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
