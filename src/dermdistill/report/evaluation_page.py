"""One evaluation of images from elsewhere to one self-contained report.html: figures and evidence, nothing of training.

The folder holds ``evaluation.json``, ``provenance.json`` and, for the cases, pictures in ``cases/``. Beside what
``evaluate_test`` gives, ``evaluation.json`` has:

- ``source``: {what: text} about the model, such as ``model`` and ``bundle`` or ``run``;
- ``overlap``: ``checked`` (false, or true, or against what) and, as numbers of images, ``images``, ``ids``,
  ``near_copies``, ``lesions``, ``dropped``;
- ``scored``: what the labels could tell, lines of text or {what: text}.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dermdistill.atomic import write_text
from dermdistill.errors import RunFolderError
from dermdistill.report import figures
from dermdistill.report.downloads import folder_pictures, json_download
from dermdistill.report.parts import navigation, shared
from dermdistill.report.rendering import Context, drawn, render_page

FILES = ("evaluation.json", "provenance.json")
OVERLAP = {
    "images": "Images compared",
    "ids": "Images with the id of one that it learnt from",
    "near_copies": "Near copies of one that it learnt from",
    "lesions": "Images of a lesion that it learnt from",
    "dropped": "Left out for that reason",
}
Json = Mapping[str, Any]


def write_evaluation_report(folder: Path) -> Path:
    """Write ``report.html`` into the folder of an evaluation; the same files give the same bytes.

    Raises:
        RunFolderError: a file is missing or unreadable; it says which.
        OutputError: the page cannot be written.
    """
    page = folder / "report.html"
    write_text(page, render_page("evaluation.html.j2", _context(folder)))
    return page


def _context(folder: Path) -> Context:
    evaluation, provenance = (_read(folder / name) for name in FILES)
    pictures = folder_pictures(folder / "cases")
    context = shared(evaluation, provenance, own=False, pictures=pictures)
    data = provenance.get("data") or {}
    source = evaluation.get("source") or {}
    context |= {
        "name": str(data.get("source") or source.get("data") or folder.resolve().name),
        "kind": "evaluation",
        "folder": "folder",
        "source": str(data.get("source") or "images from elsewhere"),
        "leaky": bool(evaluation.get("leaky")),
        "synthetic": "synthetic" in str(data.get("source", "")).lower(),
        "broken_promise": False,
        "warnings": warnings(evaluation),
        "no_control": False,
        "recipe_text": "",
        "wrong_items": None,
        "source_facts": _facts({**source, "content_sha256": data.get("content_sha256")}),
        "overlap_facts": _overlap_facts(evaluation.get("overlap") or {}),
        "scored": _lines(evaluation.get("scored")),
        "class_counts": drawn(figures.class_counts({"evaluated": evaluation["n"]["per_class"]}, evaluation["classes"])),
        "download": json_download(folder / "evaluation.json", "evaluation.json"),
    }
    context["nav"] = navigation(
        (
            ("Summary", ("summary", "purpose", "tested")),
            ("How good", ("results", "classes", "curves")),
            ("Evidence", (*(item["name"] for item in context["evidence"]), "failures")),
            ("How it was made", ("notes", "provenance")),
        )
    )
    return context


def _read(path: Path) -> Json:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unusable(path, f"cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise _unusable(path, f"holds a {type(content).__name__}, not an object")
    return content


def _unusable(path: Path, what: str) -> RunFolderError:
    return RunFolderError(
        f"{path}: {what}",
        rule=f"the folder of an evaluation holds {' and '.join(FILES)}",
        next_step="copy the whole folder, or evaluate again into a new one",
    )


def warnings(evaluation: Json) -> list[str]:
    """What makes every figure of the page too good."""
    overlap = evaluation.get("overlap") or {}
    if not overlap.get("checked"):
        return ["Nobody checked whether the model learnt from these images. If it did, every figure is too good."]
    kept = int(overlap.get("ids") or 0) - int(overlap.get("dropped") or 0)
    if kept > 0:
        return [f"{kept:,} of these images may be ones that the model learnt from: every figure is too good."]
    return []


def _overlap_facts(overlap: Json) -> list[tuple[str, str]]:
    checked = overlap.get("checked")
    if not checked:
        return []
    against = [] if checked is True else [("Compared with", _text(checked))]
    return against + [(title, _text(overlap[key])) for key, title in OVERLAP.items() if overlap.get(key) is not None]


def _facts(content: Json) -> list[tuple[str, str]]:
    return [(key.replace("_", " ").capitalize(), _text(value)) for key, value in content.items() if value is not None]


def _lines(content: Any) -> list[str]:
    if isinstance(content, Mapping):
        return [f"{title}: {text}" for title, text in _facts(content)]
    return [content] if isinstance(content, str) else [str(line) for line in content or []]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
