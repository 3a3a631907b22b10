"""Codes of pictures against scipy and turned pictures; which changed pictures are found; names that count."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import dctn

from dermdistill.data.catalog import load_catalog, write_catalog
from dermdistill.data.overlap import (
    BITS,
    COPY_DISTANCE,
    Seen,
    code,
    coefficients,
    find_overlap,
    looks,
    nearest,
    picture_codes,
    picture_looks,
    public_name,
)
from dermdistill.data.readers import read_catalog
from dermdistill.errors import DataError

Picture = npt.NDArray[np.uint8]


def picture(seed: int, width: int = 96, height: int = 72) -> Picture:
    """Coarse random colours, smoothed: structure at every size, as a photograph has."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)).resize(
                (width, height), Image.Resampling.BICUBIC
            ),
            dtype=float,
        )
        for cells in (3, 6, 12, 24)
    ]
    return np.asarray(np.mean(layers, axis=0), dtype=np.uint8)


def jpeg(image: Picture, quality: int) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def resized(image: Picture, width: int, height: int) -> Picture:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def seen_of(*pictures: Picture, names: tuple[str, ...] = (), lesions: tuple[str, ...] = ()) -> Seen:
    codes = np.stack([code(coefficients(item)) for item in pictures])
    known = names or ("",) * len(pictures)
    return Seen(known, ("train",) * len(pictures), codes, frozenset(lesions))


def test_coefficients_are_low_ones_of_the_cosine_transform() -> None:
    image = picture(0, 32, 32)
    transform = dctn(image @ np.array([0.299, 0.587, 0.114]), norm="ortho")
    found = coefficients(image)
    assert len(set(found.round(9))) == len(found) == BITS
    row, column = np.mgrid[:32, :32]
    place = [np.unravel_index(np.abs(transform - value).argmin(), (32, 32)) for value in found]
    assert np.allclose([transform[at] for at in place], found, atol=1e-9)
    radius = np.hypot(row, column)
    assert sorted(radius[at] for at in place)[0] == 2
    # The lowest, but for one place that lies on the diagonal, as places come with their transposed ones.
    assert sorted(radius[at] for at in place)[-2] <= sorted(radius[radius >= 2])[BITS]
    assert {(column, row) for row, column in place} == set(place)
    assert np.array_equal(np.unpackbits(code(found)), found > 0)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_looks_hold_all_turns_and_flips(seed: int) -> None:
    image = picture(seed, 64, 64)
    views = looks(image)
    for turns in range(4):
        for turned in (np.rot90(image, turns), np.rot90(image, turns)[:, ::-1]):
            target = coefficients(np.ascontiguousarray(turned))
            assert np.abs(views - target).max(axis=1).min() < 4, "resizing rounds to grey levels"
    assert len(views) == 16
    assert len(looks(picture(seed))) == 8


def test_nearest_agrees_with_brute_force() -> None:
    rng = np.random.default_rng(0)
    views = [rng.normal(size=(number, BITS)) for number in (8, 16, 8)]
    codes = rng.integers(0, 256, (50, BITS // 8), dtype=np.uint8)
    distance, row = nearest(views, codes)
    for image, rows in enumerate(views):
        best = (2.0, -1)
        for look in rows:
            for index, bits in enumerate(np.unpackbits(codes, axis=1).astype(bool)):
                apart = np.abs(look[(look > 0) != bits]).sum() / np.abs(look).sum()
                best = min(best, (float(apart), index))
        assert (distance[image], row[image]) == (pytest.approx(best[0], abs=1e-6), best[1])


@pytest.mark.parametrize(
    "change",
    [
        lambda image: jpeg(image, 60),
        lambda image: resized(image, 288, 216),
        lambda image: resized(image, 48, 36),
        lambda image: resized(image, 72, 72),
        lambda image: image[:, 12:84],
        lambda image: image[:, ::-1],
        lambda image: image[::-1],
        lambda image: np.rot90(image[:, 12:84]),
        lambda image: np.clip(image * np.array([0.9, 0.8, 0.7]), 0, 255).astype(np.uint8),
    ],
    ids=["jpeg", "larger", "smaller", "squashed", "square", "mirror", "flip", "turn", "white balance"],
)
def test_a_changed_copy_is_found(change) -> None:
    stored = [picture(seed) for seed in range(30)]
    seen = seen_of(*stored, names=tuple(f"ISIC_00000{seed:02}" for seed in range(30)))
    for seed in (3, 17):
        changed = np.ascontiguousarray(change(stored[seed]))
        overlap = find_overlap(["x"], ["x"], [looks(changed)], seen)
        assert [(name, known) for name, known, _ in overlap.copies] == [("x", f"ISIC_00000{seed:02}")]


def test_other_pictures_are_no_copies() -> None:
    seen = seen_of(*(picture(seed) for seed in range(60)))
    distance, _ = nearest([looks(picture(seed)) for seed in range(100, 160)], seen.codes)
    assert distance.min() > 10 * COPY_DISTANCE


def test_a_flat_picture_is_like_nothing() -> None:
    flat = np.full((20, 30, 3), 90, dtype=np.uint8)
    seen = seen_of(flat, picture(0))
    distance, _ = nearest([looks(flat)], seen.codes)
    assert np.isnan(distance).all()
    assert find_overlap(["a", "b"], ["a", "b"], [looks(flat), looks(picture(9))], seen).image_ids == ()


def test_names_count_where_they_are_unique_in_the_world() -> None:
    assert public_name("ISIC_0024306_downsampled") == "ISIC_0024306"
    assert [public_name(name) for name in ("HAM_0000550", "MSK4_0011169", "1", "IMD003", "SYN_0000001")] == [
        "HAM_0000550",
        "MSK4_0011169",
        "",
        "",
        "",
    ]
    seen = seen_of(picture(0), picture(1), names=("ISIC_0024306", ""), lesions=("HAM_0000550",))
    ids = ["ISIC_0024306_downsampled", "1", "copy", "sister"]
    lesions = ["HAM_0000550", "1", "copy", "HAM_0000550"]
    views = [looks(picture(seed)) for seed in (7, 8, 1, 9)]
    overlap = find_overlap(ids, lesions, views, seen)
    assert overlap.names == ("ISIC_0024306_downsampled",)
    assert [name for name, _, _ in overlap.copies] == ["copy"]
    assert overlap.lesions == ("sister",)
    assert overlap.image_ids == ("ISIC_0024306_downsampled", "copy", "sister")
    block = overlap.to_dict()
    assert (block["images"], block["seen"], block["near_copies"]["count"]) == (4, 3, 1)


def test_unreadable_images_are_all_named(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(b"no picture")
    paths = [tmp_path / f"{number}.jpg" for number in range(3)]
    Image.fromarray(picture(0)).save(paths[1])
    with pytest.raises(DataError, match="2 of 3 images cannot be read") as caught:
        picture_looks(paths, ["a", "b", "c"])
    assert [fault[:2] for fault in caught.value.faults] == ["a:", "c:"]


def test_codes_of_files_are_those_of_their_pixels(tmp_path: Path) -> None:
    Image.fromarray(picture(4)).save(tmp_path / "a.png")
    assert np.array_equal(picture_codes([tmp_path / "a.png"], ["a"])[0], code(coefficients(picture(4))))
    assert picture_codes([], []).shape == (0, BITS // 8)


@pytest.mark.real
def test_overlap_of_real_lesions_is_the_known_pair_alone(ham10000: Path, tmp_path: Path) -> None:
    write_catalog(read_catalog(ham10000, check_images=False), tmp_path / "catalog.parquet")
    catalog = load_catalog(tmp_path / "catalog.parquet")
    pair = ("ISIC_0025226", "ISIC_0030074")
    rows = catalog[catalog["image_id"].isin(pair) | (catalog.index < 600)].drop_duplicates("lesion_id")
    views = picture_looks([Path(path) for path in rows["path"]], rows["image_id"].tolist())
    codes = code(np.stack([own[0] for own in views]))
    copies = {}
    for index, name in enumerate(rows["image_id"]):
        others = np.arange(len(rows)) != index
        distance, row = nearest([views[index]], codes[others])
        if distance[0] <= COPY_DISTANCE:
            copies[name] = rows["image_id"][others].iloc[row[0]]
    assert copies == {pair[0]: pair[1], pair[1]: pair[0]}
