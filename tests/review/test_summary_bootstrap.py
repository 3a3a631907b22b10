"""Draws of raters and items against answers counted one by one."""

import numpy as np
import pytest

from dermdistill.evaluate.notes import FEW
from dermdistill.review.summary_bootstrap import Draws, draw, figure, paired_difference, pooled_mean, share

RNG = np.random.default_rng(7)
VALUES = np.where(RNG.random((4, 10)) < 0.2, np.nan, RNG.integers(1, 6, (4, 10)))
LESIONS = [f"l{number // 2}" for number in range(10)]
GROUPS = ["a"] * 6 + ["b"] * 4


@pytest.fixture(scope="module")
def draws() -> Draws:
    return draw(4, LESIONS, GROUPS, samples=200, seed=3)


def answers_of(draws: Draws, row: int, columns: np.ndarray) -> list[tuple[int, float]]:
    """(rater drawn, answer) of one replicate, each as often as it was drawn."""
    drawn = []
    for rater, times in enumerate(draws.raters[row]):
        for copy in range(int(times)):
            own = [VALUES[rater, item] for item in np.flatnonzero(columns) for _ in range(int(draws.items[row, item]))]
            drawn += [((rater, copy), value) for value in own if not np.isnan(value)]
    return drawn


def test_first_row_is_the_data_themselves(draws: Draws):
    assert (draws.raters[0] == 1).all() and (draws.items[0] == 1).all()
    columns = np.ones(10, dtype=bool)
    assert pooled_mean(draws, VALUES, columns)[0] == pytest.approx(np.nanmean(VALUES))


def test_draws_keep_numbers_lesions_and_groups(draws: Draws):
    assert (draws.raters[1:].sum(axis=1) == 4).all()
    assert (draws.items[:, ::2] == draws.items[:, 1::2]).all()
    # Three lesions in one group and two in the other, two items each.
    assert (draws.items[1:, :6].sum(axis=1) == 6).all() and (draws.items[1:, 6:].sum(axis=1) == 4).all()
    assert len(np.unique(draws.raters[1:], axis=0)) > 20 and len(np.unique(draws.items[1:], axis=0)) > 20


def test_groups_of_one_size_are_not_drawn_alike():
    found = draw(2, list("abcdefgh"), ["x"] * 4 + ["y"] * 4, samples=50, seed=0)
    assert not (found.items[1:, :4] == found.items[1:, 4:]).all(axis=1).all()


def test_pooled_mean_is_that_of_the_drawn_answers(draws: Draws):
    columns = np.arange(10) % 3 != 0
    found = pooled_mean(draws, VALUES, columns)
    for row in range(60):
        drawn = [value for _, value in answers_of(draws, row, columns)]
        assert found[row] == pytest.approx(np.mean(drawn) if drawn else np.nan, nan_ok=True)


def test_paired_difference_is_the_mean_over_drawn_raters_of_their_own(draws: Draws):
    first, second = np.arange(10) < 6, np.arange(10) >= 6
    found = paired_difference(draws, VALUES, first, second)
    for row in range(60):
        means: list[dict[tuple[int, int], float]] = []
        for columns in (first, second):
            drawn = answers_of(draws, row, columns)
            means.append({who: np.mean([v for other, v in drawn if other == who]) for who, _ in drawn})
        gaps = [means[0][who] - means[1][who] for who in means[0] if who in means[1]]
        assert found[row] == pytest.approx(np.mean(gaps) if gaps else np.nan, nan_ok=True)


def test_pairing_takes_out_that_raters_differ():
    kind = np.array([0.0, 1, 2, 3])[:, None]
    values = np.where(np.arange(10) < 6, 2.0, 1.0) + kind
    # The kindest rater saw shams alone, which would raise their mean.
    values[3, :6] = np.nan
    found = paired_difference(
        draw(4, LESIONS, GROUPS, samples=50, seed=0), values, np.arange(10) < 6, np.arange(10) >= 6
    )
    defined = found[~np.isnan(found)]
    assert defined == pytest.approx(1.0) and len(defined) > 40


def test_one_rater_is_never_drawn_anew():
    assert (draw(1, LESIONS, GROUPS, samples=20, seed=0).raters == 1).all()


def test_few_answers_have_no_figure():
    rows = np.linspace(0, 1, 101)
    assert figure(rows, FEW) == {"value": None, "low": None, "high": None}
    assert figure(rows, FEW + 1)["value"] == 0.0
    assert share(3, FEW) == {"count": 3, "n": FEW, "value": None}
    assert share(3, FEW + 2) == {"count": 3, "n": 12, "value": 0.25}
