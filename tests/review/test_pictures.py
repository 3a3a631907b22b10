"""Pictures that go out: pixels and nothing else."""

import io

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from dermdistill.review.pictures import bare, coloured, heat_palette


def encoded(array: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    told = PngImagePlugin.PngInfo()
    told.add_text("Source", "centre_prior")
    told.add_itxt("Comment", "centre_prior", zip=True)
    Image.fromarray(array).save(buffer, "PNG", pnginfo=told, dpi=(72, 72), **options)
    return buffer.getvalue()


def decoded(png: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(png))
    image.load()
    return image


@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (300, 200)])
def test_picture_keeps_its_pixels_and_loses_all_else(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    png = encoded(pixels)
    assert b"tEXt" in png and decoded(png).info
    image = decoded(bare(png))
    assert np.array_equal(np.asarray(image), pixels)
    assert image.info == {} and b"tEXt" not in bare(png) and b"iTXt" not in bare(png) and b"pHYs" not in bare(png)


@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (300, 200)])
def test_map_gets_the_colours_of_matplotlib(shape: tuple[int, int]) -> None:
    grey = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    image = decoded(coloured(encoded(grey), heat_palette()))
    expected = mpl.colormaps["inferno"](grey, bytes=True)[..., :3]
    assert np.array_equal(np.asarray(image.convert("RGB")), expected)
    assert image.info == {}
