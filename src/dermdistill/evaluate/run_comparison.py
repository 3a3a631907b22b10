"""Trained models of several runs on one test part: every figure with its interval, paired differences, DeLong beside.

The figures are those of an evaluation: labels by raw scores, all else by calibrated probabilities, thresholds from
validation. All models are measured in the same replicates of lesions. A recipe that was trained with several seeds is
one row, and its replicates draw seeds too (``retrained.py``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermdistill.evaluate import bootstrap
from dermdistill.evaluate.calibration import interval_method
from dermdistill.evaluate.comparison import GROUP_VERDICTS, verdict
from dermdistill.evaluate.comparison_notes import comparison_notes
from dermdistill.evaluate.delong import delong_difference
from dermdistill.evaluate.figures import OVER_ALL_CLASSES, Scored, measure
from dermdistill.evaluate.metrics import Floats
from dermdistill.evaluate.retrained import Retrained
from dermdistill.labels import Task, class_names

# What is compared, and its name in ``figures.measure``. A new one is a line here.
METRICS = {
    "macro_auc": "diagnosis.macro_auc",
    "balanced_accuracy": "diagnosis.balanced_accuracy",
    "macro_f1": "diagnosis.macro_f1",
    "accuracy": "diagnosis.accuracy",
    "melanoma_auc": "melanoma.roc_auc",
    "specificity_at_95_sensitivity": "melanoma.specificity_at_95_sensitivity",
    "ece": "diagnosis.ece",
}

Json = dict[str, Any]
Rows = Mapping[str, Mapping[int, Scored]]


def compare_scored(
    rows: Rows, test: pd.DataFrame, pairs: Sequence[tuple[str, str]], *, task: Task, samples: int, seed: int
) -> Json:
    """Figures of all rows with their intervals, and the paired differences that are asked for.

    Args:
        rows: {row: {training seed: one trained model on the test part}}, images in the order of ``test``.
        test: N rows with image_id, lesion_id and label.
        pairs: (row, row to compare it with); the second of the first pair is the common control.
        task: names the classes.
        samples: bootstrap replicates.
        seed: of the bootstrap.

    Returns:
        JSON-able, in the form of ``comparison.compare_rows`` with the verdicts ``higher``, ``lower`` and ``no
        evidence``. A row also has ``delong`` {control: [{seeds, value, low, high, p}]}: the difference of melanoma ROC
        AUC by another way, for each two models that were paired, null where the test part does not define it.
    """
    lesions = test["lesion_id"].to_numpy()
    weights = bootstrap.lesion_weights(lesions, samples=samples, seed=seed)
    counts = {code: int((test["label"] == index).sum()) for index, code in enumerate(class_names(task))}
    measured = {name: _measured(models, weights, lacks_class=0 in counts.values()) for name, models in rows.items()}
    blocks: Json = {
        name: {
            "seeds": list(mine.seeds),
            "metrics": _figures(mine, seed),
            "differences": {},
            "paired_seeds": {},
            "delong": {},
        }
        for name, mine in measured.items()
    }
    for name, other in pairs:
        seeds = paired_seeds(measured[name].seeds, measured[other].seeds)
        blocks[name]["differences"][other] = _differences(_minus(measured[name], measured[other]), seed)
        blocks[name]["paired_seeds"][other] = [own for own, _ in seeds]
        blocks[name]["delong"][other] = _delong(rows[name], rows[other], seeds, lesions)
    n = {"images": len(test), "lesions": int(test["lesion_id"].nunique()), "per_class": counts}
    several = any(len(one.seeds) > 1 for one in measured.values())
    result: Json = {
        "task": task,
        "paired": True,
        "verdicts": list(GROUP_VERDICTS),
        "n": n,
        "bootstrap": {
            "samples": samples,
            "seed": seed,
            "unit": "lesion and seed" if several else "lesion",
            "level": bootstrap.LEVEL,
        },
        "metrics": list(METRICS),
        "control": pairs[0][1],
        "rows": blocks,
    }
    repeats = len(test) - int(test["image_id"].nunique())
    notes = [*comparison_notes(result, {"": n}, {"": repeats}), *_order_notes(rows, pairs)]
    return result | {"notes": notes}


def paired_seeds(mine: Sequence[int], others: Sequence[int]) -> list[tuple[int, int]]:
    """Which training seeds of two rows are paired: common ones, else the first with the first, and so on.

    A common seed gives both recipes the same order of images and the same views; where there is none, which two
    trainings are paired is chance, and lesions alone are.
    """
    common = sorted(set(mine) & set(others))
    return [(seed, seed) for seed in common] or list(zip(sorted(mine), sorted(others), strict=False))


def _minus(mine: Retrained, other: Retrained) -> Retrained:
    if set(mine.seeds) & set(other.seeds):
        return mine.minus(other)
    first, second = (replace(one, seeds=tuple(range(len(one.seeds)))) for one in (mine, other))
    return first.minus(second)


def _measured(models: Mapping[int, Scored], weights: npt.NDArray[np.uint16], *, lacks_class: bool) -> Retrained:
    seeds = tuple(sorted(models))
    points, samples = [], []
    for seed in seeds:
        figures = partial(_compared, models[seed])
        own = {name: float(value) for name, value in figures(np.ones(weights.shape[1])).items()}
        # A mean over fewer classes would be another figure under the same name.
        missing = [name for name, key in METRICS.items() if lacks_class and key in OVER_ALL_CLASSES]
        points.append(own | dict.fromkeys(missing, np.nan))
        samples.append(bootstrap.replicates(figures, weights))
    return Retrained(
        seeds,
        {name: np.array([point[name] for point in points]) for name in METRICS},
        {name: np.stack([sample[name] for sample in samples]) for name in METRICS},
    )


def _compared(scored: Scored, weights: Floats) -> dict[str, Floats]:
    figures = measure(scored, weights)
    return {name: figures[key] for name, key in METRICS.items()}


def _figures(measured: Retrained, seed: int) -> Json:
    means, several = measured.mean_samples(seed=seed), len(measured.seeds) > 1
    return {
        name: bootstrap.estimate(points.mean(), means[name], method=interval_method(METRICS[name]))
        | {
            "spread": bootstrap.number_or_none(float(points.std(ddof=1))) if several else None,
            "per_seed": [bootstrap.number_or_none(float(point)) for point in points],
        }
        for name, points in measured.points.items()
    }


def _differences(pair: Retrained, seed: int) -> Json:
    means, block = pair.mean_samples(seed=seed), {}
    for name, points in pair.points.items():
        cell = bootstrap.estimate(points.mean(), means[name])
        block[name] = cell | {
            "verdict": verdict(cell["low"], cell["high"], GROUP_VERDICTS),
            "per_seed": [bootstrap.number_or_none(float(point)) for point in points],
        }
    return block


def _delong(
    mine: Mapping[int, Scored],
    others: Mapping[int, Scored],
    seeds: Sequence[tuple[int, int]],
    lesions: npt.NDArray[Any],
) -> list[Json]:
    return [
        {"seeds": [own, other]}
        | delong_difference(mine[own].melanoma, mine[own].melanoma_probs, others[other].melanoma_probs, lesions)
        for own, other in seeds
    ]


def _order_notes(rows: Rows, pairs: Sequence[tuple[str, str]]) -> list[str]:
    apart = [f"{name} and {other}" for name, other in pairs if not set(rows[name]) & set(rows[other])]
    if not apart:
        return []
    return [
        f"No training seed in common: {', '.join(apart)}. Their trainings are paired in the order of their seeds, so "
        "these differences also hold what another seed would change."
    ]
