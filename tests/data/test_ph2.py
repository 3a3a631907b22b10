"""PH2 as published: its table in pipes, nested folders, and what can be wrong with them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermdistill.data.other_sets import detect_reader, read_other_set
from dermdistill.errors import DataError

HEADER = (
    "||   Name || Histological Diagnosis || Clinical Diagnosis || Asymmetry | Pigment Network | Dots/Globules | "
    "Streaks | Regression Areas | Blue-Whitish Veil ||           Colors ||"
)
LEGEND = "\n\nLegend:\n\nClinical Diagnosis\n\t0 - Common Nevus\n\t1 - Atypical Nevus\n\t2 - Melanoma\n"


def row(name: str, clinical: object, histological: str = "") -> str:
    return f"|| {name} || {histological:22} || {clinical:>18} || 0 | T | A | A | A | A || 4  ||"


def write_ph2(folder: Path, rows: list[str], images: tuple[str, ...] = ("IMD002", "IMD003", "IMD058")) -> Path:
    for number, name in enumerate(images):
        case = folder / "PH2 Dataset images" / name
        for below, file in (("Dermoscopic_Image", name), ("lesion", f"{name}_lesion"), ("roi", f"{name}_R1_Label4")):
            path = case / f"{name}_{below}" / f"{file}.bmp"
            path.parent.mkdir(parents=True)
            Image.fromarray(np.full((6, 8, 3), 20 * number, dtype=np.uint8)).save(path)
    (folder / "PH2_dataset.txt").write_text("\r\n".join([HEADER, *rows]) + LEGEND)
    return folder


@pytest.mark.parametrize("nested", [False, True])
def test_ph2_reads_the_public_layout(tmp_path: Path, nested: bool) -> None:
    rows = [row("IMD003", 0), row("IMD002", 1), row("IMD058", 2, "Melanoma")]
    folder = write_ph2(tmp_path / "PH2Dataset", rows)
    place = tmp_path if nested else folder
    assert detect_reader(place) == "ph2"
    frame = read_other_set(place, "ph2").frame
    assert frame["image_id"].tolist() == ["IMD002", "IMD003", "IMD058"]
    assert frame["diagnosis"].tolist() == ["nv", "nv", "mel"]
    assert frame["diagnosis_source"].tolist() == ["clinical", "clinical", "histo"]
    assert frame["lesion_id"].tolist() == frame["image_id"].tolist()
    images = folder / "PH2 Dataset images"
    assert Path(frame["path"][1]) == images / "IMD003" / "IMD003_Dermoscopic_Image" / "IMD003.bmp"
    assert Path(frame["mask_path"][1]) == images / "IMD003" / "IMD003_lesion" / "IMD003_lesion.bmp"
    assert set(frame["source"]) == {"PH2"}
    assert frame["age"].isna().all()


def test_ph2_lists_every_fault_with_its_row(tmp_path: Path) -> None:
    rows = [row("IMD003", 0), row("IMD002", 7), row("IMD404", 1), row("IMD003", 2), "|| IMD058 ||", row("IMD058", "")]
    folder = write_ph2(tmp_path, rows)
    with pytest.raises(DataError) as caught:
        read_other_set(folder, "ph2")
    expected = (
        "PH2_dataset.txt row 3: unknown diagnosis 'clinical diagnosis 7'",
        "PH2_dataset.txt row 4: missing image: no image file named 'IMD404'",
        "PH2_dataset.txt row 5: duplicate image_id 'IMD003', first in PH2_dataset.txt row 2",
        "PH2_dataset.txt row 5: lesion 'IMD003' has two diagnoses: 'mel' here, 'nv' in PH2_dataset.txt row 2",
        "PH2_dataset.txt row 6: 1 values where the header has 10 columns",
        "PH2_dataset.txt row 7: unknown diagnosis 'clinical diagnosis '",
    )
    assert len(caught.value.faults) == len(expected), caught.value.faults
    for words in expected:
        assert any(fault.startswith(words) for fault in caught.value.faults), (words, caught.value.faults)


def test_ph2_without_a_table_or_with_another_is_refused(tmp_path: Path) -> None:
    folder = write_ph2(tmp_path, [row("IMD003", 0)])
    (folder / "PH2_dataset.txt").write_text("Name,Clinical Diagnosis\nIMD003,0\n")
    with pytest.raises(DataError, match=r"the first row in pipes starts with \[\]"):
        read_other_set(folder, "ph2")
    (folder / "PH2_dataset.txt").write_bytes(b"\xff\xfe|")
    with pytest.raises(DataError, match="cannot be read"):
        read_other_set(folder, "ph2")
    (folder / "PH2_dataset.txt").unlink()
    with pytest.raises(DataError, match=r"found: none(.|\n)*Rule: PH2_dataset.txt(.|\n)*Next: give the folder"):
        read_other_set(folder, "ph2")


def test_ph2_with_a_header_alone_has_no_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the reader 'ph2' found no images"):
        read_other_set(write_ph2(tmp_path, []), "ph2")
