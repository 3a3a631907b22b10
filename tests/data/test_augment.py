"""Views against numpy, torchvision and scipy; their repeatability by hypothesis."""

import colorsys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from dermdistill.config import AugmentConfig
from dermdistill.data import augment
from dermdistill.data.augment import Views, draw_artefacts, gaussian_blur, make_views, plain_views
from dermdistill.data.corruptions import random_artefact
from dermdistill.data.view_plan import (
    COLUMNS,
    affine_maps,
    artefact_keys,
    blur_shares,
    colour_maps,
    cutout_boxes,
    draw,
    mixup_plan,
)
from dermdistill.errors import ConfigError, DataError
from dermdistill.preprocess import PreprocessSpec, normalise

OFF: dict[str, Any] = dict.fromkeys(
    ("rotate_degrees", "scale", "shift", "brightness", "contrast", "saturation", "hue", "blur", "cutout"), 0.0
) | {"flip": False}
FULL = AugmentConfig(blur=0.5, cutout=0.5, mixup=0.5, artefacts=0.3)
COUNT = 40


def only(**settings_on: Any) -> AugmentConfig:
    return AugmentConfig(**(OFF | settings_on))


def noise(size: int, count: int = COUNT) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(size).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def smooth(size: int, count: int = 1) -> npt.NDArray[np.uint8]:
    """Blobs of middling colours, on which interpolations and clipping differ little."""
    blobs = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=(count, size, size, 3)), (0, 3, 3, 0))
    return np.asarray(np.clip(128 + blobs * 300, 50, 205), dtype=np.uint8)


def views_of(
    images: npt.NDArray[np.uint8] | torch.Tensor,
    rows: list[int],
    config: AugmentConfig,
    *,
    epoch: int = 0,
    seed: int = 7,
    spec: PreprocessSpec | None = None,
) -> Views:
    partner_rows = np.arange(0, len(images), 2)
    used = spec or PreprocessSpec(int(images.shape[1]))
    return make_views(
        images, np.array(rows), epoch=epoch, seed=seed, config=config, spec=used, partner_rows=partner_rows
    )


def neutral(count: int = 1, **values: float) -> dict[str, npt.NDArray[np.float64]]:
    """Draws that change nothing, but for those given."""
    return {name: np.full(count, values.get(name, 0.5)) for name in COLUMNS}


def view_with(
    monkeypatch: pytest.MonkeyPatch,
    image: npt.NDArray[np.uint8],
    config: AugmentConfig,
    spec: PreprocessSpec | None = None,
    **values: float,
) -> npt.NDArray[np.float32]:
    """The view of one image with given draws, in the unit range: float32 [3, S, S]."""
    used = spec or PreprocessSpec(image.shape[0])
    monkeypatch.setattr(augment, "draw", lambda seed, epoch, rows: neutral(len(rows), **values))
    view = views_of(image[None], [0], config, spec=used).images[0].numpy()
    unit: npt.NDArray[np.float32] = view * np.array(used.std, np.float32)[:, None, None]
    return unit + np.array(used.mean, np.float32)[:, None, None]


def unit_tensor(image: npt.NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


# Plain views


@pytest.mark.parametrize("as_tensor", [False, True])
def test_plain_views_equal_normalise_bit_for_bit(as_tensor: bool) -> None:
    images, spec = noise(16), PreprocessSpec(16)
    rows = np.array([5, 0, 5, 39])
    plain = plain_views(torch.from_numpy(images) if as_tensor else images, rows, spec)
    assert plain.is_contiguous()
    np.testing.assert_array_equal(plain.numpy(), normalise(images[rows], spec))


@pytest.mark.parametrize("size", [64, 150])
def test_views_with_all_off_equal_plain_views(size: int) -> None:
    images, rows = noise(size), np.arange(COUNT)
    views = views_of(images, rows.tolist(), only())
    torch.testing.assert_close(views.images, plain_views(images, rows, PreprocessSpec(size)), rtol=0, atol=1e-6)
    assert views.partners.tolist() == [-1] * COUNT
    assert views.shares.tolist() == [1.0] * COUNT


# Repeatability


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=24),
    size=st.sampled_from([16, 37]),
    seed=st.integers(0, 2**32),
    epoch=st.integers(0, 50),
    chunk=st.sampled_from([1, 2**12, 2**15]),
)
def test_view_depends_on_seed_epoch_and_row_alone(
    rows: list[int], size: int, seed: int, epoch: int, chunk: int
) -> None:
    images = noise(size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augment, "CHUNK_PIXELS", chunk)
        together = views_of(images, rows, FULL, epoch=epoch, seed=seed)
    for place, row in enumerate(rows):
        alone = views_of(images, [row], FULL, epoch=epoch, seed=seed)
        assert torch.equal(together.images[place], alone.images[0])
        assert together.partners[place] == alone.partners[0]
        assert together.shares[place] == alone.shares[0]


@pytest.mark.parametrize("size", [64, 128])
def test_views_are_the_same_with_other_threads_and_from_a_tensor(size: int) -> None:
    images, rows = noise(size), list(range(COUNT))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = views_of(images, rows, FULL)
        torch.set_num_threads(3)
        three = views_of(torch.from_numpy(images), rows[::-1], FULL)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one.images, three.images.flip(0))


def test_seed_epoch_and_row_each_change_the_view() -> None:
    images = np.repeat(noise(16, 1), 4, axis=0)
    base = views_of(images, [0], FULL).images
    others = [
        views_of(images, [1], FULL),
        views_of(images, [0], FULL, epoch=1),
        views_of(images, [0], FULL, seed=8),
    ]
    for other in others:
        assert (other.images - base).abs().max() > 0.05


def test_draws_of_one_operation_do_not_depend_on_the_others() -> None:
    images, rows = noise(16), list(range(COUNT))
    shifted = views_of(images, rows, only(shift=0.1)).images
    with_cutout = views_of(images, rows, only(shift=0.1, cutout=0.5)).images
    uncut = with_cutout != 0
    assert torch.equal(shifted[uncut], with_cutout[uncut])
    assert uncut.float().mean() > 0.8


# Geometry


@pytest.mark.parametrize("size", [16, 21])
@pytest.mark.parametrize(("flip_x", "flip_y"), [(True, False), (False, True), (True, True)])
def test_flips_equal_numpy(monkeypatch: pytest.MonkeyPatch, size: int, flip_x: bool, flip_y: bool) -> None:
    image = noise(size)[0]
    view = view_with(monkeypatch, image, only(flip=True), flip_x=0.1 if flip_x else 0.9, flip_y=0.1 if flip_y else 0.9)
    wanted = image[:: -1 if flip_y else 1, :: -1 if flip_x else 1].transpose(2, 0, 1) / 255
    np.testing.assert_allclose(view, wanted, atol=1e-5)


@pytest.mark.parametrize("quarters", [-2, -1, 0, 1, 2])
def test_quarter_turns_equal_numpy(monkeypatch: pytest.MonkeyPatch, quarters: int) -> None:
    image = noise(20)[0]
    view = view_with(monkeypatch, image, only(rotate_degrees=180), rotate=0.5 + quarters / 4)
    # Positive angles turn clockwise as seen, numpy's turns go the other way.
    np.testing.assert_allclose(view, np.rot90(image, -quarters).transpose(2, 0, 1) / 255, atol=1e-4)


def test_geometry_equals_torchvision_affine(monkeypatch: pytest.MonkeyPatch) -> None:
    size, image = 48, smooth(48)[0]
    degrees, zoom, shift_x, shift_y = 33.0, 1.13, 0.05, -0.03
    config = only(rotate_degrees=90, scale=0.2, shift=0.08)
    view = view_with(
        monkeypatch,
        image,
        config,
        rotate=0.5 + degrees / 180,
        scale=0.5 + np.log(zoom) / np.log(1.2) / 2,
        shift_x=0.5 + shift_x / 0.16,
        shift_y=0.5 + shift_y / 0.16,
    )
    arguments: dict[str, Any] = {
        "angle": degrees,
        "translate": [shift_x * size, shift_y * size],
        "scale": zoom,
        "shear": [0.0, 0.0],
        "interpolation": InterpolationMode.BILINEAR,
    }
    oracle = tv.affine(unit_tensor(image), **arguments)
    inside = tv.affine(torch.ones(1, size, size), **arguments)[0] > 0.999
    assert inside.float().mean() > 0.7
    np.testing.assert_allclose(view[:, inside], oracle[:, inside].numpy(), atol=1e-4)


def test_beyond_the_edge_the_image_is_mirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(20)[0]
    view = view_with(monkeypatch, image, only(shift=0.25), shift_x=1.0)
    padded = np.pad(image, ((0, 0), (5, 0), (0, 0)), mode="symmetric")[:, :20]
    np.testing.assert_allclose(view, padded.transpose(2, 0, 1) / 255, atol=1e-4)


def test_geometry_keeps_to_its_ranges() -> None:
    config = only(flip=True, rotate_degrees=30, scale=0.25, shift=0.1)
    maps = affine_maps(draw(0, 0, np.arange(4000)), config)
    determinants = np.linalg.det(maps[:, :, :2])
    zooms = 1 / np.sqrt(np.abs(determinants))
    assert 0.8 <= zooms.min() < 0.81
    assert 1.24 < zooms.max() <= 1.25
    assert 0.45 < (determinants < 0).mean() < 0.55
    angles = np.rad2deg(np.arccos(np.abs(maps[:, 0, 0]) * zooms))
    assert 29.5 < angles.max() <= 30.0001
    # The target of the source's centre is the shift.
    shifts = -np.linalg.solve(maps[:, :, :2], maps[:, :, 2:])[:, :, 0] / 2
    assert 0.099 < np.abs(shifts).max() <= 0.1 + 1e-12


# Colour


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.2])
def test_brightness_equals_torchvision(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    image = smooth(24)[0]
    view = view_with(monkeypatch, image, only(brightness=0.2), brightness=0.5 + (factor - 1) / 0.4)
    np.testing.assert_allclose(view, tv.adjust_brightness(unit_tensor(image), factor).numpy(), atol=1e-5)


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.3])
def test_saturation_equals_torchvision(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    image = smooth(24)[0]
    view = view_with(monkeypatch, image, only(saturation=0.3), saturation=0.5 + (factor - 1) / 0.6)
    np.testing.assert_allclose(view, tv.adjust_saturation(unit_tensor(image), factor).numpy(), atol=1e-3)


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.2])
def test_contrast_equals_torchvision_where_the_image_has_the_mean_grey(
    monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    image = smooth(24)[0]
    grey = float(tv.rgb_to_grayscale(unit_tensor(image)).mean())
    spec = PreprocessSpec(24, mean=(grey, grey, grey))
    view = view_with(monkeypatch, image, only(contrast=0.3), spec, contrast=0.5 + (factor - 1) / 0.6)
    np.testing.assert_allclose(view, tv.adjust_contrast(unit_tensor(image), factor).numpy(), atol=1e-3)


@pytest.mark.parametrize("turn", [-0.1, 0.03, 0.25])
def test_hue_turns_the_chroma_of_yiq(monkeypatch: pytest.MonkeyPatch, turn: float) -> None:
    image = smooth(16)[0]
    view = view_with(monkeypatch, image, only(hue=0.5), hue=0.5 + turn)
    cosine, sine = np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)
    for row, column in ((0, 0), (7, 3), (15, 15)):
        luma, i, q = colorsys.rgb_to_yiq(*(image[row, column] / 255))
        chroma = (cosine * i - sine * q, sine * i + cosine * q)
        # colorsys rounds the matrix to two digits.
        found = colorsys.rgb_to_yiq(*(float(value) for value in view[:, row, column]))
        np.testing.assert_allclose(found, (luma, *chroma), atol=0.01)


def test_colour_operations_come_in_the_documented_order() -> None:
    spec = PreprocessSpec(16)
    draws = draw(1, 2, np.arange(20))
    config = only(brightness=0.3, contrast=0.3, saturation=0.4)
    maps = colour_maps(draws, config, spec)
    pixel = np.array([200.0, 120.0, 90.0])
    luma = np.array([0.299, 0.587, 0.114])
    for row in range(20):
        bright, contrast, saturation = (
            1 + width * (2 * draws[name][row] - 1)
            for name, width in (("brightness", 0.3), ("contrast", 0.3), ("saturation", 0.4))
        )
        colour = pixel / 255
        colour = saturation * colour + (1 - saturation) * (luma @ colour)
        colour = bright * (contrast * colour + (1 - contrast) * (luma @ np.array(spec.mean)))
        wanted = (colour - np.array(spec.mean)) / np.array(spec.std)
        np.testing.assert_allclose(maps[row, :, :3] @ pixel + maps[row, :, 3], wanted, atol=1e-12)


def test_greys_stay_grey_under_saturation_and_hue() -> None:
    spec = PreprocessSpec(16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    maps = colour_maps(draw(0, 0, np.arange(50)), only(saturation=0.9, hue=0.5), spec)
    grey = np.full(3, 77.0)
    np.testing.assert_allclose(maps[:, :, :3] @ grey + maps[:, :, 3], np.full((50, 3), 77 / 255), atol=1e-12)


# Blur


def test_gaussian_blur_equals_torchvision() -> None:
    images = torch.from_numpy(normalise(noise(19, 3), PreprocessSpec(19)))
    torch.testing.assert_close(gaussian_blur(images), tv.gaussian_blur(images, [3, 3], [1.0, 1.0]))


def test_blur_mixes_each_image_by_its_own_share() -> None:
    images, rows, spec = noise(16), list(range(COUNT)), PreprocessSpec(16)
    config = only(blur=0.6)
    views = views_of(images, rows, config).images
    shares = blur_shares(draw(7, 0, np.arange(COUNT)), config)
    assert 0 < (shares == 0).sum() < COUNT
    plain = plain_views(images, np.arange(COUNT), spec)
    blurred = tv.gaussian_blur(plain, [3, 3], [1.0, 1.0])
    weight = torch.from_numpy(shares).float()[:, None, None, None]
    torch.testing.assert_close(views, plain + weight * (blurred - plain), rtol=0, atol=1e-5)


# Cut-out


@settings(max_examples=30, deadline=None)
@given(size=st.integers(16, 80), share=st.floats(0.01, 1.0), seed=st.integers(0, 1000))
def test_cutout_lies_inside_and_is_no_larger_than_allowed(size: int, share: float, seed: int) -> None:
    left, top, side = cutout_boxes(draw(seed, 0, np.arange(200)), only(cutout=1.0, cutout_size=share), size).T
    assert side.min() >= 1
    assert side.max() <= max(1, share * size)
    assert min(left.min(), top.min()) >= 0
    assert max((left + side).max(), (top + side).max()) <= size


def test_cutout_blanks_one_square_with_the_mean() -> None:
    images, rows, spec = noise(32), list(range(COUNT)), PreprocessSpec(32)
    config = only(cutout=0.5, cutout_size=0.4)
    views = views_of(images, rows, config).images
    changed = (views - plain_views(images, np.arange(COUNT), spec)).abs().amax(dim=1) > 1e-4
    boxes = cutout_boxes(draw(7, 0, np.arange(COUNT)), config, 32)
    assert 5 < (boxes[:, 2] > 0).sum() < 35
    for place, (left, top, side) in enumerate(boxes):
        inside = np.zeros((32, 32), dtype=bool)
        inside[top : top + side, left : left + side] = True
        assert (views[place][:, inside] == 0).all()
        assert not changed[place].numpy()[~inside].any()


# Artefacts


def test_artefacts_lie_over_the_stored_picture_of_the_images_that_were_drawn() -> None:
    images, spec = smooth(32, COUNT), PreprocessSpec(32)
    before = images.copy()
    config = only(artefacts=0.5)
    views = views_of(images, list(range(COUNT)), config).images
    keys = artefact_keys(draw(7, 0, np.arange(COUNT)), config)
    assert 10 < (keys >= 0).sum() < 30
    drawn = np.stack([random_artefact(one, key) if key >= 0 else one for one, key in zip(images, keys, strict=True)])
    assert (drawn != images).any(axis=(1, 2, 3)).sum() > 8
    torch.testing.assert_close(views, plain_views(drawn, np.arange(COUNT), spec), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(images, before)


def test_artefacts_are_a_draw_of_their_own_that_leaves_other_operations_alone() -> None:
    images, rows = smooth(32, COUNT), list(range(COUNT))
    without = FULL.model_copy(update={"mixup": 0.0, "artefacts": 0.0})
    clean, drawn = (views_of(images, rows, without.model_copy(update={"artefacts": p})).images for p in (0.0, 0.4))
    keys = artefact_keys(draw(7, 0, np.arange(COUNT)), only(artefacts=0.4))
    assert torch.equal(clean[keys < 0], drawn[keys < 0])
    assert 0 < (clean != drawn).any(dim=1).any(dim=1).any(dim=1).sum() <= (keys >= 0).sum()


def test_an_artefact_stays_the_same_where_its_probability_grows() -> None:
    draws = draw(3, 5, np.arange(5000))
    few, many = (artefact_keys(draws, only(artefacts=share)) for share in (0.1, 0.6))
    assert abs((few >= 0).mean() - 0.1) < 0.02
    assert abs((many >= 0).mean() - 0.6) < 0.03
    np.testing.assert_array_equal(few[few >= 0], many[few >= 0])
    assert len(set(many[many >= 0])) == (many >= 0).sum()


def test_teacher_and_student_see_the_same_artefact_at_their_own_sizes() -> None:
    large = np.full((COUNT, 96, 96, 3), (224, 172, 150), dtype=np.uint8)
    rows, config = list(range(COUNT)), only(artefacts=1.0, flip=True, rotate_degrees=40)
    teacher, student = (views_of(images, rows, config).images for images in (large, large[:, :48, :48].copy()))
    coarse = torch.nn.functional.avg_pool2d(teacher, 8) - teacher.amax(dim=(2, 3), keepdim=True)
    other = torch.nn.functional.avg_pool2d(student, 4) - student.amax(dim=(2, 3), keepdim=True)
    alike = [float(np.corrcoef(one.flatten(), two.flatten())[0, 1]) for one, two in zip(coarse, other, strict=True)]
    assert np.median(alike) > 0.95


def test_artefacts_are_drawn_on_whole_numbers_in_place() -> None:
    images = smooth(24, 3)
    values = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    draw_artefacts(values, np.array([-1, 12, -1]))
    found = values.permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(found[[0, 2]], images[[0, 2]])
    np.testing.assert_array_equal(found[1], random_artefact(images[1], 12))


# Mixup


def test_mixup_is_linear_in_both_own_views() -> None:
    images, rows = noise(16), list(range(COUNT))
    mixed = views_of(images, rows, FULL)
    unmixed = views_of(images, rows, FULL.model_copy(update={"mixup": 0.0}))
    assert 5 < (mixed.partners >= 0).sum() < 35
    for place in rows:
        partner, share = int(mixed.partners[place]), mixed.shares[place]
        if partner < 0:
            assert share == 1
            assert torch.equal(mixed.images[place], unmixed.images[place])
        else:
            assert partner % 2 == 0
            assert 0.5 <= share <= 1
            wanted = share * unmixed.images[place] + (1 - share) * unmixed.images[partner]
            torch.testing.assert_close(mixed.images[place], wanted, rtol=0, atol=1e-5)


def test_mixup_shares_are_folded_beta_and_partners_even() -> None:
    config = AugmentConfig(mixup=0.7, mixup_alpha=0.4)
    partners, shares = mixup_plan(draw(0, 0, np.arange(20_000)), config, np.arange(100, 110))
    drawn = shares[partners >= 0]
    assert abs(len(drawn) / 20_000 - 0.7) < 0.02
    folded = stats.beta(0.4, 0.4)
    assert stats.kstest(drawn.astype(np.float64), lambda x: 2 * folded.cdf(np.clip(x, 0.5, 1)) - 1).pvalue > 1e-3
    assert stats.chisquare(np.bincount(partners[partners >= 0] - 100, minlength=10)).pvalue > 1e-3


def test_probabilities_are_kept() -> None:
    draws = draw(0, 0, np.arange(20_000))
    config = AugmentConfig(blur=0.1, cutout=0.25)
    assert abs((blur_shares(draws, config) > 0).mean() - 0.1) < 0.01
    assert abs((cutout_boxes(draws, config, 64)[:, 2] > 0).mean() - 0.25) < 0.015


# What is refused


def test_rows_outside_the_store_are_refused() -> None:
    for rows in ([-1], [0, COUNT]):
        with pytest.raises(DataError, match="rows"):
            views_of(noise(16), rows, FULL)
        with pytest.raises(DataError, match="rows"):
            plain_views(noise(16), np.array(rows), PreprocessSpec(16))


def test_images_of_another_size_or_type_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"uint8 \[N, 24, 24, 3\]"):
        views_of(noise(16), [0], FULL, spec=PreprocessSpec(24))
    with pytest.raises(ConfigError, match="float32"):
        plain_views(torch.zeros(2, 16, 16, 3), np.array([0]), PreprocessSpec(16))


def test_mixup_without_partners_is_refused() -> None:
    nobody = np.array([], dtype=np.int64)
    with pytest.raises(DataError, match="partners"):
        make_views(
            noise(16),
            np.array([0]),
            epoch=0,
            seed=0,
            config=FULL,
            spec=PreprocessSpec(16),
            partner_rows=nobody,
        )


def test_no_rows_give_an_empty_batch() -> None:
    assert views_of(noise(16), [], FULL).images.shape == (0, 3, 16, 16)
