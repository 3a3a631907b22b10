"""The channels of a layer as masks of the image: which can matter, which spread widest, and the weights of the rest."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

# Penalty, for each channel scored, on the coefficients that estimate the others; masks lie in 0..1.
ESTIMATE_RIDGE = 0.01


def dead_channels(grid: Tensor) -> Tensor:
    """Which channels [C, h, w] are zero everywhere, bool [C]."""
    return grid.abs().amax(dim=(1, 2)) == 0


def uniform_channels(grid: Tensor) -> Tensor:
    """Which channels [C, h, w] are the same everywhere, bool [C]."""
    return grid.amax(dim=(1, 2)) == grid.amin(dim=(1, 2))


def widest(channels: Tensor, count: int | None) -> Tensor:
    """Indices of the channels [C, h, w] of largest spread, in their order; all where ``count`` is None or no fewer."""
    if count is None or len(channels) <= count:
        return torch.arange(len(channels), device=channels.device)
    spread = channels.amax(dim=(1, 2)) - channels.amin(dim=(1, 2))
    return spread.topk(count).indices.sort().values


def scaled(values: Tensor) -> Tensor:
    """Each of [n, h, w] scaled to 0..1; zero where it is the same everywhere."""
    low, high = values.amin(dim=(1, 2), keepdim=True), values.amax(dim=(1, 2), keepdim=True)
    return torch.where(high > low, (values - low) / torch.where(high > low, high - low, 1.0), 0.0)


def as_masks(channels: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """Channels [n, h, w] enlarged to the image's size and scaled to 0..1: [n, H, W].

    Args:
        channels: of a layer.
        size: H, W.
        align_corners: stretch the outer cells' centres to the image's corners; else each cell keeps its place.
    """
    return scaled(interpolate(channels[:, None], size=size, mode="bilinear", align_corners=align_corners)[:, 0])


def estimated(channels: Tensor, scored: Tensor, weights: Tensor) -> Tensor:
    """The weights of all channels, those that were scored as they are and the others estimated.

    What a mask shows decides what it does to the scores, nearly linearly. So ridge regression of the weights on the
    cells of the masks, over the channels that were scored, tells the others'. Leaving them out instead changes the map.

    Args:
        channels: [C, h, w].
        scored: int64 [n], which of them were scored.
        weights: [n, K], theirs.

    Returns:
        [C, K].
    """
    if len(scored) == len(channels):
        return weights
    masks = scaled(channels).flatten(1).double()
    inputs, outputs = masks[scored], weights.double()
    centre, level = inputs.mean(dim=0), outputs.mean(dim=0)
    inputs, outputs = inputs - centre, outputs - level
    penalty = ESTIMATE_RIDGE * len(scored) * torch.eye(inputs.shape[1], dtype=inputs.dtype, device=inputs.device)
    coefficients = torch.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ outputs)
    every: Tensor = ((masks - centre) @ coefficients + level).to(weights.dtype)
    known: Tensor = every.index_copy(0, scored, weights)
    return known
