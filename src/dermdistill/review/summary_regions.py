"""The block ``regions``: do the maps lie where raters drew what matters, and more so than a spot at the centre does?

Lesions sit in the middle of dermatoscopic pictures, so any map of the middle overlaps with what raters draw. Every
figure therefore stands beside that of a Gaussian at the picture's centre, the centre prior.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageDraw

from dermdistill.errors import DataError
from dermdistill.evaluate.metrics import Bools, Floats
from dermdistill.review.summary_answers import Answers, Polygon, polygons_of
from dermdistill.review.summary_bootstrap import Draws, Json, figure, pooled_mean
from dermdistill.review.summary_ratings import map_columns, sham_columns

Map = npt.NDArray[np.uint8]
# Spread of the Gaussian, of width and height: that of ``explain/localisation.py``, whose map the shams show.
CENTRE_SIGMA: Final = 0.2
# Lines and rows to a pixel while drawing.
FINER: Final = 4
FIGURES: Final = ("iou", "energy", "prior_iou", "prior_energy", "area")


def rasterise(polygons: list[Polygon], height: int, width: int) -> Bools:
    """The pixels that polygons cover by half or more; where polygons overlap, once.

    Drawn finer and averaged, as Pillow also fills the pixels that an edge merely touches, which adds some percent to
    the area of a lesion.

    Args:
        polygons: corners (x, y) as shares of width and height.
        height: of the picture, pixels.
        width: of the picture, pixels.
    """
    mask = Image.new("L", (width * FINER, height * FINER))
    brush = ImageDraw.Draw(mask)
    for polygon in polygons:
        # The middle of the first pixel is .5 of a pixel from the border, and Pillow's corner (0, 0).
        brush.polygon([(x * mask.width - 0.5, y * mask.height - 0.5) for x, y in polygon], fill=255)
    return np.asarray(mask.reduce(FINER)) >= 128


def centre_prior(height: int, width: int, sigma: float = CENTRE_SIGMA) -> Map:
    """A Gaussian at the picture's centre, uint8 [H, W]; ``sigma`` is a share of height and width."""
    y = ((np.arange(height) + 0.5) / height - 0.5) / sigma
    x = ((np.arange(width) + 0.5) / width - 0.5) / sigma
    heat = np.exp(-(y[:, None] ** 2 + x[None] ** 2) / 2)
    levels: Map = np.rint(heat / heat.max() * 255).astype(np.uint8)
    return levels


def energy_inside(heat: Map, mask: Bools) -> float:
    """Share of a map's heat inside a region, [0, 1]; NaN of a map without heat."""
    total = float(heat.sum(dtype=np.int64))
    return float(heat[mask].sum(dtype=np.int64)) / total if total else float("nan")


def equal_area_iou(heat: Map, mask: Bools) -> float:
    """Intersection over union of a region and equally many of a map's hottest pixels, [0, 1].

    A map has 256 levels. Where the area ends within a level, that level's pixels count by the share that fits in, which
    is the mean over all ways of choosing among them. NaN where the region is empty.
    """
    area = int(mask.sum())
    if not area:
        return float("nan")
    pixels = np.bincount(heat.ravel(), minlength=256)[::-1]
    inside = np.bincount(heat[mask], minlength=256)[::-1]
    taken = np.clip(area - (np.cumsum(pixels) - pixels), 0, pixels)
    common = float((inside * taken / np.maximum(pixels, 1)).sum())
    return common / (2 * area - common)


def region_table(answers: Answers, maps: Callable[[str], Map]) -> pd.DataFrame:
    """One row an answer of the frame, in its order: ``FIGURES``, all in [0, 1], NaN where nothing was drawn,
    or less than a pixel.

    Args:
        answers: checked.
        maps: item -> heat map uint8 [H, W], as the rater saw it.

    Raises:
        DataError: a map that is not uint8 [H, W].
    """
    originals = {item.item for item in answers.items}
    table = pd.DataFrame(np.nan, index=range(len(answers.frame)), columns=list(FIGURES))
    drawn = answers.frame[(answers.frame["region"] != "") & answers.frame["item"].isin(originals)]
    for item, rows in drawn.groupby("item"):
        heat = maps(str(item))
        if heat.dtype != np.uint8 or heat.ndim != 2:
            raise DataError(f"map of item {item}: {heat.dtype} {list(heat.shape)}", rule="uint8 [H, W]")
        prior = centre_prior(*heat.shape)
        for row, text in rows["region"].items():
            if polygons := polygons_of(text):
                mask = rasterise(polygons, *heat.shape)
                if not mask.any():
                    continue
                table.loc[row] = [
                    equal_area_iou(heat, mask),
                    energy_inside(heat, mask),
                    equal_area_iou(prior, mask),
                    energy_inside(prior, mask),
                    float(mask.mean()),
                ]
    return table


def regions_block(answers: Answers, draws: Draws, maps: Callable[[str], Map]) -> Json:
    """Agreement of drawn regions with maps.

    Args:
        answers: of R raters to N items.
        draws: of the same.
        maps: as for ``region_table``.

    Returns:
        {``drawn``, ``area``, ``centre_sigma``, ``maps``: {method or ``all_maps``: cell}, ``shams``: {kind or ``all``:
        cell}}; see ``summary``.
    """
    table = region_table(answers, maps)
    grids = {name: answers.grid(table[name]) for name in FIGURES}
    drawn = int((~np.isnan(grids["area"])).sum())
    everything = np.ones(len(answers.items), dtype=np.bool_)
    return {
        "drawn": drawn,
        "area": figure(pooled_mean(draws, grids["area"], everything), drawn),
        "centre_sigma": CENTRE_SIGMA,
        "maps": {name: _cell(grids, draws, columns) for name, columns in map_columns(answers).items()},
        "shams": {name: _cell(grids, draws, columns) for name, columns in sham_columns(answers).items()},
    }


def _cell(grids: dict[str, Floats], draws: Draws, columns: Bools) -> Json:
    cell: Json = {"n": int((~np.isnan(grids["area"][:, columns])).sum())}
    for name in ("iou", "energy"):
        gain = grids[name] - grids[f"prior_{name}"]
        # A map without heat has no energy anywhere: the prior is then left out as well.
        prior = np.where(np.isnan(gain), np.nan, grids[f"prior_{name}"])
        n = int((~np.isnan(gain[:, columns])).sum())
        cell[name] = figure(pooled_mean(draws, grids[name], columns), n)
        cell[f"prior_{name}"] = figure(pooled_mean(draws, prior, columns), n)
        cell[f"{name}_gain"] = figure(pooled_mean(draws, gain, columns), n)
    return cell
