"""Deletion and insertion: does the class's probability hang on the pixels that a map calls important?

Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018, section 4.1.
Deletion takes the pixels out, most important first: the sooner the probability falls, the smaller the area under its
curve, the better. Insertion puts them in, the larger the better. Both go between the image and its blurred self. The
blur here is wide (``BLUR``): after the narrow one of RISE a lesion is still a dark patch of its own colour and size.

A model reacts to the patchwork itself, and more to fine than to coarse ones. So the baseline is a random order with
patches as large as those of a class activation map (``random_maps``), not one of single pixels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad, softmax

from dermdistill.errors import ConfigError
from dermdistill.explain.explainer import Maps, Scores, blank, check_maps
from dermdistill.explain.scorers import Scorer, scores_of

STEPS = 16
BLUR = 0.2  # standard deviation in sides of the image
RANDOM_CELLS = 8
BATCH = 64


@dataclass(frozen=True, eq=False)
class Curves:
    """Probability of the target while an image is taken apart and put together.

    Attributes:
        shares: float64 [T+1], share of pixels taken out or put in, 0 to 1.
        deletion: float64 [N, T+1]; NaN of a blank map.
        insertion: float64 [N, T+1]; NaN of a blank map.
    """

    shares: Scores
    deletion: Scores
    insertion: Scores

    def areas(self) -> dict[str, Scores]:
        """Area under each curve by the trapezoidal rule: ``deletion`` and ``insertion``, float64 [N] in [0, 1]."""
        curves = {"deletion": self.deletion, "insertion": self.insertion}
        return {name: np.asarray(np.trapezoid(values, self.shares, axis=1)) for name, values in curves.items()}


def blurred(images: Tensor, spread: float = BLUR) -> Tensor:
    """Images [N, C, H, W] after a Gaussian blur of ``spread`` sides; the border is continued by its last pixel."""
    channels = images.shape[1]
    for axis in (2, 3):
        sigma = spread * images.shape[axis]
        reach = max(1, round(3 * sigma))
        steps = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
        kernel = torch.exp(-(steps**2) / (2 * sigma**2))
        down = axis == 2
        weights = (kernel / kernel.sum()).reshape((1, 1, -1, 1) if down else (1, 1, 1, -1)).repeat(channels, 1, 1, 1)
        margin = (0, 0, reach, reach) if down else (reach, reach, 0, 0)
        images = conv2d(pad(images, margin, mode="replicate"), weights, groups=channels)
    return images


def importance_ranks(maps: npt.NDArray[np.floating], *, seed: int) -> npt.NDArray[np.int64]:
    """The place of each pixel in the order of importance, int64 [N, H, W]: 0 the first.

    Equal values come in random order, which the seed and the image's row give: in order of place the curve of a map
    with few values, as LIME's, would depend on where in the picture they are.
    """
    flat = maps.reshape(len(maps), -1)
    ranks = np.empty(flat.shape, dtype=np.int64)
    for row, values in enumerate(flat):
        chance = np.random.default_rng((seed, row)).random(len(values))
        ranks[row, np.lexsort((chance, -values))] = np.arange(len(values))
    return ranks.reshape(maps.shape)


def deletion_curves(
    scorer: Scorer,
    images: Tensor,
    classes: Tensor,
    maps: npt.NDArray[np.floating],
    *,
    seed: int,
    steps: int = STEPS,
    batch_size: int = BATCH,
) -> Curves:
    """Both curves of every image.

    Args:
        scorer: images float32 [B, 3, H, W] to logits [B, K]; a network is ``NetworkScorer(model)``.
        images: float32 [N, 3, H, W], normalised.
        classes: int64 [N], whose probability is watched.
        maps: [N, H, W], not negative.
        seed: of the order of equal values.
        steps: T, how many portions the pixels are taken in.
        batch_size: altered images at once.

    Raises:
        ConfigError: maps or classes that do not fit the images, no step, or scores that are no logits.
    """
    check_maps(maps)
    if maps.shape != (len(images), *images.shape[2:]) or classes.shape != (len(images),) or steps < 1:
        raise ConfigError(
            f"maps {list(maps.shape)}, classes {list(classes.shape)}, images {list(images.shape)}, {steps} steps",
            rule="a map of the image's size and one class for each image, and at least one step",
        )
    shares = np.linspace(0, 1, steps + 1)
    ranks, nothing = importance_ranks(maps, seed=seed), blank(maps)
    probs = np.full((len(images), 2, steps + 1), np.nan)
    for row in np.flatnonzero(~nothing).tolist():
        one = images[row : row + 1]
        altered = _altered(one, blurred(one), torch.from_numpy(ranks[row]).to(one.device), shares)
        logits = scores_of(scorer, altered, batch_size).double()
        probs[row] = _as_curves(softmax(logits, dim=1)[:, int(classes[row])].cpu().numpy())
    return Curves(shares, probs[:, 0], probs[:, 1])


def _altered(image: Tensor, empty: Tensor, ranks: Tensor, shares: Scores) -> Tensor:
    """The image, without more and more of its pixels, the blurred image, and that with more and more: [2T, ...]."""
    counts = torch.from_numpy(np.rint(shares * ranks.numel()).astype(np.int64)).to(ranks.device)
    first = (ranks < counts[:, None, None])[:, None]
    return torch.cat([torch.where(first, empty, image), torch.where(first[1:-1], image, empty)])


def _as_curves(probs: Scores) -> Scores:
    """Deletion and insertion [2, T+1] of what ``_altered`` gives: each ends where the other begins."""
    steps = len(probs) // 2
    deletion = probs[: steps + 1]
    return np.stack([deletion, np.concatenate([deletion[-1:], probs[steps + 1 :], deletion[:1]])])


def random_maps(count: int, height: int, width: int, *, seed: int, cells: int = RANDOM_CELLS) -> Maps:
    """Maps that know nothing, as coarse as a class activation map: float32 [count, height, width] in [0, 1].

    Independent uniform values on ``cells`` x ``cells`` cells, enlarged bilinearly.
    """
    values = np.random.default_rng(seed).random((count, 1, cells, cells), dtype=np.float32)
    found = interpolate(torch.from_numpy(values), size=(height, width), mode="bilinear", align_corners=False)
    return found[:, 0].numpy()
