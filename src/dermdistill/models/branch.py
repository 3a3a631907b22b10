"""One backbone as a branch: maps and pooled features at four depths."""

from typing import Any, NamedTuple

from torch import Tensor, nn

from dermdistill.errors import ConfigError
from dermdistill.models.backbones import DEPTHS


class BranchOutput(NamedTuple):
    """Maps [B, C, H, W] and pooled features [B, C'] of the four depths, shallow to deep."""

    maps: tuple[Tensor, ...]
    pooled: tuple[Tensor, ...]


def depth_indices(feature_info: list[dict[str, Any]]) -> list[int]:
    """Which of a backbone's stages are its four depths.

    A pyramid (ConvNet) gives its last four stages, a network of one resolution (ViT) four evenly spaced blocks.

    Raises:
        ConfigError: the backbone has fewer than four stages.
    """
    count = len(feature_info)
    if count < DEPTHS:
        raise ConfigError(f"backbone has {count} stages", rule=f"at least {DEPTHS}")
    if len({stage["reduction"] for stage in feature_info}) > 1:
        return list(range(count - DEPTHS, count))
    return [count * (depth + 1) // DEPTHS - 1 for depth in range(DEPTHS)]


def is_transformer(network: nn.Module) -> bool:
    """Whether a network's features are tokens [B, N, C] of equal blocks."""
    return hasattr(network, "blocks") and hasattr(network, "patch_embed")


class Branch(nn.Module):
    """A headless timm network (or one that speaks its language) read at four depths.

    The deepest depth is the network's final map, behind its last activation; ``last_map`` marks it for class activation
    maps of a family without a rule (``explain/target_layers.py``).

    Args:
        network: has ``feature_info``, ``forward_intermediates`` and ``forward_head``.
        cut: it has lost its final convolution (``keep_stages``): its deepest depth is the output of its last stage.
    """

    def __init__(self, network: nn.Module, *, cut: bool = False) -> None:
        super().__init__()
        speaker: Any = network
        info = [dict(stage) for stage in speaker.feature_info]
        self.network: Any = network
        self.cut = cut
        self.indices = depth_indices(info)
        self.last_map = nn.Identity()
        self.widths = [int(info[index]["num_chs"]) for index in self.indices[:-1]]
        self.widths.append(int(speaker.head_hidden_size))

    def forward(self, images: Tensor) -> BranchOutput:
        """Images [B, 3, H, W] to the maps and pooled features of the four depths."""
        final, maps = self.network.forward_intermediates(images, indices=self.indices)
        if final.dim() == 4:
            final = self.last_map(final)
            maps = [*maps[:-1], final]
        pooled = [depth.mean(dim=(2, 3)) for depth in maps[:-1]]
        pooled.append(final.mean(dim=(2, 3)) if self.cut else self.network.forward_head(final, pre_logits=True))
        return BranchOutput(tuple(maps), tuple(pooled))
