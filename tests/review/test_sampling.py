"""Planned studies: strata, lesions, methods, shams, repeats, names, and what could not be filled."""

import json
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermdistill.errors import ConfigError, DataError
from dermdistill.labels import CODES
from dermdistill.review.sampling import Sample, sample_items
from dermdistill.review.study import Study, order_for
from dermdistill.review.study_faults import study_faults

WISHES: dict[str, Any] = {"size": 42, "methods": ["grad_cam", "lime"], "repeats": 6, "shams": 0.25, "seed": 3}


def make_predictions(lesions: int = 400, *, seed: int = 1, classes: tuple[str, ...] = CODES) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    lesion = np.sort(rng.integers(0, lesions, 2 * lesions))
    labels = rng.integers(0, len(classes), lesions)[lesion]
    probs = rng.dirichlet(np.full(len(classes), 0.5), 2 * lesions)
    right = rng.random(2 * lesions) < 0.5
    for row in np.flatnonzero(right):
        best = probs[row].argmax()
        probs[row, [labels[row], best]] = probs[row, [best, labels[row]]]
    frame = pd.DataFrame(probs.astype(np.float32), columns=[f"prob_{code}" for code in classes])
    return frame.assign(
        model="student",
        split="test",
        image_id=[f"ISIC_{number:05}" for number in rng.permutation(2 * lesions)],
        lesion_id=[f"HAM_{number:05}" for number in lesion],
        label=labels,
    )


@pytest.fixture(scope="module")
def predictions() -> pd.DataFrame:
    return make_predictions()


@pytest.fixture(scope="module")
def sample(predictions: pd.DataFrame) -> Sample:
    return sample_items(predictions, **WISHES)


def originals(sample: Sample) -> list[Any]:
    return [plan for plan in sample.plans if not plan.item.repeat_of]


def test_every_class_is_shown_right_and_wrong_equally_often(sample: Sample):
    strata = Counter((plan.item.true, plan.item.true == plan.item.predicted) for plan in originals(sample))
    assert strata == {(code, right): 3 for code in CODES for right in (True, False)}
    assert sample.notes == ()


def test_items_say_what_the_predictions_say(sample: Sample, predictions: pd.DataFrame):
    rows = predictions.set_index("image_id")
    for plan in sample.plans:
        row = rows.loc[plan.item.image_id]
        probs = [row[f"prob_{code}"] for code in CODES]
        assert plan.item.lesion_id == row["lesion_id"] and plan.item.true == CODES[row["label"]]
        assert plan.item.predicted == CODES[int(np.argmax(probs))]
        assert list(plan.item.probs.values()) == pytest.approx(probs, abs=1e-6)


def test_no_lesion_comes_twice_but_in_repeats(sample: Sample):
    lesions = Counter(plan.item.lesion_id for plan in originals(sample))
    assert len(lesions) == 42 and set(lesions.values()) == {1}
    repeats = [plan for plan in sample.plans if plan.item.repeat_of]
    assert len(repeats) == 6 == len({plan.item.repeat_of for plan in repeats})
    by_name = {plan.item.item: plan for plan in sample.plans}
    assert all(by_name[plan.item.repeat_of].map_of == plan.map_of for plan in repeats)


def test_shams_show_the_centre_or_another_image(sample: Sample):
    own = originals(sample)
    kinds = Counter(plan.item.sham for plan in own)
    assert kinds == {"": 32, "centre_prior": 5, "other_image": 5}
    images = {plan.item.image_id for plan in own}
    for plan in own:
        if plan.item.sham == "centre_prior":
            assert plan.map_of == ""
        elif plan.item.sham == "other_image":
            assert plan.map_of in images - {plan.item.image_id}
        else:
            assert plan.map_of == plan.item.image_id


@pytest.mark.parametrize("shams", [0.1, 0.25, 0.5])
def test_methods_are_balanced_within_every_kind_of_sham(predictions: pd.DataFrame, shams: float):
    found = sample_items(predictions, **{**WISHES, "shams": shams})
    counts = Counter((plan.item.method, plan.item.sham) for plan in originals(found))
    for kind in ("", "centre_prior", "other_image"):
        assert abs(counts["grad_cam", kind] - counts["lime", kind]) <= 1


def test_methods_are_balanced_within_classes(sample: Sample):
    strata = Counter((p.item.true, p.item.method) for p in originals(sample) if not p.item.sham)
    assert all(abs(strata[code, "grad_cam"] - strata[code, "lime"]) <= 2 for code in CODES)


def test_plan_makes_a_sound_study_whose_order_can_be_drawn(sample: Sample):
    study = Study("Title", 3, "2026-01-31", sample.classes, tuple(plan.item for plan in sample.plans))
    assert study_faults(json.loads(json.dumps(study.to_dict()))) == []
    assert len(order_for(study, 0)) == 48


def test_names_and_order_tell_nothing(predictions: pd.DataFrame):
    names = []
    for seed in range(12):
        plans = sample_items(predictions, **{**WISHES, "seed": seed}).plans
        assert [plan.item.item for plan in plans] == sorted(plan.item.item for plan in plans)
        names += [(plan.item.item[:3], bool(plan.item.sham), bool(plan.item.repeat_of)) for plan in plans]
    value = np.array([int(name, 16) for name, _, _ in names])
    for kind in (1, 2):
        flag = np.array([row[kind] for row in names])
        gap = value[flag].mean() - value[~flag].mean()
        # Uniform on 4,096 values: the standard error of a difference of means.
        assert abs(gap) < 4 * 4096 / np.sqrt(12) * np.sqrt(1 / flag.sum() + 1 / (~flag).sum())


def test_same_seed_gives_the_same_study_whatever_the_order_of_rows(predictions: pd.DataFrame, sample: Sample):
    shuffled = predictions.sample(frac=1, random_state=4)
    repeated = pd.concat([shuffled, shuffled.head(50)])
    assert sample_items(repeated, **WISHES) == sample
    other = sample_items(predictions, **{**WISHES, "seed": 4})
    assert {p.item.image_id for p in other.plans} != {p.item.image_id for p in sample.plans}


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 50), st.integers(0, 8), st.floats(0, 0.5), st.integers(0, 99))
def test_any_wish_gives_a_sound_study_or_says_what_is_short(
    lesions: int, size: int, repeats: int, shams: float, seed: int
):
    predictions = make_predictions(lesions, seed=seed)
    found = sample_items(predictions, size=size, methods=["a", "b", "c"], repeats=repeats, shams=shams, seed=seed)
    own = originals(found)
    assert len(own) == min(size, predictions["lesion_id"].nunique())
    assert len({plan.item.lesion_id for plan in own}) == len(own)
    assert sum(plan.item.sham != "" for plan in own) == round(shams * len(own))
    assert len(found.plans) - len(own) == min(repeats, len(own))
    study = Study("T", seed, "2026-01-31", found.classes, tuple(plan.item for plan in found.plans))
    assert study_faults(json.loads(json.dumps(study.to_dict()))) == []
    text = "\n".join(found.notes)
    assert (len(own) < size) == ("images were asked for" in text)
    assert (repeats > len(own)) == ("repeats were asked for" in text)
    assert (round(shams * len(own)) == 0) == ("no map is a sham" in text)


def test_scarce_stratum_is_taken_whole_and_named():
    predictions = make_predictions()
    scarce = predictions["label"] == CODES.index("df")
    kept = predictions[~scarce | (predictions["lesion_id"] == predictions[scarce]["lesion_id"].iloc[0])]
    found = sample_items(kept, **WISHES)
    assert len(originals(found)) == 42
    assert sum(plan.item.true == "df" for plan in originals(found)) == 1
    assert {note.split(":")[0] for note in found.notes} == {"df, answered right", "df, answered wrong"}
    assert all("of the 3 images" in note and "others took their places" in note for note in found.notes)


def test_small_study_says_that_it_lacks_strata(predictions: pd.DataFrame):
    notes = sample_items(predictions, size=5, methods=["a"], repeats=0, shams=0.2, seed=0).notes
    assert "5 images are fewer than the 14 strata (class, right or wrong): some have none" in notes
    assert "one map is a sham, of the kind centre_prior: the other kind has no place" in notes


def test_binary_task_has_its_two_classes():
    found = sample_items(make_predictions(60, classes=("rest", "mel")), **{**WISHES, "size": 12})
    assert found.classes == ("rest", "mel")
    assert Counter(p.item.true for p in originals(found)) == {"rest": 6, "mel": 6}


@pytest.mark.parametrize(
    "wish",
    [
        {"size": 0},
        {"repeats": -1},
        {"seed": -1},
        {"shams": -0.1},
        {"shams": 0.6},
        {"shams": float("nan")},
        {"methods": []},
        {"methods": ["a", "a"]},
        {"methods": ["../a"]},
    ],
)
def test_impossible_wishes_are_refused(predictions: pd.DataFrame, wish: dict[str, Any]):
    with pytest.raises(ConfigError):
        sample_items(predictions, **{**WISHES, **wish})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.drop(columns="lesion_id"), "missing: lesion_id"),
        (lambda p: p.assign(model=["a", "b"] * (len(p) // 2)), "of several: model"),
        (lambda p: p.head(0), "0 rows"),
        (lambda p: p.assign(label=9), "labels 9 to 9"),
        (lambda p: p.assign(prob_mel=np.nan), "not finite"),
        (lambda p: p.assign(lesion_id=None), "empty"),
        (lambda p: p.assign(image_id="one"), "two lesions"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(predictions: pd.DataFrame, change: Any, message: str):
    with pytest.raises(DataError, match=message):
        sample_items(change(predictions), **WISHES)
