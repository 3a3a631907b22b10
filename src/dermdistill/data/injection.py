"""Paired injection: the same test images, once with and once without photographs of their lesions in training.

From a split that keeps lesions apart one image of each test lesion is kept for testing. In the injected arm the
other photographs of these lesions, their sisters, go into training, and as many other training images of the same
class leave it. So both arms learn from the same number of images of each class and are tested on the same images;
what differs between their figures is what knowing the lesion buys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Any

import pandas as pd

from dermdistill.data.protocols import PARTS, shuffled
from dermdistill.data.split import Split, split_of_table
from dermdistill.errors import DataError

PROTOCOL = "lesion-injected"
LISTED = 10


@dataclass(frozen=True, eq=False)
class InjectedSplit:
    """The injected arm, and what both arms are tested on. Image ids are sorted.

    Attributes:
        split: training with sisters, the validation part as it was, and the kept images as test part. What was
            removed lies in no part.
        kept: one image of each test lesion.
        leakable: those of them with a sister in training.
        sisters: put into training.
        removed: taken out of training for them.
        notes: a sentence for each class that had more sisters than training images to exchange for them.
    """

    split: Split
    kept: tuple[str, ...]
    leakable: tuple[str, ...]
    sisters: tuple[str, ...]
    removed: tuple[str, ...]
    notes: tuple[str, ...]


def injected_split(catalog: pd.DataFrame, split: Split, seed: int) -> InjectedSplit:
    """Put sisters of test images into training; names and seed alone decide which.

    At least one training image of each class stays, so in a class with more sisters than that allows fewer
    are injected, the first of every lesion before the second of any.

    Args:
        catalog: one row an image, with image_id, lesion_id and diagnosis.
        split: keeps lesions apart.
        seed: of the order by which images are kept, injected and removed.

    Raises:
        DataError: lesions lie in more than one part, or no test lesion has two images; then there is nothing
            to inject.
    """
    placed = split.table.merge(catalog[["image_id", "lesion_id", "diagnosis"]], on="image_id", validate="many_to_one")
    _require_apart(placed)
    kept, sisters = _kept_and_sisters(placed[placed["split"] == "test"], seed)
    exchange = _exchange(placed, sisters, seed)
    known = set(placed.loc[placed["image_id"].isin(exchange.sisters), "lesion_id"])
    leakable = sorted(image for lesion, image in kept.items() if lesion in known)
    if not leakable:
        raise DataError(
            "there is nothing to inject: no test lesion has a second image that could go into training",
            rule="leakage between images of one lesion needs lesions that were photographed more than once",
            next_step="use data whose lesion ids are known",
        )
    parts = {
        "train": sorted({*split.ids("train"), *exchange.sisters} - set(exchange.removed)),
        "val": split.ids("val"),
        "test": sorted(kept.values()),
    }
    return InjectedSplit(
        split=_as_split(parts, placed, seed=seed, leakable=leakable, clean=split.info),
        kept=tuple(parts["test"]),
        leakable=tuple(leakable),
        sisters=tuple(sorted(exchange.sisters)),
        removed=tuple(sorted(exchange.removed)),
        notes=tuple(exchange.notes),
    )


def _require_apart(placed: pd.DataFrame) -> None:
    parts = placed.groupby("lesion_id")["split"].nunique()
    across = sorted(str(lesion) for lesion in parts.index[parts > 1])
    if across:
        raise DataError(
            f"{len(across)} lesions lie in more than one part: the split leaks before anything is injected",
            faults=[f"lesion {lesion}" for lesion in across[:LISTED]],
            rule="injection starts from a split that keeps lesions apart, such as protocol lesion",
        )


def _kept_and_sisters(test: pd.DataFrame, seed: int) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Of each test lesion the image to test on; and its other images, where it has any."""
    orders = {str(lesion): shuffled(map(str, own), seed) for lesion, own in test.groupby("lesion_id")["image_id"]}
    kept = {lesion: order[0] for lesion, order in orders.items()}
    return kept, {lesion: order[1:] for lesion, order in orders.items() if len(order) > 1}


@dataclass(frozen=True)
class _Exchange:
    """Images that go into training, those that leave it for them, and what fell short."""

    sisters: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _exchange(placed: pd.DataFrame, sisters: Mapping[str, Sequence[str]], seed: int) -> _Exchange:
    """Class by class as many images out of training as sisters into it."""
    class_of = dict(zip(placed["lesion_id"], placed["diagnosis"], strict=True))
    training = placed[placed["split"] == "train"]
    found = _Exchange()
    for code in sorted({class_of[lesion] for lesion in sisters}):
        lesions = shuffled((lesion for lesion in sisters if class_of[lesion] == code), seed)
        own = [str(name) for name in training.loc[training["diagnosis"] == code, "image_id"]]
        wanted = _in_turns([sisters[lesion] for lesion in lesions])
        taken = wanted[: max(0, len(own) - 1)]
        found.sisters.extend(taken)
        found.removed.extend(shuffled(own, seed)[: len(taken)])
        if len(taken) < len(wanted):
            found.notes.append(
                f"{code}: {len(taken)} of {len(wanted)} sister images were injected, since training has "
                f"{len(own)} of this class and one at least stays."
            )
    return found


def _in_turns(lists: Sequence[Sequence[str]]) -> list[str]:
    """The first of every list, then the second of every list, and so on."""
    return [name for name in chain.from_iterable(zip_longest(*lists)) if name is not None]


def _as_split(
    parts: Mapping[str, Sequence[str]],
    placed: pd.DataFrame,
    *,
    seed: int,
    leakable: Sequence[str],
    clean: Mapping[str, Any],
) -> Split:
    """The injected arm in the form of any other split, with the leakable images named in its information."""
    rows = [(name, part) for part in PARTS for name in parts[part]]
    split = split_of_table(
        pd.DataFrame(rows, columns=["image_id", "split"], dtype="str"),
        placed,
        protocol=PROTOCOL,
        seed=seed,
        leaky=True,
        catalog_hash=clean["catalog_sha256"],
    )
    more = {"clean_split_sha256": clean["split_sha256"], "leakable": list(leakable)}
    return Split(split.table, {**split.info, **more})
