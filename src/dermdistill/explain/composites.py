"""Pictures whose lesion was moved off the centre, to tell a map that finds it from one that always says "centre".

HAM10000 lesions lie in the middle of their pictures, so any agreement with the mask may be mere centring (Tatler,
J. Vision 7(14):4, 2007, on the centre bias of photographs). Here the lesion leaves the middle of the same picture:

1. The skin without the lesion is thought as smooth skin times a fine texture. Smooth skin under the lesion is the
   membrane between its surroundings (Laplace's equation, as in Pérez et al., "Poisson image editing", SIGGRAPH 2003);
   the texture is the surroundings' own, mirrored at the lesion's border.
2. The lesion is taken as the share of light that it leaves of smooth skin, with a margin that fades out, and put on
   the smooth skin of another place. So it takes on the light of its new place, dark corners included.

A composite is no photograph: it tests where a map points, and no figure of diagnosis is made of it.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.linalg import splu

from dermdistill.errors import DataError

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]
Scalar = TypeVar("Scalar", bound=np.generic)

MARGIN = 0.06  # of the shorter side: pigment and redness go on beyond the drawn border
# From the picture's centre to the lesion's, in sides of the picture: .5 is the border.
LEAST_OFFSET = 0.2
SMALLEST, LARGEST = 0.005, 0.4  # of the picture's area
MOST_HIDDEN = 0.8  # of the picture's area, margin included
DARKEST_SKIN = 0.75  # of the light at the old place: in a black corner no lesion could be seen
SMOOTH_SIDE = 80  # smooth skin needs no more pixels
SMOOTHING = 2.4  # pixels of these
PLACES = 64


@dataclass(frozen=True, eq=False)
class Composite:
    """A picture uint8 [H, W, 3] with its lesion elsewhere, and the mask bool [H, W] of that place."""

    image: Pixels
    mask: Mask


@dataclass(frozen=True)
class Refusal:
    """Why a picture's lesion cannot be moved."""

    reason: str


def move_lesion(image: Pixels, mask: Mask, *, seed: int) -> Composite | Refusal:
    """The same picture with its lesion at another place, off the centre.

    The place is drawn evenly from those where the whole mask lies inside the picture, stays the margin away from the
    picture's centre, has its own centre at least ``LEAST_OFFSET`` from there, and where the skin is lit.

    Args:
        image: uint8 [H, W, 3], RGB.
        mask: bool [H, W], the lesion.
        seed: of the place.

    Returns:
        The composite, or why there is none: no lesion, a tiny or a huge one, one that runs out of the picture, one
        for which there is no place.

    Raises:
        DataError: image and mask do not fit each other.
    """
    if image.dtype != np.uint8 or image.shape != (*mask.shape, 3) or mask.dtype != np.bool_:
        raise DataError(
            f"image {image.dtype} {list(image.shape)}, mask {mask.dtype} {list(mask.shape)}",
            rule="an image uint8 [H, W, 3] and a mask bool [H, W]",
        )
    reason = _unfit(mask)
    if reason:
        return Refusal(reason)
    # 0 on the lesion, 1 where its margin ends.
    away = distance_transform_edt(~mask) / (MARGIN * min(mask.shape))
    hidden = away <= 1
    if hidden.mean() > MOST_HIDDEN:
        return Refusal("too little skin is left around the lesion")
    smooth = smooth_skin(image, hidden)
    step = _place(mask, hidden, smooth.mean(axis=2), np.random.default_rng(seed))
    if step is None:
        return Refusal("there is no place off the centre where the lesion fits on lit skin")
    light = (image + 1.0) / (smooth + 1.0)
    bare = smooth * bare_texture(light, hidden)
    opacity = _shifted(_faded(away), step, 0)[..., None]
    composed = bare * (1 - opacity) + smooth * _shifted(light, step, 1) * opacity
    return Composite(np.rint(composed.clip(0, 255)).astype(np.uint8), _shifted(mask, step, 0))


def _unfit(mask: Mask) -> str:
    share = float(mask.mean())
    if share == 0:
        return "the mask is empty"
    if not SMALLEST <= share <= LARGEST:
        return f"the lesion fills less than {SMALLEST:.1%} or more than {LARGEST:.0%} of the picture"
    if mask[[0, -1]].any() or mask[:, [0, -1]].any():
        return "the lesion runs out of the picture"
    return ""


def _faded(away: Floats) -> Floats:
    """1 on the lesion to 0 where its margin ends, smooth at both ends."""
    near = np.clip(1 - away, 0, 1)
    return np.asarray(near * near * (3 - 2 * near), dtype=np.float64)


def _shifted(values: npt.NDArray[Scalar], step: tuple[int, int], fill: int) -> npt.NDArray[Scalar]:
    """``values[y - dy, x - dx]``, and ``fill`` where that lies outside."""
    to, source = zip(*(_overlap(move, size) for move, size in zip(step, values.shape, strict=False)), strict=True)
    result = np.full_like(values, fill)
    result[to] = values[source]
    return result


def _overlap(move: int, size: int) -> tuple[slice, slice]:
    return slice(max(move, 0), size + min(move, 0)), slice(max(-move, 0), size - max(move, 0))


def _place(mask: Mask, grown: Mask, light: Floats, generator: np.random.Generator) -> tuple[int, int] | None:
    """A step (dy, dx) to a place that ``move_lesion`` allows, or None.

    ``grown`` is the mask with its margin, ``light`` [H, W] that of smooth skin.
    """
    height, width = mask.shape
    y, x = np.nonzero(mask)
    dy, dx = (axis.ravel() for axis in np.mgrid[-y.min() : height - y.max(), -x.min() : width - x.max()])
    offset = np.hypot((y.mean() + dy + 0.5) / height - 0.5, (x.mean() + dx + 0.5) / width - 0.5)
    # What lies at the picture's centre after a step lay that much before it; outside the picture is no lesion.
    around = np.pad(grown, ((height, height), (width, width)))
    covered = around[height + height // 2 - dy, width + width // 2 - dx]
    allowed = np.stack([dy, dx], axis=1)[(offset >= LEAST_OFFSET) & ~covered]
    before = float(light[mask].mean())
    for down, right in generator.permutation(allowed)[:PLACES].tolist():
        if light[y + down, x + right].mean() >= DARKEST_SKIN * before:
            return down, right
    return None


def smooth_skin(image: Pixels, hidden: Mask) -> Floats:
    """The skin's light without fine texture and without what is hidden.

    Args:
        image: uint8 [H, W, 3].
        hidden: bool [H, W], not all of it.

    Returns:
        float64 [H, W, 3] in [0, 255]: a Gaussian mean of skin, and where it is hidden the membrane between.
    """
    height, width = hidden.shape
    shrink = min(1.0, SMOOTH_SIDE / max(height, width))
    small = (max(2, round(width * shrink)), max(2, round(height * shrink)))
    shares = _resized(hidden.astype(np.float32), small)
    covered = shares > min(0.5, float(shares.min()))  # never all of it
    skin = np.where(covered, 0.0, 1.0)
    values = np.stack([_resized(image[..., channel].astype(np.float32), small) for channel in range(3)], axis=2)
    sums = gaussian_filter(values * skin[..., None], SMOOTHING, axes=(0, 1), mode="nearest")
    mean = sums / np.maximum(gaussian_filter(skin, SMOOTHING, mode="nearest"), 1e-6)[..., None]
    filled = membrane(mean, covered).astype(np.float32)
    return np.stack([_resized(filled[..., channel], (width, height)) for channel in range(3)], axis=2)


def _resized(values: npt.NDArray[np.float32], size: tuple[int, int]) -> Floats:
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR), dtype=np.float64)


def membrane(values: Floats, hidden: Mask) -> Floats:
    """What is not hidden as it is; elsewhere each pixel the mean of its neighbours (Laplace's equation).

    At the picture's border only the neighbours inside it count.

    Args:
        values: float64 [H, W, C].
        hidden: bool [H, W], not all of it.

    Returns:
        float64 [H, W, C].
    """
    filled = values.copy()
    y, x = np.nonzero(hidden)
    if not len(y):
        return filled
    number = np.full(hidden.shape, -1)
    number[y, x] = np.arange(len(y))
    rows, columns = [], []
    degree, known = np.zeros(len(y)), np.zeros((len(y), values.shape[2]))
    for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        beside_y, beside_x = y + down, x + right
        inside = (beside_y >= 0) & (beside_y < hidden.shape[0]) & (beside_x >= 0) & (beside_x < hidden.shape[1])
        own, beside = np.flatnonzero(inside), (beside_y[inside], beside_x[inside])
        degree[own] += 1
        free = number[beside] >= 0
        rows.append(own[free])
        columns.append(number[beside][free])
        known[own[~free]] += values[beside][~free]
    diagonal = np.arange(len(y))
    weights = np.concatenate([degree, np.full(sum(map(len, rows)), -1.0)])
    places = (np.concatenate([diagonal, *rows]), np.concatenate([diagonal, *columns]))
    # The matrix is symmetric: this order of elimination keeps its factors small.
    filled[y, x] = splu(coo_array((weights, places)).tocsc(), permc_spec="MMD_AT_PLUS_A").solve(known)
    return filled


def bare_texture(light: Floats, hidden: Mask) -> Floats:
    """Texture of skin alone: where it is hidden, that of the place as far beyond the border, mirrored.

    Args:
        light: float64 [H, W, 3], the picture divided by its smooth skin.
        hidden: bool [H, W], not all of it.

    Returns:
        float64 [H, W, 3]; 1, smooth, where the mirror shows what is hidden too.
    """
    nearest = distance_transform_edt(hidden, return_distances=False, return_indices=True)
    mirrored = 2 * nearest - np.indices(hidden.shape)
    y, x = (_folded(axis, size) for axis, size in zip(mirrored, hidden.shape, strict=True))
    seen = np.where(hidden[y, x, None], 1.0, light[y, x])
    return np.where(hidden[..., None], seen, light)


def _folded(places: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """Places beyond the picture's border mirrored back into it."""
    period = max(1, 2 * (size - 1))
    around = places % period
    return np.minimum(around, period - around)
