"""Factors by gradient norm: equal pull for equal weights, bounded, and nothing for a term without a gradient."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dermdistill.distill.balance import LARGEST_FACTOR, balance_factors, rescaled
from dermdistill.distill.objective import Term

POSITIVE = st.floats(0.05, 5)


@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=5))
def test_every_term_pulls_alike_and_the_sum_of_pulls_stays(pairs: list[tuple[float, float]]) -> None:
    weights = {str(index): weight for index, (weight, _) in enumerate(pairs)}
    norms = {str(index): norm for index, (_, norm) in enumerate(pairs)}
    factors = balance_factors(weights, norms)
    pulls = [factors[name] * norms[name] for name in weights]
    assert pulls == pytest.approx([pulls[0]] * len(pulls))
    before = sum(weights[name] * norms[name] for name in weights)
    assert sum(weights[name] * factors[name] * norms[name] for name in weights) == pytest.approx(before)


def test_factor_is_bounded_and_a_term_without_gradient_is_left_alone() -> None:
    factors = balance_factors({"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 1.0, "b": 1e-9, "c": 0.0})
    assert factors["b"] == LARGEST_FACTOR and factors["c"] == 1.0


def test_rescaled_changes_weights_alone() -> None:
    terms = {"a": Term(torch.tensor(2.0), 0.5)}
    assert rescaled(terms, {"a": 3.0}) == {"a": Term(torch.tensor(2.0), 1.5)}
