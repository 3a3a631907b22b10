"""A first look at a data set: bar charts of what is in it and ``summary.json`` with the same numbers.

Adding a chart is one function ``catalog -> counts`` and one entry in ``CHARTS``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from dermdistill.atomic import atomic_folder, write_json
from dermdistill.data.contact_sheet import contact_sheet
from dermdistill.labels import DIAGNOSES

CONTACT_SHEET = "contact_sheet.png"
SUMMARY = "summary.json"
UNKNOWN = "unknown"
BAND_YEARS = 10

INK, QUIET, GRID = "#1f2933", "#6b7785", "#e4e7eb"
PLAIN, MALIGNANT, MISSING = "#3d7ea6", "#c8553d", "#b8c0c8"


@dataclass(frozen=True)
class Chart:
    """A bar chart.

    Args:
        title: what is counted.
        unit: what one of the counted is, for the axis.
        count: ``catalog -> counts``, index = names of the bars in their order from top to bottom.
    """

    title: str
    unit: str
    count: Callable[[pd.DataFrame], "pd.Series[int]"]


def _tally(values: "pd.Series[Any]") -> "pd.Series[int]":
    """Counts, the commonest first, unknown last; equal counts by name."""
    counts = values.fillna(UNKNOWN).astype(str).value_counts().sort_index().sort_values(ascending=False, kind="stable")
    known = counts[counts.index != UNKNOWN]
    return pd.concat([known, counts[counts.index == UNKNOWN]])


def images_by_diagnosis(catalog: pd.DataFrame) -> "pd.Series[int]":
    """Images of each of the seven diagnoses, also those of none."""
    counts = catalog["diagnosis"].value_counts().reindex([item.code for item in DIAGNOSES], fill_value=0)
    return counts.astype(int).sort_values(ascending=False, kind="stable")


def images_by_age(catalog: pd.DataFrame) -> "pd.Series[int]":
    """Images by the patient's age in bands of ten years, without gaps between the bands; unknown last."""
    known = catalog["age"].dropna()
    lower = (known // BAND_YEARS).astype(int) * BAND_YEARS
    starts = range(lower.min(), lower.max() + BAND_YEARS, BAND_YEARS) if len(known) else range(0)
    counts = {f"{start}-{start + BAND_YEARS - 1}": int((lower == start).sum()) for start in starts}
    if len(known) < len(catalog):
        counts[UNKNOWN] = len(catalog) - len(known)
    return pd.Series(list(counts.values()), index=list(counts))


def lesions_by_images(catalog: pd.DataFrame) -> "pd.Series[int]":
    """Lesions by the number of their images."""
    counts = catalog.groupby("lesion_id").size().value_counts().sort_index()
    names = [f"{images} image{'' if images == 1 else 's'}" for images in counts.index]
    return pd.Series(counts.to_numpy(), index=names)


CHARTS: dict[str, Chart] = {
    "diagnosis": Chart("Images by diagnosis", "images", images_by_diagnosis),
    "age": Chart("Images by age of the patient in years", "images", images_by_age),
    "sex": Chart("Images by sex of the patient", "images", lambda catalog: _tally(catalog["sex"])),
    "site": Chart("Images by body site", "images", lambda catalog: _tally(catalog["site"])),
    "label_source": Chart(
        "Images by source of the diagnosis", "images", lambda catalog: _tally(catalog["diagnosis_source"])
    ),
    "images_per_lesion": Chart("Lesions by number of images", "lesions", lesions_by_images),
}


def _label(name: str) -> str:
    names = {item.code: item.name for item in DIAGNOSES}
    return f"{names[name]} ({name})" if name in names else name


def _colour(name: str) -> str:
    malignant = {item.code for item in DIAGNOSES if item.malignant}
    return MALIGNANT if name in malignant else MISSING if name == UNKNOWN else PLAIN


def bar_chart(counts: "pd.Series[int]", title: str, unit: str) -> Figure:
    """Horizontal bars with count and share; malignant diagnoses and unknown values have their own colours."""
    total, names = int(counts.sum()), [str(name) for name in counts.index]
    figure = Figure(figsize=(8, 1.1 + 0.36 * max(len(names), 2)), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh([_label(name) for name in names], counts.tolist(), color=[_colour(name) for name in names])
    texts = [f"{count:,}  ({count / total:.1%})" if total else "0" for count in counts.tolist()]
    axes.bar_label(bars, labels=texts, padding=4, color=INK, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, max(1.0, float(counts.max() if len(counts) else 0) * 1.28))
    axes.set_title(f"{title} (n = {total:,})", loc="left", color=INK, fontsize=12, fontweight="bold")
    axes.set_xlabel(unit, color=QUIET, fontsize=9)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    axes.tick_params(axis="x", colors=QUIET)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="x", color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    if any(_colour(name) == MALIGNANT for name in names):
        note = "malignant or pre-malignant"
        axes.text(0.99, 0.02, f"■ {note}", transform=axes.transAxes, ha="right", color=MALIGNANT, fontsize=9)
    return figure


def summary(catalog: pd.DataFrame) -> dict[str, Any]:
    """The numbers behind the charts, and images, lesions, ages and masks, JSON-able.

    Returns:
        ``images``, ``lesions``, ``lesions_by_diagnosis``, ``age`` (years; None where no age is known),
        ``with_mask`` (images) and ``counts`` {name of the chart: {bar: count}}.
    """
    age = catalog["age"].dropna()
    lesions = catalog.groupby("diagnosis")["lesion_id"].nunique()
    return {
        "images": len(catalog),
        "lesions": int(catalog["lesion_id"].nunique()),
        "lesions_by_diagnosis": {item.code: int(lesions.get(item.code, 0)) for item in DIAGNOSES},
        "age": {
            "known": len(age),
            "median": float(age.median()) if len(age) else None,
            "lowest": float(age.min()) if len(age) else None,
            "highest": float(age.max()) if len(age) else None,
        },
        "with_mask": int(catalog["mask_path"].notna().sum()),
        "counts": {
            name: {str(bar): int(count) for bar, count in chart.count(catalog).items()}
            for name, chart in CHARTS.items()
        },
    }


def explore(catalog: pd.DataFrame, folder: Path) -> None:
    """Write a PNG a chart (``diagnosis.png``, ``age.png``, ...), ``contact_sheet.png`` and ``summary.json``.

    The folder is written whole or not at all; an old one of that name is replaced.

    Raises:
        DataError: images for the contact sheet cannot be decoded; each is named.
        OutputError: the folder cannot be written.
    """
    sheet, numbers = contact_sheet(catalog), summary(catalog)
    with atomic_folder(folder) as temporary:
        for name, chart in CHARTS.items():
            bar_chart(chart.count(catalog), chart.title, chart.unit).savefig(temporary / f"{name}.png")
        sheet.save(temporary / CONTACT_SHEET)
        write_json(temporary / SUMMARY, numbers)
