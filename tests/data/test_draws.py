"""The counter-based draws against numpy's Philox, and their statistics."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]

from dermdistill.data.draws import philox, uniforms
from dermdistill.errors import ConfigError

WORD = st.integers(0, 2**64 - 1)


@given(counter=st.tuples(WORD, WORD, WORD, WORD), key=st.tuples(WORD, WORD))
def test_philox_equals_numpy(counter: tuple[int, int, int, int], key: tuple[int, int]) -> None:
    whole = sum(word << (64 * place) for place, word in enumerate(counter))
    # numpy steps its counter before the first block.
    oracle = np.random.Philox(counter=(whole - 1) % 2**256, key=key[0] + (key[1] << 64)).random_raw(4)
    ours = philox(np.array(counter, dtype=np.uint64)[:, None], key)
    np.testing.assert_array_equal(ours[:, 0], oracle)


def test_uniforms_equal_numpys_generator() -> None:
    whole = 17 + (5 << 64) - 1
    oracle = np.random.Generator(np.random.Philox(counter=whole, key=123)).random(4)
    np.testing.assert_array_equal(uniforms(123, 5, np.array([17]), 4)[0], oracle)


@settings(max_examples=50)
@given(
    rows=st.lists(st.integers(0, 2**40), min_size=1, max_size=20),
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 10_000),
    columns=st.integers(1, 11),
)
def test_uniforms_depend_on_the_row_alone(rows: list[int], seed: int, epoch: int, columns: int) -> None:
    together = uniforms(seed, epoch, np.array(rows), columns)
    assert together.shape == (len(rows), columns)
    assert together.dtype == np.float64
    assert together.min() >= 0
    assert together.max() < 1
    for place, row in enumerate(rows):
        np.testing.assert_array_equal(together[place], uniforms(seed, epoch, np.array([row]), columns)[0])
    np.testing.assert_array_equal(together, uniforms(seed, epoch, np.array(rows), columns + 3)[:, :columns])


@pytest.mark.parametrize("column", range(6))
def test_uniforms_are_uniform_within_a_column(column: int) -> None:
    draws = uniforms(42, 0, np.arange(20_000), 6)[:, column]
    assert stats.kstest(draws, "uniform").pvalue > 1e-3


def test_uniforms_are_uniform_along_every_axis() -> None:
    along_epochs = [uniforms(42, epoch, np.array([7]), 1)[0, 0] for epoch in range(2000)]
    along_seeds = [uniforms(seed, 3, np.array([7]), 1)[0, 0] for seed in range(2000)]
    along_columns = uniforms(42, 3, np.array([7]), 4000)[0]
    for draws in (along_epochs, along_seeds, along_columns):
        assert stats.kstest(draws, "uniform").pvalue > 1e-3


def test_neighbours_are_independent() -> None:
    """Rank correlation of each draw with its neighbour in row, column, epoch and seed: 20,000 pairs each."""
    rows = np.arange(20_000)
    draws = uniforms(42, 0, rows, 8)
    pairs = [(draws[:-1, 0], draws[1:, 0])]
    pairs += [(draws[:, a], draws[:, b]) for a in range(8) for b in range(a)]
    pairs += [(draws[:, 0], uniforms(42, 1, rows, 1)[:, 0]), (draws[:, 0], uniforms(43, 0, rows, 1)[:, 0])]
    smallest = min(stats.spearmanr(first, second).pvalue for first, second in pairs)
    assert smallest > 1e-3 / len(pairs)


def test_pairs_fill_the_unit_square_evenly() -> None:
    draws = uniforms(42, 0, np.arange(20_000), 2)
    counts = np.histogram2d(draws[:, 0], draws[:, 1], bins=10, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3


@pytest.mark.parametrize(
    ("seed", "epoch", "row", "named"),
    [(-1, 0, 0, "seed"), (2**64, 0, 0, "seed"), (0, -2, 0, "epoch"), (0, 0, -3, "-3")],
)
def test_uniforms_refuse_what_has_no_draw(seed: int, epoch: int, row: int, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        uniforms(seed, epoch, np.array([row]), 1)


def test_no_rows_give_no_draws() -> None:
    assert uniforms(0, 0, np.array([], dtype=np.int64), 5).shape == (0, 5)
