"""Whom a model fails: its figures in groups of images, the largest gap of each axis, and whether chance gives it.

A gap is the difference between the best and the worst group of an axis. Its interval is of those two groups, which
were picked for being far apart; its p value is not misled by that, as every permutation picks its own two.

The permutation test (Good 2005, ch. 3) hands the groups out anew among lesions. Those of sensitivity are handed out
among melanomas, of specificity among the other lesions, of AUC among both apart: each group keeps its number of
melanomas. Those of accuracy are handed out among all. A second p value hands them out among lesions of the same
diagnosis, so that every group keeps its mix of diagnoses: where it is large, the mix alone gives such a gap. A lesion
whose images lie in several groups (of size, say) counts, in the tests alone, with the group of most of its images,
among equals the first. Balanced accuracy has no gap: the groups it averages over differ in their classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dermdistill.errors import DataError
from dermdistill.evaluate import metrics, operating_points
from dermdistill.evaluate.bootstrap import BLOCK_VALUES, LEVEL, estimate, lesion_weights, replicates
from dermdistill.evaluate.metrics import Bools, Floats, Ints
from dermdistill.evaluate.notes import FEW
from dermdistill.evaluate.subgroup_axes import UNKNOWN, Axis

Json = dict[str, Any]

PERMUTATIONS = 1000


@dataclass(frozen=True, eq=False)
class SubgroupScores:
    """One model on the test part.

    Attributes:
        labels: int [N], true classes.
        predicted: int [N], the argmax of the raw probabilities.
        melanoma: bool [N], which images show one.
        melanoma_probs: float [N] in [0, 1], calibrated.
        threshold: of ``melanoma_probs``, for 95% sensitivity on the validation part; None where there is none.
        classes: names of the classes, K.
    """

    labels: Ints
    predicted: Ints
    melanoma: Bools
    melanoma_probs: Floats
    threshold: float | None
    classes: tuple[str, ...]

    def only(self, images: npt.NDArray[Any]) -> "SubgroupScores":
        """Some of the images, by mask or place."""
        arrays = {name: getattr(self, name)[images] for name in ("labels", "predicted", "melanoma", "melanoma_probs")}
        return replace(self, **arrays)


@dataclass(frozen=True)
class Figure:
    """A figure of one group.

    Attributes:
        measure: scores and weights [..., N] to values [...].
        about: which images it rests on, [N].
        kinds: of which there must be enough: for each, bool [N].
        gap: whether groups are compared by it.
    """

    measure: Callable[[SubgroupScores, Floats], Floats]
    about: Callable[[SubgroupScores], Bools]
    kinds: tuple[Callable[[SubgroupScores], Bools], ...]
    gap: bool = True

    def cases(self, scores: SubgroupScores) -> int:
        """How many images it rests on: of the rarer kind, where it needs two."""
        return min(int(kind(scores).sum()) for kind in self.kinds)


def _all(scores: SubgroupScores) -> Bools:
    return np.ones(len(scores.labels), dtype=np.bool_)


def _melanomas(scores: SubgroupScores) -> Bools:
    return scores.melanoma


def _others(scores: SubgroupScores) -> Bools:
    others: Bools = ~scores.melanoma
    return others


def _accuracy(scores: SubgroupScores, weights: Floats) -> Floats:
    right = (scores.labels == scores.predicted).astype(np.float64)
    return metrics.ratio(weights @ right, weights.sum(axis=-1))


def _balanced_accuracy(scores: SubgroupScores, weights: Floats) -> Floats:
    called = np.eye(len(scores.classes))[scores.predicted]
    return metrics.balanced_accuracy(scores.labels, called, weights)


def _auc(scores: SubgroupScores, weights: Floats) -> Floats:
    return metrics.roc_auc(scores.melanoma, scores.melanoma_probs, weights)


def _share(share: Callable[[Bools, Floats, float, Floats], Floats]) -> Callable[[SubgroupScores, Floats], Floats]:
    def measure(scores: SubgroupScores, weights: Floats) -> Floats:
        if scores.threshold is None:
            return np.full(weights.shape[:-1], np.nan)
        return share(scores.melanoma, scores.melanoma_probs, scores.threshold, weights)

    return measure


def _excess(scores: SubgroupScores, weights: Floats) -> Floats:
    """Mean probability of melanoma minus share of melanomas (calibration in the large)."""
    return metrics.ratio(weights @ (scores.melanoma_probs - scores.melanoma), weights.sum(axis=-1))


FIGURES: dict[str, Figure] = {
    "accuracy": Figure(_accuracy, _all, (_all,)),
    "balanced_accuracy": Figure(_balanced_accuracy, _all, (_all,), gap=False),
    "melanoma_auc": Figure(_auc, _all, (_melanomas, _others)),
    "sensitivity_at_95_sensitivity": Figure(_share(operating_points.sensitivity_at), _melanomas, (_melanomas,)),
    "specificity_at_95_sensitivity": Figure(_share(operating_points.specificity_at), _others, (_others,)),
    "melanoma_excess": Figure(_excess, _all, (_all,), gap=False),
}


def subgroups_block(
    models: Mapping[str, SubgroupScores],
    axes: Mapping[str, Axis],
    lesion_ids: npt.ArrayLike,
    *,
    samples: int,
    seed: int,
    permutations: int = PERMUTATIONS,
) -> Json:
    """Every model in every group of every axis.

    Args:
        models: {model: scores}, all of the same images.
        axes: of ``subgroup_axes.axes_of``, in the order of the scores.
        lesion_ids: [N].
        samples: bootstrap draws of lesions, the same for all groups and models.
        seed: of the draws and of the permutations.
        permutations: of each test.

    Returns:
        ``bootstrap`` {samples, seed, level}, ``permutations``, ``few`` (cases up to which no figure is given);
        ``axes`` {axis: {``title``, ``unavailable`` (reason or null), ``notes``, ``lesions_in_several_groups``,
        ``groups`` {group: {images, lesions, melanomas, missing_classes}}}};
        ``models`` {model: {axis: {``groups`` {group: {figure: {value, low, high, cases}}}, ``gaps`` {figure: gap}}}},
        axes that are unavailable left out. A figure is null with few ``cases``, and where nothing defines it. A gap is
        ``value, low, high``, ``best`` and ``worst`` (groups), ``compared`` (number of groups with enough cases),
        ``p``, ``p_same_diagnosis``, and both after Holm's correction across axes, ``p_holm`` and
        ``p_same_diagnosis_holm``; all null, but ``compared``, where fewer than two groups have enough.

    Raises:
        DataError: no model, or arrays of different lengths.
    """
    lesions = np.unique(np.asarray(lesion_ids), return_inverse=True)[1]
    _check(models, axes, len(lesions))
    weights = lesion_weights(lesions, samples=samples, seed=seed)
    counted = next(iter(models.values()))
    known = {name: axis for name, axis in axes.items() if axis.unavailable is None}
    blocks: dict[str, Json] = {}
    for model, scores in models.items():
        blocks[model] = {
            name: _axis_block(scores, axis, lesions, weights, permutations, (seed, place))
            for place, (name, axis) in enumerate(known.items())
        }
        _correct([block["gaps"] for block in blocks[model].values()])
    return {
        "bootstrap": {"samples": samples, "seed": seed, "level": LEVEL},
        "permutations": permutations,
        "few": FEW,
        "axes": {name: _described(axis, counted, lesions) for name, axis in axes.items()},
        "models": blocks,
    }


def _check(models: Mapping[str, SubgroupScores], axes: Mapping[str, Axis], images: int) -> None:
    if not models:
        raise DataError("there is no model to look at in groups", rule="at least one")
    lengths = {
        f"{model}: {name}": len(getattr(scores, name))
        for model, scores in models.items()
        for name in ("labels", "predicted", "melanoma", "melanoma_probs")
    }
    lengths |= {f"axis {name}": len(axis.group_of) for name, axis in axes.items() if axis.unavailable is None}
    wrong = [f"{what}: {length} values" for what, length in lengths.items() if length != images]
    if wrong:
        raise DataError(f"not one value for each of {images} images", faults=wrong)


def _described(axis: Axis, scores: SubgroupScores, lesions: Ints) -> Json:
    if axis.unavailable is not None:
        return {"title": axis.title, "unavailable": axis.unavailable, "notes": [], "groups": {}}
    groups = {}
    for place, name in enumerate(axis.groups):
        inside = axis.group_of == place
        found = set(scores.labels[inside].tolist())
        groups[name] = {
            "images": int(inside.sum()),
            "lesions": len(np.unique(lesions[inside])),
            "melanomas": int(scores.melanoma[inside].sum()),
            "missing_classes": [code for index, code in enumerate(scores.classes) if index not in found],
        }
    groups_of_lesion = (_images_by_group(axis, lesions) > 0).sum(axis=1)
    return {
        "title": axis.title,
        "unavailable": None,
        "notes": list(axis.notes),
        "lesions_in_several_groups": int((groups_of_lesion > 1).sum()),
        "groups": groups,
    }


def _images_by_group(axis: Axis, lesions: Ints) -> Ints:
    """Images of each lesion in each group, int [L, G]."""
    groups = len(axis.groups)
    cells = np.bincount(lesions * groups + axis.group_of, minlength=(int(lesions.max()) + 1) * groups)
    return cells.reshape(-1, groups).astype(np.int64)


def _axis_block(
    scores: SubgroupScores,
    axis: Axis,
    lesions: Ints,
    weights: npt.NDArray[np.uint16],
    permutations: int,
    seed: tuple[int, int],
) -> Json:
    points: dict[str, dict[str, float]] = {}
    draws: dict[str, dict[str, Floats]] = {}
    cells: dict[str, Json] = {}
    for place, group in enumerate(axis.groups):
        inside = axis.group_of == place
        part = scores.only(inside)
        cases = {name: figure.cases(part) for name, figure in FIGURES.items()}
        enough = {name: figure for name, figure in FIGURES.items() if cases[name] > FEW}
        points[group], draws[group] = _measured(part, enough, weights[:, inside])
        cells[group] = {
            name: estimate(points[group].get(name, np.nan), draws[group].get(name, np.empty(0)))
            | {"cases": cases[name]}
            for name in FIGURES
        }
    gaps = {}
    for name, figure in FIGURES.items():
        if figure.gap:
            found = {group: points[group][name] for group in axis.groups if group != UNKNOWN and name in points[group]}
            samples = {group: draws[group][name] for group in found}
            tested = _p_values(figure, scores, axis, lesions, tuple(found), permutations, seed)
            gaps[name] = _gap(found, samples) | tested
    return {"groups": cells, "gaps": gaps}


def _measured(
    part: SubgroupScores, figures: Mapping[str, Figure], weights: npt.NDArray[np.uint16]
) -> tuple[dict[str, float], dict[str, Floats]]:
    """Figures of a group that are defined, and the same in every bootstrap draw."""
    if not figures:
        return {}, {}
    ones = np.ones(len(part.labels))
    points = {name: float(figure.measure(part, ones)) for name, figure in figures.items()}
    draws = replicates(lambda w: {name: figure.measure(part, w) for name, figure in figures.items()}, weights)
    return {name: value for name, value in points.items() if not np.isnan(value)}, draws


def _gap(found: Mapping[str, float], samples: Mapping[str, Floats]) -> Json:
    if len(found) < 2:
        return estimate(np.nan, np.empty(0)) | {"best": None, "worst": None, "compared": len(found)}
    best, worst = max(found, key=found.__getitem__), min(found, key=found.__getitem__)
    cell = estimate(found[best] - found[worst], samples[best] - samples[worst])
    return cell | {"best": best, "worst": worst, "compared": len(found)}


def _p_values(
    figure: Figure,
    scores: SubgroupScores,
    axis: Axis,
    lesions: Ints,
    groups: Sequence[str],
    permutations: int,
    seed: tuple[int, int],
) -> Json:
    """How often groups handed out anew, among all lesions or within diagnoses, are as far apart as these."""
    if len(groups) < 2:
        return {"p": None, "p_same_diagnosis": None}
    group_of_lesion = _images_by_group(axis, lesions).argmax(axis=1)
    places = np.array([axis.groups.index(group) for group in groups])
    kept = np.flatnonzero(figure.about(scores) & np.isin(group_of_lesion[lesions], places))
    part = scores.only(kept)
    own, first, lesion_of = np.unique(lesions[kept], return_index=True, return_inverse=True)
    given = group_of_lesion[own]
    as_they_are = _values(figure, part, given[None, lesion_of], places)[:, 0]
    places = places[~np.isnan(as_they_are)]
    if len(places) < 2:
        return {"p": None, "p_same_diagnosis": None}
    observed = np.ptp(as_they_are[~np.isnan(as_they_are)])
    found: Json = {}
    # A figure of two kinds of images, the AUC, needs as many of each in a group as there are.
    coarse = part.melanoma.astype(np.int64) if len(figure.kinds) > 1 else np.zeros(len(kept), dtype=np.int64)
    for name, strata in (("p", coarse), ("p_same_diagnosis", part.labels)):
        shuffled = permuted(given, strata[first], permutations, seed)
        distances = np.ptp(_values(figure, part, shuffled[:, lesion_of], places), axis=0)
        # Equal gaps must count, whatever rounding made of them.
        as_far = int((distances >= observed - 1e-12).sum())
        found[name] = (1 + as_far) / (1 + permutations)
    return found


def permuted(groups: Ints, strata: Ints, permutations: int, seed: Sequence[int]) -> Ints:
    """Groups handed out anew among the lesions of each stratum, so that each stratum keeps its groups.

    Args:
        groups: int [L].
        strata: int [L].
        permutations: P.
        seed: the same seed gives the same permutations.

    Returns:
        int [P, L].
    """
    generator = np.random.default_rng(list(seed))
    rows = np.tile(groups, (permutations, 1))
    for stratum in np.unique(strata):
        columns = np.flatnonzero(strata == stratum)
        rows[:, columns] = generator.permuted(rows[:, columns], axis=1)
    return rows


def _values(figure: Figure, scores: SubgroupScores, group_of: Ints, places: Ints) -> Floats:
    """The figure of each group [G, P], for rows of groups [P, N]: a row makes weights of one and zero."""
    rows = max(1, BLOCK_VALUES // group_of.shape[1])
    blocks = []
    for start in range(0, len(group_of), rows):
        block = group_of[start : start + rows]
        blocks.append(np.stack([figure.measure(scores, (block == place).astype(np.float64)) for place in places]))
    return np.concatenate(blocks, axis=1)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values of one family, corrected so any false alarm is as rare as they say (Holm, Scand. J. Stat. 6, 1979)."""
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in corrected]


def _correct(gaps: Sequence[dict[str, Json]]) -> None:
    """Add the corrected p values of each figure, a family being the axes that were tested."""
    for name in (name for name, figure in FIGURES.items() if figure.gap):
        for kind in ("p", "p_same_diagnosis"):
            tested = [axis[name] for axis in gaps if axis[name][kind] is not None]
            for axis in gaps:
                axis[name][f"{kind}_holm"] = None
            for gap, value in zip(tested, holm([gap[kind] for gap in tested]), strict=True):
                gap[f"{kind}_holm"] = value
