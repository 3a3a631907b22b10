"""What differs between two bundles: values of their manifests, and sizes and contents of their files."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermdistill.bundle.manifest import Manifest, read_manifest

ABSENT = "(none)"


@dataclass(frozen=True)
class Difference:
    """One value that differs.

    Attributes:
        key: its place in the manifest, dotted.
        first: its value in the first bundle as JSON, or ``(none)``.
        second: the same in the second.
    """

    key: str
    first: str
    second: str


def bundle_differences(first: Path, second: Path) -> list[Difference]:
    """All differences of two verified bundles, in the order of the manifest's keys.

    Args:
        first: a bundle folder.
        second: another.

    Raises:
        BundleError: one of them is not whole.
    """
    left, right = (dict(_leaves(read_manifest(folder))) for folder in (first, second))
    return [
        Difference(key, left.get(key, ABSENT), right.get(key, ABSENT))
        for key in [*left, *(key for key in right if key not in left)]
        if left.get(key, ABSENT) != right.get(key, ABSENT)
    ]


def _leaves(manifest: Manifest) -> Iterator[tuple[str, str]]:
    return _flat(manifest.to_dict(), "")


def _flat(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, json.dumps(value)
