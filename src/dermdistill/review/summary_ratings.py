"""The block ``ratings``: what raters gave the maps of each method, beside what they gave sham maps.

A rater who likes any coloured spot likes shams too. Only what maps get beyond shams speaks for the maps.
"""

from typing import Final

import numpy as np

from dermdistill.evaluate.metrics import Bools, Floats
from dermdistill.evaluate.notes import FEW
from dermdistill.review.rater_agreement import LEVELS
from dermdistill.review.study_faults import SHAMS
from dermdistill.review.summary_answers import SCALES, Answers
from dermdistill.review.summary_bootstrap import Draws, Json, figure, paired_difference, pooled_mean

ALL_MAPS: Final = "all_maps"
ALL_SHAMS: Final = "all"
BETTER: Final = "better than the shams"
NO_BETTER: Final = "no better than the shams"
WORSE: Final = "worse than the shams"
TOO_FEW: Final = "too few answers"


def ratings_block(answers: Answers, draws: Draws) -> Json:
    """Ratings of true maps by method, of shams by kind, and paired differences with a verdict.

    Args:
        answers: of R raters to N items.
        draws: of the same.

    Returns:
        {scale: {``maps``: {method or ``all_maps``: cell}, ``shams``: {kind or ``all``: cell}, ``differences``: [...]}};
        see ``summary``.
    """
    maps, shams = map_columns(answers), sham_columns(answers)
    block = {}
    for scale in SCALES:
        ratings = answers.grid(scale)
        block[scale] = {
            "maps": {name: _cell(ratings, draws, columns) for name, columns in maps.items()},
            "shams": {name: _cell(ratings, draws, columns) for name, columns in shams.items()},
            "differences": [
                {"method": method, "sham": kind, **_difference(ratings, draws, own, sham)}
                for method, own in maps.items()
                for kind, sham in shams.items()
            ],
        }
    return block


def map_columns(answers: Answers) -> dict[str, Bools]:
    """The items with true maps, all and by method."""
    true = np.array([not item.sham for item in answers.items])
    method = np.array([item.method for item in answers.items])
    names = sorted(set(method[true].tolist()))
    return {ALL_MAPS: true, **{name: true & (method == name) for name in names}} if true.any() else {}


def sham_columns(answers: Answers) -> dict[str, Bools]:
    """The items with sham maps, all and by kind; none where the study has no shams."""
    sham = np.array([item.sham for item in answers.items])
    found = {kind: sham == kind for kind in SHAMS if (sham == kind).any()}
    return {ALL_SHAMS: sham != "", **found} if found else {}


def _cell(ratings: Floats, draws: Draws, columns: Bools) -> Json:
    own = ratings[:, columns]
    given = ~np.isnan(own)
    return {
        "n": int(given.sum()),
        "items": int(given.any(axis=0).sum()),
        "raters": int(given.any(axis=1).sum()),
        "counts": [int((own == level).sum()) for level in range(1, LEVELS + 1)],
        "mean": figure(pooled_mean(draws, ratings, columns), int(given.sum())),
    }


def _difference(ratings: Floats, draws: Draws, maps: Bools, shams: Bools) -> Json:
    """The mean over raters of each one's own difference; raters who rated one kind alone are left out."""
    given = ~np.isnan(ratings)
    both = given[:, maps].any(axis=1) & given[:, shams].any(axis=1)
    counts = {"n_maps": int(given[both][:, maps].sum()), "n_shams": int(given[both][:, shams].sum())}
    found = figure(paired_difference(draws, ratings, maps, shams), min(counts.values()))
    items = int(given[both][:, shams].any(axis=0).sum())
    return {**found, **counts, "sham_items": items, "raters": int(both.sum()), "verdict": verdict(found)}


def verdict(found: Json) -> str:
    """What the interval of a difference says: maps are called better only where all of it lies above 0."""
    if found["value"] is None or found["low"] is None:
        return TOO_FEW
    return BETTER if found["low"] > 0 else WORSE if found["high"] < 0 else NO_BETTER


def few_of(cell: Json) -> bool:
    """Whether a cell has answers, but so few that it has no figure."""
    return 0 < int(cell["n"]) <= FEW
