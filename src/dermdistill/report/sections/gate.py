"""The section on the image gate: what it keeps from the network, and what it costs good pictures.

It reads ``evaluation["gate"]``, the block of ``evaluate/out_of_distribution.py``, where its form is described. The
small pictures of the drawn kinds are drawn anew from the block's seed, so no picture has to be in the evaluation.
"""

import base64
from collections.abc import Mapping
from io import BytesIO
from typing import Any, Final

from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from dermdistill.data.not_skin import KINDS, not_skin
from dermdistill.report.figures import PART_COLOURS, WIDE, draw
from dermdistill.report.formats import CLASS_TITLES, NOT_COMPUTABLE, TOO_FEW, Cell, estimate, number, pick
from dermdistill.report.tables import Row

TITLE = "The image gate"
QUESTION = "What happens when it is shown something that is no dermatoscopic picture, or a bad one?"
REASONS: Final = {
    "blurred": "Blurred",
    "too_dark": "Too dark",
    "too_bright": "Too bright",
    "colour_cast": "Colour cast",
    "no_lesion": "No lesion: nothing stands out",
    "unlike_training_images": "Unlike the training images",
}
SCORES: Final = {"gate": "Gate", "unsureness": "1 - confidence", "entropy": "Entropy"}
NOT_SKIN_COLOUR: Final = "#8a93a0"
THUMBNAIL: Final = 48
Json = Mapping[str, Any]


def section(evaluation: Json) -> dict[str, Any] | None:
    """What the partial shows; None where the evaluation has no block ``gate``."""
    block = evaluation.get("gate")
    if not block:
        return None
    scores = [SCORES.get(name, name) for name in block["scores"]]
    return {
        "sentences": [_cost(block), *_melanomas(block), _against_drawings(block)],
        "figure": Markup(_histogram(block)),
        "caption": "Distance from the training images; line: the threshold, which "
        f"{100 * block['gate']['quantile']:g}% of the validation images do not exceed.",
        "reason_rows": [_refused(REASONS.get(name, name), entry) for name, entry in block["clean"]["reasons"].items()],
        "class_rows": [
            _refused(code, entry, CLASS_TITLES.get(code, "")) for code, entry in block["clean"]["per_class"].items()
        ],
        "head": ["Pictures", "Refused", *(f"AUROC, {score}" for score in scores)],
        "kind_rows": [_compared("All drawn pictures", block["not_skin"]["all"])]
        + [_compared(kind_title(kind), entry) for kind, entry in block["not_skin"]["kinds"].items()],
        "corruption_rows": [_compared(_words(name), entry) for name, entry in block["corruptions"].items()],
        "thumbnails": _thumbnails(list(block["not_skin"]["kinds"]), block["seed"]),
        "notes": [f"{note[:1].upper()}{note[1:]}." for note in block["notes"]],
    }


def kind_title(kind: str) -> str:
    """``Marble in colours of skin`` for ``skin_marble``."""
    words = f"{kind.removeprefix('skin_')} in colours of skin" if kind.startswith("skin_") else kind
    return _words(words)


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _percent(entry: Json) -> str:
    value, low, high = pick(entry)
    if value is None:
        return NOT_COMPUTABLE
    bounds = "" if low is None or high is None else f" ({100 * low:.1f}% to {100 * high:.1f}%)"
    return f"{100 * value:.1f}%{bounds}"


def _cost(block: Json) -> str:
    refused = block["clean"]["any"]
    sentence = (
        f"The gate refuses {refused['flagged']:,} of {refused['n']:,} good test images, {_percent(refused['share'])}"
    )
    counts = {name: entry["flagged"] for name, entry in block["clean"]["reasons"].items()}
    most = max(counts, key=lambda name: int(counts[name]))
    if not counts[most]:
        return f"{sentence}."
    return f"{sentence}; most often for the reason “{REASONS.get(most, most).lower()}” ({counts[most]:,})."


def _melanomas(block: Json) -> list[str]:
    found = block["melanomas"]
    if not found or not found["n"]:
        return []
    if not found["flagged"]:
        return [f"It refuses none of {found['n']:,} pictures of melanomas."]
    named = [
        f"{item['lesion_id']} ({', '.join(REASONS.get(reason, reason).lower() for reason in item['reasons'])})"
        for item in found["lesions"]
    ]
    return [f"It refuses {found['flagged']:,} of {found['n']:,} pictures of melanomas: {'; '.join(named)}."]


def _against_drawings(block: Json) -> str:
    drawn = block["not_skin"]["all"]
    if not drawn["n"]:
        return "It was shown no picture without skin."
    areas = {name: entry["value"] for name, entry in drawn["auroc"].items()}
    others = [f"{SCORES.get(name, name).lower()} {number(value)}" for name, value in areas.items() if name != "gate"]
    against = f" (of the model alone: {', '.join(others)})" if others else ""
    kinds = {kind: entry["auroc"]["gate"]["value"] for kind, entry in block["not_skin"]["kinds"].items()}
    worst = min(kinds, key=lambda kind: float(kinds[kind]))
    return (
        f"It refuses {100 * drawn['flagged']:.1f}% of {drawn['n']:,} drawn pictures that show no skin. Its distance "
        f"tells them from good test images with an AUROC of {estimate(drawn['auroc']['gate'])}{against}; "
        f"it is worst at “{kind_title(worst).lower()}” ({number(kinds[worst])})."
    )


def _refused(title: str, entry: Json, remark: str = "") -> Row:
    few = entry["n"] <= TOO_FEW
    share = Cell(f"too few ({entry['n']})", word=True) if few else estimate(entry["share"])
    return Row(title, (Cell(f"{entry['n']:,}"), Cell(f"{entry['flagged']:,}"), share), remark)


def _compared(title: str, entry: Json) -> Row:
    count = Cell(f"{entry['n']:,}")
    if entry["n"] <= TOO_FEW:
        few = Cell(f"too few ({entry['n']})", word=True)
        return Row(title, (count, few, *(few for _ in entry["auroc"])))
    return Row(title, (count, Cell(f"{100 * entry['flagged']:.1f}%"), *map(estimate, entry["auroc"].values())))


def _histogram(block: Json) -> str:
    histogram = block["histogram"]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        looks = (
            ("lesions", "test images", PART_COLOURS["test"], 0.75),
            ("not_skin", "drawn, no skin", NOT_SKIN_COLOUR, 0.55),
        )
        for name, title, colour, opacity in looks:
            total = sum(histogram[name])
            shares = [100 * count / max(1, total) for count in histogram[name]]
            look: dict[str, Any] = {"color": colour, "alpha": opacity, "linewidth": 0}
            axes.stairs(shares, histogram["edges"], fill=True, label=f"{title} ({total:,})", **look)
        axes.axvline(histogram["threshold"], color="#d55e00", linewidth=1.4, label="threshold")
        axes.set(title="Distance from the training images", xlabel="Mahalanobis distance", ylabel="% of the pictures")
        axes.set(xlim=(0, histogram["edges"][-1]), ylim=(0, None))
        axes.legend(loc="best")

    return draw("gate-histogram", "Distance of test images and of drawn pictures", (WIDE, 3.0), paint)


def _thumbnails(kinds: list[str], seed: int) -> list[dict[str, str]]:
    """One drawing of each kind as a PNG data URI."""
    images, drawn = not_skin(len(KINDS), THUMBNAIL, seed)
    return [{"title": kind_title(kind), "source": _png(images[drawn.index(kind)])} for kind in kinds if kind in drawn]


def _png(image: Any) -> str:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
