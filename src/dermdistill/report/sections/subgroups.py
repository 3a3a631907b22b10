"""Whom the model fails: its figures by group, drawn and in tables, and the largest gap of each axis with its test."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dermdistill.data.skin_tone import CENTRAL, FEWEST_PIXELS, MARGIN
from dermdistill.evaluate.subgroup_axes import UNKNOWN
from dermdistill.report.figures import draw, model_colour
from dermdistill.report.formats import (
    MODEL_PHRASES,
    NOT_COMPUTABLE,
    Cell,
    difference,
    estimate,
    model_title,
    number,
)
from dermdistill.report.tables import Row

TITLE = "Whom it fails"
QUESTION = "Is the model worse for some patients, body sites, lesions or skins than for others?"
SHIPPED: Final = "student_int8"
ALPHA: Final = 0.05
DRAWN: Final = ("melanoma_auc", "sensitivity_at_95_sensitivity")
TITLES: Final = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "melanoma_auc": "Melanoma AUC",
    "sensitivity_at_95_sensitivity": "Sensitivity",
    "specificity_at_95_sensitivity": "Specificity",
    "melanoma_excess": "Melanoma excess",
}
COUNTS: Final = ("Images", "Lesions", "Melanomas")
GAP_HEAD: Final = ("Gap", "Best", "Worst", "p", "p, all axes", "p, same diagnosis", "p, same diagnosis, all axes")
LIGHT_BANDS: Final = ("very light", "light")
DARK_BANDS: Final = ("brown", "dark")
WIDTH: Final = 7.2  # inches
Json = Mapping[str, Any]


def section(evaluation: Json) -> dict[str, Any] | None:
    """What the partial shows; None where the evaluation has no block ``subgroups``."""
    block = evaluation.get("subgroups")
    if not block:
        return None
    models = block["models"]
    shown = SHIPPED if SHIPPED in models else list(models)[-1]
    return {
        "lead": _lead(block, shown),
        "gaps": _gap_sentences(block, shown),
        "remarks": [*_untested(block, shown), *_flat(block, shown)],
        "phrase": MODEL_PHRASES.get(shown, shown),
        "few": block["few"],
        "head": [*COUNTS, *TITLES.values()],
        "gap_head": GAP_HEAD,
        "permutations": f"{block['permutations']:,}",
        "axes": [_axis(block, shown, name) for name in block["axes"]],
        "tone": _tone(block),
        "others": [
            {"title": model_title(model), "axes": [_tables(block, model, name) for name in models[model]]}
            for model in models
            if model != shown
        ],
    }


def _lead(block: Json, model: str) -> str:
    axes = block["models"][model].values()
    tested = [gap["p_holm"] for entry in axes for gap in entry["gaps"].values() if gap["p_holm"] is not None]
    if not tested:
        return "No two groups have figures that could be compared."
    far = sum(p < ALPHA for p in tested)
    said = (
        f"{far} of {len(tested)} tested gaps between groups of the {MODEL_PHRASES.get(model, model)} "
        f"{'is' if far == 1 else 'are'} larger than chance gives (p below {number(ALPHA, 2)}, corrected for the number "
        "of axes)"
    )
    return f"{said}:" if far else f"{said}; that proves no equal treatment, as small groups hide gaps."


def _gap_sentences(block: Json, model: str) -> list[str]:
    """One sentence a gap that chance hardly gives, with what the mix of diagnoses has to do with it."""
    return [
        _gap_sentence(block["axes"][axis]["title"], name, gap, entry["groups"])
        for axis, entry in block["models"][model].items()
        for name, gap in entry["gaps"].items()
        if gap["p_holm"] is not None and gap["p_holm"] < ALPHA
    ]


def _gap_sentence(title: str, name: str, gap: Json, groups: Json) -> str:
    best, worst = (f"{number(groups[gap[side]][name]['value'])} in {gap[side]!r}" for side in ("best", "worst"))
    mix = "does not explain it" if gap["p_same_diagnosis_holm"] < ALPHA else "alone could give it"
    return f"{title}: {_listed([name])} {worst} against {best}. The mix of diagnoses {mix}."


def _untested(block: Json, model: str) -> list[str]:
    """Axes that are unavailable, and figures whose gaps could not be found or not be tested."""
    lines = [
        f"{axis['title']}: unavailable, as {axis['unavailable']}."
        for axis in block["axes"].values()
        if axis["unavailable"] is not None
    ]
    for name, entry in block["models"][model].items():
        title, gaps = block["axes"][name]["title"], entry["gaps"]
        lacking = [figure for figure, gap in gaps.items() if gap["value"] is None]
        mixed = [figure for figure, gap in gaps.items() if gap["value"] is not None and gap["p"] is None]
        if lacking:
            lines.append(f"{title}: fewer than two groups have figures to compare of {_listed(lacking)}.")
        if mixed:
            lines.append(f"{title}: no test of {_listed(mixed)}, as most images of all lesions lie in one group.")
    return lines


def _listed(figures: Sequence[str]) -> str:
    lowered = [TITLES[figure][:1].lower() + TITLES[figure][1:] for figure in figures]
    return lowered[0] if len(lowered) == 1 else f"{', '.join(lowered[:-1])} and {lowered[-1]}"


def _flat(block: Json, model: str) -> list[str]:
    """A warning where an interval has no width."""
    cells = [
        cell
        for entry in block["models"][model].values()
        for group in entry["groups"].values()
        for cell in group.values()
    ]
    if not any(cell["value"] is not None and cell["low"] == cell["high"] for cell in cells):
        return []
    return ["An interval without width means that all cases of its group came out alike, not that others could not."]


def _axis(block: Json, model: str, name: str) -> dict[str, Any]:
    axis = block["axes"][name]
    if axis["unavailable"] is not None:
        return {"title": axis["title"], "unavailable": axis["unavailable"]}
    return _tables(block, model, name) | {"unavailable": None, "svg": Markup(_forest(block, model, name))}


def _tables(block: Json, model: str, name: str) -> dict[str, Any]:
    axis, entry = block["axes"][name], block["models"][model][name]
    several = axis["lesions_in_several_groups"]
    notes = [f"{note}." for note in axis["notes"]]
    if several:
        notes.append(
            f"The images of {several:,} lesions lie in several groups; in the tests such a lesion counts with the "
            "group of most of its images."
        )
    return {
        "title": axis["title"],
        "notes": notes,
        "rows": [
            Row(group, _cells(counts, entry["groups"][group], block["few"]), _missing(counts))
            for group, counts in axis["groups"].items()
        ],
        "gap_rows": [Row(TITLES[figure], _gap_cells(gap, block)) for figure, gap in entry["gaps"].items()],
    }


def _missing(counts: Json) -> str:
    codes = counts["missing_classes"]
    return f"no {', '.join(codes)}" if codes and counts["images"] else ""


def _cells(counts: Json, figures: Json, few: int) -> tuple[Cell, ...]:
    numbers = [Cell(f"{counts[name.lower()]:,}") for name in COUNTS]
    return (*numbers, *(_figure_cell(name, figures[name], few) for name in TITLES))


def _figure_cell(name: str, cell: Json, few: int) -> Cell:
    if cell["cases"] <= few:
        return Cell(f"too few ({cell['cases']})", word=True)
    return difference(cell) if name == "melanoma_excess" else estimate(cell)


def _gap_cells(gap: Json, block: Json) -> tuple[Cell, ...]:
    if gap["value"] is None:
        return (Cell("fewer than two groups", word=True), *(Cell("-") for _ in GAP_HEAD[1:]))
    kinds = ("p", "p_holm", "p_same_diagnosis", "p_same_diagnosis_holm")
    return (
        Cell(number(gap["value"]), difference(gap).detail),
        Cell(gap["best"]),
        Cell(gap["worst"]),
        *(_p_cell(gap[kind], block["permutations"] if kind in ("p", "p_same_diagnosis") else None) for kind in kinds),
    )


def _p_cell(p: float | None, permutations: int | None) -> Cell:
    """A p value; one of a test says how many of its permutations were as far apart."""
    if p is None:
        return Cell(NOT_COMPUTABLE, word=True)
    if permutations is None:
        return Cell(number(p))
    return Cell(number(p), f"({round(p * (1 + permutations)) - 1:,} of {permutations:,})")


def _tone(block: Json) -> dict[str, Any] | None:
    """How the angles lie, in numbers, and what the method leaves out; None without a skin-tone axis."""
    axis = block["axes"].get("skin_tone")
    if axis is None or axis["unavailable"] is not None:
        return None
    images = {group: counts["images"] for group, counts in axis["groups"].items()}
    known = sum(count for group, count in images.items() if group != UNKNOWN)
    light, dark = (sum(images.get(band, 0) for band in bands) for bands in (LIGHT_BANDS, DARK_BANDS))
    return {
        "known": f"{known:,} of {sum(images.values()):,}",
        "light": f"{100 * light / known:.0f}%",
        "dark": f"{dark:,}",
        "margin": f"{100 * MARGIN:g}%",
        "central": f"{100 * CENTRAL:g}%",
        "fewest": FEWEST_PIXELS,
    }


def _forest(block: Json, model: str, name: str) -> str:
    """AUC and sensitivity of each group with their intervals, a line a group."""
    axis, entry = block["axes"][name], block["models"][model][name]
    groups = list(axis["groups"])
    colour = model_colour(model, list(block["models"]))
    titles = [f"{group} (n = {axis['groups'][group]['images']:,})" for group in groups]

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(DRAWN), sharey=True)
        for axes, measure in zip(panels, DRAWN, strict=True):
            for row, group in enumerate(groups):
                _paint_cell(axes, row, entry["groups"][group][measure], colour, block["few"])
            axes.set(title=TITLES[measure], ylim=(len(groups) - 0.4, -0.6))
            axes.set_xlim(_left_end(entry["groups"], measure), 1.01)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.grid(axis="y", visible=False)
        panels[0].set_yticks(range(len(groups)), labels=titles)

    shown = " and ".join(TITLES[measure] for measure in DRAWN)
    description = f"{shown} by {axis['title'].lower()}, {model_title(model)}"
    return draw(f"subgroups-{name}", description, (WIDTH, 0.75 + 0.27 * len(groups)), paint)


def _left_end(groups: Json, measure: str) -> float:
    """Where the axis begins: below every interval, at .5 or lower."""
    lows: list[float] = [group[measure]["low"] for group in groups.values() if group[measure]["low"] is not None]
    return min([0.5, *(low - 0.02 for low in lows)])


def _paint_cell(axes: Axes, row: int, cell: Json, colour: str, few: int) -> None:
    if cell["value"] is None:
        words = f"too few ({cell['cases']})" if cell["cases"] <= few else NOT_COMPUTABLE
        axes.text(0.5, row, words, transform=axes.get_yaxis_transform(), ha="center", va="center", fontsize=8)
        return
    if cell["low"] is not None:
        axes.plot((cell["low"], cell["high"]), (row, row), color=colour, linewidth=2, solid_capstyle="butt")
    axes.plot(cell["value"], row, "o", color=colour, markersize=5.5)
