"""The evidence of a model card: intervals, calibration, operating points, abstention, subgroups, robustness.

Each function makes one section's Markdown of ``evaluation.json`` and of what validation decided. What is not there is
said to be not available.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from dermdistill.bundle.decisions import POINTS, Decisions
from dermdistill.bundle.image_gate import REASONS
from dermdistill.bundle.predictor import FLIPPED, LOW_CONFIDENCE
from dermdistill.bundle.variants import VARIANTS
from dermdistill.report.formats import NOT_COMPUTABLE, difference, estimate, model_title, number
from dermdistill.report.markdown import plain, table
from dermdistill.report.tables import PER_CLASS, per_class_rows

NOT_AVAILABLE: Final = "Not available: {}.\n"
UNEVALUATED: Final = NOT_AVAILABLE.format("this card was written before the evaluation of the run")
HEADLINES: Final = {
    "macro AUC": ("diagnosis", "macro_auc"),
    "balanced accuracy": ("diagnosis", "balanced_accuracy"),
    "melanoma AUC": ("melanoma", "roc_auc"),
    "accuracy": ("diagnosis", "accuracy"),
}
POINT_TITLES: Final = {"youden": "Youden"} | {f"at_{n}_sensitivity": f"{n}% sensitivity" for n in (80, 90, 95)}
GAPS: Final = {
    "accuracy": "accuracy",
    "melanoma_auc": "melanoma AUC",
    "sensitivity_at_95_sensitivity": "sensitivity",
}
DROPS: Final = {"balanced_accuracy": "balanced accuracy", "melanoma_auc": "melanoma AUC"}
METHODS: Final = {"none": "none", "temperature": "one temperature", "vector": "a scale and a bias for each class"}
SHIPPED: Final = "student_int8"
Evaluation = Mapping[str, Any] | None
Decided = Mapping[str, Decisions]


def shown_model(evaluation: Mapping[str, Any]) -> str:
    """The model that ships, else the last."""
    models = list(evaluation["models"])
    return SHIPPED if SHIPPED in models else models[-1]


def title_of(model: str) -> str:
    """A file's title as in the other tables of the card, else that of the model."""
    plain_name = model.removesuffix(FLIPPED)
    title = VARIANTS[plain_name].title if plain_name in VARIANTS else model_title(plain_name)
    return f"{title}, mean over flips" if model.endswith(FLIPPED) else title


def headline(evaluation: Evaluation) -> str:
    """The headline figures of all models with their intervals, and those of each class for the model that ships."""
    if evaluation is None:
        return ""
    rows = [
        (title_of(name), *(str(estimate(model[group].get(metric))) for group, metric in HEADLINES.values()))
        for name, model in evaluation["models"].items()
    ]
    shown = shown_model(evaluation)
    classes = [(f"`{row.title}`", *(str(cell) for cell in row.cells)) for row in per_class_rows(evaluation, shown)]
    n = evaluation["n"]
    return (
        f"\nOn {n['images']:,} images of {n['lesions']:,} lesions, with 95% intervals of a bootstrap over lesions:\n\n"
        + table(("model", *HEADLINES), rows)
        + f"\nEach class against all others, {title_of(shown)}:\n\n"
        + table(("class", "images", *PER_CLASS.values()), classes)
    )


def calibration(evaluation: Evaluation, decided: Decided) -> str:
    """How probabilities are calibrated, and what that does on the test part."""
    if not decided:
        return NOT_AVAILABLE.format("no calibration was chosen; probabilities are the softmax of the logits")
    methods = "".join(f"- {title_of(name)}: {METHODS[own.calibration.method]}\n" for name, own in decided.items())
    text = (
        "Probabilities are fitted to the frequencies of the validation part, for each file by itself. The label is the "
        f"class with the largest raw score, before and after.\n\n{methods}\n"
    )
    blocks = {name: model["calibration"] for name, model in _models(evaluation) if model.get("calibration")}
    if not blocks:
        return text + "Its effect on the test part is not available.\n"
    # An intercept is negative as often as not: its bounds need more than a dash between them.
    figures = (
        ("label", "ece", estimate),
        ("melanoma", "ece", estimate),
        ("melanoma", "slope", estimate),
        ("melanoma", "intercept", difference),
    )
    rows = [
        (f"{title_of(name)}, {stage}", *(str(cell(block[stage][view].get(key))) for view, key, cell in figures))
        for name, block in blocks.items()
        for stage in ("before", "after")
    ]
    head = ("test part", "ECE of the label", "ECE of melanoma", "slope of melanoma", "intercept of melanoma")
    return text + table(head, rows)


def operating_points(evaluation: Evaluation, thresholds: Mapping[str, Mapping[str, float | None]]) -> str:
    """Every threshold of every file, and what it does on the test part where that is known."""
    if not any(thresholds.values()):
        return NOT_AVAILABLE.format("the validation part gave no threshold")
    models = dict(_models(evaluation))
    rows = []
    for name, own in thresholds.items():
        for point in (point for point in POINTS if point in own):
            value = own[point]
            melanoma = models[name]["melanoma"] if name in models else {}
            both = (_at(melanoma, share, point) for share in ("sensitivity", "specificity"))
            shown = NOT_COMPUTABLE if value is None else number(value, 4)
            rows.append((f"{title_of(name)}, {POINT_TITLES[point]}", shown, *both))
    head = ("chosen on validation", "threshold", "sensitivity on test", "specificity on test")
    return "A lesion is referred where its probability of melanoma reaches the threshold.\n\n" + table(head, rows)


def _at(melanoma: Mapping[str, Any], share: str, point: str) -> str:
    key = share if point == "youden" else f"{share}_{point}"
    return str(estimate(melanoma[key])) if key in melanoma else "not available"


def abstention(evaluation: Evaluation, decided: Decided) -> str:
    """What the predictor answers where it should not be believed."""
    if not decided:
        return NOT_AVAILABLE.format("nothing was decided about when to abstain; it always answers")
    lines = [line for name, own in decided.items() for line in _promises(title_of(name), own)]
    lines += [line for name, model in _models(evaluation) for line in _kept(title_of(name), model)]
    lines += gate((evaluation or {}).get("gate"))
    reasons = ", ".join(f"`{reason}`" for reason in (LOW_CONFIDENCE, *REASONS))
    return (
        "The predictor always gives label and probabilities. Beside them it says `abstain`, with its `reasons`, any of "
        f"{reasons}. An answer with `abstain` should not be used: a person decides, and `no_referral` then reassures "
        "nobody.\n\n" + "".join(f"- {line}\n" for line in lines)
    )


def gate(block: Mapping[str, Any] | None) -> list[str]:
    """What the look at the picture costs good ones, and what it holds back."""
    if not block:
        return []
    clean, drawn = block["clean"]["any"], block["not_skin"]["all"]
    if drawn["flagged"] is None:
        return [f"The look at the picture flags {clean['flagged']:,} of {clean['n']:,} test images."]
    return [
        f"The look at the picture flags {clean['flagged']:,} of {clean['n']:,} test images, "
        f"and {drawn['flagged']:.1%} of {drawn['n']:,} drawn pictures that show no skin."
    ]


def _promises(title: str, own: Decisions) -> Iterator[str]:
    if own.confidence is None:
        yield f"{title}: no confidence is too low."
    else:
        yield f"{title}: `{LOW_CONFIDENCE}` below a calibrated probability of its label of {number(own.confidence, 4)}."
    if own.quantiles:
        always = sum(limit is None for limit in own.quantiles)
        classes = "1 class with too few images is" if always == 1 else f"{always} classes with too few images are"
        said = f"; {classes} in every set" if always else ""
        yield f"{title}: prediction sets, to hold the true diagnosis of {100 * own.coverage:g}% of each class{said}."
    else:
        yield f"{title}: no prediction sets."


def _kept(title: str, model: Mapping[str, Any]) -> Iterator[str]:
    """What became of the promises on the test part."""
    selective, conformal = model.get("selective"), model.get("conformal")
    if selective:
        coverage, accuracy = estimate(selective["coverage"]), estimate(selective["accuracy"])
        yield f"{title}, on the test part: share answered {coverage}, accuracy of these answers {accuracy}."
    if conformal:
        coverage, size = estimate(conformal["coverage"]), estimate(conformal["mean_size"])
        yield f"{title}, on the test part: prediction sets hold the true class in {coverage}, mean size {size}."


def subgroups(evaluation: Evaluation) -> str:
    """Each axis with its groups, their numbers and the largest gaps of the model that ships."""
    if evaluation is None:
        return UNEVALUATED
    block = evaluation.get("subgroups")
    if not block:
        return NOT_AVAILABLE.format("subgroups are not part of the evaluation")
    shown = SHIPPED if SHIPPED in block["models"] else list(block["models"])[-1]
    rows, absent = [], []
    for name, axis in block["axes"].items():
        if axis["unavailable"] is not None:
            absent.append(f"- {plain(axis['title'])}: not available, {plain(axis['unavailable'])}.\n")
            continue
        groups = ", ".join(f"{plain(group)} ({counts['images']:,})" for group, counts in axis["groups"].items())
        gaps = block["models"][shown][name]["gaps"]
        rows.append((plain(axis["title"]), groups, *(_gap(gaps[figure]) for figure in GAPS)))
    head = ("groups by", "groups (images)", *(f"gap of {title}" for title in GAPS.values()))
    listed = table(head, rows) if rows else ""
    return (
        f"{title_of(shown)}. A gap is the best group less the worst, of those with more than {block['few']} cases, "
        "with its 95% interval; p is of a permutation test, corrected for the number of axes. Sensitivity is at the "
        f"threshold for 95%.\n\n{listed}" + ("\n" if rows and absent else "") + "".join(absent)
    )


def _gap(gap: Mapping[str, Any]) -> str:
    if gap["value"] is None:
        return "too few cases"
    p = gap.get("p_holm")
    tested = "" if p is None else f", p {number(p)}"
    return f"{difference(gap)}: {plain(gap['best'])} over {plain(gap['worst'])}{tested}"


def robustness(evaluation: Evaluation) -> str:
    """How far the figures of the model that ships fall on spoilt photographs."""
    if evaluation is None:
        return UNEVALUATED
    block = evaluation.get("robustness")
    if not block:
        return NOT_AVAILABLE.format("spoilt photographs are not part of the evaluation")
    shown = SHIPPED if SHIPPED in block["models"] else list(block["models"])[-1]
    own, kinds = block["models"][shown], block["kinds"]
    parts = [(f"{group}: mean over its kinds", values) for group, values in own["groups"].items() if group != "all"]
    parts += [(kinds[kind]["title"], values) for kind, values in own["kinds"].items()]
    parts += [("mean over all kinds", own["groups"]["all"])] if "all" in own["groups"] else []
    severities = ", ".join(str(severity) for severity in block["severities"])
    rows = [(plain(title), *(str(difference(values["drop"][figure])) for figure in DROPS)) for title, values in parts]
    return (
        f"{title_of(shown)}, on {block['sample']['images']:,} test images, one a lesion. A drop is the figure on the "
        f"pictures as they are less that on spoilt ones, the mean over severities {severities}.\n\n"
        + table(("spoilt by", *(f"drop of {title}" for title in DROPS.values())), rows)
    )


def _models(evaluation: Evaluation) -> list[tuple[str, Mapping[str, Any]]]:
    return [] if evaluation is None else list(evaluation["models"].items())
