"""Whether two sets of maps look at the same places: student and teacher, INT8 and FP32, a map before and after.

Correlations weigh the whole map, the overlap of the hottest pixels what a reader sees of it. All are NaN where one of
the two maps has no variation, as a blank one: it points nowhere.
"""

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from torch.nn.functional import interpolate

from dermdistill.errors import ConfigError
from dermdistill.explain.explainer import Maps, Scores, check_maps
from dermdistill.explain.localisation import keep_largest, soft_iou

AnyMaps = npt.NDArray[np.floating]
HOTTEST = 0.2


def agreement(first: AnyMaps, second: AnyMaps) -> dict[str, Scores]:
    """Spearman's and Pearson's correlation over pixels, and overlap of the hottest fifth, of maps of the same images.

    Maps of different sizes are compared at the smaller height and width (see ``resized``): enlarging would add pixels
    that know nothing.

    Args:
        first: [N, H, W], not negative.
        second: [N, h, w], not negative, of the same N images.

    Returns:
        ``spearman`` and ``pearson`` in [-1, 1] and ``iou`` in [0, 1], each float64 [N], NaN where a map is constant.

    Raises:
        ConfigError: other numbers of maps, or values that are no heat maps.
    """
    for maps in (first, second):
        check_maps(maps)
    if len(first) != len(second):
        raise ConfigError(f"{len(first)} maps against {len(second)}", rule="two sets of maps are of the same images")
    height, width = np.minimum(first.shape[1:], second.shape[1:]).tolist()
    one, other = resized(first, height, width), resized(second, height, width)
    return {"spearman": spearman(one, other), "pearson": pearson(one, other), "iou": hottest_iou(one, other)}


def agreement_by_chance(first: AnyMaps, second: AnyMaps, *, seed: int) -> dict[str, Scores]:
    """The same figures against the map of another image: what two sets share because all lesions lie in the middle.

    Args:
        first: [N, H, W], of at least two images.
        second: [N, h, w].
        seed: of the pairing, in which no image meets itself and each comes once.

    Raises:
        ConfigError: fewer than two images, or as ``agreement``.
    """
    if len(second) < 2:
        raise ConfigError(f"{len(second)} maps", rule="agreement by chance needs another image")
    order = np.random.default_rng(seed).permutation(len(second))
    other = np.empty_like(order)
    other[order] = np.roll(order, 1)
    return agreement(first, second[other])


def resized(maps: AnyMaps, height: int, width: int) -> Maps:
    """Maps [N, H, W] at another size, float32 [N, height, width].

    Bilinear with antialiasing: of a larger map each pixel averages what it covers. The same size is left as it is.
    """
    values = maps.astype(np.float32)
    if maps.shape[1:] == (height, width):
        return values
    found = interpolate(
        torch.from_numpy(values)[:, None], size=(height, width), mode="bilinear", align_corners=False, antialias=True
    )
    return found[:, 0].numpy()


def pearson(first: AnyMaps, second: AnyMaps) -> Scores:
    """Pearson's correlation over the pixels of each pair of maps [N, H, W], [N]; NaN where one is constant."""
    return _correlation(_flat(first), _flat(second))


def spearman(first: AnyMaps, second: AnyMaps) -> Scores:
    """Spearman's rank correlation over the pixels of each pair of maps [N, H, W], [N]; equal values share a rank."""
    return _correlation(rankdata(_flat(first), axis=1), rankdata(_flat(second), axis=1))


def hottest_iou(first: AnyMaps, second: AnyMaps, share: float = HOTTEST) -> Scores:
    """Intersection over union of the hottest pixels of each pair of maps [N, H, W], [N]; NaN where one is constant.

    Two maps that have nothing to do with each other come to ``share / (2 - share)`` on average, .11 for a fifth.

    Args:
        first: [N, H, W].
        second: [N, H, W].
        share: of the pixels, in (0, 1].
    """
    counts = np.full(len(first), max(1, round(share * first.shape[1] * first.shape[2])))
    overlap = soft_iou(keep_largest(first, counts), keep_largest(second, counts))
    return np.where(_constant(_flat(first)) | _constant(_flat(second)), np.nan, overlap)


def _flat(maps: AnyMaps) -> Scores:
    return maps.reshape(len(maps), -1).astype(np.float64)


def _constant(values: Scores) -> npt.NDArray[np.bool_]:
    return np.asarray(values.max(axis=1) == values.min(axis=1))


def _correlation(first: Scores, second: Scores) -> Scores:
    """Pearson's correlation of each pair of rows [N, P]."""
    undefined = _constant(first) | _constant(second)
    one, other = (values - values.mean(axis=1, keepdims=True) for values in (first, second))
    scale = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    found = (one * other).sum(axis=1) / np.where(undefined, 1, scale)
    return np.where(undefined, np.nan, found.clip(-1, 1))
