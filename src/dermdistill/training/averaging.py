"""Exponential moving average of weights and BatchNorm statistics (Polyak & Juditsky 1992)."""

import torch
from torch import Tensor, nn


class WeightAverage:
    """An averaged copy of a module's state.

    Early on the decay is ``(1 + t) / (10 + t)``, so that the random start is forgotten.

    Args:
        model: its current state is the start.
        decay: share kept at each step, 0 copies.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state: dict[str, Tensor] = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the model's state after the step counted from 0; counters are copied."""
        decay = min(self.decay, (1 + step) / (10 + step))
        floats, values = [], []
        for name, value in model.state_dict().items():
            if value.dtype.is_floating_point:
                floats.append(self.state[name])
                values.append(value)
            else:
                self.state[name].copy_(value)
        torch._foreach_lerp_(floats, values, 1 - decay)

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a saved state."""
        for name, value in self.state.items():
            value.copy_(state[name])
