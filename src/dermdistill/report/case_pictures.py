"""Small pictures of chosen cases for the report of a run folder.

They are read from the user's own images, and stay in the user's own run folder: no picture of a person may enter
``evaluation.json`` or the repository.
"""

import base64
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pandas as pd
from PIL import Image

from dermdistill.atomic import atomic_folder
from dermdistill.evaluate.cases import case_ids
from dermdistill.pictures import PictureError, read_content, read_pixels

SIDE: Final = 128
QUALITY: Final = 80


def case_pictures(cases: Mapping[str, Any], catalog: pd.DataFrame, *, side: int = SIDE) -> dict[str, str]:
    """Thumbnails of all cases that can be shown, {image_id: data URI}.

    An image that is not in the catalog, or cannot be read, is left out; the section then says so.

    Args:
        cases: of ``evaluate.cases.choose_cases``.
        catalog: with ``image_id`` and ``path``.
        side: of the longer side, pixels.
    """
    start = "data:image/jpeg;base64,"
    return {image: start + base64.b64encode(content).decode() for image, content in _pictures(cases, catalog, side)}


def write_case_pictures(folder: Path, cases: Mapping[str, Any], catalog: pd.DataFrame, *, side: int = SIDE) -> int:
    """Write the same thumbnails as ``folder/IMAGE_ID.jpg``, in place of an older folder.

    Returns:
        how many were written.

    Raises:
        OutputError: the folder cannot be written.
    """
    written = 0
    with atomic_folder(folder) as temporary:
        for image, content in _pictures(cases, catalog, side):
            # An id may hold more than a file's name can.
            if Path(image).name == image:
                (temporary / f"{image}.jpg").write_bytes(content)
                written += 1
    return written


def thumbnail(path: Path, *, side: int = SIDE) -> bytes | None:
    """A JPEG whose longer side is at most ``side`` pixels; None where the image cannot be read."""
    try:
        picture = Image.fromarray(read_pixels(read_content(path), path.name))
    except PictureError:
        return None
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    picture.save(buffer, format="JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def _pictures(cases: Mapping[str, Any], catalog: pd.DataFrame, side: int) -> Iterator[tuple[str, bytes]]:
    paths = dict(zip(catalog["image_id"].astype(str), catalog["path"].astype(str), strict=True))
    for image in case_ids(cases):
        content = thumbnail(Path(paths[image]), side=side) if image in paths else None
        if content is not None:
            yield image, content
