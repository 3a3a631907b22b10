"""What melanoma decisions are worth: decision curve, referrals for each melanoma found, cost curve."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from dermdistill.report.figures import HALF, MODEL_DASHES, draw, model_colour
from dermdistill.report.formats import MODEL_PHRASES, NOT_COMPUTABLE, TOO_FEW, Cell, model_title, number, pick
from dermdistill.report.tables import Row

TITLE = "What the decisions are worth"
QUESTION = "Does referring by this model do more good than referring everybody, or nobody?"
SHIPPED: Final = "student_int8"
POINTS: Final = {
    "at_80_sensitivity": "80% sensitivity",
    "at_90_sensitivity": "90% sensitivity",
    "at_95_sensitivity": "95% sensitivity",
}
POINT_COLUMNS: Final = ("Threshold", "Referred", "Melanomas found", "Missed", "Referred for each melanoma found")
PLAIN: Final = "#8a93a0"
Json = Mapping[str, Any]


def section(evaluation: Json) -> dict[str, Any] | None:
    """What the partial shows; None where no model has a block ``use``."""
    blocks = {name: model["use"] for name, model in evaluation["models"].items() if model.get("use")}
    if not blocks:
        return None
    shown = SHIPPED if SHIPPED in blocks else list(blocks)[-1]
    own = blocks[shown]
    return {
        "sentences": [*_worth(shown, own), *_referrals(own), *_costs(own)],
        "decision_curve": Markup(_decision_curve(blocks, shown)),
        "cost_curve": Markup(_cost_curve(blocks, shown)),
        "prevalence": f"{own['melanomas']:,} of {own['images']:,} images",
        "phrase": _phrase(shown),
        "point_columns": POINT_COLUMNS,
        "point_rows": [Row(title, _point_cells(own, name)) for name, title in POINTS.items()],
        "needed_columns": list(POINTS.values()),
        "needed_rows": [
            Row(model_title(model), tuple(_needed(block["operating_points"].get(name)) for name in POINTS))
            for model, block in blocks.items()
        ],
    }


def _phrase(model: str) -> str:
    return MODEL_PHRASES.get(model, model)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def _ranges(ranges: Sequence[Mapping[str, float]]) -> str:
    """``1% to 31% and 35%``."""
    single = [_percent(part["low"]) for part in ranges]
    both = [f"{_percent(part['low'])} to {_percent(part['high'])}" for part in ranges]
    return " and ".join(
        one if part["low"] == part["high"] else two for part, one, two in zip(ranges, single, both, strict=True)
    )


def _worth(model: str, block: Json) -> list[str]:
    curve = block["decision_curve"]
    grid = f"{_percent(curve['thresholds'][0])} to {_percent(curve['thresholds'][-1])}"
    if not curve["better"]:
        return [
            f"At no threshold probability of {grid} does referring by the {_phrase(model)} have a higher net benefit "
            "than referring everybody and than referring nobody, both with an interval above 0."
        ]
    return [
        f"Referring by the {_phrase(model)} has a higher net benefit than referring everybody and than referring "
        f"nobody, both with an interval above 0, at threshold probabilities of {_ranges(curve['better'])} "
        f"(looked at: {grid})."
    ]


def _referrals(block: Json) -> list[str]:
    point = block["operating_points"].get("at_95_sensitivity")
    if point is None:
        return ["The validation part gave no threshold for 95% sensitivity."]
    said = (
        f"At its threshold for 95% sensitivity it refers {point['referred']:,} of {block['images']:,} images "
        f"and finds {point['found']:,} of {block['melanomas']:,} melanomas"
    )
    value, low, high = pick(point["number_needed"])
    if value is None or low is None or high is None or point["found"] <= TOO_FEW:
        return [f"{said}."]
    return [f"{said}: {value:.1f} ({low:.1f}-{high:.1f}) images are referred for each one found."]


def _costs(block: Json) -> list[str]:
    point = block["operating_points"].get("at_95_sensitivity")
    if point is None or point["false_negative_rate"] is None or point["false_positive_rate"] is None:
        return []
    costs = point["better_costs"]
    if costs is None:
        return ["At that threshold it costs as much as referring everybody or nobody, or more, whatever a miss costs."]
    return [
        "At that threshold it costs less than referring everybody or nobody where the probability cost lies between "
        f"{number(costs['low'], 2)} and {number(costs['high'], 2)}."
    ]


def _needed(point: Json | None) -> Cell:
    """Referred images for each melanoma found; ten or fewer melanomas found make no figure."""
    if point is None:
        return Cell(NOT_COMPUTABLE, word=True)
    value, low, high = pick(point["number_needed"])
    if value is None or point["found"] <= TOO_FEW:
        return Cell(f"too few ({point['found']})", word=True)
    return Cell(f"{value:.1f}", f"({low:.1f}-{high:.1f})" if low is not None and high is not None else "(no interval)")


def _point_cells(block: Json, name: str) -> tuple[Cell, ...]:
    point = block["operating_points"].get(name)
    if point is None:
        return tuple(Cell(NOT_COMPUTABLE, word=True) for _ in POINT_COLUMNS)
    found, melanomas = point["found"], block["melanomas"]
    return (
        Cell(number(point["threshold"])),
        Cell(f"{point['referred']:,}", f"of {block['images']:,}"),
        Cell(f"{found:,}", f"of {melanomas:,}"),
        Cell(f"{melanomas - found:,}"),
        _needed(point),
    )


def _line(model: str, names: Sequence[str]) -> dict[str, Any]:
    look = {"color": model_colour(model, names), "linestyle": MODEL_DASHES.get(model, "-.")}
    return {**look, "label": model_title(model)}


def _floats(values: Sequence[float | None]) -> list[float]:
    return [np.nan if value is None else value for value in values]


def _decision_curve(blocks: Mapping[str, Json], shown: str) -> str:
    """Net benefit over threshold probability: all models, referring everybody, referring nobody."""
    curves = {name: block["decision_curve"] for name, block in blocks.items()}
    own = curves[shown]
    percents = [100 * threshold for threshold in own["thresholds"]]
    prevalence = blocks[shown]["melanomas"] / max(1, blocks[shown]["images"])

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(percents, own["treat_all"], color=PLAIN, linewidth=1.2, label="Refer everybody")
        axes.axhline(0, color=PLAIN, linewidth=1.2, linestyle=(0, (5, 1.6)), label="Refer nobody")
        low, high = (_floats(own["net_benefit"][key]) for key in ("low", "high"))
        axes.fill_between(percents, low, high, color=model_colour(shown, list(blocks)), alpha=0.18, linewidth=0)
        for name, curve in curves.items():
            axes.plot(percents, _floats(curve["net_benefit"]["value"]), **_line(name, list(blocks)))
        top = 1.15 * max(prevalence, 0.02)
        axes.set(title="Decision curve", xlabel="threshold probability, %", ylabel="net benefit")
        axes.set(xlim=(0, 100 * own["thresholds"][-1]), ylim=(-0.25 * top, top))
        figure.legend(loc="outside lower center", ncols=3, fontsize=7.5)

    return draw("decision-curve", "Net benefit of all models over the threshold probability", (HALF, 3.7), paint)


def _cost_curve(blocks: Mapping[str, Json], shown: str) -> str:
    """Normalised expected cost over probability cost: lower envelopes, and the chosen threshold of one model."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot((0, 1), (1, 0), color=PLAIN, linewidth=1.2, label="Refer everybody")
        axes.plot((0, 1), (0, 1), color=PLAIN, linewidth=1.2, linestyle=(0, (5, 1.6)), label="Refer nobody")
        for name, block in blocks.items():
            curve = block["cost_curve"]
            places = curve["probability_cost"] if curve["lower_envelope"] else []
            axes.plot(places, curve["lower_envelope"], **_line(name, list(blocks)))
        point = blocks[shown]["operating_points"].get("at_95_sensitivity") or {}
        missed, alarmed = point.get("false_negative_rate"), point.get("false_positive_rate")
        if missed is not None and alarmed is not None:
            colour = model_colour(shown, list(blocks))
            axes.plot(
                (0, 1), (alarmed, missed), color=colour, linewidth=1, label=f"{model_title(shown)}, 95% threshold"
            )
        axes.set(title="Cost curve", xlabel="probability cost", ylabel="normalised expected cost")
        axes.set(xlim=(0, 1), ylim=(0, 0.6))
        figure.legend(loc="outside lower center", ncols=3, fontsize=7.5)

    return draw("cost-curve", "Expected cost of all models over the probability cost", (HALF, 3.7), paint)
