"""Figures of the evaluation as SVG: intervals, confusion, ROC, precision-recall, reliability, files."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dermdistill.report.figures import INK, MODEL_DASHES, WIDE, draw, model_colour
from dermdistill.report.formats import HEADLINES, METRIC_TITLES, TOO_FEW, megabytes, model_title, pick

Evaluation = Mapping[str, Any]
THIRD = 3.35


def _line(name: str, names: Sequence[str]) -> dict[str, Any]:
    return {
        "color": model_colour(name, names),
        "linestyle": MODEL_DASHES.get(name, "-."),
        "label": model_title(name),
    }


def _curves(model: Mapping[str, Any]) -> Mapping[str, Any]:
    return model.get("curves") or {}


def _square(axes: Axes, title: str, across: str, up: str) -> None:
    axes.set(title=title, xlabel=across, ylabel=up, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_box_aspect(1)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_yticks(np.linspace(0, 1, 6))


def intervals(evaluation: Evaluation) -> str:
    """The headline figures as dots with their 95% intervals, the models one under the other."""
    names = list(evaluation["models"])
    step = 0.6 / max(1, len(names) - 1)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for place, name in enumerate(names):
            colour = model_colour(name, names)
            axes.plot([], [], "o", color=colour, markersize=5.5, label=model_title(name))
            for row, (group, metric) in enumerate(HEADLINES):
                value, low, high = pick(evaluation["models"][name].get(group, {}).get(metric))
                if value is None:
                    continue
                height = row + place * step - 0.3
                if low is not None and high is not None:
                    axes.plot((low, high), (height, height), color=colour, linewidth=2.4, solid_capstyle="round")
                axes.plot(value, height, "o", color=colour, markersize=5.5)
        titles = [
            METRIC_TITLES[metric] if group == "diagnosis" else f"Melanoma: {METRIC_TITLES[metric]}"
            for group, metric in HEADLINES
        ]
        axes.set_yticks(range(len(HEADLINES)), labels=titles)
        axes.set(ylim=(len(HEADLINES) - 0.5, -0.5), xlabel="value, with its 95% interval")
        axes.grid(axis="y", visible=False)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(names))

    return draw("intervals", "Headline figures of all models with 95% intervals", (WIDE, 3.5), paint)


def _paint_confusion(axes: Axes, matrix: np.ndarray[Any, Any], classes: Sequence[str], colour: str) -> None:
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    small = len(classes) > 4
    for row, column in np.ndindex(*matrix.shape):
        share = float(shares[row, column])
        # Opacity instead of a colour map: the empty cell is the page itself, in light and in dark.
        axes.add_patch(_cell(row, column, colour, share))
        weight = "bold" if row == column else "normal"
        ink = _ink_on(colour, share)
        text: dict[str, Any] = {"color": ink, "ha": "center", "va": "center", "fontweight": weight}
        axes.text(column, row, str(matrix[row, column]), fontsize=8 if small else 11, **text)
    places = range(len(classes))
    axes.set_xticks(places, labels=list(classes), rotation=35 if small else 0)
    axes.set_yticks(places, labels=list(classes))
    axes.set(xlim=(-0.5, len(classes) - 0.5), ylim=(len(classes) - 0.5, -0.5), xlabel="predicted")
    axes.set_box_aspect(1)
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)


def _ink_on(colour: str, share: float) -> str:
    """White on dark cells, else the page's ink: whichever is easier to read (relative luminance, WCAG 2)."""
    channels = 1 - (0.04 + 0.92 * share) * (1 - np.asarray(to_rgb(colour)))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return "white" if float(linear @ (0.2126, 0.7152, 0.0722)) < 0.21 else INK


def _cell(row: int, column: int, colour: str, share: float) -> Rectangle:
    look: dict[str, Any] = {"facecolor": colour, "alpha": 0.04 + 0.92 * share, "linewidth": 0}
    return Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, **look)


def confusions(evaluation: Evaluation) -> str:
    """Confusion matrices: counts in the cells, shade is the share of the true class."""
    names = list(evaluation["models"])

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        for axes, name in zip(panels, names, strict=True):
            matrix = np.asarray(evaluation["models"][name]["confusion"], dtype=int)
            _paint_confusion(axes, matrix, evaluation["classes"], model_colour(name, names))
            axes.set_title(model_title(name))
        panels[0].set_ylabel("true")

    return draw("confusion", "Confusion matrices, rows true, columns predicted", (WIDE, 3.75), paint)


def roc(evaluation: Evaluation) -> str:
    """ROC curves of melanoma against the rest, all models in one plot."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot((0, 1), (0, 1), color="#a9b4c4", linewidth=0.8)
        for name, model in evaluation["models"].items():
            curve = _curves(model).get("roc") or {"fpr": [], "tpr": []}
            axes.plot(curve["fpr"], curve["tpr"], **_line(name, list(evaluation["models"])))
        _square(axes, "ROC, melanoma", "1 - specificity", "sensitivity")
        axes.legend(loc="lower right")

    return draw("roc", "ROC curves of melanoma against the rest", (THIRD, 3.5), paint)


def precision_recall(evaluation: Evaluation) -> str:
    """Precision over recall of melanoma, all models in one plot."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for name, model in evaluation["models"].items():
            curve = _curves(model).get("pr") or {"recall": [], "precision": []}
            axes.plot(curve["recall"], curve["precision"], **_line(name, list(evaluation["models"])))
        _square(axes, "Precision-recall, melanoma", "recall (sensitivity)", "precision (PPV)")
        axes.legend(loc="lower left")

    return draw("pr", "Precision-recall curves of melanoma against the rest", (THIRD, 3.5), paint)


def reliability(evaluation: Evaluation) -> str:
    """Accuracy over stated confidence; bins of ten or fewer images are left hollow and unconnected."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot((0, 1), (0, 1), color="#a9b4c4", linewidth=0.8)
        for name, model in evaluation["models"].items():
            filled = [item for item in _curves(model).get("reliability") or [] if item["n"]]
            many = [item for item in filled if item["n"] > TOO_FEW]
            look = _line(name, list(evaluation["models"]))
            axes.plot(*_points(many), marker="o", markersize=4, **look)
            few = _points([item for item in filled if item["n"] <= TOO_FEW])
            axes.plot(*few, "o", markersize=4, markerfacecolor="none", color=look["color"])
        _square(axes, "Reliability", "confidence", "share correct")
        axes.legend(loc="upper left")

    return draw("reliability", "Share correct over stated confidence", (THIRD, 3.5), paint)


def _points(bins: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    return [item["confidence"] for item in bins], [item["accuracy"] for item in bins]


def _bars(axes: Axes, names: Sequence[str], values: Sequence[float], labels: Sequence[str]) -> None:
    bars = axes.barh(range(len(names)), values, height=0.6, color=[model_colour(name, names) for name in names])
    axes.bar_label(bars, labels=list(labels), padding=4)
    axes.set_yticks(range(len(names)), labels=[model_title(name) for name in names])
    axes.set(xlim=(0, 1.3 * max([*values, 1e-9])), ylim=(len(names) - 0.5, -0.5))
    axes.grid(axis="y", visible=False)


def files(evaluation: Evaluation) -> str:
    """Size of every model file and its batch-1 latency; a latency that was not measured has no bar."""
    entries: Mapping[str, Mapping[str, Any]] = evaluation["files"]
    names = list(entries)
    medians = [(entries[name].get("latency_ms") or {}).get("median") for name in names]

    def paint(figure: Figure) -> None:
        size, latency = figure.subplots(1, 2)
        sizes = [float(entries[name]["bytes"]) / 1e6 for name in names]
        _bars(size, names, sizes, [megabytes(entries[name]["bytes"]) for name in names])
        size.set(title="File size", xlabel="MB (10^6 bytes)")
        labels = ["not measured" if value is None else f"{value:.2f} ms" for value in medians]
        _bars(latency, names, [float(value or 0) for value in medians], labels)
        latency.set(title="Latency, one image, median", xlabel="ms")

    return draw("files", "Size and latency of the model files", (WIDE, 0.8 + 0.36 * len(names)), paint)
