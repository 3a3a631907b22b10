"""Corruptions against scipy, Pillow and plain arithmetic; what their draws depend on, by hypothesis."""

import io

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from dermdistill.data.corruptions import (
    CORRUPTIONS,
    LUMA,
    SEVERITIES,
    corrupt,
    corrupt_all,
    picture_key,
    random_artefact,
)
from dermdistill.errors import ConfigError, DataError

Picture = npt.NDArray[np.uint8]
# Kinds without chance: the picture and the severity alone decide.
CERTAIN = ("blur", "jpeg", "contrast", "zoom", "pixelation")


def lesion(size: int, seed: int = 0) -> Picture:
    """A brown blob with texture on pink skin."""
    rng = np.random.default_rng(seed)
    y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    inside = (np.hypot(x, y) < 0.28)[:, :, None] * np.array([-70.0, -80.0, -70.0])
    texture = ndimage.gaussian_filter(rng.normal(size=(size, size, 3)), (size / 60, size / 60, 0)) * size / 4
    return np.asarray(np.clip(np.array([205.0, 160.0, 140.0]) + inside + texture, 0, 255), dtype=np.uint8)


def grey(size: int, level: int = 128) -> Picture:
    return np.full((size, size, 3), level, dtype=np.uint8)


# Draws


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(list(CORRUPTIONS)),
    severity=st.sampled_from(SEVERITIES),
    size=st.sampled_from([16, 64, 77, 128]),
    key=st.lists(st.integers(0, 2**40), min_size=1, max_size=3),
)
def test_a_corruption_is_a_pure_function_of_picture_kind_severity_and_key(
    kind: str, severity: int, size: int, key: list[int]
) -> None:
    picture = lesion(size)
    before = picture.copy()
    once = corrupt(picture, kind, severity, key)
    assert once.dtype == np.uint8
    assert once.shape == picture.shape
    np.testing.assert_array_equal(picture, before)
    np.testing.assert_array_equal(once, corrupt(picture, kind, severity, key))


@pytest.mark.parametrize("kind", list(CORRUPTIONS))
def test_every_kind_has_five_severities_each_further_from_the_clean_picture(kind: str) -> None:
    assert len(CORRUPTIONS[kind].strengths) == 5
    picture = lesion(96)
    distances = [
        np.mean([np.abs(corrupt(picture, kind, severity, (key,)).astype(int) - picture).mean() for key in range(8)])
        for severity in SEVERITIES
    ]
    assert distances[0] > 0
    assert np.all(np.diff(distances) > 0)


@pytest.mark.parametrize("kind", list(CORRUPTIONS))
def test_seed_and_image_each_change_the_draw_of_a_kind_with_chance(kind: str) -> None:
    picture = lesion(64)
    for keys in ([picture_key(seed, "a") for seed in range(8)], [picture_key(0, image) for image in "abcdefgh"]):
        different = len({corrupt(picture, kind, 4, key).tobytes() for key in keys})
        # Brightness goes up or down, and no more.
        assert different == (1 if kind in CERTAIN else 2 if kind == "brightness" else 8)


def test_a_key_holds_the_seed_and_numbers_of_32_bits() -> None:
    assert len({picture_key(seed, image) for seed in range(3) for image in ("x", "y", "")}) == 9
    assert picture_key(7, "x")[0] == 7
    assert all(0 <= word < 2**32 for word in picture_key(7, "x"))


@pytest.mark.parametrize("kind", ["noise", "hair", "jpeg"])
def test_many_pictures_at_once_are_what_each_is_alone(kind: str) -> None:
    pictures = np.stack([lesion(64, seed) for seed in range(6)])
    keys = [picture_key(0, str(number)) for number in range(6)]
    together = corrupt_all(pictures, kind, 3, keys)
    alone = [corrupt(picture, kind, 3, key) for picture, key in zip(pictures, keys, strict=True)]
    np.testing.assert_array_equal(together, np.stack(alone))


def test_a_random_artefact_is_every_kind_at_times_and_follows_from_its_key() -> None:
    picture = lesion(32)
    artefacts = [name for name, kind in CORRUPTIONS.items() if kind.group == "artefact"]
    seen = set()
    for key in range(24):
        drawn = random_artefact(picture, key)
        np.testing.assert_array_equal(drawn, random_artefact(picture, key))
        seen |= {
            (name, severity)
            for name in artefacts
            for severity in SEVERITIES
            if np.array_equal(corrupt(picture, name, severity, (key,)), drawn)
        }
    assert {name for name, _ in seen} == set(artefacts)
    assert {severity for _, severity in seen} == set(SEVERITIES)


# What each does


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("size", [96, 224])
def test_blur_is_a_gaussian_whose_width_is_a_share_of_the_side(size: int, severity: int) -> None:
    picture = lesion(size)
    sigma = (1, 2, 3, 4, 6)[severity - 1] * size / 224
    wanted = ndimage.gaussian_filter(picture.astype(float), (sigma, sigma, 0), mode="nearest")
    # Pillow's is made of three box filters.
    assert np.abs(corrupt(picture, "blur", severity, (0,)) - wanted).mean() < 1.0


@pytest.mark.parametrize(("size", "severity"), [(224, 1), (224, 3), (112, 3), (64, 4)])
def test_noise_is_gaussian_and_falls_with_the_side(size: int, severity: int) -> None:
    change = corrupt(grey(size), "noise", severity, (size,)).astype(float) - 128
    wanted = 255 * CORRUPTIONS["noise"].strengths[severity - 1] * size / 224
    assert change.std() == pytest.approx(wanted, rel=0.02)
    assert abs(change.mean()) < 5 * wanted / np.sqrt(change.size) + 0.01
    assert abs(np.corrcoef(change[:, :, 0].ravel(), change[:, :, 1].ravel())[0, 1]) < 0.04


def test_jpeg_is_that_of_pillow_at_224_pixels() -> None:
    picture = lesion(224)
    for severity, quality in zip(SEVERITIES, (25, 18, 15, 10, 7), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
        np.testing.assert_array_equal(corrupt(picture, "jpeg", severity, (0,)), np.asarray(Image.open(buffer)))


def test_brightness_is_a_factor_of_two_to_the_stops_both_ways() -> None:
    picture, stops = lesion(64), (0.15, 0.3, 0.45, 0.6, 0.75)
    for severity in SEVERITIES:
        factors = set()
        for key in range(8):
            found = corrupt(picture, "brightness", severity, (key,)).astype(float)
            up = found.mean() > picture.mean()
            factor = 2 ** (stops[severity - 1] * (1 if up else -1))
            assert np.abs(found - np.minimum(picture * factor, 255)).max() <= 0.5 + 1e-6
            factors.add(up)
        assert factors == {True, False}


def test_contrast_keeps_means_and_scales_deviations() -> None:
    picture = lesion(96)
    for severity, share in zip(SEVERITIES, (0.75, 0.5, 0.4, 0.3, 0.15), strict=True):
        found = corrupt(picture, "contrast", severity, (0,)).astype(float)
        np.testing.assert_allclose(found.mean(axis=(0, 1)), picture.mean(axis=(0, 1)), atol=0.3)
        np.testing.assert_allclose(found.std(axis=(0, 1)), share * picture.std(axis=(0, 1)), rtol=0.02)


def test_a_colour_cast_keeps_the_luma_of_greys_and_turns_to_every_hue() -> None:
    casts = np.array([corrupt(grey(16), "colour_cast", 5, (key,))[0, 0] for key in range(60)], dtype=float)
    assert np.abs(casts @ LUMA - 128).max() < 1
    strength = np.log2(casts.max(axis=1) / casts.min(axis=1))
    # Three cosines at 120 degrees span 1.5 to sqrt(3) of their amplitude, here 0.3 stops.
    assert 0.43 < strength.min() < strength.max() < 0.54
    assert set(casts.argmax(axis=1)) == {0, 1, 2}


@pytest.mark.parametrize("severity", SEVERITIES)
def test_zoom_enlarges_about_the_centre(severity: int) -> None:
    factor = (1.15, 1.3, 1.5, 1.75, 2.0)[severity - 1]
    x = np.arange(120, dtype=np.uint8) * 2
    ramp = np.broadcast_to(x[None, :, None], (120, 120, 3)).copy()
    found = corrupt(ramp, "zoom", severity, (0,)).astype(float)
    wanted = 2 * ((np.arange(120) + 0.5 - 60) / factor + 60 - 0.5)
    np.testing.assert_allclose(found[10:-10, 10:-10, 1], np.broadcast_to(wanted[10:-10], (100, 100)), atol=0.6)


def test_pixelation_shows_means_of_square_blocks() -> None:
    picture = lesion(160)
    found = corrupt(picture, "pixelation", 1, (0,))
    # Pillow rounds after each direction.
    means = picture.reshape(80, 2, 80, 2, 3).mean(axis=(1, 3))
    assert np.abs(found.astype(float) - means.repeat(2, axis=0).repeat(2, axis=1)).max() <= 1.0
    # As many blocks at every size, but never more than seven for eight pixels.
    steps = [np.diff(corrupt(lesion(size), "pixelation", 5, (0,))[:, :, 0].astype(int), axis=1) for size in (64, 224)]
    assert [int((step != 0).any(axis=0).sum()) for step in steps] == [25, 25]
    assert np.diff(corrupt(lesion(32), "pixelation", 1, (0,))[:, :, 0].astype(int)).any(axis=0).sum() == 27


# What is refused


def test_unknown_kinds_severities_and_pictures_are_refused() -> None:
    with pytest.raises(ConfigError, match="rain"):
        corrupt(lesion(32), "rain", 1, (0,))
    for severity in (0, 6):
        with pytest.raises(ConfigError, match="severity"):
            corrupt(lesion(32), "blur", severity, (0,))
    for picture in (np.zeros((8, 8, 3), np.float32), np.zeros((8, 9, 3), np.uint8), np.zeros((8, 8), np.uint8)):
        with pytest.raises(DataError, match="uint8"):
            corrupt(picture, "blur", 1, (0,))  # type: ignore[arg-type]
