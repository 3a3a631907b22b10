"""The lesion bootstrap against a naive loop that copies the images of every lesion it draws."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from dermdistill.errors import ConfigError, DataError
from dermdistill.evaluate import bootstrap, metrics

SEEDS = st.integers(0, 2**32 - 1)


def naive_draws(lesion_ids, samples: int, seed: int):
    """Image indices of each replicate: lesions drawn with replacement, all their images with them."""
    generator = np.random.default_rng(seed)
    lesions = sorted(set(lesion_ids))
    for _ in range(samples):
        drawn = generator.integers(0, len(lesions), size=len(lesions))
        yield [i for d in drawn for i, lesion in enumerate(lesion_ids) if lesion == lesions[d]]


def cohort(seed: int = 0, images: int = 60):
    rng = np.random.default_rng(seed)
    lesion_ids = np.array([f"L{number}" for number in rng.integers(0, images // 2, images)])
    labels = np.append(rng.integers(0, 3, images - 3), [0, 1, 2])
    raw = rng.integers(1, 8, (images, 3)).astype(float)
    return lesion_ids, labels, raw / raw.sum(axis=1, keepdims=True)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_weights_count_the_images_of_a_naive_resampling(seed: int):
    lesion_ids, _, _ = cohort(seed, images=20)
    weights = bootstrap.lesion_weights(lesion_ids, samples=4, seed=seed)
    for row, images in zip(weights, naive_draws(lesion_ids, 4, seed), strict=True):
        assert row.tolist() == np.bincount(images, minlength=20).tolist()


def test_metrics_of_replicates_equal_scikit_learn_on_copied_images():
    lesion_ids, labels, probs = cohort()
    weights = bootstrap.lesion_weights(lesion_ids, samples=30, seed=5)
    found = bootstrap.replicates(
        lambda w: {
            "auc": metrics.roc_auc(labels == 1, probs[:, 1], w),
            "f1": metrics.weighted_f1(labels, probs, w),
        },
        weights,
    )
    for index, images in enumerate(naive_draws(lesion_ids, 30, 5)):
        wanted = roc_auc_score(labels[images] == 1, probs[images, 1])
        assert found["auc"][index] == pytest.approx(wanted, abs=1e-12)
        wanted = f1_score(labels[images], probs[images].argmax(1), average="weighted")
        assert found["f1"][index] == pytest.approx(wanted, abs=1e-12)


def test_images_of_one_lesion_are_drawn_together():
    lesion_ids, _, _ = cohort()
    weights = bootstrap.lesion_weights(lesion_ids, samples=50, seed=1)
    for lesion in set(lesion_ids):
        same = weights[:, lesion_ids == lesion]
        assert (same == same[:, :1]).all()
    drawn_lesions = weights[:, np.unique(lesion_ids, return_index=True)[1]].sum(axis=1)
    assert (drawn_lesions == len(set(lesion_ids))).all()


def test_single_image_lesions_are_the_ordinary_bootstrap():
    weights = bootstrap.lesion_weights([f"{i:03}" for i in range(40)], samples=20_000, seed=0)
    assert (weights.sum(axis=1) == 40).all()
    # A count is binomial(n, 1/n): mean 1, variance 1 - 1/n, share of images never drawn (1 - 1/n)^n.
    assert weights.mean() == pytest.approx(1.0)
    assert weights.var(axis=0).mean() == pytest.approx(1 - 1 / 40, abs=0.01)
    assert (weights == 0).mean() == pytest.approx((1 - 1 / 40) ** 40, abs=0.005)


def test_lesions_widen_the_interval_of_images_that_are_alike():
    outcome = np.repeat(np.arange(40) % 2, 5).astype(float)
    intervals = []
    for ids in (np.repeat(np.arange(40), 5), np.arange(200)):
        weights = bootstrap.lesion_weights(ids, samples=2000, seed=0)
        share = bootstrap.replicates(lambda w: {"share": w @ outcome / w.sum(axis=-1)}, weights)["share"]
        intervals.append(bootstrap.interval(share))
    by_lesion, by_image = intervals
    # Five equal images a lesion: the standard error is sqrt(5) times larger.
    ratio = (by_lesion.high - by_lesion.low) / (by_image.high - by_image.low)
    assert ratio == pytest.approx(np.sqrt(5), rel=0.1)


def test_weights_depend_on_the_seed_alone_and_not_on_the_order_of_images():
    lesion_ids, _, _ = cohort()
    first = bootstrap.lesion_weights(lesion_ids, samples=9, seed=3)
    assert (first == bootstrap.lesion_weights(lesion_ids, samples=9, seed=3)).all()
    assert (first != bootstrap.lesion_weights(lesion_ids, samples=9, seed=4)).any()
    assert (first[:4] == bootstrap.lesion_weights(lesion_ids, samples=4, seed=3)).all()
    order = np.random.default_rng(0).permutation(len(lesion_ids))
    assert (first[:, order] == bootstrap.lesion_weights(lesion_ids[order], samples=9, seed=3)).all()


def test_blocks_do_not_change_the_figures(monkeypatch: pytest.MonkeyPatch):
    lesion_ids, labels, probs = cohort()
    weights = bootstrap.lesion_weights(lesion_ids, samples=50, seed=2)

    def run():
        return bootstrap.replicates(lambda w: {"f1": metrics.macro_f1(labels, probs, w)}, weights)["f1"]

    whole = run()
    monkeypatch.setattr(bootstrap, "BLOCK_VALUES", 7 * len(labels))
    np.testing.assert_array_equal(run(), whole)
    assert whole.shape == (50,)


def test_interval_is_made_of_percentiles_and_skips_undefined_replicates():
    values = np.append(np.arange(101.0), [np.nan] * 9)
    bounds = bootstrap.interval(values, level=0.9)
    assert (bounds.low, bounds.high, bounds.skipped) == (pytest.approx(5.0), pytest.approx(95.0), 9)
    nothing = bootstrap.interval(np.full(4, np.nan))
    assert np.isnan(nothing.low) and np.isnan(nothing.high) and nothing.skipped == 4


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        outcome = (rng.random(150) < 0.7).astype(float)
        weights = bootstrap.lesion_weights(np.arange(150), samples=200, seed=trial)
        bounds = bootstrap.interval(weights @ outcome / 150)
        covered += bounds.low <= 0.7 <= bounds.high
    assert 0.90 <= covered / 300 <= 0.98


def test_paired_differences_use_the_same_draws():
    lesion_ids, labels, probs = cohort()
    weights = bootstrap.lesion_weights(lesion_ids, samples=40, seed=0)
    one = bootstrap.replicates(lambda w: {"f1": metrics.macro_f1(labels, probs, w)}, weights)
    assert (bootstrap.differences(one, one, ("f1",))["f1"] == 0).all()
    other = {"f1": one["f1"] - 0.25}
    np.testing.assert_allclose(bootstrap.differences(one, other, ("f1",))["f1"], 0.25)


def test_impossible_settings_are_refused():
    with pytest.raises(DataError, match="no images"):
        bootstrap.lesion_weights([], samples=3, seed=0)
    with pytest.raises(ConfigError, match="0 bootstrap samples"):
        bootstrap.lesion_weights(["a"], samples=0, seed=0)
    with pytest.raises(ConfigError, match="level"):
        bootstrap.interval(np.arange(3.0), level=1.0)


def test_thousand_replicates_of_a_test_part_take_seconds():
    rng = np.random.default_rng(0)
    labels, raw = rng.integers(0, 7, 1500), rng.random((1500, 7))
    weights = bootstrap.lesion_weights(rng.integers(0, 1100, 1500), samples=1000, seed=0)
    started = time.process_time()
    bootstrap.replicates(lambda w: {"auc": metrics.macro_auc(labels, raw / 7, w)}, weights)
    assert time.process_time() - started < 5
