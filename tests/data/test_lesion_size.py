"""The share of a picture that its lesion fills, counted by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dermdistill.data.lesion_size import lesion_sizes, read_mask, size_band
from dermdistill.errors import DataError


def write_mask(path: Path, lit: int, mode: str = "1") -> str:
    """A mask of 10 x 20 pixels, the first of which are lit."""
    pixels = np.zeros(200, dtype=np.uint8)
    pixels[:lit] = 255
    Image.fromarray(pixels.reshape(10, 20)).convert(mode).save(path)
    return str(path)


@pytest.mark.parametrize(
    ("share", "band"),
    [
        (0.001, "below 10%"),
        (0.0999, "below 10%"),
        (0.1, "10% to 30%"),
        (0.2999, "10% to 30%"),
        (0.3, "30% and more"),
        (1.0, "30% and more"),
    ],
)
def test_size_band_lower_bound_belongs_to_it(share: float, band: str) -> None:
    assert size_band(share) == band


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, float("nan")])
def test_size_band_of_no_share_is_refused(share: float) -> None:
    with pytest.raises(DataError, match="share lies in"):
        size_band(share)


def test_lesion_sizes_count_lit_pixels(tmp_path: Path) -> None:
    masks = [write_mask(tmp_path / "a.png", 19), write_mask(tmp_path / "b.png", 50, "RGB")]
    masks += [write_mask(tmp_path / "c.png", 200, "L")]
    found = lesion_sizes(pd.DataFrame({"image_id": ["a", "b", "c"], "mask_path": masks}))
    assert found["image_id"].tolist() == ["a", "b", "c"]
    assert found["share"].tolist() == [0.095, 0.25, 1.0]
    assert found["band"].tolist() == ["below 10%", "10% to 30%", "30% and more"]
    assert (found["reason"] == "").all()


def test_lesion_sizes_without_a_sound_mask_say_why(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    masks = [None, write_mask(tmp_path / "empty.png", 0), str(tmp_path / "text.png"), str(tmp_path / "gone.png")]
    found = lesion_sizes(pd.DataFrame({"image_id": list("abcd"), "mask_path": masks}))
    assert found["share"].isna().all()
    assert (found["band"] == "unknown").all()
    reasons = found["reason"].tolist()
    assert reasons[:2] == ["no mask", "the mask is empty"]
    assert all(reason.startswith("the mask cannot be read: ") for reason in reasons[2:])


def test_read_mask_counts_half_lit_pixels_as_lesion(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 127, 128, 255]], dtype=np.uint8)).save(tmp_path / "grey.png")
    assert read_mask(tmp_path / "grey.png").tolist() == [[False, False, True, True]]
