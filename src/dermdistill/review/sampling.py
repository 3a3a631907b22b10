"""Which images a study shows, with which maps: by class and by right or wrong, with repeats and sham maps.

A study of the mistakes alone, or of melanomas alone, would tell raters what to expect; one drawn at random would be
nevi. So all classes, and right and wrong answers, come in turn. Shams (the map of nothing but the picture's centre, or
of another image) tell whether raters judge the maps or the look of maps; repeats, how far a rater agrees with himself.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pandas as pd

from dermdistill.errors import ConfigError, DataError
from dermdistill.review.study import StudyItem
from dermdistill.review.study_faults import CODE, SHAMS

CENTRE_PRIOR = SHAMS[0]
NAME_LETTERS: Final = 12


@dataclass(frozen=True)
class ItemPlan:
    """An item and the map that it needs.

    Args:
        item: as it will stand in ``study.json``.
        map_of: the image whose map by ``item.method`` is shown, that is of the class that the model answers for that
            image; "" for the centre prior, which needs no image.
    """

    item: StudyItem
    map_of: str


@dataclass(frozen=True)
class Sample:
    """A planned study.

    Args:
        classes: of the model, in its order.
        plans: one an item, in the order of the items' names, which tells nothing.
        notes: what was asked for and could not be had, a sentence each.
    """

    classes: tuple[str, ...]
    plans: tuple[ItemPlan, ...]
    notes: tuple[str, ...]


def sample_items(
    predictions: pd.DataFrame, *, size: int, methods: Sequence[str], repeats: int, shams: float, seed: int
) -> Sample:
    """Plan a study: ``size`` lesions, one image each, and ``repeats`` of these items once more.

    Args:
        predictions: rows of one model and one part: ``image_id``, ``lesion_id``, ``label`` (index), ``prob_<class>``.
            An image that is there several times counts once. The order of rows does not matter.
        size: images, repeats not counted; fewer where there are fewer lesions.
        methods: names of methods, dealt in turn within every stratum.
        repeats: items to show a second time, drawn from all, shams included.
        shams: share of the images, in [0, 0.5], whose map is a sham; the kinds of ``SHAMS`` take turns. The map of
            another image is that of an image of the study with another lesion.
        seed: of all draws and of the items' names.

    Raises:
        ConfigError: a number out of its range, or a method that is no name or there twice.
        DataError: no rows, rows of several models or parts, columns missing, an empty id, an image with two lesions, a
            label or probability out of its range.
    """
    _check_wishes(size, methods, repeats, shams, seed)
    table, classes = _scored(predictions)
    generator = np.random.default_rng(seed)
    chosen, notes = _stratified(table, classes, size, generator)
    sham_of, sham_notes = _sham_places(len(chosen), shams, generator)
    method_of = _dealt_methods(sham_of, methods, generator)
    plans = []
    for place, row in enumerate(chosen.to_dict("records")):
        item = StudyItem(
            item="",
            image_id=row["image_id"],
            lesion_id=row["lesion_id"],
            true=row["true"],
            predicted=row["predicted"],
            probs={code: row[f"prob_{code}"] for code in classes},
            method=method_of[place],
            sham=sham_of[place],
        )
        others = [str(name) for name in chosen["image_id"].drop(index=place)]
        plans.append(ItemPlan(item, _map_of(item, others, generator)))
    again = generator.permutation(len(plans))[:repeats]
    notes += sham_notes
    if len(again) < repeats:
        notes.append(f"{repeats} repeats were asked for, {len(again)} are in the study: one an image at most")
    return Sample(classes, _named(plans, again.tolist(), seed), tuple(notes))


def _check_wishes(size: int, methods: Sequence[str], repeats: int, shams: float, seed: int) -> None:
    if size < 1 or repeats < 0 or seed < 0:
        raise ConfigError(
            f"a study of {size} images with {repeats} repeats and seed {seed}",
            rule="at least 1 image, and no negative number of repeats or seed",
        )
    if not 0 <= shams <= 0.5:
        raise ConfigError(f"shams {shams}", rule="a share of the images, from 0 to 0.5")
    if not methods or len(set(methods)) < len(methods) or not all(CODE.fullmatch(method) for method in methods):
        raise ConfigError(f"methods {', '.join(methods) or 'none'}", rule="at least one, each named once")


def _scored(predictions: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """One row an image, sorted: image_id, lesion_id, true, predicted, prob_<class>; and the classes."""
    columns = [str(name) for name in predictions.columns if str(name).startswith("prob_")]
    missing = [name for name in ("image_id", "lesion_id", "label") if name not in predictions.columns]
    mixed = [name for name in ("model", "split") if name in predictions and predictions[name].nunique() > 1]
    if missing or mixed or len(columns) < 2 or predictions.empty:
        raise DataError(
            f"{len(predictions)} rows of predictions; missing: {', '.join(missing) or 'nothing'}; "
            f"of several: {', '.join(mixed) or 'nothing'}; {len(columns)} columns of probabilities",
            rule="rows of one model and one part, with image_id, lesion_id, label and prob_<class>",
        )
    labels = predictions["label"].to_numpy(dtype=np.int64)
    probs = predictions[columns].to_numpy(dtype=np.float64)
    if not (np.isfinite(probs).all() and (probs >= 0).all() and (probs.sum(axis=1) > 0).all()):
        raise DataError("a probability is negative or not finite", next_step="make the predictions again")
    if labels.min() < 0 or labels.max() >= len(columns):
        raise DataError(f"labels {labels.min()} to {labels.max()} for {len(columns)} classes")
    # float32 probabilities add up to 1 within a few 1e-7 only; the study's file asks for no more than a thousandth.
    probs = probs / probs.sum(axis=1, keepdims=True)
    classes = tuple(name.removeprefix("prob_") for name in columns)
    table = pd.DataFrame(probs, columns=pd.Index(columns))
    table["image_id"] = predictions["image_id"].to_numpy()
    table["lesion_id"] = predictions["lesion_id"].to_numpy()
    if table[["image_id", "lesion_id"]].isna().to_numpy().any():
        raise DataError("an image_id or lesion_id is empty", next_step="make the predictions again")
    table[["image_id", "lesion_id"]] = table[["image_id", "lesion_id"]].astype(str)
    table["true"] = np.array(classes)[labels]
    table["predicted"] = np.array(classes)[probs.argmax(axis=1)]
    if (table.groupby("image_id")["lesion_id"].nunique() > 1).any():
        raise DataError("an image belongs to two lesions", next_step="make the predictions again")
    return table.drop_duplicates("image_id").sort_values("image_id", ignore_index=True), classes


def _stratified(
    table: pd.DataFrame, classes: Sequence[str], size: int, generator: np.random.Generator
) -> tuple[pd.DataFrame, list[str]]:
    """Rows of the chosen images, stratum after stratum, and what was short.

    Strata take turns until there are enough, the smallest first, as their images are the hardest to come by. A lesion
    that was chosen once is passed over.
    """
    shuffled = table.iloc[generator.permutation(len(table))]
    right = (shuffled["true"] == shuffled["predicted"]).to_numpy()
    strata = {
        (code, correct): shuffled[(shuffled["true"] == code).to_numpy() & (right == correct)]
        for code in classes
        for correct in (True, False)
    }
    waiting = {name: rows.index.tolist() for name, rows in strata.items()}
    taken: dict[tuple[str, bool], list[int]] = {name: [] for name in strata}
    lesion = table["lesion_id"].tolist()
    used: set[str] = set()
    turns = sorted(strata, key=lambda name: len(strata[name]))
    while len(used) < size and any(waiting.values()):
        for name in turns:
            waiting[name] = [row for row in waiting[name] if lesion[row] not in used]
            if waiting[name] and len(used) < size:
                row = waiting[name].pop(0)
                taken[name].append(row)
                used.add(lesion[row])
    rows = [row for name in strata for row in taken[name]]
    return table.loc[rows].reset_index(drop=True), _short_notes(taken, size, len(rows))


def _short_notes(taken: dict[tuple[str, bool], list[int]], size: int, found: int) -> list[str]:
    notes = []
    if found < size:
        notes.append(f"{size} images were asked for, {found} are in the study: there are no more lesions")
    share = size // len(taken)
    if not share:
        notes.append(f"{size} images are fewer than the {len(taken)} strata (class, right or wrong): some have none")
    for (code, correct), rows in taken.items():
        if len(rows) < share:
            notes.append(
                f"{code}, answered {'right' if correct else 'wrong'}: {len(rows)} of the {share} images that an equal "
                f"share would be{'; others took their places' if found == size else ''}"
            )
    return notes


def _sham_places(images: int, shams: float, generator: np.random.Generator) -> tuple[list[str], list[str]]:
    """ "" or the kind of sham for each image, and what was short.

    Evenly spaced from a random start: images stand stratum after stratum, so every stratum has its share.
    """
    count = round(shams * images)
    notes = []
    if not count:
        notes.append(
            f"no map is a sham ({shams:g} of {images}, rounded, is none): "
            "whether raters tell maps from shams cannot be known from this study"
        )
    places = np.floor((np.arange(count) + generator.random()) * images / max(count, 1)).astype(np.int64)
    kinds = [SHAMS[turn % len(SHAMS)] for turn in range(count)]
    sham_of = [""] * images
    for place, kind in zip(places.tolist(), kinds, strict=True):
        sham_of[place] = kind
    if 0 < count < len(SHAMS):
        notes.append(f"one map is a sham, of the kind {kinds[0]}: the other kind has no place")
    return sham_of, notes


def _dealt_methods(sham_of: Sequence[str], methods: Sequence[str], generator: np.random.Generator) -> list[str]:
    """A method for each image, dealt in turn among true maps, and among each kind of sham, from a random start."""
    turn = {kind: int(generator.integers(len(methods))) for kind in ("", *SHAMS)}
    dealt = []
    for sham in sham_of:
        dealt.append(methods[turn[sham] % len(methods)])
        turn[sham] += 1
    return dealt


def _map_of(item: StudyItem, others: Sequence[str], generator: np.random.Generator) -> str:
    """The image whose map an item shows. All images of a study are of different lesions."""
    if item.sham == CENTRE_PRIOR:
        return ""
    return item.image_id if not item.sham else others[int(generator.integers(len(others)))]


def _named(plans: Sequence[ItemPlan], again: Sequence[int], seed: int) -> tuple[ItemPlan, ...]:
    """The plans and those to show again, under names that are a hash, in the names' order."""
    shown = [*plans, *(plans[place] for place in again)]
    names = [_opaque(seed, place, plan.item.image_id) for place, plan in enumerate(shown)]
    first = [replace(plan, item=replace(plan.item, item=name)) for plan, name in zip(plans, names, strict=False)]
    repeated = [
        replace(first[place], item=replace(first[place].item, item=name, repeat_of=names[place]))
        for place, name in zip(again, names[len(plans) :], strict=True)
    ]
    return tuple(sorted([*first, *repeated], key=lambda plan: plan.item.item))


def _opaque(seed: int, place: int, image_id: str) -> str:
    """A name that a rater, who knows neither seed nor image, cannot trace back."""
    return hashlib.sha256(f"dermdistill study {seed} item {place} {image_id}".encode()).hexdigest()[:NAME_LETTERS]
