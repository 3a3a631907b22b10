"""How much of its picture a lesion fills, from its mask.

The scale of a dermatoscopic photograph is not known: zoom, distance and cropping differ. So the size is a share of
the picture's area, not a length on the skin. A large share may be a large lesion or a close photograph.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermdistill.data.decode import decode_image
from dermdistill.errors import DataError

Mask = npt.NDArray[np.bool_]

# Fixed, so that a band means the same in every run and data set, which thirds of one test part would not. A round
# lesion in a 4:3 picture has a diameter of .41 of the picture's height at 10% of its area, and of .71 at 30%.
SIZE_BANDS: tuple[tuple[str, float], ...] = (("below 10%", 0.0), ("10% to 30%", 0.1), ("30% and more", 0.3))
NO_MASK = "no mask"
EMPTY_MASK = "the mask is empty"
LIT = 128


def read_mask(path: Path) -> Mask:
    """The pixels of a lesion, bool [H, W]: those at least half lit.

    Raises:
        PictureError: the file is missing or no sound image.
    """
    lit: Mask = decode_image(path)[..., 0] >= LIT
    return lit


def size_band(share: float) -> str:
    """The band of ``SIZE_BANDS`` that a share of the picture, in (0, 1], falls into; a lower bound belongs to it.

    Raises:
        DataError: a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise DataError(f"a lesion fills {share} of its picture", rule="a share lies in (0, 1]")
    return next(name for name, low in reversed(SIZE_BANDS) if share >= low)


def lesion_sizes(catalog_rows: pd.DataFrame) -> pd.DataFrame:
    """Share of the picture inside the lesion's mask.

    Args:
        catalog_rows: rows of a catalog; ``image_id`` and ``mask_path`` are read.

    Returns:
        One row a row, in order: ``image_id``; ``share`` in (0, 1], NaN where unknown; ``band`` of ``SIZE_BANDS`` or
        ``unknown``; ``reason`` in words why it is unknown, else empty.
    """
    rows = [(image_id, *_size(mask)) for image_id, mask in _named_masks(catalog_rows)]
    return pd.DataFrame(rows, columns=["image_id", "share", "band", "reason"])


def _named_masks(catalog_rows: pd.DataFrame) -> Sequence[tuple[str, str | None]]:
    masks = [mask if isinstance(mask, str) else None for mask in catalog_rows["mask_path"]]
    return list(zip(catalog_rows["image_id"], masks, strict=True))


def _size(mask_path: str | None) -> tuple[float, str, str]:
    if mask_path is None:
        return np.nan, "unknown", NO_MASK
    try:
        share = float(read_mask(Path(mask_path)).mean())
    except DataError as fault:
        return np.nan, "unknown", f"the mask cannot be read: {fault.problem}"
    return (share, size_band(share), "") if share > 0 else (np.nan, "unknown", EMPTY_MASK)
