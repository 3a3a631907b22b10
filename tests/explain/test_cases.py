import numpy as np
import pytest
import torch
from torch import Tensor

from dermdistill.errors import ConfigError, DataError
from dermdistill.explain.cases import Shown, make_cases
from dermdistill.explain.composites import Composite, move_lesion
from dermdistill.explain.localisation import mask_at
from dermdistill.preprocess import PreprocessSpec, normalise, resize_image

SPEC = PreprocessSpec(32, mean=(0, 0, 0), std=(1, 1, 1))


def _picture(y: int, x: int, radius: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[:60, :80]
    mask = np.hypot(rows - y, columns - x) <= radius
    return np.where(mask[..., None], np.uint8([90, 40, 40]), np.uint8([220, 170, 150])), mask


def _top_or_bottom(images: Tensor) -> Tensor:
    """Class 0 where the upper half is the darker one, else class 1."""
    upper, lower = images[:, :, :16].mean(dim=(1, 2, 3)), images[:, :, 16:].mean(dim=(1, 2, 3))
    return torch.stack([lower, upper], dim=1)


def test_cases_are_pictures_masks_and_classes_at_the_models_size() -> None:
    given = [_picture(20, 40, 9), _picture(40, 40, 28), _picture(40, 40, 9)]
    pictures, masks = [one[0] for one in given], [one[1] for one in given]
    cases = make_cases(pictures, masks, SPEC, _top_or_bottom, seed=4)
    assert cases.plain.classes.tolist() == [0, 1, 1]
    wanted = normalise(np.stack([resize_image(picture, SPEC) for picture in pictures]), SPEC)
    assert np.array_equal(cases.plain.images.numpy(), wanted)
    assert np.array_equal(cases.plain.masks, np.stack([mask_at(mask, SPEC) for mask in masks]))
    assert cases.moved_rows.tolist() == [0, 2]
    assert sum(cases.refused.values()) == 1


def test_moved_lesions_have_their_own_mask_and_class() -> None:
    pictures, masks = zip(*(_picture(20, 40, 9) for _ in range(8)), strict=True)
    cases = make_cases(pictures, masks, SPEC, _top_or_bottom, seed=4)
    assert cases.plain.classes.tolist() == [0] * 8 and cases.moved.classes.unique().tolist() == [0, 1]
    for row in range(8):
        found = move_lesion(pictures[row], masks[row], seed=4 + row)
        assert isinstance(found, Composite)
        assert np.array_equal(cases.moved.masks[row], mask_at(found.mask, SPEC))
        pixels = normalise(resize_image(found.image, SPEC)[None], SPEC)[0]
        assert np.array_equal(cases.moved.images[row].numpy(), pixels)


def test_picture_without_a_mask_is_kept_and_not_moved() -> None:
    picture, mask = _picture(30, 40, 28)
    cases = make_cases([picture, picture], [None, mask], SPEC, _top_or_bottom, seed=0)
    assert len(cases.plain) == 2 and not cases.plain.masks[0].any()
    assert len(cases.moved) == 0 and cases.moved.images.shape == (0, 3, 32, 32)
    assert cases.moved.masks.shape == (0, 32, 32)
    assert cases.refused["there is no mask"] == 1 and sum(cases.refused.values()) == 2


def test_some_are_those_of_the_rows() -> None:
    given = [_picture(20, 40, 9), _picture(40, 40, 9)]
    plain = make_cases([one[0] for one in given], [one[1] for one in given], SPEC, _top_or_bottom, seed=0).plain
    one = plain.some(np.array([1]))
    assert torch.equal(one.images, plain.images[1:]) and np.array_equal(one.masks, plain.masks[1:])
    assert one.classes.tolist() == [1]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="1 pictures and 0 masks"):
        make_cases([_picture(20, 40, 9)[0]], [], SPEC, _top_or_bottom, seed=0)
    with pytest.raises(ConfigError, match="masks"):
        Shown(torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64), np.zeros((2, 8, 7), np.bool_))
