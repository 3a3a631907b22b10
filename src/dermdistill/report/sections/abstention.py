"""The section on abstention: which answers a model withholds, and which diagnoses it cannot rule out.

It reads ``evaluation["models"][MODEL]["selective"]`` and ``["conformal"]``, the blocks of
``evaluate/calibration_blocks.py``, where their forms are described; either may be missing.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup
from matplotlib.figure import Figure

from dermdistill.report.figures import HALF, MODEL_DASHES, draw, model_colour
from dermdistill.report.formats import (
    CLASS_TITLES,
    MODEL_PHRASES,
    NOT_COMPUTABLE,
    TOO_FEW,
    Cell,
    estimate,
    model_title,
    number,
    pick,
)
from dermdistill.report.tables import Row

TITLE = "Abstention and prediction sets"
QUESTION = "Does the model know when it does not know?"
SHIPPED: Final = "student_int8"
PLAIN: Final = "#8a93a0"
SELECTIVE: Final = {
    "coverage": "Answered",
    "accuracy": "Right, of those answered",
    "accuracy_at_80": "Right, of the surest 80%",
    "aurc": "AURC (lower is better)",
    "excess_aurc": "Excess AURC (0 is a perfect order)",
}
SETS: Final = {
    "coverage": "Holds the true diagnosis",
    "image_coverage": "The same, photographs counting equally",
    "mean_size": "Diagnoses a set",
    "singletons": "Sets of one diagnosis",
}
Json = Mapping[str, Any]
Blocks = Mapping[str, Json]


def section(evaluation: Json) -> dict[str, Any] | None:
    """What the partial shows; None where no model has a block ``selective`` or ``conformal``."""
    models = evaluation["models"]
    selective, sets = (
        {name: model[key] for name, model in models.items() if model.get(key)} for key in ("selective", "conformal")
    )
    if not selective and not sets:
        return None
    found: dict[str, list[Any]] = {"sentences": [], "figures": [], "tables": [], "quiet": []}
    for blocks, add in ((selective, _add_selective), (sets, _add_sets)):
        if blocks:
            add(found, blocks, SHIPPED if SHIPPED in blocks else list(blocks)[-1], list(models))
    return found


def _phrase(model: str) -> str:
    return MODEL_PHRASES.get(model, model.replace("_", " "))


def _percent(entry: Json) -> str:
    """``77.4% (75.0% to 79.9%)``."""
    value, low, high = pick(entry)
    if value is None:
        return NOT_COMPUTABLE
    bounds = "" if low is None or high is None else f" ({100 * low:.1f}% to {100 * high:.1f}%)"
    return f"{100 * value:.1f}%{bounds}"


def _add_selective(found: dict[str, list[Any]], blocks: Blocks, shown: str, names: Sequence[str]) -> None:
    own = blocks[shown]
    found["sentences"] += [_withheld(shown, own), *_melanomas(own)]
    caption = f"Share of wrong answers among the surest ones. Dot: the {_phrase(shown)} at its threshold."
    found["figures"].append({"svg": Markup(_risk_coverage(blocks, shown, names)), "caption": caption})
    found["tables"].append(
        {
            "title": "Abstention on the test part, thresholds from validation",
            "first": "Model",
            "head": ["Threshold", *SELECTIVE.values()],
            "rows": [
                Row(model_title(name), (_threshold(block), *(estimate(block[key]) for key in SELECTIVE)))
                for name, block in blocks.items()
            ],
        }
    )
    found["quiet"].append(
        "Confidence is the calibrated probability of the label. AURC is the mean share of wrong answers over all "
        "coverages; excess AURC leaves out what even a perfect order of confidence could not avoid. "
        "The surest 80% are those of the test part itself, so no threshold known beforehand gives exactly that figure."
    )


def _threshold(block: Json) -> Cell:
    return Cell("none", word=True) if block["threshold"] is None else Cell(number(block["threshold"]))


def _withheld(model: str, block: Json) -> str:
    if block["threshold"] is None:
        return f"The {_phrase(model)} withholds no answer; {_percent(block['accuracy'])} of its answers are right."
    everything = block["curve"]["risk"][-1]
    return (
        f"Answers of the {_phrase(model)} below a confidence of {number(block['threshold'])} are withheld; "
        f"{100 * block['target_coverage']:.0f}% of the validation images reach it. On the test part "
        f"{_percent(block['coverage'])} are answered, and {_percent(block['accuracy'])} of these answers are right, "
        f"against {100 * (1 - everything):.1f}% of all."
    )


def _melanomas(block: Json) -> list[str]:
    melanoma = block.get("melanoma")
    if not melanoma or block["threshold"] is None:
        return []
    if melanoma["n"] <= TOO_FEW:
        return [f"Melanomas among the answered: too few ({melanoma['n']}) to say."]
    return [
        f"Of {melanoma['n']:,} melanomas {_percent(melanoma['coverage'])} are answered, and of these "
        f"{_percent(melanoma['sensitivity'])} are called melanoma."
    ]


def _risk_coverage(blocks: Blocks, shown: str, names: Sequence[str]) -> str:
    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for name, block in blocks.items():
            look: dict[str, Any] = {"color": model_colour(name, names), "linestyle": MODEL_DASHES.get(name, "-.")}
            axes.plot(block["curve"]["coverage"], block["curve"]["risk"], label=model_title(name), **look)
        place = blocks[shown]["coverage"]["value"], blocks[shown]["accuracy"]["value"]
        if None not in place:
            axes.plot(place[0], 1 - place[1], "o", color=model_colour(shown, names), markersize=7)
        axes.set(title="Risk and coverage", xlabel="share answered", ylabel="share wrong", xlim=(0, 1.01))
        axes.set_ylim(bottom=0)
        axes.legend(loc="best")

    return draw("risk-coverage", "Share of wrong answers over the share of images answered", (HALF, 3.2), paint)


def _add_sets(found: dict[str, list[Any]], blocks: Blocks, shown: str, names: Sequence[str]) -> None:
    own = blocks[shown]
    found["sentences"] += [_promise(shown, own), *_broken(own), *_always(own)]
    caption = f"{_phrase(shown)[0].upper()}{_phrase(shown)[1:]}; line: the promise. Hollow: ten or fewer images."
    svg = Markup(_class_coverage(own, model_colour(shown, names)))
    found["figures"].append({"svg": svg, "caption": caption})
    found["tables"] += [
        {
            "title": "Prediction sets on the test part",
            "first": "Model",
            "head": list(SETS.values()),
            "rows": [Row(model_title(n), tuple(estimate(block[key]) for key in SETS)) for n, block in blocks.items()],
        },
        {
            "title": f"Prediction sets of the {_phrase(shown)}, by true diagnosis",
            "first": "Class",
            "head": ["Images", "In a set from a probability of", "Sets that hold it"],
            "rows": _class_rows(own),
        },
    ]
    found["quiet"].append(
        "The promise is about a photograph of a new lesion from the source of the validation part, so lesions count "
        "equally here, however often they were photographed. An empty set is given the most probable diagnosis."
    )


def _promise(model: str, block: Json) -> str:
    return (
        f"Prediction sets of the {_phrase(model)} promise to hold the true diagnosis in {100 * block['level']:g}% "
        f"of cases, for each diagnosis by itself. On the test part they hold it in {_percent(block['coverage'])}, with "
        f"{block['mean_size']['value']:.2f} diagnoses a set on average; {_percent(block['singletons'])} of the sets "
        f"name a single one."
    )


def _broken(block: Json) -> list[str]:
    """Which diagnoses stay below the promise with their whole interval."""
    judged = {code: entry["coverage"] for code, entry in block["per_class"].items() if entry["n"] > TOO_FEW}
    bounds = {code: pick(cell)[2] for code, cell in judged.items()}
    below = [
        f"{code} ({_percent(judged[code])})"
        for code, high in bounds.items()
        if high is not None and high < block["level"]
    ]
    if below:
        return [f"Clearly below the promise: {', '.join(below)}."]
    return ["No diagnosis with more than ten images is clearly below the promise."] if judged else []


def _always(block: Json) -> list[str]:
    codes = [code for code, value in zip(block["per_class"], block["quantiles"], strict=True) if value is None]
    if not codes:
        return []
    return [f"Too few validation lesions for a promise, so in every set: {', '.join(codes)}."]


def _class_rows(block: Json) -> list[Row]:
    rows = []
    for (code, entry), quantile in zip(block["per_class"].items(), block["quantiles"], strict=True):
        limit = Cell("always", word=True) if quantile is None else Cell(number(1 - quantile))
        few = entry["n"] <= TOO_FEW
        share = Cell(f"too few ({entry['n']})", word=True) if few else estimate(entry["coverage"])
        rows.append(Row(code, (Cell(f"{entry['n']:,}"), limit, share), CLASS_TITLES.get(code, "")))
    return rows


def _class_coverage(block: Json, colour: str) -> str:
    codes = list(block["per_class"])

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(block["level"], color=PLAIN, linewidth=1.2)
        for row, entry in enumerate(block["per_class"].values()):
            value, low, high = pick(entry["coverage"])
            if value is None:
                continue
            few = entry["n"] <= TOO_FEW
            if low is not None and high is not None and not few:
                axes.plot((low, high), (row, row), color=colour, linewidth=2.4, solid_capstyle="round")
            axes.plot(value, row, "o", color=colour, markersize=5.5, markerfacecolor="none" if few else colour)
        axes.set_yticks(range(len(codes)), labels=codes)
        axes.set(title="Sets that hold the true diagnosis", xlabel="share, with its 95% interval")
        axes.set(ylim=(len(codes) - 0.5, -0.5))
        axes.set_xlim(right=1.01)
        axes.grid(axis="y", visible=False)

    return draw("class-coverage", "Coverage of prediction sets by true diagnosis", (HALF, 3.2), paint)
