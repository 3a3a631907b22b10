"""A split: which image lies in which part and how it was made; its files ``split.csv`` and ``split.json``."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dermdistill.atomic import write_json, write_text
from dermdistill.config import DataConfig
from dermdistill.data.catalog import catalog_sha256
from dermdistill.data.given import read_table
from dermdistill.data.protocols import PARTS, PROTOCOLS
from dermdistill.errors import DataError
from dermdistill.labels import CODES
from dermdistill.provenance import sha256_bytes

TABLE_FILE = "split.csv"
INFO_FILE = "split.json"
INFO_KEYS = (
    "protocol",
    "seed",
    "leaky",
    "catalog_sha256",
    "split_sha256",
    "counts",
    "images",
    "lesions",
    "fractions",
)


@dataclass(frozen=True)
class Split:
    """Images dealt to parts.

    Args:
        table: columns ``image_id, split``; split is one of ``PARTS``. A row an image, or a row a copy under
            the protocol ``published-oversampled``. Sorted by id, then part in the order of ``PARTS``.
        info: protocol, seed, leaky, hashes of catalog and table, and the counts: ``counts`` {part: {code:
            images}}, ``images`` {part: n}, ``lesions`` {part: n}, ``fractions`` {part: share of all rows}.
    """

    table: pd.DataFrame
    info: dict[str, Any]

    def ids(self, part: str) -> list[str]:
        """Image ids of a part, sorted; an id comes as often as it has copies there.

        Raises:
            DataError: there is no such part.
        """
        if part not in PARTS:
            raise DataError(f"no part {part!r}", rule=f"one of {', '.join(PARTS)}")
        return [str(image_id) for image_id in self.table.loc[self.table["split"] == part, "image_id"]]


def unite(lesion_of_image: dict[str, str], same_image: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The group of each image: its lesion, joined with every lesion that shares a picture with it, and so on.

    Args:
        lesion_of_image: lesion id by image id.
        same_image: pairs of image ids that must stay together.

    Returns:
        group by image id; a group is named after the smallest of its lesion ids.

    Raises:
        DataError: a pair names an unknown image.
    """
    unknown = sorted({image_id for pair in same_image for image_id in pair if image_id not in lesion_of_image})
    if unknown:
        raise DataError("images that must stay together are not in the data", faults=[f"{name!r}" for name in unknown])
    parent = {lesion_id: lesion_id for lesion_id in lesion_of_image.values()}

    def root(lesion_id: str) -> str:
        while parent[lesion_id] != lesion_id:
            parent[lesion_id] = parent[parent[lesion_id]]
            lesion_id = parent[lesion_id]
        return lesion_id

    for one, other in same_image:
        first, second = sorted((root(lesion_of_image[one]), root(lesion_of_image[other])))
        parent[second] = first
    return {image_id: root(lesion_id) for image_id, lesion_id in lesion_of_image.items()}


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    order = table["split"].map(PARTS.index)
    return (
        table.assign(order=order)
        .sort_values(["image_id", "order"], kind="stable")[["image_id", "split"]]
        .reset_index(drop=True)
    )


def _csv(table: pd.DataFrame) -> str:
    return str(table.to_csv(index=False, lineterminator="\n"))


def _counts(table: pd.DataFrame, catalog: pd.DataFrame) -> dict[str, Any]:
    rows = table.merge(catalog[["image_id", "lesion_id", "diagnosis"]], on="image_id", validate="many_to_one")
    parts = {part: rows[rows["split"] == part] for part in PARTS}
    return {
        "counts": {
            part: {code: int((own["diagnosis"] == code).sum()) for code in CODES} for part, own in parts.items()
        },
        "images": {part: len(own) for part, own in parts.items()},
        "lesions": {part: int(own["lesion_id"].nunique()) for part, own in parts.items()},
        "fractions": {part: len(own) / len(rows) for part, own in parts.items()},
    }


def make_split(catalog: pd.DataFrame, config: DataConfig, same_image: Sequence[tuple[str, str]] = ()) -> Split:
    """Split a catalog by the protocol of the settings; the same names and seed always give the same split.

    Args:
        catalog: one row an image, with image_id, lesion_id and diagnosis.
        config: protocol, seed, fractions, and the table of the protocol ``given``.
        same_image: pairs of image ids that the protocol ``lesion`` keeps together although their lesion ids
            differ, as ``copies.exact_copies`` gives them.

    Raises:
        DataError: a class is too small to be in every part, or a given table does not fit; every fault is
            listed.
    """
    protocol = PROTOCOLS[config.protocol]
    lesion_of_image = dict(zip(catalog["image_id"].astype(str), catalog["lesion_id"].astype(str), strict=True))
    table = protocol.assign(catalog, config, unite(lesion_of_image, same_image))
    return split_of_table(
        table,
        catalog,
        protocol=config.protocol,
        seed=config.seed,
        leaky=protocol.leaky,
        catalog_hash=catalog_sha256(catalog),
    )


def split_of_table(
    table: pd.DataFrame, catalog: pd.DataFrame, *, protocol: str, seed: int, leaky: bool, catalog_hash: str
) -> Split:
    """A split from images and their parts, in order and with its information.

    Args:
        table: columns image_id and split, in any order.
        catalog: image_id, lesion_id and diagnosis of all these images.
        protocol: name of how they were dealt.
        seed: of the deal.
        leaky: whether the protocol makes no promise about lesions.
        catalog_hash: SHA-256 of the catalog.
    """
    ordered = _sorted(table)
    info = {
        "protocol": protocol,
        "seed": seed,
        "leaky": leaky,
        "catalog_sha256": catalog_hash,
        "split_sha256": sha256_bytes(_csv(ordered).encode()),
        **_counts(ordered, catalog),
    }
    return Split(ordered, info)


def write_split(split: Split, folder: Path) -> None:
    """Write ``split.csv`` and ``split.json``.

    Raises:
        OutputError: the folder cannot be written.
    """
    write_text(folder / TABLE_FILE, _csv(split.table))
    write_json(folder / INFO_FILE, split.info)


def _read_info(path: Path) -> dict[str, Any]:
    rule = f"a JSON object with {', '.join(INFO_KEYS)}"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})", rule=rule) from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})", rule=rule) from error
    missing = [key for key in INFO_KEYS if not isinstance(info, dict) or key not in info]
    if missing:
        raise DataError(f"{path}: no {', '.join(missing)}", rule=rule)
    return dict(info)


def load_split(folder: Path) -> Split:
    """Read what ``write_split`` wrote.

    Raises:
        DataError: a file is missing or malformed, a part is unknown, or the table is not the one that the
            information was written for.
    """
    path = folder / TABLE_FILE
    table, info = read_table(path), _read_info(folder / INFO_FILE)
    faults = [
        f"{path.name} row {row}: split {part!r} is none of {', '.join(PARTS)}"
        for row, part in enumerate(table["split"], start=2)
        if part not in PARTS
    ]
    if faults:
        raise DataError(f"{path}: unknown parts", faults=faults, rule=f"split is one of {', '.join(PARTS)}")
    if sha256_bytes(_csv(table).encode()) != info["split_sha256"]:
        raise DataError(
            f"{path}: was changed since {INFO_FILE} was written",
            rule=f"its hash is split_sha256 of {INFO_FILE}",
            next_step="make the split again, or use the changed table as protocol 'given'",
        )
    return Split(table, info)
