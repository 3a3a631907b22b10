from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from dermdistill.data.decode import decode_image
from dermdistill.data.lesion_size import read_mask
from dermdistill.errors import DataError
from dermdistill.explain.composites import (
    LEAST_OFFSET,
    MARGIN,
    Composite,
    Refusal,
    bare_texture,
    membrane,
    move_lesion,
    smooth_skin,
)

HEIGHT, WIDTH = 90, 120
SKIN, LESION = np.array([200, 150, 130.0]), np.array([0.4, 0.3, 0.3])


def _skin(dark_right: float = 1.0) -> np.ndarray:
    """Skin that gets darker to the right, with a fine texture."""
    light = np.linspace(1, 0.7, WIDTH) * np.where(np.arange(WIDTH) > WIDTH // 2, dark_right, 1)
    grain = 1 + 0.03 * np.random.default_rng(0).standard_normal((HEIGHT, WIDTH, 1))
    return SKIN * light[:, None] * grain


def _disc(y: float, x: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.hypot(rows - y, columns - x) <= radius


def _picture(mask: np.ndarray, skin: np.ndarray | None = None) -> np.ndarray:
    under = _skin() if skin is None else skin
    return np.rint(np.where(mask[..., None], under * LESION, under)).clip(0, 255).astype(np.uint8)


def _moved(mask: np.ndarray, seed: int = 0) -> Composite:
    found = move_lesion(_picture(mask), mask, seed=seed)
    assert isinstance(found, Composite)
    return found


@settings(deadline=None, max_examples=60)
@given(st.integers(25, 64), st.integers(25, 94), st.floats(15, 22), st.integers(0, 2**31))
def test_moved_lesion_keeps_its_shape_and_leaves_the_centre(y: int, x: int, radius: float, seed: int) -> None:
    mask = _disc(y, x, radius)
    found = _moved(mask, seed)
    rows, columns = np.nonzero(mask)
    new_rows, new_columns = np.nonzero(found.mask)
    assert len({*zip(new_rows - rows, new_columns - columns, strict=True)}) == 1
    offset = np.hypot((new_rows.mean() + 0.5) / HEIGHT - 0.5, (new_columns.mean() + 0.5) / WIDTH - 0.5)
    assert offset >= LEAST_OFFSET
    assert distance_transform_edt(~found.mask)[HEIGHT // 2, WIDTH // 2] > MARGIN * HEIGHT


def test_lesion_lies_at_its_new_place_and_skin_at_the_old_one() -> None:
    mask, skin = _disc(45, 60, 15), _skin()
    for seed in range(6):
        found = _moved(mask, seed)
        share = found.image / skin
        core = found.mask & (distance_transform_edt(found.mask) > 2)
        # As dark as it was beside the skin of its new place, whose light differs.
        np.testing.assert_allclose(share[core].mean(axis=0), LESION, atol=0.015)
        left = mask & (distance_transform_edt(~found.mask) > MARGIN * HEIGHT + 1)
        assert left.sum() > 100
        np.testing.assert_allclose(share[left].mean(axis=0), 1, atol=0.03)


def test_skin_away_from_both_places_stays_as_it_was() -> None:
    mask = _disc(45, 60, 12)
    found = _moved(mask)
    away = distance_transform_edt(~(mask | found.mask)) > MARGIN * HEIGHT + 1
    assert np.array_equal(found.image[away], _picture(mask)[away])


def test_place_depends_on_the_seed_alone() -> None:
    mask = _disc(45, 60, 12)
    assert np.array_equal(_moved(mask, 1).image, _moved(mask, 1).image)
    assert len({_moved(mask, seed).mask.tobytes() for seed in range(5)}) > 1


def test_lesion_is_never_put_where_it_is_dark() -> None:
    mask, skin = _disc(45, 40, 10), _skin(dark_right=0.1)
    places = [move_lesion(_picture(mask, skin), mask, seed=seed) for seed in range(12)]
    for place in places:
        assert isinstance(place, Composite)
        assert (np.nonzero(place.mask)[1] > WIDTH // 2).mean() < 0.35


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (np.zeros((HEIGHT, WIDTH), np.bool_), "empty"),
        (_disc(45, 60, 2), "fills less than"),
        (_disc(45, 60, 44), "more than 40%"),
        (_disc(45, 5, 10), "runs out of the picture"),
        (_disc(45, 60, 36), "no place off the centre"),
        (np.indices((HEIGHT, WIDTH)).sum(axis=0) % 12 == 1, "runs out"),
        (np.pad(np.indices((76, 106)).sum(axis=0) % 12 == 1, 7), "too little skin"),
    ],
)
def test_lesion_that_cannot_be_moved_is_refused_with_its_reason(mask: np.ndarray, reason: str) -> None:
    found = move_lesion(_picture(mask), mask, seed=0)
    assert isinstance(found, Refusal) and reason in found.reason


def test_mask_of_another_size_is_an_error() -> None:
    mask = _disc(45, 60, 10)
    with pytest.raises(DataError, match="mask bool"):
        move_lesion(_picture(mask), mask[:-1], seed=0)


def test_membrane_continues_a_plane_and_averages_its_neighbours() -> None:
    rows, columns = np.mgrid[:20, :30].astype(np.float64)
    plane = np.stack([2 * rows - columns + 3, columns], axis=2)
    hidden = np.zeros((20, 30), np.bool_)
    hidden[4:12, 5:25] = True
    np.testing.assert_allclose(membrane(np.where(hidden[..., None], 99.0, plane), hidden), plane, atol=1e-9)
    rough = np.random.default_rng(0).random((20, 30, 1))
    hidden[:6, 28:] = True  # reaches the border
    found = membrane(rough, hidden)[..., 0]
    for y, x in np.argwhere(hidden):
        beside = [(y + a, x + b) for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1))]
        values = [found[place] for place in beside if 0 <= place[0] < 20 and 0 <= place[1] < 30]
        assert found[y, x] == pytest.approx(np.mean(values))
    assert np.array_equal(found[~hidden], rough[..., 0][~hidden])


def test_smooth_skin_sees_through_what_is_hidden() -> None:
    mask = _disc(45, 60, 15)
    grown = distance_transform_edt(~mask) <= MARGIN * HEIGHT
    np.testing.assert_allclose(smooth_skin(_picture(mask), grown) / _skin().mean(axis=0), 1, atol=0.06)


def test_texture_is_mirrored_at_the_border_of_what_is_hidden() -> None:
    light = np.repeat((1 + 0.01 * np.arange(30.0))[None, :, None], 4, axis=0).repeat(3, axis=2)
    hidden = np.zeros((4, 30), np.bool_)
    hidden[:, 10:14] = True
    found = bare_texture(light, hidden)[0, :, 0]
    np.testing.assert_allclose(found[10:14], light[0, [8, 7, 16, 15], 0])
    assert np.array_equal(found[~hidden[0]], light[0, ~hidden[0], 0])
    hidden[:, 2:] = True  # the mirror shows the place beyond the picture, folded back into what is hidden
    assert bare_texture(light, hidden)[0, 20, 0] == 1


@pytest.mark.real
def test_most_small_lesions_of_real_pictures_can_be_moved(ham10000: Path) -> None:
    masks = sorted((ham10000 / "HAM10000_segmentations_lesion_tschandl").glob("*.png"))[::300]
    parts = [ham10000 / f"HAM10000_images_part_{part}" for part in (1, 2)]
    outcomes = []
    for path in masks:
        mask, name = read_mask(path), path.name.replace("_segmentation.png", ".jpg")
        if 0.01 < mask.mean() < 0.2:
            image = decode_image(next(part / name for part in parts if (part / name).is_file()))
            outcomes.append(isinstance(move_lesion(image, mask, seed=0), Composite))
    assert len(outcomes) >= 5
    assert np.mean(outcomes) > 0.7
