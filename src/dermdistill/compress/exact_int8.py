"""INT8 files that answer alike on every processor."""

from pathlib import Path
from typing import Any


def quantizes_activations(path: Path) -> bool:
    """Whether a file has QuantizeLinear nodes: an operator's name in protobuf is a tag, its length and its letters."""
    try:
        return b"\x22\x0eQuantizeLinear" in path.read_bytes()
    except OSError:
        return False  # ONNX Runtime says what is wrong with it


def ask_exact_products(options: Any, path: Path) -> None:
    """Set the session options of ONNX Runtime for a file that quantizes activations.

    x86 without VNNI adds pairs of uint8 x int8 products in 16 bits, which overflow: 9% of the labels of the shipped
    file changed, and balanced accuracy fell by .07. With this such processors multiply exactly; others ignore it.
    Files with int8 weights alone have no such products, and cannot be run with it.
    """
    if quantizes_activations(path):
        options.add_session_config_entry("session.x64quantprecision", "1")
