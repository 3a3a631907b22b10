"""The section on calibration: how far the probabilities can be taken at their word, before and after.

It reads ``evaluation["models"][MODEL]["calibration"]``, the block of ``evaluate/calibration_blocks.py``, where its form
is described; ``evaluation["classes"]``; and ``evaluation["n"]["per_class"]``, as figures of ten or fewer melanomas are
left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dermdistill.labels import MELANOMA
from dermdistill.report.figures import HALF, draw, model_colour
from dermdistill.report.formats import (
    CLASS_TITLES,
    MODEL_PHRASES,
    NOT_COMPUTABLE,
    TOO_FEW,
    Cell,
    difference,
    model_title,
    number,
    pick,
    signed,
)
from dermdistill.report.tables import Row

TITLE = "Calibration"
QUESTION = "Does a probability of 30% mean three in ten?"
SHIPPED: Final = "student_int8"
METHODS: Final = {"none": "no calibration", "temperature": "one temperature", "vector": "a scale and a bias a class"}
STAGES: Final = {"before": "Before", "after": "After"}
VIEWS: Final = {"label": "Confidence in the label", "melanoma": "Probability of melanoma"}
SHARES: Final = {"label": "share right", "melanoma": "share of melanomas"}
FIGURES: Final = {
    "ece": "ECE",
    "ece_equal_mass": "ECE, bins of equal mass",
    "mce": "MCE",
    "brier": "Brier score",
    "reliability": "reliability (0 is ideal)",
    "resolution": "resolution (higher is better)",
    "uncertainty": "uncertainty (of the data)",
    "slope": "slope (1 is ideal)",
    "intercept": "intercept (0 is ideal)",
}
Json = Mapping[str, Any]


def section(evaluation: Json) -> dict[str, Any] | None:
    """What the partial shows; None where no model has a block ``calibration``."""
    blocks = {name: model["calibration"] for name, model in evaluation["models"].items() if model.get("calibration")}
    if not blocks:
        return None
    shown = SHIPPED if SHIPPED in blocks else list(blocks)[-1]
    own, melanomas = blocks[shown], _melanomas(evaluation)
    colour = model_colour(shown, list(evaluation["models"]))
    return {
        "sentences": [_chosen(shown, own), *_melanoma(own, melanomas), _errors(own, melanomas)],
        "figures": [
            {"svg": Markup(_reliability(own, view, colour)), "caption": f"{title}, {_phrase(shown)}."}
            for view, title in VIEWS.items()
        ],
        "tables": [
            {"title": model_title(name), "open": name == shown, "head": _head(block), "rows": _rows(block, melanomas)}
            for name, block in blocks.items()
        ],
        "method_head": [*(title.capitalize() for title in METHODS.values()), "Chosen"],
        "methods": [_method_row(name, block) for name, block in blocks.items() if block["cross_validation"].get("nll")],
        "parameters": [
            Row(code, (Cell(number(scale)), Cell(signed(bias))), CLASS_TITLES.get(code, ""))
            for code, scale, bias in zip(evaluation["classes"], own["scale"], own["bias"], strict=True)
            if own["method"] != "none"
        ],
        "phrase": _phrase(shown),
    }


def _phrase(model: str) -> str:
    return MODEL_PHRASES.get(model, model.replace("_", " "))


def _melanomas(evaluation: Json) -> int:
    return int(evaluation["n"]["per_class"].get(MELANOMA, 0))


def _stages(block: Json) -> dict[str, str]:
    """Before and after; without a calibration they are the same, and one is shown."""
    return {"after": "As they are"} if block["method"] == "none" else dict(STAGES)


def _chosen(model: str, block: Json) -> str:
    method, nll = block["method"], block["cross_validation"].get("nll") or {}
    done = "used as they are" if method == "none" else f"calibrated with {METHODS[method]}"
    said = f"The probabilities of the {_phrase(model)} are {done}"
    if nll.get(method) is None:
        return f"{said}."
    others = [f"{number(value)} with {METHODS[name]}" for name, value in nll.items() if name != method]
    return (
        f"{said}, as was chosen on the validation part: the cross-validated NLL is {number(nll[method])}, "
        f"against {' and '.join(others)}."
    )


def _melanoma(block: Json, melanomas: int) -> list[str]:
    """Whether melanoma is called too probable, or too improbable, as far as the interval tells."""
    if melanomas <= TOO_FEW:
        return [f"The test part has {melanomas} melanomas, ten or fewer: nothing is said about their probabilities."]
    verdicts = {stage: _height(block[stage]["melanoma"]["intercept"]) for stage in _stages(block)}
    words = [
        f"{verdict}{' before' if stage == 'before' else ' after calibration' if len(verdicts) > 1 else ''} "
        f"(intercept {_plainly(block[stage]['melanoma']['intercept'])})"
        for stage, verdict in verdicts.items()
    ]
    return [f"Probabilities of melanoma are, on the whole, {' and '.join(words)}."]


def _plainly(entry: Json) -> str:
    """A signed figure and its interval without brackets of its own."""
    cell = difference(entry)
    return f"{cell.value}, {cell.detail.strip('()')}" if cell.detail else cell.value


def _height(intercept: Json) -> str:
    value, low, high = pick(intercept)
    if value is None or low is None or high is None:
        return "not to be judged"
    if high < 0:
        return "too high"
    return "too low" if low > 0 else "neither clearly too high nor clearly too low"


def _errors(block: Json, melanomas: int) -> str:
    views = {"label": "the confidence in the label"}
    if melanomas > TOO_FEW:
        views = {"melanoma": "the probability of melanoma", **views}
    parts = [f"that of {words} {_change(block, view)}" for view, words in views.items()]
    return f"Of the mean gaps between what is said and what happens (ECE), {' and '.join(parts)}."


def _change(block: Json, view: str) -> str:
    before, after = (block[stage][view]["ece"]["value"] for stage in STAGES)
    if before is None or after is None:
        return f"is {NOT_COMPUTABLE}"
    if block["method"] == "none" or number(before) == number(after):
        return f"is {number(after)}"
    return f"{'falls' if after < before else 'rises'} from {number(before)} to {number(after)}"


def _head(block: Json) -> list[str]:
    return list(_stages(block).values())


def _rows(block: Json, melanomas: int) -> list[Row]:
    rows = []
    for view, title in VIEWS.items():
        few = view == "melanoma" and melanomas <= TOO_FEW
        for key in [key for key in FIGURES if key in block["after"][view]]:
            entries = [block[stage][view][key] for stage in _stages(block)]
            cells = [Cell(f"too few ({melanomas})", word=True) if few else _cell(entry, key) for entry in entries]
            rows.append(Row(FIGURES[key][0].upper() + FIGURES[key][1:], tuple(cells), title.lower()))
    for key, title in (("brier", "Brier score"), ("nll", "NLL")):
        rows.append(Row(title, tuple(_cell(block[stage][key], key) for stage in _stages(block)), "all classes"))
    return rows


def _cell(entry: Json, key: str) -> Cell:
    """A figure with its interval; one that can be negative is signed."""
    if key == "intercept":
        return difference(entry)
    value, low, high = pick(entry)
    if value is None:
        return Cell(NOT_COMPUTABLE, word=True)
    return Cell(number(value), "(no interval)" if low is None or high is None else f"({number(low)} to {number(high)})")


def _method_row(model: str, block: Json) -> Row:
    nll = block["cross_validation"]["nll"]
    cells = [
        Cell(NOT_COMPUTABLE, word=True) if nll.get(name) is None else Cell(number(nll[name], 4)) for name in METHODS
    ]
    return Row(model_title(model), (*cells, Cell(METHODS[block["method"]], word=True)))


def _reliability(block: Json, view: str, colour: str) -> str:
    """What happened over what was said, before and after side by side; bins of ten or fewer are hollow, unconnected."""
    stages = _stages(block)

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(stages), sharey=True, squeeze=False)[0]
        for axes, (stage, title) in zip(panels, stages.items(), strict=True):
            _paint_bins(axes, block["curves"][stage][view], colour)
            axes.set(title=title, xlabel="said", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
            axes.set_box_aspect(1)
            axes.set_xticks((0, 0.5, 1), labels=("0", ".5", "1"))
            axes.set_yticks((0, 0.5, 1), labels=("0", ".5", "1"))
        panels[0].set_ylabel(SHARES[view])

    described = f"Reliability of the {VIEWS[view].lower()}, {' and '.join(stages.values()).lower()}"
    return draw(f"calibration-{view}", described, (HALF, 2.75), paint)


def _paint_bins(axes: Axes, bins: Sequence[Json], colour: str) -> None:
    axes.plot((0, 1), (0, 1), color="#a9b4c4", linewidth=0.8)
    filled = [item for item in bins if item["n"]]
    for items, look in (
        ([item for item in filled if item["n"] > TOO_FEW], {"marker": "o"}),
        (
            [item for item in filled if item["n"] <= TOO_FEW],
            {"marker": "o", "linestyle": "", "markerfacecolor": "none"},
        ),
    ):
        said, happened = [item["confidence"] for item in items], [item["accuracy"] for item in items]
        axes.plot(said, happened, color=colour, markersize=5, **look)  # type: ignore[arg-type]
