"""Decoding against Pillow, and every kind of file that must be refused."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from dermdistill.data.decode import check_images, decode_all, decode_image
from dermdistill.errors import DataError


def picture(seed: int = 0, height: int = 37, width: int = 53) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("RGB", "JPEG", {"subsampling": 2}),
        ("RGB", "JPEG", {"subsampling": 0}),
        ("RGB", "JPEG", {"progressive": True}),
        ("L", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("RGB", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("L", "PNG", {}),
        ("LA", "PNG", {}),
        ("1", "PNG", {}),
        ("P", "PNG", {}),
        ("RGB", "BMP", {}),
        ("RGB", "TIFF", {}),
        ("RGB", "WEBP", {}),
    ],
)
def test_decode_image_equals_pillow(tmp_path: Path, mode: str, kind: str, options: dict[str, object]) -> None:
    path = written(tmp_path / "image", encoded(picture().convert(mode), kind, **options))
    image = decode_image(path)
    assert image.dtype == np.uint8
    assert image.shape == (37, 53, 3)
    np.testing.assert_array_equal(image, np.asarray(Image.open(path).convert("RGB")))


def test_decode_image_goes_by_content_not_by_name(tmp_path: Path) -> None:
    path = written(tmp_path / "really_a_png.jpg", encoded(picture(), "PNG"))
    np.testing.assert_array_equal(decode_image(path), np.asarray(picture()))


def test_decode_image_turns_a_photograph_that_was_held_sideways(tmp_path: Path) -> None:
    """The fast JPEG path knows nothing of EXIF, so it must not be taken."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = written(tmp_path / "turned.jpg", encoded(picture(), exif=exif.tobytes()))
    np.testing.assert_array_equal(decode_image(path), np.rot90(np.asarray(Image.open(path)), -1))


@pytest.mark.parametrize("lost", [1, 2, 20, 300])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_decode_image_refuses_a_truncated_jpeg(tmp_path: Path, lost: int, options: dict[str, object]) -> None:
    content = encoded(picture(height=150, width=200), quality=90, **options)
    path = written(tmp_path / "cut.jpg", content[:-lost])
    with pytest.raises(DataError, match=r"cut\.jpg: cannot be decoded \(truncated: premature end"):
        decode_image(path)


def test_decode_image_refuses_every_cut_of_a_jpeg(tmp_path: Path) -> None:
    content = encoded(picture())
    for kept in range(1, len(content), 7):
        with pytest.raises(DataError, match=r"cut\.jpg: "):
            decode_image(written(tmp_path / "cut.jpg", content[:kept]))


def test_decode_image_refuses_a_jpeg_with_a_hole(tmp_path: Path) -> None:
    content = encoded(picture(height=150, width=200), quality=90)
    middle = len(content) // 2
    path = written(tmp_path / "hole.jpg", content[:middle] + content[middle + 400 :])
    with pytest.raises(DataError, match=r"hole\.jpg: cannot be decoded"):
        decode_image(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"this is not a picture\n", r"is not an image \(it holds text\)"),
        (b"\x00\x01\x02\xfe" * 100, "is not an image$"),
        (encoded(picture(), "PNG")[:200], "cannot be decoded"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "its pixels are floating-point numbers"),
    ],
)
def test_decode_image_says_what_is_wrong(tmp_path: Path, content: bytes, reason: str) -> None:
    path = written(tmp_path / "bad.jpg", content)
    with pytest.raises(DataError) as caught:
        decode_image(path)
    assert caught.value.problem.startswith(f"{path}: ")
    with pytest.raises(DataError, match=reason):
        raise DataError(caught.value.problem)


def test_decode_image_refuses_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jpg: is missing"):
        decode_image(tmp_path / "none.jpg")
    with pytest.raises(DataError, match="is not a file"):
        decode_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(DataError, match="is not a file"):
        decode_image(tmp_path / "pipe.jpg")
    with pytest.raises(DataError, match="cannot be read"):
        decode_image(tmp_path / ("long" * 200))


def test_decode_image_refuses_a_bomb_before_decoding_it(tmp_path: Path) -> None:
    tiny = bytearray(encoded(picture()))
    frame = tiny.index(b"\xff\xc0")
    tiny[frame + 5 : frame + 9] = b"\xff\xdc\xff\xdc"
    with pytest.raises(DataError, match="36,000,000"):
        decode_image(written(tmp_path / "bomb.jpg", bytes(tiny)))


@pytest.mark.parametrize(("count", "workers"), [(5, None), (100, 1), (100, 3), (64, 2)])
def test_decode_all_keeps_order_and_goes_on_after_a_fault(tmp_path: Path, count: int, workers: int) -> None:
    paths = [written(tmp_path / f"{i}.jpg", encoded(picture(i, width=8 + i))) for i in range(count)]
    paths[3].write_bytes(b"")
    results = decode_all(paths, lambda image: image.shape[1], workers=workers)
    assert isinstance(results[3], DataError)
    assert [width for i, width in enumerate(results) if i != 3] == [8 + i for i in range(count) if i != 3]


def test_check_images_names_only_the_bad_ones(tmp_path: Path) -> None:
    good = encoded(picture())
    contents = {0: b"", 70: good[:-40]}
    paths = [written(tmp_path / f"{i}.jpg", contents.get(i, good)) for i in range(90)]
    faults = check_images(paths, workers=2)
    assert sorted(faults) == [0, 70]
    assert faults[0] == f"{paths[0]}: is empty"
    assert "truncated" in faults[70]
    assert check_images(paths[1:3]) == {}
