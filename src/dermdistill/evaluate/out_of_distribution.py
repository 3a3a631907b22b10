"""What the image gate refuses: pictures that show no skin, damaged pictures, and good lesions, which is its cost.

The gate is fitted on training and validation pictures alone; everything here is measured on the test part and on
pictures drawn from a seed (``data.not_skin``). Two scores that need no gate stand beside its own: how unsure the
calibrated probabilities are of their label (Hendrycks and Gimpel, ICLR 2017), and the entropy of the raw ones. The
energy score (Liu et al., NeurIPS 2020) needs logits; a softmax has lost their level.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dermdistill.bundle.image_gate import REASONS, UNLIKE, ImageGate
from dermdistill.data.not_skin import KINDS, Images, not_skin
from dermdistill.errors import DataError
from dermdistill.evaluate.bootstrap import estimate, lesion_weights, replicates
from dermdistill.evaluate.metrics import Bools, Floats, Ints, ratio, roc_auc
from dermdistill.evaluate.notes import FEW
from dermdistill.labels import MELANOMA

Json = dict[str, Any]
ProbsOf = Callable[[Images], npt.NDArray[np.floating[Any]]]
Calibrate = Callable[[npt.NDArray[np.floating[Any]]], npt.NDArray[np.floating[Any]]]

COUNT = 700
SAMPLES = 1000
BINS = 40


def entropy(probs: npt.ArrayLike) -> Floats:
    """Shannon entropy of each row of probabilities [N, K], nats, in [0, log K]."""
    values = np.asarray(probs, dtype=np.float64)
    logs = np.log(np.where(values > 0, values, 1.0))
    return np.asarray(-(values * logs).sum(axis=1))


def placements(lesions: npt.ArrayLike, foreign: npt.ArrayLike) -> Floats:
    """Share of foreign pictures that score higher than each lesion, ties half, [N].

    Its mean over the lesions is the AUROC of foreign against lesion, its weighted mean that of a replicate that draws
    lesions anew (Hanley and Hajian-Tilaki, Acad. Radiol. 4:49, 1997).

    Args:
        lesions: scores [N].
        foreign: scores [M], at least one.
    """
    ranked = np.sort(np.asarray(foreign, dtype=np.float64))
    below = np.searchsorted(ranked, lesions, side="left")
    at_most = np.searchsorted(ranked, lesions, side="right")
    return np.asarray(1 - (below + at_most) / (2 * len(ranked)))


def ood_block(
    gate: ImageGate,
    test_images: Images,
    lesion_ids: npt.ArrayLike,
    labels: Ints,
    classes: Sequence[str],
    *,
    probs_of: ProbsOf | None,
    calibrate: Calibrate | None = None,
    seed: int,
    count: int = COUNT,
    corrupted: Mapping[str, Images] | None = None,
    corrupted_rows: Ints | None = None,
    samples: int = SAMPLES,
) -> Json:
    """The block ``evaluation["gate"]``.

    Args:
        gate: fitted on training and validation pictures.
        test_images: uint8 [N, S, S, 3], the test part as the network sees it.
        lesion_ids: [N].
        labels: int [N], places in ``classes``.
        classes: names of the classes.
        probs_of: raw probabilities [M, K] of pictures; None leaves both baselines out.
        calibrate: raw to calibrated probabilities; None takes them as they are.
        seed: of the drawn pictures and of the bootstrap. Take another one than the gate was designed with (11).
        count: how many pictures that show no skin.
        corrupted: {name: test pictures, corrupted}; read one by one, so it may be lazy.
        corrupted_rows: which of the test pictures these are, in this order; None: all of them.
        samples: bootstrap replicates.

    Returns:
        ``n`` {images, lesions, not_skin}; ``seed``; ``gate`` {size, images, quantile, quality_share, thresholds};
        ``scores``, the names of what was compared; ``clean``, the cost: {``any``, ``reasons`` {REASON}, ``per_class``
        {CLASS}} of {n, flagged, share FIGURE}, of classes with ``reasons`` {REASON: n}; ``melanomas`` {n, flagged,
        lesions [{lesion_id, reasons}]}, null where there is no such class; ``not_skin`` {``all``, ``kinds`` {KIND}} and
        ``corruptions`` {NAME} of {n, auroc {SCORE: FIGURE}, flagged_by_distance, flagged}; ``histogram`` {edges,
        lesions, not_skin, threshold}; ``notes``. FIGURE is {value, low, high}: intervals draw lesions anew, the drawn
        pictures stay.

    Raises:
        DataError: no test image, another number of ids or labels, or of corrupted pictures than rows.
    """
    lesions, known = np.asarray(lesion_ids), np.asarray(labels)
    if not len(test_images) == len(lesions) == len(known) or not len(known):
        problem = f"{len(test_images)} images, {len(lesions)} lesion ids, {len(known)} labels"
        raise DataError(problem, rule="at least one image, and one id and one label for each")
    weights = lesion_weights(lesions, samples=samples, seed=seed)
    measures = gate.measures(test_images)
    flags = gate.flags(measures)
    scores = _scores(measures[UNLIKE], test_images, probs_of, calibrate)
    drawn, kinds = not_skin(count, gate.size, seed)
    foreign = _Foreign(gate, drawn, probs_of, calibrate)
    kind_of = np.array(kinds)
    present = [kind for kind in KINDS if kind in kinds]
    rows = np.arange(len(known)) if corrupted_rows is None else corrupted_rows
    undamaged = {name: values[rows] for name, values in scores.items()}
    clean = _clean(flags, known, classes, weights)
    melanomas = _melanomas(flags, lesions, known, classes)
    return {
        "n": {"images": len(known), "lesions": len(np.unique(lesions)), "not_skin": count},
        "seed": seed,
        "gate": {key: gate.to_dict()[key] for key in ("size", "images", "quantile", "quality_share", "thresholds")},
        "scores": list(scores),
        "clean": clean,
        "melanomas": melanomas,
        "not_skin": {
            "all": foreign.compared(scores, weights, np.ones(count, dtype=bool)),
            "kinds": {kind: foreign.compared(scores, weights, kind_of == kind) for kind in present},
        },
        "corruptions": {
            name: _damaged(_Foreign(gate, images, probs_of, calibrate), undamaged, weights[:, rows], name)
            for name, images in (corrupted or {}).items()
        },
        "histogram": _histogram(scores["gate"], foreign.scores["gate"], gate.thresholds[UNLIKE]),
        "notes": _notes(clean, melanomas, seed, probs_of is None),
    }


def _scores(
    distance: Floats, images: Images, probs_of: ProbsOf | None, calibrate: Calibrate | None
) -> dict[str, Floats]:
    """Every score by name; larger is stranger."""
    if probs_of is None:
        return {"gate": distance}
    raw = np.asarray(probs_of(images))
    calibrated = np.asarray(calibrate(raw) if calibrate else raw, dtype=np.float64)
    return {"gate": distance, "unsureness": 1 - calibrated.max(axis=1), "entropy": entropy(raw)}


class _Foreign:
    """Scores and refusals of pictures that are no clean lesions."""

    def __init__(self, gate: ImageGate, images: Images, probs_of: ProbsOf | None, calibrate: Calibrate | None) -> None:
        measures = gate.measures(images)
        flags = gate.flags(measures)
        self.scores = _scores(measures[UNLIKE], images, probs_of, calibrate)
        self.by_distance = flags[UNLIKE]
        self.flagged = _any(flags)

    def shares(self, chosen: Bools) -> Json:
        """How many, and the share that is refused."""
        named = {"flagged_by_distance": self.by_distance, "flagged": self.flagged}
        return {"n": int(chosen.sum())} | {name: _mean(flag[chosen]) for name, flag in named.items()}

    def compared(self, lesions: Mapping[str, Floats], weights: npt.NDArray[np.uint16], chosen: Bools) -> Json:
        """``shares`` of the chosen, and the AUROC of every score against the clean lesions."""
        areas = {}
        for name, scores in lesions.items():
            places = placements(scores, self.scores[name][chosen]) if chosen.any() else np.full(len(scores), np.nan)
            areas[name] = _figure(places, weights, np.ones(len(scores), dtype=bool))
        return self.shares(chosen) | {"auroc": areas}


def _damaged(damaged: _Foreign, clean: Mapping[str, Floats], weights: npt.NDArray[np.uint16], name: str) -> Json:
    """The same lesions, corrupted: both sides of a comparison are drawn together."""
    images = weights.shape[1]
    if len(damaged.flagged) != images:
        problem = f"corruption {name!r} has {len(damaged.flagged)} pictures of {images} test images"
        raise DataError(problem, rule="every test image once, in the same order")
    strange = np.arange(2 * images) >= images
    both = {score: np.concatenate([values, damaged.scores[score]]) for score, values in clean.items()}
    points = {score: float(roc_auc(strange, values)) for score, values in both.items()}
    drawn = replicates(
        lambda w: {score: roc_auc(strange, values, np.tile(w, 2)) for score, values in both.items()}, weights
    )
    areas = {score: estimate(point, drawn[score]) for score, point in points.items()}
    return damaged.shares(np.ones(images, dtype=bool)) | {"auroc": areas}


def _any(flags: Mapping[str, Bools]) -> Bools:
    return np.asarray(np.logical_or.reduce([flags[reason] for reason in REASONS]))


def _mean(values: Bools) -> float | None:
    return float(values.mean()) if len(values) else None


def _figure(values: npt.ArrayLike, weights: npt.NDArray[np.uint16], chosen: Bools) -> Json:
    """Mean of values [N] over the chosen images, and its interval over lesions."""
    numbers = np.asarray(values, dtype=np.float64)[chosen]
    drawn = weights[:, chosen].astype(np.float64)
    point = float(numbers.mean()) if len(numbers) else float("nan")
    return dict(estimate(point, ratio(drawn @ numbers, drawn.sum(axis=1))))


def _refused(flag: Bools, weights: npt.NDArray[np.uint16], chosen: Bools) -> Json:
    return {
        "n": int(chosen.sum()),
        "flagged": int(flag[chosen].sum()),
        "share": _figure(flag, weights, chosen),
    }


def _clean(flags: Mapping[str, Bools], labels: Ints, classes: Sequence[str], weights: npt.NDArray[np.uint16]) -> Json:
    """What the gate costs: good lesions that it refuses, in all, by reason and by class."""
    everyone, refused = np.ones(len(labels), dtype=bool), _any(flags)
    per_class = {}
    for place, code in enumerate(classes):
        chosen = labels == place
        reasons = {reason: int(flags[reason][chosen].sum()) for reason in REASONS}
        per_class[code] = _refused(refused, weights, chosen) | {"reasons": reasons}
    return {
        "any": _refused(refused, weights, everyone),
        "reasons": {reason: _refused(flags[reason], weights, everyone) for reason in REASONS},
        "per_class": per_class,
    }


def _melanomas(
    flags: Mapping[str, Bools], lesions: npt.NDArray[Any], labels: Ints, classes: Sequence[str]
) -> Json | None:
    """Every refused picture of a melanoma by the name of its lesion: nobody would have read it."""
    if MELANOMA not in classes:
        return None
    melanoma = labels == list(classes).index(MELANOMA)
    rows = np.flatnonzero(melanoma & _any(flags))
    named = [
        {"lesion_id": str(lesions[row]), "reasons": [reason for reason in REASONS if flags[reason][row]]}
        for row in rows
    ]
    return {"n": int(melanoma.sum()), "flagged": len(named), "lesions": named}


def _histogram(lesions: Floats, foreign: Floats, threshold: float) -> Json:
    """Counts of both in equal bins from 0 to the largest score."""
    edges = np.linspace(0, max(float(np.max(np.append(lesions, foreign))), threshold), BINS + 1)
    counts = {
        name: np.histogram(scores, bins=edges)[0] for name, scores in (("lesions", lesions), ("not_skin", foreign))
    }
    return {"edges": edges.tolist(), "threshold": threshold} | {name: n.tolist() for name, n in counts.items()}


def _notes(clean: Json, melanomas: Json | None, seed: int, without_baselines: bool) -> list[str]:
    notes = [
        f"the pictures without skin are drawings from seed {seed}, not photographs: they say nothing about photos of "
        "healthy skin, of lesions without a dermatoscope, or of other cameras",
        "the energy score is not given: it needs logits, and the probabilities have lost their level",
    ]
    if without_baselines:
        notes.append("no model was given, so the gate's score has no baseline beside it")
    if melanomas and melanomas["flagged"]:
        notes.append(f"the gate refuses {melanomas['flagged']} of {melanomas['n']} pictures of test melanomas")
    few = [f"{code} (n = {entry['n']})" for code, entry in clean["per_class"].items() if 0 < entry["n"] <= FEW]
    if few:
        notes.append(f"ten or fewer test images, so the share refused says little: {', '.join(few)}")
    return notes
