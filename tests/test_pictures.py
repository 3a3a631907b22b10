"""From bytes to an upright RGB picture: every kind of picture, and a named reason for everything else."""

import io
import struct
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from dermdistill import pictures
from dermdistill.pictures import PictureError, read_content, read_pixels

# The decoder is chosen once a test, not once an example.
UNCHECKED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
KINDS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")


def photo(height: int = 37, width: int = 53) -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(content: bytes) -> npt.NDArray[np.uint8]:
    found = read_pixels(content)
    assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3 and found.flags.c_contiguous
    return found


@pytest.fixture(params=["simplejpeg", "Pillow alone"], autouse=True)
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything holds with and without simplejpeg, which a server need not have."""
    if request.param != "simplejpeg":
        monkeypatch.setattr(pictures, "simplejpeg", None)
    return str(request.param)


def refused(content: bytes) -> PictureError:
    with pytest.raises(PictureError) as caught:
        read_pixels(content, "lesion.jpg")
    assert caught.value.problem.startswith("lesion.jpg: ")
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_pillows_pixels(kind: str) -> None:
    content = encoded(photo(), kind)
    np.testing.assert_array_equal(pixels(content), np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("LAB", "TIFF")],
)
def test_grey_palettes_and_print_colours_become_rgb(mode: str, kind: str) -> None:
    source = ImageOps.grayscale(photo()) if mode == "1" else photo()
    content = encoded(source.convert("LAB") if mode == "LAB" else source.convert(mode), kind)
    np.testing.assert_array_equal(pixels(content), np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_picture_lies_as_the_camera_held_it(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    content = encoded(photo(), kind, exif=exif.tobytes())
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    np.testing.assert_array_equal(pixels(content), np.asarray(expected))


@pytest.mark.parametrize("exif", [b"Exif\x00\x00", b"Exif\x00\x00MM\x00*\xff\xff\xff\xff", b"Exif\x00\x00nonsense"])
def test_damaged_exif_costs_no_pixels(exif: bytes) -> None:
    content = encoded(photo(), "JPEG", exif=exif)
    np.testing.assert_array_equal(pixels(content), np.asarray(Image.open(io.BytesIO(encoded(photo(), "JPEG")))))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(kind: str) -> None:
    grey = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    found = pixels(encoded(Image.fromarray(grey), kind))
    np.testing.assert_array_equal(found, np.repeat(np.rint(grey / 257).astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_white(mode: str) -> None:
    alpha = np.zeros((8, 8), dtype=np.uint8)
    alpha[:, 4:] = 255
    picture = photo(8, 8).convert(mode[:-1])
    opaque = np.asarray(picture.convert("RGB"))
    picture.putalpha(Image.fromarray(alpha))
    found = pixels(encoded(picture))
    assert (found[:, :4] == 255).all()
    np.testing.assert_array_equal(found[:, 4:], opaque[:, 4:])


def test_transparent_colour_of_a_palette_is_white() -> None:
    picture = Image.new("P", (4, 1), 0)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putpixel((3, 0), 1)
    found = pixels(encoded(picture, "PNG", transparency=0))
    np.testing.assert_array_equal(found[0], [[255] * 3] * 3 + [[200, 100, 50]])


def test_first_frame_counts() -> None:
    frames = [Image.new("RGB", (5, 5), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    assert (pixels(content) == (255, 0, 0)).all()


def entry(content: bytes, tag: int) -> int:
    """Where a little-endian TIFF describes a tag."""
    start = int.from_bytes(content[4:8], "little")
    places = range(start + 2, len(content) - 1, 12)
    return next(place for place in places if int.from_bytes(content[place : place + 2], "little") == tag)


def test_grey_of_twelve_bits_is_scaled_over_its_range() -> None:
    """A TIFF that says 12 bits a sample: 4095 is white, not a sixteenth of it."""
    content = bytearray(encoded(Image.fromarray(np.full((4, 4), 0x0FFF, dtype=np.uint16)), "TIFF"))
    bits, strip = entry(content, 258), entry(content, 273)
    content[bits + 8 : bits + 10] = (12).to_bytes(2, "little")
    data = int.from_bytes(content[strip + 8 : strip + 12], "little")
    content[data : data + 24] = b"\xff" * 24
    assert (pixels(bytes(content)) == 255).all()


def test_transparent_grey_of_sixteen_bits_is_white() -> None:
    grey = np.array([[1000, 30000]], dtype=np.uint16)
    content = encoded(Image.fromarray(grey), "PNG", transparency=1000)
    assert pixels(content)[0].tolist() == [[255] * 3, [round(30000 / 257)] * 3]


def _jpegs() -> list[bytes]:
    made = [encoded(photo(150, 200), "JPEG", quality=90, subsampling=kind) for kind in (0, 1, 2)]
    made += [encoded(photo(150, 200), "JPEG", progressive=True), encoded(photo(150, 200).convert("L"), "JPEG")]
    made.append(encoded(photo(150, 200), "JPEG", restart_marker_blocks=8))
    return made


@pytest.mark.parametrize("content", _jpegs())
def test_both_decoders_give_the_same_pixels(content: bytes) -> None:
    np.testing.assert_array_equal(pixels(content), np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


@pytest.mark.parametrize("exif", [b"", b"Exif\x00\x00nonsense"])
def test_hole_in_a_jpeg_is_seen_by_simplejpeg_whether_or_not_there_is_exif(exif: bytes, decoder: str) -> None:
    content = encoded(photo(150, 200), "JPEG", quality=90, exif=exif)
    middle = len(content) // 2
    holed = content[:middle] + content[middle + 400 :]
    if decoder == "simplejpeg":
        assert refused(holed).reason == "damaged"
    else:
        assert pixels(holed).shape == (150, 200, 3)


def _header_of_size(width: int, height: int) -> bytes:
    content = bytearray(encoded(photo(), "JPEG"))
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = height.to_bytes(2) + width.to_bytes(2)
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        (b"", "empty", "is empty"),
        (b"GIF? no", "not_an_image", "it holds text"),
        (b"\x00\x01\xfe" * 99, "not_an_image", "is not an image"),
        (encoded(photo(), "JPEG")[:20], "not_an_image", "cut off in its header"),
        (encoded(photo(), "JPEG")[:400], "damaged", "truncated"),
        (encoded(photo())[:300], "damaged", "cannot be decoded"),
        (encoded(photo(), "PPM"), "not_an_image", "is not an image"),
        (encoded(photo(), "GIF"), "not_an_image", "is not an image"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "pixel_type", "floating-point"),
        (encoded(Image.new("I", (4, 4)), "TIFF"), "pixel_type", "32-bit integers"),
        (_header_of_size(65500, 65500), "too_large", "36,000,000"),
        (_header_of_size(6001, 6000), "too_large", "6001 x 6000 pixels; at most 32,767 a side and 36,000,000 in all"),
        (_header_of_size(40000, 10), "too_large", "40000 x 10 pixels"),
        (
            encoded(Image.new("1", (5000, 4001))),
            "too_large",
            "5000 x 4001 pixels; at most 32,767 a side and 20,000,000",
        ),
        (b"\xff\xd8" + b"\xff\xfe\x00\x02" * 5000 + encoded(photo(), "JPEG")[2:], "damaged", "4,096 segments"),
        (encoded(photo())[:33] + (b"\0" * 4 + b"teSt" + b"\0" * 4) * 50_000, "damaged", "40,000 segments"),
    ],
)
def test_what_cannot_be_used_is_refused_by_reason(content: bytes, reason: str, words: str) -> None:
    error = refused(content)
    assert error.reason == reason
    assert words in error.problem


def test_progressive_jpeg_of_endless_scans_is_refused() -> None:
    content = encoded(photo(), "JPEG", progressive=True)
    first = content.index(b"\xff\xda")
    wide = bytearray(content)
    frame = wide.index(b"\xff\xc2")
    wide[frame + 5 : frame + 9] = (6000).to_bytes(2) + (6000).to_bytes(2)
    bomb = bytes(wide[:first]) + content[first:-2] * 5 + content[-2:]
    assert refused(bomb).reason == "too_large"
    assert "scans, which would take too long" in refused(bomb).problem
    assert pixels(content).shape == (37, 53, 3)


@settings(deadline=None, max_examples=300, suppress_health_check=UNCHECKED)
@given(st.sampled_from(KINDS), st.data())
def test_altered_bytes_give_a_picture_or_a_reason(kind: str, data: st.DataObject) -> None:
    content = bytearray(encoded(photo(), kind))
    for _ in range(data.draw(st.integers(0, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    try:
        pixels(bytes(content[:cut]))
    except PictureError as error:
        assert error.reason in ("empty", "not_an_image", "damaged", "too_large", "pixel_type")


@settings(suppress_health_check=UNCHECKED)
@given(st.binary(max_size=300))
@example(b"\xff\xd8\xff")
@example(b"\x89PNG\r\n\x1a\n")
@example(b"II*\x00\x08\x00\x00\x00")
def test_any_bytes_give_a_picture_or_a_reason(content: bytes) -> None:
    try:
        read_pixels(content)
    except PictureError as error:
        assert error.problem


def test_no_thread_leaves_the_warning_filters_changed() -> None:
    content = encoded(photo(150, 200), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [read_pixels(content) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before


def test_lack_of_memory_is_not_called_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(pictures, "_check_size", fails)
    assert refused(encoded(photo())).reason == "no_memory"


def test_tiles_larger_than_any_picture_are_refused() -> None:
    content = bytearray(encoded(photo(), "TIFF"))
    for old, new in ((278, 322), (284, 323)):
        place = entry(content, old)
        content[place : place + 12] = struct.pack("<HHII", new, 4, 1, 8192)
    error = refused(bytes(content))
    assert error.reason == "too_large" and "tiles of 67,108,864 pixels" in error.problem


def test_tiff_whose_tag_lists_millions_of_values_is_refused() -> None:
    content = bytearray(encoded(photo(), "TIFF"))
    place = entry(content, 273)
    content[place : place + 8] = struct.pack("<HHI", 273, 4, 20_000_000)
    assert "tag 273 lists 20,000,000 values" in refused(bytes(content)).problem


def test_file_of_too_many_bytes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_BYTES", 100)
    (tmp_path / "a.jpg").write_bytes(bytes(101))
    with pytest.raises(PictureError) as caught:
        read_content(tmp_path / "a.jpg")
    assert caught.value.reason == "too_many_bytes"
    assert refused(bytes(101)).reason == "too_many_bytes"


def test_file_that_cannot_be_had_says_why(tmp_path: Path) -> None:
    def reason(path: Path) -> str:
        with pytest.raises(PictureError) as caught:
            read_content(path)
        return caught.value.reason

    (tmp_path / "empty.jpg").touch()
    assert reason(tmp_path / "gone.jpg") == "missing"
    assert reason(tmp_path) == "not_a_file"
    assert reason(tmp_path / "empty.jpg") == "empty"
    assert reason(tmp_path / ("long" * 200)) == "unreadable"
    assert reason(Path("nul\0.jpg")) in ("unreadable", "missing")
