"""How an image gets its group, on catalogs made by hand."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from dermdistill.errors import DataError
from dermdistill.evaluate.subgroup_axes import Axis, axes_of

HAM10000_SITES = (
    "abdomen acral back chest ear face foot genital hand neck scalp trunk unknown|lower extremity|upper extremity"
)


def catalog(**columns: list[Any]) -> pd.DataFrame:
    images = len(next(iter(columns.values())))
    unknown = {"age": [np.nan] * images, "sex": ["unknown"] * images, "site": ["unknown"] * images}
    ids = {"image_id": [f"i{place}" for place in range(images)], "diagnosis_source": [None] * images}
    return pd.DataFrame({**ids, **unknown, **columns})


def measured(bands: list[str], reasons: list[str] | None = None) -> pd.DataFrame:
    ids = [f"i{place}" for place in range(len(bands))]
    return pd.DataFrame({"image_id": ids, "band": bands, "reason": reasons or [""] * len(bands)})


def names(axis: Axis) -> list[str]:
    """The group of each image by name."""
    assert axis.unavailable is None
    return [axis.groups[place] for place in axis.group_of]


def test_axes_are_there_even_where_all_is_unknown() -> None:
    axes = axes_of(catalog(age=[np.nan, np.nan]), None, None)
    assert list(axes) == ["age", "sex", "site", "label_source", "lesion_size", "skin_tone"]
    assert {name: axis.unavailable for name, axis in axes.items()} == {
        "age": "the data give no age",
        "sex": "the data give no sex",
        "site": "the data give no body site",
        "label_source": "the data do not say how the diagnoses were made",
        "lesion_size": "it was not measured",
        "skin_tone": "it was not measured",
    }


@pytest.mark.parametrize(
    ("age", "band"),
    [
        (0.0, "under 30"),
        (29.5, "under 30"),
        (30.0, "30 to 44"),
        (44.0, "30 to 44"),
        (45.0, "45 to 59"),
        (60.0, "60 to 74"),
        (74.9, "60 to 74"),
        (75.0, "75 and over"),
        (120.0, "75 and over"),
        (np.nan, "unknown"),
    ],
)
def test_age_band_holds_its_lower_bound(age: float, band: str) -> None:
    assert names(axes_of(catalog(age=[age, 50.0]), None, None)["age"]) == [band, "45 to 59"]


def test_bands_without_images_are_kept_and_unknown_is_last() -> None:
    axis = axes_of(catalog(age=[np.nan, 80.0]), None, None)["age"]
    assert axis.groups == ("under 30", "30 to 44", "45 to 59", "60 to 74", "75 and over", "unknown")
    assert axis.group_of.tolist() == [5, 4]


def test_sex_without_unknown_has_two_groups() -> None:
    axis = axes_of(catalog(sex=["male", "female", "male"]), None, None)["sex"]
    assert (axis.groups, axis.group_of.tolist()) == (("female", "male"), [1, 0, 1])


def test_every_site_of_ham10000_has_its_group() -> None:
    first, *others = HAM10000_SITES.split("|")
    axis = axes_of(catalog(site=[*first.split(), *others]), None, None)["site"]
    assert "other" not in axis.groups
    assert not axis.notes
    found = dict(zip([*first.split(), *others], names(axis), strict=True))
    assert found["ear"] == found["scalp"] == found["neck"] == found["face"] == "head and neck"
    assert found["foot"] == found["hand"] == found["acral"] == "hands and feet"
    assert found["chest"] == found["abdomen"] == "front of the trunk"
    assert len({found["back"], found["trunk"], found["chest"], found["genital"], found["unknown"]}) == 5


def test_site_that_is_not_known_is_other_and_named() -> None:
    axis = axes_of(catalog(site=["Back ", "tail", "wing", "tail"]), None, None)["site"]
    assert names(axis) == ["back", "other", "other", "other"]
    assert axis.notes == ("counted as 'other': tail, wing",)


def test_source_of_label_is_named_and_strange_ones_are_kept() -> None:
    axis = axes_of(catalog(diagnosis_source=["histo", "synthetic", None, "follow_up"]), None, None)["label_source"]
    assert names(axis) == ["histopathology", "synthetic", "unknown", "follow-up"]
    assert axis.groups == ("histopathology", "follow-up", "synthetic", "unknown")


def test_measured_bands_follow_image_ids_and_not_rows() -> None:
    rows = catalog(age=[20.0, 20.0, 20.0])
    tones = measured(["tan", "dark", "light"]).iloc[::-1]
    axes = axes_of(rows, tones, measured(["below 10%", "30% and more", "10% to 30%"]))
    assert names(axes["skin_tone"]) == ["tan", "dark", "light"]
    assert axes["skin_tone"].groups == ("very light", "light", "intermediate", "tan", "brown", "dark")
    assert names(axes["lesion_size"]) == ["below 10%", "30% and more", "10% to 30%"]


def test_measured_axis_counts_why_images_are_unknown() -> None:
    reasons = ["", "no mask", "the mask cannot be read: a.png", "the mask cannot be read: b.png"]
    axis = axes_of(catalog(age=[1.0] * 4), measured(["tan", *["unknown"] * 3], reasons), None)["skin_tone"]
    assert axis.notes == ("2 of 4 images unknown: the mask cannot be read", "1 of 4 images unknown: no mask")
    assert names(axis)[1:] == ["unknown"] * 3


def test_catalog_without_masks_makes_measured_axes_unavailable() -> None:
    nothing = measured(["unknown"] * 2, ["no mask"] * 2)
    axes = axes_of(catalog(age=[1.0, 2.0]), nothing, nothing)
    assert axes["skin_tone"].unavailable == axes["lesion_size"].unavailable == "unknown for every image: no mask"
    assert axes["skin_tone"].groups == ()


def test_image_without_a_measured_row_is_refused() -> None:
    with pytest.raises(DataError, match=r"no row for 1 images, i1 first|'i1'"):
        axes_of(catalog(age=[1.0, 2.0]), measured(["tan"]), None)
