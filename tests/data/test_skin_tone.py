"""Colour against published CIELAB values, the rules on pictures that are mostly what they leave out."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dermdistill.data import skin_tone as tone
from dermdistill.data.readers import read_catalog
from dermdistill.errors import DataError

SKIN = (214, 170, 140)
# sRGB primaries under D65, as published by Lindbloom (CIE colour calculator) to two digits.
PUBLISHED = {
    (255, 0, 0): (53.24, 80.09, 67.20),
    (0, 255, 0): (87.73, -86.18, 83.18),
    (0, 0, 255): (32.30, 79.19, -107.86),
    (255, 255, 0): (97.14, -21.55, 94.48),
    (0, 255, 255): (91.11, -48.09, -14.13),
    (255, 0, 255): (60.32, 98.23, -60.82),
    (255, 255, 255): (100.0, 0.0, 0.0),
    (0, 0, 0): (0.0, 0.0, 0.0),
    (119, 119, 119): (50.03, 0.0, 0.0),
    (51, 51, 51): (21.25, 0.0, 0.0),
    (8, 8, 8): (2.19, 0.0, 0.0),
}


def picture(height: int = 150, width: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Skin with a little texture and a dark round lesion in its middle, and the lesion's mask."""
    rng = np.random.default_rng(seed)
    image = np.array(SKIN) + rng.normal(0, 3, (height, width, 1))
    y, x = np.ogrid[:height, :width]
    mask = np.hypot(y - height / 2, x - width / 2) < 0.2 * height
    image[mask] = (90, 50, 40)
    return image.clip(0, 255).astype(np.uint8), mask


def plain_angle(colour: tuple[int, int, int]) -> float:
    lightness, _, yellow = tone.lab(np.array(colour, dtype=np.uint8))
    return math.degrees(math.atan((lightness - 50) / yellow))


@pytest.mark.parametrize(("colour", "published"), PUBLISHED.items())
def test_lab_is_as_published(colour: tuple[int, int, int], published: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(tone.lab(np.array(colour, dtype=np.uint8)), published, atol=0.03)


def test_lab_is_that_of_scikit_image() -> None:
    oracle = pytest.importorskip("skimage.color")
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    np.testing.assert_allclose(tone.lab(pixels), oracle.rgb2lab(pixels), atol=0.02)


@given(lightness=st.floats(0, 100), yellow=st.floats(0.01, 60))
def test_typology_angle_is_the_arctangent_where_skin_is_yellow(lightness: float, yellow: float) -> None:
    expected = math.degrees(math.atan((lightness - 50) / yellow))
    assert tone.typology_angle(lightness, yellow) == pytest.approx(expected, abs=1e-9)


def test_typology_angle_of_skin_without_yellow_is_a_right_angle() -> None:
    assert tone.typology_angle(70.0, 0.0) == pytest.approx(90.0)


@pytest.mark.parametrize(
    ("angle", "band"),
    [
        (55.1, "very light"),
        (55.0, "light"),
        (41.1, "light"),
        (41.0, "intermediate"),
        (28.0, "tan"),
        (10.0, "brown"),
        (-29.9, "brown"),
        (-30.0, "dark"),
        (-90.0, "dark"),
    ],
)
def test_tone_band_is_that_of_del_bino(angle: float, band: str) -> None:
    assert tone.tone_band(angle) == band


def test_tone_band_of_nan_is_refused() -> None:
    with pytest.raises(DataError, match="NaN"):
        tone.tone_band(math.nan)


@pytest.mark.parametrize(("height", "width"), [(75, 100), (150, 200), (450, 600), (601, 433)])
def test_skin_tone_is_that_of_the_skin_at_any_size(height: int, width: int) -> None:
    found = tone.skin_tone(*picture(height, width))
    assert found.ita == pytest.approx(plain_angle(SKIN), abs=2.0)
    assert (found.band, found.reason) == (tone.tone_band(found.ita), "")


def test_skin_tone_of_a_large_picture_is_of_all_of_it() -> None:
    image, mask = picture(450, 600)
    image[:, :200] = (230, 200, 190)
    assert tone.skin_tone(image, mask).ita == pytest.approx(plain_angle(SKIN), abs=2.0)


@pytest.mark.parametrize("colour", [(0, 0, 0), (39, 39, 39), (255, 255, 255), (250, 200, 180)])
def test_black_and_glaring_pixels_do_not_count_even_where_they_prevail(colour: tuple[int, int, int]) -> None:
    image, mask = picture()
    image[45:] = colour
    assert tone.skin_tone(image, mask).ita == pytest.approx(plain_angle(SKIN), abs=2.0)


def test_skin_near_the_lesion_does_not_count() -> None:
    """A red rim of the margin's width is most of what a wide mask leaves."""
    image, mask = picture()
    mask[:] = False
    mask[:, 20:180] = True
    image[:, 12:188] = (200, 90, 90)
    found = tone.skin_lab(image, mask)
    assert len(found)
    assert found[:, 1].max() < 25 < tone.lab(np.array((200, 90, 90), dtype=np.uint8))[1]


def test_dark_corners_do_not_count() -> None:
    """Corners too light for the rule of black pixels; a large lesion makes them most of the rest."""
    image, mask = picture()
    y, x = np.ogrid[:150, :200]
    distance = np.hypot(y - 74.5, x - 99.5) / 125
    mask = (distance < 0.7) & (np.abs(y - 74.5) < 60)
    image[distance > 0.8] = (70, 60, 60)
    found = tone.skin_lab(image, mask)
    assert len(found) > 20
    assert found[:, 0].min() > 60


def test_hair_and_ink_do_not_count() -> None:
    image, mask = picture()
    image[:, ::7] = (60, 45, 40)
    image[:30, 60:140] = (90, 70, 160)
    found = tone.skin_lab(image, mask)
    hair, ink = tone.lab(np.array([(60, 45, 40), (90, 70, 160)], dtype=np.uint8))
    assert len(found) > 1000
    assert found[:, 0].min() > hair[0] + 20
    assert found[:, 2].min() > ink[2] + 20


def test_skin_tone_without_skin_is_unknown() -> None:
    image, mask = picture()
    found = tone.skin_tone(image, np.ones_like(mask))
    assert math.isnan(found.ita)
    assert (found.band, found.reason) == ("unknown", "fewer than 150 usable pixels of skin")


def test_skin_tone_of_a_blue_cast_is_unknown_and_not_dark() -> None:
    image, mask = picture()
    cast = image[..., ::-1].copy()
    assert np.median(tone.skin_lab(cast, mask)[:, 2]) < 0
    found = tone.skin_tone(cast, mask)
    assert found.band == "unknown"
    assert "colour cast" in found.reason


def test_skin_tone_of_another_size_of_mask_is_refused() -> None:
    image, mask = picture()
    with pytest.raises(DataError, match="mask"):
        tone.skin_tone(image, mask[:-1])


def test_skin_tones_say_why_they_are_unknown(tmp_path: Path) -> None:
    image, mask = picture()
    Image.fromarray(image).save(tmp_path / "image.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(mask[:-1]).save(tmp_path / "small.png")
    path, masks = str(tmp_path / "image.png"), [str(tmp_path / "mask.png"), None, str(tmp_path / "small.png")]
    rows = pd.DataFrame({"image_id": list("abcd"), "path": [path, path, path, None], "mask_path": [*masks, masks[0]]})
    found = tone.skin_tones(rows)
    assert list(found.columns) == ["image_id", "ita", "band", "reason"]
    assert found["image_id"].tolist() == list("abcd")
    assert found["ita"][0] == pytest.approx(plain_angle(SKIN), abs=2.0)
    assert found["ita"][1:].isna().all()
    assert found["band"].tolist() == [tone.tone_band(found["ita"][0]), "unknown", "unknown", "unknown"]
    assert found["reason"].tolist()[:2] == ["", "no mask"]
    assert found["reason"][2].startswith("image or mask cannot be used: ")
    assert found["reason"][3] == "no image"


@pytest.mark.real
def test_skin_tones_of_real_images_are_angles_of_light_skin_or_casts(ham10000: Path) -> None:
    catalog = read_catalog(ham10000, check_images=False)
    found = tone.skin_tones(catalog.iloc[:: len(catalog) // 100])
    known = found[found["band"] != "unknown"]
    assert 0.3 < len(known) / len(found) < 0.95
    assert known["ita"].between(-90, 90).all()
    assert 41 < known["ita"].median() < 90
