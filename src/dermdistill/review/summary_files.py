"""The files of a summary: ``summary.json``, a CSV table a block, and the data of its plots."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd

from dermdistill.atomic import write_json, write_text
from dermdistill.review.rater_agreement import STRONG, TENTATIVE
from dermdistill.review.study import read_map, read_study
from dermdistill.review.summary import SAMPLES, summarise
from dermdistill.review.summary_answers import read_answers
from dermdistill.review.summary_bootstrap import Json

SUMMARY_FILE: Final = "summary.json"
PLOTS_FILE: Final = "plots.json"
INTERVAL: Final = ("value", "low", "high")
# Of tables that can be without rows: one rater has no pair, and a study may lack shams.
HEADERS: Final = {
    "pairs": ["scale", "first", "second", "items", "value"],
    "differences": ["scale", "method", "sham", *INTERVAL, "verdict"],
}
Row = dict[str, Any]


def write_summary(
    folder: Path, answers: pd.DataFrame | Path, out: Path, *, samples: int = SAMPLES, seed: int = 0
) -> Json:
    """Summarise a study and write ``TABLE.csv`` for each of ``tables``, ``plots.json`` and, last, ``summary.json``.

    Each file is written whole or not at all; other files in ``out`` are left alone.

    Args:
        folder: of the study.
        answers: table of ``summary_answers.COLUMNS``, or the CSV file of it that the server exports.
        out: folder to write to.
        samples: bootstrap replicates.
        seed: of the bootstrap.

    Returns:
        What ``summary.json`` holds.

    Raises:
        DataError: no study, no answers, or faults in either; nothing is written.
        OutputError: a file cannot be written.
    """
    study = read_study(folder)
    frame = read_answers(answers, study) if isinstance(answers, Path) else answers
    summary = summarise(study, frame, lambda item: read_map(folder, item), samples=samples, seed=seed)
    for name, table in tables(summary).items():
        write_text(out / f"{name}.csv", str(table.to_csv(index=False, lineterminator="\n")))
    write_json(out / PLOTS_FILE, plot_data(summary))
    write_json(out / SUMMARY_FILE, summary)
    return summary


def tables(summary: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """The blocks of a summary as tables by name, each with a column ``simulated``; empty cells are null figures.

    ``agreement`` (one row a scale and figure), ``pairs`` (kappa of each pair of raters), ``raters``, ``ratings``,
    ``differences``, ``diagnosis``, ``regions``.
    """
    rows = {
        "agreement": _agreement_rows(summary),
        "pairs": _pair_rows(summary),
        "raters": _rater_rows(summary),
        "ratings": _rating_rows(summary),
        "differences": _difference_rows(summary),
        "diagnosis": _diagnosis_rows(summary),
        "regions": _region_rows(summary),
    }
    made = {name: pd.DataFrame(own, columns=None if own else HEADERS[name]) for name, own in rows.items()}
    return {name: table.assign(simulated=summary["simulated"]) for name, table in made.items()}


def _scales(summary: Mapping[str, Any], block: str) -> list[tuple[str, Json]]:
    return list(summary[block]["scales"].items())


def _flat(cell: Mapping[str, Any]) -> Row:
    """Nested figures as ``NAME_value``, ``NAME_low``, ``NAME_high`` (and shares as ``NAME_count``, ``NAME_n``)."""
    flat: Row = {}
    for name, value in cell.items():
        flat |= {f"{name}_{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _agreement_rows(summary: Mapping[str, Any]) -> list[Row]:
    rows = []
    for scale, block in _scales(summary, "agreement"):
        for name in ("alpha", "alpha_true_maps"):
            own = block[name]
            kept = {key: own[key] for key in (*INTERVAL, "band", "band_of_low")}
            rows.append({"scale": scale, "figure": name, "n": own["items"], **kept})
        pairs = block["kappa"]["pairs"]
        rows.append({"scale": scale, "figure": "mean_kappa", "n": len(pairs), **block["kappa"]["mean"]})
        within = block["within"]
        rows.append({"scale": scale, "figure": "kappa_within", "n": within["pairs"], **within["kappa"]})
        for name in ("same", "within_one"):
            share = {"value": within[name]["value"], "count": within[name]["count"]}
            rows.append({"scale": scale, "figure": f"{name}_within", "n": within["pairs"], **share})
        distance = {"value": within["mean_distance"]}
        rows.append({"scale": scale, "figure": "mean_distance_within", "n": within["pairs"], **distance})
    return rows


def _pair_rows(summary: Mapping[str, Any]) -> list[Row]:
    return [
        {"scale": scale, **pair} for scale, block in _scales(summary, "agreement") for pair in block["kappa"]["pairs"]
    ]


def _rater_rows(summary: Mapping[str, Any]) -> list[Row]:
    rows = []
    for place, own in enumerate(summary["counts"]["by_rater"]):
        row = {name: own[name] for name in ("rater", "answers", "missing")}
        row["median_seconds"] = summary["time"]["by_rater"][place]["median"]
        changes = {key: value for key, value in summary["diagnosis"]["by_rater"][place].items() if key != "rater"}
        row |= {f"diagnosis_{name}": value for name, value in changes.items()}
        for scale, block in _scales(summary, "agreement"):
            within = block["within"]["by_rater"][place]
            row |= {f"{scale}_repeats": within["pairs"], f"{scale}_same": within["same"]["count"]}
        rows.append(row)
    return rows


def _rating_rows(summary: Mapping[str, Any]) -> list[Row]:
    rows = []
    for scale, block in _scales(summary, "ratings"):
        for kind in ("maps", "shams"):
            for name, cell in block[kind].items():
                levels = {f"level_{level}": count for level, count in enumerate(cell["counts"], start=1)}
                kept = {key: cell[key] for key in ("n", "items", "raters")}
                rows.append(
                    {"scale": scale, "kind": kind, "name": name, **kept, **_flat({"mean": cell["mean"]}), **levels}
                )
    return rows


def _difference_rows(summary: Mapping[str, Any]) -> list[Row]:
    return [{"scale": scale, **row} for scale, block in _scales(summary, "ratings") for row in block["differences"]]


def _diagnosis_rows(summary: Mapping[str, Any]) -> list[Row]:
    return [{"group": name, **_flat(cell)} for name, cell in summary["diagnosis"]["groups"].items()]


def _region_rows(summary: Mapping[str, Any]) -> list[Row]:
    block = summary["regions"]
    return [
        {"kind": kind, "name": name, **_flat(cell)} for kind in ("maps", "shams") for name, cell in block[kind].items()
    ]


def plot_data(summary: Mapping[str, Any]) -> Json:
    """What to draw, with nothing left to compute; the report draws it, as it draws all figures.

    Returns:
        ``simulated`` (to be written into every plot) and

        - ``levels``: stacked bars, {scale: [{label, sham, n, counts: [n of level 1 .. 5]}]};
        - ``differences``: a forest of methods less all shams, {scale: [{label, value, low, high, verdict}]};
        - ``alpha``: [{label, value, low, high, band}] and ``bands`` {tentative, strong} to draw as lines;
        - ``diagnosis``: [{label, n, before: FIG, after: FIG}], right diagnoses before and after;
        - ``regions``: [{label, sham, n, iou: FIG, prior_iou: FIG}].

        Groups of ten answers or fewer have null figures; they are to be named, not drawn.
    """
    ratings = dict(_scales(summary, "ratings"))
    return {
        "simulated": summary["simulated"],
        "levels": {
            scale: [
                {"label": name, "sham": kind == "shams", "n": cell["n"], "counts": cell["counts"]}
                for kind in ("maps", "shams")
                for name, cell in block[kind].items()
            ]
            for scale, block in ratings.items()
        },
        "differences": {
            scale: [
                {"label": row["method"], **{key: row[key] for key in (*INTERVAL, "verdict")}}
                for row in block["differences"]
                if row["sham"] == "all"
            ]
            for scale, block in ratings.items()
        },
        "alpha": [
            {"label": scale, **{key: block["alpha"][key] for key in (*INTERVAL, "band")}}
            for scale, block in _scales(summary, "agreement")
        ],
        "bands": {"tentative": TENTATIVE, "strong": STRONG},
        "diagnosis": [
            {"label": name, "n": cell["n"], "before": cell["share_before"], "after": cell["share_after"]}
            for name, cell in summary["diagnosis"]["groups"].items()
        ],
        "regions": [
            {"label": name, "sham": kind == "shams", **{key: cell[key] for key in ("n", "iou", "prior_iou")}}
            for kind in ("maps", "shams")
            for name, cell in summary["regions"][kind].items()
        ],
    }
