"""Sets that know less than a training set: what becomes of their labels, in every layout, faults included."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermdistill.data.catalog import COLUMNS
from dermdistill.data.other_sets import OTHER_READERS, detect_reader, read_diagnosis, read_other_set
from dermdistill.data.readers import read_catalog
from dermdistill.errors import ConfigError, DataError
from dermdistill.labels import ALIASES


def save(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def folders(root: Path, **images: int) -> Path:
    seed = 0
    for name, count in images.items():
        for _ in range(count):
            save(root / name.replace("_", " ") / f"photo_{seed}.png", seed)
            seed += 1
    return root


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *ALIASES.items(),
        ("Basal_Cell_Carcinoma", "bcc"),
        ("NOT-melanoma", "rest"),
        ("  Benign ", "rest"),
        ("not_melanoma", "rest"),
        ("SCC", "scc"),
        ("squamous cell  carcinoma", "squamous cell carcinoma"),
        ("malignant", "malignant"),
        ("Melanom", "Melanom"),
    ],
)
def test_read_diagnosis_maps_nothing_silently(text: str, expected: str) -> None:
    assert read_diagnosis(text) == expected


def test_binary_folders_are_melanoma_and_rest(tmp_path: Path) -> None:
    place = folders(tmp_path, melanoma=2, benign=3)
    assert detect_reader(place) == "folder"
    other = read_other_set(place, "folder")
    assert tuple(other.frame.columns) == COLUMNS
    assert other.frame["diagnosis"].tolist() == ["mel", "mel", "rest", "rest", "rest"]
    assert other.outside == {}
    with pytest.raises(DataError, match="unknown diagnosis 'benign'"):
        read_catalog(place, "folder")


def test_nevus_folders_keep_their_diagnosis(tmp_path: Path) -> None:
    other = read_other_set(folders(tmp_path, melanoma=1, nevus=2, not_melanoma=1), "folder")
    assert other.frame["diagnosis"].value_counts().to_dict() == {"mel": 1, "nv": 2, "rest": 1}


def test_a_folder_that_is_no_diagnosis_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_other_set(folders(tmp_path, melanoma=1, malignant=2), "folder")
    assert [fault.split(": ", 1)[1][:29] for fault in caught.value.faults] == ["unknown diagnosis 'malignant'"] * 2


def isic_2019(folder: Path) -> Path:
    lines = ["image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK"]
    for number in range(9):
        save(folder / "input" / f"ISIC_000000{number}.png", number)
        lines.append(f"ISIC_000000{number}," + ",".join("1.0" if place == number else "0.0" for place in range(9)))
    save(folder / "input" / "ISIC_0000009.png", 9)
    lines.append("ISIC_0000009,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0,0.0")
    (folder / "ISIC_2019_Test_GroundTruth.csv").write_text("\n".join(lines))
    return folder


def test_isic_2019_leaves_out_what_is_none_of_the_seven_and_counts_it(tmp_path: Path) -> None:
    place = isic_2019(tmp_path)
    assert detect_reader(place) == "isic"
    other = read_other_set(place, "isic")
    assert other.outside == {"scc": 2, "unk": 1}
    assert other.frame["diagnosis"].tolist() == ["mel", "nv", "bcc", "akiec", "bkl", "df", "vasc"]
    with pytest.raises(DataError, match="unknown diagnosis 'SCC'"):
        read_catalog(place)


def test_a_set_of_nothing_but_outsiders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="every image has a diagnosis outside the seven"):
        read_other_set(folders(tmp_path, SCC=2), "folder")


def test_ham10000_reads_as_its_training_reader_does(tmp_path: Path) -> None:
    save(tmp_path / "HAM10000_images_part_1" / "ISIC_0000001.png")
    header = "lesion_id,image_id,dx,dx_type,age,sex,localization"
    (tmp_path / "HAM10000_metadata.csv").write_text(f"{header}\nHAM_0000001,ISIC_0000001,bkl,histo,50,male,back\n")
    assert detect_reader(tmp_path) == "ham10000"
    assert read_other_set(tmp_path, "ham10000").frame.equals(read_catalog(tmp_path))


def test_a_lesion_that_is_melanoma_and_none_is_a_fault(tmp_path: Path) -> None:
    place = folders(tmp_path, melanoma=1, benign=2, nevus=1)
    (place / "lesions.csv").write_text("image_id,lesion_id\nphoto_0,A\nphoto_1,A\nphoto_2,B\nphoto_3,B\n")
    with pytest.raises(DataError) as caught:
        read_other_set(place, "folder")
    assert caught.value.faults == (f"{place}: lesion 'A' is melanoma in one image and none in another",)


@pytest.mark.parametrize("reader", OTHER_READERS)
def test_a_reader_that_does_not_fit_says_what_would(tmp_path: Path, reader: str) -> None:
    (tmp_path / "readme.md").write_text("x")
    with pytest.raises(DataError) as caught:
        read_other_set(tmp_path, reader)
    assert str(tmp_path) in str(caught.value)
    assert caught.value.rule
    assert "--reader" in caught.value.next_step


def test_places_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_other_set(tmp_path / "none", "folder")
    with pytest.raises(DataError, match="no such folder"):
        detect_reader(tmp_path / "none")
    with pytest.raises(DataError, match="the folder is empty"):
        detect_reader(tmp_path)
    (tmp_path / "file.csv").write_text("x")
    with pytest.raises(DataError, match="is a file, not a folder"):
        read_other_set(tmp_path / "file.csv", "isic")
    with pytest.raises(ConfigError, match="unknown reader 'dicom'\nRule: one of ham10000, isic"):
        read_other_set(tmp_path, "dicom")
    with pytest.raises(DataError, match=r"no known layout(.|\n)*ph2: PH2_dataset.txt"):
        detect_reader(tmp_path)
