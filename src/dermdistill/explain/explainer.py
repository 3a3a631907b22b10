"""Any way to make heat maps as one function, and its maps as checked arrays: what the scores of maps are given."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dermdistill.errors import ConfigError
from dermdistill.explain.explanation import ROUNDING

# Model, images float32 [B, 3, H, W] normalised, classes int64 [B] -> maps float32 [B, H, W] in [0, 1]. It reads its
# target layers from the model that it is given, not from another one that it remembers: tests hand it altered copies.
Explainer = Callable[[nn.Module, Tensor, Tensor], Tensor]
Maps = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]
BATCH = 16


def maps_of(
    explainer: Explainer, model: nn.Module, images: Tensor, classes: Tensor, *, batch_size: int = BATCH
) -> Maps:
    """The maps of many images, batch by batch.

    Args:
        explainer: the method.
        model: what it explains.
        images: float32 [N, 3, H, W], normalised.
        classes: int64 [N], the class of each map.
        batch_size: images at once.

    Returns:
        float32 [N, H, W] in [0, 1].

    Raises:
        ConfigError: the method gives another shape, or values outside the range or not finite.
    """
    height, width = images.shape[2:]
    maps = np.empty((len(images), height, width), dtype=np.float32)
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        found = explainer(model, images[part], classes[part])
        if found.shape != maps[part].shape or not bool(((found >= 0) & (found <= 1 + ROUNDING)).all()):
            raise ConfigError(
                f"an explanation method gives {list(found.shape)} for images {list(images[part].shape)}, or values "
                "outside 0..1",
                rule="maps [B, H, W] of the images' size, finite and in 0..1",
            )
        maps[part] = found.detach().to("cpu", torch.float32).clamp(max=1).numpy()
    return maps


def check_maps(maps: npt.NDArray[np.floating]) -> None:
    """Refuse what are no heat maps.

    Raises:
        ConfigError: not [N, H, W], or values that are negative or not finite.
    """
    if maps.ndim != 3 or not (np.isfinite(maps).all() and (maps >= 0).all()):
        raise ConfigError(
            f"maps are {maps.dtype} {list(maps.shape)}, or have negative or infinite values",
            rule="heat maps are [N, H, W], finite and not negative",
        )


def blank(maps: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Which of the maps [N, H, W] are zero everywhere, bool [N]: they show nothing, so no score of them is defined."""
    return np.asarray((maps == 0).all(axis=(1, 2)), dtype=np.bool_)
