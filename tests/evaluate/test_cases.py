"""Chosen cases against a choice by sorting in plain Python."""

import json

import numpy as np
import pandas as pd
import pytest

from dermdistill.errors import DataError
from dermdistill.evaluate.cases import CONFUSIONS, EXAMPLES, case_ids, choose_cases
from dermdistill.labels import CODES


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    lesions = np.repeat(np.arange(90), 2)
    diagnosis = np.array(CODES)[rng.integers(0, 7, 90)][lesions]
    label = np.array([CODES.index(code) for code in diagnosis])
    predicted = np.where(rng.random(180) < 0.5, label, rng.integers(0, 7, 180))
    return pd.DataFrame(
        {
            "image_id": [f"i{number:03}" for number in rng.permutation(180)],
            "lesion_id": [f"l{number}" for number in lesions],
            "diagnosis": diagnosis,
            "label": label,
            "predicted": predicted,
            # Few levels, so that ties have to be broken.
            "confidence": rng.integers(2, 11, 180) / 10,
            "melanoma_prob": rng.integers(0, 11, 180) / 10,
        }
    )


def first_of_lesions(records, key):
    """Image ids in order, the first of each lesion alone."""
    seen, ids = set(), []
    for record in sorted(records, key=lambda record: (key(record), record["image_id"])):
        if record["lesion_id"] not in seen:
            seen.add(record["lesion_id"])
            ids.append(record["image_id"])
    return ids


CHOICES = {
    "surest_mistakes": (lambda r: r["label"] != r["predicted"], lambda r: -r["confidence"]),
    "missed_melanomas": (
        lambda r: r["diagnosis"] == "mel" and CODES[r["predicted"]] != "mel",
        lambda r: r["melanoma_prob"],
    ),
    "least_certain": (lambda r: True, lambda r: r["confidence"]),
    "benign_like_melanoma": (lambda r: r["diagnosis"] in {"bkl", "df", "nv", "vasc"}, lambda r: -r["melanoma_prob"]),
}


@pytest.mark.parametrize("group", CHOICES)
def test_groups_are_the_foremost_images_one_a_lesion(rows: pd.DataFrame, group: str):
    belongs, key = CHOICES[group]
    wanted = first_of_lesions([record for record in rows.to_dict("records") if belongs(record)], key)
    found = choose_cases(rows, classes=CODES, most=7)
    assert [case["image_id"] for case in found[group]] == wanted[:7]
    assert found["lesions"][group] == len(wanted) > 7


def test_cases_hold_what_their_rows_say(rows: pd.DataFrame):
    by_id = rows.set_index("image_id")
    for case in choose_cases(rows, classes=CODES)["least_certain"]:
        row = by_id.loc[case["image_id"]]
        assert (case["true"], case["predicted"]) == (row["diagnosis"], CODES[row["predicted"]])
        assert (case["confidence"], case["melanoma_probability"]) == (row["confidence"], row["melanoma_prob"])


def test_confusions_are_the_most_frequent_pairs(rows: pd.DataFrame):
    wrong = [record for record in rows.to_dict("records") if record["label"] != record["predicted"]]
    counts: dict[tuple[str, str], int] = {}
    for record in wrong:
        pair = record["diagnosis"], CODES[record["predicted"]]
        counts[pair] = counts.get(pair, 0) + 1
    wanted = sorted(counts, key=lambda pair: (-counts[pair], pair))[:CONFUSIONS]
    found = choose_cases(rows, classes=CODES)["confusions"]
    assert [(item["true"], item["predicted"], item["images"]) for item in found] == [(*p, counts[p]) for p in wanted]
    for item in found:
        own = [r for r in wrong if (r["diagnosis"], CODES[r["predicted"]]) == (item["true"], item["predicted"])]
        ids = first_of_lesions(own, lambda record: -record["confidence"])[:EXAMPLES]
        assert [case["image_id"] for case in item["cases"]] == ids


def test_choice_is_deterministic_and_json(rows: pd.DataFrame):
    found = choose_cases(rows, classes=CODES)
    assert choose_cases(rows.sample(frac=1.0, random_state=1), classes=CODES) == found
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_case_ids_are_all_of_them_once(rows: pd.DataFrame):
    found = choose_cases(rows, classes=CODES)
    text = json.dumps(found)
    assert case_ids(found) == sorted(image for image in rows["image_id"] if f'"{image}"' in text)


def test_binary_task_shows_the_diagnosis_and_counts_by_label(rows: pd.DataFrame):
    binary = rows.assign(
        label=(rows["diagnosis"] == "mel").astype(int),
        predicted=(rows["melanoma_prob"] >= 0.5).astype(int),
    )
    mistakes = choose_cases(binary, classes=("rest", "mel"))["surest_mistakes"]
    assert mistakes and all((case["true"] == "mel") != (case["predicted"] == "mel") for case in mistakes)
    assert {case["true"] for case in mistakes} > {"mel"}


def test_no_mistake_leaves_empty_groups(rows: pd.DataFrame):
    found = choose_cases(rows.assign(predicted=rows["label"]), classes=CODES)
    assert found["surest_mistakes"] == found["missed_melanomas"] == found["confusions"] == []
    assert found["lesions"]["missed_melanomas"] == 0


def test_missing_columns_are_named(rows: pd.DataFrame):
    with pytest.raises(DataError, match="lack confidence, melanoma_prob"):
        choose_cases(rows.drop(columns=["confidence", "melanoma_prob"]), classes=CODES)
