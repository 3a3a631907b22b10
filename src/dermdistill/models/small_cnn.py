"""The small convolutional network of the published student: four stages of two convolutions."""

from itertools import pairwise

from torch import Tensor, nn


def _stage(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width_out),
        nn.ReLU(inplace=True),
        nn.Conv2d(width_out, width_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(width_out),
        nn.ReLU(inplace=True),
    )


class SmallCNN(nn.Module):
    """Four stages, each halving height and width; speaks timm's ``forward_intermediates`` language.

    Args:
        widths: channels of the four stages.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (32, 64, 128, 256)) -> None:
        super().__init__()
        self.stages = nn.ModuleList(_stage(a, b) for a, b in pairwise((3, *widths)))
        self.feature_info = [
            {"num_chs": width, "reduction": 2 ** (index + 1), "module": f"stages.{index}"}
            for index, width in enumerate(widths)
        ]
        self.num_features = self.head_hidden_size = widths[-1]

    def forward_intermediates(self, x: Tensor, indices: list[int] | None = None) -> tuple[Tensor, list[Tensor]]:
        """The final map and the maps of the wanted stages (all by default), each [B, C, H, W]."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return x, maps if indices is None else [maps[index] for index in indices]

    def forward_head(self, x: Tensor, pre_logits: bool = True) -> Tensor:
        """Global average of the final map, [B, C]."""
        if not pre_logits:
            raise ValueError("SmallCNN has no classifier of its own")
        return x.mean(dim=(2, 3))
