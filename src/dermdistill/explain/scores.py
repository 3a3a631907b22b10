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
    randomised_by: Explainer | None = None,
    maps: Maps | None = None,
    baselines: Mapping[str, Scores] | None = None,
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
    say 0 images, and ``randomisation`` where a scorer is given and no ``randomised_by``, as that is another model than
    the one whose weights are randomised.

    Args:
        explainer: the method, such as ``maps_by("score_cam")``.
        model: the network; it is left as it was.
        cases: of ``make_cases``.
        settings: how; None: the defaults.
        scorer: whose probabilities the curves watch, where that is not the network itself: an exported file of it.
        randomised_by: the same method by the network's own scores, for the test by randomised weights, where
            ``explainer`` asks a scorer that would not notice them.
        maps: float32 [N, S, S] of ``cases.plain`` by ``explainer``, if they are known.
        baselines: of ``curve_baselines``, with the same cases, settings and scorer; None: they are measured here.
    """
    how = settings or ScoreSettings()
    plain, moved = cases.plain, cases.moved
    if maps is None:
        maps = maps_of(explainer, model, plain.images, plain.classes, batch_size=how.batch_size)
    found = {**localisation(maps, plain.masks), "blank": blank(maps).astype(np.float64)}
    if len(moved):
        there = maps_of(explainer, model, moved.images, moved.classes, batch_size=how.batch_size)
        off_centre = {MOVED + name: values for name, values in localisation(there, moved.masks).items()}
        found |= _spread(off_centre, cases.moved_rows, len(plain))
    watched = scorer or NetworkScorer(model)

    def by_many_maps(
        name: str, test: Callable[..., Scores], method: Explainer, **options: Any
    ) -> Callable[[Shown, Maps], dict[str, Scores]]:
        def measure(shown: Shown, own: Maps) -> dict[str, Scores]:
            common = {"seed": how.seed, "maps": own, "batch_size": how.batch_size}
            return {name: test(method, model, shown.images, shown.classes, **common, **options)}

        return measure

    noisy = by_many_maps("sensitivity", sensitivity.max_sensitivity, explainer, radius=how.radius, draws=how.draws)
    at_random = by_many_maps(
        "randomisation", randomisation.randomisation_test, randomised_by or explainer, repeats=how.repeats
    )
    parts: list[tuple[int | None, Callable[[Shown, Maps], dict[str, Scores]]]] = [
        (how.curve_images, lambda shown, own: _curves(watched, shown, own, how)),
        (how.sensitivity_images, noisy),
        (0 if scorer and not randomised_by else how.randomisation_images, at_random),
    ]
    for wanted, measure in parts:
        rows = some_rows(len(plain), wanted, how.seed)
        if len(rows):
            found |= _spread(measure(plain.some(rows), maps[rows]), rows, len(plain))
    return {**found, **(curve_baselines(watched, cases, how) if baselines is None else baselines)}


def curve_baselines(scorer: Scorer, cases: Cases, settings: ScoreSettings | None = None) -> dict[str, Scores]:
    """What random orders and the centre prior score in ``score_method``'s curves, where these are measured.

    They are the same for every method, and cost more than a method's own curves.

    Args:
        scorer: whose probabilities the curves watch.
        cases: of ``make_cases``.
        settings: how; None: the defaults.

    Returns:
        ``deletion_random``, ``insertion_random``, ``deletion_prior``, ``insertion_prior``, float64 [N], NaN where they
        were not measured; nothing where curves are off.
    """
    how = settings or ScoreSettings()
    rows = some_rows(len(cases.plain), how.curve_images, how.seed)
    if not len(rows):
        return {}
    shown = cases.plain.some(rows)
    count, height, width = shown.masks.shape
    prior = _curves(scorer, shown, np.broadcast_to(centre_prior(height, width), shown.masks.shape), how)
    orders = [
        _curves(scorer, shown, deletion.random_maps(count, height, width, seed=how.seed + order), how)
        for order in range(how.random_orders)
    ]
    found = {
        name + suffix: values
        for name in CURVES
        for suffix, values in (
            ("_random", np.mean([order[name] for order in orders], axis=0)),
            ("_prior", prior[name]),
        )
    }
    return _spread(found, rows, len(cases.plain))


def some_rows(count: int, wanted: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Rows of ``count`` drawn by the seed, in order: a larger draw holds the smaller ones. None wanted: all."""
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[: count if wanted is None else wanted])


def _spread(scores: Mapping[str, Scores], rows: npt.NDArray[np.int64], count: int) -> dict[str, Scores]:
    """Scores of some rows as arrays over all of them."""
    found = {name: np.full(count, np.nan) for name in scores}
    for name, values in scores.items():
        found[name][rows] = values
    return found


def _curves(scorer: Scorer, shown: Shown, maps: Maps, how: ScoreSettings) -> dict[str, Scores]:
    return deletion.deletion_curves(scorer, shown.images, shown.classes, maps, seed=how.seed, steps=how.steps).areas()


def means(scores: Mapping[str, Scores]) -> dict[str, dict[str, Any]]:
    """``{NAME: {"value": mean over the images that define it, or None; "n": how many these are}}``."""
    defined = {name: values[np.isfinite(values)] for name, values in scores.items()}
    return {
        name: {"value": float(values.mean()) if len(values) else None, "n": len(values)}
        for name, values in defined.items()
    }
