"""Figures of one recipe trained with several seeds, and their spread over test lesions and over retraining.

A number of one trained model hides two accidents: which lesions were in the test part, and which weights the
training happened to end with. Bouthillier et al. ("Accounting for variance in machine learning benchmarks",
MLSys 2021) measured the second to be as large as many reported gains. So a replicate draws lesions and, where
a recipe was trained more than once, training seeds too, both with replacement: its interval holds what another
test part and another training would change.

Seeds and lesions are crossed: every seed was tested on the same lesions. Drawing both separately is the
pigeonhole bootstrap (Owen, Annals of Applied Statistics 1:386, 2007), slightly too wide where seeds differ in
which lesions they get wrong. Where seeds differ as a whole and little else varies it is too narrow with few
seeds: simulated coverage of a 95% interval is .73 with 3 seeds and .81 with 5 in that extreme, .95 to .98 where
lesions contribute as much as seeds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermdistill.evaluate import bootstrap, metrics
from dermdistill.evaluate.figures import OVER_ALL_CLASSES
from dermdistill.evaluate.metrics import Floats, Ints
from dermdistill.evaluate.predictions import prob_columns
from dermdistill.labels import Task, class_names, melanoma_index

OVER_ALL = frozenset(name.removeprefix("diagnosis.") for name in OVER_ALL_CLASSES)
# Keeps the draws of seeds apart from those of lesions, which use the bare bootstrap seed.
SEED_STREAM = 1


@dataclass(frozen=True)
class Retrained:
    """One recipe, or the difference of two, at R training seeds.

    Args:
        seeds: training seeds in ascending order, R of them.
        points: {metric: [R]} on the test part itself, NaN where it does not define the figure.
        samples: {metric: [R, S]} in every replicate of lesions.
    """

    seeds: tuple[int, ...]
    points: Mapping[str, Floats]
    samples: Mapping[str, Floats]

    def minus(self, other: "Retrained") -> "Retrained":
        """The paired difference, seed by seed, at the seeds that both have.

        Both must have been measured with the same replicates of lesions.
        """
        common = tuple(seed for seed in self.seeds if seed in other.seeds)
        mine, theirs = ([one.seeds.index(seed) for seed in common] for one in (self, other))
        return Retrained(
            common,
            {name: values[mine] - other.points[name][theirs] for name, values in self.points.items()},
            {name: values[mine] - other.samples[name][theirs] for name, values in self.samples.items()},
        )

    def mean_samples(self, *, seed: int) -> dict[str, Floats]:
        """The mean over drawn seeds in every replicate, {metric: [S]}.

        Replicates of recipes with equally many seeds draw the same ones, so that their differences stay paired.

        Args:
            seed: of the bootstrap.
        """
        samples = len(next(iter(self.samples.values()))[0])
        shares = seed_shares(len(self.seeds), samples=samples, seed=seed)
        return {name: np.einsum("rs,sr->s", values, shares) for name, values in self.samples.items()}


def measure(labels: Ints, probs: Floats, task: Task, weights: Floats) -> dict[str, Floats]:
    """The figures that recipes are compared by; more is better in all of them. A new one is a line here.

    Args:
        labels: [N].
        probs: [N, K].
        task: tells which class is melanoma.
        weights: [..., N].

    Returns:
        {metric: [...]}, NaN where undefined.
    """
    aucs = metrics.class_auc(labels, probs, weights)
    return {
        "macro_auc": metrics.mean_of_defined(aucs),
        "balanced_accuracy": metrics.balanced_accuracy(labels, probs, weights),
        "melanoma_auc": aucs[..., melanoma_index(task)],
        "accuracy": metrics.accuracy(labels, probs, weights),
        "macro_f1": metrics.macro_f1(labels, probs, weights),
    }


def seed_shares(seeds: int, *, samples: int, seed: int) -> Floats:
    """The share of each training seed in each replicate: R of R seeds, with replacement.

    Args:
        seeds: number of training seeds R.
        samples: number of replicates S.
        seed: of the bootstrap.

    Returns:
        [S, R], rows add up to 1; all ones where R is 1.
    """
    generator = np.random.default_rng([seed, SEED_STREAM])
    shares: Floats = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=samples) / seeds
    return shares


def measure_seeds(frames: Mapping[int, pd.DataFrame], weights: npt.NDArray[np.uint16], task: Task) -> Retrained:
    """Every figure of one recipe at every seed, on the test part and in every replicate of lesions.

    Args:
        frames: {training seed: N rows of ``predictions_frame``}, images in the order of the weights.
        weights: [S, N] from ``bootstrap.lesion_weights``.
        task: decides the columns.
    """
    seeds = tuple(sorted(frames))
    points, samples = [], []
    for seed in seeds:
        labels = frames[seed]["label"].to_numpy(dtype=np.int64)
        probs = frames[seed][prob_columns(task)].to_numpy(dtype=np.float64)
        figures = partial(measure, labels, probs, task)
        points.append(_points(figures(np.ones(len(labels))), len(np.unique(labels)) < len(class_names(task))))
        samples.append(bootstrap.replicates(figures, weights))
    return Retrained(
        seeds,
        {name: np.array([point[name] for point in points]) for name in points[0]},
        {name: np.stack([sample[name] for sample in samples]) for name in samples[0]},
    )


def _points(figures: Mapping[str, Floats], lacks_class: bool) -> dict[str, float]:
    """Figures of the test part; a mean over all classes is NaN where one of them has no image."""
    return {name: np.nan if lacks_class and name in OVER_ALL else float(value) for name, value in figures.items()}
