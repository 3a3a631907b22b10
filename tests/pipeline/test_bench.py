"""What is measured, how often and in which order, and what becomes of files that cannot be measured."""

import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dermdistill.bundle.manifest import MANIFEST_FILE, write_manifest
from dermdistill.bundle.variants import EXECUTORCH_INT8_FILE, FP32_FILE, INT8_FILE, WEB_FILE
from dermdistill.errors import BundleError, ConfigError, RunFolderError
from dermdistill.labels import CODES
from dermdistill.pipeline import bench, bench_case, bench_rounds
from dermdistill.pipeline.bench import bench_bundle, write_bench
from dermdistill.pipeline.bench_case import FEWEST, UNCOUNTED, WARM_UP, Order, measure
from dermdistill.pipeline.bench_rounds import BenchPlan, Case, CaseError, measure_rounds, summarise
from dermdistill.preprocess import PreprocessSpec

SIZE, TEACHER_SIZE = 24, 40
ONCE = BenchPlan(repeats=3, rounds=1, batch_sizes=(2,), threads=(1,))
FIGURES = ("p50_ms", "p95_ms", "cold_start_seconds", "load_seconds", "peak_bytes")
REFUSE = """
import sys

TRAINING = ("torch", "timm", "pandas", "sklearn", "matplotlib", "onnx", "pyarrow", "executorch")

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in TRAINING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
"""
Json = dict[str, Any]


def write_model(path: Path, size: int = SIZE, shape: list[Any] | None = None) -> Path:
    """Mean colour times weights."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, shape or ["batch", 3, size, size])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(CODES)])
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["colour"], keepdims=0),
        helper.make_node("MatMul", ["colour", "weights"], ["logits"]),
    ]
    weights = np.random.default_rng(0).normal(size=(3, len(CODES))).astype(np.float32)
    constants = [numpy_helper.from_array(np.array([2, 3]), "axes"), numpy_helper.from_array(weights, "weights")]
    graph = helper.make_graph(nodes, "mean colour", [images], [logits], constants)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    return path


def write_bundle(folder: Path, *, broken: tuple[str, ...] = ()) -> Path:
    write_model(folder / FP32_FILE)
    for name in broken:
        (folder / name).write_bytes(b"not a model")
    write_manifest(folder, task="diagnosis", spec=PreprocessSpec(SIZE), decisions={}, provenance={})
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "run" / "bundle")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Json]:
    """A run folder with a teacher of more pixels, and what two rounds found."""
    run = tmp_path_factory.mktemp("measured")
    write_model(run / "bundle" / WEB_FILE)
    folder = write_bundle(run / "bundle")
    write_model(run / "teacher" / "model.onnx", TEACHER_SIZE)
    plan = BenchPlan(repeats=3, rounds=2, batch_sizes=(2, 4), threads=(1,))
    return folder, bench_bundle(folder, plan=plan)


def rows_of(result: Json) -> dict[str, Json]:
    return {row["name"]: row for row in result["rows"]}


def test_every_file_and_the_teacher_beside_the_bundle_is_a_row(measured: tuple[Path, Json]) -> None:
    folder, result = measured
    rows = rows_of(result)
    files = {
        "student": folder / FP32_FILE,
        "student_web": folder / WEB_FILE,
        "teacher": folder / "../teacher/model.onnx",
    }
    assert {name: row["bytes"] for name, row in rows.items()} == {n: p.stat().st_size for n, p in files.items()}
    assert [row["size"] for row in rows.values()] == [SIZE, SIZE, TEACHER_SIZE]
    assert rows["teacher"]["file"] == "teacher/model.onnx"
    assert all(row["not_measured"] is None and list(row["threads"]) == ["1"] for row in rows.values())


def test_every_figure_is_there_and_between_its_extremes(measured: tuple[Path, Json]) -> None:
    for row in measured[1]["rows"]:
        found = row["threads"]["1"]
        assert set(found) == {*FIGURES, "images_per_second"} and set(found["images_per_second"]) == {"1", "2", "4"}
        for figure in (*(found[name] for name in FIGURES), *found["images_per_second"].values()):
            assert 0 < figure["low"] <= figure["median"] <= figure["high"]
        assert found["load_seconds"]["high"] < found["cold_start_seconds"]["low"], "the start holds the loading"
        assert found["peak_bytes"]["low"] > 10e6, "an interpreter with numpy alone takes more"


def test_the_result_says_where_it_comes_from(measured: tuple[Path, Json]) -> None:
    folder, result = measured
    text = json.dumps(result, allow_nan=False)
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    assert result["bundle"]["content_sha256"] == manifest["content_sha256"]
    assert result["plan"] == {"repeats": 3, "rounds": 2, "warm_up": WARM_UP, "threads": [1], "batch_sizes": [1, 2, 4]}
    assert {"code", "machine", "packages"} <= set(result) and result["memory"] == bench_case.peak_memory()[0]
    assert str(folder.parent) not in text, "no path of this machine"


def test_files_are_written_together_and_hold_the_figures(measured: tuple[Path, Json], tmp_path: Path) -> None:
    write_bench(measured[1], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["bench.json", "bench.md", "bench.svg"]
    assert json.loads((tmp_path / "out" / "bench.json").read_text()) == measured[1]
    page = (tmp_path / "out" / "bench.md").read_text()
    assert "(bench.svg)" in page and f"{measured[1]['rows'][0]['threads']['1']['p50_ms']['median']:.2f}" in page


class Clock:
    """A clock that a run moves on: 1 ms an image, and 10 ms more for the very first."""

    def __init__(self) -> None:
        self.now = 0.0
        self.batches: list[int] = []

    def run(self, inputs: Any) -> None:
        assert inputs.dtype == np.float32 and inputs.shape[1:] == (3, SIZE, SIZE)
        self.now += (10e-3 if not self.batches else 0) + 1e-3 * len(inputs)
        self.batches.append(len(inputs))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()

    def load() -> tuple[Callable[[Any], None], int]:
        made.now += 0.25
        return made.run, SIZE

    monkeypatch.setattr(bench_case, "perf_counter", lambda: made.now)
    monkeypatch.setitem(bench_case.LOADERS, "onnxruntime", lambda order: load)
    return made


def test_a_case_runs_as_often_as_ordered_and_reports_its_times(clock: Clock) -> None:
    seen: list[int] = []
    found = measure(Order("onnxruntime", "x", SIZE, 1, 40, (2, 16)), lambda: seen.append(len(clock.batches)))
    assert seen == [1], "told after the first logits"
    ones, twos, sixteens = 1 + WARM_UP + 40, UNCOUNTED + 20, UNCOUNTED + FEWEST
    assert clock.batches == [1] * ones + [2] * twos + [16] * sixteens
    assert found["load_seconds"] == pytest.approx(0.261), "loading and the first run"
    assert (found["p50_ms"], found["p95_ms"]) == (pytest.approx(1), pytest.approx(1)), "the slow first run is not in"
    assert found["images_per_second"] == {name: pytest.approx(1000) for name in ("1", "2", "16")}


def test_percentiles_are_those_of_the_timed_runs(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0] * (1 + WARM_UP) + [float(n) for n in range(1, 102)])

    def run(inputs: Any) -> None:
        clock.now += next(times) / 1e3

    monkeypatch.setitem(bench_case.LOADERS, "onnxruntime", lambda order: lambda: (run, SIZE))
    found = measure(Order("onnxruntime", "x", SIZE, 1, 101), lambda: None)
    assert (found["p50_ms"], found["p95_ms"]) == (pytest.approx(51), pytest.approx(96))
    assert found["images_per_second"]["1"] == pytest.approx(1000 / 51)


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    return [Case(name, name, name, tmp_path / name, "onnxruntime", "fp32", 1, SIZE) for name in ("one", "two")]


def test_cases_take_turns_round_by_round(cases: list[Case], monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[tuple[str, int]] = []

    def note(case: Case, threads: int, plan: BenchPlan) -> Json:
        turns.append((case.name, threads))
        return {"turn": len(turns)}

    monkeypatch.setattr(bench_rounds, "_measure", note)
    found, failed = measure_rounds(cases, BenchPlan(rounds=3, threads=(1, 2)))
    assert turns == [("one", 1), ("one", 2), ("two", 1), ("two", 2)] * 3 and failed == {}
    assert found["two"][1] == [{"turn": 3}, {"turn": 7}, {"turn": 11}]


def test_a_case_that_fails_is_named_and_not_tried_again(cases: list[Case], monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def fail_second(case: Case, threads: int, plan: BenchPlan) -> Json:
        tried.append(case.name)
        if case.name == "two" and tried.count("two") == 2:
            raise CaseError("no memory")
        return {}

    monkeypatch.setattr(bench_rounds, "_measure", fail_second)
    found, failed = measure_rounds(cases, BenchPlan(rounds=4, threads=(1,)))
    assert failed == {"two": "no memory"} and list(found) == ["one"] and len(found["one"][1]) == 4
    assert tried.count("two") == 2


def test_figures_are_the_median_and_the_extremes_of_the_rounds() -> None:
    rounds = [
        dict.fromkeys(FIGURES, value) | {"images_per_second": {"1": 10 * value}, "memory": "VmHWM", "size": SIZE}
        for value in (5.0, 1.0, 2.0)
    ]
    figure = {"median": 2.0, "low": 1.0, "high": 5.0}
    expected = dict.fromkeys(FIGURES, figure) | {"images_per_second": {"1": {n: 10 * v for n, v in figure.items()}}}
    assert summarise(rounds) == expected
    without = [{**one, "peak_bytes": None} for one in rounds]
    assert summarise(without)["peak_bytes"] is None


def test_a_missing_package_is_said_and_the_others_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_bundle(tmp_path / "bundle", broken=(EXECUTORCH_INT8_FILE,))
    real = bench.find_spec
    monkeypatch.setattr(bench, "find_spec", lambda name: None if name == "executorch" else real(name))
    rows = rows_of(bench_bundle(folder, plan=ONCE))
    assert rows["student_int8_executorch"]["not_measured"] == "executorch is not installed"
    assert rows["student_int8_executorch"]["threads"] == {} and rows["student"]["not_measured"] is None


def test_a_file_that_does_not_load_says_so_and_the_others_are_measured(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", broken=(INT8_FILE,))
    rows = rows_of(bench_bundle(folder, plan=ONCE))
    assert "model.int8.onnx: cannot be loaded" in rows["student_int8"]["not_measured"]
    assert rows["student"]["threads"]["1"]["p50_ms"]["median"] > 0


def test_nothing_measurable_is_an_error_with_every_reason(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    with pytest.raises(BundleError, match=r"model\.onnx: onnxruntime is not installed"):
        bench_bundle(bundle, plan=ONCE)


@pytest.mark.parametrize(
    ("code", "reason"), [("raise SystemExit('out of luck')", "out of luck"), ("import os; os.abort()", "signal 6")]
)
def test_the_reason_of_a_dead_process_is_told(
    cases: list[Case], code: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_rounds, "CHILD", code)
    _, failed = measure_rounds(cases[:1], ONCE)
    assert reason in failed["one"]


def test_a_given_teacher_takes_the_place_of_the_one_beside_it(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "run" / "bundle")
    write_model(tmp_path / "run" / "teacher" / "model.onnx", TEACHER_SIZE)
    other = write_model(tmp_path / "other" / "big.onnx", 2 * TEACHER_SIZE)
    row = rows_of(bench_bundle(folder, teacher=other, plan=ONCE))["teacher"]
    assert (row["file"], row["size"]) == ("other/big.onnx", 2 * TEACHER_SIZE)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (None, "cannot be loaded"),
        (["batch", 3, 24, 32], "has the inputs"),
        (["batch", 3, "side", "side"], "has the inputs"),
    ],
)
def test_a_teacher_that_cannot_be_fed_is_refused(
    bundle: Path, tmp_path: Path, shape: list[Any] | None, message: str
) -> None:
    path = tmp_path / "teacher.onnx"
    if shape:
        write_model(path, shape=shape)
    with pytest.raises(BundleError, match=message):
        bench_bundle(bundle, teacher=path, plan=ONCE)


def test_pytorch_needs_a_run_folder(bundle: Path) -> None:
    with pytest.raises(RunFolderError, match="no trained network lies beside it"):
        bench_bundle(bundle, pytorch=True, plan=ONCE)


@pytest.mark.parametrize("fault", [{"repeats": 0}, {"rounds": 0}, {"threads": (1, 0)}, {"batch_sizes": (-2,)}])
def test_a_plan_of_nothing_is_refused(fault: Json) -> None:
    with pytest.raises(ConfigError, match=next(iter(fault))):
        BenchPlan(**fault)


def test_the_plain_package_measures_an_onnx_file(bundle: Path) -> None:
    order = Order("onnxruntime", str(bundle / FP32_FILE), SIZE, 1, 2).to_json()
    done = subprocess.run(
        [sys.executable, "-c", REFUSE + bench_rounds.CHILD, order], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "" and json.loads(second)["size"] == SIZE


@pytest.fixture
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_trained_folder_is_measured_in_pytorch(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from dermdistill.config import BranchConfig, ModelConfig
    from dermdistill.models.build import build_model
    from dermdistill.provenance import sha256_file

    config = ModelConfig(branches=(BranchConfig(backbone="small_cnn", options={"widths": [8, 8, 16, 16]}),))
    model = build_model(config, classes=len(CODES), size=32, seed=0)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    description = {
        "model": config.model_dump(mode="json"),
        "classes": list(CODES),
        "size": 32,
        "weights": [],
        "sha256": sha256_file(tmp_path / "model.safetensors"),
    }
    (tmp_path / "model.json").write_text(json.dumps(description))
    found = measure(Order("torch", str(tmp_path), 0, 1, 2, (2,)), lambda: None)
    assert found["size"] == 32 and found["p50_ms"] > 0 and torch.get_num_threads() == 1


@pytest.mark.usefixtures("one_thread")
def test_an_executorch_file_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    import torch

    from dermdistill.compress.executorch_export import export_executorch

    model = torch.nn.Sequential(torch.nn.Conv2d(3, 7, SIZE), torch.nn.Flatten()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_executorch(model, PreprocessSpec(SIZE), tmp_path / "model.fp32.pte")
        found = measure(Order("executorch", str(tmp_path / "model.fp32.pte"), SIZE, 1, 2), lambda: None)
    assert found["size"] == SIZE and found["p50_ms"] > 0 and list(found["images_per_second"]) == ["1"]
