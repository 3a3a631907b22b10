"""By what the images of a test part are told apart: patient, body site, source of the label, size, skin tone.

Adding an axis is a function from catalog rows to names of groups, and one entry in ``axes_of``.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermdistill.data.lesion_size import SIZE_BANDS
from dermdistill.data.skin_tone import TONE_BANDS
from dermdistill.errors import DataError
from dermdistill.evaluate.metrics import Ints

Names = npt.NDArray[np.object_]

UNKNOWN = "unknown"
OTHER = "other"
AGE_BANDS: tuple[tuple[str, float], ...] = (
    ("under 30", 0.0),
    ("30 to 44", 30.0),
    ("45 to 59", 45.0),
    ("60 to 74", 60.0),
    ("75 and over", 75.0),
)
SEXES = ("female", "male")
# Sites of HAM10000 and of the ISIC archive. Its "trunk" says neither front nor back.
SITES: dict[str, tuple[str, ...]] = {
    "head and neck": ("face", "scalp", "ear", "neck", "head/neck"),
    "front of the trunk": ("chest", "abdomen", "anterior torso"),
    "back": ("back", "posterior torso"),
    "trunk, side not given": ("trunk", "torso", "lateral torso"),
    "arms": ("upper extremity",),
    "legs": ("lower extremity",),
    "hands and feet": ("hand", "foot", "acral", "palms/soles"),
    "genital or oral": ("genital", "oral/genital"),
}
LABEL_SOURCES: dict[str, str] = {
    "histo": "histopathology",
    "histopathology": "histopathology",
    "follow_up": "follow-up",
    "serial imaging showing no change": "follow-up",
    "consensus": "consensus of experts",
    "single image expert consensus": "consensus of experts",
    "confocal": "confocal microscopy",
    "confocal microscopy with consensus dermoscopy": "confocal microscopy",
}


@dataclass(frozen=True, eq=False)
class Axis:
    """One way to tell images apart.

    Attributes:
        title: for people.
        groups: names in order, empty bands and sexes included; ``unknown`` is last where any image is in it.
        group_of: int [N], the place in ``groups`` of each image's group.
        unavailable: why there are no groups, else None.
        notes: what a reader must know, such as how many images are unknown and why.
    """

    title: str
    groups: tuple[str, ...]
    group_of: Ints
    unavailable: str | None = None
    notes: tuple[str, ...] = ()


def axes_of(catalog_rows: pd.DataFrame, tones: pd.DataFrame | None, sizes: pd.DataFrame | None) -> dict[str, Axis]:
    """Every axis, those without a known value as unavailable with the reason.

    Args:
        catalog_rows: the catalog's rows of the evaluated images, in the order of their scores.
        tones: of ``data.skin_tone.skin_tones`` for at least these images; None is unavailable.
        sizes: of ``data.lesion_size.lesion_sizes``, the same.

    Returns:
        {``age``, ``sex``, ``site``, ``label_source``, ``lesion_size``, ``skin_tone``: Axis}.

    Raises:
        DataError: an image has no row in ``tones`` or ``sizes``.
    """
    age = np.array([_age_band(value) for value in catalog_rows["age"]], dtype=object)
    sex, site = _text(catalog_rows["sex"]), _text(catalog_rows["site"])
    source = _text(catalog_rows["diagnosis_source"])
    ids = catalog_rows["image_id"]
    return {
        "age": _axis("Age, years", tuple(name for name, _ in AGE_BANDS), age, "the data give no age"),
        "sex": _axis("Sex", SEXES, sex, "the data give no sex"),
        "site": _site_axis(site),
        "label_source": _source_axis(source),
        "lesion_size": _measured("Lesion, share of the picture", SIZE_BANDS, ids, sizes),
        "skin_tone": _measured("Skin tone, by ITA of the photograph", TONE_BANDS, ids, tones),
    }


def _age_band(age: float) -> str:
    if np.isnan(age):
        return UNKNOWN
    return next(name for name, low in reversed(AGE_BANDS) if age >= low)


def _text(values: pd.Series) -> Names:
    """Lower case, stripped; ``unknown`` where a cell is empty."""
    cells = [value.strip().lower() if isinstance(value, str) and value.strip() else UNKNOWN for value in values]
    return np.array(cells, dtype=object)


def _site_axis(site: Names) -> Axis:
    group_of = {place: group for group, places in SITES.items() for place in places} | {UNKNOWN: UNKNOWN}
    strange = sorted({str(place) for place in site if place not in group_of})
    names = np.array([group_of.get(place, OTHER) for place in site], dtype=object)
    notes = (f"counted as {OTHER!r}: {', '.join(strange)}",) if strange else ()
    return _axis("Body site", _occurring(SITES, names), names, "the data give no body site", notes)


def _source_axis(source: Names) -> Axis:
    names = np.array([LABEL_SOURCES.get(value, value) for value in source], dtype=object)
    known = _occurring(dict.fromkeys(LABEL_SOURCES.values()), names)
    return _axis("Source of the label", known, names, "the data do not say how the diagnoses were made")


def _occurring(groups: Iterable[str], names: Names) -> tuple[str, ...]:
    found = set(names)
    return tuple(group for group in groups if group in found)


def _measured(title: str, bands: Sequence[tuple[str, float]], ids: pd.Series, measured: pd.DataFrame | None) -> Axis:
    """An axis of bands that were measured on the pictures; why some are unknown goes into its notes."""
    if measured is None:
        return _unavailable(title, "it was not measured")
    rows = measured.set_index("image_id").reindex(ids)
    if rows["band"].isna().any():
        lost = list(rows.index[rows["band"].isna()])
        raise DataError(f"{title}: no row for {len(lost)} images, {lost[0]!r} first", rule="one row an image")
    whys = Counter(_kind(reason) for reason in rows["reason"] if reason)
    notes = tuple(f"{count:,} of {len(rows):,} images unknown: {why}" for why, count in whys.most_common())
    names = rows["band"].to_numpy(dtype=object)
    reason = f"unknown for every image: {', '.join(whys)}"
    return _axis(title, tuple(name for name, _ in bands), names, reason, notes)


def _kind(reason: str) -> str:
    """A reason without the file that it names, so that equal ones are counted together."""
    return reason.split(":", maxsplit=1)[0] if "cannot be" in reason else reason


def _axis(title: str, known: tuple[str, ...], names: Names, reason: str, notes: tuple[str, ...] = ()) -> Axis:
    """Known groups in their order, then others that occur, then ``unknown`` if it occurs."""
    found = {str(name) for name in names}
    if not found - {UNKNOWN}:
        return _unavailable(title, reason)
    extra = sorted(found - {UNKNOWN, *known})
    groups = (*known, *extra, *((UNKNOWN,) if UNKNOWN in found else ()))
    place = {name: index for index, name in enumerate(groups)}
    return Axis(title, groups, np.array([place[name] for name in names], dtype=np.int64), notes=notes)


def _unavailable(title: str, reason: str) -> Axis:
    return Axis(title, (), np.empty(0, dtype=np.int64), unavailable=reason)
