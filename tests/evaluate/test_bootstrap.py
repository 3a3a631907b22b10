"""The lesion bootstrap against a naive loop that copies the images of every lesion it draws, BCa against SciPy."""

import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score

from dermdistill.errors import ConfigError, DataError
from dermdistill.evaluate import bootstrap, metrics
from dermdistill.evaluate.calibration import ece

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
    monkeypatch.setattr(bootstrap, "LEAST_ROWS", 1)
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


def scipy_bca(measure: Callable[[np.ndarray], float], images: int, distribution: np.ndarray):
    """SciPy's BCa interval of a figure of image indices, on replicates that are given."""
    return stats.bootstrap(
        (np.arange(images),),
        measure,
        vectorized=False,
        n_resamples=0,
        bootstrap_result=SimpleNamespace(bootstrap_distribution=distribution),
        method="BCa",
    ).confidence_interval


def pairs_won(positive: np.ndarray, scores: np.ndarray) -> float:
    return float((scores[positive][:, None] > scores[~positive]).mean())


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_bca_equals_scipy_on_the_same_replicates_where_lesions_have_one_image(seed: int):
    rng = np.random.default_rng(seed)
    positive = np.arange(50) < 14
    scores = rng.normal(1.2 * positive)
    ids = np.arange(50)

    def auc(weights):
        return {"auc": metrics.roc_auc(positive, scores, weights)}

    samples = bootstrap.replicates(auc, bootstrap.lesion_weights(ids, samples=200, seed=seed))["auc"]
    left_out = bootstrap.replicates(auc, bootstrap.jackknife_weights(ids))["auc"]
    wanted = scipy_bca(lambda images: pairs_won(positive[images], scores[images]), 50, samples)
    found = bootstrap.bca_interval(float(metrics.roc_auc(positive, scores)), samples, left_out)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_bca_agrees_with_scipy_on_its_own_draws_and_differs_from_percentiles_of_skewed_data():
    values = np.random.default_rng(3).lognormal(sigma=0.8, size=60)
    weights = bootstrap.lesion_weights(np.arange(60), samples=20_000, seed=0)
    samples = weights @ values / 60
    left_out = bootstrap.jackknife_weights(np.arange(60)) @ values / 59
    found = bootstrap.bca_interval(values.mean(), samples, left_out)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=1).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), rel=0.02)
    plain = bootstrap.interval(samples)
    assert found.low > 1.02 * plain.low and found.high > 1.02 * plain.high


def test_bca_of_lesions_with_several_images_equals_bca_of_their_sums():
    """A ratio of sums over images is a ratio of sums over lesions, which SciPy can draw by itself."""
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(30), rng.integers(1, 6, 30))
    right = rng.random(len(ids)) < np.repeat(rng.random(30), np.bincount(ids))
    hits, sizes = np.bincount(ids, weights=right), np.bincount(ids)
    samples = bootstrap.lesion_weights(ids, samples=300, seed=0).astype(float)
    samples = samples @ right / samples.sum(axis=1)
    left = bootstrap.jackknife_weights(ids).astype(float)
    found = bootstrap.bca_interval(right.mean(), samples, left @ right / left.sum(axis=1))
    wanted = scipy_bca(lambda lesions: hits[lesions].sum() / sizes[lesions].sum(), 30, samples)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_jackknife_leaves_out_each_lesion_once_with_all_its_images():
    ids = np.array(["b", "a", "b", "c"])
    assert bootstrap.jackknife_weights(ids).tolist() == [[1, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 0]]


def test_jackknife_of_many_lesions_leaves_out_groups_of_one_size():
    ids = np.repeat(np.arange(100), 2)
    rows = bootstrap.jackknife_weights(ids, rows=30, seed=1)
    assert rows.shape == (30, 200) and (rows[:, ::2] == rows[:, 1::2]).all()
    assert ((rows == 0).sum(axis=0) == 1).all()
    assert set((rows == 0).sum(axis=1)) == {6, 8}
    assert (rows == bootstrap.jackknife_weights(ids, rows=30, seed=1)).all()
    assert (rows != bootstrap.jackknife_weights(ids, rows=30, seed=2)).any()


def test_acceleration_from_groups_is_near_that_from_lesions():
    values = np.random.default_rng(0).exponential(size=4000)
    total = values.sum()
    one = bootstrap.acceleration((total - values) / 3999)
    # An exponential variable has skewness 2, so the mean of n has the acceleration 2 / (6 sqrt(n)).
    assert one == pytest.approx(2 / 6 / np.sqrt(4000), rel=0.15)
    weights = bootstrap.jackknife_weights(np.arange(4000), rows=1000).astype(float)
    grouped = bootstrap.acceleration(weights @ values / weights.sum(axis=1))
    assert grouped == pytest.approx(one, rel=0.35)


def test_acceleration_is_zero_where_no_lesion_changes_the_figure():
    assert bootstrap.acceleration(np.full(20, 0.1 + 0.2)) == 0.0
    assert bootstrap.acceleration(np.full(3, np.nan)) == 0.0
    assert bootstrap.acceleration(np.array([0.5, np.nan, 0.5, 0.2])) == bootstrap.acceleration(
        np.array([0.5, 0.5, 0.2])
    )


def test_bca_without_a_bias_or_a_skewness_is_the_percentile_interval():
    samples, symmetric = np.arange(-50.0, 51.0), np.array([-1.0, 0.0, 1.0])
    found, plain = bootstrap.bca_interval(0.0, samples, symmetric), bootstrap.interval(samples)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high))
    constant = bootstrap.bca_interval(1.0, np.ones(9), np.ones(5))
    assert (constant.low, constant.high) == (1.0, 1.0)


def test_bca_is_undefined_where_all_replicates_lie_on_one_side():
    for value in (-1.0, 10.0):
        bounds = bootstrap.bca_interval(value, np.append(np.arange(5.0), np.nan), np.arange(3.0))
        assert np.isnan(bounds.low) and np.isnan(bounds.high) and bounds.skipped == 1
    assert np.isnan(bootstrap.bca_interval(0.5, np.full(4, np.nan), np.arange(3.0)).low)


def test_centred_interval_is_as_wide_as_the_percentile_one_and_has_the_value_inside():
    samples = np.append(np.random.default_rng(1).normal(0.05, 0.01, size=2000), np.nan)
    plain, moved = bootstrap.interval(samples), bootstrap.centred_interval(0.03, samples)
    assert plain.low > 0.03, "all of it lies above the value"
    assert moved.low < 0.03 < moved.high and moved.skipped == 1
    assert moved.high - moved.low == pytest.approx(plain.high - plain.low)
    assert bootstrap.centred_interval(0.005, samples).low == 0.0
    assert np.isnan(bootstrap.centred_interval(0.5, np.full(4, np.nan)).low)


def test_centred_interval_covers_the_error_of_a_calibrated_model_where_percentiles_do_not():
    """The expected calibration error of samples of one size is what the interval of each of them should hold."""
    rng, errors, cells = np.random.default_rng(0), [], []
    for _ in range(60):
        confidence = rng.uniform(0.05, 0.95, 300)
        outcome = rng.random(300) < confidence
        weights = bootstrap.lesion_weights(np.arange(300), samples=200, seed=0)
        errors.append(float(ece(outcome, confidence)))
        cells.append((errors[-1], np.asarray(ece(outcome, confidence, weights=weights.astype(float)))))
    truth = np.mean(errors)
    plain = [(bounds := bootstrap.interval(samples)).low <= truth <= bounds.high for _, samples in cells]
    centred = [(bounds := bootstrap.centred_interval(*cell)).low <= truth <= bounds.high for cell in cells]
    assert np.mean(centred) > 0.9
    assert np.mean(plain) < 0.7


def test_estimate_gives_the_interval_that_was_asked_for():
    samples, left_out = np.random.default_rng(0).gamma(2.0, size=500), np.array([1.9, 2.0, 1.6])
    plain, corrected = bootstrap.interval(samples), bootstrap.bca_interval(2.0, samples, left_out)
    assert bootstrap.estimate(2.0, samples) == {"value": 2.0, "low": plain.low, "high": plain.high}
    cell = bootstrap.estimate(2.0, samples, method="bca", left_out=left_out)
    assert cell == {"value": 2.0, "low": corrected.low, "high": corrected.high} and cell["low"] != plain.low
    moved = bootstrap.centred_interval(2.0, samples)
    assert bootstrap.estimate(2.0, samples, method="centred") == {"value": 2.0, "low": moved.low, "high": moved.high}
    nothing = {"value": None, "low": None, "high": None}
    assert bootstrap.estimate(np.nan, samples, method="bca", left_out=left_out) == nothing
    for words in ({"method": "bca"}, {"method": "normal", "left_out": left_out}):
        with pytest.raises(ConfigError, match="intervals by"):
            bootstrap.estimate(2.0, samples, **words)


def test_impossible_jackknife_is_refused():
    with pytest.raises(DataError, match="no images"):
        bootstrap.jackknife_weights([])
    with pytest.raises(ConfigError, match="1 rows"):
        bootstrap.jackknife_weights(["a", "b"], rows=1)
    with pytest.raises(ConfigError, match="level"):
        bootstrap.bca_interval(0.0, np.arange(3.0), np.arange(3.0), level=0.0)


def clustered(seed: int, lesions: int = 60, photos: int = 6):
    """Photographs of a lesion share their class and most of their score."""
    rng = np.random.default_rng(seed)
    positive = np.repeat(np.arange(lesions) < lesions // 3, photos)
    common = np.repeat(rng.normal(size=lesions), photos)
    scores = positive + common + 0.3 * rng.normal(size=lesions * photos)
    return np.repeat(np.arange(lesions), photos), positive, scores


def test_auc_interval_is_as_wide_as_cohorts_differ_only_when_lesions_are_drawn():
    """The truth is the standard deviation over new cohorts. A bootstrap over images makes it far too small."""
    truth = np.std([metrics.roc_auc(*clustered(seed)[1:]) for seed in range(400)])
    by_lesion, by_image = [], []
    for seed in range(12):
        ids, positive, scores = clustered(1000 + seed)
        for found, drawn in ((by_lesion, ids), (by_image, np.arange(len(ids)))):
            weights = bootstrap.lesion_weights(drawn, samples=300, seed=seed)
            auc = bootstrap.replicates(lambda w: {"auc": metrics.roc_auc(positive, scores, w)}, weights)["auc"]  # noqa: B023
            bounds = bootstrap.interval(auc)
            found.append((bounds.high - bounds.low) / (2 * 1.96))
    assert np.mean(by_lesion) == pytest.approx(truth, rel=0.15)
    assert np.mean(by_image) < 0.6 * truth
