"""Sets of images that a finished model is tested on; they may know less of a diagnosis than a training set must.

What a source says becomes one of three things, and never silently another:

- one of the seven diagnoses, by code or name;
- ``rest``, where the source knows only that it is no melanoma (a folder ``benign``, a column ``melanoma`` that is 0).
  Such an image counts where melanoma is told from the rest, and nowhere else;
- outside: a diagnosis without counterpart among the seven (squamous cell carcinoma, "unknown"). Such images are left
  out, and counted by their name.

Anything else is a fault. Training never sees ``rest``: ``readers.read_catalog`` knows the seven alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dermdistill.data.catalog import COLUMNS, TEXT_COLUMNS, data_faults, find_faults
from dermdistill.data.given_labels import LOOKS_LIKE as GIVEN_LOOKS_LIKE
from dermdistill.data.given_labels import has_given_labels, read_given_labels
from dermdistill.data.isic import read_isic
from dermdistill.data.ph2 import LOOKS_LIKE as PH2_LOOKS_LIKE
from dermdistill.data.ph2 import is_ph2, read_ph2
from dermdistill.data.readers import READERS, read_class_folders, read_ham10000
from dermdistill.data.source_files import Reading, subfolders
from dermdistill.errors import ConfigError, DataError
from dermdistill.labels import CODES, MELANOMA, REST, parse_diagnosis

# Written in lower case, with spaces.
NOT_MELANOMA = (REST, "benign", "not melanoma", "non melanoma", "no melanoma", "notmelanoma", "nonmelanoma")
OUTSIDE = ("scc", "squamous cell carcinoma", "unk", "unknown", "other", "outside")


@dataclass(frozen=True)
class OtherReader:
    """One layout of a set to test on."""

    read: Callable[[Path], Reading]
    recognises: Callable[[Path], bool]
    looks_like: str


@dataclass(frozen=True)
class OtherSet:
    """A set to test on.

    Args:
        frame: the catalog's columns, sorted by ``image_id``; ``diagnosis`` is one of the seven codes, or ``rest``.
        outside: how many images were left out, by the source's name of their diagnosis.
        reader: that read it.
    """

    frame: pd.DataFrame
    outside: dict[str, int]
    reader: str


# In the order in which they are tried.
OTHER_READERS: dict[str, OtherReader] = {
    "ham10000": OtherReader(read_ham10000, READERS["ham10000"].recognises, READERS["ham10000"].looks_like),
    "isic": OtherReader(read_isic, READERS["isic"].recognises, READERS["isic"].looks_like),
    "ph2": OtherReader(read_ph2, is_ph2, PH2_LOOKS_LIKE),
    "given": OtherReader(read_given_labels, has_given_labels, GIVEN_LOOKS_LIKE),
    "folder": OtherReader(
        read_class_folders,
        lambda folder: any(read_diagnosis(item.name) in (*CODES, REST) for item in subfolders(folder)),
        f"a folder of images per class, named {', '.join(CODES)} or by the diagnosis in full; "
        f"{' or '.join(NOT_MELANOMA[:3])} where only that is known",
    ),
}


def detect_reader(place: Path) -> str:
    """Which of ``OTHER_READERS`` a set is laid out for.

    Raises:
        DataError: the folder is missing, empty, or like none of the layouts.
    """
    if place.is_file():
        return "given"
    _require_place(place, "folder")
    for name, reader in OTHER_READERS.items():
        if reader.recognises(place):
            return name
    layouts = "".join(f"\n  {name}: {item.looks_like}" for name, item in OTHER_READERS.items())
    raise DataError(
        f"{place}: no known layout", rule=f"one of these{layouts}", next_step="lay it out so, or name a --reader"
    )


def read_other_set(place: Path, reader: str) -> OtherSet:
    """Read and check a set to test on; images are not decoded.

    Args:
        place: its folder; for ``given`` also the table itself.
        reader: a key of ``OTHER_READERS``.

    Raises:
        ConfigError: the reader is not known.
        DataError: the folder is missing or empty, the reader does not fit, or with every fault at once.
    """
    if reader not in OTHER_READERS:
        raise ConfigError(f"unknown reader {reader!r}", rule=f"one of {', '.join(OTHER_READERS)}")
    _require_place(place, reader)
    try:
        reading = OTHER_READERS[reader].read(place)
    except DataError as error:
        raise DataError(
            error.problem,
            faults=error.faults,
            rule=error.rule or OTHER_READERS[reader].looks_like,
            next_step=error.next_step or _next_step(reader),
        ) from error
    frame = reading.frame.copy()
    if frame.empty:
        raise DataError(
            f"{place}: the reader {reader!r} found no images in it",
            faults=reading.faults,
            rule=OTHER_READERS[reader].looks_like,
            next_step=_next_step(reader),
        )
    outside: dict[str, int] = {}
    if "diagnosis" in frame:
        frame["diagnosis"] = [read_diagnosis(str(text)) for text in frame["diagnosis"]]
        left_out = frame["diagnosis"].str.lower().isin(OUTSIDE)
        outside = {str(name): int(n) for name, n in frame.loc[left_out, "diagnosis"].value_counts().items()}
        frame = frame[~left_out]
    faults = [*reading.faults, *_faults(frame, str(place))]
    if faults:
        raise data_faults(str(place), faults)
    return OtherSet(_as_catalog(frame), outside, reader)


def read_diagnosis(text: str) -> str:
    """A code of the seven, ``rest``, or the text as it is."""
    words = " ".join(text.lower().replace("_", " ").replace("-", " ").split())
    if words in NOT_MELANOMA:
        return REST
    try:
        return parse_diagnosis(words)
    except DataError:
        return words if words in OUTSIDE else text


def _faults(frame: pd.DataFrame, place: str) -> list[str]:
    """The catalog's checks of everything but the diagnosis, then those of the diagnoses that are known in full."""
    if frame.empty:
        return [f"{place}: every image has a diagnosis outside the seven"]
    missing = [f"{place}: missing column {name!r}" for name in COLUMNS if name not in frame and name != "mask_path"]
    found = missing + find_faults(frame.drop(columns="diagnosis", errors="ignore"), rows_from=place)
    if "diagnosis" not in frame:
        return found
    full = frame.loc[frame["diagnosis"] != REST, ["lesion_id", "diagnosis"]]
    found += find_faults(full, rows_from=place) if len(full) else []
    kinds = frame.groupby("lesion_id")["diagnosis"].agg(set)
    both = [lesion for lesion, codes in kinds.items() if REST in codes and MELANOMA in codes]
    found += [f"{place}: lesion {lesion!r} is melanoma in one image and none in another" for lesion in both]
    return list(dict.fromkeys(found))


def _as_catalog(frame: pd.DataFrame) -> pd.DataFrame:
    cells = frame.reset_index(drop=True)
    cells = cells.reindex(columns=list(COLUMNS)).astype(dict.fromkeys(TEXT_COLUMNS, "str"))
    ages = pd.to_numeric(cells["age"], errors="coerce").astype(float)
    return cells.assign(age=ages).sort_values("image_id", ignore_index=True)


def _next_step(reader: str) -> str:
    others = [name for name in OTHER_READERS if name != reader]
    return f"give a folder that looks so, or another --reader: {', '.join(others)}"


def _require_place(place: Path, reader: str) -> None:
    if place.is_dir():
        if all(item.name.startswith(".") for item in place.iterdir()):
            raise DataError(f"{place}: the folder is empty", rule=OTHER_READERS[reader].looks_like)
        return
    if reader == "given" and place.is_file():
        return
    what = "is a file, not a folder" if place.exists() else "no such folder"
    raise DataError(f"{place}: {what}", rule=OTHER_READERS[reader].looks_like, next_step=_next_step(reader))
