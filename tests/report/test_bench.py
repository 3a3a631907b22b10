"""The table, the page and the plot of a bench say what its result says."""

from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from dermdistill.report import bench
from dermdistill.report.bench import bench_plot
from dermdistill.report.bench_table import bench_facts, bench_head, bench_markdown, bench_rows

Json = dict[str, Any]


def figure(value: float) -> Json:
    return {"median": value, "low": 0.9 * value, "high": 1.5 * value}


def measured(p50: float, p95: float, rates: dict[str, float]) -> Json:
    times = {"p50_ms": figure(p50), "p95_ms": figure(p95), "cold_start_seconds": figure(0.5)}
    more = {"load_seconds": figure(0.1), "peak_bytes": figure(80e6)}
    return {**times, **more, "images_per_second": {name: figure(value) for name, value in rates.items()}}


def row(name: str, title: str, size: int, threads: Json, **more: Any) -> Json:
    facts = {"file": f"{name}.onnx", "runtime": "onnxruntime", "version": "1.2", "precision": "fp32", "size": 128}
    return {"name": name, "title": title, "bytes": size, "not_measured": None, "threads": threads, **facts, **more}


@pytest.fixture
def result() -> Json:
    missing = {"not_measured": "executorch is not installed", "runtime": "executorch", "version": None}
    rates = {"1": 250.0, "8": 300.0}
    return {
        "bundle": {"content_sha256": "ab" * 32, "files": {}},
        "plan": {"repeats": 5, "rounds": 3, "warm_up": 10, "threads": [1, 4], "batch_sizes": [1, 8]},
        "memory": "VmHWM",
        "rows": [
            row("student", "ONNX | <FP32>", 14_000_000, {"1": measured(8, 9, rates), "4": measured(3, 30, rates)}),
            row("student_int8", "INT8", 4_000_000, {"1": measured(2, 2.5, rates), "4": measured(1, 2, {"1": 9.0})},
                precision="int8"),
            row("student_int8_executorch", "ExecuTorch", 3_900_000, {}, **missing),
        ],
        "notes": ["The network alone."],
        "code": {"version": "9.9", "commit": "c" * 40, "dirty": False},
        "machine": {"cpu": "A [CPU]", "cores": 4, "system": "Linux", "python": "3.11"},
        "packages": {},
    }  # fmt: skip


def test_a_line_a_model_and_number_of_threads(result: Json) -> None:
    lines = bench_rows(result)
    assert [(line[0], line[3]) for line in lines[:4]] == [("ONNX | <FP32>", n) for n in "14"] + [
        ("INT8", n) for n in "14"
    ]
    first = [
        "ONNX | <FP32>",
        "128",
        "14.0 MB",
        "1",
        "8.00 (7.20-12.00)",
        "9.00",
        "250.0",
        "300.0",
        "0.50",
        "0.10",
        "80",
    ]
    assert lines[0] == first and all(len(line) == len(bench_head(result)) for line in lines)
    assert lines[3][6:8] == ["9.0", "-"], "a batch size that was not measured"
    assert lines[4][0] == "ExecuTorch: not measured: executorch is not installed" and set(lines[4][3:]) == {"-"}


def test_memory_that_cannot_be_read_is_no_figure(result: Json) -> None:
    result["rows"][0]["threads"]["1"]["peak_bytes"] = None
    assert bench_rows(result)[0][-1] == "-"


def test_the_facts_name_machine_runtimes_and_plan(result: Json) -> None:
    text = " ".join(bench_facts(result))
    assert "A [CPU], 4 cores" in text and "onnxruntime 1.2." in text and "executorch" not in text
    assert "3 rounds of 5 runs after 10 that" in text and "VmHWM" in text and "The network alone." in text


def test_the_page_takes_names_literally(result: Json) -> None:
    page = bench_markdown(result, "plot.svg")
    assert "![Latency against size](plot.svg)" in page and r"ONNX \| &lt;FP32&gt;" in page and r"A \[CPU\]" in page
    assert "commit cccccccccccc, on bundle abababababab" in page
    result["code"]["dirty"] = True
    assert "commit cccccccccccc (changed)" in bench_markdown(result, "plot.svg")


def test_the_plot_is_a_whole_file_and_the_same_every_time(result: Json) -> None:
    svg = bench_plot(result)
    texts = [item.text for item in ElementTree.fromstring(svg).iter() if item.tag.endswith("text")]
    assert "INT8" in texts and "ONNX | <FP32>" in texts and "ExecuTorch" not in texts
    assert svg == bench_plot(result)


def test_points_lie_at_size_and_p50_and_lines_end_at_p95(result: Json, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Figure()
    monkeypatch.setattr(bench, "draw_file", lambda name, description, size, paint: paint(drawn) or description)
    assert "INT8" in bench_plot(result)
    axes = drawn.axes[0]
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    points = {(*line.get_xydata()[0].tolist(), line.get_markerfacecolor() == "white") for line in marks}
    assert points == {(14.0, 8.0, True), (4.0, 2.0, False)}, "with the fewest threads; INT8 is filled"
    whiskers = {tuple(map(tuple, line.get_xydata().tolist())) for line in axes.lines if line not in marks}
    assert whiskers == {((14.0, 8.0), (14.0, 9.0)), ((4.0, 2.0), (4.0, 2.5))}
    for (low, high), values in ((axes.get_xlim(), (4, 14)), (axes.get_ylim(), (2, 9))):
        assert low < min(values) and max(values) < high
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log") and "1 thread:" in axes.get_ylabel()
