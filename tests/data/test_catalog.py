"""The catalog's checks, its hash and its file."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermdistill.data.catalog import (
    COLUMNS,
    catalog_sha256,
    find_faults,
    load_catalog,
    validate_catalog,
    write_catalog,
)
from dermdistill.errors import DataError
from dermdistill.labels import CODES


def row(number: int, **changes: Any) -> dict[str, Any]:
    values = {
        "image_id": f"ISIC_{number}",
        "lesion_id": f"HAM_{number}",
        "diagnosis": CODES[number % len(CODES)],
        "diagnosis_source": "histo",
        "age": 40.0 + number,
        "sex": "female",
        "site": "back",
        "path": f"/data/images/ISIC_{number}.jpg",
        "mask_path": f"/data/masks/ISIC_{number}_segmentation.png",
        "source": "HAM10000",
    }
    return values | changes


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows or [row(0), row(1), row(2)]))


def faults_of(table: pd.DataFrame) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        validate_catalog(table, rows_from="table.csv")
    return caught.value.faults


def test_validate_catalog_orders_types_and_drops_other_columns() -> None:
    mixed = frame(row(2, age="55"), row(0, age=""), row(1, age="unknown", mask_path=None)).assign(extra=1)
    catalog = validate_catalog(mixed[[*reversed(COLUMNS), "extra"]], rows_from="table.csv")
    assert tuple(catalog.columns) == COLUMNS
    assert catalog["image_id"].tolist() == ["ISIC_0", "ISIC_1", "ISIC_2"]
    assert catalog["age"].dtype == float
    assert catalog["age"].isna().tolist() == [True, True, False]
    assert catalog["mask_path"].isna().tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"image_id": " "}, "empty image_id"),
        ({"image_id": None}, "image_id is missing"),
        ({"lesion_id": ""}, "empty lesion_id"),
        (
            {"diagnosis": "melanom"},
            "unknown diagnosis 'melanom'; known: akiec, bcc, bkl, df, mel, nv, vasc",
        ),
        ({"diagnosis": "{odd} {0}"}, "unknown diagnosis '{odd} {0}'"),
        ({"diagnosis": None}, "diagnosis is missing"),
        ({"age": "old"}, "age 'old' is not a number"),
        ({"age": "121"}, "age 121.0 is out of range 0 to 120"),
        ({"age": -1.0}, "age -1.0 is out of range"),
        ({"age": "inf"}, "age inf is out of range"),
        ({"sex": "m"}, "sex 'm' is none of male, female, unknown"),
        ({"site": ""}, "empty site"),
        ({"path": None}, "missing image: no image file named 'ISIC_1'"),
        ({"image_id": "ISIC_0"}, "duplicate image_id 'ISIC_0', first in table.csv row 2"),
        (
            {"lesion_id": "HAM_0"},
            "lesion 'HAM_0' has two diagnoses: 'bcc' here, 'akiec' in table.csv row 2",
        ),
    ],
)
def test_validate_catalog_names_the_fault_and_its_row(changes: dict[str, Any], fault: str) -> None:
    faults = faults_of(frame(row(0), row(1, **changes), row(2)))
    assert len(faults) == 1
    assert faults[0].startswith(f"table.csv row 3: {fault}")


def test_validate_catalog_lists_every_fault_by_row() -> None:
    bad = frame(
        row(0, sex="?"),
        row(1, age="x", diagnosis="wart"),
        row(2, path=None),
        row(3, image_id="ISIC_0"),
        row(4, lesion_id="HAM_3"),
    ).drop(columns=["site", "source"])
    faults = faults_of(bad)
    assert faults[:2] == ("table.csv: missing column 'site'", "table.csv: missing column 'source'")
    places = [fault.split(": ")[0] for fault in faults[2:]]
    assert places == [f"table.csv row {number}" for number in (2, 3, 3, 4, 5, 6)]


def test_validate_catalog_takes_places_from_an_index_of_that_name() -> None:
    places = pd.Index(["a.csv row 9", "b.csv row 2"], name="place")
    faults = faults_of(frame(row(0), row(1, sex="x")).set_index(places))
    assert faults == ("b.csv row 2: sex 'x' is none of male, female, unknown",)


def test_validate_catalog_refuses_a_table_without_rows() -> None:
    assert faults_of(pd.DataFrame(columns=list(COLUMNS))) == ("table.csv: no rows",)


def test_find_faults_says_nothing_of_columns_that_are_not_there() -> None:
    assert find_faults(frame()[["image_id", "sex"]], rows_from="x") == []


def test_catalog_sha256_is_free_of_folder_and_row_order() -> None:
    table = validate_catalog(frame(), rows_from="x")
    moved = table.assign(
        path=table["path"].str.replace("/data/images", "/elsewhere/part_2"),
        mask_path=table["mask_path"].str.replace("/data", "/other"),
    )
    assert catalog_sha256(moved.sample(frac=1, random_state=1)) == catalog_sha256(table)


@pytest.mark.parametrize("column", COLUMNS)
def test_catalog_sha256_depends_on_every_column(column: str) -> None:
    table = validate_catalog(frame(), rows_from="x")
    other = table.copy()
    other.loc[1, column] = 0.5 if column == "age" else "other"
    assert catalog_sha256(other) != catalog_sha256(table)
    missing = table.copy()
    missing.loc[1, column] = None
    assert catalog_sha256(missing) not in {catalog_sha256(table), catalog_sha256(other)}


@settings(max_examples=25, deadline=None)
@given(swap=st.permutations(range(5)))
def test_catalog_sha256_changes_when_diagnoses_change_places(swap: list[int]) -> None:
    table = frame(*(row(number) for number in range(5)))
    swapped = table.assign(diagnosis=[table["diagnosis"][number] for number in swap])
    assert (catalog_sha256(swapped) == catalog_sha256(table)) == (swap == list(range(5)))


def test_catalog_survives_its_file(tmp_path: Path) -> None:
    table = frame(row(0, mask_path=None, diagnosis_source=None), row(1, age=None))
    catalog = validate_catalog(table, rows_from="x")
    write_catalog(catalog, tmp_path / "run" / "catalog.parquet")
    loaded = load_catalog(tmp_path / "run" / "catalog.parquet")
    pd.testing.assert_frame_equal(loaded, catalog)
    assert catalog_sha256(loaded) == catalog_sha256(catalog)
    assert [item.name for item in (tmp_path / "run").iterdir()] == ["catalog.parquet"]


def test_load_catalog_refuses_what_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such catalog"):
        load_catalog(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("image_id,lesion_id\n")
    with pytest.raises(DataError, match=r"text\.parquet: cannot be read as a Parquet file"):
        load_catalog(tmp_path / "text.parquet")
    frame(row(0, diagnosis="wart")).to_parquet(tmp_path / "bad.parquet")
    with pytest.raises(DataError, match="unknown diagnosis 'wart'"):
        load_catalog(tmp_path / "bad.parquet")
