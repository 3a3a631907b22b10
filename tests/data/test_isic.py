"""ISIC challenge tables: one-hot columns, metadata and what can be wrong with them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermdistill.data.readers import READERS
from dermdistill.errors import DataError

TRUTH = "ISIC_2019_Training_GroundTruth.csv"
COLUMNS_2019 = "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK"


def one_hot(image: str, *ones: int, columns: int = 9) -> str:
    return ",".join([image, *("1.0" if place in ones else "0.0" for place in range(columns))])


def write_isic(folder: Path, rows: list[str], header: str = COLUMNS_2019) -> Path:
    for number in range(9):
        path = folder / "ISIC_2019_Training_Input" / "deep" / f"ISIC_{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 5, 3), number, dtype=np.uint8)).save(path)
    (folder / TRUTH).write_text("\n".join([header, *rows]) + "\n")
    return folder


def faults_of(folder: Path) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        READERS["isic"](folder)
    return caught.value.faults


def test_isic_2019_with_metadata(tmp_path: Path) -> None:
    folder = write_isic(tmp_path, [one_hot("ISIC_3.jpg", 3), one_hot("ISIC_0", 0), one_hot("ISIC_1", 1)])
    lines = [
        "image,age_approx,anatom_site_general,lesion_id,sex",
        "ISIC_1,,,BCN_1,",
        "ISIC_0,85.0,head/neck,,Female",
        "ISIC_8,5.0,,BCN_8,male",
    ]
    (folder / "ISIC_2019_Training_Metadata.csv").write_text("\n".join(lines))
    catalog = READERS["isic"](folder)
    assert catalog["image_id"].tolist() == ["ISIC_0", "ISIC_1", "ISIC_3"]
    assert catalog["diagnosis"].tolist() == ["mel", "nv", "akiec"]
    assert catalog["lesion_id"].tolist() == ["ISIC_0", "BCN_1", "ISIC_3"]
    assert catalog["age"].fillna(-1).tolist() == [85.0, -1, -1]
    assert catalog["sex"].tolist() == ["female", "unknown", "unknown"]
    assert catalog["site"].tolist() == ["head/neck", "unknown", "unknown"]
    assert catalog["diagnosis_source"].isna().all()
    assert set(catalog["source"]) == {"ISIC_2019_Training"}


def test_isic_2018_lesion_groupings_give_lesions_and_sources(tmp_path: Path) -> None:
    rows = [one_hot(f"ISIC_{number}", number, columns=7) for number in (4, 5)]
    folder = write_isic(tmp_path, [*rows, one_hot("ISIC_6", 5, columns=7)], "image_id,MEL,NV,BCC,AKIEC,BKL,DF,VASC")
    (folder / "tables").mkdir()
    lines = [
        "image,lesion_id,diagnosis_confirm_type",
        "ISIC_4,HAM_4,histopathology",
        "ISIC_5,HAM_5,serial imaging showing no change",
        "ISIC_6,HAM_5,something new",
    ]
    (folder / "tables" / "ISIC2018_Task3_Training_LesionGroupings.csv").write_text("\n".join(lines))
    (folder / "authors.csv").write_text("name,town\nTschandl,Vienna\n")
    catalog = READERS["isic"](folder)
    assert catalog["lesion_id"].tolist() == ["HAM_4", "HAM_5", "HAM_5"]
    assert catalog["diagnosis_source"].tolist() == ["histo", "follow_up", "something new"]
    assert catalog["diagnosis"].tolist() == ["bkl", "df", "df"]


def test_isic_metadata_may_stand_in_the_ground_truth(tmp_path: Path) -> None:
    rows = [one_hot("ISIC_0", 0) + ",L1,61,male", one_hot("ISIC_1", 0) + ",L1,,"]
    catalog = READERS["isic"](write_isic(tmp_path, rows, COLUMNS_2019 + ",lesion_id,age_approx,sex"))
    assert catalog["lesion_id"].tolist() == ["L1", "L1"]
    assert catalog["age"].fillna(-1).tolist() == [61.0, -1]


def test_isic_lists_every_fault(tmp_path: Path) -> None:
    rows = [
        one_hot("ISIC_0", 0),
        one_hot("ISIC_1", 7),
        one_hot("ISIC_2"),
        one_hot("ISIC_3", 0, 1),
        one_hot("ISIC_4", 2).replace("1.0", "0.7"),
        one_hot("ISIC_5", 2).replace("1.0", "yes"),
        one_hot("ISIC_99", 5),
        one_hot("ISIC_0", 0),
        one_hot("ISIC_6", 1),
    ]
    folder = write_isic(tmp_path, rows)
    lines = ["image,age_approx,lesion_id", "ISIC_0,old,L", "ISIC_6,200,L", "ISIC_6,30,L"]
    (folder / "meta.csv").write_text("\n".join(lines))
    (folder / "other.csv").write_bytes(b"")
    faults = faults_of(folder)
    expected = [
        f"{TRUTH} row 3: unknown diagnosis 'SCC'",
        f"{TRUTH} row 4: unknown diagnosis 'none (no column holds a 1)'",
        f"{TRUTH} row 5: unknown diagnosis 'MEL and NV at once'",
        f"{TRUTH} row 6: unknown diagnosis 'BCC = 0.7 (neither 0 nor 1)'",
        f"{TRUTH} row 7: unknown diagnosis 'BCC = yes (neither 0 nor 1)'",
        f"{TRUTH} row 8: missing image: no image file named 'ISIC_99'",
        f"{TRUTH} row 9 (meta.csv row 2): duplicate image_id 'ISIC_0', first in {TRUTH} row 2",
        f"{TRUTH} row 2 (meta.csv row 2): age 'old' is not a number",
        f"{TRUTH} row 9 (meta.csv row 2): age 'old' is not a number",
        f"{TRUTH} row 10 (meta.csv row 3): age 200.0 is out of range",
        f"{TRUTH} row 10 (meta.csv row 3): lesion 'L' has two diagnoses: 'nv' here, 'mel' in {TRUTH} row 2",
        "meta.csv row 4: duplicate image 'ISIC_6'",
        "other.csv: the file is empty",
    ]
    assert len(faults) == len(expected), faults
    for words in expected:
        assert any(words in fault for fault in faults), (words, faults)


def test_isic_names_missing_columns(tmp_path: Path) -> None:
    folder = write_isic(tmp_path, [one_hot("ISIC_77", 0, columns=5)], "image,MEL,NV,BCC,BKL,DF")
    (folder / "meta.csv").write_text("isic_id,lesion_id\nISIC_77,L\n")
    expected = (
        "missing column 'AKIEC'",
        "missing column 'VASC'",
        "meta.csv: missing column 'image'",
        "ISIC_77",
    )
    faults = faults_of(folder)
    assert len(faults) == len(expected), faults
    assert all(any(words in fault for fault in faults) for words in expected), faults
    write_isic(folder, [one_hot("ISIC_0", 0, columns=5)], "name,MEL,NV,BCC,BKL,DF")
    assert f"{TRUTH}: missing column 'image'" in faults_of(folder)[0]


def test_isic_wants_one_ground_truth(tmp_path: Path) -> None:
    folder = write_isic(tmp_path, [one_hot("ISIC_0", 0)])
    (folder / "second.csv").write_text(COLUMNS_2019 + "\n" + one_hot("ISIC_1", 1))
    with pytest.raises(DataError, match=rf"ground-truth tables found: {TRUTH}, second\.csv"):
        READERS["isic"](folder)
