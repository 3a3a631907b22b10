"""Prediction sets: the quantile against its definition, the promise against simulations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermdistill.errors import ConfigError, DataError
from dermdistill.evaluate import conformal
from dermdistill.evaluate.metrics import Floats, Ints

SEEDS = st.integers(0, 2**32 - 1)


def two_classes(scores: Floats) -> tuple[Ints, Floats]:
    """Images of class 1 whose scores are these."""
    return np.ones(len(scores), dtype=np.int64), np.stack([scores, 1 - scores], axis=1)


@settings(deadline=None)
@given(seed=SEEDS, images=st.integers(1, 60), level=st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_quantile_of_single_images_is_the_corrected_order_statistic(seed: int, images: int, level: float):
    scores = np.random.default_rng(seed).integers(0, 20, images) / 32
    nothing, quantile = conformal.class_quantiles(*two_classes(scores), level, lesion_ids=np.arange(images))
    rank = int(np.ceil(round(level * (images + 1), 9)))
    assert nothing is None
    assert quantile == (None if rank > images else np.sort(scores)[rank - 1])


@pytest.mark.parametrize(("lesions", "defined"), [(8, False), (9, True)])
def test_quantile_needs_nine_lesions_at_90_percent(lesions: int, defined: bool):
    # Two images each: images do not stand in for lesions.
    scores = np.linspace(0.1, 0.5, 2 * lesions)
    quantile = conformal.class_quantiles(*two_classes(scores), 0.9, lesion_ids=np.repeat(np.arange(lesions), 2))[1]
    assert (quantile is not None) is defined
    if defined:
        assert quantile == scores.max()


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS)
def test_quantile_is_the_smallest_score_that_enough_lesions_reach(seed: int):
    rng = np.random.default_rng(seed)
    lesions, scores = rng.integers(0, 25, 60), rng.random(60)
    quantile = conformal.class_quantiles(*two_classes(scores), 0.8, lesion_ids=lesions)[1]
    ids = np.unique(lesions)

    def reached(limit: float) -> float:
        return sum(float((scores[lesions == one] <= limit).mean()) for one in ids)

    enough = [value for value in np.sort(scores) if reached(value) >= 0.8 * (len(ids) + 1) - 1e-9]
    assert quantile == pytest.approx(enough[0] if enough else None)


def lesions_of(rng: np.random.Generator, count: int) -> tuple[Floats, Ints]:
    """Scores of lesions whose photographs resemble each other; the harder ones were photographed more often."""
    hardness = rng.random(count)
    images = 1 + (hardness < 0.3) * 5
    lesion_of = np.repeat(np.arange(count), images)
    return np.clip(hardness[lesion_of] + 0.05 * rng.normal(size=len(lesion_of)), 0, 1), lesion_of


def test_promise_holds_for_a_photograph_of_a_new_lesion_and_not_by_counting_images():
    rng = np.random.default_rng(0)
    by_lesion, by_image = [], []
    for _ in range(400):
        scores, lesion_of = lesions_of(rng, 40)
        fresh, fresh_of = lesions_of(rng, 50)
        fresh = fresh[np.unique(fresh_of, return_index=True)[1]]
        for ids, found in ((lesion_of, by_lesion), (np.arange(len(scores)), by_image)):
            quantile = conformal.class_quantiles(*two_classes(scores), 0.9, lesion_ids=ids)[1]
            assert quantile is not None
            sets = conformal.prediction_sets(two_classes(fresh)[1], (0.0, quantile))
            found.append(sets[:, 1].mean())
    assert 0.895 <= np.mean(by_lesion) <= 0.92
    assert np.mean(by_image) < 0.87


@pytest.mark.parametrize("level", [0.8, 0.9])
def test_promise_holds_for_every_class_by_itself(level: float):
    rng = np.random.default_rng(1)
    covered: list[Floats] = []
    for _ in range(200):
        parts = []
        for images in (300, 400):
            labels = rng.choice(3, images, p=[0.75, 0.15, 0.1])
            logits = rng.normal(size=(images, 3)) + np.array([1.5, 0, 0])
            logits[np.arange(images), labels] += np.array([1.5, 0.5, 1.0])[labels]
            powers = np.exp(logits)
            parts.append((labels, powers / powers.sum(axis=1, keepdims=True)))
        quantiles = conformal.class_quantiles(*parts[0], level, lesion_ids=np.arange(300))
        covered.append(conformal.class_coverage(parts[1][0], conformal.prediction_sets(parts[1][1], quantiles)))
    by_class = np.mean(covered, axis=0)
    assert (by_class > level - 0.01).all() and (by_class < level + 0.02).all()


def test_set_holds_what_quantiles_admit_and_is_never_empty():
    probs = np.array([[0.6, 0.3, 0.1], [0.4, 0.35, 0.25], [0.05, 0.05, 0.9]])
    assert conformal.prediction_sets(probs, (0.4, 0.7, 0.2)).tolist() == [
        [True, True, False],
        [False, True, False],
        [False, False, True],
    ]
    assert conformal.prediction_sets(probs, (0.1, 0.1, 0.1)).tolist() == np.eye(3, dtype=bool)[[0, 0, 2]].tolist()


def test_class_without_a_quantile_is_in_every_set():
    sets = conformal.prediction_sets(np.array([[1.0, 0.0], [0.3, 0.7]]), (0.1, None))
    assert sets.tolist() == [[True, True], [False, True]]


def test_figures_of_sets_count_by_weight():
    labels = np.array([0, 0, 1, 2])
    sets = np.array([[1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 1, 0]], dtype=bool)
    plain = conformal.set_figures(labels, sets)
    assert (plain["coverage"], plain["mean_size"], plain["singletons"]) == (0.5, 1.75, 0.5)
    rows = np.array([[1, 1, 1, 1], [3, 1, 0, 0], [0, 0, 0, 0]])
    found = conformal.set_figures(labels, sets, rows)
    np.testing.assert_array_equal(found["coverage"], [0.5, 0.75, np.nan])
    np.testing.assert_array_equal(found["mean_size"], [1.75, 1.25, np.nan])
    np.testing.assert_array_equal(found["singletons"], [0.5, 0.75, np.nan])
    wanted = [[0.5, 1.0, 0.0], [0.75, np.nan, np.nan], [np.nan] * 3]
    np.testing.assert_array_equal(conformal.class_coverage(labels, sets, rows), wanted)


def test_lesion_shares_add_up_to_one_a_lesion():
    assert conformal.lesion_shares(["b", "a", "b", "c", "b"]).tolist() == [1 / 3, 1, 1 / 3, 1, 1 / 3]


def test_input_without_a_meaning_is_refused():
    labels, probs = two_classes(np.array([0.1, 0.2]))
    for level in (0.0, 1.0):
        with pytest.raises(ConfigError):
            conformal.class_quantiles(labels, probs, level, lesion_ids=[0, 1])
    with pytest.raises(DataError):
        conformal.class_quantiles(labels, probs, 0.9, lesion_ids=[0])
    with pytest.raises(DataError):
        conformal.class_quantiles(labels, probs * np.nan, 0.9, lesion_ids=[0, 1])
