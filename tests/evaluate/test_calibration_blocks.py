"""Blocks of an evaluation: each cell is the measure it is named after, on the images it is said to be of."""

import json
from typing import Any

import numpy as np
import pytest

from dermdistill.bundle.decisions import Calibration, Decisions
from dermdistill.evaluate import calibration, calibration_slope, conformal, selective
from dermdistill.evaluate.bootstrap import lesion_weights
from dermdistill.evaluate.calibration_blocks import calibration_block, conformal_block, selective_block
from dermdistill.evaluate.metrics import Floats, Ints

MELANOMA = 4
RECORD = {"method": "vector", "nll": {"none": 0.7, "temperature": 0.69, "vector": 0.6}, "chosen_by": "folds"}
MAP = Calibration("vector", (1.0, 1.1, 0.9, 1.2, 0.8, 1.0, 1.0), (0.0, 0.2, 0.0, -0.5, -0.8, 1.0, -0.2))


def cohort(images: int = 300, classes: int = 7) -> tuple[Ints, Floats, Ints, Any]:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(images, classes))
    labels = rng.integers(0, classes, images)
    logits[np.arange(images), labels] += 1.5
    powers = np.exp(logits)
    lesions = np.sort(rng.integers(0, images // 2, images))
    return labels, powers / powers.sum(axis=1, keepdims=True), lesions, lesion_weights(lesions, samples=40, seed=0)


def test_calibration_block_holds_each_measure_before_and_after() -> None:
    labels, raw, _, weights = cohort()
    block = calibration_block(labels, raw, MAP.apply(raw), MAP, RECORD, "diagnosis", weights, 15)
    assert block["cross_validation"] == RECORD
    assert (block["method"], tuple(block["scale"]), tuple(block["bias"])) == ("vector", MAP.scale, MAP.bias)
    for stage, probs in (("before", raw), ("after", MAP.apply(raw))):
        # The label stays that of the raw probabilities.
        label = raw.argmax(axis=1)
        views = {"label": (label == labels, probs[np.arange(300), label])}
        views["melanoma"] = (labels == MELANOMA, probs[:, MELANOMA])
        for view, (outcome, said) in views.items():
            found = block[stage][view]
            assert found["ece"]["value"] == pytest.approx(calibration.ece(outcome, said))
            assert found["ece_equal_mass"]["value"] == pytest.approx(calibration.equal_mass_ece(outcome, said))
            assert found["mce"]["value"] == pytest.approx(calibration.mce(outcome, said))
            curve = block["curves"][stage][view]
            gaps = sum(item["n"] * abs(item["accuracy"] - item["confidence"]) for item in curve if item["n"])
            assert gaps / 300 == pytest.approx(found["ece"]["value"])
        found, (outcome, said) = block[stage]["melanoma"], views["melanoma"]
        value = {name: cell["value"] for name, cell in found.items()}
        assert value["reliability"] - value["resolution"] + value["uncertainty"] == pytest.approx(value["brier"])
        assert value["brier"] == pytest.approx(calibration.binary_brier(outcome, said))
        assert value["slope"] == pytest.approx(calibration_slope.calibration_slope(outcome, said))
        assert value["intercept"] == pytest.approx(calibration_slope.calibration_intercept(outcome, said))
        assert block[stage]["nll"]["value"] == pytest.approx(calibration.log_loss(labels, probs))
        assert block[stage]["brier"]["value"] == pytest.approx(calibration.brier(labels, probs))
        cells = [*block[stage]["label"].values(), *found.values(), block[stage]["nll"], block[stage]["brier"]]
        assert all(cell["low"] < cell["high"] for cell in cells)


def test_test_part_without_melanomas_has_null_in_place_of_their_figures() -> None:
    labels, raw, _, weights = cohort()
    labels = np.where(labels == MELANOMA, 0, labels)
    block = calibration_block(labels, raw, MAP.apply(raw), MAP, {}, "diagnosis", weights, 15)
    for name in ("slope", "intercept"):
        assert block["after"]["melanoma"][name] == {"value": None, "low": None, "high": None}
    json.dumps(block, allow_nan=False)


def test_calibration_block_of_two_classes() -> None:
    labels, raw, _, weights = cohort(classes=2)
    same = Calibration.identity(2)
    block = calibration_block(labels, raw, same.apply(raw), same, {}, "melanoma", weights, 10)
    assert block["before"] == block["after"]
    assert block["after"]["brier"]["value"] == pytest.approx(2 * block["after"]["melanoma"]["brier"]["value"])
    assert len(block["curves"]["after"]["melanoma"]) == 10


def test_conformal_block_counts_each_lesion_once() -> None:
    labels, probs, lesions, weights = cohort()
    quantiles = (0.8, 0.9, 0.7, None, 0.95, 0.85, 0.8)
    decisions = Decisions(MAP, {}, quantiles, 0.8, 0.5)
    block = conformal_block(labels, probs, decisions, "diagnosis", weights, lesion_ids=lesions)
    sets = conformal.prediction_sets(probs, quantiles)
    held = sets[np.arange(300), labels]
    means = [held[lesions == lesion].mean() for lesion in np.unique(lesions)]
    assert block["coverage"]["value"] == pytest.approx(np.mean(means)) != pytest.approx(held.mean())
    assert block["image_coverage"]["value"] == pytest.approx(held.mean())
    assert block["mean_size"]["value"] == pytest.approx(
        np.mean([sets[lesions == lesion].sum(axis=1).mean() for lesion in np.unique(lesions)])
    )
    assert (block["level"], block["quantiles"]) == (0.8, list(quantiles))
    assert block["per_class"]["df"]["coverage"]["value"] == 1.0
    assert sum(entry["n"] for entry in block["per_class"].values()) == 300
    mine = (labels == MELANOMA).nonzero()[0]
    wanted = np.average(held[mine], weights=[1 / (lesions == lesions[index]).sum() for index in mine])
    assert block["per_class"]["mel"]["coverage"]["value"] == pytest.approx(wanted)
    json.dumps(block, allow_nan=False)


def test_decisions_without_quantiles_have_no_sets() -> None:
    labels, probs, lesions, weights = cohort()
    plain = Decisions.plain({}, 7)
    assert conformal_block(labels, probs, plain, "diagnosis", weights, lesion_ids=lesions) == {}


def test_selective_block_uses_the_threshold_it_was_given() -> None:
    labels, probs, _, weights = cohort()
    correct, confidence, melanoma = probs.argmax(axis=1) == labels, probs.max(axis=1), labels == MELANOMA
    decisions = Decisions(MAP, {}, (), 0.9, 0.45)
    block = selective_block(correct, confidence, decisions, weights, melanoma=melanoma)
    answered = confidence >= 0.45
    assert (block["threshold"], block["target_coverage"]) == (0.45, 0.8)
    assert block["coverage"]["value"] == pytest.approx(answered.mean())
    assert block["accuracy"]["value"] == pytest.approx(correct[answered].mean())
    assert block["accuracy_at_80"]["value"] == pytest.approx(correct[np.argsort(-confidence)[:240]].mean())
    assert block["aurc"]["value"] == pytest.approx(selective.aurc(*selective.risk_coverage(correct, confidence)))
    assert block["melanoma"]["n"] == melanoma.sum()
    assert block["melanoma"]["coverage"]["value"] == pytest.approx(answered[melanoma].mean())
    assert block["melanoma"]["sensitivity"]["value"] == pytest.approx(correct[melanoma & answered].mean())
    curve = block["curve"]
    assert len(curve["coverage"]) == len(curve["risk"]) == 201
    assert (curve["coverage"][-1], curve["risk"][-1]) == (1.0, pytest.approx(1 - correct.mean()))
    json.dumps(block, allow_nan=False)


def test_model_that_withholds_nothing_answers_everything() -> None:
    labels, probs, _, weights = cohort()
    correct = probs.argmax(axis=1) == labels
    block = selective_block(correct, probs.max(axis=1), Decisions.plain({}, 7), weights)
    assert (block["threshold"], block["coverage"]["value"]) == (None, 1.0)
    assert block["accuracy"]["value"] == pytest.approx(correct.mean())
    assert "melanoma" not in block
