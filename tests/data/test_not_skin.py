"""Drawn pictures without skin: balanced, repeatable, unlike each other, and as their kind says."""

import colorsys

import numpy as np
import pytest

from dermdistill.data.not_skin import KINDS, not_skin
from dermdistill.errors import ConfigError

SEED = 3


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, list[str]]:
    return not_skin(4 * len(KINDS) + 3, 64, SEED)


def of(drawn: tuple[np.ndarray, list[str]], kind: str) -> np.ndarray:
    images, kinds = drawn
    return images[[name == kind for name in kinds]].astype(float)


def test_kinds_take_turns_and_are_balanced(drawn: tuple[np.ndarray, list[str]]):
    images, kinds = drawn
    assert images.shape == (len(kinds), 64, 64, 3) and images.dtype == np.uint8
    counts = [kinds.count(kind) for kind in KINDS]
    assert counts == [5, 5, 5] + [4] * (len(KINDS) - 3)


def test_a_picture_depends_on_seed_and_place_alone(drawn: tuple[np.ndarray, list[str]]):
    images, kinds = drawn
    fewer, names = not_skin(len(KINDS) + 2, 64, SEED)
    assert np.array_equal(fewer, images[: len(fewer)]) and names == kinds[: len(names)]
    other, _ = not_skin(len(KINDS), 64, SEED + 1)
    assert all((one != two).any() for one, two in zip(other, images, strict=False))


def test_no_two_pictures_are_alike(drawn: tuple[np.ndarray, list[str]]):
    images, _ = drawn
    assert len({image.tobytes() for image in images}) == len(images)


@pytest.mark.parametrize("size", [16, 33])
def test_every_kind_can_be_drawn_small(size: int):
    images, kinds = not_skin(len(KINDS), size, 0)
    assert images.shape == (len(KINDS), size, size, 3)
    assert kinds == list(KINDS)


def test_skin_coloured_kinds_have_hues_of_skin_and_others_have_any(drawn: tuple[np.ndarray, list[str]]):
    def hues(kinds: list[str]) -> list[float]:
        means = np.concatenate([of(drawn, kind).mean(axis=(1, 2)) for kind in kinds]) / 255
        return [(360 * colorsys.rgb_to_hsv(*mean)[0] + 60) % 360 for mean in means]

    skin = hues([kind for kind in KINDS if kind.startswith("skin_")])
    # Red to orange, seen from magenta: 60 is pure red.
    assert len(skin) == 24 and min(skin) > 15 and max(skin) < 105
    other = hues(["flat", "clouds", "stripes", "gradient"])
    assert min(other) < 60 or max(other) > 240
    assert max(other) - min(other) > 150


def test_flat_pictures_are_flat_and_noise_is_not(drawn: tuple[np.ndarray, list[str]]):
    def local(images: np.ndarray) -> float:
        return float(np.abs(np.diff(images, axis=1)).mean(axis=(1, 2, 3)).max())

    for kind in ("flat", "skin_flat", "gradient", "skin_gradient"):
        assert local(of(drawn, kind)) < 8, kind
    for kind in ("uniform_noise", "gaussian_noise", "salt_and_pepper"):
        assert np.abs(np.diff(of(drawn, kind), axis=1)).mean(axis=(1, 2, 3)).min() > 8, kind


def test_documents_are_dark_ink_on_bright_paper(drawn: tuple[np.ndarray, list[str]]):
    for kind in ("text", "table", "line_chart"):
        brightness = of(drawn, kind).mean(axis=3).reshape(-1, 64 * 64)
        assert (np.median(brightness, axis=1) > 130).all(), kind
        assert (brightness.min(axis=1) < np.median(brightness, axis=1) - 50).all(), kind


def test_some_pictures_are_photographed_and_some_are_not():
    flats = [image for image, kind in zip(*not_skin(12 * len(KINDS), 16, 5), strict=True) if kind == "flat"]
    clean = sum(len(np.unique(image.reshape(-1, 3), axis=0)) == 1 for image in flats)
    assert 2 <= clean <= 10


def test_no_pictures_can_be_asked_for_and_nonsense_cannot():
    images, kinds = not_skin(0, 32, 0)
    assert images.shape == (0, 32, 32, 3) and kinds == []
    for arguments in ((-1, 32, 0), (1, 15, 0), (1, 32, -1)):
        with pytest.raises(ConfigError, match="at least 16"):
            not_skin(*arguments)
