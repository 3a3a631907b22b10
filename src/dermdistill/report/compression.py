"""What compression did: every file of a student beside the FP32 PyTorch student, from a run's ``compression.json``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dermdistill.bundle.variants import VARIANTS
from dermdistill.config import GateConfig
from dermdistill.errors import RunFolderError
from dermdistill.evaluate.parity import gate_faults
from dermdistill.report import markdown
from dermdistill.report.figures import TERM_MARKERS, WIDE, draw, model_colour
from dermdistill.report.formats import NOT_COMPUTABLE, Cell, megabytes, metric_title, model_title, number, signed
from dermdistill.report.tables import Row, markdown_rows

FILE = "compression.json"
KEYS = ("reference", "gate", "calibration_images", "method", "choices", "files")
COMPARISONS = {
    "dynamic": "Dynamic quantization",
    "static": "Static INT8 after training",
    "aware": "INT8 with quantization-aware training",
    "static_executorch": "ExecuTorch INT8 after training",
    "aware_executorch": "ExecuTorch INT8 with quantization-aware training",
}
WAYS = {"static": "static quantization after training", "aware": "quantization-aware training"}
REFERENCE = "PyTorch FP32 student"
COLUMNS = (
    "Size",
    "Macro AUC (difference)",
    "Balanced accuracy (difference)",
    "Melanoma AUC",
    "Accuracy",
    "Same label",
    "Largest probability difference",
    "Shipped",
)
MOST_SENSITIVE = 10
# Decibels. Rounding of float32 alone stays above: such a layer lost nothing to INT8.
EXACT = 120.0
TRIED_KEYS = ("float_layers", "n", "same_label", "differences")
AWARE_NOTE = (
    "Quantization-aware training moves the weights too: its line falls by that as well, and does not measure rounding "
    "alone."
)

Record = Mapping[str, Any]


def read_compression(path: Path) -> dict[str, Any] | None:
    """A ``compression.json`` of a run or of a results folder; None where there is none.

    Raises:
        RunFolderError: it cannot be read, or lacks something.
    """
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unusable(path, f"cannot be read as JSON ({error})") from error
    missing = [key for key in KEYS if key not in record] if isinstance(record, dict) else list(KEYS)
    if missing:
        raise _unusable(path, f"lacks {', '.join(missing)}")
    return dict(record)


def _unusable(path: Path, what: str) -> RunFolderError:
    return RunFolderError(
        f"{path}: {what}",
        rule="it is a file that the stage bundle of a run wrote",
        next_step="dermdistill run ... --out RUN --resume, and dermdistill results add RUN NAME for committed results",
    )


def kept_compression(record: Record) -> dict[str, Any]:
    """What a repository keeps of a record: decibels to two digits; of each try with float layers what decided it."""
    choices = dict(record["choices"])
    choices["float_layers_tried"] = [{key: one[key] for key in TRIED_KEYS} for one in choices["float_layers_tried"]]
    choices["sensitivity"] = _rounded(choices["sensitivity"])
    files = {name: {**entry, "layers": _rounded(entry["layers"])} for name, entry in record["files"].items()}
    return {**record, "choices": choices, "files": files}


def _rounded(layers: Sequence[Record]) -> list[dict[str, Any]]:
    return [{**item, "decibels": round(item["decibels"], 2)} for item in layers]


def file_title(name: str) -> str:
    """What a file is called in tables: as the bundle's variants are, or, for comparisons, by a name of its own."""
    if name in VARIANTS:
        return VARIANTS[name].title
    return COMPARISONS.get(name) or model_title(name)


def compression_rows(record: Record) -> list[Row]:
    """The PyTorch student, then one row a file, those that are shipped first; cells as in ``COLUMNS``."""
    nothing = Cell("-")
    reference = Row(REFERENCE, (nothing, *_metric_cells(record["reference"]["test"]), *[nothing] * 3))
    files = sorted(record["files"].items(), key=lambda item: not item[1]["shipped"])
    return [reference, *(_row(name, entry) for name, entry in files)]


def _row(name: str, entry: Record) -> Row:
    cells = (
        Cell(megabytes(entry["bytes"])),
        *_metric_cells(entry["metrics"], entry["differences"]),
        Cell(f"{entry['same_label']:.2%}"),
        Cell(f"{entry['probabilities']['largest']:.2g}".removeprefix("0")),
        Cell("yes" if entry["shipped"] else "no"),
    )
    return Row(file_title(name), cells, f"{entry['file']}: {entry['how']}" if entry["shipped"] else entry["file"])


def _metric_cells(metrics: Record, differences: Record | None = None) -> list[Cell]:
    compared = [_metric(metrics[name], (differences or {}).get(name)) for name in ("macro_auc", "balanced_accuracy")]
    return [*compared, *(_metric(metrics[name]) for name in ("melanoma_auc", "accuracy"))]


def _metric(value: float | None, difference: float | None = None) -> Cell:
    if value is None:
        return Cell(NOT_COMPUTABLE, word=True)
    return Cell(number(value), "" if difference is None else f"({signed(difference, 4)})")


def compression_sentences(record: Record) -> list[str]:
    """What was shipped and why, what stays in float, the gate, and what the figures are."""
    n = max(entry["n"] for entry in record["files"].values())
    return [
        _choice(record["choices"]),
        f"{_float_layers(record)} Its ranges: {record['method']} on {record['calibration_images']:,} training images.",
        _gate(record),
        f"Figures are point estimates on the {n:,} images of the test part, each file in its own runtime; differences "
        "are from the FP32 PyTorch student. Intervals stand in the evaluation, for the models that it compares.",
    ]


def _choice(choices: Record) -> str:
    metric, figures = choices["int8_chosen_by"].removeprefix("val "), choices["int8_on_validation"]
    shipped = f"The INT8 files that are shipped come from {WAYS[choices['int8']]}"
    found = ", ".join(f"{WAYS[way]} {_metric_text(values[metric])}" for way, values in figures.items())
    if len(figures) == 1:
        return f"{shipped}, the only way that was tried ({metric_title(metric)} on the validation part: {found})."
    return f"{shipped}, chosen by {metric_title(metric)} on the validation part, not on the test part ({found})."


def _metric_text(value: float | None) -> str:
    return NOT_COMPUTABLE if value is None else number(value, 4)


def _float_layers(record: Record) -> str:
    choices, file = record["choices"], "The static INT8 file of ONNX Runtime"
    kept, tried = choices["float_layers"], choices["float_layers_tried"]
    named = f" ({', '.join(kept)})" if kept else ""
    if gate_faults(tried[-1], GateConfig.model_construct(**record["gate"])):
        return (
            f"{file} does not pass the gate on the validation part with up to {len(tried) - 1} layers in float; it "
            f"keeps {len(kept)} there{named}, with which most images keep their label."
        )
    if not kept:
        return f"{file} passes the gate on the validation part with every layer in INT8: none stays in float."
    return (
        f"{file} keeps the most sensitive layers in float, the fewest with which it passes the gate on the validation "
        f"part: {len(kept)}{named}."
    )


def _gate(record: Record) -> str:
    gate = record["gate"]
    rule = (
        f"Of a shipped file on the test part the gate asks that macro AUC falls by at most {gate['macro_auc']:g}, "
        f"balanced accuracy by at most {gate['balanced_accuracy']:g}, and at least {100 * gate['same_label']:g}% of "
        "images keep their label"
    )
    faults = [f"{file_title(name)}: {fault}" for name, entry in record["files"].items() for fault in entry["faults"]]
    return f"{rule}. Not passed: {'; '.join(faults)}." if faults else f"{rule}; every one passes."


def compression_markdown(record: Record) -> str:
    """The table and what it says, for the page of results."""
    rows = markdown_rows(compression_rows(record))
    said = "".join(f"- {markdown.plain(sentence)}\n" for sentence in compression_sentences(record))
    return f"Compression, every file of the student on the test part:\n\n{markdown.table(['', *COLUMNS], rows)}\n{said}"


def sensitive_rows(record: Record) -> list[Row]:
    """The ten layers that cost most where each alone is INT8: the logits' signal to noise, and whether it is float."""
    kept = record["choices"]["float_layers"]
    worst = sorted(record["choices"]["sensitivity"], key=lambda item: float(item["decibels"]))[:MOST_SENSITIVE]
    return [
        Row(item["layer"], (_decibels(item["decibels"]), Cell("yes" if item["layer"] in kept else "no")))
        for item in worst
    ]


def _decibels(value: float) -> Cell:
    return Cell("nothing lost", word=True) if value >= EXACT else Cell(f"{value:.1f} dB")


def traced_files(record: Record) -> dict[str, dict[str, float]]:
    """Files whose errors were followed through the layers, the shipped first: {file: {layer: decibels}}, in order."""
    files = sorted(record["files"].items(), key=lambda item: not item[1]["shipped"])
    return {
        name: {item["layer"]: item["decibels"] for item in entry["layers"]} for name, entry in files if entry["layers"]
    }


def layer_rows(record: Record) -> list[Row]:
    """One row a layer in the order of computation, numbered as in the figure; one cell a file of ``traced_files``."""
    traced = traced_files(record)
    layers = list(dict.fromkeys(layer for found in traced.values() for layer in found))
    return [
        Row(
            f"{place} {layer}",
            tuple(_decibels(found[layer]) if layer in found else Cell("-") for found in traced.values()),
        )
        for place, layer in enumerate(layers, start=1)
    ]


def growth_sentences(record: Record) -> list[str]:
    """Where the errors of each followed file grow most, and what the line of quantization-aware training shows."""
    entries = {name: record["files"][name] for name in traced_files(record)}
    grown = [f"{file_title(name)}: the error grows most at {item['error_grows_at']}." for name, item in entries.items()]
    return grown + [AWARE_NOTE] * any("quantization-aware" in item["how"] for item in entries.values())


def layer_figure(record: Record) -> str:
    """Signal to noise behind every layer, in the order of computation: a line a file, a gap where nothing was lost.

    Args:
        record: with at least one file of ``traced_files``.
    """
    traced = traced_files(record)
    count = max(len(found) for found in traced.values())

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for place, (name, found) in enumerate(traced.items()):
            values = [value if value < EXACT else float("nan") for value in found.values()]
            look: dict[str, Any] = {"marker": TERM_MARKERS[place], "markersize": 3.6}
            look["linestyle"] = "-" if record["files"][name]["shipped"] else (0, (5, 1.6))
            label = f"{file_title(name)}{' (shipped)' * record['files'][name]['shipped']}"
            axes.plot(range(1, len(values) + 1), values, color=model_colour(name, list(traced)), label=label, **look)
        axes.set(title="Signal to noise behind every layer", ylabel="dB, higher is better", xlim=(0.5, count + 0.5))
        axes.set(xlabel="layer, in the order of computation")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        figure.legend(loc="outside lower left", ncols=2)

    named = ", ".join(map(file_title, traced))
    return draw("compression", f"Signal to noise behind each of {count} layers: {named}", (WIDE, 2.9), paint)
