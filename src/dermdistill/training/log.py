"""The training log: one JSON object a line, one line an epoch."""

import json
from pathlib import Path
from typing import Any


def log_text(records: list[dict[str, Any]]) -> str:
    """Records as JSON lines."""
    return "".join(json.dumps(record) + "\n" for record in records)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log file."""
    return [json.loads(line) for line in path.read_text().splitlines()]
