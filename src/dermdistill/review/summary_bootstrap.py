"""Intervals of means over raters and items: both are drawn anew, as both are samples.

Other dermatologists and other lesions would have given other answers. Each replicate draws raters with replacement and,
independently, lesions with replacement; an answer counts as often as its rater times its item (the pigeonhole
bootstrap: Owen, Ann. Appl. Stat. 1:386, 2007, which finds it to be on the safe side). Lesions are drawn within their
method and kind of sham, whose numbers the study's maker set and chance did not.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dermdistill.evaluate.bootstrap import estimate, lesion_weights
from dermdistill.evaluate.metrics import Bools, Floats, ratio
from dermdistill.evaluate.notes import FEW

Json = dict[str, Any]


@dataclass(frozen=True)
class Draws:
    """How often each rater and item was drawn; the first row is the data themselves, all ones.

    Args:
        raters: [1 + S, R].
        items: [1 + S, N].
    """

    raters: Floats
    items: Floats


def draw(raters: int, lesion_ids: Sequence[str], groups: Sequence[str], *, samples: int, seed: int) -> Draws:
    """Replicates of a study's answers.

    Args:
        raters: their number R; one rater alone is never drawn anew.
        lesion_ids: [N], of the items; items of one lesion are drawn together.
        groups: [N], within which lesions are drawn.
        samples: S.
        seed: the same seed gives the same draws.

    Raises:
        DataError: no raters, no items.
        ConfigError: fewer than one sample.
    """
    rows = np.ones((1 + samples, raters)), np.ones((1 + samples, len(lesion_ids)))
    rows[0][1:] = lesion_weights(np.arange(raters), samples=samples, seed=_seed(seed, "raters"))
    lesions, group_of = np.asarray(lesion_ids), np.asarray(groups)
    for group in np.unique(group_of):
        own = group_of == group
        rows[1][1:, own] = lesion_weights(lesions[own], samples=samples, seed=_seed(seed, f"items {group}"))
    return Draws(*rows)


def _seed(seed: int, name: str) -> int:
    """A seed for each name: groups of one size must not be drawn alike."""
    return int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0])


def rater_means(draws: Draws, values: Floats, columns: Bools) -> Floats:
    """Each rater's mean over the drawn items, [1 + S, R]; NaN where that rater has none.

    Args:
        draws: of R raters and N items.
        values: [R, N], NaN where there is no answer.
        columns: bool [N], the items that count.
    """
    return ratio(*_sums(draws, values, columns))


def _sums(draws: Draws, values: Floats, columns: Bools) -> tuple[Floats, Floats]:
    items, own = draws.items[:, columns], values[:, columns]
    given = ~np.isnan(own)
    return items @ np.where(given, own, 0.0).T, items @ given.T.astype(np.float64)


def pooled_mean(draws: Draws, values: Floats, columns: Bools) -> Floats:
    """Mean over all answers, [1 + S]; arguments as ``rater_means``."""
    total, count = _sums(draws, values, columns)
    return ratio((draws.raters * total).sum(axis=1), (draws.raters * count).sum(axis=1))


def paired_difference(draws: Draws, values: Floats, first: Bools, second: Bools) -> Floats:
    """Mean over raters of each one's own difference, ``first`` less ``second``, [1 + S].

    Pairing by rater takes out that some raters are kind and some strict. Raters without an answer on either side are
    left out.

    Args:
        draws: of R raters and N items.
        values: [R, N].
        first: bool [N].
        second: bool [N].
    """
    gap = rater_means(draws, values, first) - rater_means(draws, values, second)
    defined = ~np.isnan(gap)
    return ratio((draws.raters * np.where(defined, gap, 0.0)).sum(axis=1), (draws.raters * defined).sum(axis=1))


def figure(rows: Floats, count: int) -> Json:
    """``value``, ``low``, ``high`` of rows whose first is the data; all null of ``FEW`` answers or fewer.

    Args:
        rows: [1 + S].
        count: answers that the figure rests on.
    """
    return estimate(float(rows[0]) if count > FEW else np.nan, rows[1:])


def share(count: int, of: int) -> Json:
    """``count``, ``n`` and ``value``, the share, null of ``FEW`` cases or fewer."""
    return {"count": count, "n": of, "value": count / of if of > FEW else None}
