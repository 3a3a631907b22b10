"""The layouts, each on a small folder made here, every kind of broken folder, and the real HAM10000."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermdistill.data.catalog import COLUMNS, catalog_sha256
from dermdistill.data.readers import READERS, detect_layout, read_catalog
from dermdistill.errors import ConfigError, DataError

HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization"
METADATA = "HAM10000_metadata.csv"


def save_image(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=90)


def ham_row(number: int, lesion: str = "", dx: str = "nv", age: str = "50.0") -> str:
    return f"{lesion or f'HAM_{number}'},ISIC_{number},{dx},histo,{age},male,back"


def write_ham10000(folder: Path, rows: list[str] | None = None, header: str = HEADER) -> Path:
    for number in range(6):
        part = "HAM10000_images_part_1" if number < 3 else "ham10000_IMAGES_part_2"
        save_image(folder / part / f"ISIC_{number}.jpg", number)
    lines = [header, *(rows if rows is not None else [ham_row(number) for number in range(6)])]
    (folder / METADATA).write_text("\n".join(lines) + "\n")
    return folder


def write_classes(folder: Path) -> Path:
    for number, name in enumerate(["nv", "mel", "Basal cell carcinoma", "mel"]):
        save_image(folder / name / f"photo_{number}.jpg", number)
    return folder


def write_isic(folder: Path, header: str = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC") -> Path:
    for number in range(7):
        save_image(folder / "ISIC2018_Task3_Training_Input" / f"ISIC_{number}.jpg", number)
    rows = [
        f"ISIC_{number}," + ",".join("1.0" if place == number else "0.0" for place in range(7)) for number in range(7)
    ]
    (folder / "ISIC2018_Task3_Training_GroundTruth.csv").write_text("\n".join([header, *rows]))
    return folder


def error_of(folder: Path, layout: str | None = None) -> DataError:
    before = sorted(folder.rglob("*"))
    with pytest.raises(DataError) as caught:
        read_catalog(folder, layout)
    assert sorted(folder.rglob("*")) == before
    return caught.value


def assert_faults(folder: Path, *expected: str) -> None:
    faults = error_of(folder).faults
    assert len(faults) == len(expected), faults
    for words in expected:
        assert any(words in fault for fault in faults), (words, faults)


def test_ham10000_reads_the_public_layout(tmp_path: Path) -> None:
    rows = [ham_row(1, "HAM_1", "mel", "80.0"), "HAM_1,ISIC_0,mel,,,,unknown", ham_row(5)]
    folder = write_ham10000(tmp_path, rows)
    save_image(folder / "HAM10000_segmentations_lesion_tschandl" / "ISIC_0_segmentation.png")
    assert detect_layout(folder) == "ham10000"
    catalog = read_catalog(folder)
    assert tuple(catalog.columns) == COLUMNS
    first, second, third = catalog.to_dict("records")
    assert (first["image_id"], first["lesion_id"], first["diagnosis"]) == ("ISIC_0", "HAM_1", "mel")
    assert (first["sex"], first["site"], first["source"]) == ("unknown", "unknown", "HAM10000")
    assert np.isnan(first["age"])
    assert catalog["diagnosis_source"].isna().tolist() == [True, False, False]
    assert Path(first["mask_path"]).name == "ISIC_0_segmentation.png"
    assert catalog["mask_path"].isna().tolist() == [False, True, True]
    assert (second["age"], second["sex"], second["site"], second["diagnosis_source"]) == (
        80.0,
        "male",
        "back",
        "histo",
    )
    assert Path(third["path"]) == folder / "ham10000_IMAGES_part_2" / "ISIC_5.jpg"


def test_reader_called_alone_gives_the_same_catalog(tmp_path: Path) -> None:
    folder = write_ham10000(tmp_path)
    assert READERS["ham10000"](folder).equals(read_catalog(folder, "ham10000"))


def test_ham10000_takes_the_same_file_twice_but_not_two_that_differ(tmp_path: Path) -> None:
    folder = write_ham10000(tmp_path)
    save_image(folder / "HAM10000_images_part_3" / "deep" / "ISIC_0.jpg", 0)
    assert len(read_catalog(folder)) == 6
    save_image(folder / "HAM10000_images_part_3" / "deep" / "ISIC_0.jpg", 99)
    assert_faults(folder, f"{METADATA} row 2: several files of one name that differ")


def test_catalog_hash_is_the_same_after_a_move(tmp_path: Path) -> None:
    folder = write_ham10000(tmp_path / "a")
    before = catalog_sha256(read_catalog(folder))
    shutil.move(folder, tmp_path / "b")
    assert catalog_sha256(read_catalog(tmp_path / "b")) == before


def test_ham10000_lists_every_fault_in_one_error(tmp_path: Path) -> None:
    rows = [
        ham_row(0, "HAM_A"),
        ham_row(1, dx="melanom"),
        ham_row(77),
        ham_row(2, age="ninety"),
        "",
        ham_row(0, "HAM_B"),
        ham_row(3, "HAM_A", dx="mel"),
        ham_row(4, age="140"),
        "HAM_5,ISIC_5,nv",
    ]
    folder = write_ham10000(tmp_path, rows)
    part = folder / "HAM10000_images_part_1"
    (part / "ISIC_1.jpg").write_bytes((part / "ISIC_1.jpg").read_bytes()[:-30])
    (part / "ISIC_2.jpg").write_text("no picture")
    assert_faults(
        folder,
        f"{METADATA} row 3: unknown diagnosis 'melanom'",
        f"{METADATA} row 3: {part / 'ISIC_1.jpg'}: cannot be decoded (truncated",
        f"{METADATA} row 4: missing image: no image file named 'ISIC_77'",
        f"{METADATA} row 5: age 'ninety' is not a number",
        f"{METADATA} row 5: {part / 'ISIC_2.jpg'}: is not an image (it holds text)",
        f"{METADATA} row 7: duplicate image_id 'ISIC_0', first in {METADATA} row 2",
        f"{METADATA} row 8: lesion 'HAM_A' has two diagnoses: 'mel' here, 'nv' in {METADATA} row 2",
        f"{METADATA} row 9: age 140.0 is out of range",
        f"{METADATA} row 10: 3 values where the header has 7 columns",
    )


def test_missing_column_comes_together_with_faults_of_rows(tmp_path: Path) -> None:
    header = HEADER.replace(",sex", "").replace("dx_type", "type")
    rows = [f"HAM_1,ISIC_{number},nv,histo,50,back" for number in (0, 88)]
    assert_faults(
        write_ham10000(tmp_path, rows, header),
        "missing column 'sex'",
        "missing column 'dx_type'",
        "'ISIC_88'",
    )


def test_missing_columns_that_all_hangs_on_are_named_too(tmp_path: Path) -> None:
    folder = write_ham10000(tmp_path, header=HEADER.replace("dx,", "diag,"))
    assert_faults(folder, f"{METADATA}: missing column 'dx' (found: 'lesion_id', 'image_id', 'diag'")
    write_ham10000(folder, header="a,b,c,d,e,f,g")
    assert len(error_of(folder).faults) == 7


def test_ham10000_without_any_image_folder_says_so_once(tmp_path: Path) -> None:
    (tmp_path / METADATA).write_text(f"{HEADER}\n{ham_row(0)}\n")
    assert_faults(tmp_path, "no folder HAM10000_images_part_1 or the like")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"\n \n", "the file is empty"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "is not UTF-8 text"),
        (b"lesion_id,image_id\0\n", "is a binary file"),
        (f"{HEADER}\nJos\xe9,ISIC_0".encode("latin-1"), "is not UTF-8 text"),
        (b'lesion_id,image_id,"dx\n', "cannot be read as a CSV table"),
        (b"dx,image_id,dx\n", "column 'dx' stands twice"),
        (f"{HEADER}\n".encode(), "no rows"),
    ],
)
def test_unreadable_metadata_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    folder = write_ham10000(tmp_path)
    (folder / METADATA).write_bytes(content)
    assert words in str(error_of(folder))


@pytest.mark.parametrize("separator", [";", "\t"])
def test_metadata_may_have_other_separators_and_a_mark_of_byte_order(tmp_path: Path, separator: str) -> None:
    folder = write_ham10000(tmp_path)
    text = (folder / METADATA).read_text().replace(",", separator).replace("\n", "\r\n")
    (folder / METADATA).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert len(read_catalog(folder)) == 6


def test_class_folders_are_read_by_code_or_name(tmp_path: Path) -> None:
    folder = write_classes(tmp_path)
    save_image(folder / "nv" / "photo_0_segmentation.png")
    (folder / "notes").mkdir()
    (folder / "nv" / "._photo_0.jpg").write_text("of a Mac archive")
    assert detect_layout(folder) == "folder"
    catalog = read_catalog(folder)
    assert catalog["image_id"].tolist() == [f"photo_{number}" for number in range(4)]
    assert catalog["diagnosis"].tolist() == ["nv", "mel", "bcc", "mel"]
    assert catalog["lesion_id"].equals(catalog["image_id"].rename("lesion_id"))
    assert Path(catalog["mask_path"][0]) == folder / "nv" / "photo_0_segmentation.png"
    assert catalog["mask_path"].isna().sum() == 3


def test_class_folders_take_lesions_from_their_table(tmp_path: Path) -> None:
    folder = write_classes(tmp_path)
    lines = ["image_id,lesion_id", "photo_1,L1", "photo_3.jpg,L1", "photo_0,L2", "photo_2,L3"]
    (folder / "lesions.csv").write_text("\n".join(lines))
    assert read_catalog(folder)["lesion_id"].tolist() == ["L2", "L1", "L3", "L1"]


def test_class_folders_list_every_fault(tmp_path: Path) -> None:
    folder = write_classes(tmp_path)
    save_image(folder / "melanom" / "odd.jpg")
    save_image(folder / "df" / "photo_0.png")
    save_image(folder / "loose.jpg")
    (folder / "nv" / "photo_0.jpg").write_bytes(b"")
    (folder / "lesions.csv").write_text(
        "image_id,lesion_id\nphoto_0,A\nphoto_1,B\nphoto_1,B\nghost,C\nodd,D\nphoto_2,A"
    )
    assert_faults(
        folder,
        "loose.jpg: lies in no class folder",
        "melanom/odd.jpg: unknown diagnosis 'melanom'",
        "nv/photo_0.jpg: duplicate image_id 'photo_0', first in df/photo_0.png",
        "nv/photo_0.jpg: " + str(folder / "nv" / "photo_0.jpg") + ": is empty",
        "lesions.csv row 4: duplicate image_id 'photo_1'",
        "lesions.csv row 5: missing image: no image file named 'ghost'",
        "mel/photo_3.jpg: is not listed in lesions.csv",
        "lesion 'A' has two diagnoses: 'df' here, 'bcc' in Basal cell carcinoma/photo_2.jpg",
        "lesion 'A' has two diagnoses: 'nv' here, 'bcc' in Basal cell carcinoma/photo_2.jpg",
    )


def test_unusable_lesions_table_is_refused(tmp_path: Path) -> None:
    folder = write_classes(tmp_path)
    (folder / "lesions.csv").write_bytes(b"")
    assert_faults(folder, "lesions.csv: the file is empty")
    (folder / "lesions.csv").write_text("image,lesion\n")
    assert_faults(folder, "missing column 'image_id'", "missing column 'lesion_id'")


def test_isic_folder_is_detected_and_read(tmp_path: Path) -> None:
    folder = write_isic(tmp_path)
    assert detect_layout(folder) == "isic"
    assert read_catalog(folder)["diagnosis"].tolist() == ["mel", "nv", "bcc", "akiec", "bkl", "df", "vasc"]


def test_detect_layout_says_what_it_looks_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_catalog(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file, not a folder"):
        READERS["folder"](tmp_path / "file")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden").write_text("")
    with pytest.raises(DataError, match="the folder is empty"):
        read_catalog(tmp_path / "empty", "ham10000")
    save_image(tmp_path / "other" / "wart" / "a.jpg")
    (tmp_path / "other" / "truth.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "other" / "nv").mkdir()
    error = error_of(tmp_path / "other")
    assert error.faults == (f"{tmp_path / 'other' / 'truth.csv'}: is not UTF-8 text (byte 0)",)
    for words in (
        "ham10000: HAM10000_metadata.csv",
        "isic: a CSV table",
        "folder: a folder of images per class",
    ):
        assert words in str(error)


def test_read_catalog_refuses_a_layout_that_is_not_or_does_not_fit(tmp_path: Path) -> None:
    folder = write_classes(tmp_path)
    with pytest.raises(ConfigError, match="unknown layout 'dicom'\nRule: one of ham10000, isic, folder"):
        read_catalog(folder, "dicom")
    assert "no HAM10000_metadata.csv" in str(error_of(folder, "ham10000"))
    assert "ground-truth tables found: none" in str(error_of(folder, "isic"))


def test_read_catalog_decodes_only_when_asked(tmp_path: Path) -> None:
    folder = write_classes(tmp_path)
    (folder / "nv" / "photo_0.jpg").write_bytes(b"")
    assert len(read_catalog(folder, check_images=False)) == 4
    assert_faults(folder, "is empty")


@pytest.mark.real
def test_ham10000_on_the_real_data(ham10000: Path) -> None:
    start = time.process_time()
    catalog = read_catalog(ham10000)
    seconds = time.process_time() - start
    assert len(catalog) == 10_015
    assert catalog["lesion_id"].nunique() == 7_470
    counts = {"nv": 6705, "mel": 1113, "bkl": 1099, "bcc": 514, "akiec": 327, "vasc": 142, "df": 115}
    assert catalog["diagnosis"].value_counts().to_dict() == counts
    assert catalog["age"].isna().sum() == 57
    assert catalog["mask_path"].notna().all()
    assert set(catalog["diagnosis_source"]) == {"histo", "follow_up", "consensus", "confocal"}
    # Processor time, which other work on the machine does not change: about 4 s when this was written.
    assert seconds < 15
