"""Sections of the results page for studies: ``ablation``, ``leakage`` and ``students.json`` of a results folder."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dermdistill.errors import RunFolderError
from dermdistill.report import comparison, leakage, markdown, students
from dermdistill.report.facts import command_block, fact_lines, origin_facts

RESULT_KEYS = ("task", "paired", "verdicts", "bootstrap", "metrics", "control", "rows", "notes")

Json = Mapping[str, Any]


def ablation_section(name: str, content: Json, provenance: Json, picture: str | None) -> str:
    """One ablation: where it comes from, its tables, what they say, its notes.

    Args:
        name: of the results folder.
        content: its ``ablation.json``, of ``write_comparison``.
        provenance: its ``provenance.json``.
        picture: the forest plot's address as the page needs it, None where there is none.

    Raises:
        RunFolderError: a key is missing.
    """
    _require(content, RESULT_KEYS, f"{name}/ablation.json")
    titles = content.get("titles") or {}
    return _section(
        name,
        [("Task", content["task"]), *_test_part(content), ("Bootstrap", _bootstrap(content))],
        provenance,
        picture and f"![Differences from the control with their intervals]({picture})\n",
        f"{comparison.comparison_markdown(content, titles)}\n"
        f"{markdown.plain(comparison.verdict_paragraph(content, titles))}\n",
        content["notes"],
    )


def leakage_section(name: str, content: Json, provenance: Json, picture: str | None) -> str:
    """One measurement of leakage, as ``ablation_section``; its ``leakage.json`` is of ``write_leakage``.

    Raises:
        RunFolderError: a key is missing.
    """
    _require(content, tuple(leakage.PARTS), f"{name}/leakage.json")
    for part in leakage.PARTS:
        _require(content[part], RESULT_KEYS, f"{name}/leakage.json, {part}")
    titles, protocols = content.get("titles") or {}, content["protocols"]
    return _section(
        name,
        [("Task", protocols["task"]), ("Bootstrap", _bootstrap(protocols))],
        provenance,
        picture and f"![Protocols side by side, and paired injection]({picture})\n",
        leakage.leakage_markdown(content, titles),
        leakage.leakage_notes(content),
    )


def students_section(name: str, content: Json, provenance: Json, picture: str | None) -> str:
    """One choice of a student, as ``ablation_section``; its ``students.json`` is of ``write_students``.

    Raises:
        RunFolderError: a key is missing.
    """
    _require(content, students.RESULT_KEYS, f"{name}/students.json")
    return _section(
        name,
        [("Task", content["task"]), *_test_part(content), ("Bootstrap", _bootstrap(content))],
        provenance,
        picture and f"![Macro AUC of the INT8 files against size and latency]({picture})\n",
        students.students_markdown(content),
        content["notes"],
    )


# {file: what draws its section}; a new kind of comparison is a function and a line here.
SECTIONS: dict[str, Callable[[str, Json, Json, str | None], str]] = {
    "ablation": ablation_section,
    "leakage": leakage_section,
    "students": students_section,
}


def interval_levels(content: Json) -> set[float]:
    """The interval levels in a comparison's file."""
    parts = [content, *(content.get(part) or {} for part in leakage.PARTS)]
    return {part["bootstrap"]["level"] for part in parts if "bootstrap" in part}


def _require(content: Json, keys: Sequence[str], where: str) -> None:
    missing = [key for key in keys if key not in content]
    if missing:
        raise RunFolderError(
            f"{where}: lacks {', '.join(missing)}",
            rule="it is a file that dermdistill ablate, leakage or students wrote",
            next_step="copy it from the folder that the command wrote, or run the command again",
        )


def _section(
    name: str,
    facts: Sequence[tuple[str, Any]],
    provenance: Json,
    picture: str | None,
    tables: str,
    notes: Sequence[str],
) -> str:
    seeds = ", ".join(map(str, provenance.get("seeds") or [])) or "unknown"
    origin = [*facts, ("Seeds", seeds), *origin_facts(provenance), ("Finished", provenance.get("finished", "unknown"))]
    parts = [f"## {markdown.plain(name)}\n", command_block(provenance) + fact_lines(origin), picture, tables]
    parts.append("".join(f"- {markdown.plain(note)}\n" for note in notes))
    return "\n".join(part for part in parts if part)


def _test_part(result: Json) -> list[tuple[str, str]]:
    n = result.get("n")
    return [("Test part", f"{n['images']:,} images of {n['lesions']:,} lesions")] if n else []


def _bootstrap(result: Json) -> str:
    drawn = result["bootstrap"]
    return f"{drawn['samples']:,} replicates, drawn by {drawn['unit']}"
