"""Runs side by side: tables for the terminal, Markdown and the page, what they say in words, and the files.

Tables are built once, as texts, and shown in three places.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dermdistill.atomic import atomic_folder, write_json, write_text
from dermdistill.errors import OutputError
from dermdistill.evaluate.comparison import NO_EVIDENCE
from dermdistill.report import figures, forest, markdown
from dermdistill.report.comparison import (
    Table,
    difference_tables,
    difference_text,
    differences_by_control,
    estimate_text,
    figure_table,
)
from dermdistill.report.comparison_robustness import robustness_tables
from dermdistill.report.formats import NOT_COMPUTABLE, Cell, megabytes, metric_title, number, signed
from dermdistill.report.rendering import drawn, render_page
from dermdistill.report.tables import Row

NAME = "comparison"
FILES = (f"{NAME}.json", f"{NAME}.md", f"{NAME}.html")
SMALLEST_P = 0.001
# A key that a recipe does not have; null is a value.
ABSENT = "(no such key)"
HASH_LETTERS = 12
MANY_LINES = 40
MOST_COLUMNS = 4
SAID = {NO_EVIDENCE: "no evidence of a difference", None: "not computable"}

Result = Mapping[str, Any]


def comparison_tables(result: Result) -> list[Table]:
    """Runs, recipe keys that differ, figures, differences from each control, DeLong's test, spoilt pictures.

    Args:
        result: of ``pipeline.compare.compare_runs``.
    """
    return [
        run_table(result),
        *([recipe_table(result)] if result["recipes"] else []),
        figure_table(result, {}, estimate_text),
        *difference_tables(result, {}, _difference),
        *delong_table(result),
        *robustness_tables(result),
    ]


def run_table(result: Result) -> Table:
    """One row a run: recipe, seed, protocol, code, data and size of the shipped file."""
    rows = []
    for run in result["runs"]:
        size = (run.get("bytes") or {}).get("student_int8")
        commit = str(run.get("commit") or "unknown")[:HASH_LETTERS] + (" (changed)" if run.get("dirty") else "")
        hashes = (str(run.get(key) or "unknown")[:HASH_LETTERS] for key in ("split_sha256", "catalog_sha256"))
        protocol = f"{run['protocol']}{' (leaky)' if run['leaky'] else ''}"
        code = f"{run.get('version') or 'unknown'}, {commit}"
        file = megabytes(size) if size else "no file"
        rows.append((run["name"], str(run.get("recipe") or "unknown"), str(run["seed"]), protocol, code, *hashes, file))
    head = ("", "Recipe", "Seed", "Protocol", "Code", "Split sha256", "Catalog sha256", "INT8 file")
    return Table("Runs", head, tuple(rows))


def recipe_table(result: Result) -> Table:
    """One row a key whose values differ, one column a run."""
    names = [run["name"] for run in result["runs"]]
    rows = [
        (item["key"], *(str(item["values"][name]) if name in item["values"] else ABSENT for name in names))
        for item in result["recipes"]
    ]
    return Table("What the recipes differ in", ("", *names), tuple(rows))


def delong_table(result: Result) -> list[Table]:
    """At most one table: the difference of melanoma AUC by DeLong's test over lesions, a row a pair of trainings."""
    rows = []
    for control, blocks in differences_by_control(result).items():
        for name in blocks:
            for entry in result["rows"][name]["delong"][control]:
                own, other = entry["seeds"]
                seeds = str(own) if own == other else f"{own} and {other}"
                rows.append((f"{name} minus {control}", seeds, _bounds(entry), _p(entry["p"])))
    level = f"{100 * result['bootstrap']['level']:g}%"
    caption = f"Melanoma AUC by DeLong's test over lesions, beside the bootstrap ({level} interval)"
    return [Table(caption, ("", "Seeds", "Difference", "p"), tuple(rows))] if rows else []


def _difference(cell: Mapping[str, Any]) -> str:
    return f"{difference_text(cell)} {cell['verdict'] or ''}".rstrip()


def _bounds(cell: Mapping[str, Any]) -> str:
    if cell["value"] is None:
        return NOT_COMPUTABLE
    bounds = "" if cell["low"] is None else f" ({signed(cell['low'])} to {signed(cell['high'])})"
    return f"{signed(cell['value'])}{bounds}"


def _p(value: float | None) -> str:
    if value is None:
        return NOT_COMPUTABLE
    return f"< {number(SMALLEST_P)}" if value < SMALLEST_P else number(value)


def summary_sentences(result: Result) -> list[str]:
    """How many differences have an interval without zero, then what each pair's differences say."""
    n, level = result["n"], f"{100 * result['bootstrap']['level']:g}%"
    pairs = [
        (name, control, block)
        for control, blocks in differences_by_control(result).items()
        for name, block in blocks.items()
    ]
    said = [cell["verdict"] for _, _, block in pairs for cell in block.values() if cell["verdict"] is not None]
    clear = sum(word != NO_EVIDENCE for word in said)
    first = (
        f"On {n['images']:,} test images of {n['lesions']:,} lesions, {clear or 'none'} of {len(said)} paired "
        f"differences {'has' if clear < 2 else 'have'} a {level} interval without zero."
    )
    return [first, *(_pair_sentence(result, *pair) for pair in pairs)]


def _pair_sentence(result: Result, name: str, control: str, block: Mapping[str, Any]) -> str:
    parts = []
    for word in (*result["verdicts"], NO_EVIDENCE, None):
        cells = {metric: cell for metric, cell in block.items() if cell["verdict"] == word}
        shown = word in result["verdicts"]
        texts = [
            metric_title(metric) + (f" {difference_text(cell)}" if shown else "") for metric, cell in cells.items()
        ]
        if texts:
            parts.append(f"{SAID.get(word, word)} in {', '.join(texts)}")
    return f"{name}, against {control}: {'; '.join(parts)}."


def comparison_of_runs_markdown(result: Result) -> str:
    """The tables, each under its caption, then what they say and the notes."""

    def literal(table: Table) -> str:
        rows = [[markdown.plain(cell) for cell in row] for row in table.rows]
        head = [markdown.plain(cell) for cell in table.head]
        return f"{markdown.plain(table.caption)}:\n\n{markdown.table(head, rows)}"

    names = ", ".join(run["name"] for run in result["runs"])
    sentences = "".join(f"- {markdown.plain(sentence)}\n" for sentence in summary_sentences(result))
    notes = "".join(f"- {markdown.plain(note)}\n" for note in result["notes"])
    tables = "\n".join(map(literal, comparison_tables(result)))
    return f"# {markdown.plain(names)}\n\n{sentences}\n{tables}\nNotes:\n\n{notes}"


def comparison_of_runs_html(result: Result) -> str:
    """The page, self-contained: same style as a run's report."""
    return render_page(
        "comparison_of_runs.html.j2",
        {
            "name": " / ".join(run["name"] for run in result["runs"]),
            "kind": "comparison",
            "folder": "runs",
            "nav": [("Comparison", list(_places(result).items()))],
            "code": result["code"],
            "machine": result["machine"],
            "task": result["task"],
            "n": result["n"],
            "bootstrap": result["bootstrap"],
            "level": f"{100 * result['bootstrap']['level']:g}",
            "leaky": [run["name"] for run in result["runs"] if run["leaky"]],
            "sentences": summary_sentences(result),
            "places": _places(result),
            "runs": _page_table(run_table(result)),
            "recipes": _page_table(recipe_table(result)) if result["recipes"] else None,
            "figures": _page_table(_turned(figure_table(result, {}, estimate_text))),
            "plot": drawn(difference_plot(result)),
            "plot_caption": _plot_caption(result),
            "differences": [_page_table(_turned(table)) for table in difference_tables(result, {}, _difference)],
            "delong": [_page_table(table) for table in delong_table(result)],
            "notes": result["notes"],
            "hashes": [(run["name"], run.get("commit"), run.get("split_sha256")) for run in result["runs"]],
        },
    )


def _places(result: Result) -> dict[str, str]:
    recipes = {"recipes": "Recipes"} if result["recipes"] else {}
    return {"summary": "Summary", "runs": "Runs", **recipes, "figures": "Figures"} | {
        "differences": "Differences",
        "notes": "Notes",
        "provenance": "Provenance",
    }


def _turned(table: Table) -> Table:
    """Rows as columns where these are few, as a page is narrower than all metrics beside each other."""
    if len(table.rows) > MOST_COLUMNS:
        return table
    head, *rows = zip(table.head, *table.rows, strict=True)
    return Table(table.caption, tuple(head), tuple(tuple(row) for row in rows))


def _page_table(table: Table) -> dict[str, Any]:
    """A table as the macro of the pages takes it: a figure and its interval apart."""

    def cell(text: str) -> Cell:
        value, bracket, rest = text.partition(" (")
        if bracket and text[0] in "+-.0123456789":
            return Cell(value, f"({rest}")
        return Cell(text, word=text in (NOT_COMPUTABLE, ABSENT))

    rows = [Row(row[0], tuple(map(cell, row[1:]))) for row in table.rows]
    return {"caption": table.caption, "head": list(table.head[1:]), "rows": rows}


def _panels(result: Result) -> list[str]:
    return [metric for metric in forest.PANELS if metric in result["metrics"]]


def difference_plot(result: Result) -> str:
    """Paired differences and their intervals as SVG for a page: a line a pair, a panel a headline metric."""
    lines = forest.difference_lines(result, {})[:MANY_LINES]
    metrics = _panels(result)

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        for axes, metric in zip(panels, metrics, strict=True):
            for height, line in enumerate(lines):
                cell = line.cells[metric]
                if cell["value"] is None or cell["low"] is None:
                    continue
                colour, marker, filled = forest.MARKS.get(cell["verdict"] or "", forest.LEVEL_MARK)
                axes.plot((cell["low"], cell["high"]), (height, height), color=colour, solid_capstyle="butt")
                face = colour if filled else "none"
                axes.plot(cell["value"], height, marker, color=colour, markerfacecolor=face, markersize=6)
            axes.axvline(0, color=figures.INK, linewidth=0.8, zorder=0)
            axes.set(title=metric_title(metric), ylim=(len(lines) - 0.4, -0.6))
            axes.set_yticks(range(len(lines)), labels=[line.title for line in lines])
            axes.grid(axis="y", visible=False)

    shown = ", ".join(map(metric_title, metrics))
    description = f"Paired differences of {len(lines)} pairs with their intervals: {shown}"
    return figures.draw("run-differences", description, (figures.WIDE, 0.9 + 0.32 * len(lines)), paint)


def _plot_caption(result: Result) -> str:
    count = len(forest.difference_lines(result, {}))
    cut = f" The first {MANY_LINES} of {count} pairs; the tables have all." if count > MANY_LINES else ""
    shown = ", ".join(map(metric_title, _panels(result)))
    return f"Paired differences and their intervals: {shown}. An interval with zero is no evidence of one.{cut}"


def require_own_folder(folder: Path) -> None:
    """Refuse a folder that holds something else than an earlier comparison, as its place is taken as a whole.

    Raises:
        OutputError: it does, or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file", next_step="choose another folder with --out")
    others = sorted(item.name for item in folder.iterdir() if item.name not in FILES) if folder.is_dir() else []
    if others:
        raise OutputError(
            f"{folder}: holds other files ({', '.join(others[:3])}{' ...' if len(others) > 3 else ''})",
            rule="a comparison has a folder of its own, new, empty, or with an earlier comparison",
            next_step="choose another folder with --out",
        )


def write_run_comparison(result: Result, folder: Path) -> Path:
    """Write ``comparison.json``, ``.md`` and ``.html``: all of them or none.

    Returns:
        The path of the page.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
    """
    require_own_folder(folder)
    written: Sequence[tuple[str, Callable[[Result], str]]] = (
        (FILES[1], comparison_of_runs_markdown),
        (FILES[2], comparison_of_runs_html),
    )
    with atomic_folder(folder) as temporary:
        write_json(temporary / FILES[0], result)
        for name, text in written:
            write_text(temporary / name, text(result))
    return folder / FILES[2]
