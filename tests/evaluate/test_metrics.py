"""Every metric against scikit-learn, with ties and weights, and its properties."""

import warnings
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from dermdistill.errors import DataError
from dermdistill.evaluate import metrics

CLASSES = 5
SEEDS = st.integers(0, 2**32 - 1)


def draw(seed: int, images: int = 80, classes: int = CLASSES, levels: int | None = 6):
    """Labels of every class, probabilities with many ties, whole and fractional weights."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, images - classes)])
    raw = rng.random((images, classes)) if levels is None else rng.integers(1, levels, (images, classes))
    probs = raw / raw.sum(axis=1, keepdims=True)
    whole = rng.integers(0, 4, images).astype(float)
    whole[:classes] = 1
    return labels, probs, whole, rng.random(images) + 0.01


def per_class_table(labels, probs, weights):
    return oracle.multilabel_confusion_matrix(labels, probs.argmax(1), sample_weight=weights)


def with_quiet_oracle(function: Callable[[], float]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function()


ORACLES: dict[str, Callable] = {
    "accuracy": lambda y, p, w: oracle.accuracy_score(y, p.argmax(1), sample_weight=w),
    "balanced_accuracy": lambda y, p, w: oracle.balanced_accuracy_score(y, p.argmax(1), sample_weight=w),
    "macro_f1": lambda y, p, w: oracle.f1_score(y, p.argmax(1), average="macro", sample_weight=w),
    "weighted_f1": lambda y, p, w: oracle.f1_score(y, p.argmax(1), average="weighted", sample_weight=w),
    "f1": lambda y, p, w: oracle.f1_score(y, p.argmax(1), average=None, sample_weight=w),
    "sensitivity": lambda y, p, w: oracle.recall_score(y, p.argmax(1), average=None, sample_weight=w),
    "ppv": lambda y, p, w: oracle.precision_score(y, p.argmax(1), average=None, sample_weight=w),
    "specificity": lambda y, p, w: (t := per_class_table(y, p, w))[:, 0, 0] / t[:, 0].sum(1),
    "npv": lambda y, p, w: (t := per_class_table(y, p, w))[:, 0, 0] / t[:, :, 0].sum(1),
    "confusion": lambda y, p, w: oracle.confusion_matrix(y, p.argmax(1), sample_weight=w),
    "class_auc": lambda y, p, w: [oracle.roc_auc_score(y == k, p[:, k], sample_weight=w) for k in range(CLASSES)],
}


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("kind", ["none", "whole", "fractional"])
def test_metric_equals_scikit_learn(name: str, kind: str):
    for seed in range(5):
        labels, probs, whole, fractional = draw(seed)
        weights = {"none": None, "whole": whole, "fractional": fractional}[kind]
        wanted = ORACLES[name](labels, probs, weights)
        np.testing.assert_allclose(getattr(metrics, name)(labels, probs, weights), wanted, atol=1e-12)


def test_macro_auc_equals_scikit_learn_without_weights():
    labels, probs, _, _ = draw(3)
    wanted = oracle.roc_auc_score(labels, probs, multi_class="ovr", average="macro")
    assert metrics.macro_auc(labels, probs) == pytest.approx(wanted, abs=1e-12)


@settings(deadline=None)
@given(seed=SEEDS, levels=st.integers(2, 12))
def test_binary_areas_equal_scikit_learn_with_ties_and_weights(seed: int, levels: int):
    rng = np.random.default_rng(seed)
    positive = np.append(rng.random(40) < 0.3, [True, False])
    scores = rng.integers(0, levels, 42) / levels
    weights = np.append(rng.integers(0, 3, 40) * rng.random(40), [1.0, 1.0])
    wanted = oracle.roc_auc_score(positive, scores, sample_weight=weights)
    assert metrics.roc_auc(positive, scores, weights) == pytest.approx(wanted, abs=1e-12)
    wanted = oracle.average_precision_score(positive, scores, sample_weight=weights)
    assert metrics.pr_auc(positive, scores, weights) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("name", [*ORACLES, "macro_auc"])
def test_rows_of_a_weight_matrix_are_computed_apart(name: str):
    labels, probs, whole, fractional = draw(7)
    metric = getattr(metrics, name)
    rows = np.stack([whole, fractional, np.ones(len(labels))])
    together = metric(labels, probs, rows)
    for row, answer in zip(rows, together, strict=True):
        np.testing.assert_allclose(answer, metric(labels, probs, row), atol=1e-12)


@pytest.mark.parametrize("name", [*ORACLES, "macro_auc"])
def test_order_of_weights_in_memory_changes_no_bit(name: str):
    labels, probs, whole, _ = draw(8)
    metric = getattr(metrics, name)
    rows = np.stack([whole, whole[::-1], np.ones(len(labels))])
    np.testing.assert_array_equal(metric(labels, probs, np.asfortranarray(rows)), metric(labels, probs, rows))


def test_weights_of_any_shape_are_computed_row_by_row():
    labels, probs, whole, fractional = draw(9)
    rows = np.stack([[whole, fractional, whole + 1], [fractional, 2 * whole, whole]])
    for name in (*ORACLES, "macro_auc"):
        metric = getattr(metrics, name)
        np.testing.assert_allclose(metric(labels, probs, rows)[1, 0], metric(labels, probs, fractional), atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, share=st.sampled_from([0.1, 0.5, 0.9]), levels=st.integers(1, 30))
def test_areas_with_whole_weights_equal_pairs_counted_one_by_one(seed: int, share: float, levels: int):
    rng = np.random.default_rng(seed)
    positive = np.append(rng.random(25) < share, [True, False])
    scores = rng.integers(0, levels, 27) / 7
    weights = np.append(rng.integers(0, 4, 25), [1, 2])
    pairs = [
        (int(weights[i] * weights[j]), Fraction(int(scores[i] > scores[j])) + Fraction(int(scores[i] == scores[j]), 2))
        for i in np.flatnonzero(positive)
        for j in np.flatnonzero(~positive)
    ]
    wanted = sum(n * win for n, win in pairs) / sum(n for n, _ in pairs)
    # To the last bit: sums of whole weights and halves are exact, whatever their order.
    assert metrics.roc_auc(positive, scores, weights) == float(wanted)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, share=st.sampled_from([0.05, 0.5, 0.95]))
def test_areas_equal_scikit_learn_whichever_class_is_larger(seed: int, share: float):
    rng = np.random.default_rng(seed)
    positive = np.append(rng.random(60) < share, [True, False])
    scores, weights = rng.integers(0, 9, 62) / 9, rng.random(62) + 0.01
    wanted = oracle.roc_auc_score(positive, scores, sample_weight=weights)
    assert metrics.roc_auc(positive, scores, weights) == pytest.approx(wanted, abs=1e-12)
    wanted = oracle.average_precision_score(positive, scores, sample_weight=weights)
    assert metrics.pr_auc(positive, scores, weights) == pytest.approx(wanted, abs=1e-12)


def test_macro_f1_is_the_mean_over_classes_and_not_micro_f1():
    """EVIDENCE: one common class called right and rare ones wrong gives a high micro F1, which is the accuracy."""
    labels = np.repeat([0, 1, 2], [90, 5, 5])
    probs = np.eye(3)[np.repeat([0, 0], [90, 10])]
    micro = oracle.f1_score(labels, probs.argmax(1), average="micro")
    assert micro == pytest.approx(0.9) and metrics.accuracy(labels, probs) == pytest.approx(micro)
    assert metrics.macro_f1(labels, probs) == pytest.approx((2 * 90 / 190 + 0 + 0) / 3)


@pytest.mark.parametrize("name", [*ORACLES, "macro_auc"])
def test_whole_weights_equal_repeated_images(name: str):
    labels, probs, whole, _ = draw(11)
    times = whole.astype(int)
    metric = getattr(metrics, name)
    repeated = metric(np.repeat(labels, times), np.repeat(probs, times, axis=0))
    np.testing.assert_allclose(metric(labels, probs, whole), repeated, atol=1e-12)


@settings(deadline=None)
@given(seed=SEEDS)
def test_auc_does_not_change_with_a_rising_function_and_mirrors_with_its_opposite(seed: int):
    labels, probs, _, weights = draw(seed, images=30, classes=2)
    positive, scores = labels == 1, probs[:, 1]
    area = metrics.roc_auc(positive, scores, weights)
    assert metrics.roc_auc(positive, scores**3, weights) == pytest.approx(area, abs=1e-12)
    assert metrics.roc_auc(positive, -scores, weights) == pytest.approx(1 - area, abs=1e-12)


@settings(deadline=None)
@given(seed=SEEDS)
def test_metrics_do_not_depend_on_the_order_of_images(seed: int):
    labels, probs, whole, _ = draw(seed, images=30)
    order = np.random.default_rng(seed).permutation(30)
    for name in (*ORACLES, "macro_auc"):
        metric = getattr(metrics, name)
        moved = metric(labels[order], probs[order], whole[order])
        np.testing.assert_allclose(metric(labels, probs, whole), moved, atol=1e-12)


def test_constant_score_gives_half_the_roc_area_and_prevalence_as_precision():
    positive = np.array([True, False, False, False])
    assert metrics.roc_auc(positive, np.full(4, 0.2)) == 0.5
    assert metrics.pr_auc(positive, np.full(4, 0.2)) == 0.25


def test_missing_class_is_nan_per_class_and_left_out_of_means():
    labels, probs, _, _ = draw(5)
    kept = labels != 2
    labels, probs = labels[kept], probs[kept]
    for name in ("sensitivity", "f1", "class_auc"):
        values = getattr(metrics, name)(labels, probs)
        assert np.isnan(values[2]) and np.isfinite(np.delete(values, 2)).all()
    assert (probs.argmax(1) == 2).any()
    present = [0, 1, 3, 4]
    wanted = oracle.f1_score(labels, probs.argmax(1), labels=present, average="macro")
    assert metrics.macro_f1(labels, probs) == pytest.approx(wanted)
    wanted = with_quiet_oracle(lambda: oracle.balanced_accuracy_score(labels, probs.argmax(1)))
    assert metrics.balanced_accuracy(labels, probs) == pytest.approx(wanted)
    wanted = np.mean([oracle.roc_auc_score(labels == k, probs[:, k]) for k in present])
    assert metrics.macro_auc(labels, probs) == pytest.approx(wanted)


def test_class_that_weights_leave_out_is_missing_in_that_row_only():
    labels, probs, whole, fractional = draw(6)
    rows = np.stack([np.where(labels == 4, 0.0, whole), whole])
    for one in range(CLASSES):  # to the last bit, although fractions add up to different sums in different orders
        only, without = (np.where((labels == one) == kept, fractional, 0.0) for kept in (True, False))
        alone = metrics.class_auc(labels, probs, np.stack([only, without]))
        assert np.isnan(alone[0]).all() and np.isnan(alone[1]).tolist() == [k == one for k in range(CLASSES)]
    assert np.isnan(metrics.sensitivity(labels, probs, rows)[:, 4]).tolist() == [True, False]
    assert np.isnan(metrics.class_auc(labels, probs, rows)[:, 4]).tolist() == [True, False]
    assert np.isfinite(metrics.macro_auc(labels, probs, rows)).all()


def test_single_class_leaves_areas_undefined():
    labels, probs = np.zeros(3, dtype=int), np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert np.isnan(metrics.macro_auc(labels, probs))
    assert np.isnan(metrics.roc_auc(labels == 0, probs[:, 0]))
    assert np.isnan(metrics.pr_auc(labels == 1, probs[:, 1]))
    assert np.isnan(metrics.specificity(labels, probs)[0])
    assert metrics.accuracy(labels, probs) == pytest.approx(2 / 3)


def test_class_never_predicted_has_no_ppv():
    labels, probs = np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]])
    assert metrics.ppv(labels, probs)[0] == 0.5
    assert np.isnan(metrics.ppv(labels, probs)[1])
    assert np.isnan(metrics.npv(labels, probs)[0])


@pytest.mark.parametrize(
    ("labels", "probs", "weights", "message"),
    [
        ([0, 1], [[np.nan, 0.5], [0.5, 0.5]], None, "1 of 2 images have a score that is NaN or infinite"),
        ([0, 1], [[0.5, 0.5], [np.inf, 0.5]], None, "1 of 2 images have a score that is NaN or infinite"),
        ([0, 1], [[0.5, 0.5]], None, "one label and one score an image"),
        ([], np.zeros((0, 2)), None, "there are no images"),
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], None, "labels are 0 to 1"),
        ([0, -1], [[0.5, 0.5], [0.5, 0.5]], None, "labels are 0 to 1"),
        ([0, 1], [[0.5, 0.5], [0.5, 0.5]], [1.0], "weights are [..., N]"),
        ([0, 1], [[0.5, 0.5], [0.5, 0.5]], [1.0, -1.0], "negative"),
        ([0, 1], [[0.5, 0.5], [0.5, 0.5]], [1.0, np.nan], "non-finite"),
    ],
)
def test_input_without_a_meaning_is_refused(labels, probs, weights, message: str):
    with pytest.raises(DataError) as caught:
        metrics.accuracy(np.array(labels, dtype=int), np.array(probs), weights)
    assert message in str(caught.value)


def test_nan_score_is_refused_by_areas():
    with pytest.raises(DataError, match="NaN or infinite"):
        metrics.roc_auc(np.array([True, False]), np.array([0.1, np.nan]))
