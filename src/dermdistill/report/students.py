"""Students of several sizes, shown: what each weighs, how long it takes, how well it does, and which one to take."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dermdistill.atomic import write_json, write_text
from dermdistill.report import markdown
from dermdistill.report.comparison import comparison_markdown, difference_text, estimate_text
from dermdistill.report.figures import MODEL_COLOURS, OTHER_COLOURS, TERM_MARKERS
from dermdistill.report.forest import WIDTH, draw_file
from dermdistill.report.formats import NOT_COMPUTABLE, latency, megabytes, metric_title, number

SHOWN = ("macro_auc", "balanced_accuracy", "melanoma_auc")
COLOURS = (*MODEL_COLOURS.values(), *OTHER_COLOURS)
FP32, INT8 = "fp32", "int8"
RESULT_KEYS = (
    "task", "bootstrap", "sizes", "students", "validation", FP32, INT8, "int8_minus_fp32", "choice", "notes",
)  # fmt: skip

Students = Mapping[str, Any]


def student_notes(result: Students) -> list[str]:
    """What a reader must know: which student to take and why, who had weights to start from, how it was timed."""
    leaky = (
        f"The protocol {result['protocol']} is leaky: a lesion may lie in several parts, which inflates the figures."
    )
    own = [*_choice_notes(result), _weights_note(result), _timing_note(result)]
    return [*own, *[leaky] * result["leaky"], *result[INT8]["notes"]]


def _choice_notes(result: Students) -> list[str]:
    choice, metric = result["choice"], metric_title(result["choice"]["metric"])
    values = {name: row[choice["metric"]]["value"] for name, row in result["validation"].items()}
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return [f"{metric} on the validation part is not computable: nothing is recommended."]
    figures = ", ".join(
        f"{name} {number(value, 4)} at {megabytes(result['students'][name]['files'][INT8]['bytes'])}"
        for name, value in known.items()
    )
    beaten = [name for name in known if name not in choice["pareto"]]
    rest = f" Beaten by one at most as large and at least as good: {', '.join(beaten)}." if beaten else ""
    return [
        f"Chosen on the validation part by {metric} of the INT8 file, never on the test part ({figures}). On the "
        f"Pareto front of size and {metric}: {', '.join(choice['pareto'])}.{rest}",
        f"Recommended: {choice['recommended']}, the smallest student whose validation {metric} is within "
        f"{number(choice['tolerance'])} of the best ({choice['best']}).",
    ]


def _weights_note(result: Students) -> str:
    groups = {
        known: [name for name, student in result["students"].items() if student["pretrained"] is known]
        for known in (True, False)
    }
    note = (
        f"Started from pretrained weights: {', '.join(groups[True]) or 'none'}. "
        f"Started at random: {', '.join(groups[False]) or 'none'}."
    )
    mixed = groups[True] and groups[False]
    return note + " Between these two groups the curve compares starts as much as networks." * bool(mixed)


def _timing_note(result: Students) -> str:
    timed = next(iter(result["students"].values()))["files"][INT8]["latency_ms"]
    repeats = next(iter(timed.values()))["repeats"]
    own, *others = result["sizes"]
    more = f" At {others[0]} px the same weights were exported again, to be timed, not evaluated." if others else ""
    return (
        f"Latency: one image, one thread, the network alone; median and 5th to 95th percentile of {repeats} runs, all "
        f"files in turns; the provenance names the machine. Students learnt and were evaluated at {own} px.{more}"
    )


def students_markdown(result: Students) -> str:
    """The tables as Markdown, each under its caption, without the notes."""
    level = f"{100 * result['bootstrap']['level']:g}%"
    parts = [
        ("Files", _file_table(result)),
        (f"Figures of the FP32 file on the test part ({level} interval)", _fp32_table(result)),
        (f"INT8 minus FP32, paired, on the test part ({level} interval)", _quantized_table(result)),
    ]
    files, fp32, quantized = (f"{caption}:\n\n{table}" for caption, table in parts)
    comparison = f"INT8 files, compared on the test part.\n\n{comparison_markdown(result[INT8], {})}"
    return f"{_title_list(result)}\n{files}\n{comparison}\n{fp32}\n{quantized}"


def _title_list(result: Students) -> str:
    recommended = result["choice"]["recommended"]
    return "".join(
        f"- **{markdown.plain(name)}**: {markdown.plain(student['title'])}{' (recommended)' * (name == recommended)}\n"
        for name, student in result["students"].items()
    )


def _file_table(result: Students) -> str:
    choice = result["choice"]
    times = [(kind, str(size)) for size in result["sizes"] for kind in (INT8, FP32)]
    metric = metric_title(choice["metric"])
    head = ["", "Parameters", "INT8 file", "FP32 file", f"{metric}, INT8, validation", "Pareto front"]
    head += [f"{kind.upper()} at {size} px" for kind, size in times]
    rows = []
    for name, student in result["students"].items():
        value = result["validation"][name][choice["metric"]]["value"]
        files = student["files"]
        rows.append(
            [
                markdown.plain(name),
                f"{student['parameters']:,}",
                *(megabytes(files[kind]["bytes"]) for kind in (INT8, FP32)),
                NOT_COMPUTABLE if value is None else number(value),
                "yes" if name in choice["pareto"] else "no",
                *(str(latency({"latency_ms": files[kind]["latency_ms"][size]})) for kind, size in times),
            ]
        )
    return markdown.table(head, rows)


def _fp32_table(result: Students) -> str:
    rows = [
        [markdown.plain(name), *(estimate_text(row["metrics"][metric]) for metric in SHOWN)]
        for name, row in result[FP32]["rows"].items()
    ]
    return markdown.table(["", *map(metric_title, SHOWN)], rows)


def _quantized_table(result: Students) -> str:
    rows = [
        [
            markdown.plain(name),
            *(f"{difference_text(cells[metric])} {cells[metric]['verdict'] or ''}" for metric in SHOWN),
        ]
        for name, cells in result["int8_minus_fp32"].items()
    ]
    return markdown.table(["", *map(metric_title, SHOWN)], rows)


def students_plot(result: Students) -> str:
    """Macro AUC of the INT8 files on the test part against their size, and against their latency, as an SVG document.

    A filled mark had pretrained weights; the dashed line joins the Pareto front that validation chose.
    """
    own = str(result["sizes"][0])
    level = f"{100 * result['bootstrap']['level']:g}%"
    files = {name: student["files"][INT8] for name, student in result["students"].items()}

    def paint(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        _paint(left, result, {name: file["bytes"] / 1e6 for name, file in files.items()}, front=True)
        _paint(right, result, {name: file["latency_ms"][own]["median"] for name, file in files.items()}, front=False)
        left.set(title="Against size", xlabel="INT8 file, MB", ylabel=f"Macro AUC, test ({level} interval)")
        right.set(title="Against latency", xlabel=f"INT8, one image of {own} px, ms")
        if not all(student["pretrained"] for student in result["students"].values()):
            figure.supxlabel("hollow marks: started at random, without pretrained weights", fontsize=10)
        figure.legend(*left.get_legend_handles_labels(), loc="outside upper left", ncols=3, borderaxespad=0)

    rows = -(-(len(files) + 1) // 3)
    description = f"Macro AUC of {len(files)} INT8 students with {level} intervals, against size and latency"
    return draw_file("students", description, (WIDTH, 3.3 + 0.22 * rows), paint)


def _paint(axes: Axes, result: Students, across: Mapping[str, float], *, front: bool) -> None:
    cells = {name: row["metrics"]["macro_auc"] for name, row in result[INT8]["rows"].items()}
    known = [name for name in result["choice"]["pareto"] if cells[name]["value"] is not None]
    if front and known:
        line = ([across[name] for name in known], [cells[name]["value"] for name in known])
        axes.plot(*line, color="#6a6a78", linewidth=1, linestyle=(0, (4, 3)), label="front on validation", zorder=1)
    for place, (name, student) in enumerate(result["students"].items()):
        _paint_student(axes, place, across[name], cells[name], _label(result, name), filled=student["pretrained"])
    axes.set_xlim(left=0)
    axes.margins(x=0.1)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 2)))


def _label(result: Students, name: str) -> str:
    return f"{name} (recommended)" if name == result["choice"]["recommended"] else name


def _paint_student(axes: Axes, place: int, across: float, cell: Mapping[str, Any], label: str, *, filled: bool) -> None:
    colour, marker = COLOURS[place % len(COLOURS)], TERM_MARKERS[place % len(TERM_MARKERS)]
    if cell["low"] is not None:
        axes.plot((across, across), (cell["low"], cell["high"]), color=colour, linewidth=2, solid_capstyle="butt")
    value: Sequence[float] = [] if cell["value"] is None else [cell["value"]]
    face = colour if filled else "white"
    look: dict[str, Any] = {"linestyle": "none", "markersize": 6.5, "markeredgewidth": 1.3, "label": label}
    axes.plot([across] * len(value), value, marker=marker, color=colour, markerfacecolor=face, **look)


def write_students(result: Students, folder: Path, *, name: str = "students") -> Path:
    """Write ``NAME.md``, ``NAME.svg`` and ``NAME.json``.

    Raises:
        OutputError: the folder cannot be written; no file is left half-written.
    """
    notes = "".join(f"- {markdown.plain(note)}\n" for note in result["notes"])
    write_text(folder / f"{name}.md", f"{students_markdown(result)}\n{notes}")
    write_text(folder / f"{name}.svg", students_plot(result))
    write_json(folder / f"{name}.json", result)
    return folder
