"""The block of the gate: areas against scikit-learn, intervals against copied lesions, counts against plain loops."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from dermdistill.bundle.image_gate import REASONS, UNLIKE, ImageGate, fit_gate
from dermdistill.data.not_skin import KINDS, not_skin
from dermdistill.data.synthetic_skin import expose, skin_field, skin_tone
from dermdistill.errors import DataError
from dermdistill.evaluate.bootstrap import lesion_weights
from dermdistill.evaluate.out_of_distribution import entropy, ood_block, placements

SIZE, COUNT, SEED, SAMPLES = 32, 50, 7, 60
CLASSES = ("akiec", "bcc", "mel", "nv")


def skins(count: int, seed: int) -> np.ndarray:
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    for place in range(count):
        rng = np.random.default_rng((seed, place))
        spot = np.hypot(x, y) < rng.uniform(0.3, 0.7)
        scene = skin_field(rng, (SIZE, SIZE), skin_tone(rng)) * (1 - 0.5 * spot[:, :, None])
        images[place] = np.asarray(expose(rng, scene.astype(np.float32), blur=False))
    return images


def probs_of(images: np.ndarray) -> np.ndarray:
    """A model that looks at mean colours."""
    means = images.reshape(len(images), -1, 3).mean(axis=1) / 60
    logits = np.concatenate([means, 6 - means[:, :1]], axis=1)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def flatter(probs: np.ndarray) -> np.ndarray:
    powers = np.sqrt(probs)
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def gate() -> ImageGate:
    return fit_gate(skins(80, 1), skins(60, 2), quantile=0.95, quality_share=0.02)


@pytest.fixture(scope="module")
def test_part() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    images = skins(60, 3)
    images[5] = 20  # a melanoma that is too dark
    return images, np.array([f"L{place // 2}" for place in range(60)]), np.repeat([0, 1, 2, 3], [5, 0, 20, 35])


@pytest.fixture(scope="module")
def block(gate: ImageGate, test_part: Any) -> dict[str, Any]:
    images, lesions, labels = test_part
    noisy = np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8)
    return ood_block(
        gate, images, lesions, labels, CLASSES, probs_of=probs_of, calibrate=flatter, seed=SEED, count=COUNT,
        corrupted={"same": images, "noise": noisy}, samples=SAMPLES,
    )  # fmt: skip


def drawn_images(lesions: np.ndarray) -> list[np.ndarray]:
    """Image numbers of each replicate, lesions copied as often as they were drawn."""
    weights = lesion_weights(lesions, samples=SAMPLES, seed=SEED)
    return [np.repeat(np.arange(len(lesions)), row) for row in weights]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), levels=st.integers(2, 30))
def test_mean_placement_equals_the_area_of_scikit_learn(seed: int, levels: int):
    rng = np.random.default_rng(seed)
    lesions, foreign = rng.integers(0, levels, 25), rng.integers(levels // 2, levels + 3, 9)
    weights = rng.integers(0, 3, 25) + 1
    truth = np.repeat([0, 1], [25, 9])
    places = placements(lesions, foreign)
    assert places.mean() == pytest.approx(roc_auc_score(truth, np.append(lesions, foreign)), abs=1e-12)
    wanted = roc_auc_score(truth, np.append(lesions, foreign), sample_weight=np.append(weights, np.ones(9)))
    assert np.average(places, weights=weights) == pytest.approx(wanted, abs=1e-12)


def test_entropy_equals_scipy():
    probs = np.array([[0.25, 0.25, 0.5], [1.0, 0.0, 0.0], [0.9, 0.05, 0.05]])
    np.testing.assert_allclose(entropy(probs), stats.entropy(probs, axis=1), atol=1e-12)


def test_areas_of_drawings_equal_scikit_learn_with_their_intervals(gate: ImageGate, test_part: Any, block: Any):
    images, lesions, _ = test_part
    foreign, kinds = not_skin(COUNT, SIZE, SEED)
    scores = {
        "gate": gate.score,
        "unsureness": lambda x: 1 - flatter(probs_of(x)).max(axis=1),
        "entropy": lambda x: stats.entropy(probs_of(x), axis=1),
    }
    assert block["scores"] == list(scores) and block["n"]["not_skin"] == COUNT
    assert set(block["not_skin"]["kinds"]) == set(KINDS)
    chosen = {"all": np.ones(COUNT, bool), "skin_clouds": np.array(kinds) == "skin_clouds"}
    for name, score in scores.items():
        for which, mask in chosen.items():
            entry = (block["not_skin"]["kinds"] | block["not_skin"])[which]
            own, other = score(images), score(foreign[mask])

            def area(rows: np.ndarray, own: np.ndarray = own, other: np.ndarray = other) -> float:
                return roc_auc_score(np.repeat([0, 1], [len(rows), len(other)]), np.append(own[rows], other))

            found = entry["auroc"][name]
            assert found["value"] == pytest.approx(area(np.arange(len(own))), abs=1e-9)
            bounds = np.quantile([area(rows) for rows in drawn_images(lesions)], [0.025, 0.975])
            assert [found["low"], found["high"]] == pytest.approx(bounds.tolist(), abs=1e-9)
            assert entry["n"] == mask.sum()


def test_shares_of_drawings_count_what_check_tells(gate: ImageGate, block: Any):
    foreign, kinds = not_skin(COUNT, SIZE, SEED)
    told = gate.check(foreign)
    assert block["not_skin"]["all"]["flagged"] == np.mean([bool(reasons) for reasons in told])
    assert block["not_skin"]["all"]["flagged_by_distance"] == np.mean([UNLIKE in reasons for reasons in told])
    own = [bool(reasons) for reasons, kind in zip(told, kinds, strict=True) if kind == "text"]
    assert block["not_skin"]["kinds"]["text"]["flagged"] == np.mean(own)


def test_cost_counts_clean_lesions_by_reason_and_class(gate: ImageGate, test_part: Any, block: Any):
    images, lesions, labels = test_part
    told = gate.check(images)
    refused = np.array([bool(reasons) for reasons in told])
    clean = block["clean"]
    assert clean["any"]["flagged"] == refused.sum() >= 1 and clean["any"]["n"] == 60
    assert clean["any"]["share"]["value"] == pytest.approx(refused.mean())
    bounds = np.quantile([refused[rows].mean() for rows in drawn_images(lesions)], [0.025, 0.975])
    assert [clean["any"]["share"]["low"], clean["any"]["share"]["high"]] == pytest.approx(bounds.tolist())
    for reason in REASONS:
        assert clean["reasons"][reason]["flagged"] == sum(reason in reasons for reasons in told)
    for place, code in enumerate(CLASSES):
        own = [reasons for reasons, label in zip(told, labels, strict=True) if label == place]
        entry = clean["per_class"][code]
        assert (entry["n"], entry["flagged"]) == (len(own), sum(map(bool, own)))
        assert entry["reasons"] == {reason: sum(reason in reasons for reasons in own) for reason in REASONS}
    assert clean["per_class"]["bcc"]["share"] == {"value": None, "low": None, "high": None}


def test_refused_melanomas_are_named(gate: ImageGate, test_part: Any, block: Any):
    images, lesions, labels = test_part
    told = gate.check(images)
    wanted = [
        {"lesion_id": lesions[row], "reasons": list(told[row])} for row in range(60) if labels[row] == 2 and told[row]
    ]
    assert block["melanomas"] == {"n": 20, "flagged": len(wanted), "lesions": wanted}
    assert wanted[0]["lesion_id"] == "L2" and "too_dark" in wanted[0]["reasons"]
    assert f"the gate refuses {len(wanted)} of 20 pictures of test melanomas" in block["notes"]


def test_corrupted_pictures_are_compared_with_the_clean_lesion_by_lesion(gate: ImageGate, test_part: Any, block: Any):
    images, lesions, _ = test_part
    same = block["corruptions"]["same"]
    assert all(entry == {"value": 0.5, "low": 0.5, "high": 0.5} for entry in same["auroc"].values())
    assert same["flagged"] == block["clean"]["any"]["flagged"] / 60
    noise = np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8)
    own, other = (1 - flatter(probs_of(x)).max(axis=1) for x in (images, noise))

    def area(rows: np.ndarray) -> float:
        return roc_auc_score(np.repeat([0, 1], len(rows)), np.append(own[rows], other[rows]))

    found = block["corruptions"]["noise"]
    assert found["auroc"]["unsureness"]["value"] == pytest.approx(area(np.arange(60)))
    bounds = np.quantile([area(rows) for rows in drawn_images(lesions)], [0.025, 0.975])
    entry = found["auroc"]["unsureness"]
    assert [entry["low"], entry["high"]] == pytest.approx(bounds.tolist())
    assert found["flagged"] == 1.0 and found["n"] == 60


def test_histogram_holds_every_picture_and_the_threshold(gate: ImageGate, test_part: Any, block: Any):
    histogram = block["histogram"]
    assert sum(histogram["lesions"]) == 60 and sum(histogram["not_skin"]) == COUNT
    assert histogram["threshold"] == gate.thresholds[UNLIKE] <= histogram["edges"][-1]
    wanted, _ = np.histogram(gate.score(test_part[0]), bins=histogram["edges"])
    assert histogram["lesions"] == wanted.tolist()


def test_block_is_json_and_says_what_it_is_not(block: Any):
    assert json.loads(json.dumps(block, allow_nan=False)) == block
    notes = " ".join(block["notes"])
    assert f"drawings from seed {SEED}" in notes and "energy" in notes and "akiec (n = 5)" in notes


def test_without_a_model_or_melanomas_those_parts_are_left_out(gate: ImageGate, test_part: Any):
    images, lesions, labels = test_part
    classes = ("akiec", "bcc", "df", "nv")
    block = ood_block(gate, images, lesions, labels, classes, probs_of=None, seed=1, count=3, samples=5)
    assert block["scores"] == ["gate"] and block["melanomas"] is None and block["corruptions"] == {}
    assert list(block["not_skin"]["kinds"]) == list(KINDS[:3])
    assert any("no baseline" in note for note in block["notes"])
    nothing = ood_block(gate, images, lesions, labels, classes, probs_of=None, seed=1, count=0, samples=5)
    undefined = {"value": None, "low": None, "high": None}
    assert nothing["not_skin"]["all"] == {
        "n": 0, "flagged_by_distance": None, "flagged": None, "auroc": {"gate": undefined},
    }  # fmt: skip


def test_parts_that_do_not_fit_are_refused(gate: ImageGate, test_part: Any):
    images, lesions, labels = test_part
    for arguments in (
        (images[:3], lesions, labels),
        (images, lesions[:3], labels),
        (images[:0], lesions[:0], labels[:0]),
    ):
        with pytest.raises(DataError, match="at least one image"):
            ood_block(gate, *arguments, CLASSES, probs_of=None, seed=1, count=1, samples=2)
    with pytest.raises(DataError, match="'dust' has 3 pictures of 60"):
        ood_block(
            gate, images, lesions, labels, CLASSES,
            probs_of=None, seed=1, count=1, samples=2, corrupted={"dust": images[:3]},
        )  # fmt: skip
