"""A table of diagnoses beside images: names of columns, what is optional, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermdistill.data.other_sets import detect_reader, read_other_set
from dermdistill.errors import DataError


def write_given(folder: Path, lines: list[str], images: tuple[str, ...] = ("a", "b", "c")) -> Path:
    for number, name in enumerate(images):
        path = folder / "photos" / "deep" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 8, 3), 20 * number, dtype=np.uint8)).save(path)
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_given_labels_with_all_columns(tmp_path: Path) -> None:
    lines = [
        "Image;Diagnosis;lesion_id;age;sex;site;diagnosis_source",
        "photos/deep/b.png;Melanoma;L1;61;Female;back;histo",
        "a;nv;L2;;;;",
        "c.png;benign;L2;30;;;",
    ]
    folder = write_given(tmp_path, lines)
    (folder / "notes.csv").write_text("town,people\nVienna,2\n")
    assert detect_reader(folder) == "given"
    frame = read_other_set(folder, "given").frame
    assert frame["image_id"].tolist() == ["a", "b", "c"]
    assert frame["diagnosis"].tolist() == ["nv", "mel", "rest"]
    assert frame["lesion_id"].tolist() == ["L2", "L1", "L2"]
    assert frame["age"].fillna(-1).tolist() == [-1, 61, 30]
    assert frame["sex"].tolist() == ["unknown", "female", "unknown"]
    assert Path(frame["path"][1]) == folder / "photos" / "deep" / "b.png"
    assert set(frame["source"]) == {"labels"}
    assert read_other_set(folder / "labels.csv", "given").frame.equals(frame)


def test_a_melanoma_column_is_enough(tmp_path: Path) -> None:
    other = read_other_set(write_given(tmp_path, ["image_name,melanoma", "a,0", "b,1.0", "c,0.0"]), "given")
    assert other.frame["diagnosis"].tolist() == ["rest", "mel", "rest"]
    assert other.frame["lesion_id"].tolist() == ["a", "b", "c"]


def test_given_labels_list_every_fault(tmp_path: Path) -> None:
    lines = ["image,diagnosis,age", "a,melanom,50", "b,mel,old", "ghost,nv,50", "b,mel,50", "c,nv"]
    with pytest.raises(DataError) as caught:
        read_other_set(write_given(tmp_path, lines), "given")
    expected = (
        "labels.csv row 2: unknown diagnosis 'melanom'",
        "labels.csv row 3: age 'old' is not a number",
        "labels.csv row 4: missing image: no image file named 'ghost'",
        "labels.csv row 5: duplicate image_id 'b', first in labels.csv row 3",
        "labels.csv row 6: 2 values where the header has 3 columns",
    )
    assert len(caught.value.faults) == len(expected), caught.value.faults
    for words in expected:
        assert any(fault.startswith(words) for fault in caught.value.faults), (words, caught.value.faults)


def test_an_odd_melanoma_cell_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.csv row 3: unknown diagnosis 'melanoma = yes'"):
        read_other_set(write_given(tmp_path, ["image,melanoma", "a,0", "b,yes"]), "given")


def test_given_labels_want_one_table_with_their_columns(tmp_path: Path) -> None:
    folder = write_given(tmp_path, ["photo,diagnosis", "a,mel"])
    with pytest.raises(DataError, match=r"diagnoses found: none(.|\n)*Rule: exactly one(.|\n)*Next: name the columns"):
        read_other_set(folder, "given")
    with pytest.raises(DataError, match="diagnoses found"):
        read_other_set(folder / "labels.csv", "given")
    write_given(folder, ["image,diagnosis", "a,mel"])
    (folder / "second.csv").write_text("image,melanoma\na,1\n")
    with pytest.raises(DataError, match=r"found: .*labels.csv, .*second.csv"):
        read_other_set(folder, "given")
    assert len(read_other_set(folder / "second.csv", "given").frame) == 1
    (folder / "second.csv").write_text("image,melanoma\n")
    with pytest.raises(DataError, match="no rows"):
        read_other_set(folder / "second.csv", "given")
