"""The gate: distance against scikit-learn, thresholds, reasons, and the form that travels in a manifest."""

import copy
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter
from sklearn.covariance import LedoitWolf, ledoit_wolf

from dermdistill.bundle import image_gate
from dermdistill.bundle.image_gate import BELOW, REASONS, UNLIKE, ImageGate, fit_gate, fit_statistics, shrunk_covariance
from dermdistill.bundle.image_statistics import NAMES, statistics
from dermdistill.data.synthetic_skin import expose, skin_field, skin_tone
from dermdistill.errors import BundleError, DataError

SIZE = 48


def lesions(count: int, seed: int) -> np.ndarray:
    """Skin with a dark spot about the middle, in focus."""
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    for place in range(count):
        rng = np.random.default_rng((seed, place))
        far = np.hypot(x - rng.normal(0, 0.1), (y - rng.normal(0, 0.1)) * rng.uniform(0.8, 1.2))
        spot = 1 / (1 + np.exp((far - rng.uniform(0.3, 0.6)) / 0.05))
        scene = skin_field(rng, (SIZE, SIZE), skin_tone(rng))
        scene *= 1 - rng.uniform(0.3, 0.6) * spot[:, :, None] * np.float32([0.8, 1.0, 1.1])
        images[place] = np.asarray(expose(rng, scene, blur=False))
    return images


@pytest.fixture(scope="module")
def train() -> np.ndarray:
    return lesions(160, 1)


@pytest.fixture(scope="module")
def val() -> np.ndarray:
    return lesions(120, 2)


@pytest.fixture(scope="module")
def gate(train: np.ndarray, val: np.ndarray) -> ImageGate:
    return fit_gate(train, val)


def test_shrunk_covariance_equals_scikit_learn():
    rng = np.random.default_rng(0)
    for rows, columns in ((5, 12), (40, 12), (500, 3), (300, 29)):
        values = rng.normal(2, 1, (rows, columns)) @ rng.normal(0, 1, (columns, columns))
        np.testing.assert_allclose(shrunk_covariance(values), ledoit_wolf(values)[0], rtol=1e-9)


def test_score_equals_the_distance_of_scikit_learn(gate: ImageGate, train: np.ndarray, val: np.ndarray):
    def standardised(images: np.ndarray) -> np.ndarray:
        z = (statistics(images) - np.array(gate.centre)) / np.array(gate.scale)
        return np.clip(z, -image_gate.CLIP, image_gate.CLIP)

    fitted = LedoitWolf().fit(standardised(train))
    np.testing.assert_allclose(gate.score(val), np.sqrt(fitted.mahalanobis(standardised(val))), rtol=2e-3)


def test_centre_and_scale_are_the_median_and_the_quartiles(gate: ImageGate, train: np.ndarray):
    values = statistics(train)
    place = NAMES.index("luminance")
    low, median, high = np.percentile(values[:, place], (25, 50, 75))
    assert gate.centre[place] == pytest.approx(median, rel=1e-8)
    assert gate.scale[place] == pytest.approx((high - low) / 1.349, rel=1e-8)


@pytest.mark.parametrize("share", [0.02, 0.1])
def test_no_reason_refuses_more_validation_pictures_than_its_share(train: np.ndarray, val: np.ndarray, share: float):
    gate = fit_gate(train, val, quantile=1 - share, quality_share=share)
    flags = gate.flags(gate.measures(val))
    for reason in REASONS:
        assert share - 1.001 / len(val) <= flags[reason].mean() <= share, reason


def test_good_pictures_pass_and_damaged_ones_are_told_why(gate: ImageGate):
    clean = lesions(60, 3)
    soft = np.stack([np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(2))) for image in clean])
    grey = clean.mean(axis=(1, 2), keepdims=True)
    damaged = {
        "blurred": soft,
        "too_dark": clean * 0.3,
        "too_bright": 255 - (255 - clean.astype(float)) * 0.15,
        "colour_cast": clean * np.array([0.6, 0.9, 1.3]),
        "no_lesion": grey + 0.03 * (clean - grey),
        UNLIKE: np.random.default_rng(0).integers(0, 256, clean.shape),
    }
    good = [not reasons for reasons in gate.check(clean)]
    assert np.mean(good) > 0.8
    for reason, images in damaged.items():
        found = gate.check(images.clip(0, 255).astype(np.uint8))
        assert np.mean([reason in reasons for reasons in found]) > 0.9, reason
        assert all(list(reasons) == [name for name in REASONS if name in reasons] for reasons in found)


def test_a_picture_that_is_only_dark_is_not_called_blurred(gate: ImageGate):
    dark = (lesions(40, 4) * 0.4).astype(np.uint8)
    found = gate.check(dark)
    assert np.mean(["too_dark" in reasons for reasons in found]) > 0.9
    assert np.mean(["blurred" in reasons or "no_lesion" in reasons for reasons in found]) < 0.1


def test_check_tells_the_distance_beyond_its_threshold(gate: ImageGate):
    images = np.concatenate([lesions(30, 5), np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)])
    beyond = gate.score(images) > gate.thresholds[UNLIKE]
    assert 5 <= beyond.sum() < 20
    assert [UNLIKE in reasons for reasons in gate.check(images)] == beyond.tolist()


def test_fitting_twice_gives_the_same_gate(gate: ImageGate, train: np.ndarray, val: np.ndarray):
    assert fit_gate(train, val) == gate
    assert fit_statistics(statistics(train), statistics(val), size=SIZE) == gate
    # The distance belongs to the training pictures, not to their order.
    assert fit_gate(train[::-1], val).thresholds[UNLIKE] == pytest.approx(gate.thresholds[UNLIKE], rel=1e-5)


def test_pictures_of_one_name_count_once(train: np.ndarray, val: np.ndarray):
    names = [f"ISIC_{number}" for number in range(len(val))]
    repeated = fit_gate(train, np.concatenate([val, val[:40]]), val_names=names + names[:40])
    assert repeated == fit_gate(train, val, val_names=names) == fit_gate(train, val)
    assert fit_gate(train, np.concatenate([val, val[:40]])).images["validation"] == len(val) + 40
    with pytest.raises(DataError, match="one name each"):
        fit_gate(train, val, val_names=names[:-1])


def test_json_gives_back_an_equal_gate_and_is_small(gate: ImageGate, val: np.ndarray):
    text = json.dumps(gate.to_dict(), allow_nan=False)
    assert len(text) < 15_000
    assert len(json.dumps(gate.to_dict(), indent=2)) < 15_000
    back = ImageGate.from_dict(json.loads(text))
    assert back == gate
    assert np.array_equal(back.score(val), gate.score(val))
    assert back.check(val) == gate.check(val)


def test_a_gate_refuses_pictures_of_another_size(gate: ImageGate):
    with pytest.raises(DataError, match="48, 48"):
        gate.check(np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(DataError):
        gate.score(np.zeros((1, SIZE, SIZE, 3)))
    assert gate.check(np.zeros((0, SIZE, SIZE, 3), np.uint8)) == []


def test_too_few_pictures_or_shares_outside_0_and_1_are_refused(train: np.ndarray, val: np.ndarray):
    for arguments in ((train[:1], val), (train, val[:0]), (train, val[:, :32, :32])):
        with pytest.raises(DataError):
            fit_gate(*arguments)
    for shares in ({"quantile": 1.0}, {"quality_share": 0.0}):
        with pytest.raises(DataError, match="lie in"):
            fit_gate(train, val, **shares)


def test_pictures_that_are_all_alike_still_give_a_gate():
    gate = fit_gate(np.full((5, 32, 32, 3), 90, np.uint8), np.full((2, 32, 32, 3), 90, np.uint8))
    assert gate.check(np.full((1, 32, 32, 3), 90, np.uint8)) == [()]
    assert ImageGate.from_dict(json.loads(json.dumps(gate.to_dict()))) == gate


def _set(values: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    inner = copy.copy(values)
    inner[path[0]] = _set(values[path[0]], path[1:], value)
    return inner


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((), None),
        ((), []),
        (("size",), 48.0),
        (("size",), True),
        (("size",), 8),
        (("images",), {"train": 5}),
        (("images", "train"), 0),
        (("images", "train"), 2.5),
        (("quantile",), 1.0),
        (("quality_share",), "0.003"),
        (("statistics", 0), "brightness"),
        (("centre", 3), float("nan")),
        (("centre", 3), None),
        (("centre",), [0.0]),
        (("scale", 2), 0.0),
        (("scale", 2), float("inf")),
        (("mean",), "0"),
        (("whitening", 4), [1.0, 2.0]),
        (("whitening", 4, 4), -1.0),
        (("whitening", 4, 0), True),
        (("whitening",), [[1.0]]),
        (("cast_mean",), [0.0, 0.0, 0.0]),
        (("cast_whitening", 1), [0.0, 0.0]),
        (("thresholds",), {}),
        (("thresholds", "blurred"), None),
    ],
)
def test_nonsense_is_refused(gate: ImageGate, path: tuple[Any, ...], value: Any):
    with pytest.raises(BundleError, match="image gate cannot be used"):
        ImageGate.from_dict(_set(gate.to_dict(), path, value))


def test_a_missing_or_unknown_key_is_refused(gate: ImageGate):
    values = gate.to_dict()
    with pytest.raises(BundleError):
        ImageGate.from_dict({**values, "more": 1})
    for name in values:
        with pytest.raises(BundleError):
            ImageGate.from_dict({key: value for key, value in values.items() if key != name})


def test_every_reason_has_a_side():
    assert set(REASONS) > BELOW and REASONS[-1] == UNLIKE
