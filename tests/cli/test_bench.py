"""`dermdistill bench`: the table, the JSON, the files, and mistakes that are told before anything is measured."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dermdistill.bundle.manifest import write_manifest
from dermdistill.bundle.variants import EXECUTORCH_FILE, FP32_FILE
from dermdistill.labels import CODES
from dermdistill.pipeline import bench as pipeline_bench
from dermdistill.pipeline import bench_rounds
from dermdistill.preprocess import PreprocessSpec

SIZE = 16
FEW = ("--repeats", "2", "--rounds", "1")
REFUSE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "timm", "pandas", "sklearn", "matplotlib", "onnx", "pyarrow"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A network that says the same of every image, and an ExecuTorch file that nobody opens."""
    folder = tmp_path / "run" / "bundle"
    folder.mkdir(parents=True)
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(CODES)])
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["colour"], keepdims=0),
        helper.make_node("MatMul", ["colour", "weights"], ["logits"]),
    ]
    weights = np.zeros((3, len(CODES)), dtype=np.float32)
    constants = [numpy_helper.from_array(np.array([2, 3]), "axes"), numpy_helper.from_array(weights, "weights")]
    graph = helper.make_graph(nodes, "constant", [images], [logits], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, str(folder / FP32_FILE))
    (folder / EXECUTORCH_FILE).write_bytes(b"not opened")
    write_manifest(folder, task="diagnosis", spec=PreprocessSpec(SIZE), decisions={}, provenance={})
    return folder


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """One core, and no ExecuTorch."""
    real = pipeline_bench.find_spec
    monkeypatch.setattr(pipeline_bench, "find_spec", lambda name: None if name == "executorch" else real(name))
    monkeypatch.setattr(bench_rounds, "core_count", lambda: 1)


@pytest.fixture
def nothing_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Any:
        raise AssertionError("measured although the call cannot succeed")

    monkeypatch.setattr(bench_rounds, "_measure", refuse)


def test_bench_prints_a_line_a_file_and_why_one_was_not_measured(call: Any, bundle: Path) -> None:
    outcome = call("bench", bundle, *FEW)
    assert outcome.status == 0, outcome.err
    head, first, second = (line.strip() for line in outcome.out.splitlines())
    assert head.split()[0] == "model" and "images/s at 32" in head and "cold start s" in head
    assert first.startswith("ONNX Runtime FP32") and f" {SIZE} " in first
    assert second.startswith("ExecuTorch FP32: not measured: executorch is not installed")
    assert "normalising are not included" in outcome.err


def test_bench_json_is_one_object_with_the_plan_that_was_asked_for(call: Any, bundle: Path) -> None:
    outcome = call("bench", bundle, "--json", "--repeats", "4", "--rounds", "2")
    assert outcome.status == 0, outcome.err
    result = json.loads(outcome.out)
    assert (result["plan"]["repeats"], result["plan"]["rounds"], result["plan"]["threads"]) == (4, 2, [1])
    assert [row["file"] for row in result["rows"]] == [FP32_FILE, EXECUTORCH_FILE]


def test_bench_out_writes_what_json_prints(call: Any, bundle: Path, tmp_path: Path) -> None:
    outcome = call("bench", bundle, *FEW, "--json", "--out", tmp_path / "new" / "out")
    assert outcome.status == 0, outcome.err
    files = {path.name: path.read_text() for path in (tmp_path / "new" / "out").iterdir()}
    assert json.loads(files["bench.json"]) == json.loads(outcome.out)
    assert set(files) == {"bench.json", "bench.md", "bench.svg"} and "out" in outcome.err


@pytest.mark.usefixtures("nothing_measured")
def test_bench_refuses_a_place_that_cannot_be_written_before_it_measures(
    call: Any, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("mine")
    outcome = call("bench", bundle, *FEW, "--out", tmp_path / "taken")
    assert outcome.status == 2 and "cannot be written" in outcome.err
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.usefixtures("nothing_measured")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--teacher", "nowhere.onnx"], "nowhere.onnx: cannot be loaded"),
        (["--pytorch"], "no trained network lies beside it"),
        (["--repeats", "0"], "--repeats"),
    ],
)
def test_bench_tells_a_mistake_with_status_2(call: Any, bundle: Path, words: list[str], message: str) -> None:
    outcome = call("bench", bundle, *words)
    assert outcome.status == 2 and message in outcome.err and "Traceback" not in outcome.err


@pytest.mark.usefixtures("nothing_measured")
def test_bench_refuses_a_changed_bundle(call: Any, bundle: Path) -> None:
    (bundle / EXECUTORCH_FILE).write_bytes(b"changed it")
    outcome = call("bench", bundle)
    assert outcome.status == 2 and "its content was changed" in outcome.err


def test_bench_needs_the_plain_package_alone_unless_it_draws(process: Any, bundle: Path, tmp_path: Path) -> None:
    (bundle / EXECUTORCH_FILE).unlink()
    write_manifest(bundle, task="diagnosis", spec=PreprocessSpec(SIZE), decisions={}, provenance={})
    plain = process("bench", bundle, *FEW, "--json", before=REFUSE)
    assert plain.status == 0, plain.err
    assert json.loads(plain.out)["rows"][0]["not_measured"] is None
    drawing = process("bench", bundle, *FEW, "--out", tmp_path / "out", before=REFUSE)
    assert drawing.status == 2 and "pip install 'dermdistill[train]'" in drawing.err
    assert not (tmp_path / "out").exists()
