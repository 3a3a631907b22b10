"""Net benefit, numbers needed and cost curves against confusion tables counted by hand, image by image."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, precision_score, roc_curve

from dermdistill.errors import ConfigError, DataError
from dermdistill.evaluate import net_benefit as use
from dermdistill.evaluate.bootstrap import lesion_weights

SEEDS = st.integers(0, 2**32 - 1)
GRID = np.array([0.01, 0.1, 0.25, 0.5, 0.8])


def draw(seed: int, images: int = 60):
    """Both classes, calibrated probabilities with ties, integer weights of three replicates."""
    rng = np.random.default_rng(seed)
    probs = rng.integers(0, 21, images) / 20
    melanoma = rng.random(images) < probs
    melanoma[:2] = True, False
    weights = rng.integers(0, 4, (3, images))
    weights[:, :2] = 1
    return melanoma, probs, weights


def table(melanoma, probs, threshold, weights) -> SimpleNamespace:
    """The confusion table by a loop."""
    cells = SimpleNamespace(tp=0, fp=0, fn=0, tn=0)
    for is_melanoma, prob, weight in zip(melanoma, probs, weights, strict=True):
        name = ("t" if (prob >= threshold) == is_melanoma else "f") + ("p" if prob >= threshold else "n")
        setattr(cells, name, getattr(cells, name) + int(weight))
    return cells


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS)
def test_net_benefit_equals_counted_tables(seed: int):
    melanoma, probs, weights = draw(seed)
    found = use.net_benefit(melanoma, probs, GRID, weights)
    assert found.shape == (3, len(GRID))
    for row, drawn in enumerate(weights):
        for column, p in enumerate(GRID):
            cells, total = table(melanoma, probs, p, drawn), drawn.sum()
            assert found[row, column] == pytest.approx(cells.tp / total - cells.fp / total * p / (1 - p))


def test_net_benefit_of_one_table_worked_out():
    """10 images, 4 melanomas; at 20% three are found with two false alarms: 3/10 - 2/10 * 1/4."""
    melanoma = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], dtype=bool)
    probs = np.array([0.9, 0.5, 0.2, 0.1, 0.7, 0.3, 0.1, 0.1, 0.0, 0.0])
    assert use.net_benefit(melanoma, probs, [0.2]) == pytest.approx([0.25])
    assert use.treat_all(melanoma, [0.2]) == pytest.approx([0.4 - 0.6 / 4])


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS)
def test_treat_all_is_its_formula_and_a_model_that_refers_everybody(seed: int):
    melanoma, _, weights = draw(seed)
    prevalence = np.average(np.broadcast_to(melanoma, weights.shape), axis=1, weights=weights)[:, None]
    everybody = use.treat_all(melanoma, GRID, weights)
    np.testing.assert_allclose(everybody, prevalence - (1 - prevalence) * GRID / (1 - GRID), atol=1e-12)
    np.testing.assert_allclose(use.net_benefit(melanoma, np.ones(len(melanoma)), GRID, weights), everybody, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS)
def test_no_model_exceeds_the_perfect_one_and_referring_nobody_has_no_benefit(seed: int):
    melanoma, probs, weights = draw(seed)
    perfect = use.net_benefit(melanoma, melanoma.astype(float), GRID, weights)
    assert (use.net_benefit(melanoma, probs, GRID, weights) <= perfect + 1e-12).all()
    np.testing.assert_allclose(
        perfect, np.average(np.tile(melanoma, (3, 1)), axis=1, weights=weights)[:, None] + 0 * GRID
    )
    assert (use.net_benefit(melanoma, np.zeros(len(melanoma)), GRID, weights) == 0).all()


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS)
def test_number_needed_is_one_over_ppv(seed: int):
    melanoma, probs, _ = draw(seed)
    needed = use.number_needed(use.counts_at(melanoma, probs, GRID))
    for value, p in zip(needed, GRID, strict=True):
        ppv = precision_score(melanoma, probs >= p, zero_division=0)
        assert np.isnan(value) if ppv == 0 else value == pytest.approx(1 / ppv)


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS)
def test_lower_envelope_is_the_least_cost_of_all_thresholds(seed: int):
    melanoma, probs, _ = draw(seed)
    costs = np.linspace(0, 1, 11)
    false_positives, hits, _ = roc_curve(melanoma, probs, drop_intermediate=False)
    lines = [(1 - tpr) * costs + fpr * (1 - costs) for fpr, tpr in zip(false_positives, hits, strict=True)]
    envelope = use.lower_envelope(melanoma, probs, costs)
    np.testing.assert_allclose(envelope, np.min(lines, axis=0), atol=1e-12)
    assert (envelope <= np.minimum(costs, 1 - costs) + 1e-12).all()


@settings(deadline=None, max_examples=60)
@given(missed=st.floats(0, 1), alarmed=st.floats(0, 1))
def test_better_costs_are_where_the_line_lies_below_both_trivial_ones(missed: float, alarmed: float):
    costs = np.linspace(0, 1, 501)
    cost = use.expected_cost(np.float64(missed), np.float64(alarmed), costs)
    below = costs[cost < np.minimum(costs, 1 - costs) - 1e-12]
    found = use.better_costs(missed, alarmed)
    if found is None:
        assert not len(below)
    else:
        assert not len(below) or (found["low"] <= below[0] and below[-1] <= found["high"])
        inside = (costs > found["low"]) & (costs < found["high"])
        assert (cost[inside] < np.minimum(costs, 1 - costs)[inside] + 1e-9).all()


@pytest.fixture(scope="module")
def block():
    rng = np.random.default_rng(7)
    probs = rng.beta(0.4, 2.5, 600)
    melanoma = rng.random(600) < probs
    weights = lesion_weights(np.arange(600) // 2, samples=200, seed=1)
    thresholds = {"at_80_sensitivity": 0.3, "youden": None, "at_95_sensitivity": 0.05}
    return use.use_block(melanoma, probs, thresholds, weights), melanoma, probs, weights


def test_block_is_json_and_keeps_the_order_of_thresholds(block):
    found = block[0]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert list(found["operating_points"]) == ["at_80_sensitivity", "youden", "at_95_sensitivity"]
    assert found["operating_points"]["youden"] is None


def test_block_holds_counted_operating_points(block):
    found, melanoma, probs, _ = block
    for name, threshold in (("at_80_sensitivity", 0.3), ("at_95_sensitivity", 0.05)):
        (tn, fp), (fn, tp) = confusion_matrix(melanoma, probs >= threshold)
        point = found["operating_points"][name]
        assert (point["threshold"], point["referred"], point["found"]) == (threshold, tp + fp, tp)
        assert point["number_needed"]["value"] == pytest.approx((tp + fp) / tp)
        assert point["false_negative_rate"] == pytest.approx(fn / (fn + tp))
        assert point["false_positive_rate"] == pytest.approx(fp / (fp + tn))


def test_block_intervals_are_quantiles_of_the_replicates(block):
    found, melanoma, probs, weights = block
    curve, place = found["decision_curve"], 9
    p = curve["thresholds"][place]
    assert p == 0.1
    repeats = [np.repeat(np.arange(600), row) for row in weights]
    own = np.array([use.net_benefit(melanoma[rows], probs[rows], [p])[0] for rows in repeats])
    over = own - np.array([use.treat_all(melanoma[rows], [p])[0] for rows in repeats])
    share = own / np.array([melanoma[rows].mean() for rows in repeats])
    for name, samples in (("net_benefit", own), ("over_treat_all", over), ("standardised", share)):
        bounds = np.quantile(samples, [0.025, 0.975])
        assert (curve[name]["low"][place], curve[name]["high"][place]) == pytest.approx(bounds), name
        assert curve[name]["low"][place] < curve[name]["value"][place] < curve[name]["high"][place]


def test_better_ranges_are_where_both_lower_bounds_are_above_zero(block):
    curve = block[0]["decision_curve"]
    inside = [any(part["low"] <= p <= part["high"] for part in curve["better"]) for p in curve["thresholds"]]
    lows = zip(curve["net_benefit"]["low"], curve["over_treat_all"]["low"], strict=True)
    assert inside == [min(pair) > 0 for pair in lows]
    assert 0 < sum(inside) < len(inside)


def test_broken_ranges_stay_apart():
    lows = [0.1 if place not in (0, 5, 6) else -0.1 for place in range(50)]
    assert use._better(lows, [1.0] * 50) == [{"low": 0.02, "high": 0.05}, {"low": 0.08, "high": 0.5}]
    assert use._better([None] * 50, [1.0] * 50) == []


@pytest.mark.parametrize("all_melanomas", [False, True])
def test_one_class_alone_is_null_not_zero(all_melanomas: bool):
    melanoma, weights = np.full(6, all_melanomas), lesion_weights(np.arange(6), samples=5, seed=0)
    found = use.use_block(melanoma, np.full(6, 0.4), {"youden": 0.5, "at_95_sensitivity": 0.3}, weights)
    assert json.dumps(found, allow_nan=False)
    assert found["cost_curve"]["lower_envelope"] == []
    nothing_found, referred = found["operating_points"].values()
    assert nothing_found["number_needed"] == {"value": None, "low": None, "high": None}
    assert (nothing_found["false_negative_rate"] is None) is not all_melanomas
    assert (referred["false_positive_rate"] is None) is all_melanomas
    assert referred["number_needed"]["value"] == (1.0 if all_melanomas else None)
    assert (found["decision_curve"]["standardised"]["value"][0] is None) is not all_melanomas


def test_impossible_input_is_refused():
    melanoma, probs = np.array([True, False]), np.array([0.2, 0.4])
    for wrong in (0.0, 1.0, -0.1, np.nan):
        with pytest.raises(ConfigError, match="threshold probabilities"):
            use.net_benefit(melanoma, probs, [wrong])
    with pytest.raises(DataError, match="probabilities"):
        use.net_benefit(melanoma, probs + 1, [0.1])
    with pytest.raises(DataError, match="one class"):
        use.lower_envelope(np.array([True, True]), probs, [0.5])
