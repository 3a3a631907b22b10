"""What the pages say: templates filled with a study's words, never with what would tell a rater how a map was made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dermdistill.labels import DIAGNOSES, MELANOMA, REST
from dermdistill.review.forms import LONGEST_COMMENT, MOST_POINTS, MOST_POLYGONS
from dermdistill.review.study import StudyItem

TEMPLATES: Final = Path(__file__).parent / "templates"
STATIC: Final = Path(__file__).parent / "static"
STATIC_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
NAMES: Final = {diagnosis.code: diagnosis.name for diagnosis in DIAGNOSES}
MOST_KEYS: Final = 9
SHOWN_PROBABILITIES: Final = 3


@dataclass(frozen=True)
class Choice:
    """One answer to a question: what is sent, what is read, and the digit that chooses it (empty after 9)."""

    value: str
    name: str
    key: str


@dataclass(frozen=True)
class Scale:
    """A five-point question."""

    name: str
    question: str
    low: str
    high: str


SCALES: Final = (
    Scale("spatial", "Does the map mark the part that matters for the diagnosis?", "not at all", "exactly"),
    Scale("trust", "How far do you trust this answer of the model?", "not at all", "fully"),
    Scale("usefulness", "How useful is the map to you in this case?", "useless", "very useful"),
)
MESSAGES: Final = {
    400: ("This cannot be done", "The request was not one that a page of this site makes."),
    401: ("Open your personal link", "This page needs the personal link that you were given. Open it again."),
    403: ("This is not open to you", "Open your personal link again, or ask whoever gave it to you for a new one."),
    404: ("Nothing here", "There is no such page."),
    405: ("This cannot be done", "The request was not one that a page of this site makes."),
    409: ("Already answered", "What was answered stands, so that all raters answer alike."),
    422: ("Something is missing", "Go back and complete the form."),
    429: ("One moment, please", "Too many requests came from here. Wait a minute and load the page again."),
    500: ("Something went wrong here", "Nothing that you sent before is lost. Load the page again."),
}


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


def render(page: str, **context: Any) -> str:
    """A page as HTML text; a name that the context lacks is an error, and every text of it is escaped."""
    return _environment().get_template(f"{page}.html.j2").render(**context)


def prepare() -> None:
    """Compile every template now, so that nobody waits for it later."""
    for name in _environment().list_templates():
        _environment().get_template(name)


def static_files() -> dict[str, tuple[bytes, str]]:
    """The own style, script and icon: {name: (bytes, type)}. Nothing else is ever served as a file."""
    return {
        path.name: (path.read_bytes(), STATIC_TYPES[path.suffix])
        for path in sorted(STATIC.iterdir())
        if path.suffix in STATIC_TYPES
    }


def class_name(code: str, classes: Sequence[str]) -> str:
    """A diagnosis in words."""
    if code == REST:
        return "Not melanoma" if set(classes) == {REST, MELANOMA} else "Another diagnosis"
    return NAMES.get(code, code)


def choices(classes: Sequence[str]) -> list[Choice]:
    """The diagnoses to choose from."""
    return [
        Choice(code, class_name(code, classes), str(place) if place <= MOST_KEYS else "")
        for place, code in enumerate(classes, start=1)
    ]


def model_answer(item: StudyItem, classes: Sequence[str]) -> dict[str, Any]:
    """What the model says: its diagnosis, and its most probable classes in whole percent."""
    likeliest = sorted(classes, key=lambda code: -item.probs[code])[:SHOWN_PROBABILITIES]
    return {
        "name": class_name(item.predicted, classes),
        "probabilities": [
            {"name": class_name(code, classes), "percent": round(100 * item.probs[code])} for code in likeliest
        ],
    }


def step_context(classes: Sequence[str], typed: Mapping[str, str], faults: Mapping[str, str]) -> dict[str, Any]:
    """What both steps of an item share."""
    return {
        "choices": choices(classes),
        "scales": SCALES,
        "typed": typed,
        "faults": faults,
        "longest_comment": LONGEST_COMMENT,
        "most_points": MOST_POINTS,
        "most_polygons": MOST_POLYGONS,
    }
