"""The plot of a bench: latency against size, a point a model file."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from dermdistill.report.figures import MODEL_COLOURS, OTHER_COLOURS
from dermdistill.report.forest import WIDTH, draw_file

# Shape of a mark; the precision decides whether it is filled.
MARKERS = {"onnxruntime": "o", "executorch": "s", "torch": "^"}
COLOURS = {
    **MODEL_COLOURS,
    "student_web": OTHER_COLOURS[0],
    "student_executorch": OTHER_COLOURS[1],
    "student_int8_executorch": OTHER_COLOURS[2],
    "student_pytorch": "#8a5a44",
    "teacher_pytorch": "#5b8dd6",
}
UNKNOWN = "#777788"
HEIGHT = 4.0  # inches, without the legend


def bench_plot(result: Mapping[str, Any]) -> str:
    """An SVG file: p50 latency of one image, its line up to p95, against the size of the file, both logarithmic.

    The fewest threads that were measured are drawn. A row that was not measured has no point.

    Args:
        result: of ``bench_bundle``.
    """
    threads = str(min(result["plan"]["threads"]))
    rows = [row for row in result["rows"] if not row["not_measured"]]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for row in rows:
            _paint_row(axes, row, row["threads"][threads])
        sizes = [row["bytes"] / 1e6 for row in rows]
        times = [row["threads"][threads][name]["median"] for row in rows for name in ("p50_ms", "p95_ms")]
        axes.set(xscale="log", yscale="log", xlim=_room(sizes), ylim=_room(times))
        for axis in (axes.xaxis, axes.yaxis):
            _plain_numbers(axis)
        count = f"{threads} thread{'s' if threads != '1' else ''}"
        axes.set(xlabel="file, MB", ylabel=f"ms an image, {count}: p50, line to p95")
        axes.set_title("Latency against size")
        figure.legend(loc="outside lower left", ncols=2, borderaxespad=0)

    named = ", ".join(row["title"] for row in rows)
    description = f"Latency of one image against the size of the file: {named}"
    return draw_file("bench", description, (WIDTH, HEIGHT + 0.22 * ((len(rows) + 1) // 2)), paint)


def _paint_row(axes: Axes, row: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    size, p50, p95 = row["bytes"] / 1e6, found["p50_ms"]["median"], found["p95_ms"]["median"]
    colour = COLOURS.get(row["name"], UNKNOWN)
    face = colour if "int8" in row["precision"] else "white"
    axes.plot((size, size), (p50, p95), color=colour, linewidth=2, solid_capstyle="butt")
    mark: dict[str, Any] = {"markersize": 7.5, "markeredgewidth": 1.5, "markerfacecolor": face, "linestyle": "none"}
    axes.plot(size, p50, MARKERS.get(row["runtime"], "o"), color=colour, label=row["title"], **mark)


def _room(values: Sequence[float]) -> tuple[float, float]:
    """The ends of a logarithmic axis that holds all values and at least one of 1, 2, 5, 10 and so on."""
    return min(values) / 1.8, max(values) * 1.8


def _plain_numbers(axis: Axis) -> None:
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
