"""The part of the report on what experts said of the maps: ``review/summary/summary.json`` of a run, if it is there.

The form is that of ``review/summary.py``. Nothing is shown that raters did not give, and test data are named as such.
"""

from collections.abc import Mapping
from typing import Any, Final

from dermdistill.report.explanations import method_title
from dermdistill.report.formats import NOT_COMPUTABLE, Cell, estimate, number
from dermdistill.report.tables import Row

SUMMARY: Final = "review/summary/summary.json"
SCALES: Final = {"spatial": "The map lies where it should", "trust": "Trust", "usefulness": "Usefulness"}
GROUPS: Final = {
    "all_maps": "All true maps",
    "model_right": "Where the model was right",
    "model_wrong": "Where the model was wrong",
    "sham_maps": "Under sham maps",
}
KINDS: Final = {"all": "all shams", "centre_prior": "a blob in the centre", "other_image": "another image's map"}
Json = Mapping[str, Any]


def reader_study(summary: Json | None) -> dict[str, Any] | None:
    """What the template shows; None where no study was summed up."""
    if summary is None:
        return None
    counts = summary["counts"]
    return {
        "title": str(summary["title"]),
        "simulated": bool(summary["simulated"]),
        "sentences": [
            f"{counts['raters']} raters gave {counts['answers']} answers to {summary['study']['items']} items; "
            f"{counts['missing']} are missing.",
            *_verdicts(summary["ratings"]),
        ],
        "agreement": _agreement_rows(summary["agreement"]),
        "ratings": _rating_rows(summary["ratings"]),
        "diagnosis": _diagnosis_rows(summary["diagnosis"]),
        "regions": _region_rows(summary["regions"]),
        "notes": [str(note) for note in summary["notes"]],
    }


def _name(method: str) -> str:
    return GROUPS.get(method, KINDS.get(method, method_title(method)))


def _share(cell: Json) -> Cell:
    """A share in percent with its counts; too few answers are named."""
    detail = f"{cell['count']} of {cell['n']}"
    if cell["value"] is None:
        return Cell("too few", detail, word=True)
    return Cell(f"{100 * cell['value']:.0f}%", detail)


def _verdicts(ratings: Json) -> list[str]:
    return [
        f"{SCALES[scale]}: true maps were rated {one['verdict']}, difference {estimate(one)}."
        for scale, block in ratings["scales"].items()
        for one in block["differences"]
        if one["method"] == "all_maps" and one["sham"] == "all" and one["value"] is not None
    ]


def _agreement_rows(agreement: Json) -> list[Row]:
    rows = []
    for scale, block in agreement["scales"].items():
        alpha = block["alpha"]
        band = Cell(str(alpha["band"]), word=True) if alpha["value"] is not None else Cell(NOT_COMPUTABLE, word=True)
        within = block["within"]
        cells = (estimate(alpha), band, estimate(block["kappa"]["mean"]), _share(within["same"]))
        rows.append(Row(SCALES[scale], cells, f"{alpha['items']} items"))
    return rows


def _rating_rows(ratings: Json) -> list[Row]:
    rows = []
    for scale, block in ratings["scales"].items():
        for kind, cells in (("maps", block["maps"]), ("shams", block["shams"])):
            for name, cell in cells.items():
                what = _name(name) if kind == "maps" else f"Sham: {_name(name)}"
                rows.append(Row(what, (estimate(cell["mean"]), Cell(str(cell["n"]))), SCALES[scale]))
    return rows


def _diagnosis_rows(diagnosis: Json) -> list[Row]:
    rows = []
    for name, cell in diagnosis["groups"].items():
        p = cell["mcnemar_p"]
        cells = (
            estimate(cell["share_before"]),
            estimate(cell["share_after"]),
            Cell(str(cell["helped"])),
            Cell(str(cell["harmed"])),
            Cell(NOT_COMPUTABLE, word=True) if p is None else Cell(number(p)),
        )
        rows.append(Row(_name(name), cells, f"{cell['n']} answers"))
    return rows


def _region_rows(regions: Json) -> list[Row]:
    return [
        Row(
            _name(name) if kind == "maps" else f"Sham: {_name(name)}",
            tuple(estimate(cell[key]) for key in ("iou", "prior_iou", "energy", "prior_energy")),
            f"{cell['n']} regions",
        )
        for kind in ("maps", "shams")
        for name, cell in regions[kind].items()
    ]
