"""What melanoma decisions are worth: net benefit, lesions to excise for each melanoma found, expected cost.

Counts alone do not say whether a model should be used. A decision curve weighs them: whoever would have a lesion
excised at a melanoma probability of 5% holds a missed melanoma to be 19 times as bad as a needless excision (Vickers
and Elkin, Medical Decision Making 26:565, 2006). A cost curve shows the same trade for every frequency of melanoma
(Drummond and Holte, Machine Learning 65:95, 2006).

A decision is ``probability >= threshold``, as in ``operating_points``. Probabilities must be calibrated: an
uncalibrated one is no threshold probability. Cases are images, as in all figures.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dermdistill.errors import ConfigError, DataError
from dermdistill.evaluate.bootstrap import estimate, number_or_none, replicates
from dermdistill.evaluate.metrics import Bools, Floats, as_weights, check_scores, ranked_counts, ratio

THRESHOLDS: Final = tuple(percent / 100 for percent in range(1, 51))
PROBABILITY_COSTS: Final = tuple(percent / 100 for percent in range(101))
CURVES: Final = ("net_benefit", "standardised", "over_treat_all")

Json = dict[str, Any]


@dataclass(frozen=True)
class Counts:
    """Weight of images at each threshold.

    Args:
        hits: melanomas that are referred, [..., T].
        alarms: other images that are referred, [..., T].
        melanomas: [..., 1].
        total: [..., 1].
    """

    hits: Floats
    alarms: Floats
    melanomas: Floats
    total: Floats

    def part(self, thresholds: slice) -> "Counts":
        """Those of some of the thresholds."""
        return replace(self, hits=self.hits[..., thresholds], alarms=self.alarms[..., thresholds])


def counts_at(melanoma: Bools, probs: Floats, thresholds: Floats, weights: npt.ArrayLike | None = None) -> Counts:
    """What each threshold refers.

    Args:
        melanoma: bool [N].
        probs: calibrated probability of melanoma, [N], in [0, 1].
        thresholds: [T].
        weights: [..., N].

    Raises:
        DataError: see ``metrics.check_scores``, or a probability outside [0, 1].
    """
    check_scores(melanoma, probs)
    if probs.min() < 0 or probs.max() > 1:
        raise DataError(f"probabilities {probs.min():g} to {probs.max():g}", rule="a probability lies in [0, 1]")
    counts, called = as_weights(weights, len(probs)), probs[:, None] >= thresholds
    # One product for both: the weights of all replicates are read once.
    summed = counts @ np.concatenate([called & melanoma[:, None], called & ~melanoma[:, None]], axis=1).astype(float)
    hits, alarms = np.split(summed, 2, axis=-1)
    melanomas = counts @ melanoma.astype(float)
    return Counts(hits, alarms, melanomas[..., None], counts.sum(axis=-1)[..., None])


def odds(thresholds: npt.ArrayLike) -> Floats:
    """How many missed melanomas one needless referral weighs, ``p / (1 - p)``, [T].

    Raises:
        ConfigError: a threshold probability outside (0, 1).
    """
    values = np.asarray(thresholds, dtype=np.float64)
    if not ((values > 0) & (values < 1)).all():
        raise ConfigError(f"threshold probabilities {values.tolist()}", rule="each lies in (0, 1)")
    harm: Floats = values / (1 - values)
    return harm


def net_benefit(
    melanoma: Bools, probs: Floats, thresholds: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> Floats:
    """``TP / n - FP / n * p / (1 - p)`` at each threshold probability p, [..., T]; referring nobody has 0.

    Its unit is melanomas found for each image, without a needless referral (Vickers and Elkin 2006).

    Args:
        melanoma: bool [N].
        probs: calibrated probability of melanoma, [N].
        thresholds: threshold probabilities p, [T], in (0, 1).
        weights: [..., N].

    Raises:
        DataError: see ``counts_at``.
        ConfigError: see ``odds``.
    """
    return _benefit(counts_at(melanoma, probs, np.asarray(thresholds, dtype=np.float64), weights), odds(thresholds))


def treat_all(melanoma: Bools, thresholds: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Floats:
    """Net benefit of referring everybody, ``prevalence - (1 - prevalence) * p / (1 - p)``, [..., T].

    Raises:
        DataError: no images, or wrong weights.
        ConfigError: see ``odds``.
    """
    check_scores(melanoma, melanoma)
    counts = as_weights(weights, len(melanoma))
    prevalence = ratio(counts @ melanoma.astype(float), counts.sum(axis=-1))[..., None]
    everybody: Floats = prevalence - (1 - prevalence) * odds(thresholds)
    return everybody


def _benefit(counts: Counts, harm: Floats) -> Floats:
    return ratio(counts.hits - counts.alarms * harm, counts.total)


def number_needed(counts: Counts) -> Floats:
    """Referred images for each melanoma among them, 1 / PPV, [..., T]; NaN where no melanoma is found.

    With a histology for each referred lesion this is the number needed to excise (Argenziano et al., JAAD 67:54, 2012).
    """
    return ratio(counts.hits + counts.alarms, counts.hits)


def expected_cost(false_negative_rate: Floats, false_positive_rate: Floats, costs: npt.ArrayLike) -> Floats:
    """Normalised expected cost, [..., C]: ``FNR * pc + FPR * (1 - pc)`` (Drummond and Holte 2006, equation 4).

    1 is the cost of being always wrong. Referring nobody costs pc, referring everybody 1 - pc.

    Args:
        false_negative_rate: [...].
        false_positive_rate: [...].
        costs: probability costs pc, [C], in [0, 1]: the frequency of melanoma times the cost of a missed one, over the
            sum of that and of the same for needless referrals.
    """
    share = np.asarray(costs, dtype=np.float64)
    cost: Floats = false_negative_rate[..., None] * share + false_positive_rate[..., None] * (1 - share)
    return cost


def lower_envelope(melanoma: Bools, probs: Floats, costs: npt.ArrayLike) -> Floats:
    """The least expected cost that any threshold has, [C]; referring nobody and everybody are among them.

    It is a bound: no threshold that was chosen on other images goes below it.

    Raises:
        DataError: see ``metrics.check_scores``, or one class alone.
    """
    if melanoma.all() or not melanoma.any():
        raise DataError("a cost curve of one class only", rule="both melanomas and other images are needed")
    _, hits, alarms = ranked_counts(melanoma, probs)
    missed, alarmed = 1 - np.append(0.0, hits) / hits[-1], np.append(0.0, alarms) / alarms[-1]
    lowest: Floats = expected_cost(missed, alarmed, costs).min(axis=0)
    return lowest


def better_costs(missed: float, alarmed: float) -> dict[str, float] | None:
    """Probability costs, ``low`` to ``high``, between which a decision beats referring nobody and everybody.

    None where it does nowhere: there the two rates add up to 1 or more, or one of them is NaN.

    Args:
        missed: false negative rate.
        alarmed: false positive rate.
    """
    if not missed + alarmed < 1:
        return None
    return {"low": alarmed / (1 - missed + alarmed), "high": (1 - alarmed) / (1 - alarmed + missed)}


def use_block(
    melanoma: Bools,
    melanoma_probs: Floats,
    thresholds: Mapping[str, float | None],
    weights: npt.NDArray[np.uint16],
) -> Json:
    """One model's decisions, JSON-able; null where the test part defines nothing.

    Args:
        melanoma: bool [N], of the test part.
        melanoma_probs: calibrated, [N].
        thresholds: on these probabilities, by name; chosen on the validation part. None where that gave none.
        weights: [S, N] from ``bootstrap.lesion_weights``.

    Returns:
        ``images``, ``melanomas``;
        ``decision_curve``: ``thresholds`` and ``treat_all``, [T]; ``net_benefit``, ``standardised`` (net benefit over
        prevalence) and ``over_treat_all``, each with ``value``, ``low``, ``high``, [T]; and ``better``: ``low`` and
        ``high`` end of each range of thresholds where ``net_benefit`` and ``over_treat_all`` have intervals above 0;
        ``operating_points`` by name, None without a threshold: ``threshold``, ``referred``, ``found``,
        ``number_needed`` with its interval, ``false_negative_rate``, ``false_positive_rate``, ``better_costs``;
        ``cost_curve``: ``probability_cost`` and ``lower_envelope``, [C] (empty with one class alone).

    Raises:
        DataError: see ``counts_at``.
    """
    chosen = {name: value for name, value in thresholds.items() if value is not None}
    measured = partial(_figures, melanoma, melanoma_probs, np.array(list(chosen.values()), dtype=np.float64))
    point, samples = measured(np.ones(len(melanoma))), replicates(measured, weights)
    curves = {name: _band(point[name], samples[name]) for name in CURVES}
    both = bool(melanoma.any()) and not bool(melanoma.all())
    costs = list(PROBABILITY_COSTS)
    return {
        "images": len(melanoma),
        "melanomas": int(melanoma.sum()),
        "decision_curve": {
            "thresholds": list(THRESHOLDS),
            "treat_all": treat_all(melanoma, THRESHOLDS).tolist(),
            **curves,
            "better": _better(curves["net_benefit"]["low"], curves["over_treat_all"]["low"]),
        },
        "operating_points": dict.fromkeys(thresholds)
        | {
            name: _point(melanoma, melanoma_probs, value)
            | {"number_needed": estimate(float(point["number_needed"][place]), samples["number_needed"][:, place])}
            for place, (name, value) in enumerate(chosen.items())
        },
        "cost_curve": {
            "probability_cost": costs,
            "lower_envelope": lower_envelope(melanoma, melanoma_probs, costs).tolist() if both else [],
        },
    }


def _figures(melanoma: Bools, probs: Floats, chosen: Floats, weights: Floats) -> dict[str, Floats]:
    """All that has an interval, from one pass over the weights."""
    grid, harm = np.array(THRESHOLDS), odds(THRESHOLDS)
    counts = counts_at(melanoma, probs, np.append(grid, chosen), weights)
    benefit = _benefit(counts.part(slice(None, len(grid))), harm)
    prevalence = ratio(counts.melanomas, counts.total)
    return {
        "net_benefit": benefit,
        "standardised": ratio(benefit, prevalence),
        "over_treat_all": benefit - (prevalence - (1 - prevalence) * harm),
        "number_needed": number_needed(counts.part(slice(len(grid), None))),
    }


def _band(values: Floats, samples: Floats) -> dict[str, list[float | None]]:
    """A curve and the bounds of its pointwise intervals, [T] each."""
    cells = [estimate(float(value), samples[:, place]) for place, value in enumerate(values)]
    return {key: [cell[key] for cell in cells] for key in ("value", "low", "high")}


def _better(*lows: list[float | None]) -> list[dict[str, float]]:
    """Ends of each unbroken range of thresholds at which all lower bounds are above 0."""
    above = [all(low is not None and low > 0 for low in place) for place in zip(*lows, strict=True)]
    edges = np.flatnonzero(np.diff([False, *above, False]))
    return [
        {"low": THRESHOLDS[first], "high": THRESHOLDS[after - 1]}
        for first, after in zip(edges[::2], edges[1::2], strict=True)
    ]


def _point(melanoma: Bools, probs: Floats, threshold: float) -> Json:
    """Counts, error rates and the range of costs of one threshold."""
    counts = counts_at(melanoma, probs, np.array([threshold]))
    found, alarms = float(counts.hits[0]), float(counts.alarms[0])
    missed = 1 - ratio(counts.hits, counts.melanomas)[0]
    alarmed = ratio(counts.alarms, counts.total - counts.melanomas)[0]
    return {
        "threshold": threshold,
        "referred": int(found + alarms),
        "found": int(found),
        "false_negative_rate": number_or_none(missed),
        "false_positive_rate": number_or_none(alarmed),
        "better_costs": better_costs(float(missed), float(alarmed)),
    }
