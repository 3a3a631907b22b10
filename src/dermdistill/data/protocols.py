"""How images are dealt to train, validation and test: one pure function a protocol.

Every draw is an order by SHA-256 of seed and name. So a split depends on nothing but the names and the seed:
not on the order of the rows, not on a library's random generator, and not on images of other classes.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dermdistill.config import DataConfig
from dermdistill.data.given import read_given
from dermdistill.errors import ConfigError, DataError

PARTS = ("train", "val", "test")
PUBLISHED_TEST_FRACTION = 0.2
OVERSAMPLED_IMAGES = 10_000

Counts = tuple[int, int, int]
Assign = Callable[[pd.DataFrame, DataConfig, Mapping[str, str]], pd.DataFrame]


@dataclass(frozen=True)
class Protocol:
    """A way to split.

    Args:
        assign: ``(catalog, config, group of each image) -> table of image_id, split``; ids repeat where the
            protocol splits copies.
        leaky: true where the protocol does not promise that lesions and copies stay in one part.
    """

    assign: Assign
    leaky: bool


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """Names in the order of the SHA-256 of ``seed:name``; the order they came in does not matter."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())


def part_sizes(total: int, val_fraction: float, test_fraction: float) -> Counts:
    """Whole numbers for train, val and test that sum to ``total``: half is rounded up, no part is empty.

    Args:
        total: at least 3.
        val_fraction: share of ``total``, in (0, 0.5).
        test_fraction: share of ``total``, in (0, 0.5).
    """
    val, test = (max(1, int(total * fraction + 0.5)) for fraction in (val_fraction, test_fraction))
    while val + test > total - 1:
        val, test = (val - 1, test) if val > test else (val, test - 1)
    return total - val - test, val, test


def deal(sizes: Sequence[int], targets: Counts) -> list[int]:
    """The part of each indivisible group, so that the parts' totals come close to the targets.

    Groups are dealt from the largest to the smallest, each to the part that lacks the largest share of its
    target among those it fits into; so large groups are spread in proportion and single images fill the gaps.
    Where no part has room, the one that lacks most takes it. No part stays empty. A part's total exceeds its
    target by less than the largest group, and meets it exactly where enough single images are left.

    Args:
        sizes: images of each group, at least three groups.
        targets: images wanted in train, val and test, each at least 1, as many as there are in all groups.

    Returns:
        an index into ``PARTS`` for each group.
    """
    lacking = list(targets)
    empty = set(range(len(PARTS)))
    parts = [0] * len(sizes)
    largest_first = sorted(range(len(sizes)), key=lambda group: -sizes[group])
    for dealt, group in enumerate(largest_first):
        last_ones = len(sizes) - dealt <= len(empty)
        choices = sorted(empty) if last_ones else list(range(len(PARTS)))
        fitting = [part for part in choices if lacking[part] >= sizes[group]]
        if fitting:
            parts[group] = max(fitting, key=lambda part: lacking[part] / targets[part])
        else:
            parts[group] = max(choices, key=lambda part: lacking[part])
        lacking[parts[group]] -= sizes[group]
        empty.discard(parts[group])
    return parts


def _refuse_small_classes(sizes: Mapping[str, int], unit: str) -> None:
    faults = [
        f"class {code!r} has {size} {unit}{'' if size == 1 else 's'}"
        for code, size in sorted(sizes.items())
        if size < len(PARTS)
    ]
    if faults:
        raise DataError(
            "too little data to split",
            faults=faults,
            rule=f"each class needs at least {len(PARTS)} {unit}s, one each for train, val and test",
            next_step="add images of these classes or leave the classes out of the data",
        )


def _table(ids: Iterable[str], parts: Iterable[str]) -> pd.DataFrame:
    return pd.DataFrame({"image_id": list(ids), "split": list(parts)}, dtype="str")


def _class_of_groups(catalog: pd.DataFrame, groups: Mapping[str, str]) -> dict[str, str]:
    # A group has two diagnoses only where copies carry different labels: the commonest decides.
    tally = pd.DataFrame({"group": catalog["image_id"].map(groups), "diagnosis": catalog["diagnosis"]}).value_counts()
    ordered = tally.reset_index().sort_values(["group", "count", "diagnosis"], ascending=[True, False, True])
    first = ordered.drop_duplicates("group")
    return dict(zip(first["group"], first["diagnosis"], strict=True))


def lesion(catalog: pd.DataFrame, config: DataConfig, groups: Mapping[str, str]) -> pd.DataFrame:
    """Stratified by diagnosis; a lesion, and whatever else must stay together, lies in one part.

    Raises:
        DataError: a class has fewer than three lesions.
    """
    group_of_row = catalog["image_id"].map(groups)
    sizes = {str(group): int(size) for group, size in group_of_row.value_counts().items()}
    class_of_group = _class_of_groups(catalog, groups)
    members: dict[str, list[str]] = {str(code): [] for code in sorted(set(catalog["diagnosis"]))}
    for group, code in class_of_group.items():
        members[code].append(group)
    _refuse_small_classes({code: len(names) for code, names in members.items()}, "lesion")
    part_of_group: dict[str, str] = {}
    for names in members.values():
        order = shuffled(names, config.seed)
        images = [sizes[name] for name in order]
        targets = part_sizes(sum(images), config.val_fraction, config.test_fraction)
        dealt = deal(images, targets)
        part_of_group.update({name: PARTS[part] for name, part in zip(order, dealt, strict=True)})
    return _table(catalog["image_id"], group_of_row.map(part_of_group))


def _cut(names: Sequence[str], config: DataConfig) -> pd.DataFrame:
    counts = part_sizes(len(names), config.val_fraction, PUBLISHED_TEST_FRACTION)
    parts = [part for part, count in zip(PARTS, counts, strict=True) for _ in range(count)]
    return _table(shuffled(names, config.seed), parts)


def _images_by_class(catalog: pd.DataFrame) -> dict[str, list[str]]:
    images = {str(code): [str(name) for name in rows] for code, rows in catalog.groupby("diagnosis")["image_id"]}
    _refuse_small_classes({code: len(names) for code, names in images.items()}, "image")
    return images


def published(catalog: pd.DataFrame, config: DataConfig, groups: Mapping[str, str]) -> pd.DataFrame:
    """Image level, 80/20 as published by Pavel et al. 2025: lesions cross. Leaky on purpose.

    Each class gives a fifth of its images, rounded, to the test part. Validation is cut from the other 80%
    and is ``config.val_fraction`` of all images; ``config.test_fraction`` is not used.

    Raises:
        DataError: a class has fewer than three images.
    """
    return pd.concat([_cut(names, config) for names in _images_by_class(catalog).values()], ignore_index=True)


def oversample(names: Sequence[str], total: int, seed: int) -> list[str]:
    """``total`` names, each as often as the others or once more; all as they are where there are more."""
    if len(names) >= total:
        return list(names)
    whole, rest = divmod(total, len(names))
    return list(names) * whole + shuffled(names, seed)[:rest]


def published_oversampled(catalog: pd.DataFrame, config: DataConfig, groups: Mapping[str, str]) -> pd.DataFrame:
    """What the public code of Pavel et al. 2025 does: 10,000 copies a class, THEN 80/20 among the copies.

    Exists only to measure how far that inflates the figures. The table has a row a copy, so image ids repeat,
    also across parts.

    Raises:
        DataError: a class has fewer than three images.
    """
    tables = []
    for names in _images_by_class(catalog).values():
        copies = oversample(names, OVERSAMPLED_IMAGES, config.seed)
        numbered = [f"{number}#{name}" for number, name in enumerate(sorted(copies))]
        table = _cut(numbered, config)
        table["image_id"] = table["image_id"].str.split("#", n=1).str[1]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def given(catalog: pd.DataFrame, config: DataConfig, groups: Mapping[str, str]) -> pd.DataFrame:
    """Read from ``config.split_file``; whether it keeps lesions apart is for the audit to say.

    Raises:
        ConfigError: no file is named.
        DataError: the table is missing or does not fit the catalog; every fault is listed.
    """
    if config.split_file is None:
        raise ConfigError("protocol 'given' without a table", next_step="set data.split_file=FILE.csv")
    return read_given(Path(config.split_file), catalog["image_id"], PARTS)


PROTOCOLS: dict[str, Protocol] = {
    "lesion": Protocol(lesion, leaky=False),
    "published": Protocol(published, leaky=True),
    "published-oversampled": Protocol(published_oversampled, leaky=True),
    "given": Protocol(given, leaky=False),
}
