from typing import Any

import numpy as np
import pytest
import torch

from dermdistill.errors import ConfigError
from dermdistill.explain.explanation import Explanation


def _parts() -> dict[str, Any]:
    maps = torch.zeros(2, 4, 4)
    maps[0, 1, 1] = 1
    return {
        "maps": maps,
        "method": "grad_cam",
        "targets": torch.tensor([0, 3]),
        "made_from": {"layers": ["norm"], "seed": 0},
        "figures": {"r2": np.array([0.5, np.nan])},
        "branch_maps": {"left": maps},
    }


def test_blank_tells_which_maps_show_nothing() -> None:
    assert Explanation(**_parts()).blank.tolist() == [False, True]


@pytest.mark.parametrize(
    ("part", "value", "problem"),
    [
        ("maps", torch.full((2, 4, 4), 1.5), "leave 0..1"),
        ("maps", torch.full((2, 4, 4), torch.nan), "leave 0..1"),
        ("maps", torch.full((2, 4, 4), -0.1), "leave 0..1"),
        ("maps", torch.zeros(2, 4, 4, dtype=torch.float64), "maps are torch.float64"),
        ("maps", torch.zeros(2, 1, 4, 4), r"maps are torch.float32 \[2, 1, 4, 4\]"),
        ("targets", torch.tensor([0]), "targets are"),
        ("targets", torch.tensor([0.0, 3.0]), "targets are torch.float32"),
        ("made_from", {"layer": torch.nn.ReLU()}, "no JSON"),
        ("made_from", {"r2": float("nan")}, "no JSON"),
        ("figures", {"r2": np.zeros(3)}, "figure 'r2'"),
        ("branch_maps", {"left": torch.zeros(1, 4, 4)}, "branch map 'left'"),
    ],
)
def test_explanation_that_is_not_well_formed_is_refused(part: str, value: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Explanation(**{**_parts(), part: value})
