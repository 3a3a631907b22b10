"""Whether something helped: rows of an ablation against their control, and groups with test parts of their own.

Rows were tested on the same images, so their differences are paired: same lesions drawn, same training seeds
drawn. Groups were not (each protocol has its own test part), so each is drawn by itself and the difference of
the means has the wider interval that this deserves.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import pandas as pd

from dermdistill.evaluate import bootstrap
from dermdistill.evaluate.comparison_input import (
    Frames,
    checked_tables,
    control_pairs,
    require_common_seeds,
    require_same_images,
)
from dermdistill.evaluate.comparison_notes import comparison_notes
from dermdistill.evaluate.metrics import Floats
from dermdistill.evaluate.retrained import Retrained, measure_seeds
from dermdistill.labels import Task, class_names

# Paired rows say what was done to a student, groups only where a number lies.
PAIRED_VERDICTS = ("helped", "hurt")
GROUP_VERDICTS = ("higher", "lower")
NO_EVIDENCE = "no evidence"

Json = dict[str, Any]


def verdict(low: float | None, high: float | None, words: tuple[str, str] = PAIRED_VERDICTS) -> str | None:
    """What an interval of a difference says: above 0, below 0, or ``no evidence``; None without an interval."""
    if low is None or high is None:
        return None
    return words[0] if low > 0 else words[1] if high < 0 else NO_EVIDENCE


def compare_rows(
    rows: Frames,
    *,
    control: str,
    task: Task,
    samples: int,
    seed: int,
    controls: Mapping[str, str] | None = None,
    part: str = "test",
) -> Json:
    """Figures of all rows with their intervals, and paired differences from the control with a verdict.

    Args:
        rows: {row: {training seed: rows of ``predictions_frame`` on that part}}, of the same images.
        control: the row that all others are compared with.
        task: ``diagnosis`` or ``melanoma``.
        samples: bootstrap replicates.
        seed: of the bootstrap.
        controls: {row: a second row to compare it with}.
        part: of the tables; ``val`` where settings are chosen.

    Returns:
        JSON-able: ``task, paired, verdicts, n, bootstrap, metrics, control, rows, notes``; a row holds ``seeds``,
        ``metrics`` {metric: value, low, high, spread, per_seed}, ``differences`` {control: {metric: value, low,
        high, verdict, per_seed}} and ``paired_seeds`` {control: the seeds that both have}. ``spread`` is the
        standard deviation over seeds, null with one seed. What the test part does not define is null.

    Raises:
        ConfigError: a control that is no row, or a row that is to be its own control.
        DataError: every fault of every row and seed at once: see ``single_part_faults``, images unlike those
            of the others, a row that has no seed in common with its control.
    """
    pairs = control_pairs(rows, control, controls or {})
    checked = checked_tables(rows, task, part)
    require_same_images(checked)
    require_common_seeds(checked, pairs)
    test = next(iter(checked[control].values()))
    weights = bootstrap.lesion_weights(test["lesion_id"], samples=samples, seed=seed)
    measured = {name: measure_seeds(frames, weights, task) for name, frames in checked.items()}
    blocks = {}
    for name, mine in measured.items():
        against = {other: mine.minus(measured[other]) for other in pairs[name]}
        blocks[name] = {
            "seeds": list(mine.seeds),
            "metrics": _figures(mine, mine.mean_samples(seed=seed)),
            "differences": {other: _paired_differences(pair, seed) for other, pair in against.items()},
            "paired_seeds": {other: list(pair.seeds) for other, pair in against.items()},
        }
    return _result(blocks, {"": test}, task=task, control=control, samples=samples, seed=seed)


def compare_groups(groups: Frames, *, reference: str, task: Task, samples: int, seed: int) -> Json:
    """Figures of groups with different test parts, and unpaired differences of their means from the reference.

    Args:
        groups: {group: {training seed: rows of ``predictions_frame`` on the part ``test``}}; the seeds of one
            group share its images, groups need not.
        reference: the group that all others are compared with.
        task: ``diagnosis`` or ``melanoma``.
        samples: bootstrap replicates.
        seed: of the bootstrap; every group draws lesions and seeds of its own.

    Returns:
        as ``compare_rows``, with ``paired`` false, ``n`` in every row instead of at the top, verdicts ``higher``,
        ``lower`` and ``no evidence``, and no ``per_seed`` or ``paired_seeds`` of differences.

    Raises:
        ConfigError: the reference is no group.
        DataError: as ``compare_rows``, but images must agree within a group only.
    """
    pairs = control_pairs(groups, reference, {})
    checked = checked_tables(groups, task)
    for name, frames in checked.items():
        require_same_images({name: frames})
    tests = {name: next(iter(frames.values())) for name, frames in checked.items()}
    measured, means = {}, {}
    for name, frames in checked.items():
        own = _own_seed(seed, name)
        weights = bootstrap.lesion_weights(tests[name]["lesion_id"], samples=samples, seed=own)
        measured[name] = measure_seeds(frames, weights, task)
        means[name] = measured[name].mean_samples(seed=own)
    blocks = {
        name: {
            "n": _counts(tests[name], task),
            "seeds": list(mine.seeds),
            "metrics": _figures(mine, means[name]),
            "differences": {
                other: {
                    metric: _difference(
                        mine.points[metric].mean() - measured[other].points[metric].mean(),
                        means[name][metric] - means[other][metric],
                        GROUP_VERDICTS,
                    )
                    for metric in mine.points
                }
                for other in pairs[name]
            },
        }
        for name, mine in measured.items()
    }
    return _result(blocks, tests, task=task, control=reference, samples=samples, seed=seed)


def _own_seed(seed: int, name: str) -> int:
    """A bootstrap seed of a group's own, which does not change when another group is added."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:4])


def _counts(test: pd.DataFrame, task: Task) -> Json:
    per_class = {code: int((test["label"] == index).sum()) for index, code in enumerate(class_names(task))}
    return {"images": len(test), "lesions": int(test["lesion_id"].nunique()), "per_class": per_class}


def _figures(measured: Retrained, means: Mapping[str, Floats]) -> Json:
    several = len(measured.seeds) > 1
    return {
        metric: bootstrap.estimate(points.mean(), means[metric])
        | {
            "spread": bootstrap.number_or_none(float(points.std(ddof=1))) if several else None,
            "per_seed": [bootstrap.number_or_none(float(point)) for point in points],
        }
        for metric, points in measured.points.items()
    }


def _difference(value: float, samples: Floats, words: tuple[str, str]) -> Json:
    cell = bootstrap.estimate(value, samples)
    return cell | {"verdict": verdict(cell["low"], cell["high"], words)}


def _paired_differences(pair: Retrained, seed: int) -> Json:
    means = pair.mean_samples(seed=seed)
    return {
        metric: _difference(points.mean(), means[metric], PAIRED_VERDICTS)
        | {"per_seed": [bootstrap.number_or_none(float(point)) for point in points]}
        for metric, points in pair.points.items()
    }


def _result(
    blocks: Json, tests: Mapping[str, pd.DataFrame], *, task: Task, control: str, samples: int, seed: int
) -> Json:
    """The whole, from the blocks of its rows; one test part without a name is common to all of them."""
    counts = {name: _counts(test, task) for name, test in tests.items()}
    repeats = {name: len(test) - int(test["image_id"].nunique()) for name, test in tests.items()}
    several = any(len(block["seeds"]) > 1 for block in blocks.values())
    result = {
        "task": task,
        "paired": "" in tests,
        "verdicts": list(PAIRED_VERDICTS if "" in tests else GROUP_VERDICTS),
        **({"n": counts[""]} if "" in tests else {}),
        "bootstrap": {
            "samples": samples,
            "seed": seed,
            "unit": "lesion and seed" if several else "lesion",
            "level": bootstrap.LEVEL,
        },
        "metrics": list(blocks[control]["metrics"]),
        "control": control,
        "rows": blocks,
    }
    return result | {"notes": comparison_notes(result, counts, repeats)}
