"""Forms as they come in: only known fields, each once, each in its bounds."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

from fastapi import HTTPException, Request

from dermdistill.review.steps import SECOND_FIELDS, Second
from dermdistill.review.tables import SCALES

FIELDS: Final = ("csrf", "step", "before", *SECOND_FIELDS, "labels", "simulated", "label")
STEP_FIELDS: Final = {"first": ("before",), "second": SECOND_FIELDS}
LONGEST_COMMENT: Final = 4000
MOST_POLYGONS: Final = 20
MOST_POINTS: Final = 1500
LONGEST_REGION: Final = 64 * 1024
DECIMALS: Final = 4
CONTROLS: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
Form = dict[str, str]
Faults = dict[str, str]


async def read_form(request: Request) -> Form:
    """The fields of a form.

    Raises:
        HTTPException: 400 for anything but known fields, each once, in UTF-8.
    """
    try:
        body = (await request.body()).decode("utf-8")
        pairs = parse_qsl(
            body, keep_blank_values=True, strict_parsing=bool(body), errors="strict", max_num_fields=len(FIELDS)
        )
    except ValueError as error:
        raise HTTPException(400, "This is not a form of this site.") from error
    form = dict(pairs)
    if len(form) < len(pairs) or not set(form) <= set(FIELDS):
        raise HTTPException(400, "This is not a form of this site.")
    return form


def first_faults(form: Mapping[str, str], classes: Sequence[str]) -> Faults:
    """What is missing in the first step, by field."""
    return {} if form.get("before") in classes else {"before": "Choose a diagnosis."}


def second_of(form: Mapping[str, str], classes: Sequence[str]) -> tuple[Second | None, Faults]:
    """The second step's answer, or what is missing in it, by field."""
    faults = {} if form.get("after") in classes else {"after": "Choose a diagnosis."}
    faults |= {scale: "Choose 1 to 5." for scale in SCALES if form.get(scale) not in ("1", "2", "3", "4", "5")}
    comment = clean(form.get("comment", ""))
    if len(comment) > LONGEST_COMMENT:
        faults["comment"] = f"At most {LONGEST_COMMENT:,} letters; these are {len(comment):,}."
    try:
        region = region_of(form.get("region", ""))
    except ValueError as error:
        faults["region"] = str(error)
    if faults:
        return None, faults
    ratings = {scale: int(form[scale]) for scale in SCALES}
    return Second(after=form["after"], **ratings, comment=comment, region=region), {}


def draft_fields(form: Mapping[str, str], step: str) -> Form:
    """What of a draft is worth keeping: the fields of the step, in their bounds."""
    bounds = {"comment": LONGEST_COMMENT, "region": LONGEST_REGION}
    kept = {name: clean(form[name]) for name in STEP_FIELDS[step] if form.get(name)}
    return {name: value for name, value in kept.items() if len(value) <= bounds.get(name, 64)}


def clean(text: str) -> str:
    """Text with plain line ends and without control characters, which PostgreSQL would refuse."""
    return CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def region_of(text: str) -> str:
    """Drawn polygons as JSON in one form; empty where nothing was drawn.

    Args:
        text: ``[[[x, y], ...], ...]``, shares of width and height in [0, 1].

    Raises:
        ValueError: anything else; the message is for the rater.
    """
    if not text.strip():
        return ""
    try:
        polygons = json.loads(text) if len(text) <= LONGEST_REGION else None
    except (ValueError, RecursionError):
        polygons = None
    if not isinstance(polygons, list) or not all(_is_polygon(polygon) for polygon in polygons):
        raise ValueError("The drawing could not be read. Clear it and draw it again.")
    if len(polygons) > MOST_POLYGONS or sum(map(len, polygons)) > MOST_POINTS:
        raise ValueError("The drawing has too many parts. Clear it and draw it more simply.")
    rounded = [[[round(float(value), DECIMALS) for value in point] for point in polygon] for polygon in polygons]
    return json.dumps(rounded, separators=(",", ":")) if rounded else ""


def _is_polygon(polygon: Any) -> bool:
    return isinstance(polygon, list) and len(polygon) >= 3 and all(_is_point(point) for point in polygon)


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(_is_share(value) for value in point)


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and 0 <= value <= 1
