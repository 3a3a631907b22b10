"""The checks before a comparison: who is compared with whom, sound tables, the same images, common seeds."""

from collections.abc import Mapping, Sequence

import pandas as pd

from dermdistill.errors import ConfigError, DataError
from dermdistill.evaluate.prediction_faults import IMAGE, image_list
from dermdistill.evaluate.predictions import single_part_faults
from dermdistill.labels import Task

PART = "test"

Frames = Mapping[str, Mapping[int, pd.DataFrame]]


def control_pairs(rows: Frames, control: str, controls: Mapping[str, str]) -> dict[str, list[str]]:
    """For every row the rows it is compared with, the common control first.

    Raises:
        ConfigError: a control that is no row, or a row that is to be its own.
    """
    unknown = sorted({control, *controls, *controls.values()} - set(rows))
    own = sorted(name for name, other in controls.items() if name == other)
    if unknown or own:
        problem = f"no row {', '.join(map(repr, unknown))}" if unknown else f"{', '.join(own)}: its own control"
        raise ConfigError(
            f"rows cannot be compared: {problem}", rule=f"a control is another one of the rows {', '.join(rows)}"
        )
    second = {name: [controls[name]] if controls.get(name, control) != control else [] for name in rows}
    return {name: [control] * (name != control) + second[name] for name in rows}


def checked_tables(rows: Frames, task: Task, part: str = PART) -> dict[str, dict[int, pd.DataFrame]]:
    """All tables, seeds in ascending order, images of a table in theirs.

    Raises:
        DataError: every fault of every table at once, with row and seed; see ``single_part_faults``.
    """
    faults = [f"{name!r} has no seed" for name, frames in rows.items() if not frames]
    for name, frames in rows.items():
        for key, frame in frames.items():
            faults += [f"{name!r}, seed {key}: {fault}" for fault in single_part_faults(frame, task=task, part=part)]
    if faults:
        raise DataError("predictions cannot be compared", faults=faults, next_step="make these predictions again")
    return {
        name: {key: frames[key].sort_values(list(IMAGE), kind="stable", ignore_index=True) for key in sorted(frames)}
        for name, frames in rows.items()
    }


def require_same_images(rows: Frames) -> None:
    """Refuse tables of different images.

    Raises:
        DataError: the rows and seeds whose images, lesions or diagnoses are not those of the first.
    """
    (first, *others) = ((name, key, frame) for name, frames in rows.items() for key, frame in frames.items())
    images = image_list(first[2])
    faults = []
    for name, key, frame in others:
        mine = image_list(frame)
        if mine != images:
            lacks, more = (len(set(one) - set(other)) for one, other in ((images, mine), (mine, images)))
            faults.append(f"{name!r}, seed {key}: {len(mine)} images, {lacks} missing and {more} others")
    if faults:
        raise DataError(
            f"predictions are not of the images of {first[0]!r}, seed {first[1]} ({len(images)} images)",
            faults=faults,
            rule="what is compared pair by pair was tested on the same images, lesions and diagnoses",
            next_step="make these predictions again on one split",
        )


def require_common_seeds(rows: Frames, pairs: Mapping[str, Sequence[str]]) -> None:
    """Refuse rows that share no training seed with a row they are compared with.

    Raises:
        DataError: all such rows.
    """
    faults = [
        f"{name!r} has the seeds {sorted(rows[name])}, its control {other!r} has {sorted(rows[other])}"
        for name, others in pairs.items()
        for other in others
        if not set(rows[name]) & set(rows[other])
    ]
    if faults:
        raise DataError(
            "rows share no training seed with their control",
            faults=faults,
            rule="differences are taken seed by seed, so at least one seed is common",
            next_step="train these rows with seeds of their control",
        )
