"""One synthetic lesion, and the photos of it: the painted sheet laid on skin, lit, and seen by a camera."""

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from dermdistill.config import Artefact
from dermdistill.data.synthetic_artefacts import add_artefacts
from dermdistill.data.synthetic_diagnoses import PAINTERS
from dermdistill.data.synthetic_lesion import REACH, Sheet
from dermdistill.data.synthetic_skin import expose, light, skin_field, skin_tone
from dermdistill.data.synthetic_texture import Field

# Median lesion radius over the picture's shorter side; single lesions spread widely around it.
_RADIUS = {"akiec": 0.31, "bcc": 0.27, "bkl": 0.30, "df": 0.25, "mel": 0.32, "nv": 0.27, "vasc": 0.23}
_RADIUS_RANGE = (0.13, 0.44)
_GRAIN = 0.05
# Streams of random numbers of one lesion, so that no part of a drawing shifts another.
_SKIN, _PAINT, _VIEW, _ARTEFACTS = range(4)


@dataclass(frozen=True)
class Photo:
    """A photo and its lesion.

    Args:
        image: RGB picture.
        mask: bool [height, width], where the lesion is, as drawn and before any artefact.
        quality: of the JPEG that it is to be stored as.
    """

    image: Image.Image
    mask: npt.NDArray[np.bool_]
    quality: int

    def jpeg(self) -> bytes:
        """The picture as a JPEG file."""
        buffer = io.BytesIO()
        self.image.save(buffer, "JPEG", quality=self.quality)
        return buffer.getvalue()

    def mask_png(self) -> bytes:
        """The mask as a PNG file of one bit a pixel."""
        buffer = io.BytesIO()
        Image.fromarray(self.mask).save(buffer, "PNG")
        return buffer.getvalue()


def draw_photos(
    diagnosis: str, key: Sequence[int], count: int, size: tuple[int, int], artefacts: Sequence[Artefact]
) -> Iterator[Photo]:
    """Photos of one lesion, each from another place, angle and distance, in other light.

    Args:
        diagnosis: one of ``labels.CODES``.
        key: non-negative integers that name the lesion; the drawing depends on them and the size alone.
        count: how many photos.
        size: width and height in pixels.
        artefacts: which may lie over the lesion.
    """
    short = min(size)
    rng = np.random.default_rng([*key, _SKIN])
    tone = skin_tone(rng)
    radius = float(np.clip(_RADIUS[diagnosis] * math.exp(rng.normal(0, 0.3)), *_RADIUS_RANGE))
    side = max(48, math.ceil(2.2 * REACH * radius * short))
    sheet = Sheet(np.random.default_rng([*key, _PAINT]), side, tone, _GRAIN / radius)
    PAINTERS[diagnosis](sheet)
    sheet.weather()
    for number in range(count):
        view = np.random.default_rng([*key, _VIEW, number])
        zoom = math.exp(view.normal(0, 0.15))
        turned, mask = _place(view, sheet, radius * zoom, size)
        scene = skin_field(view, (size[1], size[0]), tone)
        scene += turned[:, :, :3] - scene * turned[:, :, 3:]
        scene *= light(view, (size[1], size[0]))
        add_artefacts(scene, artefacts, [*key, _ARTEFACTS, number])
        yield Photo(expose(view, scene), mask, int(view.integers(72, 96)))


def _place(
    rng: np.random.Generator, sheet: Sheet, radius: float, size: tuple[int, int]
) -> tuple[Field, npt.NDArray[np.bool_]]:
    """Paint (premultiplied RGB and cover, float32 [height, width, 4]) and mask, as seen in the photo."""
    width, height = size
    scale = sheet.side / (2 * REACH) / (float(np.clip(radius, 0.1, 0.47)) * min(size))
    turn, flip = rng.uniform(0, 2 * math.pi), rng.choice([-1.0, 1.0])
    centre = np.array([width, height]) * (0.5 + np.clip(rng.normal(0, 0.05, 2), -0.12, 0.12))
    matrix = scale * np.array([[math.cos(turn), math.sin(turn)], [-flip * math.sin(turn), flip * math.cos(turn)]])
    shift = sheet.side / 2 - matrix @ centre
    plan = (*matrix[0], shift[0], *matrix[1], shift[1])
    paint = np.empty((height, width, 4), dtype=np.float32)
    for channel, layer in enumerate((*np.moveaxis(sheet.rgb, 2, 0), sheet.cover)):
        paint[:, :, channel] = _warp(layer, plan, size)
    # Depth is negative outside; beyond the sheet Pillow fills in 0, so the mask asks for more than that.
    return paint, _warp(sheet.depth, plan, size) > np.float32(1e-3)


def _warp(layer: Field, plan: tuple[float, ...], size: tuple[int, int]) -> Field:
    picture = Image.fromarray(np.ascontiguousarray(layer))
    turned = picture.transform(size, Image.Transform.AFFINE, plan, Image.Resampling.BILINEAR)
    return np.asarray(turned, dtype=np.float32)
