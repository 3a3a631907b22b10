"""How much a map changes when its image hardly does.

Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019, definition 3: the largest change over
a ball around the input, here relative to the map's own size and estimated by random draws, so from below.
"""

import numpy as np
import torch
from torch import Tensor, nn

from dermdistill.errors import ConfigError
from dermdistill.explain.explainer import BATCH, Explainer, Maps, Scores, blank, maps_of

# Of a normalised channel: about one of 256 grey levels.
RADIUS = 0.02
DRAWS = 10


def max_sensitivity(
    explainer: Explainer,
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    *,
    seed: int,
    maps: Maps | None = None,
    radius: float = RADIUS,
    draws: int = DRAWS,
    batch_size: int = BATCH,
) -> Scores:
    """Largest ``|map(x + noise) - map(x)| / |map(x)|`` (Euclidean) over uniform noise in ``[-radius, radius]``.

    Args:
        explainer: the method.
        model: what it explains.
        images: float32 [N, 3, H, W], normalised.
        classes: int64 [N]; they stay the same under noise.
        seed: of the noise, with the image's row: the batch size does not matter.
        maps: float32 [N, H, W] of these images, if they are known.
        radius: in units of the normalised images.
        draws: noises an image.
        batch_size: images at once.

    Returns:
        float64 [N] >= 0, the smaller the better; NaN where the map is blank.

    Raises:
        ConfigError: no draws, a radius that is not above 0, or maps of another shape.
    """
    if draws < 1 or not radius > 0:
        raise ConfigError(f"{draws} draws of noise within {radius}", rule="at least one, and a radius above 0")
    plain = maps_of(explainer, model, images, classes, batch_size=batch_size) if maps is None else maps
    largest = np.zeros(len(images))
    for draw in range(draws):
        noisy = images + noise(images, radius, seed=seed, draw=draw)
        other = maps_of(explainer, model, noisy, classes, batch_size=batch_size)
        largest = np.maximum(largest, _size(other.astype(np.float64) - plain))
    nothing = blank(plain)
    return np.where(nothing, np.nan, largest / np.where(nothing, 1, _size(plain.astype(np.float64))))


def noise(images: Tensor, radius: float, *, seed: int, draw: int) -> Tensor:
    """Uniform noise in ``[-radius, radius]`` of the images' shape [N, ...]; each row has its own stream."""
    streams = (np.random.default_rng((seed, draw, row)) for row in range(len(images)))
    rows = [stream.uniform(-radius, radius, tuple(images.shape[1:])).astype(np.float32) for stream in streams]
    return torch.from_numpy(np.stack(rows)).to(images) if rows else torch.zeros_like(images)


def _size(maps: Scores) -> Scores:
    return np.asarray(np.sqrt((maps**2).sum(axis=(1, 2))), dtype=np.float64)
