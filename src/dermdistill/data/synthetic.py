"""A data set of synthetic dermatoscopic lesions in HAM10000's public layout: what demo and tests run on.

The pictures are drawn by rules and hold no real patient. They teach nothing about skin: a model trained on
them shows that the machinery works, and no more. Ids start with ``SYN``, and every diagnosis has the source
``synthetic``.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dermdistill.atomic import atomic_folder, write_json
from dermdistill.config import SyntheticConfig
from dermdistill.data.synthetic_photo import draw_photos
from dermdistill.errors import OutputError
from dermdistill.labels import CODES

METADATA = "HAM10000_metadata.csv"
IMAGES = "HAM10000_images_part_1"
MASKS = "HAM10000_segmentations_lesion_tschandl"
MARKER = "synthetic.json"
COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
GUARANTEED = 3

# Real shares are .67 nv down to .01 df; here the rare ones are rare, but enough for a small run.
SHARES = {"nv": 0.35, "mel": 0.15, "bkl": 0.15, "bcc": 0.11, "akiec": 0.09, "vasc": 0.08, "df": 0.07}
PHOTO_SHARES = (0.72, 0.19, 0.07, 0.02)
_FACTS, _DRAWING = range(2)


@dataclass(frozen=True)
class _Population:
    """Who has such lesions: mean and deviation of age in years, share of men, and the usual sites."""

    age: tuple[float, float]
    male: float
    sites: dict[str, float]


# Rounded from the 10,015 rows of HAM10000's metadata.
_POPULATIONS = {
    "akiec": _Population((66, 11), 0.68, {"face": 0.4, "lower extremity": 0.25, "upper extremity": 0.25, "back": 0.1}),
    "bcc": _Population((67, 14), 0.62, {"back": 0.4, "face": 0.25, "lower extremity": 0.15, "chest": 0.2}),
    "bkl": _Population((64, 14), 0.57, {"face": 0.35, "back": 0.25, "lower extremity": 0.2, "trunk": 0.2}),
    "df": _Population((53, 13), 0.55, {"lower extremity": 0.75, "upper extremity": 0.2, "abdomen": 0.05}),
    "mel": _Population((61, 15), 0.62, {"back": 0.4, "upper extremity": 0.25, "lower extremity": 0.25, "face": 0.1}),
    "nv": _Population((46, 15), 0.51, {"lower extremity": 0.3, "back": 0.3, "trunk": 0.25, "abdomen": 0.15}),
    "vasc": _Population((51, 21), 0.48, {"trunk": 0.35, "lower extremity": 0.25, "abdomen": 0.25, "back": 0.15}),
}


@dataclass(frozen=True)
class Lesion:
    """What is written about a lesion; ``age`` is in years, empty where unknown."""

    number: int
    diagnosis: str
    photos: int
    age: str
    sex: str
    site: str


def plan_lesion(seed: int, number: int) -> Lesion:
    """The facts about lesion ``number`` (from 0): a function of the two arguments alone.

    ``GUARANTEED`` lesions of every class come first, so that any allowed number of lesions holds them all;
    the class of later ones is drawn with ``SHARES``.
    """
    rng = np.random.default_rng([seed, number, _FACTS])
    codes, shares = list(SHARES), list(SHARES.values())
    drawn = codes[int(rng.choice(len(codes), p=shares))]
    diagnosis = CODES[number % len(CODES)] if number < GUARANTEED * len(CODES) else drawn
    people = _POPULATIONS[diagnosis]
    age = 5 * round(float(np.clip(rng.normal(*people.age), 5, 85)) / 5)
    return Lesion(
        number=number,
        diagnosis=diagnosis,
        photos=1 + int(rng.choice(len(PHOTO_SHARES), p=PHOTO_SHARES)),
        age="" if rng.random() < 0.01 else f"{age:.1f}",
        sex="unknown" if rng.random() < 0.01 else ("male" if rng.random() < people.male else "female"),
        site="unknown" if rng.random() < 0.02 else str(rng.choice(list(people.sites), p=list(people.sites.values()))),
    )


def write_synthetic(folder: Path, config: SyntheticConfig) -> Path:
    """Write a synthetic data set, whole or not at all.

    The same config gives the same bytes. Lesion n is the same whatever the number of lesions, so a larger set
    starts with the smaller one.

    Args:
        folder: where to; a synthetic set that is there already is replaced.
        config: number of lesions, seed, picture size in pixels, artefacts.

    Returns:
        ``folder``.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
    """
    _refuse_foreign(folder)
    with atomic_folder(folder) as temporary:
        (temporary / IMAGES).mkdir()
        (temporary / MASKS).mkdir()
        with (temporary / METADATA).open("w", encoding="utf-8", newline="") as handle:
            table = csv.writer(handle, lineterminator="\n")
            table.writerow(COLUMNS)
            table.writerows(_write_photos(temporary, config))
        write_json(temporary / MARKER, {"generator": "dermdistill", **config.model_dump(mode="json")})
    return folder


def _write_photos(folder: Path, config: SyntheticConfig) -> Iterator[tuple[str, ...]]:
    """Draw and write every photo and mask; yields the rows of the metadata."""
    image = 0
    for number in range(config.lesions):
        lesion = plan_lesion(config.seed, number)
        key = (config.seed, number, _DRAWING)
        size = (config.width, config.height)
        for photo in draw_photos(lesion.diagnosis, key, lesion.photos, size, config.artefacts):
            image += 1
            image_id = f"SYN_{image:07d}"
            (folder / IMAGES / f"{image_id}.jpg").write_bytes(photo.jpeg())
            (folder / MASKS / f"{image_id}_segmentation.png").write_bytes(photo.mask_png())
            facts = (lesion.diagnosis, "synthetic", lesion.age, lesion.sex, lesion.site)
            yield (f"SYNL_{number:07d}", image_id, *facts)


def _refuse_foreign(folder: Path) -> None:
    """Never take the place of a folder that this module did not write: it may be someone's real data."""
    try:
        foreign = folder.exists() and not (folder / MARKER).is_file()
        foreign = foreign and not (folder.is_dir() and not any(folder.iterdir()))
    except OSError as error:
        raise OutputError(f"{folder}: cannot be looked into ({error.strerror})") from error
    if foreign:
        raise OutputError(
            f"{folder}: exists and is no synthetic data set",
            rule=f"a synthetic set goes to a new or empty folder, or replaces one that holds {MARKER}",
            next_step="choose another folder",
        )
