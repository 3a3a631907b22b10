"""What a reader must know beside the figures: few cases, what is null and why, what intervals leave out."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from dermdistill.evaluate.metrics import Floats
from dermdistill.labels import MELANOMA

FEW = 10


def data_notes(protocol: str, leaky: bool, rows: int, images: int) -> list[str]:
    """Notes on the protocol: leaking lesions, repeated images."""
    notes = []
    if leaky:
        notes.append(
            f"the protocol {protocol!r} is leaky: one lesion can be in training and in the test part, "
            "so these figures are too good and say nothing about new patients"
        )
    if rows > images:
        notes.append(f"the test part repeats images: {rows} rows show {images} different images")
    return notes


def few_cases(counts: Mapping[str, int], validation_melanomas: int) -> list[str]:
    """Notes on classes of the test part, and melanomas of the validation part, with 1 to ten cases.

    Args:
        counts: {class: test images}.
        validation_melanomas: melanomas that the thresholds were chosen on.
    """
    notes = [
        f"{code}: n = {count} in the test part, ten or fewer: its figures say little"
        for code, count in counts.items()
        if 0 < count <= FEW
    ]
    if 0 < validation_melanomas <= FEW:
        notes.append(
            f"{MELANOMA}: n = {validation_melanomas} in the validation part, ten or fewer: "
            "the thresholds chosen there are uncertain"
        )
    return notes


def null_notes(
    points: Mapping[str, Mapping[str, float]],
    thresholds: Mapping[str, Mapping[str, float | None]],
    counts: Mapping[str, int],
) -> list[str]:
    """One note a reason, naming models and figures that are null.

    Args:
        points: {model: {figure: value}}, NaN where it is null.
        thresholds: {model: {name: threshold or None}}.
        counts: {class: test images}.
    """
    figures: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for model, values in points.items():
        for name, value in values.items():
            if np.isnan(value):
                figures[_reason(name, thresholds[model], counts)][model].append(name)
    return [
        f"null, as {reason}: {', '.join(sorted({name for names in models.values() for name in names}))} "
        f"of {', '.join(models)}"
        for reason, models in figures.items()
    ]


def _reason(name: str, thresholds: Mapping[str, float | None], counts: Mapping[str, int]) -> str:
    view, *middle, metric = name.split(".")
    if view == "diagnosis":
        missing = ", ".join(code for code, count in counts.items() if not count)
        return f"the test part has no image of {missing}"
    kind, _, point = metric.partition("_")
    threshold = point or "youden"
    by_threshold = view == "melanoma" and kind in ("sensitivity", "specificity", "ppv", "npv")
    if by_threshold and thresholds.get(threshold) is None:
        return f"the validation part gives no threshold {threshold} (it needs melanomas and other images)"
    if by_threshold and kind in ("ppv", "npv"):
        return f"{'no' if kind == 'ppv' else 'every'} test image reaches the threshold {threshold}"
    code = middle[0] if middle else MELANOMA
    if metric == "ppv":
        return f"no test image is predicted as {code}"
    if metric == "npv":
        return f"every test image is predicted as {code}"
    return f"the test part has no image of {code}" if not counts[code] else f"every test image is {code}"


def skipped_note(model: str, points: Mapping[str, float], samples: Mapping[str, Floats]) -> list[str]:
    """At most one note: how many replicates the intervals of which figures leave out.

    Args:
        model: its name.
        points: {figure: value}; null figures have no interval and are not named.
        samples: {figure: [S]}, NaN in replicates that do not define it.
    """
    shown = [name for name, value in points.items() if not np.isnan(value)]
    skipped = {name: int(np.isnan(samples[name]).sum()) for name in shown}
    named = [f"{name} ({count})" for name, count in skipped.items() if count]
    if not named:
        return []
    total = len(next(iter(samples.values())))
    return [
        f"{model}: bootstrap replicates (of {total}) left out of an interval, as they do not define it "
        f"(no case of its class, say): {', '.join(named)}"
    ]
