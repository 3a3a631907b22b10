"""A study that experts read: ``study.json``, and a picture and a heat map an item; the order of each rater.

Names of items tell nothing: they are drawn from the seed, and the file lists them in the order of their names. So
neither a name nor a place tells a method, a repeat or a sham map.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from dermdistill.atomic import atomic_folder, write_json
from dermdistill.errors import ConfigError, DataError, OutputError
from dermdistill.review.study_faults import FORMAT, file_faults, study_faults

STUDY_FILE: Final = "study.json"
# A repeat comes more than so many places after its original, where the study is long enough.
APART: Final = 5

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class StudyItem:
    """One item that a rater sees.

    Args:
        item: its opaque name, ``[a-z0-9_-]``, also that of its files.
        image_id: the image; raters never see it.
        lesion_id: its lesion.
        true: the true class.
        predicted: the model's answer.
        probs: {class: probability in [0, 1]}, all classes; they add up to 1.
        method: that made the map, such as ``grad_cam``; of a centre prior the method whose place it takes.
        sham: "" where the map is the method's own of this image, else ``centre_prior`` or ``other_image``.
        repeat_of: the item that this one shows once more, or "".
    """

    item: str
    image_id: str
    lesion_id: str
    true: str
    predicted: str
    probs: Mapping[str, float]
    method: str
    sham: str = ""
    repeat_of: str = ""


@dataclass(frozen=True)
class Study:
    """The content of ``study.json``.

    Args:
        title: what raters read above every page.
        seed: of names and orders, 0 or more.
        created: ISO time.
        classes: codes in the order of the model's answers; what a rater chooses a diagnosis from.
        items: at least one, in the order of their names.
    """

    title: str
    seed: int
    created: str
    classes: tuple[str, ...]
    items: tuple[StudyItem, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        items = [{**asdict(item), "probs": dict(item.probs)} for item in sorted(self.items, key=lambda item: item.item)]
        return {
            "format": FORMAT,
            "title": self.title,
            "seed": self.seed,
            "created": self.created,
            "classes": list(self.classes),
            "items": items,
        }


def picture_path(folder: Path, item: str) -> Path:
    """Where the picture of an item lies, RGB."""
    return folder / f"{item}.png"


def map_path(folder: Path, item: str) -> Path:
    """Where the heat map of an item lies, 8-bit grey, 255 the hottest, as large as the picture."""
    return folder / f"{item}.map.png"


def read_map(folder: Path, item: str) -> Picture:
    """The heat map of an item, uint8 [H, W]."""
    with Image.open(map_path(folder, item)) as picture:
        return np.asarray(picture, dtype=np.uint8)


def write_study(folder: Path, study: Study, pictures: Mapping[str, Picture], maps: Mapping[str, Any]) -> None:
    """Write a new study, whole or not at all.

    Args:
        folder: does not exist yet, or is empty: answers may lie beside an older study.
        study: checked as ``read_study`` does.
        pictures: {item: uint8 [H, W, 3]}.
        maps: {item: floats [h, w] in [0, 1]}, of any size; stored at the size of the picture.

    Raises:
        DataError: every fault of the study, an item without picture or map (or the other way round), wrong shapes or
            values, a repeat that does not show what its original shows.
        OutputError: the folder holds something, or cannot be written.
    """
    content = study.to_dict()
    faults = study_faults(content) or _array_faults(study, pictures, maps)
    if faults:
        raise DataError(f"{folder}: no study can be made of this", faults=faults)
    if folder.is_dir() and any(folder.iterdir()):
        raise OutputError(
            f"{folder}: holds something already",
            rule="a study is written into a new folder, as experts' answers may belong to an older one",
            next_step="choose another folder, or remove this one yourself",
        )
    with atomic_folder(folder) as temporary:
        for item in study.items:
            picture = Image.fromarray(pictures[item.item])
            heat = Image.fromarray(np.asarray(maps[item.item], dtype=np.float32))
            sized = np.asarray(heat.resize(picture.size, Image.Resampling.BILINEAR)).clip(0, 1)
            picture.save(picture_path(temporary, item.item))
            Image.fromarray(np.rint(sized * 255).astype(np.uint8)).save(map_path(temporary, item.item))
        write_json(temporary / STUDY_FILE, content)


def _array_faults(study: Study, pictures: Mapping[str, Picture], maps: Mapping[str, Any]) -> list[str]:
    names = {item.item for item in study.items}
    faults = [f"item {name!r}: no picture" for name in sorted(names - set(pictures))]
    faults += [f"item {name!r}: no map" for name in sorted(names - set(maps))]
    faults += [f"{name!r} is no item of the study" for name in sorted((set(pictures) | set(maps)) - names)]
    if faults:
        return faults
    for item in study.items:
        picture, heat = np.asarray(pictures[item.item]), np.asarray(maps[item.item])
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            faults.append(f"item {item.item!r}: picture {picture.dtype} {list(picture.shape)}, not uint8 [H, W, 3]")
        if heat.dtype.kind != "f" or heat.ndim != 2 or not heat.size or not ((heat >= 0) & (heat <= 1)).all():
            faults.append(f"item {item.item!r}: map {heat.dtype} {list(heat.shape)}, not floats [h, w] in [0, 1]")
        original = item.repeat_of
        if original and not (np.array_equal(picture, pictures[original]) and np.array_equal(heat, maps[original])):
            faults.append(f"item {item.item!r}: does not show what {original!r} shows, which it repeats")
    return faults


def read_study(folder: Path) -> Study:
    """Read what ``write_study`` wrote, and check all of it.

    Raises:
        DataError: no such study, not JSON, every fault of a field, a file that is missing, a link, no PNG of the right
            kind, or a map of another size than its picture.
    """
    path = folder / STUDY_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror})", next_step="make a study with `dermdistill review create RUN`"
        ) from error
    except ValueError as error:
        raise DataError(f"{path}: is no JSON in UTF-8 ({error})", next_step="restore the file") from error
    faults = study_faults(content) or [
        fault
        for item in content["items"]
        for fault in file_faults(picture_path(folder, item["item"]), map_path(folder, item["item"]))
    ]
    if faults:
        raise DataError(f"{path}: not a study that can be read", faults=faults, next_step="make the study again")
    return Study(
        title=content["title"],
        seed=content["seed"],
        created=content["created"],
        classes=tuple(content["classes"]),
        items=tuple(StudyItem(**item) for item in content["items"]),
    )


def order_for(study: Study, rater_index: int) -> list[str]:
    """The items in the order in which one rater sees them, the same at every call.

    Every repeat comes after its original, more than ``APART`` places, or as far as the number of items allows.

    Args:
        study: with N items, R of them repeats.
        rater_index: 0 for the first rater, and so on.

    Raises:
        ConfigError: a negative index.
    """
    if rater_index < 0:
        raise ConfigError(f"rater {rater_index}", rule="raters are counted from 0")
    generator = np.random.default_rng([study.seed, rater_index])
    repeat_of = {item.repeat_of: item.item for item in study.items if item.repeat_of}
    own = sorted(item.item for item in study.items if not item.repeat_of)
    originals = [own[place] for place in generator.permutation(len(own))]
    # Putting an item in never brings two others closer, so it is enough that each repeat finds room in its turn. It
    # does among the first places; where there are too few of those, repeats come after all originals.
    gap = min(APART + 1, len(originals))
    roomy = len(originals) - gap + 1
    order = _repeated_early(originals, set(repeat_of), max(len(repeat_of), roomy), generator)
    least = 0 if len(repeat_of) <= roomy else len(originals)
    for original in [name for name in order if name in repeat_of]:
        first = max(least, order.index(original) + gap)
        order.insert(int(generator.integers(first, len(order) + 1)), repeat_of[original])
    return order


def _repeated_early(order: list[str], repeated: set[str], early: int, generator: np.random.Generator) -> list[str]:
    """The same items, those in ``repeated`` at random places among the first ``early``, each kind in its old order."""
    places = set(generator.choice(early, size=len(repeated), replace=False).tolist()) if repeated else set()
    those = iter([name for name in order if name in repeated])
    others = iter([name for name in order if name not in repeated])
    return [next(those) if place in places else next(others) for place in range(len(order))]
