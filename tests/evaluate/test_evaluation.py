"""The whole evaluation: its form, its figures against scikit-learn, that no test row moves a threshold."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as oracle

from dermdistill.bundle.decisions import POINTS, Calibration
from dermdistill.config import EvaluateConfig
from dermdistill.errors import DataError
from dermdistill.evaluate.evaluation import evaluate_predictions
from dermdistill.evaluate.predictions import CONTROL, MODELS, predictions_frame, prob_columns
from dermdistill.labels import CODES, class_names, encode

CONFIG = EvaluateConfig(bootstrap_samples=60)
SHARES = {"akiec": 0.08, "bcc": 0.1, "bkl": 0.12, "df": 0.08, "mel": 0.17, "nv": 0.37, "vasc": 0.08}
CELL = {"value", "low", "high"}


def table(
    seed: int = 0,
    task: Any = "diagnosis",
    codes: tuple[str, ...] = CODES,
    val_codes: tuple[str, ...] | None = None,
    models: tuple[str, ...] = MODELS,
    images: int = 300,
) -> pd.DataFrame:
    """Every model on both parts; two photographs of one lesion in three."""
    rng = np.random.default_rng(seed)
    frames = []
    for part, known in (("val", val_codes or codes), ("test", codes)):
        shares = np.array([SHARES[code] for code in known])
        lesion_codes = rng.choice(known, images, p=shares / shares.sum())
        lesions = [i for i in range(images) for _ in range(1 + (i % 3 == 0))][:images]
        rows = pd.DataFrame(
            {
                "image_id": [f"{part}_{i:04}" for i in range(images)],
                "lesion_id": [f"{part}_lesion_{i}" for i in lesions],
                "diagnosis": lesion_codes[lesions],
            }
        )
        classes = class_names(task)
        truth = np.eye(len(classes))[[encode(code, task) for code in rows["diagnosis"]]]
        frames += [
            predictions_frame(model, part, rows, rng.normal(size=truth.shape) + 1.5 * truth, task, models=models)
            for model in models
        ]
    return pd.concat(frames, ignore_index=True)


def evaluate(frame: pd.DataFrame, task: Any = "diagnosis", protocol: str = "lesion", **settings: Any):
    leaky = protocol != "lesion"
    config = EvaluateConfig(**{"bootstrap_samples": 60, **settings})
    return evaluate_predictions(frame, task=task, protocol=protocol, leaky=leaky, config=config)


def cells(tree: Any, path: str = ""):
    if isinstance(tree, dict) and set(tree) == CELL:
        yield path, tree
    elif isinstance(tree, dict):
        for key, branch in tree.items():
            yield from cells(branch, f"{path}/{key}")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return table()


@pytest.fixture(scope="module")
def answer(frame: pd.DataFrame) -> dict[str, Any]:
    return evaluate(frame)


def part(frame: pd.DataFrame, model: str, name: str):
    rows = frame[(frame["model"] == model) & (frame["split"] == name)]
    return rows["label"].to_numpy(), rows[prob_columns("diagnosis")].to_numpy(dtype=np.float64)


def calibrated(answer, model: str, probs: np.ndarray) -> np.ndarray:
    block = answer["models"][model]["calibration"]
    return Calibration(block["method"], tuple(block["scale"]), tuple(block["bias"])).apply(probs)


def plain_cells(answer):
    """Cells of the figures that this module defines; those of calibration, sets and use have tests of their own."""
    for path, cell in cells(answer):
        if path.split("/")[1] == "differences" or path.split("/")[3] in ("diagnosis", "melanoma", "per_class"):
            yield path, cell


def test_answer_has_the_form_of_the_contract(answer):
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
    assert set(answer) == {
        "task", "classes", "protocol", "leaky", "n", "models", "differences", "delong", "cases", "bootstrap", "notes",
    }  # fmt: skip
    assert answer["classes"] == list(CODES) and list(answer["models"]) == list(MODELS)
    assert answer["bootstrap"] == {"samples": 60, "seed": 0, "unit": "lesion", "level": 0.95}
    diagnosis = {"accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "macro_auc", "ece"}
    for block in answer["models"].values():
        assert set(block["diagnosis"]) == diagnosis
        assert set(block["melanoma"]) == {
            "roc_auc", "pr_auc", "sensitivity", "specificity",
            "sensitivity_at_80_sensitivity", "specificity_at_80_sensitivity",
            "sensitivity_at_90_sensitivity", "specificity_at_90_sensitivity",
            "sensitivity_at_95_sensitivity", "specificity_at_95_sensitivity",
            "ppv_at_95_sensitivity", "npv_at_95_sensitivity", "ece",
        }  # fmt: skip
        assert list(block["per_class"]) == list(CODES)
        for cell in block["per_class"].values():
            assert set(cell) == {"n", "sensitivity", "specificity", "ppv", "npv", "auc"}
        assert set(block["thresholds"]) == set(POINTS)
        assert set(block) >= {"calibration", "conformal", "selective", "use"}
        assert set(block["curves"]) == {"roc", "pr", "reliability"}
        assert np.sum(block["confusion"]) == 300 and len(block["curves"]["reliability"]) == 15
    pairs = ["student - teacher", "student_int8 - student", "student_int8 - teacher"]
    assert list(answer["differences"]) == list(answer["delong"]) == pairs
    for block in answer["differences"].values():
        assert set(block) == {*diagnosis, "roc_auc", "pr_auc", "specificity_at_95_sensitivity"}


def test_values_equal_scikit_learn(frame, answer):
    for model in MODELS:
        labels, probs = part(frame, model, "test")
        block, called = answer["models"][model], probs.argmax(1)
        got = {name: cell["value"] for name, cell in block["diagnosis"].items()}
        assert got["accuracy"] == pytest.approx(oracle.accuracy_score(labels, called))
        assert got["balanced_accuracy"] == pytest.approx(oracle.balanced_accuracy_score(labels, called))
        assert got["macro_f1"] == pytest.approx(oracle.f1_score(labels, called, average="macro"))
        assert got["weighted_f1"] == pytest.approx(oracle.f1_score(labels, called, average="weighted"))
        exact = calibrated(answer, model, probs)
        exact = exact / exact.sum(axis=1, keepdims=True)
        assert got["macro_auc"] == pytest.approx(oracle.roc_auc_score(labels, exact, multi_class="ovr"), abs=1e-6)
        assert block["confusion"] == oracle.confusion_matrix(labels, called).tolist()
        positive, scores = labels == CODES.index("mel"), calibrated(answer, model, probs)[:, CODES.index("mel")]
        melanoma = {name: cell["value"] for name, cell in block["melanoma"].items()}
        assert melanoma["roc_auc"] == pytest.approx(oracle.roc_auc_score(positive, scores))
        assert melanoma["pr_auc"] == pytest.approx(oracle.average_precision_score(positive, scores))
        for name, suffix in (("youden", ""), ("at_95_sensitivity", "_at_95_sensitivity")):
            decided = scores >= block["thresholds"][name]
            assert melanoma[f"sensitivity{suffix}"] == pytest.approx(oracle.recall_score(positive, decided))
            assert melanoma[f"specificity{suffix}"] == pytest.approx(oracle.recall_score(~positive, ~decided))


def test_thresholds_hold_what_they_promise_on_validation(frame, answer):
    for model in MODELS:
        labels, probs = part(frame, model, "val")
        positive, scores = labels == CODES.index("mel"), calibrated(answer, model, probs)[:, CODES.index("mel")]
        threshold = answer["models"][model]["thresholds"]["at_95_sensitivity"]
        assert (scores[positive] >= threshold).mean() >= 0.95
        assert (scores[positive] >= np.nextafter(threshold, 1)).mean() < 0.95


def test_no_test_row_moves_a_threshold(frame, answer):
    changed = frame.copy()
    rng = np.random.default_rng(9)
    for model in MODELS:
        rows = (changed["model"] == model) & (changed["split"] == "test")
        order = np.random.default_rng(1).permutation(rows.sum())
        for column in ("diagnosis", "label"):
            changed.loc[rows, column] = changed.loc[rows, column].to_numpy()[order]
        probs = rng.dirichlet(np.ones(7), rows.sum()).astype(np.float32)
        changed.loc[rows, prob_columns("diagnosis")] = probs
    other = evaluate(changed)
    for model in MODELS:
        assert other["models"][model]["thresholds"] == answer["models"][model]["thresholds"]
        assert other["models"][model]["diagnosis"] != answer["models"][model]["diagnosis"]


def test_no_validation_row_moves_a_label(frame, answer):
    changed = frame.copy()
    rows = changed["split"] == "val"
    changed.loc[rows, prob_columns("diagnosis")] = (
        np.random.default_rng(2).dirichlet(np.ones(7), rows.sum()).astype(np.float32)
    )
    other = evaluate(changed)
    for model in MODELS:
        mine, theirs = answer["models"][model], other["models"][model]
        assert mine["thresholds"] != theirs["thresholds"]
        assert mine["confusion"] == theirs["confusion"]
        for name in ("accuracy", "balanced_accuracy", "macro_f1"):
            assert mine["diagnosis"][name] == theirs["diagnosis"][name]
        before = mine["calibration"]["before"], theirs["calibration"]["before"]
        assert before[0]["melanoma"]["ece"] == before[1]["melanoma"]["ece"]


def test_every_cell_has_an_interval_around_its_value(answer):
    found = dict(plain_cells(answer))
    assert len(found) == 3 * (6 + 13 + 7 * 5) + 3 * 9
    for path, cell in found.items():
        assert cell["low"] <= cell["high"], path
        # The ECE of a replicate is larger than that of the data: its interval need not hold the value.
        if not path.endswith("/ece"):
            assert cell["low"] <= cell["value"] <= cell["high"], path


def test_same_seed_gives_the_same_answer_whatever_the_order_of_rows(frame, answer):
    assert evaluate(frame.sample(frac=1, random_state=3)) == answer
    assert evaluate(frame, bootstrap_seed=1)["models"] != answer["models"]


def test_difference_of_a_model_with_itself_is_zero(frame):
    teacher = frame[frame["model"] == "teacher"]
    both = pd.concat([teacher, teacher.assign(model="student")])
    block = evaluate(both)["differences"]
    assert list(block) == ["student - teacher"]
    assert all(cell == {"value": 0.0, "low": 0.0, "high": 0.0} for cell in block["student - teacher"].values())


def test_paired_difference_is_narrower_than_unpaired(answer):
    """Two noisy copies of one model: most of the spread is in the images, and cancels."""
    frame = table(seed=4, models=("teacher",))
    logits = np.log(frame[prob_columns("diagnosis")].to_numpy(dtype=np.float64))
    near = np.exp(logits + 0.05 * np.random.default_rng(0).normal(size=logits.shape))
    student = frame.assign(model="student")
    student[prob_columns("diagnosis")] = (near / near.sum(axis=1, keepdims=True)).astype(np.float32)
    result = evaluate(pd.concat([frame, student]))
    paired = result["differences"]["student - teacher"]["accuracy"]
    single = result["models"]["teacher"]["diagnosis"]["accuracy"]
    assert paired["high"] - paired["low"] < 0.6 * (single["high"] - single["low"])


def test_small_class_is_named_with_its_number():
    frame = table()
    rare = frame[(frame["split"] == "test") & (frame["diagnosis"] == "vasc")]["image_id"].unique()
    result = evaluate(frame[~frame["image_id"].isin(rare[:-10])])
    assert result["n"]["per_class"]["vasc"] == 10
    assert any(note.startswith("vasc: n = 10 in the test part") for note in result["notes"])
    result = evaluate(frame[~frame["image_id"].isin(rare[:-11])])
    assert not any(note.startswith("vasc: n = ") for note in result["notes"])


def test_class_missing_in_the_test_part_is_null_with_a_note():
    result = evaluate(table(codes=tuple(code for code in CODES if code != "df")))
    json.dumps(result, allow_nan=False)
    nulls = {path for path, cell in plain_cells(result) if cell["value"] is None}
    wanted = {f"/models/{m}/diagnosis/{f}" for m in MODELS for f in ("balanced_accuracy", "macro_f1", "macro_auc")}
    wanted |= {f"/models/{m}/per_class/df/{f}" for m in MODELS for f in ("sensitivity", "auc")}
    wanted |= {
        f"/differences/{pair}/{f}"
        for pair in ("student - teacher", "student_int8 - student", "student_int8 - teacher")
        for f in ("balanced_accuracy", "macro_f1", "macro_auc")
    }
    assert nulls == wanted
    for path, cell in plain_cells(result):
        assert (cell["value"] is None) == (cell["low"] is None) == (cell["high"] is None), path
    assert any("null, as the test part has no image of df: diagnosis.balanced_accuracy" in n for n in result["notes"])


def every_null_is_noted(result: dict[str, Any]) -> None:
    for model, block in result["models"].items():
        for view in ("diagnosis", "melanoma", "per_class"):
            for path, cell in cells(block[view], view):
                name = path.replace("/", ".")
                named = any(n.startswith("null") and name in n and model in n for n in result["notes"])
                assert named == (cell["value"] is None), name


def test_no_melanoma_in_validation_leaves_no_threshold():
    rest = tuple(code for code in CODES if code != "mel")
    result = evaluate(table(val_codes=rest))
    block = result["models"]["student"]
    assert block["thresholds"] == dict.fromkeys(POINTS)
    assert block["melanoma"]["specificity_at_95_sensitivity"] == {"value": None, "low": None, "high": None}
    assert block["melanoma"]["roc_auc"]["value"] is not None
    assert any("gives no threshold youden" in note for note in result["notes"])
    every_null_is_noted(result)


def test_only_melanoma_in_validation_gives_a_sensitivity_but_no_youden():
    thresholds = evaluate(table(val_codes=("mel",)))["models"]["teacher"]["thresholds"]
    assert thresholds["youden"] is None and thresholds["at_95_sensitivity"] is not None


def test_no_melanoma_in_the_test_part_leaves_no_curves():
    result = evaluate(table(codes=tuple(c for c in CODES if c != "mel"), val_codes=CODES))
    block = result["models"]["teacher"]
    assert block["curves"]["roc"] == {"fpr": [], "tpr": []}
    assert block["curves"]["pr"] == {"recall": [], "precision": []}
    assert block["melanoma"]["roc_auc"]["value"] is None
    assert block["melanoma"]["specificity"]["value"] is not None
    every_null_is_noted(result)


@pytest.mark.parametrize("code", ["nv", "mel"])
@pytest.mark.parametrize("task", ["diagnosis", "melanoma"])
def test_single_class_in_the_test_part_is_survived(code: str, task: str):
    result = evaluate(table(task=task, codes=(code,), val_codes=CODES, images=40), task=task)
    json.dumps(result, allow_nan=False)
    assert result["models"]["teacher"]["diagnosis"]["accuracy"]["value"] is not None
    assert result["models"]["teacher"]["diagnosis"]["macro_auc"]["value"] is None
    every_null_is_noted(result)


def test_class_never_predicted_has_a_null_ppv_and_a_note():
    frame = table(models=("teacher",))
    frame[prob_columns("diagnosis")] = np.float32(1 / 7)
    frame["prob_nv"] += np.float32(6e-6)
    result = evaluate(frame)
    assert result["models"]["teacher"]["per_class"]["bcc"]["ppv"]["value"] is None
    assert any("no test image is predicted as bcc" in note for note in result["notes"])
    every_null_is_noted(result)


def test_replicates_without_a_class_are_counted_in_a_note():
    frame = table()
    rare = frame[(frame["split"] == "test") & (frame["diagnosis"] == "df")]["image_id"].unique()
    result = evaluate(frame[~frame["image_id"].isin(rare[1:])])
    assert any(
        n.startswith("student: bootstrap replicates (of 60)") and "per_class.df.auc (" in n for n in result["notes"]
    )
    cell = result["models"]["student"]["per_class"]["df"]["auc"]
    assert cell["low"] is not None and cell["low"] <= cell["high"]


def test_melanoma_task_has_two_classes_and_calibrates_its_probability():
    frame = table(task="melanoma")
    result = evaluate(frame, task="melanoma")
    assert result["classes"] == ["rest", "mel"] and set(result["n"]["per_class"]) == {"rest", "mel"}
    block = result["models"]["student"]
    assert np.shape(block["confusion"]) == (2, 2)
    assert block["diagnosis"]["macro_auc"]["value"] == pytest.approx(block["melanoma"]["roc_auc"]["value"], abs=1e-6)
    assert block["diagnosis"]["ece"] == block["melanoma"]["ece"]
    rows = block["curves"]["reliability"]
    gap = sum(r["n"] * abs(r["accuracy"] - r["confidence"]) for r in rows if r["n"]) / 300
    assert block["melanoma"]["ece"]["value"] == pytest.approx(gap)
    assert min(r["low"] for r in rows if r["n"]) < 0.5


def test_leaky_protocol_and_repeats_are_noted(frame):
    repeated = pd.concat([frame, frame[frame["image_id"] == "test_0000"]])
    with pytest.raises(DataError, match="there twice"):
        evaluate(repeated)
    result = evaluate(repeated, protocol="published-oversampled")
    assert result["leaky"] is True and result["n"]["images"] == 301
    assert any("is leaky" in note for note in result["notes"])
    assert any("301 rows show 300 different images" in note for note in result["notes"])


def test_lesion_protocol_with_enough_cases_needs_no_note(answer):
    assert answer["notes"] == []


def test_faulty_tables_are_refused(frame):
    with pytest.raises(DataError, match="NaN"):
        evaluate(frame.assign(prob_mel=np.nan))
    with pytest.raises(DataError, match="no row of the part 'test'"):
        evaluate(frame[frame["split"] == "val"])
    with pytest.raises(DataError, match="no row of the part 'val'"):
        evaluate(frame[frame["split"] == "test"])


def test_student_without_teacher_is_compared_with_the_distilled_one() -> None:
    names = (*MODELS, CONTROL)
    answer = evaluate_predictions(
        table(models=names), task="diagnosis", protocol="lesion", leaky=False, config=CONFIG, models=names
    )
    assert list(answer["models"]) == list(names)
    assert set(answer["differences"]["student - no_teacher"]) == set(answer["differences"]["student - teacher"])
