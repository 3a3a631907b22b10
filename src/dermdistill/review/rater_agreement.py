"""How far raters agree on a scale of ordered levels: between raters, and of each with himself.

Ratings are floats [R, N], a row a rater and a column an item, whole levels or NaN where there is none. Weights are how
often each item was drawn, [N] or [S, N], by default ones; results have their leading shape. What ratings do not define
(nobody in common, all ratings alike) is NaN, never 0 or 1.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

from dermdistill.errors import DataError
from dermdistill.evaluate.metrics import Floats, Ints, as_weights, mean_of_defined, ratio

LEVELS: Final = 5
# Krippendorff, Content Analysis (2004), p. 241: rely on .80 and above, draw tentative conclusions from .67.
TENTATIVE: Final = 0.67
STRONG: Final = 0.80
# Pairs of raters at once: 2,000 rows of weights of so many pairs are 8 MB a sum.
PAIR_BLOCK: Final = 500


def check_ratings(ratings: npt.ArrayLike, levels: int = LEVELS) -> Floats:
    """Ratings as floats [R, N].

    Raises:
        DataError: another shape, or a value that is neither NaN nor a whole level from 1 to ``levels``.
    """
    values = np.asarray(ratings, dtype=np.float64)
    given = values[~np.isnan(values)]
    if values.ndim != 2 or not (np.isin(given, np.arange(1, levels + 1))).all():
        raise DataError(
            f"ratings {list(values.shape)} hold something else than levels",
            rule=f"[raters, items], whole numbers from 1 to {levels} or NaN",
        )
    return values


def level_counts(ratings: Floats, levels: int = LEVELS) -> Ints:
    """How many raters gave an item each level, [N, levels]."""
    return np.stack([(ratings == level).sum(axis=0) for level in range(1, levels + 1)], axis=1).astype(np.int64)


def ordinal_alpha(ratings: npt.ArrayLike, weights: npt.ArrayLike | None = None, *, levels: int = LEVELS) -> Floats:
    """Krippendorff's alpha with the ordinal metric: 1 is agreement, 0 what chance would give, below 0 worse than that.

    Krippendorff, Content Analysis (2004), chapter 11. Items with fewer than two ratings say nothing and are left out.
    The squared distance of two levels is that of their mean ranks among all pairable ratings.

    Args:
        ratings: [R, N].
        weights: [..., N].
        levels: of the scale.

    Returns:
        [...], NaN where nothing is paired or all paired ratings are alike.

    Raises:
        DataError: see ``check_ratings`` and ``as_weights``.
    """
    values = check_ratings(ratings, levels)
    drawn = as_weights(weights, values.shape[1])
    counts = level_counts(values, levels).astype(np.float64)
    raters = counts.sum(axis=1)
    paired = raters >= 2
    counts, raters, drawn = counts[paired], raters[paired], drawn[..., paired]
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(levels)
    each = (pairs / (raters - 1)[:, None, None]).reshape(len(counts), levels * levels)
    seen = (drawn @ each).reshape(*drawn.shape[:-1], levels, levels)
    totals = seen.sum(axis=-1)
    ranks = np.cumsum(totals, axis=-1) - totals / 2
    distances = (ranks[..., :, None] - ranks[..., None, :]) ** 2
    observed = (seen * distances).sum(axis=(-2, -1))
    by_chance = (totals[..., :, None] * totals[..., None, :] * distances).sum(axis=(-2, -1))
    return 1 - ratio((totals.sum(axis=-1) - 1) * observed, by_chance)


def band(alpha: float) -> str | None:
    """What Krippendorff (2004) lets one conclude: ``strong``, ``tentative`` or ``insufficient``; None for NaN."""
    if np.isnan(alpha):
        return None
    return "strong" if alpha >= STRONG else "tentative" if alpha >= TENTATIVE else "insufficient"


def weighted_kappa(first: Floats, second: Floats, weights: npt.ArrayLike | None = None) -> Floats:
    """Cohen's kappa with quadratic weights of many pairs of raters (Cohen, Psychol. Bull. 70:213, 1968).

    With quadratic weights the two sums of costs need no table of levels: the observed one is the sum of (x - y)^2,
    the one by chance that over all combinations of an x with a y, divided by the number of items.

    Args:
        first: levels [P, N], NaN where there is none.
        second: the same of the others.
        weights: [..., N].

    Returns:
        [..., P], NaN where a pair has no item in common, or both gave one and the same level throughout.
    """
    drawn = as_weights(weights, first.shape[1])
    common = ~(np.isnan(first) | np.isnan(second))
    x, y = np.where(common, first, 0.0).T, np.where(common, second, 0.0).T
    items = drawn @ common.T.astype(np.float64)
    squares = drawn @ (x**2 + y**2)
    observed = squares - 2 * (drawn @ (x * y))
    # Times the number of items, so that levels alike give a zero without rounding.
    by_chance = items * squares - 2 * (drawn @ x) * (drawn @ y)
    return 1 - ratio(items * observed, by_chance)


def rater_pairs(ratings: Floats) -> tuple[list[tuple[int, int]], Ints]:
    """All pairs of raters, and how many items both have rated."""
    pairs = list(combinations(range(len(ratings)), 2))
    rated = (~np.isnan(ratings)).astype(np.int64)
    common = rated @ rated.T
    return pairs, np.array([common[pair] for pair in pairs], dtype=np.int64)


def pairwise_kappa(ratings: Floats, pairs: list[tuple[int, int]], weights: npt.ArrayLike | None = None) -> Floats:
    """Quadratically weighted kappa of some pairs of raters, [..., P]."""
    drawn = as_weights(weights, ratings.shape[1])
    blocks = [weighted_kappa(first, second, drawn) for first, second in _pair_blocks(ratings, pairs)]
    return np.concatenate(blocks, axis=-1) if blocks else np.empty((*drawn.shape[:-1], 0))


def mean_kappa(ratings: Floats, pairs: list[tuple[int, int]], weights: npt.ArrayLike | None = None) -> Floats:
    """Mean of ``pairwise_kappa`` over the pairs that define it, [...]; NaN where none does (Light, 1971)."""
    return mean_of_defined(pairwise_kappa(ratings, pairs, weights))


def _pair_blocks(ratings: Floats, pairs: list[tuple[int, int]]) -> Iterator[tuple[Floats, Floats]]:
    for start in range(0, len(pairs), PAIR_BLOCK):
        block = np.array(pairs[start : start + PAIR_BLOCK])
        yield ratings[block[:, 0]], ratings[block[:, 1]]
