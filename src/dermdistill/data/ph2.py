"""PH2 (Mendonça et al., EMBC 2013): 200 dermatoscopic images of nevi and melanomas, as downloaded.

``PH2_dataset.txt`` is a table in pipes, ``|| IMD003 ||  ||  0 || ...``, with a legend behind it. Its clinical diagnosis
is 0 (common nevus), 1 (atypical nevus) or 2 (melanoma); the histological one is blank for most of the images. Those are
``PH2 Dataset images/IMD003/IMD003_Dermoscopic_Image/IMD003.bmp``, masks ``.../IMD003_lesion/IMD003_lesion.bmp``.
"""

import re
from pathlib import Path

import pandas as pd

from dermdistill.data.catalog import PLACE
from dermdistill.data.source_files import Reading, image_files
from dermdistill.errors import DataError

TABLE = "PH2_dataset.txt"
IMAGES = "PH2 Dataset images"
LOOKS_LIKE = f"{TABLE} (a table in pipes) beside the folder {IMAGES!r}"
CLINICAL = {"0": "nv", "1": "nv", "2": "mel"}
COLUMNS = ("name", "histological diagnosis", "clinical diagnosis")


def read_ph2(folder: Path) -> Reading:
    """PH2's folder, or the folder that holds it (``PH2Dataset``).

    Common and atypical nevi are both ``nv``. Each image shows another lesion; age, sex and site are not published. A
    diagnosis has the source ``histo`` where the table has a histological one, else ``clinical``.

    Raises:
        DataError: there is no table, or it has no header.
    """
    table = _table(folder)
    rows, faults = _rows(table)
    frame = pd.DataFrame(rows, columns=[PLACE, "image_id", "diagnosis", "diagnosis_source"], dtype="str")
    frame = frame.set_index(PLACE)
    files = {path.stem: str(path.absolute()) for path in image_files(table.parent)}
    frame["lesion_id"] = frame["image_id"]
    frame["path"] = frame["image_id"].map(files)
    frame["mask_path"] = (frame["image_id"] + "_lesion").map(files)
    return Reading(frame.assign(age=float("nan"), sex="unknown", site="unknown", source="PH2"), faults)


def is_ph2(folder: Path) -> bool:
    """Whether a folder holds PH2's table."""
    return bool(_tables(folder))


def _tables(folder: Path) -> list[Path]:
    texts = [*folder.glob("*.txt"), *folder.glob("*/*.txt")]
    return sorted(path for path in texts if path.name.lower() == TABLE.lower())


def _table(folder: Path) -> Path:
    found = _tables(folder)
    if len(found) != 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found) or "none"
        raise DataError(
            f"{folder}: tables {TABLE} found: {names}",
            rule=LOOKS_LIKE,
            next_step="give the folder PH2Dataset as it was unpacked, or another --reader",
        )
    return found[0]


def _rows(path: Path) -> tuple[list[tuple[str, str, str, str]], list[str]]:
    """(place, image, code, source) of each row, and the faults of single rows."""
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})", rule=LOOKS_LIKE) from error
    numbered = [(number, _cells(line)) for number, line in enumerate(lines, start=1) if line.strip().startswith("|")]
    header = [cell.lower() for cell in numbered[0][1][:3]] if numbered else []
    if header != list(COLUMNS):
        raise DataError(
            f"{path}: the first row in pipes starts with {header}", rule=f"columns {', '.join(COLUMNS)} come first"
        )
    rows, faults = [], []
    for number, cells in numbered[1:]:
        place = f"{path.name} row {number}"
        if len(cells) < len(COLUMNS):
            faults.append(f"{place}: {len(cells)} values where the header has {len(numbered[0][1])} columns")
            continue
        name, histological, clinical = cells[:3]
        code = CLINICAL.get(clinical, f"clinical diagnosis {clinical}")
        rows.append((place, name, code, "histo" if histological else "clinical"))
    return rows, faults


def _cells(line: str) -> list[str]:
    """The cells of ``|| a || b | c ||``, blank ones too."""
    return [cell.strip() for cell in re.split(r"\|\|?", line.strip().strip("|"))]
