"""Forest plots of comparisons as SVG files: differences and their intervals, a line a row.

Titles stand above their line and not beside it, so that a plot is narrow enough for a phone and for one column
of print. A verdict is told by colour and by the shape of its mark.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from textwrap import shorten
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dermdistill.report.figures import STYLE
from dermdistill.report.formats import NOT_COMPUTABLE, metric_title, number, signed

PANELS = ("macro_auc", "balanced_accuracy", "melanoma_auc")
WIDTH = 6.4  # inches
TITLE_LETTERS = 76
# Larger letters than on the report's page: a phone shows the file at two thirds of its size.
FILE_STYLE: dict[Any, Any] = {
    **STYLE,
    "font.size": 10,
    "axes.titlesize": 10.5,
    "xtick.labelsize": 9.5,
    "legend.fontsize": 10,
}
# Colour, shape and filling of a mark; colours of Okabe and Ito (2008), as in the other figures.
MARKS: dict[str, tuple[str, str, bool]] = {
    "helped": ("#007a5a", "^", True),
    "hurt": ("#d55e00", "v", True),
    "higher": ("#d55e00", "^", True),
    "lower": ("#0072b2", "v", True),
    "no evidence": ("#6a6a78", "o", False),
}
LEVEL_MARK = ("#3d5a80", "s", True)

Result = Mapping[str, Any]
Titles = Mapping[str, str]


@dataclass(frozen=True)
class Line:
    """One line of a plot: its title and {metric: value, low, high and, of a difference, verdict}."""

    title: str
    cells: Mapping[str, Mapping[str, Any]]


def draw_file(name: str, description: str, size: tuple[float, float], paint: Callable[[Figure], None]) -> str:
    """Run ``paint`` on an empty figure and return it as an SVG document of its own: white, the same bytes every time.

    Args:
        name: seeds the ids inside the file.
        description: what the figure shows, for those who cannot see it.
        size: width and height in inches.
        paint: draws on the figure.
    """
    buffer = StringIO()
    with rc_context({**FILE_STYLE, "svg.hashsalt": f"dermdistill-{name}"}):
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        paint(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    opening, rest = svg[svg.index("<svg") :].split(">", 1)
    drawn = rest.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    return f'{opening} role="img">\n<title>{escape(description)}</title>{drawn}'


def forest_plot(result: Result, titles: Titles) -> str:
    """Differences of all rows from their control in the headline metrics, side by side.

    Rows with a second control are drawn once more below, with its name.

    Args:
        result: of ``compare_rows`` or ``compare_groups``.
        titles: {row: what to call it}.
    """
    metrics = [metric for metric in PANELS if metric in result["metrics"]]
    lines = difference_lines(result, titles)
    control = titles.get(result["control"], result["control"])
    level = f"{100 * result['bootstrap']['level']:g}%"

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        paint_lines(panels, lines, metrics, differences=True)
        figure.supxlabel(_short(f"difference from {control}, with its {level} interval"), fontsize=10)
        mark_legend(figure, result["verdicts"])

    shown = ", ".join(metric_title(metric) for metric in metrics)
    description = f"Differences from {control} with {level} intervals, {len(lines)} rows: {shown}"
    return draw_file("forest", description, (WIDTH, 1.15 + 0.44 * max(1, len(lines))), paint)


def difference_lines(result: Result, titles: Titles) -> list[Line]:
    """A line a difference: those from the common control first, then those from a second one."""
    first, second = [], []
    for name, row in result["rows"].items():
        for other, block in row["differences"].items():
            seeds = row.get("paired_seeds", {}).get(other, row["seeds"])
            title = titles.get(name, name) + (" (one seed)" if len(seeds) == 1 else "")
            if other == result["control"]:
                first.append(Line(title, block))
            else:
                second.append(Line(f"{title}, against {titles.get(other, other)}", block))
    return first + second


def paint_lines(panels: Sequence[Axes], lines: Sequence[Line], metrics: Sequence[str], *, differences: bool) -> None:
    """Draw lines into one panel a metric, which share their heights.

    Args:
        panels: one a metric.
        lines: from top to bottom.
        metrics: what the panels show.
        differences: whether the values are differences, with a line at zero and signs.
    """
    for place, (axes, metric) in enumerate(zip(panels, metrics, strict=True)):
        axes.set_title(metric_title(metric), pad=14)
        for row, line in enumerate(lines):
            if place == 0:
                _paint_title(axes, row - 0.3, line.title)
            _paint_cell(axes, row + 0.12, line.cells[metric])
        if differences:
            axes.axvline(0, color="#3b4452", linewidth=0.9, zorder=1)
        axes.set_ylim(max(1, len(lines)) - 0.5, -0.6)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10], min_n_ticks=2))
        axes.xaxis.set_major_formatter(FuncFormatter(_tick(differences)))
        axes.margins(x=0.08)
        # The first panel's titles lie over its neighbours.
        axes.set(facecolor="none", zorder=len(panels) - place)


def _paint_title(axes: Axes, height: float, title: str) -> None:
    band: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    label = axes.text(0, height, _short(title), transform=axes.get_yaxis_transform(), va="center", bbox=band)
    # Else the layout would make room for it and squeeze the first panel.
    label.set_in_layout(False)


def _tick(differences: bool) -> Callable[[float, float], str]:
    def text(value: float, _: float) -> str:
        digits = 2 if abs(round(value, 2) - value) < 1e-9 else 3
        return (signed if differences else number)(value, digits) if value else "0"

    return text


def _paint_cell(axes: Axes, height: float, cell: Mapping[str, Any]) -> None:
    if cell["value"] is None:
        axes.text(0.5, height, NOT_COMPUTABLE, transform=axes.get_yaxis_transform(), ha="center", va="center")
        return
    colour, marker, filled = MARKS.get(cell.get("verdict") or "", LEVEL_MARK)
    if cell["low"] is not None:
        axes.plot((cell["low"], cell["high"]), (height, height), color=colour, linewidth=2, solid_capstyle="butt")
    face = colour if filled else "white"
    axes.plot(cell["value"], height, marker, color=colour, markerfacecolor=face, markersize=6.5, markeredgewidth=1.3)


def mark_legend(figure: Figure, verdicts: Sequence[str]) -> None:
    """A legend of the marks above the panels: of the two verdicts, and of ``no evidence``."""
    axes = figure.axes[0]
    for name in (*verdicts, "no evidence"):
        colour, marker, filled = MARKS[name]
        face = colour if filled else "white"
        axes.plot([], [], marker, color=colour, markerfacecolor=face, markersize=6.5, label=name)
    figure.legend(loc="outside upper left", ncols=len(verdicts) + 1, borderaxespad=0)


def _short(text: str) -> str:
    return shorten(text, TITLE_LETTERS, placeholder=" ...")
