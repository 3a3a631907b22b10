"""``seen_images.json``: what a bundle's models have seen, so that an evaluation can tell new images from those.

Of every training and validation image a code of 128 bits (see ``data.overlap``, also on why no picture can be rebuilt
from it), and its name and that of its lesion where they are unique in the world, such as ``ISIC_0024306``. Other names
mean nothing elsewhere, may tell whose images they are, and are left out. About 370 kB for 8,500 images.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dermdistill.atomic import write_text
from dermdistill.data.overlap import BITS, Seen, picture_codes, public_name
from dermdistill.errors import BundleError, DataError

SEEN_FILE = "seen_images.json"
FORMAT = 1
# What is compared: another number where codes are made in another way.
HASH = "dct128/1"
SEEN_PARTS = ("train", "val")
UNNAMED = "-"


def seen_images(
    image_ids: Sequence[str], lesion_ids: Sequence[str], paths: Sequence[Path], parts: Sequence[str]
) -> Seen:
    """What a model has seen: the images of ``train`` and ``val``, each once, sorted by id; the others are left out.

    Args:
        image_ids: of all images, N.
        lesion_ids: of their lesions.
        paths: of their files, which are decoded.
        parts: of their parts.

    Raises:
        DataError: images cannot be read, or none is of these parts.
    """
    rows = {
        image_id: (part, lesion, path)
        for image_id, lesion, path, part in zip(image_ids, lesion_ids, paths, parts, strict=True)
        if part in SEEN_PARTS
    }
    if not rows:
        raise DataError("no image was seen", rule=f"images of the parts {' and '.join(SEEN_PARTS)}")
    ids = sorted(rows, key=lambda image_id: (SEEN_PARTS.index(rows[image_id][0]), image_id))
    return Seen(
        names=tuple(public_name(image_id) for image_id in ids),
        parts=tuple(rows[image_id][0] for image_id in ids),
        codes=picture_codes([Path(rows[image_id][2]) for image_id in ids], ids),
        lesions=frozenset(public_name(rows[image_id][1]) for image_id in ids) - {""},
    )


def write_fingerprints(
    folder: Path,
    *,
    image_ids: Sequence[str],
    lesion_ids: Sequence[str],
    paths: Sequence[Path],
    parts: Sequence[str],
) -> Seen:
    """Write ``seen_images.json`` into a bundle's folder, before its manifest.

    Args:
        folder: of the bundle.
        image_ids: see ``seen_images``, as the others.
        lesion_ids: of their lesions.
        paths: of their files.
        parts: of their parts.

    Raises:
        DataError: images cannot be read, or none is of the parts ``train`` and ``val``.
        OutputError: the file cannot be written.
    """
    seen = seen_images(image_ids, lesion_ids, paths, parts)
    content: dict[str, Any] = {"format": FORMAT, "hash": HASH, "parts": {}, "lesions": " ".join(sorted(seen.lesions))}
    for part in SEEN_PARTS:
        chosen = [row for row, own in enumerate(seen.parts) if own == part]
        content["parts"][part] = {
            "images": " ".join(seen.names[row] or UNNAMED for row in chosen),
            "codes": base64.b64encode(seen.codes[chosen].tobytes()).decode(),
        }
    write_text(folder / SEEN_FILE, json.dumps(content, separators=(",", ":")) + "\n")
    return seen


def read_fingerprints(folder: Path) -> Seen | None:
    """Read what ``write_fingerprints`` wrote; None where a bundle has no such file.

    Raises:
        BundleError: it cannot be read, or is of another form.
    """
    path = folder / SEEN_FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_bytes())
        form = content["format"], content["hash"]
        if form != (FORMAT, HASH):
            raise _unusable(path, f"its form is {form[0]!r} with codes {form[1]!r}")
        blocks = [(part, content["parts"][part]) for part in SEEN_PARTS]
        names = [(part, name) for part, block in blocks for name in block["images"].split()]
        raw = b"".join(base64.b64decode(block["codes"], validate=True) for _, block in blocks)
        codes = np.frombuffer(raw, dtype=np.uint8).reshape(len(names), BITS // 8)
        lesions = frozenset(content["lesions"].split())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        raise _unusable(path, f"{type(error).__name__}: {error}") from error
    return Seen(
        names=tuple("" if name == UNNAMED else name for _, name in names),
        parts=tuple(part for part, _ in names),
        codes=codes,
        lesions=lesions,
    )


def _unusable(path: Path, why: str) -> BundleError:
    return BundleError(
        f"{path}: cannot be used: {why}",
        rule=f"form {FORMAT} with codes {HASH}, as this version of dermdistill writes it",
        next_step="copy the bundle again from where it was made, or go on with --unchecked",
    )
