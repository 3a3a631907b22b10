"""What a bundle says of the images that its models have seen: round trip, size, names that stay out, broken files."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermdistill.bundle import fingerprints
from dermdistill.bundle.fingerprints import SEEN_FILE, read_fingerprints, write_fingerprints
from dermdistill.data.overlap import picture_codes
from dermdistill.errors import BundleError, DataError


def photos(folder: Path, names: list[str]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in names]


def written(folder: Path, names: list[str], parts: list[str]) -> Path:
    lesions = [f"HAM_{number // 2:07}" for number in range(len(names))]
    paths = photos(folder / "photos", names)
    (folder / "bundle").mkdir()
    write_fingerprints(folder / "bundle", image_ids=names, lesion_ids=lesions, paths=paths, parts=parts)
    return folder / "bundle"


def test_fingerprints_come_back_as_they_were_written(tmp_path: Path) -> None:
    names = ["ISIC_0000009", "patient 7", "ISIC_0000002", "ISIC_0000005", "ISIC_0000001"]
    bundle = written(tmp_path, names, ["train", "train", "val", "test", "train"])
    seen = read_fingerprints(bundle)
    assert seen is not None
    assert seen.names == ("ISIC_0000001", "ISIC_0000009", "", "ISIC_0000002")
    assert seen.parts == ("train", "train", "train", "val")
    assert seen.lesions == {"HAM_0000000", "HAM_0000001", "HAM_0000002"}
    order = [names[4], names[0], names[1], names[2]]
    expected = picture_codes([tmp_path / "photos" / f"{name}.png" for name in order], order)
    assert np.array_equal(seen.codes, expected)


def test_a_name_that_may_tell_who_it_is_stays_out(tmp_path: Path) -> None:
    bundle = written(tmp_path, ["Mrs Smith 1951", "ISIC_0000001"], ["train", "test"])
    text = (bundle / SEEN_FILE).read_text()
    assert "Smith" not in text
    assert "ISIC_0000001" not in text, "the test part was not seen"
    assert str(tmp_path) not in text


def test_an_image_of_an_oversampled_part_is_kept_once(tmp_path: Path) -> None:
    paths = photos(tmp_path / "photos", ["ISIC_0000001"]) * 3
    ids, lesions = ["ISIC_0000001"] * 3, ["HAM_0000001"] * 3
    seen = write_fingerprints(
        tmp_path, image_ids=ids, lesion_ids=lesions, paths=paths, parts=["train", "train", "test"]
    )
    assert seen.names == ("ISIC_0000001",)


def test_8500_images_take_less_than_400_kilobytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    monkeypatch.setattr(
        fingerprints, "picture_codes", lambda paths, ids: rng.integers(0, 256, (len(ids), 16), dtype=np.uint8)
    )
    number = 8500
    write_fingerprints(
        tmp_path,
        image_ids=[f"ISIC_{index:07}" for index in range(number)],
        lesion_ids=[f"HAM_{index * 3 // 4:07}" for index in range(number)],
        paths=[Path("x")] * number,
        parts=["train"] * 7000 + ["val"] * 1500,
    )
    assert (tmp_path / SEEN_FILE).stat().st_size < 400_000
    seen = read_fingerprints(tmp_path)
    assert seen is not None
    assert (len(seen.names), len(seen.lesions), seen.parts.count("val")) == (8500, 6375, 1500)


def test_a_bundle_without_the_file_says_nothing(tmp_path: Path) -> None:
    assert read_fingerprints(tmp_path) is None


def test_no_seen_part_or_an_unreadable_image_is_refused(tmp_path: Path) -> None:
    paths = photos(tmp_path / "photos", ["a"])
    with pytest.raises(DataError, match="no image was seen"):
        write_fingerprints(tmp_path, image_ids=["a"], lesion_ids=["a"], paths=paths, parts=["test"])
    paths[0].write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 1 images cannot be read"):
        write_fingerprints(tmp_path, image_ids=["a"], lesion_ids=["a"], paths=paths, parts=["val"])
    assert not (tmp_path / SEEN_FILE).exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: {**content, "format": 9},
        lambda content: {**content, "hash": "other"},
        lambda content: {key: value for key, value in content.items() if key != "lesions"},
        lambda content: {**content, "parts": {"train": content["parts"]["train"]}},
        lambda content: {
            **content,
            "parts": {part: {**own, "codes": "AAAA"} for part, own in content["parts"].items()},
        },
        lambda content: {**content, "parts": {part: {**own, "codes": "!"} for part, own in content["parts"].items()}},
        lambda content: [],
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, damage) -> None:
    bundle = written(tmp_path, ["ISIC_0000001", "ISIC_0000002"], ["train", "val"])
    path = bundle / SEEN_FILE
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(BundleError, match=rf"{SEEN_FILE}: cannot be used"):
        read_fingerprints(bundle)
    path.write_bytes(b"\xff{")
    with pytest.raises(BundleError, match="cannot be used"):
        read_fingerprints(bundle)


def test_reading_fingerprints_needs_no_training_packages() -> None:
    code = (
        "import sys, dermdistill.bundle.fingerprints\n"
        "print(*(name for name in ('torch', 'pandas', 'scipy', 'sklearn', 'pydantic') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
