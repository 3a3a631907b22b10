"""Which tests a method of explanation fails, so that its maps can be marked wherever they are shown."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from operator import gt, le, lt
from typing import Any

import numpy as np

from dermdistill.explain.explainer import Scores
from dermdistill.explain.randomisation import LIMIT


@dataclass(frozen=True)
class Criterion:
    """What a method must show.

    Args:
        score: which of its scores is read.
        against: a limit, or the score beside it, on the same images.
        passes: whether a mean is good enough against that of the other side.
        failed: in words, what it means if not, with the figures.
    """

    score: str
    against: float | str
    passes: Callable[[float, float], bool]
    failed: str


TESTS: dict[str, Criterion] = {
    "randomisation": Criterion(
        "randomisation",
        LIMIT,
        le,
        "its maps are much the same for a classifier with random weights: rank correlation {value:.2f}, at most "
        "{limit:.2f} is allowed",
    ),
    "centring": Criterion(
        "moved_energy",
        "moved_energy_prior",
        gt,
        "it finds a lesion off the centre no better than a blob in the middle does: {value:.3f} of its energy lies on "
        "moved lesions, {limit:.3f} of the blob's",
    ),
    "deletion": Criterion(
        "deletion",
        "deletion_random",
        lt,
        "the places it points at matter no more than random ones: area under the deletion curve {value:.3f}, "
        "{limit:.3f} in random order",
    ),
}


@dataclass(frozen=True)
class Failure:
    """A test that a method does not pass.

    Args:
        test: a name in ``TESTS``.
        value: mean of the method's score; None where no image defines it.
        limit: what it was held against; None where no image defines it.
        n: images that define both.
        sentence: in words, with the figures, to stand wherever the method's maps are shown.
    """

    test: str
    value: float | None
    limit: float | None
    n: int
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return asdict(self)


def verdict(scores: Mapping[str, Scores]) -> list[Failure]:
    """Which of ``TESTS`` a method fails, by means over the images that define both sides.

    - ``randomisation``: the maps correlate more than ``LIMIT`` with those of a model whose classifier is random;
    - ``centring``: where the lesion is off the centre, no more of the map lies on it than of the centre prior;
    - ``deletion``: without what the map calls important the probability falls no faster than in a random order.

    A measured score that no image defines (every map is blank) fails, as nothing was shown. What was not measured is
    in ``untested``.

    Args:
        scores: of ``score_method``.
    """
    tested = [name for name in TESTS if name not in untested(scores)]
    return [failure for name in tested if (failure := _tested(name, scores)) is not None]


def untested(scores: Mapping[str, Scores]) -> list[str]:
    """Those of ``TESTS`` whose scores were not measured."""
    return [name for name, criterion in TESTS.items() if criterion.score not in scores]


def _tested(name: str, scores: Mapping[str, Scores]) -> Failure | None:
    criterion = TESTS[name]
    own = scores[criterion.score]
    against = criterion.against
    other = scores[against] if isinstance(against, str) else np.full(len(own), against)
    both = np.isfinite(own) & np.isfinite(other)
    n = int(both.sum())
    if not n:
        return Failure(name, None, None, 0, f"{name}: no image defines {criterion.score}, so nothing was shown")
    value, limit = float(own[both].mean()), float(other[both].mean())
    if criterion.passes(value, limit):
        return None
    images = f"{n} image" + "s" * (n != 1)
    return Failure(name, value, limit, n, f"{name}: {criterion.failed.format(value=value, limit=limit)} ({images})")
