"""Pictures of explanations: which test images to show, their heat maps, and the files a report reads."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image
from torch import nn

from dermdistill.atomic import atomic_folder, write_json
from dermdistill.errors import ConfigError
from dermdistill.explain.gradcam import grad_cam
from dermdistill.preprocess import PreprocessSpec, normalise

PICTURE_SIDE = 256
COLORMAP = "inferno"
STRONGEST_BLEND = 0.65
BATCH = 16
ITEM_KEYS = ("image_id", "true", "predicted", "prob", "correct")


def choose_items(predictions: pd.DataFrame, *, correct: int, wrong: int, seed: int) -> list[dict[str, Any]]:
    """Images to explain: correct ones balanced over the classes, then the most confident wrong ones.

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
    chosen = pd.concat([_balanced(right, correct, seed), mistakes.head(wrong)])
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


def _balanced(table: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """``count`` random rows, taken from the true classes in turn."""
    shuffled = table.iloc[np.random.default_rng(seed).permutation(len(table))]
    turn = shuffled.groupby("true").cumcount()
    order = np.lexsort((shuffled["true"].to_numpy(dtype=str), turn.to_numpy()))
    return shuffled.iloc[order[:count]]


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


def _heat_maps(
    model: nn.Module,
    layers: Sequence[nn.Module],
    images: npt.NDArray[np.uint8],
    spec: PreprocessSpec,
    targets: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    device = next(model.parameters()).device
    maps = [np.empty((0, spec.size, spec.size), dtype=np.float32)]
    for start in range(0, len(images), BATCH):
        part = slice(start, start + BATCH)
        inputs = torch.from_numpy(normalise(np.asarray(images[part]), spec)).to(device)
        found = grad_cam(model, inputs, torch.from_numpy(targets[part]).to(device), layers)
        maps.append(found.cpu().numpy())
    return np.concatenate(maps)


def _targets(items: Sequence[dict[str, Any]], classes: Sequence[str]) -> npt.NDArray[np.int64]:
    faults = [
        f"item {index}: lacks {key!r}" for index, item in enumerate(items) for key in ITEM_KEYS if key not in item
    ]
    faults += [
        f"item {index}: predicted {item['predicted']!r}"
        for index, item in enumerate(items)
        if item.get("predicted") not in (None, *classes)
    ]
    if faults:
        raise ConfigError(
            "explanations cannot be drawn: " + "; ".join(faults),
            rule=f"items have {', '.join(ITEM_KEYS)}, and predicted is one of {', '.join(classes)}",
        )
    return np.array([list(classes).index(item["predicted"]) for item in items], dtype=np.int64)


def write_explanations(
    model: nn.Module,
    layers: nn.Module | Sequence[nn.Module],
    images_uint8: npt.NDArray[np.uint8],
    spec: PreprocessSpec,
    items: Sequence[dict[str, Any]],
    folder: Path,
    *,
    classes: Sequence[str],
) -> dict[str, Any]:
    """Explain the predicted class of each image and write ``folder`` whole, in place of an older one.

    ``folder`` gets ``explanations.json``, and for each image ``NN_ID.png`` (256 px) and ``NN_ID_cam.png``
    (with its heat map). An item whose heat map is all zero carries ``"blank": true``.

    Args:
        model: images -> logits, or a tuple with the logits first.
        layers: target layers, see ``grad_cam``.
        images_uint8: uint8 [N, S, S, 3], in the order of ``items``.
        spec: the model's preprocessing.
        items: as ``choose_items`` gives them.
        folder: where to write.
        classes: names in the order of the logits.

    Returns:
        The content of ``explanations.json``.

    Raises:
        ConfigError: items and images do not fit, or a class is unknown.
        OutputError: the folder cannot be written.
    """
    wanted = (len(items), spec.size, spec.size, 3)
    if images_uint8.shape != wanted or images_uint8.dtype != np.uint8:
        raise ConfigError(
            f"images are {images_uint8.dtype} {list(images_uint8.shape)}",
            rule=f"uint8 {list(wanted)}, one an item",
        )
    targets = _targets(items, classes)
    chosen = [layers] if isinstance(layers, nn.Module) else list(layers)
    maps = _heat_maps(model, chosen, images_uint8, spec, targets)
    content: dict[str, Any] = {"method": "grad-cam", "target": "predicted class", "items": []}
    with atomic_folder(folder) as temporary:
        for index, (item, image, heat) in enumerate(zip(items, images_uint8, maps, strict=True)):
            stem = f"{index:02d}_{re.sub(r'[^A-Za-z0-9_-]', '_', item['image_id'])}"
            picture = enlarge(np.asarray(image))
            Image.fromarray(picture).save(temporary / f"{stem}.png")
            Image.fromarray(overlay(picture, heat)).save(temporary / f"{stem}_cam.png")
            entry = {key: item[key] for key in ITEM_KEYS}
            entry |= {"image": f"{stem}.png", "overlay": f"{stem}_cam.png"}
            content["items"].append(entry if heat.any() else {**entry, "blank": True})
        write_json(temporary / "explanations.json", content)
    return content
