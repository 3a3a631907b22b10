"""Tables of a comparison (CSV, Markdown, LaTeX), what it says in words, and the files of both.

A table is built once, as texts, and written in two languages; CSV keeps every digit instead.
"""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermdistill.atomic import write_json, write_text
from dermdistill.evaluate.comparison import NO_EVIDENCE
from dermdistill.report import markdown
from dermdistill.report.forest import forest_plot
from dermdistill.report.formats import NOT_COMPUTABLE, metric_title, number, signed

CSV_COLUMNS = (
    "row", "seeds", "metric", "value", "low", "high", "spread",
    "control", "difference", "difference_low", "difference_high", "verdict",
)  # fmt: skip
ARROWS = {"helped": r" $\uparrow$", "higher": r" $\uparrow$", "hurt": r" $\downarrow$", "lower": r" $\downarrow$"}
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"$<$", ">": r"$>$", "|": r"$|$",
    "α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "×": r"$\times$", "±": r"$\pm$", "−": r"$-$", "→": r"$\to$",
}  # fmt: skip

Result = Mapping[str, Any]
Titles = Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """A table as texts: what it shows, its head, its rows of title and cells."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def estimate_text(cell: Mapping[str, Any]) -> str:
    """``.923 ± .004 (.905-.941)``: mean, standard deviation over seeds where there are several, interval."""
    if cell["value"] is None:
        return NOT_COMPUTABLE
    spread = "" if cell["spread"] is None else f" ± {number(cell['spread'])}"
    bounds = "" if cell["low"] is None else f" ({number(cell['low'])}-{number(cell['high'])})"
    return f"{number(cell['value'])}{spread}{bounds}"


def difference_text(cell: Mapping[str, Any]) -> str:
    """``+.012 (+.003 to +.021)``, with more digits where three would round a bound beside zero to zero."""
    if cell["value"] is None:
        return NOT_COMPUTABLE
    if cell["low"] is None:
        return signed(cell["value"])
    near = min(abs(cell["low"]), abs(cell["high"]))
    hidden = [digits for digits in (3, 4, 5) if cell["verdict"] != NO_EVIDENCE and round(near, digits) == 0]
    digits = 3 + len(hidden)
    return f"{signed(cell['value'], digits)} ({signed(cell['low'], digits)} to {signed(cell['high'], digits)})"


def differences_by_control(result: Result) -> dict[str, dict[str, Any]]:
    """{control: {row: {metric: cell}}}, the common control first, rows in their order."""
    found: dict[str, dict[str, Any]] = {result["control"]: {}}
    for name, row in result["rows"].items():
        for other, block in row["differences"].items():
            found.setdefault(other, {})[name] = block
    return {other: blocks for other, blocks in found.items() if blocks}


def _difference_seeds(row: Mapping[str, Any], control: str) -> str:
    return str(len(row.get("paired_seeds", {}).get(control, row["seeds"])))


def figure_table(result: Result, titles: Titles, cell: Callable[[Mapping[str, Any]], str]) -> Table:
    """One row a row, one column a metric; each with the number of its seeds."""
    metrics = result["metrics"]
    rows = [
        (titles.get(name, name), str(len(row["seeds"])), *(cell(row["metrics"][metric]) for metric in metrics))
        for name, row in result["rows"].items()
    ]
    level = f"{100 * result['bootstrap']['level']:g}%"
    caption = f"Mean over seeds ± standard deviation over seeds ({level} interval)"
    return Table(caption, ("", "Seeds", *map(metric_title, metrics)), tuple(rows))


def difference_tables(result: Result, titles: Titles, cell: Callable[[Mapping[str, Any]], str]) -> list[Table]:
    """One table a control: its differences from the rows compared with it."""
    metrics, tables = result["metrics"], []
    kind = "Paired difference" if result["paired"] else "Difference"
    for control, blocks in differences_by_control(result).items():
        rows = [
            (
                titles.get(name, name),
                _difference_seeds(result["rows"][name], control),
                *(cell(block[metric]) for metric in metrics),
            )
            for name, block in blocks.items()
        ]
        level = f"{100 * result['bootstrap']['level']:g}%"
        caption = f"{kind} from {titles.get(control, control)} ({level} interval), and what it says"
        tables.append(Table(caption, ("", "Seeds", *map(metric_title, metrics)), tuple(rows)))
    return tables


def comparison_csv(result: Result) -> str:
    """One line a row, metric and control, all digits; empty where there is no figure or no control."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for name, row in result["rows"].items():
        seeds = " ".join(map(str, row["seeds"]))
        for control, block in row["differences"].items() or [("", None)]:
            for metric in result["metrics"]:
                own, other = row["metrics"][metric], block[metric] if block else {}
                figures = [own[key] for key in ("value", "low", "high", "spread")]
                against = [other.get(key) for key in ("value", "low", "high", "verdict")]
                writer.writerow([name, seeds, metric, *figures, control, *against])
    return text.getvalue()


def comparison_markdown(result: Result, titles: Titles) -> str:
    """The tables as Markdown, each under its caption; a verdict other than ``no evidence`` is bold."""

    def difference(cell: Mapping[str, Any]) -> str:
        said = cell["verdict"] or ""
        return f"{difference_text(cell)} {said if said in ('', NO_EVIDENCE) else f'**{said}**'}".rstrip()

    tables = [figure_table(result, titles, estimate_text), *difference_tables(result, titles, difference)]
    return "\n".join(
        f"{markdown.plain(table.caption)}:\n\n"
        + markdown.table(table.head, [[markdown.plain(row[0]), *row[1:]] for row in table.rows])
        for table in tables
    )


def latex_text(text: str) -> str:
    """Text that LaTeX takes literally."""
    return "".join(LATEX.get(letter, letter) for letter in " ".join(text.split()))


def comparison_latex(result: Result, titles: Titles) -> str:
    r"""The tables as ``tabular`` environments for the package booktabs, to be read with ``\input``.

    An arrow beside a difference stands for an interval wholly above or below zero.
    """

    def maths(text: str) -> str:
        signs = re.sub(r"(?<![\w.])([+-]?\d*\.\d+)", lambda found: f"${found[1]}$", text)
        return re.sub(r"\$-\$", "$--$", signs).replace(" ± ", r" $\pm$ ")

    def estimate(cell: Mapping[str, Any]) -> str:
        return maths(re.sub(r"(?<=\d)-(?=[\d.])", " to ", estimate_text(cell)))

    def difference(cell: Mapping[str, Any]) -> str:
        return maths(difference_text(cell)) + ARROWS.get(cell["verdict"] or "", "")

    tables = [figure_table(result, titles, estimate), *difference_tables(result, titles, difference)]
    return "\n".join(_tabular(table) for table in tables)


def _tabular(table: Table) -> str:
    lines = [f"% {' '.join(table.caption.split())}", rf"\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}"]
    lines += [r"\toprule", " & ".join(map(latex_text, table.head)) + r" \\", r"\midrule"]
    lines += [" & ".join([latex_text(row[0]), *row[1:]]) + r" \\" for row in table.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def verdict_paragraph(result: Result, titles: Titles) -> str:
    """What the numbers say, metric by metric: which rows helped, which hurt, for which there is no evidence."""
    return " ".join(
        sentence
        for control, blocks in differences_by_control(result).items()
        for sentence in (
            f"Compared with {titles.get(control, control)}{_test_part(result)}:",
            *(_metric_sentence(result, titles, control, blocks, metric) for metric in result["metrics"]),
        )
    )


def _test_part(result: Result) -> str:
    if "n" not in result:
        return ""
    return f" on {result['n']['images']:,} test images of {result['n']['lesions']:,} lesions"


def _metric_sentence(result: Result, titles: Titles, control: str, blocks: Mapping[str, Any], metric: str) -> str:
    by_verdict: dict[str, list[str]] = {}
    for name, block in blocks.items():
        one = " with one seed" if _difference_seeds(result["rows"][name], control) == "1" else ""
        said = block[metric]["verdict"] or NOT_COMPUTABLE
        figures = "" if said in (NO_EVIDENCE, NOT_COMPUTABLE) else f" {difference_text(block[metric])}"
        by_verdict.setdefault(said, []).append(f"{titles.get(name, name)}{one}{figures}")
    parts = [f"{word}: {_list(by_verdict.get(word, []))}" for word in result["verdicts"]]
    parts += [f"{word}: {_list(by_verdict[word])}" for word in (NO_EVIDENCE, NOT_COMPUTABLE) if word in by_verdict]
    return f"{metric_title(metric)}, {'; '.join(parts)}."


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def write_comparison(result: Result, folder: Path, *, name: str, titles: Titles) -> Path:
    """Write ``NAME.json`` (with the titles), ``.csv``, ``.md``, ``.tex`` and ``.svg`` (the forest plot).

    Raises:
        OutputError: the folder cannot be written; no file is left half-written.
    """
    notes = "".join(f"- {markdown.plain(note)}\n" for note in result["notes"])
    paragraph = markdown.plain(verdict_paragraph(result, titles))
    write_text(folder / f"{name}.csv", comparison_csv(result))
    write_text(folder / f"{name}.md", f"{comparison_markdown(result, titles)}\n{paragraph}\n\n{notes}")
    write_text(folder / f"{name}.tex", comparison_latex(result, titles))
    write_text(folder / f"{name}.svg", forest_plot(result, titles))
    write_json(folder / f"{name}.json", {**result, "titles": dict(titles)})
    return folder
