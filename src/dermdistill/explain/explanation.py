"""One shape for every explanation: heat maps, and what made them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dermdistill.errors import ConfigError

# Rounding may leave a map that was divided by its largest value this far above 1.
ROUNDING = 1e-5


@dataclass(frozen=True, eq=False)
class Explanation:
    """Heat maps of a batch.

    Args:
        maps: float32 [B, H, W] in [0, 1]: the hotter, the more a place raised the target's score. A map's largest value
            is 1; a blank map, where nothing raised it, is all zero.
        method: a name in ``METHODS``.
        targets: int64 [B], the class that each map explains.
        made_from: facts for JSON, such as layers, channels, samples, seed, scorer.
        figures: numbers of each image, float64 [B], such as LIME's ``r2``; NaN where not defined.
        branch_maps: of a hybrid, the map of each branch by the name of its layer, each float32 [B, H, W] in [0, 1] and
            normalised by itself; ``figures`` has its ``share`` in the whole. Empty where there is one branch.

    Raises:
        ConfigError: shapes, types or ranges that are not these.
    """

    maps: Tensor
    method: str
    targets: Tensor
    made_from: dict[str, Any]
    figures: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    branch_maps: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        faults = [f"{name} {fault}" for name, one in self._all_maps() if (fault := _map_fault(one, self.maps.shape))]
        batch = self.maps.shape[0] if self.maps.ndim else 0
        if self.targets.shape != (batch,) or self.targets.dtype != torch.int64:
            faults.append(f"targets are {self.targets.dtype} {list(self.targets.shape)}")
        faults += [
            f"figure {name!r} is {values.shape}" for name, values in self.figures.items() if values.shape != (batch,)
        ]
        faults += _json_fault(self.made_from)
        if faults:
            raise ConfigError(
                f"an explanation by {self.method!r} is not well formed: " + "; ".join(faults),
                rule="maps float32 [B, H, W] in 0..1, targets int64 [B], figures [B], made_from is JSON",
            )

    def _all_maps(self) -> list[tuple[str, Tensor]]:
        return [("maps", self.maps), *((f"branch map {name!r}", one) for name, one in self.branch_maps.items())]

    @property
    def blank(self) -> npt.NDArray[np.bool_]:
        """Which maps are all zero, bool [B]: nothing in these images raised the target's score."""
        found: npt.NDArray[np.bool_] = ~self.maps.flatten(1).bool().any(dim=1).cpu().numpy()
        return found


def _map_fault(maps: Tensor, shape: torch.Size) -> str:
    if maps.ndim != 3 or maps.shape != shape or maps.dtype != torch.float32:
        return f"are {maps.dtype} {list(maps.shape)}"
    if maps.numel() and not (float(maps.min()) >= 0 and float(maps.max()) <= 1 + ROUNDING):
        return "leave 0..1 or are not finite"
    return ""


def _json_fault(facts: dict[str, Any]) -> list[str]:
    try:
        json.dumps(facts, allow_nan=False)
    except (TypeError, ValueError) as error:
        return [f"made_from is no JSON: {error}"]
    return []
