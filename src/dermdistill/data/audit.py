"""What a split leaks: lesions, exact copies and near copies that lie in more than one part."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from dermdistill.data.copies import (
    NEAR_DISTANCE,
    Fingerprints,
    fingerprints,
    near_pairs,
    pixel_keys,
)
from dermdistill.data.protocols import PARTS, PROTOCOLS
from dermdistill.data.split import Split
from dermdistill.data.store import ImageStore
from dermdistill.errors import ConfigError, DataError
from dermdistill.labels import MELANOMA

LISTED = 50
LISTED_NEAR = 1000


def _placed(catalog: pd.DataFrame, split: Split) -> pd.DataFrame:
    """The rows of the split with lesion and diagnosis."""
    in_split, in_catalog = set(split.table["image_id"]), set(catalog["image_id"])
    faults = [f"split: image {name!r} is not in the data" for name in sorted(in_split - in_catalog)]
    faults += [f"data: image {name!r} is in no part" for name in sorted(in_catalog - in_split)]
    if faults:
        raise DataError(
            "the split was made from other data",
            faults=faults,
            next_step="make the split again from this data",
        )
    return split.table.merge(catalog[["image_id", "lesion_id", "diagnosis"]], on="image_id", validate="many_to_one")


def _in_part_order(parts: set[str]) -> list[str]:
    return [part for part in PARTS if part in parts]


def lesions_across(placed: pd.DataFrame) -> dict[str, Any]:
    """Lesions with images in more than one part.

    Args:
        placed: columns image_id, split, lesion_id; a row an image or copy.

    Returns:
        ``count`` of such lesions and ``lesions``, the first 50 as {lesion_id, parts, images}; images are
            different ones.
    """
    by_lesion = placed.groupby("lesion_id")
    across = by_lesion["split"].nunique()
    names = sorted(across[across > 1].index)
    listed = [
        {
            "lesion_id": str(name),
            "parts": _in_part_order(set(rows["split"])),
            "images": int(rows["image_id"].nunique()),
        }
        for name, rows in ((name, by_lesion.get_group(name)) for name in names[:LISTED])
    ]
    return {"count": len(names), "lesions": listed}


def _share_on_other_side(placed: pd.DataFrame, column: str) -> float | None:
    test = placed[placed["split"] == "test"]
    elsewhere = set(placed.loc[placed["split"] != "test", column])
    return float(test[column].isin(elsewhere).mean()) if len(test) else None


def images_sharing_lesion(placed: pd.DataFrame) -> dict[str, float | None]:
    """Share of test images whose lesion also has an image in train or validation, of all and of melanomas.

    Returns:
        ``share`` and ``melanoma_share``, each in [0, 1], or None where there is no such test image.
    """
    return {
        "share": _share_on_other_side(placed, "lesion_id"),
        "melanoma_share": _share_on_other_side(placed[placed["diagnosis"] == MELANOMA], "lesion_id"),
    }


def _pairs_across(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    places = list(rows[["image_id", "split", "lesion_id"]].itertuples(index=False, name=None))
    for (a, part_a, lesion_a), (b, part_b, lesion_b) in combinations(places, 2):
        if part_a != part_b:
            yield {"a": a, "b": b, "parts": [part_a, part_b], "same_lesion": lesion_a == lesion_b}


def exact_copies_across(placed: pd.DataFrame, keys: Mapping[str, str]) -> dict[str, Any]:
    """Equal pictures in different parts; an image that itself lies in two parts is such a pair.

    Args:
        placed: columns image_id, split, lesion_id; a row an image or copy. Repeats within a part count once.
        keys: hash of the pixels by image id.

    Returns:
        ``count`` of pairs, ``test_share`` (of the test rows, those whose picture also lies in train or
        validation) and ``pairs``, the first 50 as {a, b, parts, same_lesion}.
    """
    keyed = placed.assign(key=placed["image_id"].map(keys))
    once = keyed.drop_duplicates(["image_id", "split"])
    sizes = once.groupby(["key", "split"]).size()
    total = sizes.groupby("key").sum()
    within = (sizes * (sizes - 1) // 2).groupby("key").sum()
    across = total * (total - 1) // 2 - within
    pairs: list[dict[str, Any]] = []
    by_key = once.groupby("key", sort=False)
    for key in dict.fromkeys(once["key"][once["key"].map(across) > 0]):
        pairs += _pairs_across(by_key.get_group(key))
        if len(pairs) >= LISTED:
            break
    return {
        "count": int(across.sum()),
        "test_share": _share_on_other_side(keyed, "key"),
        "pairs": pairs[:LISTED],
    }


def near_copies_across(placed: pd.DataFrame, prints: Fingerprints, threshold: float) -> dict[str, Any]:
    """Different pictures in different parts that lie closer than the threshold, nearest first.

    Args:
        placed: columns image_id, split, lesion_id; a row an image or copy.
        prints: fingerprints of every image.
        threshold: distance in [0, 1); see ``dermdistill.data.copies``.

    Returns:
        ``count``, ``different_lesions`` (how many of them carry two lesion ids), ``threshold`` and ``pairs``,
        the nearest 1000 as {a, b, distance, parts, same_lesion}. Exact copies are left out.
    """
    number = {name: index for index, name in enumerate(prints.image_ids)}
    members = {part: np.array(sorted(rows.map(number).unique())) for part, rows in placed.groupby("split")["image_id"]}
    part_of = placed.groupby("image_id")["split"].agg(set)
    lesion_of = dict(zip(placed["image_id"], placed["lesion_id"], strict=True))
    found: dict[tuple[int, int], float] = {}
    for one, other in combinations((part for part in reversed(PARTS) if part in members), 2):
        found |= near_pairs(prints.details, members[one], members[other], threshold)
    pairs = [
        {
            "a": a,
            "b": b,
            "distance": round(distance, 4),
            "parts": ["+".join(_in_part_order(part_of[name])) for name in (a, b)],
            "same_lesion": bool(lesion_of[a] == lesion_of[b]),
        }
        for distance, a, b, same in sorted(
            (
                distance,
                prints.image_ids[i],
                prints.image_ids[j],
                prints.keys[i] == prints.keys[j],
            )
            for (i, j), distance in found.items()
        )
        if not same
    ]
    return {
        "count": len(pairs),
        "different_lesions": sum(not pair["same_lesion"] for pair in pairs),
        "threshold": threshold,
        "pairs": pairs[:LISTED_NEAR],
    }


def audit_split(
    catalog: pd.DataFrame,
    split: Split,
    store: ImageStore | None = None,
    *,
    near_distance: float = NEAR_DISTANCE,
) -> dict[str, Any]:
    """Look for leaks across the parts of a split; decodes every image once.

    Args:
        catalog: the catalog that the split was made from.
        split: the split.
        store: where given, exact copies are judged by its pictures, that is by what a model sees, else by the
            pixels of the files. Near copies are always judged by the files.
        near_distance: pairs up to this distance are near copies, in [0, 1); see ``dermdistill.data.copies``.

    Returns:
        JSON-able: protocol; promises_disjoint; passed (no promise, or no lesion and no exact copy across;
        near copies do not count, as photographs of one lesion are alike); lesions_across;
        exact_copies_across; near_copies; images_sharing_lesion_across.

    Raises:
        ConfigError: near_distance is out of range.
        DataError: split and catalog name different images, or images cannot be decoded; every fault is
            listed.
    """
    if not 0 <= near_distance < 1:
        raise ConfigError(f"near_distance {near_distance}", rule="a distance is in [0, 1); 0 is the same structure")
    placed = _placed(catalog, split)
    prints = fingerprints(catalog)
    keys = dict(zip(prints.image_ids, prints.keys, strict=True)) if store is None else pixel_keys(store)
    promises_disjoint = not PROTOCOLS[split.info["protocol"]].leaky
    lesions, exact = lesions_across(placed), exact_copies_across(placed, keys)
    return {
        "protocol": split.info["protocol"],
        "promises_disjoint": promises_disjoint,
        "passed": not promises_disjoint or (lesions["count"] == 0 and exact["count"] == 0),
        "lesions_across": lesions,
        "exact_copies_across": exact,
        "near_copies": near_copies_across(placed, prints, near_distance),
        "images_sharing_lesion_across": images_sharing_lesion(placed),
    }
