"""The conclusions that a page opens with: one sentence or two a question, computed, with a link to the evidence.

Every sentence is made of the figures in ``evaluation.json``. A block that is not there, or a figure that the images do
not define, gives no sentence; whether a difference is told apart from chance is read off its interval.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dermdistill.report.formats import (
    MODEL_PHRASES,
    TOO_FEW,
    difference,
    estimate,
    number,
    pick,
    signed,
    smaller,
)

TARGET_SENSITIVITY = 0.95
WORST = 3
GAPS = {
    "sensitivity_at_95_sensitivity": "melanoma sensitivity at the 95% threshold",
    "melanoma_auc": "melanoma AUC",
}
COMPARED = {"macro_auc": "macro AUC", "balanced_accuracy": "balanced accuracy", "roc_auc": "melanoma AUC"}
AXES = {"site": "body site", "label_source": "source of the label", "lesion_size": "size of the lesion"}
METHODS = {"none": "no calibration", "temperature": "temperature scaling", "vector": "vector scaling"}
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Conclusion:
    """One question that is answered: the answer, the place on the page that backs it, how it is shown."""

    question: str
    text: str
    evidence: str
    kind: str = ""


def conclusions(evaluation: Json, shipped: str, *, own: bool, places: Collection[str]) -> list[Conclusion]:
    """What a reader in a hurry may take away.

    Args:
        evaluation: ``evaluation.json``.
        shipped: the model that the page speaks of.
        own: whether the images are the test part of the model's own run.
        places: sections of evidence on the page; a sentence whose section is not there points to the results.
    """
    model = evaluation["models"][shipped]
    melanomas = int(evaluation["n"]["per_class"].get("mel", 0))
    asked = (
        ("What was tested?", _tested(evaluation, shipped, own), "split" if own else "tested", "lead"),
        ("How good is it?", _diagnosis(model), "classes", "lead"),
        ("Does it find melanomas?", _melanoma(model, melanomas), "results", ""),
        ("What did making it small cost?", _small(evaluation), "results", ""),
        ("Are its decisions worth having?", _use(model), "use", ""),
        ("Do its probabilities hold?", _calibration(model, melanomas), "calibration", ""),
        ("Does it know what it does not know?", [*_sets(model), *_abstention(model)], "abstention", ""),
        ("Does it notice what is no lesion?", _gate(evaluation), "gate", ""),
        ("Whom does it fail?", _subgroups(evaluation, shipped), "subgroups", "caution"),
        ("What breaks it?", _robustness(evaluation, shipped), "robustness", "caution"),
        ("What must it not be used for?", _not_for(evaluation, shipped), "purpose", "caution"),
    )
    fixed = {"split", "tested", "classes", "results", "purpose"}
    return [
        Conclusion(question, " ".join(said), place if place in fixed or place in places else "results", kind)
        for question, said, place, kind in asked
        if said
    ]


def _known(*entries: Any) -> bool:
    return all(pick(entry)[0] is not None for entry in entries)


def _away_from(entry: Any, value: float) -> int:
    """-1 where the whole interval lies below a value, 1 where above, 0 where it holds it or is not known."""
    _, low, high = pick(entry)
    if low is None or high is None:
        return 0
    return -1 if high < value else int(low > value)


def _list(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _tested(evaluation: Json, shipped: str, own: bool) -> list[str]:
    n, phrase = evaluation["n"], MODEL_PHRASES.get(shipped, shipped)
    melanomas = f", {n['per_class']['mel']:,} of the images melanomas" if "mel" in n["per_class"] else ""
    what = "test images" if own else "images from elsewhere"
    said = [f"The {phrase}, on {n['images']:,} {what} of {n['lesions']:,} lesions{melanomas}."]
    if evaluation.get("leaky"):
        said.append("Photos of these lesions may have been trained on: every figure is too good.")
    return said


def _diagnosis(model: Json) -> list[str]:
    figures = model["diagnosis"]
    names = {"macro_auc": "Macro AUC", "balanced_accuracy": "balanced accuracy", "accuracy": "accuracy"}
    parts = [f"{title} {estimate(figures[key])}" for key, title in names.items() if _known(figures.get(key))]
    return [f"{', '.join(parts)}."] if parts else []


def _melanoma(model: Json, melanomas: int) -> list[str]:
    if melanomas <= TOO_FEW:
        return [f"There are too few melanomas ({melanomas}) to say how well it finds them."]
    figures, said = model["melanoma"], []
    areas = [
        f"{title} {estimate(figures[k])}"
        for k, title in (("roc_auc", "AUC"), ("pr_auc", "PR AUC"))
        if _known(figures.get(k))
    ]
    if areas:
        said.append(f"{', '.join(areas)}.")
    sensitivity, specificity = (figures.get(f"{name}_at_95_sensitivity") for name in ("sensitivity", "specificity"))
    if _known(sensitivity, specificity):
        held = ("is missed beyond chance", "is within the interval", "is exceeded beyond chance")
        said.append(
            f"At the threshold for 95% sensitivity, chosen on validation, specificity is {estimate(specificity)} and "
            f"sensitivity came out as {estimate(sensitivity)}: the target "
            f"{held[1 + _away_from(sensitivity, TARGET_SENSITIVITY)]}."
        )
    return said


def _small(evaluation: Json) -> list[str]:
    """INT8 against FP32 and the teacher, by the same bootstrap draws, and the sizes of the files."""
    said, pairs, ratios = [], evaluation.get("differences") or {}, evaluation.get("size_ratios") or {}
    for other, phrase in (("student", "FP32"), ("teacher", "teacher")):
        pair = pairs.get(f"student_int8 - {other}") or {}
        known = {key: pair[key] for key in COMPARED if _known(pair.get(key))}
        if known:
            apart = [COMPARED[key] for key, entry in known.items() if _away_from(entry, 0)]
            beyond = f"{_list(apart)} beyond chance" if apart else "none of them beyond chance"
            changes = ", ".join(f"{COMPARED[key]} {difference(entry)}" for key, entry in known.items())
            said.append(f"INT8 minus {phrase}, paired: {changes}; {beyond}.")
    sizes = [
        f"{smaller(ratios[key])} than {words}"
        for key, words in (("student_int8 / student", "FP32"), ("student_int8 / teacher", "the teacher"))
        if ratios.get(key) is not None
    ]
    return [*said, f"Its file is {_list(sizes)}."] if sizes else said


def _use(model: Json) -> list[str]:
    block = model.get("use")
    if not block or block["melanomas"] <= TOO_FEW:
        return []
    ranges = [
        f"{100 * part['low']:.0f}%" + (f" to {100 * part['high']:.0f}%" if part["high"] > part["low"] else "")
        for part in block["decision_curve"]["better"]
    ]
    where = f"at threshold probabilities of {_list(ranges)}" if ranges else "at no threshold probability from 1% to 50%"
    said = [f"Beyond chance it does more good than referring everybody or nobody {where}."]
    point = block["operating_points"].get("at_95_sensitivity")
    if point and _known(point["number_needed"]):
        value, low, high = pick(point["number_needed"])
        spread = f" ({low:.1f}-{high:.1f})" if low is not None and high is not None else ""
        said.append(
            f"At the threshold for 95% sensitivity it refers {value:.1f}{spread} images for each melanoma found "
            f"and misses {block['melanomas'] - point['found']:,} of {block['melanomas']:,}."
        )
    return said


def _calibration(model: Json, melanomas: int) -> list[str]:
    block = model.get("calibration")
    if not block:
        return []
    method, said = METHODS.get(block["method"], block["method"]), []
    views = (
        {"label": "of its answers", "melanoma": "of melanoma"} if melanomas > TOO_FEW else {"label": "of its answers"}
    )
    for view, words in views.items():
        before, after = (block[stage][view].get("ece") for stage in ("before", "after"))
        if _known(before, after):
            by = f" ({method}, fitted on validation)" if view == "label" else ""
            said.append(
                f"Expected calibration error {words}: {estimate(after)}, without calibration {estimate(before)}{by}."
            )
    slope = block["after"]["melanoma"].get("slope")
    if _known(slope) and "melanoma" in views:
        kinds = ("too extreme", "neither too extreme nor too timid, as far as the interval tells", "too timid")
        said.append(f"Slope of melanoma {estimate(slope)}: its probabilities are {kinds[1 + _away_from(slope, 1)]}.")
    return said


def _sets(model: Json) -> list[str]:
    block = model.get("conformal")
    if not block or not _known(block["coverage"], block["mean_size"]):
        return []
    said = (
        f"Its sets of diagnoses, built to hold the true one in {100 * block['level']:.0f}% of every class, hold it for "
        f"{_share(block['coverage'])} of lesions with {pick(block['mean_size'])[0]:.1f} diagnoses on average"
    )
    many = {
        code: entry for code, entry in block["per_class"].items() if entry["n"] > TOO_FEW and _known(entry["coverage"])
    }
    if many:
        worst = min(many, key=lambda code: many[code]["coverage"]["value"])
        said += f"; least often for {worst}, {_share(many[worst]['coverage'])}"
    return [f"{said}."]


def _abstention(model: Json) -> list[str]:
    block = model.get("selective")
    if not block or block["threshold"] is None or not _known(block["coverage"], block["accuracy"]):
        return []
    everything = model["diagnosis"].get("accuracy")
    instead = f" instead of {_share(everything, spread=False)}" if _known(everything) else ""
    return [
        f"If it withholds what it is less than {100 * block['threshold']:.0f}% sure of, it answers "
        f"{_share(block['coverage'])} of the images and is right in {_share(block['accuracy'])}{instead}."
    ]


def _share(entry: Any, *, spread: bool = True) -> str:
    """``91.2% (89.0-93.1)``."""
    value, low, high = pick(entry)
    text = f"{100 * (value or 0):.1f}%"
    return f"{text} ({100 * low:.1f}-{100 * high:.1f})" if spread and low is not None and high is not None else text


def _gate(evaluation: Json) -> list[str]:
    """What the image gate refuses: drawn pictures without skin, and good images, which is its cost."""
    block = evaluation.get("gate")
    if not block:
        return []
    drawn, good = block["not_skin"]["all"], block["clean"]["any"]
    said = f"Its gate refuses {_share(good['share'])} of good images" if _known(good["share"]) else "Its gate"
    melanomas = block.get("melanomas")
    if melanomas and melanomas["n"]:
        said += f", among them {melanomas['flagged']:,} of {melanomas['n']:,} melanomas"
    if drawn["n"]:
        said += f", and {100 * drawn['flagged']:.1f}% of {drawn['n']:,} drawn pictures that show no skin"
    return [f"{said}."]


def _subgroups(evaluation: Json, shipped: str) -> list[str]:
    """The largest gap between two groups, of melanomas found and of melanoma AUC, and what could not be looked at."""
    block = evaluation.get("subgroups")
    if not block:
        return []
    axes, said = block["axes"], []
    for figure, words in GAPS.items():
        gaps = {
            axis: found["gaps"][figure]
            for axis, found in block["models"].get(shipped, {}).items()
            if _known(found["gaps"].get(figure))
        }
        if gaps:
            axis = max(gaps, key=lambda name: gaps[name]["value"])
            said.append(_gap(gaps[axis], words, _axis(axis)))
    lacking = [_axis(name) for name, axis in axes.items() if axis["unavailable"] is not None]
    if lacking:
        said.append(f"Nothing is known about groups by {_list(lacking)}.")
    return said


def _axis(name: str) -> str:
    return AXES.get(name, name.replace("_", " "))


def _gap(gap: Json, words: str, axis: str) -> str:
    p = gap.get("p_holm")
    chance = "" if p is None else f" (p = {number(p)}, corrected for the number of axes)"
    return f"Largest gap in {words}: {estimate(gap)}, by {axis}, {gap['worst']} against {gap['best']}{chance}."


def _robustness(evaluation: Json, shipped: str) -> list[str]:
    block = evaluation.get("robustness")
    if not block or shipped not in block["models"]:
        return []
    model = block["models"][shipped]
    drops = {
        kind: entry["drop"]["balanced_accuracy"]
        for kind, entry in model["kinds"].items()
        if _known(entry["drop"].get("balanced_accuracy"))
    }
    if not drops:
        return []
    falling = [kind for kind in drops if drops[kind]["value"] > 0]
    clean = model["clean"].get("balanced_accuracy")
    start = f", {estimate(clean)} on clean pictures," if _known(clean) else ""
    if not falling:
        return [f"Balanced accuracy{start} falls under none of {len(drops)} ways to spoil a picture."]
    worst = sorted(falling, key=lambda kind: (-drops[kind]["value"], kind))[:WORST]
    falls = _list([f"{block['kinds'][kind]['title'].lower()} ({_change(drops[kind])})" for kind in worst])
    return [f"Balanced accuracy{start} falls most under {falls}, on average over severities."]


def _change(drop: Any) -> str:
    """A drop as a change, ``-.123``."""
    return signed(-drop["value"])


def _not_for(evaluation: Json, shipped: str) -> list[str]:
    said = ["It must not diagnose, triage or reassure anyone: it is no medical device."]
    if "mel" in evaluation["classes"]:
        place = evaluation["classes"].index("mel")
        row = evaluation["models"][shipped]["confusion"][place]
        if sum(row):
            said.append(f"It called {sum(row) - row[place]:,} of {sum(row):,} melanomas something else.")
    few = [f"{code} ({count})" for code, count in evaluation["n"]["per_class"].items() if count <= TOO_FEW]
    if few:
        said.append(f"Too few images to say anything of {_list(few)}.")
    return said
