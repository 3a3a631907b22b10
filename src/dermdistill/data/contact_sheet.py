"""One picture with some images of each diagnosis."""

from pathlib import Path

import pandas as pd
from PIL import Image, ImageDraw, ImageFont, ImageOps

from dermdistill.data.decode import decode_all
from dermdistill.data.protocols import shuffled
from dermdistill.errors import DataError
from dermdistill.labels import DIAGNOSES

TILE = (132, 99)
GAP = 6
LABEL_HEIGHT = 26
INK, PAPER, QUIET = "#1f2933", "#ffffff", "#6b7785"


def choose(catalog: pd.DataFrame, per_class: int, seed: int) -> dict[str, list[str]]:
    """Image ids to show by diagnosis: at most ``per_class``, each of another lesion, drawn by the seed."""
    first = catalog.sort_values("image_id").drop_duplicates("lesion_id")
    return {
        str(code): shuffled(rows["image_id"].astype(str), seed)[:per_class] for code, rows in first.groupby("diagnosis")
    }


def contact_sheet(catalog: pd.DataFrame, *, per_class: int = 8, seed: int = 0) -> Image.Image:
    """A row of images for each diagnosis that occurs, in the order of ``labels.DIAGNOSES``.

    Args:
        catalog: one row an image.
        per_class: at most so many images a diagnosis, each of another lesion.
        seed: of the choice.

    Raises:
        DataError: images cannot be decoded; each is named.
    """
    chosen = choose(catalog, per_class, seed)
    rows = [item for item in DIAGNOSES if item.code in chosen]
    path_of = dict(zip(catalog["image_id"], catalog["path"], strict=True))
    names = [name for item in rows for name in chosen[item.code]]
    outcomes = decode_all(
        [Path(path_of[name]) for name in names], lambda image: ImageOps.fit(Image.fromarray(image), TILE)
    )
    faults = [outcome.problem for outcome in outcomes if isinstance(outcome, DataError)]
    if faults:
        raise DataError("images cannot be shown", faults=faults, next_step="repair or remove these files")
    tiles = dict(zip(names, outcomes, strict=True))
    width, height = TILE[0] + GAP, TILE[1] + LABEL_HEIGHT + GAP
    sheet = Image.new("RGB", (GAP + per_class * width, GAP + len(rows) * height), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    images = catalog["diagnosis"].value_counts()
    for row, item in enumerate(rows):
        top = GAP + row * height
        draw.text((GAP, top + 4), f"{item.name} ({item.code})", INK, font=font)
        offset = GAP + draw.textlength(f"{item.name} ({item.code})   ", font=font)
        draw.text((offset, top + 4), f"{images[item.code]:,} images", QUIET, font=font)
        for column, name in enumerate(chosen[item.code]):
            tile = tiles[name]
            assert isinstance(tile, Image.Image)
            sheet.paste(tile, (GAP + column * width, top + LABEL_HEIGHT))
    return sheet
