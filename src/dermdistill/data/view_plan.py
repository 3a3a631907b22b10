"""What is to be done to each image of a batch, computed from its draws: maps, factors, boxes and partners.

Every function takes what ``draw`` gives and answers with one line an image; ``augment.py`` carries it out.
"""

from collections.abc import Mapping
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import special

from dermdistill.config import AugmentConfig
from dermdistill.data.draws import uniforms
from dermdistill.errors import DataError
from dermdistill.preprocess import PreprocessSpec

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Draws = Mapping[str, Floats]

# One draw each. Append only: the place of a name decides its draw, whatever else is turned on or off.
COLUMNS = (
    *("flip_x", "flip_y", "rotate", "scale", "shift_x", "shift_y"),
    *("brightness", "contrast", "saturation", "hue"),
    *("blur", "blur_share", "cutout", "cutout_side", "cutout_x", "cutout_y"),
    *("mixup", "mixup_partner", "mixup_share"),
    "artefact",
)
# ITU-R BT.601 luma, and the chroma axes of NTSC's YIQ.
RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def draw(seed: int, epoch: int, rows: Rows) -> dict[str, Floats]:
    """All draws of the given rows: name of ``COLUMNS`` -> float64 [B] in [0, 1)."""
    columns = np.ascontiguousarray(uniforms(seed, epoch, rows, len(COLUMNS)).T)
    return dict(zip(COLUMNS, columns, strict=True))


def affine_maps(draws: Draws, config: AugmentConfig) -> Floats:
    """Where each pixel of the view comes from.

    Coordinates run from -1 to 1 between the image's edges, x first. The content is flipped, then turned, then
    zoomed by a log-uniform factor, then shifted.

    Returns:
        float64 [B, 2, 3]: source = map[:, :2] @ target + map[:, 2].
    """
    flip_x = np.where(config.flip & (draws["flip_x"] < 0.5), -1.0, 1.0)
    flip_y = np.where(config.flip & (draws["flip_y"] < 0.5), -1.0, 1.0)
    angle = np.deg2rad(config.rotate_degrees) * (2 * draws["rotate"] - 1)
    zoom = np.exp(np.log1p(config.scale) * (2 * draws["scale"] - 1))
    # A share of the side is twice that in coordinates from -1 to 1.
    shift_x = 2 * config.shift * (2 * draws["shift_x"] - 1)
    shift_y = 2 * config.shift * (2 * draws["shift_y"] - 1)
    cosine, sine = np.cos(angle) / zoom, np.sin(angle) / zoom
    rows = np.array([[flip_x * cosine, flip_x * sine], [-flip_y * sine, flip_y * cosine]])
    origin = -rows[:, 0] * shift_x - rows[:, 1] * shift_y
    return np.ascontiguousarray(np.stack([rows[:, 0], rows[:, 1], origin], axis=1).transpose(2, 0, 1))


@cache
def _hue_axes() -> tuple[Floats, Floats]:
    """Luma projection and quarter turn of hue, both float64 [3, 3] on RGB."""
    to_yiq = np.array(RGB_TO_YIQ)
    quarter = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    return np.tile(to_yiq[0], (3, 1)), np.linalg.inv(to_yiq) @ quarter @ to_yiq


def colour_maps(draws: Draws, config: AugmentConfig, spec: PreprocessSpec) -> Floats:
    """Colour changes and normalisation as one matrix and offset an image; nothing is clipped.

    Saturation scales chroma about the pixel's own grey and hue turns it in YIQ; then contrast scales about
    the grey of ``spec.mean`` and brightness scales about black. Factors are uniform in 1 +- the setting.

    Returns:
        float64 [B, 3, 4]: normalised = map[:, :3] @ stored RGB (0 to 255) + map[:, 3].
    """

    def factor(name: str, width: float) -> Floats:
        return 1 + width * (2 * draws[name] - 1)

    luma, turn = _hue_axes()
    angle = 2 * np.pi * config.hue * (2 * draws["hue"] - 1)
    saturation = factor("saturation", config.saturation)
    contrast, brightness = factor("contrast", config.contrast), factor("brightness", config.brightness)
    along, across = saturation * np.cos(angle), saturation * np.sin(angle)
    chroma = along[:, None, None] * (np.eye(3) - luma) + across[:, None, None] * turn
    mean, std = np.array(spec.mean), np.array(spec.std)
    grey = float((mean * np.array(RGB_TO_YIQ[0])).sum())
    matrix = (contrast * brightness)[:, None, None] * (luma + chroma) / (255 * std[:, None])
    offset = ((brightness * (1 - contrast) * grey)[:, None] - mean) / std
    return np.concatenate([matrix, offset[:, :, None]], axis=2)


def blur_shares(draws: Draws, config: AugmentConfig) -> Floats:
    """Weight of the blurred image in the view, float64 [B] in [0, 1): 0 where it is not blurred."""
    return np.where(draws["blur"] < config.blur, draws["blur_share"], 0.0)


def cutout_boxes(draws: Draws, config: AugmentConfig, size: int) -> npt.NDArray[np.int64]:
    """The square to blank in each view, wholly inside it.

    Returns:
        int64 [B, 3]: left, top, side in pixels. Side is uniform from 1 to the largest allowed; 0 cuts
        nothing.
    """
    largest = max(1, int(config.cutout_size * size))
    side = np.where(draws["cutout"] < config.cutout, 1 + np.floor(draws["cutout_side"] * largest), 0.0)
    left, top = (np.floor(draws[name] * (size - side + 1)) for name in ("cutout_x", "cutout_y"))
    return np.stack([left, top, side], axis=1).astype(np.int64)


def artefact_keys(draws: Draws, config: AugmentConfig) -> npt.NDArray[np.int64]:
    """What names each image's artefact, int64 [B]: -1 where it gets none, else a number in [0, 2^53).

    It is the draw itself. So one column says whether, which, how strong and where, and an image whose draw is below two
    probabilities has the same artefact with both.
    """
    return np.where(draws["artefact"] < config.artefacts, draws["artefact"] * 2.0**53, -1.0).astype(np.int64)


def mixup_plan(draws: Draws, config: AugmentConfig, partner_rows: Rows) -> tuple[Rows, npt.NDArray[np.float32]]:
    """Partner (-1: none) and own share of each image: int64 [B] and float32 [B].

    The share is the larger side of a Beta(alpha, alpha) draw (Zhang et al., "mixup", ICLR 2018), so an image
    keeps at least half of its own view.

    Raises:
        DataError: mixup is on and there is nobody to mix with.
    """
    if config.mixup > 0 and len(partner_rows) == 0:
        raise DataError("mixup has no partners", rule="partner_rows holds the rows of the training part")
    mixed = draws["mixup"] < config.mixup
    partners = np.full(len(mixed), -1, dtype=np.int64)
    partners[mixed] = partner_rows[(draws["mixup_partner"][mixed] * len(partner_rows)).astype(np.int64)]
    shares = np.ones(len(mixed), dtype=np.float32)
    # The upper half of a symmetric distribution is its quantile function from one half on.
    shares[mixed] = special.betaincinv(config.mixup_alpha, config.mixup_alpha, 0.5 + draws["mixup_share"][mixed] / 2)
    return partners, shares
