"""The image store: bytes against Pillow, one decoding, damage, faults and builders at the same time."""

import hashlib
import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image

from dermdistill.data import decode, store
from dermdistill.data.store import ARRAY_FILE, INDEX_FILE, open_store
from dermdistill.errors import DataError, OutputError
from dermdistill.preprocess import PreprocessSpec, ResizeMode

SPEC = PreprocessSpec(16)
IMAGES = 5


def make_catalog(folder: Path, count: int = IMAGES) -> pd.DataFrame:
    """Smooth random JPEGs of several shapes, one PNG among them."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(3)
    lines = []
    for number in range(count):
        coarse = generator.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        path = folder / f"img_{number}.{'png' if number == 2 else 'jpg'}"
        Image.fromarray(coarse).resize((40 + number, 30)).save(path)
        lines.append({"image_id": f"img_{number}", "path": str(path)})
    return pd.DataFrame(lines)


@pytest.fixture
def catalog(tmp_path: Path) -> pd.DataFrame:
    return make_catalog(tmp_path / "images")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("decoded again")

    def forbid() -> None:
        monkeypatch.setattr(decode, "decode_image", fail)
        monkeypatch.setattr(decode, "decode_all", fail)

    return forbid


def by_pillow(path: str, spec: PreprocessSpec) -> npt.NDArray[np.uint8]:
    picture = Image.open(path).convert("RGB")
    box: tuple[float, float, float, float] | None = None
    if spec.resize == "crop":
        side, (width, height) = min(picture.size), picture.size
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    return np.asarray(picture.resize((spec.size, spec.size), Image.Resampling.BILINEAR, box=box))


@pytest.mark.parametrize("resize", ["squash", "crop"])
@pytest.mark.parametrize("workers", [1, 2])
def test_store_equals_pillow_bit_for_bit(
    catalog: pd.DataFrame, cache: Path, resize: ResizeMode, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "SMALL_SET", 2)
    monkeypatch.setattr(decode, "CHUNK", 1)
    monkeypatch.setattr(store, "IMAGES_AT_ONCE", 3)
    spec = PreprocessSpec(16, resize)
    opened = open_store(catalog, spec, cache, workers=workers)
    assert opened.images.shape == (IMAGES, 16, 16, 3)
    assert opened.images.dtype == np.uint8
    for row, path in enumerate(catalog["path"]):
        np.testing.assert_array_equal(opened.images[row], by_pillow(path, spec))


@pytest.mark.real
def test_store_of_real_images_equals_pillow(ham10000: Path, cache: Path) -> None:
    paths = sorted(ham10000.glob("HAM10000_images_part_*/*.jpg"))[::400]
    catalog = pd.DataFrame({"image_id": [path.stem for path in paths], "path": [str(path) for path in paths]})
    spec = PreprocessSpec(64)
    opened = open_store(catalog, spec, cache)
    for image_id, row in zip(opened.image_ids, opened.rows(opened.image_ids), strict=True):
        path = catalog.loc[catalog["image_id"] == image_id, "path"].item()
        np.testing.assert_array_equal(opened.images[row], by_pillow(path, spec))


def test_second_opening_decodes_nothing(catalog: pd.DataFrame, cache: Path, no_decoding: Callable[[], None]) -> None:
    first = open_store(catalog, SPEC, cache)
    no_decoding()
    second = open_store(catalog, SPEC, cache, verify=True)
    np.testing.assert_array_equal(first.images, second.images)
    assert second.sha256 == first.sha256
    assert second.image_ids == first.image_ids


def test_store_ignores_order_of_rows_and_place_of_the_folder(
    catalog: pd.DataFrame, cache: Path, tmp_path: Path, no_decoding: Callable[[], None]
) -> None:
    first = open_store(catalog, SPEC, cache)
    moved = tmp_path / "elsewhere"
    shutil.move(tmp_path / "images", moved)
    turned = catalog.iloc[::-1].assign(path=lambda f: [str(moved / Path(path).name) for path in f["path"]])
    no_decoding()
    second = open_store(turned, SPEC, cache)
    assert second.image_ids == tuple(sorted(catalog["image_id"]))
    assert second.sha256 == first.sha256
    assert len(list(cache.iterdir())) == 1


def test_mean_and_std_share_one_store_but_size_resize_content_and_ids_do_not(
    catalog: pd.DataFrame, cache: Path
) -> None:
    open_store(catalog, SPEC, cache)
    open_store(catalog, PreprocessSpec(16, mean=(0.5, 0.5, 0.5)), cache)
    assert len(list(cache.iterdir())) == 1
    open_store(catalog, PreprocessSpec(17), cache)
    open_store(catalog, PreprocessSpec(16, "crop"), cache)
    open_store(catalog.assign(image_id=lambda f: "x" + f["image_id"]), SPEC, cache)
    assert len(list(cache.iterdir())) == 4
    before = open_store(catalog, SPEC, cache)
    shutil.copy(catalog["path"][0], catalog["path"][1])
    after = open_store(catalog, SPEC, cache)
    assert len(list(cache.iterdir())) == 5
    np.testing.assert_array_equal(after.images[1], before.images[0])


def test_sha256_is_of_the_arrays_bytes(catalog: pd.DataFrame, cache: Path) -> None:
    opened = open_store(catalog, SPEC, cache)
    assert opened.sha256 == hashlib.sha256(np.array(opened.images).tobytes()).hexdigest()
    plain = np.load(next(cache.iterdir()) / ARRAY_FILE)
    np.testing.assert_array_equal(plain, opened.images)


def test_store_is_read_only(catalog: pd.DataFrame, cache: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        open_store(catalog, SPEC, cache).images[0] = 0


def cut_array(folder: Path) -> None:
    whole = (folder / ARRAY_FILE).read_bytes()
    (folder / ARRAY_FILE).write_bytes(whole[:-1])


def lengthen_array(folder: Path) -> None:
    with (folder / ARRAY_FILE).open("ab") as handle:
        handle.write(b"\0")


def empty_array(folder: Path) -> None:
    (folder / ARRAY_FILE).write_bytes(b"")


def other_array(folder: Path) -> None:
    # As many bytes as the right one, so that its length does not give it away.
    np.save(folder / ARRAY_FILE, np.zeros((16, IMAGES, 16, 3), dtype=np.uint8))


def lose_index(folder: Path) -> None:
    (folder / INDEX_FILE).unlink()


def cut_index(folder: Path) -> None:
    (folder / INDEX_FILE).write_text('{"format": 1, ')


def other_index(folder: Path) -> None:
    index = json.loads((folder / INDEX_FILE).read_text())
    (folder / INDEX_FILE).write_text(json.dumps({**index, "image_ids": index["image_ids"][::-1]}))


def alter_pixel(folder: Path) -> None:
    content = bytearray((folder / ARRAY_FILE).read_bytes())
    content[-1] ^= 1
    (folder / ARRAY_FILE).write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [cut_array, lengthen_array, empty_array, other_array, lose_index, cut_index, other_index, alter_pixel],
)
def test_damaged_store_is_built_again(
    catalog: pd.DataFrame, cache: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    first = open_store(catalog, SPEC, cache)
    whole = np.array(first.images)
    damage(next(cache.iterdir()))
    second = open_store(catalog, SPEC, cache, verify=damage is alter_pixel)
    np.testing.assert_array_equal(second.images, whole)
    assert second.sha256 == first.sha256
    assert "built again" in caplog.text
    caplog.clear()
    open_store(catalog, SPEC, cache, verify=True)
    assert caplog.text == ""
    assert [folder.name for folder in cache.iterdir() if folder.name.startswith(".")] == []


@pytest.mark.parametrize("missing", [True, False])
def test_all_unreadable_images_are_listed_and_nothing_is_written(
    catalog: pd.DataFrame, cache: Path, missing: bool
) -> None:
    Path(catalog["path"][1]).write_text("no picture")
    whole = Path(catalog["path"][3]).read_bytes()
    Path(catalog["path"][3]).write_bytes(whole[: len(whole) // 2])
    if missing:
        Path(catalog["path"][4]).unlink()
    with pytest.raises(DataError) as caught:
        open_store(catalog, SPEC, cache)
    named = ["img_1", "img_3", "img_4"] if missing else ["img_1", "img_3"]
    assert [fault.split(":")[0] for fault in caught.value.faults] == named
    assert str(catalog["path"][1]) in str(caught.value)
    assert not cache.exists() or list(cache.iterdir()) == []


def test_full_disk_is_an_output_error_and_leaves_nothing(
    catalog: pd.DataFrame, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Path, *_: Any) -> str:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_write_array", full)
    with pytest.raises(OutputError, match="No space left"):
        open_store(catalog, SPEC, cache)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("damaged", [False, True])
def test_builders_at_the_same_time_agree(
    catalog: pd.DataFrame, cache: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    if damaged:
        open_store(catalog, SPEC, cache)
        cut_array(next(cache.iterdir()))
    builders = 4
    barrier = threading.Barrier(builders)
    write_array = store._write_array

    def write_together(*arguments: Any) -> str:
        sha256 = write_array(*arguments)
        barrier.wait(timeout=10)
        return sha256

    monkeypatch.setattr(store, "_write_array", write_together)
    with ThreadPoolExecutor(builders) as pool:
        opened = list(pool.map(lambda _: open_store(catalog, SPEC, cache), range(builders)))
    for one in opened:
        np.testing.assert_array_equal(one.images, opened[0].images)
        np.testing.assert_array_equal(one.images[0], by_pillow(catalog["path"][0], SPEC))
    assert len([folder for folder in cache.iterdir() if not folder.name.startswith(".")]) == 1
    open_store(catalog, SPEC, cache, verify=True)


def test_rows_follow_the_ids_with_repeats(catalog: pd.DataFrame, cache: Path) -> None:
    rows = open_store(catalog, SPEC, cache).rows(["img_3", "img_0", "img_3"])
    assert rows.dtype == np.int64
    assert rows.tolist() == [3, 0, 3]
    assert open_store(catalog, SPEC, cache).rows([]).shape == (0,)


def test_rows_name_all_unknown_ids(catalog: pd.DataFrame, cache: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_store(catalog, SPEC, cache).rows(["img_0", "zebra", "ape", "zebra"])
    assert caught.value.faults == ("unknown image_id 'ape'", "unknown image_id 'zebra'")


def test_catalog_without_images_or_with_an_id_twice_is_refused(catalog: pd.DataFrame, cache: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        open_store(catalog.iloc[:0], SPEC, cache)
    with pytest.raises(DataError, match="'img_0' comes more than once"):
        open_store(pd.concat([catalog, catalog.iloc[:1]]), SPEC, cache)
