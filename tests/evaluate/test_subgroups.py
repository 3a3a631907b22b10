"""Figures of groups against scikit-learn, gaps against exact permutation distributions, Holm against closed testing."""

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom
from sklearn import metrics as oracle

from dermdistill.errors import DataError
from dermdistill.evaluate.bootstrap import interval, lesion_weights
from dermdistill.evaluate.subgroup_axes import Axis
from dermdistill.evaluate.subgroups import SubgroupScores, holm, permuted, subgroups_block

CLASSES = ("bcc", "mel", "nv")
SENSITIVITY, SPECIFICITY = "sensitivity_at_95_sensitivity", "specificity_at_95_sensitivity"


def scores_of(labels: Any, predicted: Any, probs: Any = None, threshold: float | None = 0.5) -> SubgroupScores:
    labels = np.asarray(labels)
    probs = np.full(len(labels), 0.5) if probs is None else np.asarray(probs, dtype=np.float64)
    return SubgroupScores(labels, np.asarray(predicted), labels == 1, probs, threshold, CLASSES)


def axis_of(group_of: Any, groups: tuple[str, ...] = ("a", "b")) -> Axis:
    return Axis("Group", groups, np.asarray(group_of, dtype=np.int64))


def drawn(images: int = 240, seed: int = 0) -> tuple[SubgroupScores, Axis, np.ndarray]:
    """Imperfect scores, lesions of up to three images, groups that differ within no lesion."""
    rng = np.random.default_rng(seed)
    lesions = np.sort(rng.integers(0, images // 2, images))
    labels = rng.integers(0, 3, images // 2)[lesions]
    predicted = np.where(rng.random(images) < 0.7, labels, rng.integers(0, 3, images))
    probs = (rng.random(images) + 0.8 * (labels == 1)).round(1) / 2
    axis = axis_of(rng.integers(0, 3, images // 2)[lesions], tuple("abc"))
    return scores_of(labels, predicted, probs), axis, lesions


def block_of(scores: SubgroupScores, axis: Axis, lesions: Any, **settings_: Any) -> dict[str, Any]:
    asked = {"samples": 20, "seed": 3, "permutations": 50, **settings_}
    return subgroups_block({"m": scores}, {"x": axis}, lesions, **asked)


def test_figures_of_each_group_are_those_of_scikit_learn() -> None:
    scores, axis, lesions = drawn()
    block = block_of(scores, axis, lesions)
    for place, group in enumerate("abc"):
        inside = axis.group_of == place
        true, called, probs = scores.labels[inside], scores.predicted[inside], scores.melanoma_probs[inside]
        melanoma = true == 1
        expected = {
            "accuracy": oracle.accuracy_score(true, called),
            "balanced_accuracy": oracle.balanced_accuracy_score(true, called),
            "melanoma_auc": oracle.roc_auc_score(melanoma, probs),
            SENSITIVITY: oracle.recall_score(melanoma, probs >= 0.5),
            SPECIFICITY: oracle.recall_score(~melanoma, probs < 0.5),
            "melanoma_excess": probs.mean() - melanoma.mean(),
        }
        found = {name: cell["value"] for name, cell in block["models"]["m"]["x"]["groups"][group].items()}
        assert found == pytest.approx(expected)
        counts = block["axes"]["x"]["groups"][group]
        assert counts["images"] == inside.sum()
        assert counts["melanomas"] == melanoma.sum()
        assert counts["lesions"] == len(set(lesions[inside]))


def test_intervals_are_over_lesions_with_the_same_draws_in_every_group() -> None:
    scores, axis, lesions = drawn()
    block = block_of(scores, axis, lesions, samples=200)
    weights = lesion_weights(lesions, samples=200, seed=3).astype(float)
    right = scores.labels == scores.predicted
    shares = []
    for place, group in enumerate("abc"):
        inside = axis.group_of == place
        shares.append((weights * inside * right).sum(1) / (weights * inside).sum(1))
        cell = block["models"]["m"]["x"]["groups"][group]["accuracy"]
        assert (cell["low"], cell["high"]) == pytest.approx((interval(shares[-1]).low, interval(shares[-1]).high))
    gap = block["models"]["m"]["x"]["gaps"]["accuracy"]
    bounds = interval(shares["abc".index(gap["best"])] - shares["abc".index(gap["worst"])])
    assert (gap["low"], gap["high"]) == pytest.approx((bounds.low, bounds.high))


def test_groups_of_ten_cases_have_no_figures_and_of_eleven_do() -> None:
    labels = np.array([2] * 10 + [2] * 11 + [1] * 10 + [1] * 11 + [2] * 30)
    group_of = np.array([0] * 10 + [1] * 11 + [2] * 10 + [3] * 11 + [2] * 15 + [3] * 15)
    block = block_of(scores_of(labels, labels), axis_of(group_of, tuple("abcd")), np.arange(len(labels)))
    cells = block["models"]["m"]["x"]["groups"]
    nothing = {"value": None, "low": None, "high": None}
    assert cells["a"]["accuracy"] == nothing | {"cases": 10}
    assert cells["b"]["accuracy"]["value"] == 1.0
    assert cells["c"][SENSITIVITY] == nothing | {"cases": 10}
    assert cells["c"]["melanoma_auc"] == nothing | {"cases": 10}
    assert cells["d"][SENSITIVITY]["value"] == 1.0
    assert cells["b"][SPECIFICITY]["cases"] == 11
    assert cells["d"]["melanoma_auc"]["cases"] == 11
    assert block["models"]["m"]["x"]["gaps"]["accuracy"]["compared"] == 3
    assert block["models"]["m"]["x"]["gaps"][SENSITIVITY]["compared"] == 1


def test_classes_that_a_group_lacks_are_named() -> None:
    labels = np.array([0] * 20 + [1] * 20 + [2] * 20)
    group_of = np.array([0] * 20 + [1] * 40)
    counts = block_of(scores_of(labels, labels), axis_of(group_of), np.arange(60))["axes"]["x"]["groups"]
    assert [counts[group]["missing_classes"] for group in "ab"] == [["mel", "nv"], ["bcc"]]


def test_gap_is_best_minus_worst_and_leaves_unknown_out() -> None:
    labels = np.full(120, 2)
    predicted = np.array([2] * 30 + [0] * 10 + [2] * 20 + [0] * 20 + [0] * 40)
    axis = axis_of(np.repeat([0, 1, 2], 40), ("a", "b", "unknown"))
    gap = block_of(scores_of(labels, predicted), axis, np.arange(120))["models"]["m"]["x"]["gaps"]["accuracy"]
    assert gap["value"] == pytest.approx(0.75 - 0.5)
    assert (gap["best"], gap["worst"], gap["compared"]) == ("a", "b", 2)


def exact_p(hits: tuple[int, int], sizes: tuple[int, int]) -> float:
    """Of two groups, all ways to hand out the hits: share at least as far apart (Fisher's distribution)."""
    distribution = hypergeom(sum(sizes), sum(hits), sizes[0])
    observed = abs(hits[0] / sizes[0] - hits[1] / sizes[1])
    first = np.arange(sizes[0] + 1)
    apart = np.abs(first / sizes[0] - (sum(hits) - first) / sizes[1])
    return float(distribution.pmf(first)[apart >= observed - 1e-12].sum())


@pytest.mark.parametrize("repeated", [1, 4])
def test_p_is_that_of_the_exact_permutation_test_over_lesions(repeated: int) -> None:
    """Each lesion ``repeated`` times: its images must count once, else p would be far smaller."""
    hits, sizes = (20, 18), (25, 30)
    right = np.concatenate([np.arange(size) < hit for hit, size in zip(hits, sizes, strict=True)])
    lesions = np.repeat(np.arange(sum(sizes)), repeated)
    labels = np.full(len(lesions), 2)
    predicted = np.where(right[lesions], 2, 0)
    axis = axis_of((lesions >= sizes[0]).astype(int))
    block = block_of(scores_of(labels, predicted), axis, lesions, permutations=4000)
    expected = exact_p(hits, sizes)
    assert 0.02 < expected < 0.3
    assert block["models"]["m"]["x"]["gaps"]["accuracy"]["p"] == pytest.approx(expected, abs=0.025)


def test_p_of_sensitivity_hands_out_groups_among_melanomas_alone() -> None:
    """Many other lesions, nearly all in one group, must not change it."""
    hits, sizes = (20, 18), (25, 30)
    found = np.concatenate([np.arange(size) < hit for hit, size in zip(hits, sizes, strict=True)])
    labels = np.concatenate([np.ones(55, dtype=int), np.full(300, 2)])
    probs = np.concatenate([np.where(found, 0.9, 0.1), np.zeros(300)])
    group_of = np.concatenate([np.repeat([0, 1], sizes), np.zeros(280, dtype=int), np.ones(20, dtype=int)])
    block = block_of(scores_of(labels, labels, probs), axis_of(group_of), np.arange(355), permutations=4000)
    gap = block["models"]["m"]["x"]["gaps"][SENSITIVITY]
    assert gap["p"] == pytest.approx(exact_p(hits, sizes), abs=0.025)
    assert gap["p_same_diagnosis"] == gap["p"]


def test_p_of_auc_keeps_the_melanomas_of_each_group() -> None:
    """Groups of one size, with few melanomas and with many; against an own loop over permutations."""
    rng = np.random.default_rng(2)
    group_of = np.repeat([0, 1], 80)
    melanoma = np.concatenate([np.arange(80) < 11, np.arange(80) < 69])
    probs = (0.12 * melanoma * (group_of == 0) + rng.random(160)).clip(0, 1).round(2)
    labels = np.where(melanoma, 1, 2)

    def apart(groups: np.ndarray) -> float:
        areas = []
        for place in (0, 1):
            high, low = (probs[(groups == place) & side] for side in (melanoma, ~melanoma))
            areas.append((np.sign(high[:, None] - low[None]) / 2 + 0.5).mean())
        return float(abs(areas[0] - areas[1]))

    handed = []
    for _ in range(2000):
        groups = group_of.copy()
        for side in (melanoma, ~melanoma):
            groups[side] = rng.permutation(groups[side])
        handed.append(apart(groups))
    expected = np.mean(np.array(handed) >= apart(group_of))
    block = block_of(scores_of(labels, labels, probs), axis_of(group_of), np.arange(160), permutations=2000)
    assert block["models"]["m"]["x"]["gaps"]["melanoma_auc"]["p"] == pytest.approx(expected, abs=0.02)


def test_gap_that_the_mix_of_diagnoses_gives_has_a_large_p_within_diagnoses() -> None:
    """All nevi right, few carcinomas right; one group holds the carcinomas."""
    rng = np.random.default_rng(0)
    group_of = np.repeat([0, 1], 150)
    labels = np.where(rng.random(300) < np.where(group_of == 0, 0.1, 0.7), 0, 2)
    predicted = np.where((labels == 0) & (rng.random(300) < 0.6), 2, labels)
    block = block_of(scores_of(labels, predicted), axis_of(group_of), np.arange(300), permutations=500)
    gap = block["models"]["m"]["x"]["gaps"]["accuracy"]
    assert gap["value"] > 0.2
    assert gap["p"] == pytest.approx(1 / 501)
    assert gap["p_same_diagnosis"] > 0.1


def test_lesion_in_several_groups_counts_in_tests_with_most_of_its_images() -> None:
    scores, axis, lesions = drawn()
    kept = axis.group_of < 2
    thrice = np.tile(np.flatnonzero(kept), 3)
    pure = axis.group_of[thrice]
    mixed = np.where(np.arange(len(pure)) < 2 * kept.sum(), pure, 1 - pure)
    found = [
        block_of(scores.only(thrice), axis_of(groups, tuple("abc")), lesions[thrice])["models"]["m"]["x"]["gaps"]
        for groups in (mixed, pure)
    ]
    assert found[0]["accuracy"]["p"] == found[1]["accuracy"]["p"]
    assert found[0]["accuracy"]["value"] < found[1]["accuracy"]["value"]


def test_gap_without_a_lesion_mostly_in_one_of_two_groups_has_no_p() -> None:
    """Two images in the second group to one in the first: in the test all lesions are in the second."""
    lesions = np.repeat(np.arange(20), 3)
    labels = np.full(60, 2)
    axis = axis_of(np.tile([0, 1, 1], 20))
    block = block_of(scores_of(labels, labels), axis, lesions)
    assert block["axes"]["x"]["lesions_in_several_groups"] == 20
    gap = block["models"]["m"]["x"]["gaps"]["accuracy"]
    assert (gap["value"], gap["compared"], gap["p"], gap["p_holm"]) == (0.0, 2, None, None)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), lesions=st.integers(1, 30))
def test_permuted_keeps_the_groups_of_every_stratum(seed: int, lesions: int) -> None:
    rng = np.random.default_rng(seed)
    groups, strata = rng.integers(0, 4, lesions), rng.integers(0, 3, lesions)
    rows = permuted(groups, strata, 20, (seed, 1))
    assert rows.shape == (20, lesions)
    for stratum in set(strata):
        inside = strata == stratum
        assert (np.sort(rows[:, inside], axis=1) == np.sort(groups[inside])).all()
    np.testing.assert_array_equal(rows, permuted(groups, strata, 20, (seed, 1)))


def test_permuted_gives_every_order_equally_often() -> None:
    rows = permuted(np.arange(3), np.zeros(3, dtype=int), 6000, (0, 0))
    _, counts = np.unique(rows, axis=0, return_counts=True)
    assert len(counts) == 6
    assert np.abs(counts - 1000).max() < 150


@given(st.lists(st.floats(0.0005, 1), min_size=0, max_size=6))
def test_holm_is_closed_testing_with_bonferroni(values: list[float]) -> None:
    """A hypothesis is refused where every intersection with it is (Marcus, Peritz and Gabriel 1976)."""
    places = range(len(values))
    expected = []
    for place in places:
        subsets = (set(s) for size in places for s in itertools.combinations(places, size + 1) if place in s)
        expected.append(max(min(1.0, len(s) * min(values[i] for i in s)) for s in subsets))
    assert holm(values) == pytest.approx(expected)


def test_p_values_are_corrected_across_the_axes_of_one_figure() -> None:
    scores, axis, lesions = drawn()
    rng = np.random.default_rng(8)
    second = axis_of(rng.integers(0, 2, len(lesions)))
    missing = Axis("Third", (), np.empty(0, dtype=np.int64), unavailable="no masks")
    axes = {"x": axis, "y": second, "z": missing}
    block = subgroups_block({"m": scores}, axes, lesions, samples=5, seed=0, permutations=50)
    assert block["axes"]["z"] == {"title": "Third", "unavailable": "no masks", "notes": [], "groups": {}}
    assert list(block["models"]["m"]) == ["x", "y"]
    for kind in ("p", "p_same_diagnosis"):
        gaps = [block["models"]["m"][name]["gaps"]["accuracy"] for name in ("x", "y")]
        assert [gap[f"{kind}_holm"] for gap in gaps] == pytest.approx(holm([gap[kind] for gap in gaps]))


def test_model_without_a_threshold_has_neither_sensitivity_nor_its_gap() -> None:
    scores, axis, lesions = drawn()
    block = block_of(scores_of(scores.labels, scores.predicted, scores.melanoma_probs, None), axis, lesions)
    entry = block["models"]["m"]["x"]
    assert all(group[SENSITIVITY]["value"] is None for group in entry["groups"].values())
    assert all(group[SENSITIVITY]["cases"] > 10 for group in entry["groups"].values())
    assert entry["gaps"][SENSITIVITY]["value"] is None
    assert entry["gaps"][SENSITIVITY]["compared"] == 0
    assert entry["gaps"]["melanoma_auc"]["value"] is not None


def test_block_is_json_without_nan_and_the_same_for_a_seed() -> None:
    scores, axis, lesions = drawn(images=60)
    text = json.dumps(block_of(scores, axis, lesions), allow_nan=False)
    assert text == json.dumps(block_of(scores, axis, lesions), allow_nan=False)
    assert text != json.dumps(block_of(scores, axis, lesions, seed=4), allow_nan=False)


def test_models_of_one_block_are_tested_on_the_same_permutations() -> None:
    scores, axis, lesions = drawn()
    both = subgroups_block({"one": scores, "two": scores}, {"x": axis}, lesions, samples=5, seed=0, permutations=50)
    assert both["models"]["one"] == both["models"]["two"]


def test_arrays_of_different_lengths_are_refused_all_at_once() -> None:
    scores, axis, lesions = drawn()
    with pytest.raises(DataError) as caught:
        block_of(scores.only(np.arange(200)), axis, lesions)
    assert len(caught.value.faults) == 4
    with pytest.raises(DataError, match="not one value"):
        block_of(scores, axis_of([0, 1]), lesions)


def test_no_model_is_refused() -> None:
    _, axis, lesions = drawn()
    with pytest.raises(DataError, match="no model"):
        subgroups_block({}, {"x": axis}, lesions, samples=5, seed=0)
