"""Which figures a label set can tell, melanoma against the rest from seven classes, and what is called by its name."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.metrics import recall_score, roc_auc_score

from dermdistill.bundle.decisions import Calibration, Decisions
from dermdistill.config import EvaluateConfig
from dermdistill.errors import DataError
from dermdistill.evaluate.bootstrap import lesion_weights
from dermdistill.evaluate.evaluation import evaluate_test
from dermdistill.evaluate.partial_labels import (
    called_by_name,
    choose_scoring,
    lesion_lines,
    melanoma_decisions,
    melanoma_rows,
    other_rows,
)
from dermdistill.labels import CODES

DECISIONS = Decisions(
    calibration=Calibration("vector", (0.8,) * 7, (0.1, 0, 0, -0.2, 0.4, 0, 0)),
    thresholds={"youden": 0.2, "at_95_sensitivity": 0.1},
    quantiles=(0.9,) * 7,
    confidence=0.4,
)


def frame_of(diagnoses: list[str], seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    number = len(diagnoses)
    truth = np.array([[float(code == own) for code in CODES] for own in diagnoses])
    probs = softmax(rng.normal(size=(number, 7)) + 1.5 * truth, axis=1).astype(np.float32)
    frame = pd.DataFrame(
        {
            "image_id": [f"i{index:03}" for index in range(number)],
            "lesion_id": [f"l{index // 2:03}" for index in range(number)],
            "diagnosis": diagnoses,
        }
    )
    return frame, probs


MIXED = ["mel", "mel", "nv", "nv", "rest", "rest", "nv", "nv"] * 20


def test_all_seven_diagnoses_give_every_figure() -> None:
    scoring = choose_scoring(list(CODES) * 2, "diagnosis")
    assert scoring.task == "diagnosis"
    assert len(scoring.lines) == 1


@pytest.mark.parametrize(
    ("diagnoses", "words"),
    [
        (["mel", "nv"], "akiec, bcc, bkl, df, vasc"),
        ([*CODES, "rest"], "of 1 images it is only known that they are no melanoma"),
        (["mel", "rest", "rest"], "of 2 images it is only known"),
        ([code for code in CODES if code != "df"], "no image of the set is named df"),
    ],
)
def test_fewer_labels_tell_melanoma_from_the_rest_alone(diagnoses: list[str], words: str) -> None:
    scoring = choose_scoring(diagnoses, "diagnosis")
    assert scoring.task == "melanoma"
    assert scoring.lines[0].startswith("scored: melanoma against the rest")
    assert scoring.lines[1].startswith("not scored: figures over seven diagnoses")
    assert words in scoring.lines[1]


@pytest.mark.parametrize(("diagnoses", "what"), [(["mel", "mel"], "sensitivity"), (["nv", "rest"], "specificity")])
@pytest.mark.parametrize("task", ["diagnosis", "melanoma"])
def test_one_kind_of_image_is_said(diagnoses: list[str], what: str, task) -> None:
    assert f"{what} can be told" in choose_scoring(diagnoses, task).lines[-1]


def test_a_model_of_two_classes_tells_melanoma_alone() -> None:
    assert choose_scoring(list(CODES), "melanoma").task == "melanoma"
    with pytest.raises(DataError, match="no images"):
        choose_scoring([], "diagnosis")


def test_rows_of_rest_have_no_label_among_seven() -> None:
    frame, probs = frame_of(["mel", "rest", "vasc"])
    assert other_rows("student", frame, probs, "diagnosis")["label"].tolist() == [4, -1, 6]
    two = np.array([[0.3, 0.7], [0.9, 0.1], [0.5, 0.5]], dtype=np.float32)
    assert other_rows("student", frame, two, "melanoma")["label"].tolist() == [1, 0, 0]
    with pytest.raises(DataError, match="1 of 3 images have probabilities that are NaN"):
        other_rows("student", frame, np.where(np.arange(3)[:, None] == 1, np.nan, probs), "diagnosis")


def test_melanoma_view_is_the_calibrated_probability_and_nothing_else() -> None:
    frame, probs = frame_of(MIXED)
    rows = other_rows("student", frame, probs, "diagnosis")
    collapsed = melanoma_rows(rows, DECISIONS)
    scale, bias = np.array(DECISIONS.calibration.scale), np.array(DECISIONS.calibration.bias)
    expected = softmax(scale * np.log(probs.astype(float)) + bias, axis=1)[:, CODES.index("mel")]
    assert np.allclose(collapsed["prob_mel"], expected, atol=1e-9)
    assert np.allclose(collapsed["prob_rest"], 1 - expected, atol=1e-9)
    decisions = melanoma_decisions(DECISIONS)
    result = evaluate_test(
        collapsed, task="melanoma", config=EvaluateConfig(bootstrap_samples=50), decisions={"student": decisions}
    )
    positive = frame["diagnosis"] == "mel"
    figures = result["models"]["student"]["melanoma"]
    assert figures["roc_auc"]["value"] == pytest.approx(roc_auc_score(positive, expected))
    called = expected >= 0.1
    assert figures["sensitivity_at_95_sensitivity"]["value"] == pytest.approx(recall_score(positive, called))
    assert figures["specificity_at_95_sensitivity"]["value"] == pytest.approx(recall_score(~positive, ~called))
    assert result["n"]["per_class"] == {"rest": 120, "mel": 40}


def test_called_by_name_agrees_with_scikit_learn() -> None:
    frame, probs = frame_of(MIXED)
    rows = other_rows("student", frame, probs, "diagnosis")
    block = called_by_name(rows, lesion_weights(rows["lesion_id"], samples=60, seed=0))
    assert list(block) == ["mel", "nv"]
    predicted = np.array(CODES)[probs.argmax(axis=1)]
    for code in ("mel", "nv"):
        expected = recall_score(frame["diagnosis"], predicted, labels=[code], average=None)[0]
        cell = block[code]["sensitivity"]
        assert cell["value"] == pytest.approx(expected)
        assert cell["low"] <= expected <= cell["high"]
        assert sum(block[code]["called"].values()) == block[code]["n"] == (frame["diagnosis"] == code).sum()
    assert block["nv"]["lesions"] == 40


def test_lesions_melanomas_and_what_was_left_out_are_said() -> None:
    frame, _ = frame_of(MIXED)
    lines = " ".join(lesion_lines(frame, {"scc": 3}))
    assert "40 of 160 images show melanoma" in lines
    assert "160 images show 80 lesions" in lines
    assert "3 of 'scc'" in lines
    alone = frame.assign(lesion_id=frame["image_id"])
    assert "each image counts as its own lesion" in " ".join(lesion_lines(alone, {}))
