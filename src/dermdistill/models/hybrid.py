"""The classifier: branches, an exit after some depths, layer fusion, one final classifier.

A ResNet or a MobileNetV3 alone is the same class with one branch.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dermdistill.models.branch import Branch
from dermdistill.models.output import Output


class LayerFusion(nn.Module):
    """Combine pooled features of all branches and depths: normalise, project to one width, weigh by learned gates.

    The gates are a softmax over sources for each channel; deeper sources start with more weight.

    Args:
        widths: features of each source.
        depths: depth of each source, 0 the shallowest.
        width: common width of the projections.
    """

    def __init__(self, widths: list[int], depths: list[int], width: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(features), nn.Linear(features, width)) for features in widths
        )
        self.gates = nn.Parameter(torch.tensor(depths, dtype=torch.float32)[:, None].repeat(1, width))

    def forward(self, sources: list[Tensor]) -> Tensor:
        """Sources, each [B, C_i], to [B, width]."""
        gates = torch.softmax(self.gates, dim=0)
        projected = [
            gate * projection(source) for gate, projection, source in zip(gates, self.projections, sources, strict=True)
        ]
        return torch.relu(torch.stack(projected).sum(dim=0))


def _exit_head(features: int, classes: int, width: int = 128) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(features), nn.Linear(features, width), nn.ReLU(), nn.Linear(width, classes))


class HybridClassifier(nn.Module):
    """Images [B, 3, S, S] to ``Output``.

    Args:
        branches: backbones read at four depths.
        classes: number of classes K.
        exits: depths with an exit.
        fusion_width: width of layer fusion, or None: the deepest pooled features go straight to the classifier.
        dropout: before the final classifier.
        weight_records: where each branch's weights came from.
    """

    def __init__(
        self,
        branches: list[Branch],
        *,
        classes: int,
        exits: tuple[int, ...],
        fusion_width: int | None,
        dropout: float,
        weight_records: list[dict[str, str]],
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.exit_depths = tuple(sorted(exits))
        self.weight_records = weight_records
        self.exit_widths = tuple(sum(branch.widths[depth] for branch in branches) for depth in self.exit_depths)
        self.exit_heads = nn.ModuleList(_exit_head(width, classes) for width in self.exit_widths)
        sources = [(width, depth) for branch in branches for depth, width in enumerate(branch.widths)]
        self.fusion = (
            LayerFusion([width for width, _ in sources], [depth for _, depth in sources], fusion_width)
            if fusion_width
            else None
        )
        self.fused_width = fusion_width or branches[0].widths[-1]
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(self.fused_width, classes)

    def forward(self, images: Tensor) -> Output:
        """Images float [B, 3, S, S], normalised, to logits, exits, maps and fused features."""
        outputs = [branch(images) for branch in self.branches]
        pooled = tuple(torch.cat(depth, dim=1) for depth in zip(*(output.pooled for output in outputs), strict=True))
        exits = tuple(head(pooled[depth]) for depth, head in zip(self.exit_depths, self.exit_heads, strict=True))
        if self.fusion is None:
            fused = outputs[0].pooled[-1]
        else:
            fused = self.fusion([depth for output in outputs for depth in output.pooled])
        logits = self.classifier(self.dropout(fused))
        return Output(logits, exits, tuple(m for output in outputs for m in output.maps), fused, pooled)

    def pretrained_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the branches that did not start at random."""
        for branch, record in zip(self.branches, self.weight_records, strict=True):
            if record["weights"] != "none":
                yield from branch.parameters()

    def deployed(self) -> "Deployed":
        """The same weights as a module images -> logits, in evaluation mode and without exits."""
        return Deployed(self)


class Deployed(nn.Module):
    """What is shipped: images [B, 3, S, S] -> logits [B, K]. Exports drop what the logits do not need: the exits."""

    def __init__(self, model: HybridClassifier) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, K]."""
        output: Output = self.model(images)
        return output.logits

    def parameter_count(self) -> int:
        """Parameters that the logits depend on."""
        exits = sum(p.numel() for p in self.model.exit_heads.parameters())
        return sum(p.numel() for p in self.model.parameters()) - exits
