"""The long table: softmax, every kind of fault in one error, Parquet there and back."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax as scipy_softmax

from dermdistill.bundle.predictor import softmax
from dermdistill.errors import DataError, OutputError
from dermdistill.evaluate.predictions import (
    MODELS,
    predictions_frame,
    prob_columns,
    read_predictions,
    single_part_faults,
    validate_predictions,
    write_predictions,
)
from dermdistill.labels import CODES, class_names, encode

DIAGNOSES = ["nv", "mel", "nv", "bkl", "akiec"]


def catalog_rows(part: str) -> pd.DataFrame:
    images = [f"{part}_{index}" for index in range(len(DIAGNOSES))]
    lesions = [f"{part}_lesion_{index // 2}" for index in range(len(DIAGNOSES))]
    return pd.DataFrame({"image_id": images, "lesion_id": lesions, "diagnosis": DIAGNOSES, "age": 50.0})


def table(task="diagnosis", models=MODELS) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.concat(
        [
            predictions_frame(model, part, catalog_rows(part), rng.normal(size=(5, len(class_names(task)))), task)
            for model in models
            for part in ("val", "test")
        ],
        ignore_index=True,
    )


def faults_of(frame: pd.DataFrame, protocol: str = "lesion") -> str:
    with pytest.raises(DataError) as caught:
        validate_predictions(frame, task="diagnosis", protocol=protocol)
    return "\n".join(caught.value.faults)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.0, 1.0, 30.0, 1e4]))
def test_softmax_equals_scipy_and_does_not_overflow(seed: int, scale: float):
    logits = (np.random.default_rng(seed).normal(size=(9, 7)) * scale).astype(np.float32)
    probs = softmax(logits)
    assert probs.dtype == np.float32
    np.testing.assert_allclose(probs, scipy_softmax(logits.astype(np.float64), axis=1), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("task", ["diagnosis", "melanoma"])
def test_frame_has_the_columns_of_the_contract(task):
    logits = np.random.default_rng(0).normal(size=(5, len(class_names(task))))
    frame = predictions_frame("student", "test", catalog_rows("test"), logits, task)
    probs = [f"prob_{name}" for name in class_names(task)]
    assert list(frame.columns) == [
        "model", "split", "image_id", "lesion_id", "diagnosis", "label", *probs,
    ]  # fmt: skip
    assert (frame[probs].dtypes == np.float32).all() and frame["label"].dtype == np.int64
    assert frame["label"].tolist() == [encode(code, task) for code in DIAGNOSES]
    assert (frame["model"] == "student").all() and (frame["split"] == "test").all()
    np.testing.assert_array_equal(frame[probs].to_numpy(), softmax(logits))


def test_frame_follows_the_order_of_the_rows_and_not_their_index():
    rows = catalog_rows("test").iloc[[3, 0, 4]]
    frame = predictions_frame("teacher", "test", rows, np.eye(7)[[0, 1, 2]] * 9, "diagnosis")
    assert frame["image_id"].tolist() == ["test_3", "test_0", "test_4"]
    assert frame[prob_columns("diagnosis")].to_numpy().argmax(1).tolist() == [0, 1, 2]


def test_logits_that_do_not_fit_are_refused():
    rows = catalog_rows("val")
    with pytest.raises(DataError, match=r"logits \[5, 2\]"):
        predictions_frame("student", "val", rows, np.zeros((5, 2)), "diagnosis")
    with pytest.raises(DataError, match=r"logits \[4, 7\]"):
        predictions_frame("student", "val", rows, np.zeros((4, 7)), "diagnosis")
    broken = np.zeros((5, 7))
    broken[2, 1] = np.nan
    with pytest.raises(DataError, match="1 of 5 images have NaN or infinite logits") as caught:
        predictions_frame("student", "val", rows, broken, "diagnosis")
    assert caught.value.faults == ("val_2",)


def test_unknown_names_are_refused_together():
    rows = catalog_rows("val").assign(diagnosis="wart")
    with pytest.raises(DataError) as caught:
        predictions_frame("pupil", "train", rows, np.zeros((5, 7)), "diagnosis")
    text = str(caught.value)
    assert "'pupil'" in text and "'train'" in text and "'wart'" in text


def test_valid_table_is_put_in_order():
    shuffled = table().sample(frac=1, random_state=0)
    ordered = validate_predictions(shuffled, task="diagnosis", protocol="lesion")
    assert ordered["model"].unique().tolist() == list(MODELS)
    for _, rows in ordered.groupby(["model", "split"]):
        assert rows["image_id"].is_monotonic_increasing
    pd.testing.assert_frame_equal(ordered, validate_predictions(table(), task="diagnosis", protocol="lesion"))


def test_missing_columns_are_all_named():
    with pytest.raises(DataError) as caught:
        validate_predictions(table().drop(columns=["prob_mel", "lesion_id"]), task="diagnosis", protocol="lesion")
    assert len(caught.value.faults) == 2
    with pytest.raises(DataError, match="prob_rest"):
        validate_predictions(table(), task="melanoma", protocol="lesion")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("prob_mel", np.nan, "NaN or infinite; teacher/val/val_1"),
        ("prob_mel", np.inf, "NaN or infinite"),
        ("prob_mel", 1.5, "outside [0, 1]"),
        ("prob_mel", -0.1, "outside [0, 1]"),
        ("prob_mel", 0.999, "do not add up to 1"),
        ("label", 3, "the label is not the diagnosis's index"),
        ("diagnosis", "wart", "diagnosis 'wart' is not one of"),
        ("model", "pupil", "model 'pupil' is not one of"),
        ("split", "train", "split 'train' is not one of"),
        ("lesion_id", None, "lesion_id is empty"),
        ("image_id", "val_0", "the image is there twice; teacher/val/val_0"),
        ("image_id", "test_0", "the image is in both parts"),
        ("lesion_id", "other", "teacher differ in images, lesions or diagnoses in the part 'val'"),
    ],
)
def test_one_broken_value_is_named(column: str, value, message: str):
    frame = table().astype({"label": object})
    frame.loc[1, column] = value
    assert message in faults_of(frame)


def test_text_for_a_probability_is_refused():
    assert "not a number" in faults_of(
        table().astype({"prob_mel": object}).replace({"prob_mel": {}}).assign(prob_mel="x")
    )


def test_all_faults_come_at_once():
    frame = table()
    frame.loc[0, "prob_nv"] = np.nan
    frame.loc[1, "label"] = 6
    frame = pd.concat([frame, frame.iloc[[7]]])
    faults = faults_of(frame)
    assert "NaN" in faults and "index in the task" in faults and "twice" in faults


def test_model_without_a_part_is_refused():
    frame = table()
    assert "student has no row of the part 'val'" in faults_of(
        frame[~((frame["model"] == "student") & (frame["split"] == "val"))]
    )
    assert "there are no rows" in faults_of(frame.iloc[:0])
    for part in ("val", "test"):
        faults = faults_of(frame[frame["split"] != part])
        assert all(f"{model} has no row of the part {part!r}" in faults for model in MODELS)


def test_images_may_repeat_under_the_oversampled_protocol_only():
    frame = table()
    repeated = pd.concat([frame, frame[frame["image_id"] == "test_1"]])
    for protocol in ("lesion", "published", "given"):
        assert "3 rows: the image is there twice" in faults_of(repeated, protocol)
    checked = validate_predictions(repeated, task="diagnosis", protocol="published-oversampled")
    assert len(checked) == len(frame) + 3


def test_models_must_repeat_the_same_images():
    frame = table()
    repeated = pd.concat([frame, frame[(frame["image_id"] == "test_1") & (frame["model"] == "student")]])
    assert "student and teacher differ" in faults_of(repeated, "published-oversampled")


@pytest.mark.parametrize("task", ["diagnosis", "melanoma"])
def test_written_table_reads_back_the_same(tmp_path: Path, task):
    path = tmp_path / "evaluation" / "predictions.parquet"
    frame = table(task)
    write_predictions(frame, path, task=task, protocol="lesion")
    back = read_predictions(path, task=task, protocol="lesion")
    pd.testing.assert_frame_equal(back, validate_predictions(frame, task=task, protocol="lesion"))
    assert (back[prob_columns(task)].dtypes == np.float32).all()
    assert [item.name for item in path.parent.iterdir()] == ["predictions.parquet"]


def test_faulty_table_is_not_written(tmp_path: Path):
    path = tmp_path / "predictions.parquet"
    with pytest.raises(DataError):
        write_predictions(table().assign(prob_mel=np.nan), path, task="diagnosis", protocol="lesion")
    assert list(tmp_path.iterdir()) == []


def test_place_that_cannot_be_written_is_an_output_error(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        write_predictions(table(), tmp_path / "file" / "p.parquet", task="diagnosis", protocol="lesion")


def test_missing_or_broken_file_is_a_data_error(tmp_path: Path):
    with pytest.raises(DataError, match=r"absent\.parquet"):
        read_predictions(tmp_path / "absent.parquet", task="diagnosis", protocol="lesion")
    (tmp_path / "text.parquet").write_text("not parquet")
    with pytest.raises(DataError, match=r"text\.parquet: cannot be read as Parquet"):
        read_predictions(tmp_path / "text.parquet", task="diagnosis", protocol="lesion")


def test_labels_of_the_melanoma_task_are_checked_against_that_task():
    frame = table("melanoma")
    wrong = frame.assign(label=[CODES.index(code) for code in frame["diagnosis"]])
    with pytest.raises(DataError, match="index in the task 'melanoma'"):
        validate_predictions(wrong, task="melanoma", protocol="lesion")


def test_any_model_name_and_one_part_will_do_for_arms(tmp_path: Path):
    rows = [
        predictions_frame(name, "test", catalog_rows("test"), np.eye(7)[:5] * 3, "diagnosis", models=None)
        for name in ("no_teacher", "fused")
    ]
    frame = pd.concat(rows, ignore_index=True)
    options = {"task": "diagnosis", "protocol": "lesion", "models": None, "parts": ("test",)}
    write_predictions(frame, tmp_path / "p.parquet", **options)
    assert read_predictions(tmp_path / "p.parquet", **options)["model"].unique().tolist() == ["fused", "no_teacher"]
    with pytest.raises(DataError, match="model 'fused' is not one of teacher"):
        validate_predictions(frame, task="diagnosis", protocol="lesion", parts=("test",))
    with pytest.raises(DataError, match="fused has no row of the part 'val'"):
        validate_predictions(frame, task="diagnosis", protocol="lesion", models=None)
    with pytest.raises(DataError, match="model is empty or no text"):
        validate_predictions(frame.assign(model=" "), **options)


def test_named_arms_keep_their_order_and_others_are_refused():
    frame = table(models=MODELS[:2])
    swapped = validate_predictions(
        frame, task="diagnosis", protocol="lesion", models=("student", "teacher"), parts=("val", "test")
    )
    assert swapped["model"].unique().tolist() == ["student", "teacher"]
    with pytest.raises(DataError, match="split 'val' is not one of test"):
        validate_predictions(frame, task="diagnosis", protocol="lesion", parts=("test",))


def test_rows_of_one_model_and_part_are_checked_alone():
    rows = table(models=("student",))
    test = rows[rows["split"] == "test"]
    assert single_part_faults(test, task="diagnosis", part="test") == []
    assert single_part_faults(pd.concat([test, test]), task="diagnosis", part="test") == []
    assert "split 'val'" in single_part_faults(rows, task="diagnosis", part="test")[0]
    assert "label" in single_part_faults(test.assign(label=6), task="diagnosis", part="test")[0]
