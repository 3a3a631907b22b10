"""Whether a map points at the lesion, by its mask.

Each figure is NaN where it is not defined (the mask is empty, or the map blank) and never 0 for that. Lesions lie in
the middle of most dermatoscopic pictures, so a figure means something only beside that of ``centre_prior``.
"""

import numpy as np
import numpy.typing as npt

from dermdistill.errors import ConfigError
from dermdistill.explain.explainer import Maps, Scores, blank, check_maps
from dermdistill.preprocess import PreprocessSpec, resize_image

Mask = npt.NDArray[np.bool_]
AnyMaps = npt.NDArray[np.floating]

# The mean of all masks of HAM10000 spreads so, in sides of the picture: .201 down and .179 across (every tenth image).
PRIOR_SPREAD = 0.2
LIT = 128


def mask_at(mask: Mask, spec: PreprocessSpec) -> Mask:
    """A mask bool [H, W] at the size of a model's input, bool [S, S]: pixels of which at least half are lesion."""
    lit = np.where(mask, 255, 0).astype(np.uint8)
    resized: Mask = resize_image(np.repeat(lit[..., None], 3, axis=2), spec)[..., 0] >= LIT
    return resized


def centre_prior(height: int, width: int) -> Maps:
    """The map that always says "centre": a Gaussian of ``PRIOR_SPREAD`` sides, largest value 1.

    Whatever a method scores, this scores without having seen a picture or a model.

    Returns:
        float32 [H, W] in [0, 1].
    """
    y, x = ((np.arange(size) + 0.5) / size - 0.5 for size in (height, width))
    prior = np.exp(-(y[:, None] ** 2 + x**2) / (2 * PRIOR_SPREAD**2))
    scaled: Maps = (prior / prior.max()).astype(np.float32)
    return scaled


def energy_in_mask(maps: AnyMaps, masks: Mask) -> Scores:
    """The share of a map's sum that lies in the mask.

    The energy-based pointing game of Wang et al., "Score-CAM", CVPR Workshops 2020, section 4.3.

    Args:
        maps: [N, H, W], not negative.
        masks: bool [N, H, W].

    Returns:
        float64 [N] in [0, 1], NaN where not defined.

    Raises:
        ConfigError: shapes that do not fit, or negative or infinite values.
    """
    defined = _defined(maps, masks)
    values = maps.astype(np.float64)
    sums = values.sum(axis=(1, 2))
    return np.where(defined, (values * masks).sum(axis=(1, 2)) / np.where(defined, sums, 1), np.nan)


def pointing_game(maps: AnyMaps, masks: Mask) -> Scores:
    """Whether the largest value of a map lies in the mask: 1 or 0.

    The pointing game of Zhang et al., "Top-down Neural Attention by Excitation Backprop", IJCV 126:1084, 2018, without
    its tolerance of 15 pixels. Where several pixels share the largest value, the figure is the share of them in the
    mask: what a pointer that picks one of them at random scores on average.

    Args, Returns, Raises: as ``energy_in_mask``.
    """
    defined = _defined(maps, masks)
    largest = maps == maps.max(axis=(1, 2), keepdims=True)
    return np.where(defined, (largest & masks).sum(axis=(1, 2)) / largest.sum(axis=(1, 2)), np.nan)


def iou_at_equal_area(maps: AnyMaps, masks: Mask) -> Scores:
    """Intersection over union of the mask and as many of the map's largest pixels as the mask has.

    No threshold is chosen, and a map cannot gain by its contrast. Ties at the threshold: see ``keep_largest``.

    Args, Returns, Raises: as ``energy_in_mask``.
    """
    defined = _defined(maps, masks)
    kept = keep_largest(maps, masks.sum(axis=(1, 2)))
    return np.where(defined, soft_iou(kept, masks.astype(np.float64)), np.nan)


def keep_largest(maps: AnyMaps, counts: npt.NDArray[np.integer]) -> Scores:
    """Which pixels are among the ``counts`` largest of each map, as memberships float64 [N, H, W] in [0, 1].

    Pixels of equal value have equal memberships: those at the threshold share what is left of the count. So nothing
    hangs on the order of pixels, and the memberships of a map add up to its count.

    Args:
        maps: [N, H, W].
        counts: [N], each in 0..H*W.
    """
    flat = maps.reshape(len(maps), -1)
    ordered = -np.sort(-flat, axis=1)
    last = np.take_along_axis(ordered, np.maximum(counts - 1, 0)[:, None], axis=1)
    above, tied = flat > last, flat == last
    left = (counts - above.sum(axis=1)) / tied.sum(axis=1)
    kept = np.where(above, 1.0, np.where(tied, left[:, None], 0.0))
    kept[counts == 0] = 0
    return kept.reshape(maps.shape)


def soft_iou(first: Scores, second: Scores) -> Scores:
    """Intersection over union of memberships [N, H, W]: sum of minima over sum of maxima, [N]; NaN of two empty sets.

    Of plain sets it is the usual one (Ružička, 1958).
    """
    union = np.maximum(first, second).sum(axis=(1, 2))
    shared = np.minimum(first, second).sum(axis=(1, 2))
    return np.where(union > 0, shared / np.where(union > 0, union, 1), np.nan)


LOCALISATION = {"energy": energy_in_mask, "pointing": pointing_game, "iou": iou_at_equal_area}


def localisation(maps: AnyMaps, masks: Mask) -> dict[str, Scores]:
    """All figures of ``LOCALISATION`` by name, each float64 [N], and beside each that of the centre prior.

    The prior's are named ``NAME_prior``; they are NaN where the mask is empty.
    """
    prior = np.broadcast_to(centre_prior(*maps.shape[1:]), maps.shape)
    own = {name: measure(maps, masks) for name, measure in LOCALISATION.items()}
    return {**own, **{f"{name}_prior": measure(prior, masks) for name, measure in LOCALISATION.items()}}


def _defined(maps: AnyMaps, masks: Mask) -> Mask:
    check_maps(maps)
    if masks.shape != maps.shape or masks.dtype != np.bool_:
        raise ConfigError(
            f"masks {masks.dtype} {list(masks.shape)} for maps {list(maps.shape)}",
            rule="masks are bool [N, H, W], of the maps' size",
            next_step="bring masks to the size of the model's input with mask_at",
        )
    return np.asarray(masks.any(axis=(1, 2)) & ~blank(maps))
