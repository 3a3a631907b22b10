"""Recalibration: planted maps are found again, and the simplest map that loses nothing is taken."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import check_grad, minimize_scalar
from sklearn.metrics import log_loss

from dermdistill.bundle.decisions import Calibration
from dermdistill.errors import DataError
from dermdistill.evaluate import recalibration
from dermdistill.evaluate.calibration import ece
from dermdistill.evaluate.metrics import Floats, Ints

PRIORS = np.array([0.7, 0.2, 0.1])
Distort = Callable[[Floats], Floats]


def cohort(distort: Distort, images: int = 1200, seed: int = 0) -> tuple[Ints, Floats, Ints]:
    """Labels drawn from true probabilities, what a model says instead, and lesions of one to three images."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (images, 3)) + np.log(PRIORS)
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    powers = np.exp(distort(logits))
    return labels, powers / powers.sum(axis=1, keepdims=True), np.sort(rng.integers(0, images // 2, images))


def adjusted(logits: Floats) -> Floats:
    """What logit adjustment leaves: the classes look equally frequent."""
    return logits - np.log(PRIORS)


def test_temperature_is_that_of_a_scalar_search() -> None:
    labels, probs, _ = cohort(lambda logits: 2.5 * logits, images=4000)
    found = recalibration.fit_temperature(labels, probs)
    wanted = minimize_scalar(
        lambda scale: log_loss(labels, Calibration.of_temperature(1 / scale, 3).apply(probs)),
        bounds=(0.1, 3),
        method="bounded",
    )
    assert found.scale[0] == pytest.approx(wanted.x, abs=2e-3)
    assert found.temperature == pytest.approx(2.5, abs=0.15)


def test_vector_finds_planted_scales_and_biases() -> None:
    rng = np.random.default_rng(0)
    planted = Calibration("vector", (2.0, 0.8, 1.3), (0.5, -1.0, 0.5))
    probs = rng.dirichlet(np.ones(3), 5000)
    true = planted.apply(probs)
    labels = (np.log(true) + rng.gumbel(size=true.shape)).argmax(axis=1)
    found = recalibration.fit_vector(labels, probs)
    assert np.abs(found.apply(probs) - true).mean() < 0.01
    np.testing.assert_allclose(found.scale, planted.scale, atol=0.2)
    # One constant on all biases changes nothing.
    np.testing.assert_allclose(np.diff(found.bias), np.diff(planted.bias), atol=0.2)


def test_vector_mends_probabilities_of_a_network_with_logit_adjustment() -> None:
    labels, probs, lesions = cohort(adjusted)
    fresh_labels, fresh, _ = cohort(adjusted, seed=1)
    chosen, record = recalibration.choose_calibration(labels, probs, lesions, seed=0)
    rare = fresh_labels == 2
    before, after = ece(rare, fresh[:, 2]), ece(rare, chosen.apply(fresh)[:, 2])
    assert chosen.method == record["method"] == "vector"
    assert before > 0.1 and after < 0.03
    biases = np.array(chosen.bias)
    assert np.abs((biases - biases[0]) - (np.log(PRIORS) - np.log(PRIORS[0]))).max() < 0.3


def test_gradient_of_the_mean_nll_is_that_of_finite_differences() -> None:
    labels, probs, _ = cohort(adjusted, images=40)
    logs, truth = np.log(probs), np.eye(3)[labels]

    def value(theta: Floats) -> float:
        return recalibration._mean_nll(logs, truth, theta[:3], theta[3:])[0]

    def slope(theta: Floats) -> Floats:
        return recalibration._mean_nll(logs, truth, theta[:3], theta[3:])[1]

    for seed in range(3):
        theta = np.random.default_rng(seed).normal(1, 0.5, 6)
        assert check_grad(value, slope, theta) < 1e-6


@pytest.mark.parametrize(
    ("distort", "method"),
    [(lambda logits: logits, "none"), (lambda logits: 2 * logits, "temperature"), (adjusted, "vector")],
)
def test_simplest_calibration_that_loses_nothing_is_taken(distort: Distort, method: str) -> None:
    for seed in range(2):
        chosen, record = recalibration.choose_calibration(*cohort(distort, seed=seed), seed=seed)
        assert chosen.method == method
        assert set(record["nll"]) == {"none", "temperature", "vector"}
        assert record["nll"][method] <= min(record["nll"].values()) + 0.01


def test_choice_depends_on_the_set_of_lesions_and_the_seed_alone() -> None:
    labels, probs, lesions = cohort(adjusted, images=400)
    order = np.random.default_rng(0).permutation(400)
    first = recalibration.choose_calibration(labels, probs, lesions, seed=1)[1]["nll"]
    again = recalibration.choose_calibration(labels[order], probs[order], lesions[order], seed=1)[1]["nll"]
    assert first == pytest.approx(again, abs=1e-6)
    other = recalibration.choose_calibration(labels, probs, lesions, seed=2)[1]["nll"]
    assert abs(first["vector"] - other["vector"]) > 1e-6
    assert first["none"] == pytest.approx(other["none"])


def test_images_of_one_lesion_are_never_in_two_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, probs, lesions = cohort(adjusted, images=300)
    folds = []
    held_out = recalibration._held_out

    def seen(fit: recalibration.Fit, labels: Ints, probs: Floats, fold_of: Ints) -> Floats:
        folds.append(fold_of)
        return held_out(fit, labels, probs, fold_of)

    monkeypatch.setattr(recalibration, "_held_out", seen)
    recalibration.choose_calibration(labels, probs, lesions, seed=0)
    assert len(np.unique(folds[0])) == 5
    assert all(len(np.unique(fold_of[lesions == lesion])) == 1 for fold_of in folds for lesion in np.unique(lesions))


def test_held_out_loss_of_an_image_does_not_depend_on_its_own_label() -> None:
    labels, probs, _ = cohort(adjusted, images=60)
    fold_of = np.arange(60) % 5
    losses = recalibration._held_out(recalibration.fit_vector, labels, probs, fold_of)
    fitted = recalibration.fit_vector(labels[fold_of != 2], probs[fold_of != 2]).apply(probs[fold_of == 2])
    wanted = -np.log(fitted[np.arange(12), labels[fold_of == 2]])
    np.testing.assert_allclose(losses[fold_of == 2], wanted)


def test_standard_error_is_that_of_lesions_drawn_again() -> None:
    rng = np.random.default_rng(0)
    lesion_of = np.sort(rng.integers(0, 200, 600))
    lesion_of = np.unique(lesion_of, return_inverse=True)[1]
    values = rng.normal(size=lesion_of.max() + 1)[lesion_of] + 0.2 * rng.normal(size=600)
    members = [np.flatnonzero(lesion_of == lesion) for lesion in range(lesion_of.max() + 1)]
    means = []
    for _ in range(2000):
        drawn = np.concatenate([members[index] for index in rng.integers(0, len(members), len(members))])
        means.append(values[drawn].mean())
    assert recalibration._standard_error(values, lesion_of) == pytest.approx(np.std(means), rel=0.08)


def test_class_without_images_keeps_the_identity() -> None:
    labels, probs, lesions = cohort(adjusted, images=200)
    kept = labels != 1
    found = recalibration.fit_vector(labels[kept], probs[kept])
    assert (found.scale[1], found.bias[1]) == (1.0, 0.0)
    assert max(map(abs, (*found.scale, *found.bias))) < 6
    chosen, _ = recalibration.choose_calibration(labels[kept], probs[kept], lesions[kept], seed=0)
    assert np.isfinite(chosen.apply(probs)).all()


def test_perfect_and_certain_answers_do_not_blow_up() -> None:
    labels = np.arange(12) % 3
    for probs in (
        np.eye(3)[labels],
        0.9 * np.eye(3)[labels] + 0.1 / 3,
        np.full((12, 3), 1 / 3),
        np.eye(3)[(labels + 1) % 3],
    ):
        for fit in (recalibration.fit_temperature, recalibration.fit_vector):
            found = fit(labels, probs)
            assert max(map(abs, (*found.scale, *found.bias))) < 20
            np.testing.assert_allclose(found.apply(probs).sum(axis=1), 1.0)


def test_single_lesion_is_not_calibrated_and_says_why() -> None:
    chosen, record = recalibration.choose_calibration(np.array([0, 0]), np.full((2, 3), 1 / 3), ["a", "a"], seed=0)
    assert chosen == Calibration.identity(3)
    assert (
        record["nll"] == {"none": None, "temperature": None, "vector": None} and "single lesion" in record["chosen_by"]
    )


@pytest.mark.parametrize(
    ("labels", "probs", "lesions"),
    [([], np.empty((0, 3)), []), ([0, 3], np.full((2, 3), 1 / 3), [0, 1]), ([0, 1], np.full((2, 3), 1 / 3), [0])],
)
def test_input_without_a_meaning_is_refused(labels: list[int], probs: Floats, lesions: list[int]) -> None:
    with pytest.raises(DataError):
        recalibration.choose_calibration(np.array(labels, dtype=np.int64), probs, lesions, seed=0)
