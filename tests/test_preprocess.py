"""The one way from an image to an input, against Pillow and a plain normalisation in double precision."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dermdistill.errors import ConfigError
from dermdistill.preprocess import PreprocessSpec, normalise, resize_image

sides = st.integers(1, 70)
specs = st.builds(
    PreprocessSpec,
    size=st.integers(1, 40),
    resize=st.sampled_from(["squash", "crop"]),
    mean=st.tuples(*[st.floats(0, 1)] * 3),
    std=st.tuples(*[st.floats(0.01, 2)] * 3),
)


def noise(height: int, width: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(deadline=None, max_examples=60)
@given(sides, sides, st.integers(1, 40))
def test_squash_is_pillows_bilinear_resize(height: int, width: int, size: int) -> None:
    image = noise(height, width)
    wanted = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    found = resize_image(image, PreprocessSpec(size))
    assert found.dtype == np.uint8 and np.array_equal(found, np.asarray(wanted))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 20))
def test_crop_of_a_square_is_squash(side: int, size: int, seed: int) -> None:
    image = noise(side, side, seed)
    crop, squash = (resize_image(image, PreprocessSpec(size, mode)) for mode in ("crop", "squash"))
    assert np.array_equal(crop, squash)


@settings(deadline=None, max_examples=60)
@given(st.integers(8, 40), st.integers(1, 40), st.booleans())
def test_crop_sees_the_centre_alone(side: int, size: int, tall: bool) -> None:
    """Bands farther from the centre square than the filter reaches do not matter; the square itself does."""
    reach = int(np.ceil(max(1.0, side / size))) + 1
    image = noise(side, 3 * side + 2 * reach)
    other = image.copy()
    other[:, :side] = 255 - other[:, :side]
    other[:, -side:] = 255 - other[:, -side:]
    centre = image.copy()
    centre[:, side + reach : 2 * side + reach] ^= 128
    found = [
        resize_image(picture.transpose(1, 0, 2).copy() if tall else picture, PreprocessSpec(size, "crop"))
        for picture in (image, other, centre)
    ]
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])


def test_crop_keeps_the_shape_that_squash_flattens() -> None:
    """A disc in the middle of a wide picture stays as wide as high."""
    y, x = np.mgrid[:60, :120]
    disc = ((y - 29.5) ** 2 + (x - 59.5) ** 2 < 20**2)[..., None].repeat(3, axis=2).astype(np.uint8) * 255
    widths = {}
    for mode in ("crop", "squash"):
        found = resize_image(disc, PreprocessSpec(60, mode))[..., 0] > 127  # type: ignore[arg-type]
        widths[mode] = (int(found.any(axis=0).sum()), int(found.any(axis=1).sum()))
    assert widths == {"crop": (40, 40), "squash": (20, 40)}


@settings(deadline=None, max_examples=40)
@given(specs, st.integers(1, 3))
def test_normalise_is_the_textbook_formula(spec: PreprocessSpec, count: int) -> None:
    images = np.stack([noise(spec.size, spec.size, seed) for seed in range(count)])
    found = normalise(images, spec)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    assert found.shape == (count, 3, spec.size, spec.size)
    for channel in range(3):
        wanted = (images[..., channel] / 255.0 - spec.mean[channel]) / spec.std[channel]
        np.testing.assert_allclose(found[:, channel], wanted, rtol=1e-5, atol=1e-5 / spec.std[channel])


def test_normalise_leaves_its_input_alone() -> None:
    images = noise(4, 4)[None]
    before = images.copy()
    normalise(images, PreprocessSpec(4))
    assert np.array_equal(images, before)


@settings(deadline=None, max_examples=40)
@given(specs)
def test_spec_survives_json(spec: PreprocessSpec) -> None:
    assert PreprocessSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((1, 8, 8, 3), np.uint8),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint16),
    ],
)
def test_other_arrays_are_refused_with_shape_and_type(image: Any) -> None:
    with pytest.raises(ConfigError, match="uint8 \\[H, W, 3\\]") as caught:
        resize_image(image, PreprocessSpec(4))
    assert str(image.dtype) in caught.value.problem and str(list(image.shape)) in caught.value.problem
