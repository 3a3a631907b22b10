"""Paired injection: what must hold whatever the data, and a small case worked out by hand."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dermdistill.config import DataConfig
from dermdistill.data.catalog import COLUMNS
from dermdistill.data.injection import PROTOCOL, InjectedSplit, injected_split
from dermdistill.data.split import INFO_KEYS, Split, load_split, make_split, write_split
from dermdistill.errors import DataError
from dermdistill.labels import CODES

CODES_USED = ("mel", "nv", "df")


def catalog_of(lesions: dict[str, list[int]]) -> pd.DataFrame:
    """A catalog from diagnosis -> images of each lesion."""
    rows = [
        {"lesion_id": f"{code}-{lesion}", "image_id": f"{code}-{lesion}-{photo}", "diagnosis": code}
        for code, sizes in lesions.items()
        for lesion, images in enumerate(sizes)
        for photo in range(images)
    ]
    frame = pd.DataFrame(rows)
    frame["path"] = frame["image_id"] + ".png"
    frame["mask_path"] = None
    frame[["diagnosis_source", "sex", "site", "source"]] = ["histo", "female", "back", "made up"]
    frame["age"] = 50.0
    return frame[list(COLUMNS)]


def split_by_hand(catalog: pd.DataFrame, parts: dict[str, str]) -> Split:
    """A split that puts each lesion where it is told to."""
    table = pd.DataFrame({"image_id": catalog["image_id"], "split": catalog["lesion_id"].map(parts)}, dtype="str")
    info = {"protocol": "lesion", "catalog_sha256": "catalog", "split_sha256": "clean"}
    return Split(table.sort_values("image_id", ignore_index=True), info)


def lesions_of(catalog: pd.DataFrame, images: object) -> set[str]:
    return set(catalog.loc[catalog["image_id"].isin(images), "lesion_id"])  # type: ignore[arg-type]


def per_class(catalog: pd.DataFrame, split: Split) -> dict[str, int]:
    rows = catalog[catalog["image_id"].isin(split.ids("train"))]
    return {str(code): int(count) for code, count in rows["diagnosis"].value_counts().items()}


def data() -> st.SearchStrategy[dict[str, list[int]]]:
    sizes = st.lists(st.integers(1, 6), min_size=3, max_size=25)
    return st.dictionaries(st.sampled_from(CODES_USED), sizes, min_size=1)


def injected_or_nothing(catalog: pd.DataFrame, split: Split, seed: int) -> InjectedSplit:
    test = catalog[catalog["image_id"].isin(split.ids("test"))]
    train = catalog[catalog["image_id"].isin(split.ids("train"))]["diagnosis"].value_counts()
    several = test.groupby("lesion_id")["diagnosis"].agg(["size", "first"])
    assume(any(train[code] > 1 for code in several.loc[several["size"] > 1, "first"]))
    return injected_split(catalog, split, seed)


@given(data(), st.integers(0, 5), st.sampled_from([(0.15, 0.15), (0.1, 0.45)]))
@settings(max_examples=40, deadline=None)
def test_both_arms_differ_in_the_sisters_and_in_nothing_else(
    lesions: dict[str, list[int]], seed: int, fractions: tuple[float, float]
) -> None:
    catalog = catalog_of(lesions)
    clean = make_split(catalog, DataConfig(val_fraction=fractions[0], test_fraction=fractions[1]))
    arm = injected_or_nothing(catalog, clean, seed)
    before, after = set(clean.ids("train")), set(arm.split.ids("train"))

    assert per_class(catalog, clean) == per_class(catalog, arm.split)
    assert set(arm.sisters) == after - before and set(arm.removed) == before - after
    assert arm.split.ids("val") == clean.ids("val")

    test = set(clean.ids("test"))
    assert list(arm.kept) == arm.split.ids("test") and set(arm.kept) <= test
    assert lesions_of(catalog, arm.kept) == lesions_of(catalog, test)
    assert len(arm.kept) == len(lesions_of(catalog, test))
    assert not set(arm.kept) & after and set(arm.sisters) <= test - set(arm.kept)

    known = lesions_of(catalog, arm.sisters)
    assert not known & lesions_of(catalog, before), "a test lesion was in the clean training part"
    assert set(arm.leakable) == {image for image in arm.kept if lesions_of(catalog, [image]) <= known}
    assert lesions_of(catalog, arm.leakable) == known == lesions_of(catalog, arm.kept) & lesions_of(catalog, after)

    left_over = test - set(arm.kept) - set(arm.sisters)
    assert bool(left_over) == bool(arm.notes)
    for code, images in catalog[catalog["image_id"].isin(before)].groupby("diagnosis")["image_id"]:
        assert set(images) & after, f"no training image of {code} stayed"


@given(data(), st.integers(0, 5), st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_injection_does_not_depend_on_the_order_of_rows(lesions: dict[str, list[int]], seed: int, draw: object) -> None:
    catalog = catalog_of(lesions)
    clean = make_split(catalog, DataConfig(test_fraction=0.4))
    arm = injected_or_nothing(catalog, clean, seed)
    mixed = [frame.sample(frac=1, random_state=draw.randrange(2**31)) for frame in (catalog, clean.table)]  # type: ignore[attr-defined]
    again = injected_split(mixed[0], Split(mixed[1].reset_index(drop=True), clean.info), seed)
    assert again.split.info == arm.split.info and again.split.table.equals(arm.split.table)
    assert (again.leakable, again.sisters, again.removed) == (arm.leakable, arm.sisters, arm.removed)


def test_another_seed_keeps_and_removes_other_images() -> None:
    catalog = catalog_of({"nv": [4] * 40, "mel": [3] * 20})
    clean = make_split(catalog, DataConfig(test_fraction=0.3))
    arms = [injected_split(catalog, clean, seed) for seed in range(4)]
    assert len({arm.kept for arm in arms}) == len({arm.removed for arm in arms}) == 4
    assert len({arm.split.info["split_sha256"] for arm in arms}) == 4


def test_one_training_image_of_a_class_stays_and_every_lesion_comes_first_once() -> None:
    catalog = catalog_of({"df": [1, 1, 1, 1, 4, 4], "nv": [5, 1, 2]})
    parts = {"df-0": "train", "df-1": "train", "df-2": "train", "df-3": "val", "df-4": "test", "df-5": "test"}
    clean = split_by_hand(catalog, parts | {"nv-0": "train", "nv-1": "val", "nv-2": "test"})
    arm = injected_split(catalog, clean, seed=3)
    sisters = [name.rsplit("-", 1)[0] for name in arm.sisters]
    assert sorted(sisters) == ["df-4", "df-5", "nv-2"]
    assert len(arm.leakable) == 3
    assert sum(name.startswith("df") for name in arm.removed) == 2
    assert arm.notes == (
        "df: 2 of 6 sister images were injected, since training has 3 of this class and one at least stays.",
    )


def test_a_class_with_one_training_image_takes_no_sister() -> None:
    catalog = catalog_of({"df": [1, 1, 3], "nv": [5, 1, 2]})
    parts = {"df-0": "train", "df-1": "val", "df-2": "test", "nv-0": "train", "nv-1": "val", "nv-2": "test"}
    arm = injected_split(catalog, split_by_hand(catalog, parts), seed=0)
    assert [name[:2] for name in arm.sisters] == ["nv"]
    assert [name[:4] for name in arm.leakable] == ["nv-2"] and len(arm.kept) == 2
    assert "0 of 2 sister images" in arm.notes[0]


def test_information_describes_the_injected_arm(tmp_path: Path) -> None:
    catalog = catalog_of({"nv": [3] * 20, "mel": [2] * 10})
    clean = make_split(catalog, DataConfig())
    arm = injected_split(catalog, clean, seed=1)
    write_split(arm.split, tmp_path)
    info = load_split(tmp_path).info
    assert load_split(tmp_path).table.equals(arm.split.table), "as written, the hash must hold"
    assert set(INFO_KEYS) <= set(info) and info["protocol"] == PROTOCOL and info["leaky"] is True and info["seed"] == 1
    assert info["catalog_sha256"] == clean.info["catalog_sha256"]
    assert info["split_sha256"] != info["clean_split_sha256"] == clean.info["split_sha256"]
    assert info["leakable"] == list(arm.leakable)
    rows = arm.split.table.merge(catalog, on="image_id")
    for part, own in rows.groupby("split"):
        assert info["images"][part] == len(own) and info["lesions"][part] == own["lesion_id"].nunique()
        assert info["counts"][part] == {code: int((own["diagnosis"] == code).sum()) for code in CODES}
        assert info["fractions"][part] == len(own) / len(rows)


def test_split_that_leaks_already_is_refused_with_its_lesions() -> None:
    catalog = catalog_of({"nv": [3] * 20})
    leaky = make_split(catalog, DataConfig(protocol="published"))
    with pytest.raises(DataError, match="lie in more than one part") as caught:
        injected_split(catalog, leaky, seed=0)
    assert caught.value.faults and caught.value.faults[0].startswith("lesion nv-")


def test_oversampled_split_is_refused() -> None:
    catalog = catalog_of({"nv": [1] * 20})
    with pytest.raises(DataError, match="lie in more than one part"):
        injected_split(catalog, make_split(catalog, DataConfig(protocol="published-oversampled")), seed=0)


def test_lesions_with_one_image_each_have_nothing_to_inject() -> None:
    catalog = catalog_of({"nv": [1] * 30, "mel": [1] * 10})
    with pytest.raises(DataError, match="nothing to inject") as caught:
        injected_split(catalog, make_split(catalog, DataConfig()), seed=0)
    assert "Next:" in str(caught.value)
