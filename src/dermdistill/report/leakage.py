"""What leakage buys, shown: protocols side by side, and the same test images with and without their sisters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dermdistill.atomic import write_json, write_text
from dermdistill.report import markdown
from dermdistill.report.comparison import comparison_csv, comparison_latex, comparison_markdown, verdict_paragraph
from dermdistill.report.forest import PANELS, WIDTH, Line, draw_file, mark_legend, paint_lines
from dermdistill.report.formats import metric_title

# Each part of leakage.json and what it compares.
PARTS = {
    "protocols": "Protocols, each with a test part of its own",
    "injection": "Paired injection: the same test images, with and without other photos of their lesions in training",
    "injection_leakable": "Paired injection, on the leakable test images alone (those whose lesion has other photos)",
}
# A number that leakage raises was not helped by it.
NEUTRAL = {"helped": "higher", "hurt": "lower"}

Leakage = Mapping[str, Mapping[str, Any]]
Titles = Mapping[str, str]


def neutral_words(result: Mapping[str, Any]) -> dict[str, Any]:
    """A comparison whose verdicts say ``higher`` and ``lower`` instead of ``helped`` and ``hurt``."""

    def renamed(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: _word(item) if key == "verdict" else renamed(item) for key, item in value.items()}
        return value

    return {**renamed(result), "verdicts": [_word(word) for word in result["verdicts"]]}


def _word(verdict: str | None) -> str | None:
    return NEUTRAL.get(verdict, verdict) if verdict else verdict


def leakage_markdown(leakage: Leakage, titles: Titles) -> str:
    """The tables of all parts as Markdown, each part under its name and followed by what it says."""
    sections = []
    for part, title in PARTS.items():
        result = neutral_words(leakage[part])
        tables, words = comparison_markdown(result, titles), markdown.plain(verdict_paragraph(result, titles))
        sections.append(f"**{title}**\n\n{tables}\n{words}\n")
    return "\n".join(sections)


def leakage_latex(leakage: Leakage, titles: Titles) -> str:
    """The tables of all parts as LaTeX, each part under a comment with its name."""
    return "\n".join(
        f"% {title}\n{comparison_latex(neutral_words(leakage[part]), titles)}" for part, title in PARTS.items()
    )


def leakage_notes(leakage: Leakage) -> list[str]:
    """The notes of all parts, each once, those of one part with its name."""
    notes: dict[str, list[str]] = {}
    for part in PARTS:
        for note in leakage[part]["notes"]:
            notes.setdefault(note, []).append(part.replace("_", ", "))
    return [note if len(parts) == len(PARTS) else f"{' and '.join(parts)}: {note}" for note, parts in notes.items()]


def leakage_plot(leakage: Leakage, titles: Titles) -> str:
    """Figures of the protocols above, paired differences of the injection below, as an SVG document.

    Args:
        leakage: ``protocols`` of ``compare_groups``, ``injection`` and ``injection_leakable`` of ``compare_rows``.
        titles: {protocol or row: what to call it}.
    """
    protocols = leakage["protocols"]
    metrics = [metric for metric in (*PANELS, "accuracy") if metric in protocols["metrics"]]
    above = [Line(titles.get(name, name), row["metrics"]) for name, row in protocols["rows"].items()]
    below = [line for part in ("injection", "injection_leakable") for line in _injected(leakage[part], part, titles)]
    level = f"{100 * protocols['bootstrap']['level']:g}%"
    heights = [0.35 + len(above), 0.35 + len(below)]

    def paint(figure: Figure) -> None:
        panels = figure.subplots(2, len(metrics), sharey="row", squeeze=False, height_ratios=heights)
        paint_lines(panels[0], above, metrics, differences=False)
        paint_lines(panels[1], below, metrics, differences=True)
        figure.set_layout_engine("constrained", hspace=0.1)
        middle = len(metrics) // 2
        panels[0][middle].set_xlabel(f"each protocol's own test part, with its {level} interval")
        panels[1][middle].set_xlabel(f"what the sister photos change, with its {level} interval")
        mark_legend(figure, tuple(NEUTRAL.values()))

    shown = ", ".join(metric_title(metric) for metric in metrics)
    description = f"Protocols, and paired differences by injected sister photos, with {level} intervals: {shown}"
    return draw_file("leakage", description, (WIDTH, 2.3 + 0.44 * (len(above) + len(below))), paint)


def _injected(result: Mapping[str, Any], part: str, titles: Titles) -> list[Line]:
    kind = "leakable test images" if part == "injection_leakable" else "test images"
    images = f"{result['n']['images']:,} {kind}"
    return [
        Line(f"{titles.get(name, name)}: {images}", block)
        for name, row in neutral_words(result)["rows"].items()
        for block in row["differences"].values()
    ]


def write_leakage(leakage: Leakage, folder: Path, *, name: str = "leakage", titles: Titles) -> Path:
    """Write ``NAME.json`` (with the titles), one CSV a part, ``NAME.md``, ``NAME.tex`` and ``NAME.svg``.

    Raises:
        OutputError: the folder cannot be written; no file is left half-written.
    """
    for part in PARTS:
        write_text(folder / f"{name}_{part}.csv", comparison_csv(neutral_words(leakage[part])))
    notes = "".join(f"- {markdown.plain(note)}\n" for note in leakage_notes(leakage))
    write_text(folder / f"{name}.md", f"{leakage_markdown(leakage, titles)}\n{notes}")
    write_text(folder / f"{name}.tex", leakage_latex(leakage, titles))
    write_text(folder / f"{name}.svg", leakage_plot(leakage, titles))
    write_json(folder / f"{name}.json", {**leakage, "titles": dict(titles)})
    return folder
