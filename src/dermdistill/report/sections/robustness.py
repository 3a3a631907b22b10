"""What breaks the models: heat tables of drops, models side by side, and the corruptions drawn over a drawn lesion."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from PIL import Image

from dermdistill.data.corruptions import CORRUPTIONS, corrupt, picture_key
from dermdistill.data.synthetic_photo import draw_photos
from dermdistill.labels import MELANOMA
from dermdistill.report.formats import (
    MODEL_PHRASES,
    NOT_COMPUTABLE,
    TOO_FEW,
    Cell,
    estimate,
    model_title,
    number,
    pair_title,
    pick,
    signed,
)
from dermdistill.report.tables import Row

TITLE = "What breaks it"
QUESTION = "How far do its figures fall when photographs are spoilt, and did compression make that worse?"
ACCURACY: Final = "balanced_accuracy"
SENSITIVITY: Final = "sensitivity_at_95_sensitivity"
HEAT: Final = {ACCURACY: "Balanced accuracy", SENSITIVITY: "Melanoma sensitivity at the 95% threshold"}
BESIDE: Final = {**HEAT, "melanoma_auc": "Melanoma AUC"}
GROUPS: Final = {
    "artefact": "Mean over artefacts",
    "corruption": "Mean over camera and file",
    "all": "Mean over all kinds",
}
CHANGED: Final = "changed_labels"
SHIPPED: Final = "student_int8"
WORST: Final = 3
# A drop of this much has the deepest shade; ink stays readable on it, on white and on black.
DEEPEST_DROP: Final = 0.4
DEEPEST_SHADE: Final = 0.55
DRAWN_SIDE, DRAWN_SEVERITY, DRAWN_QUALITY = 112, 4, 88

Json = dict[str, Any]
Block = Mapping[str, Any]


def section(evaluation: Mapping[str, Any]) -> Json | None:
    """What the partial shows; None where the evaluation has no block ``robustness``.

    Args:
        evaluation: with ``robustness`` of ``evaluate.robustness.robustness_block``.
    """
    block: Block | None = evaluation.get("robustness")
    if block is None:
        return None
    model = _shown(block)
    return {
        "sentences": [*_losses(block, model), *_comparisons(block)],
        "sample": _sample(block),
        "severities": [str(severity) for severity in block["severities"]],
        "model": MODEL_PHRASES.get(model, model),
        "heat": [_heat(block, model, figure) for figure in HEAT],
        "head": [
            *(model_title(name) for name in block["models"]),
            *(pair_title(name) for name in block["differences"]),
        ],
        "beside": [{"title": title, "rows": _beside(block, figure)} for figure, title in BESIDE.items()],
        "models": [model_title(name) for name in block["models"]],
        "changed": _changed(block),
        "drawn": _drawn(tuple(block["kinds"])),
        "drawn_severity": DRAWN_SEVERITY,
    }


def _shown(block: Block) -> str:
    names = list(block["models"])
    return SHIPPED if SHIPPED in names else names[-1]


def _few(block: Block, figure: str) -> int | None:
    """How many melanomas a figure of melanomas rests on, where those are too few; else None."""
    melanomas = int(block["sample"]["per_class"].get(MELANOMA, 0))
    return melanomas if figure == SENSITIVITY and melanomas <= TOO_FEW else None


# Sentences


def _phrase(block: Block, kind: str) -> str:
    title = str(block["kinds"][kind]["title"])
    return title if title.isupper() else title[:1].lower() + title[1:]


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _losses(block: Block, model: str) -> list[str]:
    """How much one model loses, and to what most: of balanced accuracy, then of melanoma sensitivity."""
    own, name = block["models"][model], MODEL_PHRASES.get(model, model)
    sentences = []
    for figure, title in HEAT.items():
        value, *_ = pick(own["groups"]["all"]["drop"][figure])
        clean, *_ = pick(own["clean"][figure])
        called = title[:1].lower() + title[1:]
        if _few(block, figure) is not None:
            sentences.append(f"There are too few melanomas ({_few(block, figure)}) to say what costs {called}.")
        elif value is None or clean is None:
            sentences.append(f"What costs the {name} {called} is {NOT_COMPUTABLE} on these images.")
        else:
            change = f"loses {number(value)} of" if value > 0 else f"gains {number(-value)} on"
            sentences.append(
                f"On average over {len(block['kinds'])} kinds and {len(block['severities'])} severities the {name} "
                f"{change} its {called} of {number(clean)}{_worst(block, own, figure)}."
            )
    return sentences


def _worst(block: Block, own: Block, figure: str) -> str:
    """``; the worst are noise (.51), blur (.17) and JPEG (.17)``, of the kinds that cost anything."""
    drops = {kind: pick(entry["drop"][figure])[0] for kind, entry in own["kinds"].items()}
    costly = sorted(((drop, kind) for kind, drop in drops.items() if drop is not None and drop > 0), reverse=True)
    if not costly:
        return "; no kind costs any"
    named = [f"{_phrase(block, kind)} ({number(drop)})" for drop, kind in costly[:WORST]]
    return f"; the worst {'is' if len(named) == 1 else 'are'} {_listed(named)}"


def _comparisons(block: Block) -> list[str]:
    """For each pair of models whether one loses more balanced accuracy, as far as the interval can tell."""
    sentences = []
    for pair, entries in block["differences"].items():
        value, low, high = pick(entries["all"][ACCURACY])
        if value is None or low is None or high is None:
            continue
        first, second = (MODEL_PHRASES.get(name, name) for name in pair.split(" - "))
        told = "more" if low > 0 else "less" if high < 0 else ""
        spread = f"{signed(value)}, {signed(low)} to {signed(high)}"
        sentences.append(
            f"The {first} loses {told} balanced accuracy than the {second} ({spread})."
            if told
            else f"Whether the {first} or the {second} loses more cannot be told ({spread})."
        )
    return sentences


def _sample(block: Block) -> str:
    sample = block["sample"]
    counts = ", ".join(f"{code} {count}" for code, count in sample["per_class"].items())
    return f"{sample['images']:,} test images of {sample['lesions']:,} lesions ({counts})"


# Tables


def _heat(block: Block, model: str, figure: str) -> Json:
    """Rows of one heat table: a group's title, then a row a kind with a cell a severity and the mean."""
    own, few = block["models"][model], _few(block, figure)
    rows: list[Json] = []
    for group in dict.fromkeys(kind["group"] for kind in block["kinds"].values()):
        for kind, facts in block["kinds"].items():
            if facts["group"] == group:
                entry = own["kinds"][kind]
                drops = [one["drops"][figure] for one in entry["severities"]]
                cells = [_shaded(drop, few) for drop in [*drops, pick(entry["drop"][figure])[0]]]
                rows.append({"title": facts["title"], "cells": cells})
        mean = _shaded(pick(own["groups"][group]["drop"][figure])[0], few)
        rows.append(
            {"title": GROUPS[group], "cells": [*({"value": "", "shade": ""},) * len(block["severities"]), mean]}
        )
    return {"title": HEAT[figure], "clean": str(_value(own["clean"][figure], few)), "rows": rows}


def _shaded(drop: float | None, few: int | None) -> Json:
    """A number with its shade, the opacity of red from 0 to ``DEEPEST_SHADE``."""
    if few is not None or drop is None:
        return {"value": f"too few ({few})" if few is not None else "-", "shade": ""}
    share = min(1.0, max(0.0, drop) / DEEPEST_DROP)
    return {"value": number(drop), "shade": f"{DEEPEST_SHADE * share:.3f}" if share > 0 else ""}


def _value(entry: Mapping[str, Any] | None, few: int | None) -> Cell:
    return estimate(entry) if few is None else Cell(f"too few ({few})", word=True)


def _spread(entry: Mapping[str, Any] | None, few: int | None, *, sign: bool = False) -> Cell:
    """A drop, or with ``sign`` a difference of drops, with its interval."""
    value, low, high = pick(entry)
    if few is not None or value is None:
        return _value(entry, few)
    text = signed if sign else number
    return Cell(text(value), "(no interval)" if low is None or high is None else f"({text(low)} to {text(high)})")


def _beside(block: Block, figure: str) -> list[Row]:
    """The clean figure of each model, then a row a kind and group: drops of the models, differences of the pairs."""
    models, pairs, few = block["models"], block["differences"], _few(block, figure)
    nothing = [Cell("")] * len(pairs)
    rows = [Row("Clean photographs", (*(_value(own["clean"][figure], few) for own in models.values()), *nothing))]
    for name, title in _titles(block).items():
        drops = [_spread({**own["kinds"], **own["groups"]}[name]["drop"][figure], few) for own in models.values()]
        compared = [_spread(entries[name][figure], few, sign=True) for entries in pairs.values()]
        rows.append(Row(title, (*drops, *compared)))
    return rows


def _changed(block: Block) -> list[Row]:
    """A row a kind and group, a cell a model: the share of images whose label is another than on the clean picture."""
    return [
        Row(
            title,
            tuple(
                _percent({**own["kinds"], **own["groups"]}[name]["mean"][CHANGED]) for own in block["models"].values()
            ),
        )
        for name, title in _titles(block).items()
    ]


def _percent(entry: Mapping[str, Any]) -> Cell:
    value, low, high = pick(entry)
    if value is None or low is None or high is None:
        return Cell(NOT_COMPUTABLE, word=True)
    return Cell(f"{100 * value:.1f}%", f"({100 * low:.1f}-{100 * high:.1f})")


def _titles(block: Block) -> dict[str, str]:
    present = next(iter(block["models"].values()))["groups"]
    kinds = {kind: str(facts["title"]) for kind, facts in block["kinds"].items()}
    return kinds | {group: title for group, title in GROUPS.items() if group in present}


# Pictures


def _drawn(kinds: Sequence[str]) -> list[Json]:
    """One drawn lesion, clean and under each kind, as data URIs: no patient is on them."""
    photo = next(draw_photos(MELANOMA, (3,), 1, (DRAWN_SIDE, DRAWN_SIDE), ()))
    clean = np.asarray(photo.image)
    key = picture_key(0, "drawn")
    pictures = [("Clean", clean)]
    pictures += [(CORRUPTIONS[kind].title, corrupt(clean, kind, DRAWN_SEVERITY, key)) for kind in kinds]
    return [{"title": title, "source": _data_uri(picture)} for title, picture in pictures]


def _data_uri(picture: Any) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=DRAWN_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
