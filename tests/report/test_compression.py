import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from dermdistill.errors import RunFolderError
from dermdistill.report.compression import (
    AWARE_NOTE,
    COLUMNS,
    compression_markdown,
    compression_rows,
    compression_sentences,
    file_title,
    growth_sentences,
    kept_compression,
    layer_figure,
    layer_rows,
    read_compression,
    sensitive_rows,
    traced_files,
)

Json = dict[str, Any]


def cells(record: Json) -> dict[str, list[str]]:
    return {row.title: [str(cell) for cell in row.cells] for row in compression_rows(record)}


def points(svg: str, colour: str) -> list[tuple[float, float]]:
    """The corners of the line of that colour."""
    lines = [path for path in re.findall(r"<path[^>]*>", svg) if f"stroke: {colour}" in path and "fill: none" in path]
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", lines[0])]


def test_each_file_has_its_row_and_the_shipped_ones_come_first(record: Json) -> None:
    rows = cells(record)
    assert list(rows) == [
        "PyTorch FP32 student", "ONNX Runtime FP32", "ONNX Runtime INT8", "INT8 with quantization-aware training",
    ]  # fmt: skip
    assert all(len(row) == len(COLUMNS) for row in rows.values())
    assert rows["PyTorch FP32 student"] == ["-", ".900", ".600", "not computable", ".745", "-", "-", "-"]
    assert rows["ONNX Runtime INT8"] == [
        "3.21 MB", ".901 (+.0012)", ".610 (+.0100)", "not computable", ".745", "99.34%", ".057", "yes",
    ]  # fmt: skip
    assert rows["ONNX Runtime FP32"][5:] == ["100.00%", "4.5e-08", "yes"]
    aware = rows["INT8 with quantization-aware training"]
    assert (aware[0], aware[1], aware[-1]) == ("3.46 MB", ".891 (-.0088)", "no")


def test_a_row_says_how_a_shipped_file_was_made(record: Json) -> None:
    remarks = [row.remark for row in compression_rows(record)]
    assert remarks == ["", "model.onnx: exported", "model.int8.onnx: static, after training", "aware.onnx"]


def test_every_comparison_has_a_plain_name(record: Json) -> None:
    names = ("dynamic", "static", "aware", "static_executorch", "aware_executorch", "some_other")
    assert len({file_title(name) for name in names}) == len(names)
    assert file_title("dynamic") == "Dynamic quantization"
    assert file_title("some_other") == "Some other"


def test_the_choice_is_told_with_its_validation_figures(record: Json) -> None:
    said = compression_sentences(record)[0]
    assert "static quantization after training, chosen by Macro AUC on the validation part" in said
    assert "static quantization after training .9123, quantization-aware training .9012" in said
    record["choices"]["int8"] = "aware"
    assert "come from quantization-aware training, chosen by" in compression_sentences(record)[0]
    assert "test part, each file in its own runtime" in compression_sentences(record)[-1]


def test_a_single_way_is_not_called_a_choice(record: Json) -> None:
    del record["choices"]["int8_on_validation"]["aware"]
    record["choices"]["int8_on_validation"]["static"]["macro_auc"] = None
    said = compression_sentences(record)[0]
    assert "the only way that was tried" in said and "not computable" in said and "chosen" not in said


def test_float_layers_are_named_with_the_reason(record: Json) -> None:
    said = compression_sentences(record)[1]
    assert "the fewest with which it passes the gate on the validation part: 2 (stem, layer0)" in said
    assert "percentile on 1,512 training images" in said
    record["choices"] |= {"float_layers": [], "float_layers_tried": record["choices"]["float_layers_tried"][2:]}
    assert "none stays in float" in compression_sentences(record)[1]


def test_a_gate_that_no_number_of_float_layers_passes_is_said(record: Json) -> None:
    del record["choices"]["float_layers_tried"][2]
    record["choices"]["float_layers"] = ["stem"]
    said = compression_sentences(record)[1]
    assert "does not pass the gate on the validation part with up to 1 layers in float" in said
    assert "keeps 1 there (stem)" in said


def test_the_gate_is_told_with_all_faults(record: Json) -> None:
    said = compression_sentences(record)[2]
    assert "at most 0.005" in said and "at most 0.01," in said and "at least 98.5%" in said
    assert said.endswith("every one passes.")
    record["files"]["student_int8"]["faults"] = ["macro_auc fell by 0.0500", "has 5 bytes"]
    said = compression_sentences(record)[2]
    assert "every one passes" not in said
    assert "ONNX Runtime INT8: macro_auc fell by 0.0500; ONNX Runtime INT8: has 5 bytes." in said


def test_the_ten_most_sensitive_layers_come_worst_first(record: Json) -> None:
    rows = sensitive_rows(record)
    assert [row.title for row in rows] == ["stem", *(f"layer{place}" for place in range(9))]
    assert [str(cell) for cell in rows[0].cells] == ["12.3 dB", "yes"]
    assert [str(row.cells[1]) for row in rows[:3]] == ["yes", "yes", "no"]


def test_layers_stand_in_the_order_of_computation_a_column_a_file(record: Json) -> None:
    assert list(traced_files(record)) == ["student_int8", "aware"]
    rows = {row.title: [str(cell) for cell in row.cells] for row in layer_rows(record)}
    assert rows == {
        "1 stem": ["nothing lost", "9.0 dB"], "2 body": ["31.2 dB", "4.0 dB"], "3 head": ["28.0 dB", "7.0 dB"],
    }  # fmt: skip


def test_the_line_of_quantization_aware_training_is_explained(record: Json) -> None:
    said = growth_sentences(record)
    assert said[0] == "ONNX Runtime INT8: the error grows most at body (200.0 -> 31.2 dB)."
    assert said[-1] == AWARE_NOTE
    del record["files"]["aware"]
    assert AWARE_NOTE not in growth_sentences(record)


def test_figure_draws_both_files_and_leaves_out_what_lost_nothing(record: Json) -> None:
    svg = layer_figure(record)
    assert "ONNX Runtime INT8 (shipped)" in svg and "INT8 with quantization-aware training" in svg
    assert "currentColor" in svg and "var(--grid)" in svg
    assert len(points(svg, "#009e73")) == 2
    heights = [y for _, y in points(svg, "#cc79a7")]
    assert len(heights) == 3 and heights[1] > heights[2] > heights[0]  # SVG counts downwards
    assert svg == layer_figure(record)


def test_markdown_holds_table_and_sentences_literally(record: Json) -> None:
    record["files"]["student_int8"]["how"] = "static | <b>"
    text = compression_markdown(record)
    assert "| ONNX Runtime INT8 (model.int8.onnx: static \\| &lt;b&gt;) | 3.21 MB | .901 (+.0012) |" in text
    assert all(f"- {sentence}\n" in text for sentence in compression_sentences(record))


def test_what_a_repository_keeps_tells_the_same(record: Json) -> None:
    before = copy.deepcopy(record)
    kept = kept_compression(record)
    assert record == before
    assert compression_markdown(kept) == compression_markdown(record)
    assert kept["files"]["student_int8"]["layers"][1] == {"layer": "body", "decibels": 31.23}
    assert kept["choices"]["sensitivity"][-2] == {"layer": "stem", "decibels": 12.35}
    assert set(kept["choices"]["float_layers_tried"][0]) == {"float_layers", "n", "same_label", "differences"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "lacks reference"),
        ('{"reference": {}}', "lacks gate, calibration_images"),
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "compression.json"
    assert read_compression(path) is None
    path.write_text(content)
    with pytest.raises(RunFolderError, match=words) as caught:
        read_compression(path)
    assert str(path) in caught.value.problem


def test_a_whole_record_is_read_as_it_is(tmp_path: Path, record: Json) -> None:
    path = tmp_path / "compression.json"
    path.write_text(json.dumps(record))
    assert read_compression(path) == record
