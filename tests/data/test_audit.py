"""Leaks that the audit must find, and the distance by which it knows a near copy."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from dermdistill.config import DataConfig
from dermdistill.data.audit import audit_split, exact_copies_across, images_sharing_lesion, lesions_across
from dermdistill.data.catalog import COLUMNS
from dermdistill.data.copies import (
    NEAR_DISTANCE,
    all_copies,
    copies_of,
    details,
    exact_copies,
    fingerprints,
    grey_thumbnail,
    near_pairs,
)
from dermdistill.data.readers import READERS
from dermdistill.data.split import Split, make_split
from dermdistill.data.store import ImageStore
from dermdistill.errors import ConfigError, DataError


def picture(seed: int, width: int = 96, height: int = 72) -> Image.Image:
    """Smooth random blots: structure at the scale that thumbnails see."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def make_catalog(folder: Path, pictures: list[Image.Image], lesions: list[str]) -> pd.DataFrame:
    names = [f"im{number:03d}" for number in range(len(pictures))]
    for name, image in zip(names, pictures, strict=True):
        image.save(folder / f"{name}.png")
    frame = pd.DataFrame({"image_id": names, "lesion_id": lesions, "path": [str(folder / f"{n}.png") for n in names]})
    frame["diagnosis"] = ["mel" if number % 2 else "nv" for number in range(len(names))]
    frame["mask_path"] = None
    frame["age"] = 40.0
    frame[["diagnosis_source", "sex", "site", "source"]] = ["histo", "male", "arm", "made up"]
    return frame[list(COLUMNS)]


def split_of(parts: list[str], protocol: str = "lesion", names: list[str] | None = None) -> Split:
    names = names or [f"im{number:03d}" for number in range(len(parts))]
    return Split(pd.DataFrame({"image_id": names, "split": parts}), {"protocol": protocol})


PARTS_OF_SIX = ["train", "train", "train", "val", "test", "test"]


@pytest.fixture
def distinct(tmp_path: Path) -> pd.DataFrame:
    return make_catalog(tmp_path, [picture(seed) for seed in range(6)], [f"L{n}" for n in range(6)])


def test_audit_of_a_clean_split_passes(distinct: pd.DataFrame) -> None:
    report = audit_split(distinct, split_of(PARTS_OF_SIX))
    assert report["passed"] is True and report["promises_disjoint"] is True
    assert report["lesions_across"] == {"count": 0, "lesions": []}
    assert report["exact_copies_across"] == {"count": 0, "test_share": 0.0, "pairs": []}
    assert report["near_copies"] == {
        "count": 0,
        "different_lesions": 0,
        "threshold": NEAR_DISTANCE,
        "pairs": [],
    }
    assert report["images_sharing_lesion_across"] == {"share": 0.0, "melanoma_share": 0.0}
    assert json.loads(json.dumps(report, allow_nan=False)) == report


@pytest.mark.parametrize(
    ("protocol", "promises"),
    [("lesion", True), ("given", True), ("published", False), ("published-oversampled", False)],
)
def test_audit_finds_a_lesion_in_two_parts(distinct: pd.DataFrame, protocol: str, promises: bool) -> None:
    distinct.loc[[0, 1, 4], "lesion_id"] = "shared"
    report = audit_split(distinct, split_of(PARTS_OF_SIX, protocol))
    assert report["lesions_across"] == {
        "count": 1,
        "lesions": [{"lesion_id": "shared", "parts": ["train", "test"], "images": 3}],
    }
    assert report["promises_disjoint"] is promises and report["passed"] is not promises
    # Of the two test images one shares its lesion; the only melanoma among them does not.
    assert report["images_sharing_lesion_across"] == {"share": 0.5, "melanoma_share": 0.0}


def test_audit_finds_an_exact_copy_under_another_lesion_and_file(tmp_path: Path) -> None:
    pictures = [picture(seed) for seed in (0, 1, 2, 3, 1, 5)]
    catalog = make_catalog(tmp_path, pictures, [f"L{n}" for n in range(6)])
    # The same pixels in a file of other bytes
    pictures[1].save(tmp_path / "im004.png", compress_level=0)
    report = audit_split(catalog, split_of(PARTS_OF_SIX))
    pair = {"a": "im001", "b": "im004", "parts": ["train", "test"], "same_lesion": False}
    assert report["exact_copies_across"] == {"count": 1, "test_share": 0.5, "pairs": [pair]}
    assert report["passed"] is False and report["lesions_across"]["count"] == 0
    assert report["near_copies"]["count"] == 0


def test_audit_with_a_store_judges_copies_by_its_rows(distinct: pd.DataFrame) -> None:
    images = np.random.default_rng(0).integers(0, 255, (6, 8, 8, 3), dtype=np.uint8)
    images[5] = images[3]
    store = ImageStore(images=images, image_ids=tuple(distinct["image_id"]), sha256="0" * 64)
    assert exact_copies(store) == [("im003", "im005")]
    report = audit_split(distinct, split_of(PARTS_OF_SIX), store)
    assert report["exact_copies_across"]["pairs"] == [
        {"a": "im003", "b": "im005", "parts": ["val", "test"], "same_lesion": False}
    ]


def test_audit_lists_near_copies_nearest_first(tmp_path: Path) -> None:
    first, second = picture(1), picture(2)
    pictures = [
        first,
        second,
        picture(3),
        ImageEnhance.Brightness(first).enhance(0.8),
        second.rotate(90, expand=True).resize((72, 96)),
        ImageEnhance.Color(second.transpose(Image.Transpose.FLIP_LEFT_RIGHT)).enhance(0.5),
    ]
    catalog = make_catalog(tmp_path, pictures, ["A", "B", "C", "D", "B", "E"])
    near = audit_split(catalog, split_of(PARTS_OF_SIX, "published"))["near_copies"]
    found = {(pair["a"], pair["b"]): (pair["parts"], pair["same_lesion"]) for pair in near["pairs"]}
    assert found == {
        ("im000", "im003"): (["train", "val"], False),
        ("im001", "im004"): (["train", "test"], True),
        ("im001", "im005"): (["train", "test"], False),
    }
    distances = [pair["distance"] for pair in near["pairs"]]
    assert distances == sorted(distances) and distances[0] >= 0 and distances[-1] <= NEAR_DISTANCE
    assert near["count"] == 3 and near["different_lesions"] == 2


def test_audit_of_an_image_in_two_parts_counts_it_as_a_copy(distinct: pd.DataFrame) -> None:
    names = [*distinct["image_id"], "im000", "im000", "im000"]
    split = split_of([*PARTS_OF_SIX, "train", "test", "test"], "published-oversampled", names)
    report = audit_split(distinct, split)
    pair = {"a": "im000", "b": "im000", "parts": ["train", "test"], "same_lesion": True}
    # Of the four test rows two are im000, which is also in train.
    assert report["exact_copies_across"] == {"count": 1, "test_share": 0.5, "pairs": [pair]}
    assert report["near_copies"]["count"] == 0


def test_exact_copies_across_counts_equal_those_of_all_pairs() -> None:
    random = np.random.default_rng(3)
    rows = pd.DataFrame(
        {
            "image_id": [f"i{number}" for number in range(60)],
            "split": random.choice(["train", "val", "test"], 60),
            "lesion_id": "L",
        }
    )
    keys = {f"i{number}": str(random.integers(0, 8)) for number in range(60)}
    part = dict(zip(rows["image_id"], rows["split"], strict=True))
    pairs = [(a, b) for a, b in combinations(sorted(part), 2) if keys[a] == keys[b] and part[a] != part[b]]
    report = exact_copies_across(rows, keys)
    assert report["count"] == len(pairs) > 50 and len(report["pairs"]) == 50
    listed = {tuple(sorted((pair["a"], pair["b"]))) for pair in report["pairs"]}
    assert len(listed) == 50 and listed <= set(pairs)


def test_lesions_across_lists_the_first_fifty_and_counts_all() -> None:
    rows = pd.DataFrame(
        {
            "image_id": [f"i{number}" for number in range(140)],
            "lesion_id": [f"L{number // 2:03d}" for number in range(140)],
            "split": ["train", "val"] * 70,
        }
    )
    report = lesions_across(rows)
    assert report["count"] == 70 and len(report["lesions"]) == 50
    assert report["lesions"][0] == {"lesion_id": "L000", "parts": ["train", "val"], "images": 2}


def test_images_sharing_lesion_counts_lesions_in_train_and_in_validation() -> None:
    rows = pd.DataFrame(
        {
            "lesion_id": ["A", "B", "A", "B", "C", "C", "D"],
            "split": ["train", "val", "test", "test", "test", "test", "train"],
            "diagnosis": ["nv", "mel", "nv", "mel", "nv", "nv", "mel"],
        }
    )
    assert images_sharing_lesion(rows) == {"share": 0.5, "melanoma_share": 1.0}
    assert images_sharing_lesion(rows[rows["lesion_id"] == "D"]) == {"share": None, "melanoma_share": None}


def test_audit_of_another_catalog_names_every_difference(distinct: pd.DataFrame) -> None:
    split = split_of(PARTS_OF_SIX, names=["im000", "im001", "im002", "im003", "im004", "im9"])
    with pytest.raises(DataError) as error:
        audit_split(distinct, split)
    assert error.value.faults == (
        "split: image 'im9' is not in the data",
        "data: image 'im005' is in no part",
    )


def test_audit_names_every_image_that_cannot_be_read(distinct: pd.DataFrame) -> None:
    Path(distinct.loc[1, "path"]).write_text("no image")
    Path(distinct.loc[4, "path"]).unlink()
    with pytest.raises(DataError) as error:
        audit_split(distinct, split_of(PARTS_OF_SIX))
    assert len(error.value.faults) == 2
    assert "im001.png" in error.value.faults[0] and "im004.png" in error.value.faults[1]


@pytest.mark.parametrize("distance", [-0.1, 1.0, float("nan")])
def test_audit_refuses_a_distance_out_of_range(distinct: pd.DataFrame, distance: float) -> None:
    with pytest.raises(ConfigError, match="near_distance"):
        audit_split(distinct, split_of(PARTS_OF_SIX), near_distance=distance)


def test_copies_of_pairs_each_copy_with_the_first() -> None:
    assert copies_of({"c": "x", "a": "x", "b": "y", "d": "x"}) == [("a", "c"), ("a", "d")]


def test_make_split_with_exact_copies_passes_its_audit(tmp_path: Path) -> None:
    pictures = [picture(seed) for seed in range(12)] + [picture(seed) for seed in range(12)]
    catalog = make_catalog(tmp_path, pictures, [f"L{number:02d}" for number in range(24)])
    pairs = exact_copies(catalog)
    assert pairs == [(f"im{number:03d}", f"im{number + 12:03d}") for number in range(12)]
    assert audit_split(catalog, make_split(catalog, DataConfig()))["passed"] is False
    assert audit_split(catalog, make_split(catalog, DataConfig(), pairs))["passed"] is True


def test_all_copies_holds_exact_and_near_ones(tmp_path: Path) -> None:
    pictures = [picture(1), picture(2), picture(1), ImageEnhance.Brightness(picture(2)).enhance(0.9)]
    flat = Image.new("RGB", (20, 20), "red")
    catalog = make_catalog(tmp_path, [*pictures, flat, flat], list("ABCDEF"))
    assert all_copies(catalog) == [("im000", "im002"), ("im001", "im003"), ("im004", "im005")]


def correlation_distance(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """The definition, written out: blur by Gaussian weights of sum 1, subtract, correlate, least of turns."""

    def fine(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        place = np.arange(32)
        blurred = np.zeros((32, 32))
        for row, column in np.ndindex(32, 32):
            weight = np.exp(-((place[:, None] - row) ** 2 + (place[None, :] - column) ** 2) / 8.0)
            blurred[row, column] = (weight * image).sum() / weight.sum()
        return image - blurred

    views = [turn for k in range(4) for turn in (np.rot90(one, k), np.fliplr(np.rot90(one, k)))]
    reference = fine(other).ravel()
    return float(1 - max(np.corrcoef(fine(view).ravel(), reference)[0, 1] for view in views))


def test_near_pairs_equal_the_definition_written_out() -> None:
    thumbnails = [grey_thumbnail(np.asarray(picture(seed))) for seed in range(3)]
    thumbnails.append(np.rot90(thumbnails[1], 3) * 0.7 + np.random.default_rng(0).normal(0, 4, (32, 32)))
    stack = np.stack(thumbnails).astype(np.float32)
    found = near_pairs(details(stack), np.arange(4), np.arange(4), distance=0.999)
    assert set(found) == set(combinations(range(4), 2))
    for (one, other), distance in found.items():
        assert distance == pytest.approx(correlation_distance(stack[one], stack[other]), abs=1e-4)
    assert found[1, 3] < NEAR_DISTANCE < min(value for pair, value in found.items() if pair != (1, 3))


def test_flat_pictures_are_near_to_nothing() -> None:
    flat = np.full((3, 32, 32), 128, dtype=np.float32)
    flat[2] += np.random.default_rng(0).normal(0, 20, (32, 32)).astype(np.float32)
    assert near_pairs(details(flat), np.arange(3), np.arange(3), distance=0.9) == {}


@pytest.fixture(scope="module")
def real_catalog(ham10000: Path) -> pd.DataFrame:
    return READERS["ham10000"](ham10000)


@pytest.mark.real
def test_audit_of_ham10000_tells_the_protocols_apart(real_catalog: pd.DataFrame) -> None:
    # A fifth of the lesions, as decoding all takes its time; test_split checks all lesions.
    some = set(sorted(set(real_catalog["lesion_id"]))[::5])
    catalog = real_catalog[real_catalog["lesion_id"].isin(some)]
    published = audit_split(catalog, make_split(catalog, DataConfig(protocol="published")))
    assert published["lesions_across"]["count"] > 100 and published["near_copies"]["count"] > 0
    lesion = audit_split(catalog, make_split(catalog, DataConfig()))
    assert lesion["passed"] and lesion["lesions_across"]["count"] == 0
    assert lesion["images_sharing_lesion_across"] == {"share": 0.0, "melanoma_share": 0.0}
    # Across the parts of this split only one picture under two lesion ids can be a near copy.
    assert all(not pair["same_lesion"] for pair in lesion["near_copies"]["pairs"])
    assert lesion["near_copies"]["count"] <= 1


@pytest.mark.real
def test_leakage_of_image_level_splits_of_ham10000_is_as_measured_by_others(
    real_catalog: pd.DataFrame,
) -> None:
    columns = real_catalog[["image_id", "lesion_id", "diagnosis"]]
    published = make_split(real_catalog, DataConfig(protocol="published")).table.merge(columns, on="image_id")
    shares = images_sharing_lesion(published)
    assert shares["share"] == pytest.approx(0.387, abs=0.03)
    assert shares["melanoma_share"] == pytest.approx(0.683, abs=0.05)
    copies = make_split(real_catalog, DataConfig(protocol="published-oversampled")).table.merge(columns, on="image_id")
    own_key = {name: name for name in real_catalog["image_id"]}
    assert exact_copies_across(copies, own_key)["test_share"] == pytest.approx(0.93, abs=0.01)


@pytest.mark.real
def test_near_copies_of_ham10000_are_photographs_of_one_lesion_but_for_one_known_pair(
    real_catalog: pd.DataFrame,
) -> None:
    catalog = real_catalog
    crowd = catalog[catalog["lesion_id"].duplicated(keep=False)].groupby("lesion_id").head(2).head(400)
    known = catalog[catalog["image_id"].isin(["ISIC_0025226", "ISIC_0030074", "ISIC_0024366", "ISIC_0029861"])]
    some = pd.concat([crowd, known]).drop_duplicates("image_id").sort_values("image_id")
    lesion = dict(zip(some["image_id"], some["lesion_id"], strict=True))
    pairs = all_copies(some)
    assert ("ISIC_0024366", "ISIC_0029861") in exact_copies(known)
    assert [pair for pair in pairs if lesion[pair[0]] != lesion[pair[1]]] == [("ISIC_0025226", "ISIC_0030074")]
    assert len(pairs) > 3
    assert len(fingerprints(known).image_ids) == 4
