"""The block on robustness against scikit-learn and brute force, with toy models that look at colours."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, roc_auc_score

from dermdistill.bundle.decisions import Calibration
from dermdistill.data.corruptions import corrupt, corrupt_all, picture_key
from dermdistill.errors import ConfigError, DataError
from dermdistill.evaluate import robustness
from dermdistill.evaluate.bootstrap import lesion_weights
from dermdistill.evaluate.robustness import CHANGED, FIGURES, robustness_block, robustness_sample

Json = dict[str, Any]
Pictures = npt.NDArray[np.uint8]
Model = Callable[[Pictures], npt.NDArray[np.float64]]
COUNT, CLASSES, MEL = 84, 7, 4
LABELS = np.arange(COUNT) % CLASSES
IDS = [f"image-{number}" for number in range(COUNT)]
# Two images of each lesion, of one class: 0 and 7, 1 and 8, 14 and 21.
LESIONS = [f"lesion-{number % 7 + 7 * (number // 14)}" for number in range(COUNT)]
KINDS = ("ink", "noise", "brightness")
SEVERITIES = (2, 4, 5)
SAMPLES = 12
COLOURS = np.random.default_rng(1).uniform(60, 200, (CLASSES, 3))
IDENTITY = Calibration.identity(CLASSES)
UNEVEN = Calibration("vector", (0.5,) * CLASSES, (0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0))


def pictures(size: int) -> Pictures:
    """Each image in about the colour of its class, with some of a wrong one."""
    rng = np.random.default_rng(2)
    colours = COLOURS[LABELS] + rng.normal(0, 25, (COUNT, 3))
    speckle = rng.normal(0, 6, (COUNT, size, size, 3))
    return np.asarray(np.clip(colours[:, None, None] + speckle, 0, 255), dtype=np.uint8)


def model(sharpness: float = 0.002) -> Model:
    """Softmax of the distances of an image's mean colour to those of the classes."""

    def answer(images: Pictures) -> npt.NDArray[np.float64]:
        means = images.mean(axis=(1, 2))
        logits = -sharpness * ((means[:, None] - COLOURS) ** 2).sum(axis=2)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    return answer


SMALL, LARGE = pictures(16), pictures(24)


def block(models: dict[str, Model], images: dict[str, Pictures], **changed: Any) -> Json:
    given_: Json = {
        "calibrations": dict.fromkeys(models, IDENTITY),
        "thresholds": {name: {"at_95_sensitivity": 0.1} for name in models},
        "task": "diagnosis",
        "seed": 5,
        "kinds": KINDS,
        "severities": SEVERITIES,
        "samples": SAMPLES,
    }
    truth: Json = {"labels": LABELS, "lesion_ids": LESIONS, "image_ids": IDS}
    truth |= {name: changed.pop(name) for name in truth if name in changed}
    return robustness_block(models, images, **truth, **(given_ | changed))


@pytest.fixture(scope="module")
def found() -> Json:
    models = {"teacher": model(0.003), "student": model(), "student_int8": model(0.001)}
    return block(models, {"teacher": LARGE, "student": SMALL, "student_int8": SMALL})


def by_hand(images: Pictures, rows: npt.NDArray[np.int64], answer: Model, calibration: Calibration) -> dict[str, float]:
    """The figures of some rows, with repeats, from scikit-learn."""
    raw, truth = answer(images)[rows], LABELS[rows]
    probs = calibration.apply(raw)
    called = probs[:, MEL] >= 0.1
    tn, fp, fn, tp = confusion_matrix(truth == MEL, called).ravel()
    return {
        "balanced_accuracy": float(balanced_accuracy_score(truth, raw.argmax(axis=1))),
        "macro_auc": float(np.mean([roc_auc_score(truth == c, probs[:, c]) for c in range(CLASSES)])),
        "melanoma_auc": float(roc_auc_score(truth == MEL, probs[:, MEL])),
        "sensitivity_at_95_sensitivity": tp / (tp + fn),
        "specificity_at_95_sensitivity": tn / (tn + fp),
    }


def spoilt(images: Pictures, kind: str, severity: int) -> Pictures:
    keys = [picture_key(5, image) for image in IDS]
    return np.stack([corrupt(image, kind, severity, key) for image, key in zip(images, keys, strict=True)])


# Figures


@pytest.mark.parametrize("calibration", [IDENTITY, UNEVEN])
def test_figures_of_every_kind_and_severity_equal_scikit_learn(calibration: Calibration) -> None:
    answer, everyone = model(), np.arange(COUNT)
    entry = block({"student": answer}, {"student": SMALL}, calibrations={"student": calibration})["models"]["student"]
    clean = by_hand(SMALL, everyone, answer, calibration)
    assert {name: cell["value"] for name, cell in entry["clean"].items()} == pytest.approx(clean)
    assert clean["balanced_accuracy"] > 0.6
    for kind in KINDS:
        for line in entry["kinds"][kind]["severities"]:
            images = spoilt(SMALL, kind, line["severity"])
            wanted = by_hand(images, everyone, answer, calibration)
            wanted[CHANGED] = float((answer(images).argmax(axis=1) != answer(SMALL).argmax(axis=1)).mean())
            assert line["values"] == pytest.approx(wanted)
            assert line["drops"] == pytest.approx({name: clean[name] - wanted[name] for name in FIGURES})


def test_calibration_changes_no_label_and_the_areas_alone_follow_it() -> None:
    both = {"student": model(), "student_int8": model()}
    cells = {"student": IDENTITY, "student_int8": UNEVEN}
    entries = block(both, dict.fromkeys(both, SMALL), calibrations=cells)["models"]
    for name in ("balanced_accuracy", CHANGED):
        first, second = (entries[one]["groups"]["all"]["mean"][name] for one in both)
        assert first == second
    name = "specificity_at_95_sensitivity"
    assert entries["student"]["clean"][name] != entries["student_int8"]["clean"][name]


def test_means_over_severities_and_kinds_are_means_of_what_stands_there(found: Json) -> None:
    for entry in found["models"].values():
        for kind in KINDS:
            one = entry["kinds"][kind]
            for name in FIGURES:
                values, drops = ([line[what][name] for line in one["severities"]] for what in ("values", "drops"))
                assert one["mean"][name]["value"] == pytest.approx(np.mean(values))
                assert one["drop"][name]["value"] == pytest.approx(np.mean(drops), abs=1e-12)
        groups = {"artefact": ("ink",), "corruption": ("noise", "brightness"), "all": KINDS}
        assert list(entry["groups"]) == list(groups)
        for group, kinds in groups.items():
            wanted = np.mean([entry["kinds"][kind]["drop"]["macro_auc"]["value"] for kind in kinds])
            assert entry["groups"][group]["drop"]["macro_auc"]["value"] == pytest.approx(wanted, abs=1e-12)


def test_intervals_are_of_drops_paired_over_lesions_and_averaged_over_severities(found: Json) -> None:
    kind, answer = "brightness", model()
    pile = [spoilt(SMALL, kind, severity) for severity in SEVERITIES]
    drops = []
    for weights in lesion_weights(LESIONS, samples=SAMPLES, seed=0):
        rows = np.repeat(np.arange(COUNT), weights)
        clean = by_hand(SMALL, rows, answer, IDENTITY)
        after = [by_hand(images, rows, answer, IDENTITY) for images in pile]
        drops.append([clean[name] - np.mean([one[name] for one in after]) for name in FIGURES])
    low, high = np.quantile(drops, [0.025, 0.975], axis=0)
    for place, name in enumerate(FIGURES):
        cell = found["models"]["student"]["kinds"][kind]["drop"][name]
        assert (cell["low"], cell["high"]) == pytest.approx((low[place], high[place]))
    assert (high > low).all()


def test_differences_are_one_drop_minus_the_other(found: Json) -> None:
    assert list(found["differences"]) == ["student - teacher", "student_int8 - student", "student_int8 - teacher"]
    for pair, entries in found["differences"].items():
        first, second = (found["models"][name] for name in pair.split(" - "))
        for place in (*KINDS, "artefact", "corruption", "all"):
            for name in FIGURES:
                values = [{**one["kinds"], **one["groups"]}[place]["drop"][name]["value"] for one in (first, second)]
                assert entries[place][name]["value"] == pytest.approx(values[0] - values[1], abs=1e-12)


def test_a_model_differs_from_itself_by_exactly_nothing() -> None:
    twins = {"student": model(), "student_int8": model()}
    entries = block(twins, dict.fromkeys(twins, SMALL))["differences"]["student_int8 - student"]
    assert {tuple(cell.values()) for cells in entries.values() for cell in cells.values()} == {(0.0, 0.0, 0.0)}


# Pictures


def test_models_of_one_size_share_pictures_and_each_sees_its_own_size(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[int]] = {"teacher": [], "student": [], "student_int8": []}
    made = []

    def counted(images: Pictures, *rest: Any) -> Pictures:
        made.append(images.shape[1])
        return corrupt_all(images, *rest)

    monkeypatch.setattr(robustness, "corrupt_all", counted)

    def watched(name: str) -> Model:
        def answer(images: Pictures) -> npt.NDArray[np.float64]:
            seen[name].append(images.shape[1])
            return model()(images)

        return answer

    block({name: watched(name) for name in seen}, {"teacher": LARGE, "student": SMALL, "student_int8": SMALL.copy()})
    shown = 1 + len(KINDS) * len(SEVERITIES)
    assert seen == {"teacher": [24] * shown, "student": [16] * shown, "student_int8": [16] * shown}
    assert sorted(made) == [16] * (shown - 1) + [24] * (shown - 1)


def test_figures_do_not_depend_on_the_order_of_images_but_on_their_ids() -> None:
    order = np.random.default_rng(0).permutation(COUNT)
    truth = {
        "labels": LABELS[order],
        "lesion_ids": np.array(LESIONS)[order],
        "image_ids": [IDS[place] for place in order],
    }
    first = block({"student": model()}, {"student": SMALL})["models"]["student"]["kinds"]
    same = block({"student": model()}, {"student": SMALL[order]}, **truth)["models"]["student"]["kinds"]
    for kind in KINDS:
        for one, other in zip(first[kind]["severities"], same[kind]["severities"], strict=True):
            assert one["values"] == pytest.approx(other["values"])
    renamed = block({"student": model()}, {"student": SMALL}, image_ids=IDS[::-1])["models"]["student"]["kinds"]
    assert renamed["brightness"]["severities"] != first["brightness"]["severities"]


def test_fewer_kinds_leave_the_figures_of_the_others(found: Json) -> None:
    alone = block({"student": model()}, {"student": SMALL}, kinds=("noise",), severities=(2, 5))
    assert list(alone["kinds"]) == ["noise"]
    assert list(alone["models"]["student"]["groups"]) == ["corruption", "all"]
    lines = found["models"]["student"]["kinds"]["noise"]["severities"]
    assert alone["models"]["student"]["kinds"]["noise"]["severities"] == [lines[0], lines[2]]


# What is not defined, and what is refused


def test_figures_without_a_threshold_or_of_a_missing_class_are_null() -> None:
    one: Json = {"models": {"student": model()}, "images": {"student": SMALL}}
    entry = block(**one, thresholds={"student": {"at_95_sensitivity": None}})["models"]["student"]
    empty = {"value": None, "low": None, "high": None}
    assert entry["kinds"]["ink"]["drop"]["sensitivity_at_95_sensitivity"] == empty
    assert entry["clean"]["specificity_at_95_sensitivity"] == empty
    assert entry["clean"]["balanced_accuracy"]["value"] is not None
    without = block(**one, labels=np.where(LABELS == 3, 2, LABELS))
    assert without["sample"]["per_class"]["df"] == 0
    entry = without["models"]["student"]
    assert entry["kinds"]["ink"]["severities"][0]["drops"]["macro_auc"] is None
    assert entry["groups"]["all"]["drop"]["balanced_accuracy"] == empty
    assert entry["clean"]["melanoma_auc"]["value"] is not None


def test_two_classes_are_measured_as_melanoma_and_the_rest() -> None:
    def two(images: Pictures) -> npt.NDArray[np.float64]:
        melanoma = model()(images)[:, MEL]
        return np.stack([1 - melanoma, melanoma], axis=1)

    result = block(
        {"student": two},
        {"student": SMALL},
        labels=(LABELS == MEL).astype(int),
        task="melanoma",
        calibrations={"student": Calibration.identity(2)},
    )
    assert result["sample"]["per_class"] == {"rest": COUNT - COUNT // 7, "mel": COUNT // 7}
    clean = result["models"]["student"]["clean"]
    assert clean["macro_auc"]["value"] == clean["melanoma_auc"]["value"]


def test_what_does_not_fit_is_refused() -> None:
    one: Json = {"models": {"student": model()}, "images": {"student": SMALL}}
    with pytest.raises(ConfigError, match="rain"):
        block(**one, kinds=("rain",))
    with pytest.raises(ConfigError, match="severities"):
        block(**one, severities=(0, 1))
    with pytest.raises(DataError, match="83 image ids"):
        block(**one, image_ids=IDS[1:])
    with pytest.raises(DataError, match="at least one model"):
        block({}, {})
    with pytest.raises(DataError, match=r"\[84, 3\]"):
        block({"student": lambda images: model()(images)[:, :3]}, {"student": SMALL})


# The sample


@settings(max_examples=60, deadline=None)
@given(
    classes=st.lists(st.integers(1, 40), min_size=1, max_size=7),
    photos=st.integers(1, 3),
    count=st.integers(1, 150),
    seed=st.integers(0, 100),
)
def test_sample_has_one_image_a_lesion_and_classes_as_even_as_can_be(
    classes: list[int], photos: int, count: int, seed: int
) -> None:
    lesion_labels = np.repeat(np.arange(len(classes)), classes)
    labels = np.repeat(lesion_labels, photos)
    lesions = np.repeat(np.arange(len(lesion_labels)), photos)
    chosen = robustness_sample(labels, lesions, count, seed)
    np.testing.assert_array_equal(chosen, robustness_sample(labels, lesions, count, seed))
    assert len(chosen) == min(count, len(lesion_labels))
    assert len(set(lesions[chosen])) == len(chosen)
    assert (np.diff(chosen) > 0).all()
    counts = np.bincount(labels[chosen], minlength=len(classes))
    # A class below the largest by more than one has no lesion left.
    assert all(count == total for count, total in zip(counts, classes, strict=True) if count < counts.max() - 1)


def test_sample_follows_the_seed_in_lesions_and_in_their_images() -> None:
    labels, lesions = np.zeros(300, dtype=int), np.arange(300) // 3
    first, second = (robustness_sample(labels, lesions, 20, seed) for seed in (0, 1))
    assert set(lesions[first]) != set(lesions[second])
    assert set(robustness_sample(labels, lesions, 100, 0) % 3) == {0, 1, 2}


def test_samples_of_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="0 labels"):
        robustness_sample([], [], 5, 0)
    with pytest.raises(ConfigError, match="0 images"):
        robustness_sample([0], ["a"], 0, 0)
