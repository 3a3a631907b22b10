"""Figures of data and training as inline SVG: one look, one colour a model, the same bytes every time.

Every figure is a function to an SVG string through ``draw``; ``curves.py`` holds those of the evaluation. Ink
is ``currentColor`` and the background transparent, so a figure follows the page into dark mode and print.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from io import StringIO
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from dermdistill.report.formats import metric_title

# Okabe & Ito (2008): told apart under every common colour blindness. Line styles repeat the distinction.
MODEL_COLOURS = {"teacher": "#0072b2", "student": "#d55e00", "student_int8": "#009e73"}
OTHER_COLOURS = ("#cc79a7", "#b8860b", "#6a6a78")
MODEL_DASHES = {"teacher": "-", "student": (0, (5, 1.6)), "student_int8": (0, (1.4, 1.2))}
PART_COLOURS = {"train": "#5d6b82", "val": "#a9b4c4", "test": "#c2669b"}
SEX_COLOURS = {"female": "#8e7cc3", "male": "#4f9aa8", "unknown": "#b9b9c0"}
TERM_COLOURS = ("#aa4499", "#997700", "#5b8dd6", "#cc6677", "#44998e", "#777788", "#8a5a44", "#7a8b2a")
TERM_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
INK, GRID = "#1b2430", "#dfe3e8"
WIDE, HALF = 10.2, 5.0  # inches; the page shows 96 pixels an inch

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": "#8a93a0",
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "xtick.minor.size": 0,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.7,
    "svg.fonttype": "none",
}


def model_colour(name: str, names: Sequence[str]) -> str:
    """The colour of a model, the same in every figure and table of the page."""
    others = [other for other in names if other not in MODEL_COLOURS]
    if name in MODEL_COLOURS:
        return MODEL_COLOURS[name]
    return OTHER_COLOURS[others.index(name) % len(OTHER_COLOURS)]


def draw(name: str, description: str, size: tuple[float, float], paint: Callable[[Figure], None]) -> str:
    """Run ``paint`` on an empty figure and return it as SVG for a place inside a page.

    Args:
        name: unique in the page; it keeps the ids of one figure apart from those of the others.
        description: what the figure shows, for those who cannot see it.
        size: width and height in inches.
        paint: draws on the figure.
    """
    buffer = StringIO()
    with rc_context({**STYLE, "svg.hashsalt": f"dermdistill-{name}"}):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    return _for_page(buffer.getvalue(), description)


def _for_page(svg: str, description: str) -> str:
    """An SVG document without its prologue, fonts, fixed ink and ids that nothing refers to."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style type=.*?</style>", "", svg, flags=re.S)
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg).replace(INK, "currentColor")
    svg = re.sub(r"\n\s*", "\n", svg).replace(f": {GRID}", ": var(--grid)")
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert box is not None, "matplotlib always writes a viewBox"
    pixels = round(float(box[1]) * 4 / 3)
    opening = f'<svg {box[0]} style="max-width:{pixels}px" role="img" aria-label="{escape(description)}">'
    return opening + svg[svg.index(">") + 1 :].strip()


def _plain_log(axis: Axis, steps: Sequence[float]) -> None:
    """Plain numbers on a logarithmic axis: powers of ten need mathematical typesetting, which is off."""
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def class_counts(counts: Mapping[str, Mapping[str, int]], classes: Sequence[str]) -> str:
    """Images a class and part, one panel a part, on a logarithmic axis (nevi outnumber the rest 50 to 1)."""

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
        for axes, (part, by_class) in zip(panels, counts.items(), strict=True):
            values = [by_class.get(code, 0) for code in classes]
            colour = PART_COLOURS.get(part, "#5d6b82")
            axes.barh(range(len(classes)), values, color=colour, height=0.68)
            for row, value in enumerate(values):
                # Not ``bar_label``: on a logarithmic axis it leaves out the label of an empty class.
                place: dict[str, Any] = {"xytext": (3, 0), "textcoords": "offset points", "va": "center"}
                axes.annotate(f"{value:,}", (max(value, 0.8), row), fontsize=8, **place)
            axes.set(title=f"{part}: {sum(values):,} images", xscale="log", xlim=(0.8, 6 * max([*values, 2])))
            _plain_log(axes.xaxis, (1.0,))
            axes.set_yticks(range(len(classes)), labels=list(classes))
            axes.grid(axis="y", visible=False)
        panels[0].invert_yaxis()

    return draw("class-counts", "Images a class in every part", (WIDE, 0.9 + 0.24 * len(classes)), paint)


def age_sex(catalog: pd.DataFrame) -> str:
    """Ages in bands of five years, stacked by sex; images without an age are counted in the title."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        known = catalog[catalog["age"].notna()]
        edges = np.arange(0, 126, 5)
        base = np.zeros(len(edges) - 1)
        for sex, colour in SEX_COLOURS.items():
            heights, _ = np.histogram(known.loc[known["sex"] == sex, "age"].to_numpy(dtype=float), bins=edges)
            label = f"{sex} ({int((catalog['sex'] == sex).sum()):,})"
            axes.bar(edges[:-1], heights, width=4.4, bottom=base, align="edge", color=colour, label=label)
            base = base + heights
        axes.set(title="Age and sex", xlabel="age, years", ylabel="images", xlim=(0, 100))
        axes.grid(axis="x", visible=False)
        axes.legend(loc="upper left")

    return draw("age-sex", "Ages of the images' patients in bands of five years, by sex", (HALF, 2.7), paint)


def class_by_age(catalog: pd.DataFrame, classes: Sequence[str]) -> str:
    """Age of every class as median, quartiles and 5th to 95th percentile."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for row, code in enumerate(classes):
            ages = catalog.loc[catalog["diagnosis"] == code, "age"].dropna().to_numpy(dtype=float)
            if not len(ages):
                continue
            low, first, median, third, high = np.percentile(ages, (5, 25, 50, 75, 95))
            axes.plot((low, high), (row, row), color="#a9b4c4", linewidth=1.4, solid_capstyle="round")
            axes.plot((first, third), (row, row), color="#5d6b82", linewidth=6, solid_capstyle="round")
            axes.plot(median, row, marker="o", markersize=4.5, color="white", markeredgecolor="#5d6b82")
        axes.set_yticks(range(len(classes)), labels=list(classes))
        axes.set(title="Age by diagnosis", xlabel="age, years")
        axes.set(xlim=(0, 100), ylim=(len(classes) - 0.4, -0.6))

    return draw("age-class", "Age of every diagnosis", (HALF, 2.7), paint)


def _numbers(values: Sequence[Any]) -> list[float]:
    """Values with ``None`` (not computable) as NaN, which a line leaves out."""
    return [float("nan") if value is None else float(value) for value in values]


def _plot_terms(axes: Axes, log: Sequence[Mapping[str, Any]], key: str) -> None:
    epochs = [entry["epoch"] for entry in log]
    names = list(dict.fromkeys(name for entry in log for name in entry["terms"]))
    for place, name in enumerate(names):
        values = _numbers([entry["terms"].get(name, {}).get(key) for entry in log])
        colour, marker = TERM_COLOURS[place % len(TERM_COLOURS)], TERM_MARKERS[place % len(TERM_MARKERS)]
        dots: dict[str, Any] = {"marker": marker, "markersize": 3.6, "markevery": max(1, len(epochs) // 10)}
        axes.plot(epochs, values, color=colour, label=name.replace("_", " "), **dots)


def _plot_validation(axes: Axes, log: Sequence[Mapping[str, Any]], colour: str, monitor: str, best: int) -> None:
    epochs = [entry["epoch"] for entry in log]
    others = [name for name in log[0]["val"] if name not in {"loss", monitor}]
    for name, dashes in zip(others, ((0, (5, 1.6)), (0, (1.4, 1.2)), "-."), strict=False):
        values = _numbers([entry["val"].get(name) for entry in log])
        look: dict[str, Any] = {"color": "#8a93a0", "linestyle": dashes, "linewidth": 1.3}
        axes.plot(epochs, values, label=metric_title(name), **look)
    watched = _numbers([entry["val"].get(monitor) for entry in log])
    axes.plot(epochs, watched, color=colour, linewidth=2.2, label=f"{metric_title(monitor)} (watched)")
    if best in epochs:
        axes.axvline(best, color=colour, linewidth=0.9, linestyle=(0, (2, 2)))
        axes.plot(best, watched[epochs.index(best)], "o", color=colour, markersize=7, label=f"best epoch: {best}")


def training_curves(role: str, log: Sequence[Mapping[str, Any]], *, monitor: str, best: int) -> str:
    """Loss terms, their gradient norms and the validation figures over epochs, the best epoch marked.

    Args:
        role: ``teacher`` or ``student``.
        log: the lines of its log.jsonl, at least one.
        monitor: the validation figure that chose the weights.
        best: the chosen epoch, counted from 0; one that is not in the log is not marked.
    """

    def paint(figure: Figure) -> None:
        losses, gradients, validation = figure.subplots(1, 3)
        _plot_terms(losses, log, "value")
        losses.set(title="Loss terms, before weighting", ylim=(0, None))
        _plot_terms(gradients, log, "grad_norm")
        gradients.set(title="Gradient norm of every term", yscale="log")
        _plain_log(gradients.yaxis, (1.0, 2.0, 5.0))
        _plot_validation(validation, log, MODEL_COLOURS[role], monitor, best)
        validation.set(title="Validation")
        for axes in (losses, gradients, validation):
            axes.set(xlabel="epoch, from 0")
            axes.xaxis.get_major_locator().set_params(integer=True)
        validation.legend(loc="best")
        handles, labels = losses.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=8)

    return draw(f"training-{role}", f"Training of the {role} over {len(log)} epochs", (WIDE, 3.0), paint)
