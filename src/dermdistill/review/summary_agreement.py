"""The block ``agreement``: how far raters agree on each scale, with each other and with themselves."""

import numpy as np

from dermdistill.evaluate.bootstrap import estimate, lesion_weights
from dermdistill.evaluate.metrics import Bools, Floats, Ints
from dermdistill.evaluate.notes import FEW
from dermdistill.review.rater_agreement import (
    band,
    mean_kappa,
    ordinal_alpha,
    pairwise_kappa,
    rater_pairs,
    weighted_kappa,
)
from dermdistill.review.summary_answers import SCALES, Answers
from dermdistill.review.summary_bootstrap import Draws, Json, figure, share


def agreement_block(answers: Answers, draws: Draws, *, samples: int, seed: int) -> Json:
    """Agreement on each scale.

    Args:
        answers: of R raters to N items.
        draws: of the same, for agreement within raters.
        samples: replicates over items, of alpha and kappa.
        seed: of these.

    Returns:
        {scale: {``alpha``, ``alpha_true_maps`` (shams left out), ``kappa``, ``within``}}; see ``summary``.
    """
    weights = _item_weights([item.lesion_id for item in answers.items], samples, seed)
    true_maps = np.array([not item.sham for item in answers.items])
    block = {}
    for scale in SCALES:
        ratings = answers.grid(scale)
        block[scale] = {
            "alpha": _alpha(ratings, weights, np.ones_like(true_maps)),
            "alpha_true_maps": _alpha(ratings, weights, true_maps),
            "kappa": _kappa(answers.raters, ratings, weights),
            "within": _within(answers, scale, draws),
        }
    return block


def _item_weights(lesion_ids: list[str], samples: int, seed: int) -> Floats:
    """Rows of weights, the first all ones."""
    drawn = lesion_weights(lesion_ids, samples=samples, seed=seed)
    return np.concatenate([np.ones((1, len(lesion_ids))), drawn])


def _alpha(ratings: Floats, weights: Floats, columns: Bools) -> Json:
    """Alpha over some items, null where ``FEW`` or fewer of them were rated twice or more."""
    own = ratings[:, columns]
    paired = int(((~np.isnan(own)).sum(axis=0) >= 2).sum())
    rows = ordinal_alpha(own, weights[:, columns])
    value = float(rows[0]) if paired > FEW else np.nan
    found = estimate(value, rows[1:])
    low = np.nan if found["low"] is None else found["low"]
    return {**found, "items": paired, "band": band(value), "band_of_low": band(low)}


def _kappa(raters: tuple[str, ...], ratings: Floats, weights: Floats) -> Json:
    pairs, common = rater_pairs(ratings)
    enough = [pair for pair, items in zip(pairs, common, strict=True) if items > FEW]
    values = dict(zip(enough, pairwise_kappa(ratings, enough).tolist(), strict=True))
    rows = mean_kappa(ratings, enough, weights)
    return {
        "mean": estimate(float(rows[0]), rows[1:]),
        "pairs": [
            {
                "first": raters[pair[0]],
                "second": raters[pair[1]],
                "items": int(items),
                "value": None if np.isnan(values.get(pair, np.nan)) else values[pair],
            }
            for pair, items in zip(pairs, common, strict=True)
        ],
        "few": len(pairs) - len(enough),
    }


def _within(answers: Answers, scale: str, draws: Draws) -> Json:
    """First and second answers of raters to items that were shown twice."""
    repeats = [item for item in answers.study.items if item.repeat_of]
    places = {item.item: place for place, item in enumerate(answers.items)}
    columns = np.array([places[item.repeat_of] for item in repeats], dtype=np.int64)
    first = answers.grid(scale)[:, columns]
    second = answers.grid(scale, [item.item for item in repeats])
    who, which = np.nonzero(~(np.isnan(first) | np.isnan(second)))
    x, y = first[who, which], second[who, which]
    weights = draws.raters[:, who] * draws.items[:, columns[which]]
    return {
        **_pair_figures(x, y, weights),
        "by_rater": [
            {"rater": rater, **_pair_figures(x[who == place], y[who == place])}
            for place, rater in enumerate(answers.raters)
        ],
    }


def _pair_figures(x: Floats, y: Floats, weights: Floats | None = None) -> Json:
    """Counts of equal and nearly equal answers, mean distance, and kappa (with an interval where there are weights)."""
    distance: Ints = np.abs(x - y).astype(np.int64)
    enough = len(x) > FEW
    rows = weighted_kappa(x[None], y[None], np.ones((1, len(x))) if weights is None else weights)[:, 0]
    kappa = figure(rows, len(x))
    return {
        "pairs": len(x),
        "same": share(int((distance == 0).sum()), len(x)),
        "within_one": share(int((distance <= 1).sum()), len(x)),
        "mean_distance": float(distance.mean()) if enough else None,
        "kappa": kappa if weights is not None else kappa["value"],
    }
