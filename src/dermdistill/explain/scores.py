"""Every score of one method on one model, an array entry an image.

No interval is made here. Each score is an array over the same images, NaN where it is not defined, so that a bootstrap
over lesions can weigh all of them alike. What a method fails by them is in ``verdict.py``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from dermdistill.errors import ConfigError
from dermdistill.explain import deletion, randomisation, sensitivity
from dermdistill.explain.cases import Cases, Shown
from dermdistill.explain.explainer import BATCH, Explainer, Maps, Scores, blank, maps_of
from dermdistill.explain.localisation import LOCALISATION, centre_prior, localisation
from dermdistill.explain.scorers import NetworkScorer, Scorer

MOVED = "moved_"
CURVES = ("deletion", "insertion")
# Which end of a score is the better one; those of the baselines are named after it, see ``score_method``.
BETTER = {
    **dict.fromkeys((*LOCALISATION, *(MOVED + name for name in LOCALISATION)), "higher"),
    "blank": "lower",
    "deletion": "lower",
    "insertion": "higher",
    "sensitivity": "lower",
    "randomisation": "lower",
}


@dataclass(frozen=True)
class ScoreSettings:
    """How methods are scored.

    Args:
        seed: of all that is random.
        batch_size: images at once.
        curve_images: how many of the images have curves, drawn by the seed; None: all. So too the next two.
        sensitivity_images: how many have their sensitivity measured: a map for each draw.
        randomisation_images: how many see the test by randomised weights: a map for each repeat.
        steps: of the curves.
        random_orders: how many random orders the curves' baseline averages.
        draws: of noise.
        radius: of noise, in units of the normalised images.
        repeats: how many new classifiers.

    Raises:
        ConfigError: a number below 1, where it is not a count of images; that may be 0.
    """

    seed: int = 0
    batch_size: int = BATCH
    curve_images: int | None = None
    sensitivity_images: int | None = None
    randomisation_images: int | None = None
    steps: int = deletion.STEPS
    random_orders: int = 3
    draws: int = sensitivity.DRAWS
    radius: float = sensitivity.RADIUS
    repeats: int = randomisation.REPEATS

    def __post_init__(self) -> None:
        counts = (self.batch_size, self.steps, self.random_orders, self.draws, self.repeats)
        some = (self.curve_images, self.sensitivity_images, self.randomisation_images)
        if min(counts) < 1 or any(value is not None and value < 0 for value in some):
            raise ConfigError(f"settings of scores are {self}", rule="at least 1 each; counts of images at least 0")


def score_method(
    explainer: Explainer,
    model: nn.Module,
    cases: Cases,
    settings: ScoreSettings | None = None,
    *,
    scorer: Scorer | None = None,
) -> dict[str, Scores]:
    """Every score of one method, as float64 [N] over ``cases.plain``, NaN where it is not defined or was not measured.

    - ``energy``, ``pointing``, ``iou``: agreement with the lesion's mask; ``moved_*``: the same where the lesion was
      moved off the centre; each with ``*_prior``, what the centre prior scores there;
    - ``blank``: 1 where the map is blank;
    - ``deletion``, ``insertion``: areas under the curves; ``*_random``: of random orders; ``*_prior``: of the centre
      prior;
    - ``sensitivity``: largest relative change of the map under small noise;
    - ``randomisation``: rank correlation with the map after the classifier was initialised anew.

    Scores that were measured on no image are absent: ``moved_*`` where no lesion could be moved, those of settings that
    say 0 images, and ``randomisation`` where a scorer is given, as that is another model than the one whose weights are
    randomised.

    Args:
        explainer: the method, such as ``maps_by("score_cam")``.
        model: the network; it is left as it was.
        cases: of ``make_cases``.
        settings: how; None: the defaults.
        scorer: whose probabilities the curves watch, where that is not the network itself: the INT8 model.
    """
    how = settings or ScoreSettings()
    plain, moved = cases.plain, cases.moved
    maps = maps_of(explainer, model, plain.images, plain.classes, batch_size=how.batch_size)
    found = {**localisation(maps, plain.masks), "blank": blank(maps).astype(np.float64)}
    if len(moved):
        there = maps_of(explainer, model, moved.images, moved.classes, batch_size=how.batch_size)
        off_centre = {MOVED + name: values for name, values in localisation(there, moved.masks).items()}
        found |= _spread(off_centre, cases.moved_rows, len(plain))
    watched = scorer or NetworkScorer(model)
    parts: list[tuple[int | None, Callable[[Shown, Maps], dict[str, Scores]]]] = [
        (how.curve_images, lambda shown, own: _curves(watched, shown, own, how)),
        (how.sensitivity_images, lambda shown, own: _sensitivity(explainer, model, shown, own, how)),
        (
            0 if scorer else how.randomisation_images,
            lambda shown, own: _randomisation(explainer, model, shown, own, how),
        ),
    ]
    for wanted, measure in parts:
        rows = _some(len(plain), wanted, how.seed)
        if len(rows):
            found |= _spread(measure(plain.some(rows), maps[rows]), rows, len(plain))
    return found


def _some(count: int, wanted: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Rows drawn by the seed, in order: a larger draw holds the smaller ones."""
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[: count if wanted is None else wanted])


def _spread(scores: Mapping[str, Scores], rows: npt.NDArray[np.int64], count: int) -> dict[str, Scores]:
    """Scores of some rows as arrays over all of them."""
    found = {name: np.full(count, np.nan) for name in scores}
    for name, values in scores.items():
        found[name][rows] = values
    return found


def _curves(scorer: Scorer, shown: Shown, maps: Maps, how: ScoreSettings) -> dict[str, Scores]:
    def areas(of: Maps) -> dict[str, Scores]:
        curves = deletion.deletion_curves(scorer, shown.images, shown.classes, of, seed=how.seed, steps=how.steps)
        return curves.areas()

    count, height, width = maps.shape
    prior = areas(np.broadcast_to(centre_prior(height, width), maps.shape))
    orders = [
        areas(deletion.random_maps(count, height, width, seed=how.seed + order)) for order in range(how.random_orders)
    ]
    chance = {f"{name}_random": np.mean([order[name] for order in orders], axis=0) for name in CURVES}
    return {**areas(maps), **chance, **{f"{name}_prior": prior[name] for name in CURVES}}


def _sensitivity(
    explainer: Explainer, model: nn.Module, shown: Shown, maps: Maps, how: ScoreSettings
) -> dict[str, Scores]:
    found = sensitivity.max_sensitivity(
        explainer,
        model,
        shown.images,
        shown.classes,
        seed=how.seed,
        maps=maps,
        radius=how.radius,
        draws=how.draws,
        batch_size=how.batch_size,
    )
    return {"sensitivity": found}


def _randomisation(
    explainer: Explainer, model: nn.Module, shown: Shown, maps: Maps, how: ScoreSettings
) -> dict[str, Scores]:
    found = randomisation.randomisation_test(
        explainer,
        model,
        shown.images,
        shown.classes,
        seed=how.seed,
        maps=maps,
        repeats=how.repeats,
        batch_size=how.batch_size,
    )
    return {"randomisation": found}


def means(scores: Mapping[str, Scores]) -> dict[str, dict[str, Any]]:
    """``{NAME: {"value": mean over the images that define it, or None; "n": how many these are}}``."""
    defined = {name: values[np.isfinite(values)] for name, values in scores.items()}
    return {
        name: {"value": float(values.mean()) if len(values) else None, "n": len(values)}
        for name, values in defined.items()
    }
