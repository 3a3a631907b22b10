"""What can be wrong with a study's file and pictures, one line a fault, so that all are told at once."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from PIL import Image, UnidentifiedImageError

FORMAT: Final = 1
STUDY_KEYS: Final = ("format", "title", "seed", "created", "classes", "items")
ITEM_KEYS: Final = ("item", "image_id", "lesion_id", "true", "predicted", "probs", "method", "sham", "repeat_of")
SHAMS: Final = ("centre_prior", "other_image")
# No dot and no slash: a name can neither leave the folder nor be taken for another file of it.
ITEM_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
CODE: Final = re.compile(r"[a-z0-9][a-z0-9_]{0,31}")
LONGEST_TITLE: Final = 200
SUM_TOLERANCE: Final = 1e-3


def study_faults(content: Any) -> list[str]:
    """Faults of what ``study.json`` holds; none where ``Study`` can be made of it."""
    if not isinstance(content, dict) or set(content) != set(STUDY_KEYS):
        found = ", ".join(map(repr, content)) if isinstance(content, dict) else type(content).__name__
        return [f"the keys are {', '.join(STUDY_KEYS)}, not {found}"]
    if type(content["format"]) is not int or content["format"] != FORMAT:
        return [f"format {content['format']!r}: this version reads {FORMAT}"]
    faults = list(_head_faults(content))
    classes, items = content["classes"], content["items"]
    if not _is_class_list(classes):
        faults.append(f"classes {classes!r:.200}: at least two different codes of small letters and digits")
        classes = []
    if not isinstance(items, list) or not items:
        return [*faults, "items: a list of at least one item"]
    for number, item in enumerate(items):
        faults += [f"item {number + 1}: {fault}" for fault in _item_faults(item, classes)]
    return faults or list(_link_faults(items))


def _head_faults(content: Mapping[str, Any]) -> Iterator[str]:
    title, seed, created = content["title"], content["seed"], content["created"]
    if not isinstance(title, str) or not title.strip() or len(title) > LONGEST_TITLE or not title.isprintable():
        yield f"title {title!r:.200}: one line of 1 to {LONGEST_TITLE} letters"
    if type(seed) is not int or seed < 0:
        yield f"seed {seed!r}: a whole number from 0"
    if not is_iso_time(created):
        yield f"created {created!r:.200}: an ISO time such as 2026-01-31T12:00:00+00:00"


def is_iso_time(text: Any) -> bool:
    """Whether something is a text with a date in ISO 8601."""
    try:
        datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return False
    return True


def _is_class_list(classes: Any) -> bool:
    return (
        isinstance(classes, list)
        and len(classes) >= 2
        and all(isinstance(code, str) and CODE.fullmatch(code) for code in classes)
        and len(set(classes)) == len(classes)
    )


def _item_faults(item: Any, classes: list[str]) -> Iterator[str]:
    if not isinstance(item, dict) or set(item) != set(ITEM_KEYS):
        yield f"the keys are {', '.join(ITEM_KEYS)}"
        return
    texts = [key for key in ITEM_KEYS if key != "probs" and not isinstance(item[key], str)]
    if texts:
        yield f"{', '.join(texts)}: must be text"
        return
    if not ITEM_NAME.fullmatch(item["item"]):
        yield f"name {item['item']!r:.100}: up to 64 of a-z, 0-9, _ and -, as files are named after it"
    for key in ("image_id", "lesion_id"):
        if not item[key].strip():
            yield f"{key} is empty"
    for key in ("true", "predicted"):
        if classes and item[key] not in classes:
            yield f"{key} {item[key]!r:.100} is not one of {', '.join(classes)}"
    if not CODE.fullmatch(item["method"]):
        yield f"method {item['method']!r:.100}: a name such as grad_cam"
    if item["sham"] not in ("", *SHAMS):
        yield f"sham {item['sham']!r:.100}: empty or one of {', '.join(SHAMS)}"
    if classes and not _are_probs(item["probs"], classes):
        yield f"probs {item['probs']!r:.200}: one in [0, 1] for each of {', '.join(classes)}, together 1"


def _are_probs(probs: Any, classes: list[str]) -> bool:
    return (
        isinstance(probs, Mapping)
        and set(probs) == set(classes)
        and all(type(value) in (int, float) and 0 <= value <= 1 for value in probs.values())
        and abs(sum(probs.values()) - 1) <= SUM_TOLERANCE
    )


def _link_faults(items: list[dict[str, Any]]) -> Iterator[str]:
    """Names that are there twice, repeats of nothing, of repeats, or of something else than they show."""
    by_name = {item["item"]: item for item in items}
    for name, count in Counter(item["item"] for item in items).items():
        if count > 1:
            yield f"item {name!r} is there {count} times"
    repeated = Counter(item["repeat_of"] for item in items if item["repeat_of"])
    for name, count in repeated.items():
        if count > 1:
            yield f"item {name!r} is repeated {count} times, at most once"
    for item in items:
        if not item["repeat_of"]:
            continue
        original = by_name.get(item["repeat_of"])
        if original is None or original["repeat_of"]:
            yield f"item {item['item']!r} repeats {item['repeat_of']!r:.100}, which is no original item of the study"
        elif differing := [key for key in ITEM_KEYS[1:-1] if item[key] != original[key]]:
            yield f"item {item['item']!r} differs from {item['repeat_of']!r}, which it repeats: {', '.join(differing)}"


def file_faults(picture: Path, heat: Path) -> list[str]:
    """Faults of an item's two files: missing, links, not PNG, not RGB or grey, of different sizes."""
    faults, sizes = [], []
    for path, mode in ((picture, "RGB"), (heat, "L")):
        if path.is_symlink() or not path.is_file():
            faults.append(f"{path.name}: {'a link, not a file' if path.is_symlink() else 'missing'}")
            continue
        try:
            with Image.open(path, formats=["PNG"]) as image:
                image.load()
                sizes.append(image.size)
                if image.mode != mode:
                    faults.append(f"{path.name}: mode {image.mode}, not {mode}")
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            faults.append(f"{path.name}: not a sound PNG file ({error})")
    if len(set(sizes)) > 1:
        faults.append(f"{heat.name}: {sizes[1][0]} x {sizes[1][1]}, its picture {sizes[0][0]} x {sizes[0][1]}")
    return faults
