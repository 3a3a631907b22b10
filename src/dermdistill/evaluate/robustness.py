"""What breaks the models: how far each figure falls when photographs are spoilt, and for which model it falls furthest.

Every kind of ``data.corruptions`` at every severity is drawn over the same sample of the test part and shown to all
models. A drop is the figure on clean pictures minus that on spoilt ones: for balanced accuracy the increase of the
balanced error of MedMNIST-C (Di Salvo et al., 2024), unnormalised. Drops and their differences between models are
paired: the same bootstrap draws of lesions on both sides. Only one kind at one severity is in memory at a time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dermdistill.data.corruptions import CORRUPTIONS, GROUPS, SEVERITIES, corrupt_all, picture_key
from dermdistill.errors import ConfigError, DataError
from dermdistill.evaluate import bootstrap, metrics, operating_points
from dermdistill.evaluate.metrics import Bools, Floats, Ints
from dermdistill.labels import Task, class_names, melanoma_index
from dermdistill.progress import StepProgress

Json = dict[str, Any]
Pictures = npt.NDArray[np.uint8]
Model = Callable[[Pictures], npt.NDArray[Any]]
# The threshold that sensitivity and specificity are given at, by its name among a model file's thresholds.
POINT = "at_95_sensitivity"
CHANGED = "changed_labels"
FIGURES = (
    *("balanced_accuracy", "macro_auc", "melanoma_auc"),
    *("sensitivity_at_95_sensitivity", "specificity_at_95_sensitivity"),
)
DIFFERENCES = (("student", "teacher"), ("student_int8", "student"), ("student_int8", "teacher"))
ALL = "all"


class Calibrating(Protocol):
    """Raw to calibrated probabilities, as ``bundle.decisions.Calibration``."""

    def apply(self, probs: npt.ArrayLike) -> Floats:
        """Calibrated probabilities [N, K]."""


@dataclass(frozen=True)
class _Task:
    """What the answers of every model are measured against."""

    labels: Ints
    task: Task
    weights: npt.NDArray[np.uint16]
    missing: bool

    @property
    def melanoma(self) -> Bools:
        positive: Bools = self.labels == melanoma_index(self.task)
        return positive


@dataclass(frozen=True)
class _Result:
    """Figures of one model on one set of pictures: the values, and the same in each replicate ([S] each)."""

    values: Mapping[str, float]
    samples: Mapping[str, Floats]


@dataclass
class _Totals:
    """Sums over severities, to be divided by how many there were."""

    severities: list[Json] = field(default_factory=list)
    values: list[Mapping[str, float]] = field(default_factory=list)
    samples: dict[str, Floats] = field(default_factory=dict)

    def add(self, severity: int, result: _Result, clean: _Result) -> None:
        drops = {name: bootstrap.number_or_none(clean.values[name] - result.values[name]) for name in FIGURES}
        shown = {name: bootstrap.number_or_none(value) for name, value in result.values.items()}
        self.severities.append({"severity": severity, "values": shown, "drops": drops})
        self.values.append(result.values)
        for name, samples in result.samples.items():
            self.samples[name] = self.samples[name] + samples if name in self.samples else samples

    def mean(self) -> _Result:
        count = len(self.values)
        values = {name: float(np.mean([one[name] for one in self.values])) for name in self.values[0]}
        return _Result(values, {name: samples / count for name, samples in self.samples.items()})


def robustness_sample(labels: npt.ArrayLike, lesion_ids: npt.ArrayLike, count: int, seed: int) -> npt.NDArray[np.int64]:
    """A sample for ``robustness_block``: one image a lesion, the classes as equally frequent as their lesions allow.

    Rare classes come whole, so that balanced accuracy does not rest on a handful of them.

    Args:
        labels: int [N], of the images; all images of a lesion have one label.
        lesion_ids: [N].
        count: of images wanted; fewer are given where there are fewer lesions.
        seed: of the choice, of lesions and of the image of each.

    Returns:
        int64 [min(count, lesions)], indices into the N images, ascending.

    Raises:
        DataError: there are no images.
        ConfigError: a count below 1.
    """
    labels, lesions = np.asarray(labels), np.asarray(lesion_ids)
    if count < 1:
        raise ConfigError(f"{count} images for the robustness test", rule="at least 1")
    if not len(labels) or len(labels) != len(lesions):
        raise DataError(f"{len(labels)} labels, {len(lesions)} lesion ids", rule="one of each an image, at least one")
    order = np.random.default_rng(seed).permutation(len(labels))
    first_of_lesion = order[np.sort(np.unique(lesions[order], return_index=True)[1])]
    queues = [first_of_lesion[labels[first_of_lesion] == label] for label in np.unique(labels)]
    # The n-th lesions of all classes come before any (n+1)-th.
    turns = np.concatenate([np.arange(len(queue)) for queue in queues])
    chosen = np.concatenate(queues)[np.argsort(turns, kind="stable")[:count]]
    return np.sort(chosen).astype(np.int64)


def robustness_block(
    models: Mapping[str, Model],
    images: Mapping[str, Pictures],
    labels: npt.ArrayLike,
    lesion_ids: npt.ArrayLike,
    image_ids: Sequence[str],
    *,
    calibrations: Mapping[str, Calibrating],
    thresholds: Mapping[str, Mapping[str, float | None]],
    task: Task,
    seed: int,
    kinds: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    samples: int = 1000,
    bootstrap_seed: int = 0,
) -> Json:
    """Every figure of every model under every kind of corruption, JSON-able.

    Labels are the argmax of raw probabilities; areas, sensitivity and specificity use calibrated ones. A figure that
    the sample does not define is null. Specificity, areas and changed labels are those of the sample's mixture of
    classes, which ``robustness_sample`` makes more even than the test part's.

    Args:
        models: {name: (uint8 [N, S, S, 3] -> raw probabilities [N, K])}, in the order of the report.
        images: {name: uint8 [N, S, S, 3]}, the clean pictures at each model's own input size.
        labels: int [N].
        lesion_ids: [N].
        image_ids: [N]; a draw depends on seed, image id, kind and severity alone.
        calibrations: {name: raw to calibrated probabilities}.
        thresholds: {name: {``at_95_sensitivity``: threshold on the calibrated probability of melanoma, or None}}.
        task: ``diagnosis`` or ``melanoma``.
        seed: of the draws.
        kinds: names of ``CORRUPTIONS``; None: all.
        severities: of 1 to 5.
        samples: bootstrap samples over lesions.
        bootstrap_seed: of these.

    Returns:
        ``sample`` {images, lesions, per_class, seed}; ``severities``; ``kinds`` {KIND: {title, group}};
        ``models`` {NAME: {``clean`` {FIGURE: cell}, ``kinds`` {KIND: {``severities`` [{severity, values, drops}],
        ``mean`` {FIGURE: cell}, ``drop`` {FIGURE: cell}}}, ``groups`` {GROUP: {``mean``, ``drop``}}}};
        ``differences`` {``a - b``: {KIND or GROUP: {FIGURE: cell}}}, the drop of a minus that of b; ``bootstrap``.
        FIGURE is one of ``FIGURES``, in ``values`` and ``mean`` also ``changed_labels``; GROUP is ``artefact``,
        ``corruption`` or ``all``. ``mean`` and ``drop`` are means over severities, and over a group's kinds.

    Raises:
        DataError: no models or images, lengths that differ, or a model's answer that is not [N, K].
        ConfigError: an unknown kind or severity.
    """
    names = _kinds(kinds, severities)
    truth = np.asarray(labels, dtype=np.int64)
    _check(models, images, truth, lesion_ids, image_ids)
    counts = {code: int((truth == index).sum()) for index, code in enumerate(class_names(task))}
    weights = bootstrap.lesion_weights(lesion_ids, samples=samples, seed=bootstrap_seed)
    job = _Task(truth, task, weights, missing=0 in counts.values())
    measures = {
        name: partial(_measured, job, models[name], calibrations[name], thresholds[name].get(POINT)) for name in models
    }
    clean, own_labels = {}, {}
    for name, measure in measures.items():
        clean[name], own_labels[name] = measure(images[name], None)
    totals = {name: {kind: _Totals() for kind in names} for name in models}
    keys = [picture_key(seed, str(image_id)) for image_id in image_ids]
    with StepProgress("spoilt photographs", steps=len(names) * len(severities) * len(models)) as bar:
        for kind in names:
            for severity in severities:
                for name, spoilt in _shown(images, kind, severity, keys):
                    result, _ = measures[name](spoilt, own_labels[name])
                    totals[name][kind].add(severity, result, clean[name])
                    bar.step()
    means = {name: _with_groups({kind: totals[name][kind].mean() for kind in names}) for name in models}
    return {
        "sample": {
            "images": len(truth),
            "lesions": len(np.unique(np.asarray(lesion_ids))),
            "per_class": counts,
            "seed": seed,
        },
        "severities": list(severities),
        "kinds": {kind: {"title": CORRUPTIONS[kind].title, "group": CORRUPTIONS[kind].group} for kind in names},
        "models": {name: _model_block(clean[name], means[name], totals[name]) for name in models},
        "differences": _difference_block(clean, means),
        "bootstrap": {"samples": samples, "seed": bootstrap_seed, "unit": "lesion", "level": bootstrap.LEVEL},
    }


def _kinds(kinds: Sequence[str] | None, severities: Sequence[int]) -> tuple[str, ...]:
    names = tuple(CORRUPTIONS) if kinds is None else tuple(kinds)
    unknown = [name for name in names if name not in CORRUPTIONS]
    if unknown or not names:
        raise ConfigError(f"corruptions {unknown or 'none'}", rule=f"some of {', '.join(CORRUPTIONS)}")
    if not severities or not set(severities) <= set(SEVERITIES):
        raise ConfigError(f"severities {list(severities)}", rule="some of 1 to 5")
    return names


def _check(
    models: Mapping[str, Model],
    images: Mapping[str, Pictures],
    labels: Ints,
    lesion_ids: npt.ArrayLike,
    image_ids: Sequence[str],
) -> None:
    lengths = {"labels": len(labels), "lesion ids": len(np.asarray(lesion_ids)), "image ids": len(image_ids)}
    lengths |= {f"images of {name}": len(images[name]) for name in models}
    if not models or not len(labels) or len(set(lengths.values())) != 1:
        listed = ", ".join(f"{count} {what}" for what, count in lengths.items())
        raise DataError(f"{len(models)} models, {listed}", rule="at least one model and image, as many of each")


def _shown(
    images: Mapping[str, Pictures], kind: str, severity: int, keys: Sequence[Sequence[int]]
) -> Iterator[tuple[str, Pictures]]:
    """Each model with its spoilt pictures; models that read the same clean ones share them."""
    waiting = list(images)
    while waiting:
        source = images[waiting[0]]
        alike = [name for name in waiting if images[name] is source or np.array_equal(images[name], source)]
        spoilt = corrupt_all(source, kind, severity, keys)
        for name in alike:
            yield name, spoilt
        waiting = [name for name in waiting if name not in alike]


def _measured(
    job: _Task,
    model: Model,
    calibration: Calibrating,
    threshold: float | None,
    pictures: Pictures,
    clean_labels: Ints | None,
) -> tuple[_Result, Ints]:
    """Figures of a model on pictures, and its labels; without ``clean_labels`` none of them has changed."""
    raw = np.asarray(model(pictures), dtype=np.float64)
    wanted = (len(job.labels), len(class_names(job.task)))
    if raw.shape != wanted:
        raise DataError(f"a model answered {list(raw.shape)}", rule=f"probabilities {list(wanted)}")
    calibrated = calibration.apply(raw)
    chosen = raw.argmax(axis=1)
    changed = np.zeros(len(chosen)) if clean_labels is None else (chosen != clean_labels).astype(np.float64)

    def measure(weights: Floats) -> dict[str, Floats]:
        melanoma, scores = job.melanoma, calibrated[:, melanoma_index(job.task)]
        nothing = np.full(weights.shape[:-1], np.nan)
        at = (operating_points.sensitivity_at, operating_points.specificity_at)
        shares = [nothing if threshold is None else share(melanoma, scores, threshold, weights) for share in at]
        return {
            # Means over fewer classes than the task has would be other figures under the same names.
            "balanced_accuracy": nothing if job.missing else metrics.balanced_accuracy(job.labels, raw, weights),
            "macro_auc": nothing if job.missing else metrics.macro_auc(job.labels, calibrated, weights),
            "melanoma_auc": metrics.roc_auc(melanoma, scores, weights),
            "sensitivity_at_95_sensitivity": shares[0],
            "specificity_at_95_sensitivity": shares[1],
            CHANGED: metrics.ratio(weights @ changed, weights.sum(axis=-1)),
        }

    values = {name: float(value) for name, value in measure(np.ones(len(chosen))).items()}
    return _Result(values, bootstrap.replicates(measure, job.weights)), chosen


def _with_groups(means: dict[str, _Result]) -> dict[str, _Result]:
    """Kinds, then the mean over the kinds of each group and over all."""
    groups: dict[str, list[_Result]] = {
        group: [one for kind, one in means.items() if CORRUPTIONS[kind].group == group] for group in GROUPS
    }
    groups[ALL] = list(means.values())
    return means | {group: _mean_of(results) for group, results in groups.items() if results}


def _mean_of(results: Sequence[_Result]) -> _Result:
    names = results[0].values
    return _Result(
        {name: float(np.mean([one.values[name] for one in results])) for name in names},
        {name: np.mean([one.samples[name] for one in results], axis=0) for name in names},
    )


def _drop(clean: _Result, spoilt: _Result) -> _Result:
    return _Result(
        {name: clean.values[name] - spoilt.values[name] for name in FIGURES},
        bootstrap.differences(dict(clean.samples), dict(spoilt.samples), FIGURES),
    )


def _cells(result: _Result) -> Json:
    return {name: bootstrap.estimate(value, result.samples[name]) for name, value in result.values.items()}


def _model_block(clean: _Result, means: Mapping[str, _Result], totals: Mapping[str, _Totals]) -> Json:
    both = {name: {"mean": _cells(mean), "drop": _cells(_drop(clean, mean))} for name, mean in means.items()}
    return {
        "clean": {name: cell for name, cell in _cells(clean).items() if name != CHANGED},
        "kinds": {kind: {"severities": total.severities, **both[kind]} for kind, total in totals.items()},
        "groups": {name: block for name, block in both.items() if name not in totals},
    }


def _difference_block(clean: Mapping[str, _Result], means: Mapping[str, Mapping[str, _Result]]) -> Json:
    """The drop of one model minus that of another, for the pairs of which both are there."""
    block: Json = {}
    for first, second in DIFFERENCES:
        if first in means and second in means:
            block[f"{first} - {second}"] = {
                name: _cells(_drop(_drop(clean[first], means[first][name]), _drop(clean[second], means[second][name])))
                for name in means[first]
            }
    return block
