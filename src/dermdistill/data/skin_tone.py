"""Skin tone as a photograph shows it: the individual typology angle (ITA) of the skin around a lesion.

ITA = arctan((L* - 50) / b*) in degrees (Chardon, Cretois and Hourseau, Int. J. Cosmet. Sci. 13:191, 1991): the
larger, the lighter. Bands after Del Bino and Bernerd, Br. J. Dermatol. 169 Suppl. 3:33, 2013.

Pixels outside the lesion's mask count, save those that a robust rule takes for something else than skin:

- within ``MARGIN`` of the mask, where pigment and redness go on beyond the drawn border;
- further than ``CENTRAL`` of the half diagonal from the centre, where dermatoscopes leave dark corners;
- darker than ``DARKEST`` in all three channels (black corners), or with a channel of ``BRIGHTEST`` or more (glare);
- further than ``SPREADS`` robust standard deviations (1.4826 times the median absolute deviation) from the median
  of L*, a* or b* (hair, ink, rulers, bubbles, other lesions).

The ITA is that of the median L* and b* of the rest. It is unknown where fewer than ``FEWEST_PIXELS`` are left, and
where b* is not above 0: no skin is bluer than grey, so the picture has a colour cast and the arctangent leaves the
range of its bands (taken at its word it would call such pale pictures dark).

Limits. A dermatoscope's light and its camera's white balance are not controlled, so the ITA of a photograph is not
that of the skin; ways to estimate it disagree on the same pictures (Kalb et al., "Revisiting Skin Tone Fairness in
Dermatological Lesion Classification", FAIMI at MICCAI 2023). No colour is corrected here: white balancing by the
picture itself would remove the skin's own tone. HAM10000 holds little dark skin.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import maximum_filter1d

from dermdistill.data.decode import decode_image
from dermdistill.data.lesion_size import NO_MASK, Mask, read_mask
from dermdistill.errors import DataError

Lab = npt.NDArray[np.float32]

# Lightest first; an angle above the bound is in the band.
TONE_BANDS: tuple[tuple[str, float], ...] = (
    ("very light", 55.0),
    ("light", 41.0),
    ("intermediate", 28.0),
    ("tan", 10.0),
    ("brown", -30.0),
    ("dark", -np.inf),
)
# Larger pictures are read at every n-th pixel. Averaging would mix hair with skin; a median needs no more.
LONGEST_SIDE = 100
MARGIN = 0.05  # of the shorter side
CENTRAL = 0.8
DARKEST, BRIGHTEST = 40, 250
SPREADS = 3.0
LEAST_SPREAD = 1.0  # of L*, a*, b*, so that even skin is not trimmed to nothing
FEWEST_PIXELS = 150

# IEC 61966-2-1 (sRGB) to XYZ, and the white point D65 of the 2-degree observer.
_TO_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]],
)
_WHITE = np.array([0.95047, 1.0, 1.08883])
_CUT, _SLOPE, _OFFSET = (6 / 29) ** 3, (29 / 6) ** 2 / 3, 4 / 29


def _linear_levels() -> npt.NDArray[np.float32]:
    level = np.arange(256) / 255
    return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4).astype(np.float32)


_LINEAR = _linear_levels()
_TO_RELATIVE = (_TO_XYZ / _WHITE[:, None]).T.astype(np.float32)


@dataclass(frozen=True)
class Tone:
    """ITA in degrees, NaN where it is unknown; its band, or ``unknown``; why it is unknown, else empty."""

    ita: float
    band: str
    reason: str = ""


def lab(pixels: npt.NDArray[np.uint8]) -> Lab:
    """CIELAB under D65 (CIE 15:2004) of sRGB pixels.

    Args:
        pixels: uint8 [..., 3].

    Returns:
        float32 [..., 3]: L* in [0, 100], a*, b*.
    """
    relative = _LINEAR[pixels] @ _TO_RELATIVE
    bent = np.where(relative > _CUT, np.cbrt(relative), _SLOPE * relative + _OFFSET)
    x, y, z = bent[..., 0], bent[..., 1], bent[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(np.float32)


def typology_angle(lightness: float, blue_yellow: float) -> float:
    """ITA in degrees, atan2(L* - 50, b*): the arctangent of Chardon et al. where b* > 0, defined for b* = 0 too."""
    return float(np.degrees(np.arctan2(lightness - 50.0, blue_yellow)))


def tone_band(ita: float) -> str:
    """The band of ``TONE_BANDS`` that an angle in degrees falls into; an upper bound belongs to the band.

    Raises:
        DataError: the angle is NaN.
    """
    if np.isnan(ita):
        raise DataError("the typology angle is NaN", rule="a band needs an angle in degrees")
    return next(name for name, low in TONE_BANDS if ita > low or low == -np.inf)


def skin_tone(image: npt.NDArray[np.uint8], mask: Mask) -> Tone:
    """The tone of the skin around one lesion, by the rules at the top of this module.

    Args:
        image: uint8 [H, W, 3], sRGB.
        mask: bool [H, W], the lesion.

    Raises:
        DataError: image and mask differ in size.
    """
    if image.shape[:2] != mask.shape:
        raise DataError(f"image {list(image.shape[:2])}, mask {list(mask.shape)}", rule="both are of one size")
    skin = skin_lab(image, mask)
    if len(skin) < FEWEST_PIXELS:
        return Tone(np.nan, "unknown", f"fewer than {FEWEST_PIXELS} usable pixels of skin")
    lightness, _, blue_yellow = np.median(skin, axis=0)
    if blue_yellow <= 0:
        return Tone(np.nan, "unknown", "a colour cast: bluer than any skin (b* is not above 0)")
    ita = typology_angle(float(lightness), float(blue_yellow))
    return Tone(ita, tone_band(ita))


def skin_lab(image: npt.NDArray[np.uint8], mask: Mask) -> Lab:
    """L*, a*, b* of the pixels that count as skin, float32 [P, 3]; arguments as ``skin_tone``."""
    step = max(1, -(-max(mask.shape) // LONGEST_SIDE))
    image, mask = image[::step, ::step], mask[::step, ::step]
    brightest = image.max(axis=-1)
    usable = ~_grown(mask) & _central(mask.shape) & (brightest >= DARKEST) & (brightest < BRIGHTEST)
    colours = lab(image[usable])
    return colours[_typical(colours)] if len(colours) else colours


def _grown(mask: Mask) -> Mask:
    """The mask and all within the margin of it, along rows and columns."""
    width = 2 * max(1, round(MARGIN * min(mask.shape))) + 1
    rows = maximum_filter1d(mask.view(np.uint8), width, axis=0, mode="constant")
    return np.asarray(maximum_filter1d(rows, width, axis=1, mode="constant"), dtype=np.bool_)


def _central(shape: tuple[int, ...]) -> Mask:
    height, width = shape
    y, x = np.ogrid[:height, :width]
    distance = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2)
    inside: Mask = distance <= CENTRAL * np.hypot(height, width) / 2
    return inside


def _typical(colours: Lab) -> Mask:
    away = np.abs(colours - np.median(colours, axis=0))
    spread = np.maximum(1.4826 * np.median(away, axis=0), LEAST_SPREAD)
    return np.asarray((away <= SPREADS * spread).all(axis=1))


def skin_tones(catalog_rows: pd.DataFrame) -> pd.DataFrame:
    """The skin tone of every image.

    Args:
        catalog_rows: rows of a catalog; ``image_id``, ``path`` and ``mask_path`` are read.

    Returns:
        One row a row, in order: ``image_id``; ``ita`` in degrees, NaN where unknown; ``band`` of ``TONE_BANDS`` or
        ``unknown``; ``reason`` in words why it is unknown, else empty.
    """
    rows = []
    columns = (catalog_rows[name] for name in ("image_id", "path", "mask_path"))
    for image_id, path, mask_path in zip(*columns, strict=True):
        tone = _tone_of_files(path, mask_path)
        rows.append((image_id, tone.ita, tone.band, tone.reason))
    return pd.DataFrame(rows, columns=["image_id", "ita", "band", "reason"])


def _tone_of_files(path: object, mask_path: object) -> Tone:
    if not isinstance(path, str):
        return Tone(np.nan, "unknown", "no image")
    if not isinstance(mask_path, str):
        return Tone(np.nan, "unknown", NO_MASK)
    try:
        return skin_tone(decode_image(Path(path)), read_mask(Path(mask_path)))
    except DataError as fault:
        return Tone(np.nan, "unknown", f"image or mask cannot be used: {fault.problem}")
