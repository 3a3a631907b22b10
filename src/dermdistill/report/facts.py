"""Where a committed result comes from, as lines of Markdown: command, commit, machine, data."""

from collections.abc import Mapping, Sequence
from typing import Any

from dermdistill.report import markdown


def command_block(provenance: Mapping[str, Any]) -> str:
    """The command as a code block; nothing where it is not known."""
    command = str(provenance.get("command") or "").replace("`", "")
    return f"```\n{command}\n```\n\n" if command else ""


def origin_facts(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Commit, machine and data."""
    code, machine, data = (provenance.get(key) or {} for key in ("code", "machine", "data"))
    commit = f"{code.get('commit', 'unknown')}{' (with uncommitted changes)' if code.get('dirty') else ''}"
    return [
        ("Commit", commit),
        ("Machine", ", ".join(f"{key} {value}" for key, value in machine.items()) or "unknown"),
        ("Data", f"{data.get('source', 'unknown')}, catalog sha256 {data.get('catalog_sha256', 'unknown')}"),
    ]


def fact_lines(facts: Sequence[tuple[str, Any]]) -> str:
    """A list item a fact."""
    return "".join(f"- {key}: {markdown.plain(fact)}\n" for key, fact in facts)
