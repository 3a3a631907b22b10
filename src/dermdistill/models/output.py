"""What every classifier returns, so that distillation and inspection need no hooks."""

from typing import NamedTuple

from torch import Tensor


class Output(NamedTuple):
    """Logits and the named intermediate outputs of one forward pass.

    Attributes:
        logits: [B, K], of the final classifier.
        exits: one [B, K] for each configured exit, shallow to deep.
        features: [B, C, H, W], the map of each depth, branch after branch.
        fused: [B, W], what the final classifier reads.
        pooled: [B, C], of each depth, all branches side by side.
    """

    logits: Tensor
    exits: tuple[Tensor, ...]
    features: tuple[Tensor, ...]
    fused: Tensor
    pooled: tuple[Tensor, ...]

    def full_precision(self) -> "Output":
        """The same output in float32: losses are not computed in half precision."""
        return Output(
            self.logits.float(),
            tuple(part.float() for part in self.exits),
            tuple(part.float() for part in self.features),
            self.fused.float(),
            tuple(part.float() for part in self.pooled),
        )
