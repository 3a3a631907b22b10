"""Pictures of explanations: which test images to show, their heat maps, and the files a report reads."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from dermdistill.atomic import atomic_folder, write_json
from dermdistill.errors import ConfigError

PICTURE_SIDE = 256
COLORMAP = "inferno"
STRONGEST_BLEND = 0.65
OUTLINE = (255, 255, 255)
TARGET = "predicted class"
ITEM_KEYS = ("image_id", "true", "predicted", "prob", "correct")


def choose_items(predictions: pd.DataFrame, *, correct: int, wrong: int, seed: int) -> list[dict[str, Any]]:
    """Images to explain, balanced over the true classes: correct ones, then wrong ones, the most confident first.

    Args:
        predictions: rows of one model and one split of ``predictions.parquet``: ``image_id``, ``label``
            (index) and ``prob_<class>`` for each class. A repeated image counts once.
        correct: how many correct ones; fewer where there are fewer.
        wrong: how many wrong ones; fewer where there are fewer.
        seed: of the sample. The order of rows does not matter.

    Returns:
        One ``{"image_id", "true", "predicted", "prob", "correct"}`` an image: class names, and the
        probability of the predicted class.

    Raises:
        ConfigError: rows of several models or splits, or columns missing.
    """
    table = _scored(predictions)
    right = table[table["correct"]]
    mistakes = table[~table["correct"]].sort_values(["prob", "image_id"], ascending=[False, True])
    chosen = pd.concat([_in_turn(_shuffled(right, seed), correct), _in_turn(mistakes, wrong)])
    return [
        {
            "image_id": str(row["image_id"]),
            "true": str(row["true"]),
            "predicted": str(row["predicted"]),
            "prob": float(row["prob"]),
            "correct": bool(row["correct"]),
        }
        for row in chosen.to_dict("records")
    ]


def _scored(predictions: pd.DataFrame) -> pd.DataFrame:
    """Columns ``ITEM_KEYS``, one row an image, sorted by image."""
    columns = [name for name in predictions.columns if str(name).startswith("prob_")]
    missing = [name for name in ("image_id", "label") if name not in predictions.columns]
    mixed = [name for name in ("model", "split") if name in predictions and predictions[name].nunique() > 1]
    if missing or mixed or not columns:
        raise ConfigError(
            f"predictions have {list(predictions.columns)}: missing {missing}, mixed {mixed}",
            rule="rows of one model and one split, with image_id, label and prob_<class>",
        )
    classes = np.array([str(name).removeprefix("prob_") for name in columns])
    probs = predictions[columns].to_numpy(dtype=np.float64)
    labels = predictions["label"].to_numpy(dtype=np.int64)
    table = pd.DataFrame(
        {
            "image_id": predictions["image_id"].astype(str).to_numpy(),
            "true": classes[labels],
            "predicted": classes[probs.argmax(axis=1)],
            "prob": probs.max(axis=1),
            "correct": probs.argmax(axis=1) == labels,
        }
    )
    return table.drop_duplicates("image_id").sort_values("image_id", ignore_index=True)


def _shuffled(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    return table.iloc[np.random.default_rng(seed).permutation(len(table))]


def _in_turn(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """The first rows of every true class before any second ones, ``count`` in all."""
    turn = table.groupby("true").cumcount()
    order = np.lexsort((table["true"].to_numpy(dtype=str), turn.to_numpy()))
    return table.iloc[order[:count]]


def enlarge(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A stored picture uint8 [S, S, 3] at 256 x 256 pixels."""
    picture = Image.fromarray(image).resize((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BICUBIC)
    return np.asarray(picture, dtype=np.uint8)


def overlay(image: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """A heat map over its picture: the hotter, the more colour, so cold parts keep their own look.

    Args:
        image: uint8 [H, W, 3].
        heat: float32 [S, S] in [0, 1].

    Returns:
        uint8 [H, W, 3], in the perceptually uniform colours of matplotlib's ``inferno``.
    """
    from matplotlib import colormaps

    height, width = image.shape[:2]
    resized = Image.fromarray(heat.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    values = np.asarray(resized, dtype=np.float32).clip(0, 1)
    colours = np.asarray(colormaps[COLORMAP](values))[..., :3] * 255
    blend = STRONGEST_BLEND * values[..., None]
    return np.rint(image * (1 - blend) + colours * blend).astype(np.uint8)


def outlined(picture: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """The picture uint8 [H, W, 3] with the edge of a mask bool [S, S] drawn on it; without a mask as it is."""
    side = picture.shape[:2]
    inside = np.asarray(Image.fromarray(mask).resize((side[1], side[0]), Image.Resampling.NEAREST), dtype=np.bool_)
    padded = np.pad(inside, 1, mode="edge")
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    drawn = picture.copy()
    drawn[inside & ~core] = OUTLINE
    return drawn


def _check(
    items: Sequence[Mapping[str, Any]],
    images: npt.NDArray[np.uint8],
    masks: npt.NDArray[np.bool_],
    maps: Mapping[str, npt.NDArray[np.float32]],
) -> None:
    """Refuse what cannot be drawn.

    Raises:
        ConfigError: items without a key, or arrays that do not fit them.
    """
    lacking = [
        f"item {index}: lacks {key!r}" for index, item in enumerate(items) for key in ITEM_KEYS if key not in item
    ]
    if lacking:
        raise ConfigError(
            "explanations cannot be drawn: " + "; ".join(lacking), rule=f"items have {', '.join(ITEM_KEYS)}"
        )
    side = images.shape[1:3]
    wanted = (len(items), *side)
    shapes = {"images": images.shape[:3], "masks": masks.shape, **{name: one.shape for name, one in maps.items()}}
    unfit = [f"{name} {list(shape)}" for name, shape in shapes.items() if shape != wanted]
    if unfit or images.dtype != np.uint8 or images.ndim != 4 or not maps:
        raise ConfigError(
            f"explanations cannot be drawn: {', '.join(unfit) or 'no maps, or images that are no pictures'}",
            rule=f"images uint8 [N, S, S, 3], masks and maps [N, S, S], one of each for all {len(items)} items",
        )


def write_gallery(
    folder: Path,
    items: Sequence[Mapping[str, Any]],
    images: npt.NDArray[np.uint8],
    masks: npt.NDArray[np.bool_],
    maps: Mapping[str, npt.NDArray[np.float32]],
    *,
    scores: Mapping[str, Sequence[Mapping[str, float | None]]],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the pictures of explained cases and what is known of the methods, in place of an older folder.

    ``folder`` gets ``explanations.json`` and for each item ``NN_ID.png`` (256 px, with the lesion's outline) and
    ``NN_ID_METHOD.png`` (with a method's heat map). In ``explanations.json`` ``items`` has the keys of the item,
    ``image``, and ``maps`` {METHOD: {``overlay``, ``blank``, ``scores``}}; ``image`` and the ``overlay`` of the first
    method stand beside it.

    Args:
        folder: where to write, whole or not at all.
        items: as ``choose_items`` gives them.
        images: uint8 [N, S, S, 3], in the order of ``items``.
        masks: bool [N, S, S]; all False where no mask is known.
        maps: {method: float32 [N, S, S] in [0, 1]}, the method to be shown first in front.
        scores: {method: one {score: value or None} an item}.
        facts: goes into ``explanations.json`` beside the items.

    Returns:
        The content of ``explanations.json``.

    Raises:
        ConfigError: items and arrays do not fit.
        OutputError: the folder cannot be written.
    """
    _check(items, images, masks, maps)
    content: dict[str, Any] = {"target": TARGET, **facts, "items": []}
    with atomic_folder(folder) as temporary:
        for index, item in enumerate(items):
            stem = f"{index:02d}_{re.sub(r'[^A-Za-z0-9_-]', '_', str(item['image_id']))}"
            picture = enlarge(np.asarray(images[index]))
            Image.fromarray(outlined(picture, masks[index])).save(temporary / f"{stem}.png")
            shown = {}
            for method, heats in maps.items():
                name = f"{stem}_{method}.png"
                over = outlined(overlay(picture, heats[index]), masks[index])
                Image.fromarray(over).save(temporary / name)
                shown[method] = {
                    "overlay": name,
                    "blank": not heats[index].any(),
                    "scores": dict(scores[method][index]),
                }
            first = next(iter(shown.values()))
            entry = {key: item[key] for key in ITEM_KEYS} | {"image": f"{stem}.png", "overlay": first["overlay"]}
            content["items"].append(entry | ({"blank": True} if first["blank"] else {}) | {"maps": shown})
        write_json(temporary / "explanations.json", content)
    return content
