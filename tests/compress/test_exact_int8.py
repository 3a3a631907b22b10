"""Which files are run with exact products."""

from pathlib import Path

import onnx
import pytest
from onnx import helper

from dermdistill.compress.exact_int8 import quantizes_activations


@pytest.mark.parametrize(
    ("operators", "told"),
    [(["QuantizeLinear", "DequantizeLinear"], True), (["DequantizeLinear"], False), (["DynamicQuantizeLinear"], False)],
)
def test_exact_products_are_asked_for_where_activations_are_quantized(
    tmp_path: Path, operators: list[str], told: bool
) -> None:
    nodes = [helper.make_node(name, ["x", "scale"], [f"y{place}"]) for place, name in enumerate(operators)]
    graph = helper.make_graph(nodes, "graph", [], [])
    onnx.save(helper.make_model(graph), str(tmp_path / "model.onnx"))
    assert quantizes_activations(tmp_path / "model.onnx") is told
