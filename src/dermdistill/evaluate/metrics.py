"""Classification metrics as pure functions of arrays; every one takes per-image weights.

Shapes: ``labels`` int [N], ``probs`` float [N, K], ``weights`` float [N] or [..., N], by default ones. A
result has the leading shape of the weights: a scalar for [N], [S] for [S, N]. So one call gives a metric in S
bootstrap replicates, whose weights are how often each image was drawn. What the data do not define (no image
of a class) is NaN, never 0 or 1.

The predicted class is the first of the largest probabilities.
"""

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from dermdistill.errors import DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def ratio(part: Floats, whole: Floats) -> Floats:
    """``part / whole``, NaN where ``whole`` is 0; shapes broadcast."""
    part, whole = np.broadcast_arrays(part, whole)
    quotient: Floats = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return quotient


def mean_of_defined(values: Floats) -> Floats:
    """Mean over the last axis of all that is not NaN; NaN where nothing is left."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1).astype(np.float64))


def as_weights(weights: npt.ArrayLike | None, images: int) -> Floats:
    """Weights as float [..., N], ones where none are given.

    Raises:
        DataError: a wrong number of weights, a negative one, NaN or infinity.
    """
    if weights is None:
        return np.ones(images)
    values = np.asarray(weights, dtype=np.float64)
    if values.ndim == 0 or values.shape[-1] != images:
        raise DataError(f"weights {list(values.shape)} for {images} images", rule="weights are [..., N]")
    if not np.isfinite(values).all() or (values < 0).any():
        raise DataError("weights hold a negative or non-finite value", rule="weights are finite and >= 0")
    return values


def check_scores(labels: npt.ArrayLike, scores: npt.ArrayLike) -> None:
    """Refuse what no metric is defined on.

    Args:
        labels: [N].
        scores: [N] or [N, K].

    Raises:
        DataError: no images, different lengths, or a score that is NaN or infinite.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 1 or scores.ndim == 0 or len(labels) != len(scores):
        raise DataError(
            f"labels {list(labels.shape)}, scores {list(scores.shape)}",
            rule="one label and one score an image",
        )
    if not len(labels):
        raise DataError("there are no images", rule="a metric needs at least one image")
    finite = np.isfinite(scores).reshape(len(scores), -1).all(axis=1)
    if not finite.all():
        raise DataError(f"{(~finite).sum()} of {len(scores)} images have a score that is NaN or infinite")


def confusion(labels: Ints, probs: Floats, weights: npt.ArrayLike | None = None) -> Floats:
    """Weight of images by true class (rows) and predicted class (columns), [..., K, K].

    Raises:
        DataError: see ``check_scores``, or a label outside 0..K-1.
    """
    check_scores(labels, probs)
    classes = probs.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"labels {labels.min()} to {labels.max()}", rule=f"labels are 0 to {classes - 1}")
    drawn = _by_image(as_weights(weights, len(labels)))
    cell_of = labels * classes + probs.argmax(axis=1)
    order = np.argsort(cell_of, kind="stable")
    edges = np.searchsorted(cell_of[order], np.arange(classes * classes + 1))
    cells = np.moveaxis(_sums_of_runs(drawn, order, edges), 0, -1)
    return cells.reshape(*drawn.shape[1:], classes, classes)


def _by_image(counts: Floats) -> Floats:
    """Weights with the images first, [N, ...]: picking images and adding over them then run along memory.

    Free for weights that lie in memory that way, as those of ``bootstrap.replicates`` do.
    """
    return np.ascontiguousarray(np.moveaxis(counts, -1, 0))


def _sums_of_runs(drawn: Floats, order: Ints, edges: Ints) -> Floats:
    """Weight of each run of an order of images, from one edge to the next: [N, ...] to [R, ...].

    A sparse product picks and adds in one pass; with whole weights its sums are exact.
    """
    images = order[edges[0] : edges[-1]]
    runs = csr_array((np.ones(len(images)), images, edges - edges[0]), shape=(len(edges) - 1, len(drawn)))
    sums: Floats = (runs @ drawn.reshape(len(drawn), -1)).reshape(len(edges) - 1, *drawn.shape[1:])
    return sums


def _sides(table: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Hits, true, predicted (each [..., K]) and total ([..., 1]) of a confusion table."""
    hits = np.diagonal(table, axis1=-2, axis2=-1)
    true = table.sum(axis=-1)
    return hits, true, table.sum(axis=-2), true.sum(axis=-1, keepdims=True)


def accuracy(labels: Ints, probs: Floats, weights: npt.ArrayLike | None = None) -> Floats:
    """Share of images whose predicted class is the true one, in [0, 1]."""
    hits, _, _, total = _sides(confusion(labels, probs, weights))
    return ratio(hits.sum(axis=-1), total[..., 0])


def sensitivity(labels: Ints, probs: Floats, weights: npt.ArrayLike | None = None) -> Floats:
    """Recall of each class, TP / (TP + FN), [..., K] (Altman and Bland, BMJ 308:1552, 1994)."""
    hits, true, _, _ = _sides(confusion(labels, probs, weights))
    return ratio(hits, true)


def specificity(labels: Ints, probs: Floats, weights: npt.ArrayLike | None = None) -> Floats:
    """Of each class against all others, TN / (TN + FP), [..., K] (Altman and Bland, BMJ 308:1552, 1994)."""
    hits, true, predicted, total = _sides(confusion(labels, probs, weights))
    return ratio(total - true - predicted + hits, total - true)


def ppv(labels: Ints, probs: Floats, weights: npt.ArrayLike | None = None) -> Floats:
    """Positive predictive value of each class, TP / (TP + FP), [..., K] (Altman and Bland, BMJ 309, 1994)."""
    hits, _, predicted, _ = _sides(confusion(labels, probs, weights))
    return ratio(hits, predicted)


def npv(labels: Ints, probs: Floats, weights: npt.ArrayLike | None = None) -> Floats:
    """Negative predictive value of each class, TN / (TN + FN), [..., K] (Altman and Bland, as ``ppv``)."""
    hits, true, predicted, total = _sides(confusion(labels, probs, weights))
    return ratio(total - true - predicted + hits, total - predicted)


def balanced_accuracy(labels: Ints, probs: Floats, weights: npt.ArrayLike | None = None) -> Floats:
    """Mean sensitivity over the classes that occur (Brodersen et al., ICPR 2010), as ranked by ISIC 2018."""
    return mean_of_defined(sensitivity(labels, probs, weights))


def f1(labels: Ints, probs: Floats, weights: npt.ArrayLike | None = None) -> Floats:
    """F1 of each class, 2 TP / (2 TP + FP + FN), [..., K], NaN without images of it (van Rijsbergen 1979)."""
    hits, true, predicted, _ = _sides(confusion(labels, probs, weights))
    return np.where(true > 0, ratio(2 * hits, true + predicted), np.nan)


def macro_f1(labels: Ints, probs: Floats, weights: npt.ArrayLike | None = None) -> Floats:
    """Mean F1 over the classes that occur: the mean of F1, not the F1 of means (Opitz and Burst 2019)."""
    return mean_of_defined(f1(labels, probs, weights))


def weighted_f1(labels: Ints, probs: Floats, weights: npt.ArrayLike | None = None) -> Floats:
    """Mean F1 weighted by the images of each class (scikit-learn's ``average="weighted"``)."""
    hits, true, predicted, total = _sides(confusion(labels, probs, weights))
    scores = np.nan_to_num(ratio(2 * hits, true + predicted))
    return ratio((scores * true).sum(axis=-1), total[..., 0])


def ranked_counts(
    positive: Bools, scores: Floats, weights: npt.ArrayLike | None = None
) -> tuple[Floats, Floats, Floats]:
    """True and false positives at every threshold, from one sort and two cumulative sums.

    Args:
        positive: bool [N].
        scores: float [N], larger means more positive.
        weights: [..., N].

    Returns:
        thresholds [G], the distinct scores from large to small, and the weight of true and of false positives
        [..., G] where a score >= threshold is called positive. Equal scores are one step: ties count half in
        the AUC.
    """
    check_scores(positive, scores)
    counts = as_weights(weights, len(positive))
    order = np.argsort(-scores, kind="stable")
    ranked, hit = scores[order], positive[order].astype(np.float64)
    last_of_ties = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    drawn = counts[..., order]
    true_positives = np.cumsum(drawn * hit, axis=-1)[..., last_of_ties]
    false_positives = np.cumsum(drawn * (1.0 - hit), axis=-1)[..., last_of_ties]
    return ranked[last_of_ties], true_positives, false_positives


def _sums_of_first(drawn: Floats, order: Ints, counts: Ints) -> Floats:
    """Weight of the first n images of an order, for every n in ``counts`` [P]: [P, ...].

    Only what lies between two asked-for places is added up and then accumulated, so that a replicate costs P steps
    of a cumulative sum, which no processor does fast, and not one an image.
    """
    places = np.unique(np.append(counts, 0))
    sums = np.zeros((len(places), *drawn.shape[1:]))
    np.cumsum(_sums_of_runs(drawn, order, places), axis=0, out=sums[1:])
    return sums[np.searchsorted(places, counts)]


def _dot(first: Floats, second: Floats) -> Floats:
    """Sum over images of products, [N, ...] and [N, ...] to [...]."""
    products: Floats = np.einsum("n...,n...->...", first, second)
    return products


def _auc(positive: Bools, scores: Floats, drawn: Floats) -> Floats:
    """``roc_auc`` for weights with the images first, [N, ...].

    The weighted Mann-Whitney statistic: for each image of the smaller class the weight of the larger class that it
    beats, ties half. With whole weights every sum is exact.
    """
    if 2 * positive.sum() > len(positive):
        return _auc(~positive, -scores, drawn)
    few, many = np.flatnonzero(positive), np.flatnonzero(~positive)
    many = many[np.argsort(scores[many])]
    own = drawn[few]
    lower, not_higher = (np.searchsorted(scores[many], scores[few], side=side) for side in ("left", "right"))
    beaten = _sums_of_first(drawn, many, np.concatenate((lower, not_higher)))
    beaten = beaten[: len(few)] + beaten[len(few) :]
    larger = np.tensordot((~positive).astype(np.float64), drawn, axes=1)
    return ratio(0.5 * _dot(own, beaten), own.sum(axis=0) * larger)


def roc_auc(positive: Bools, scores: Floats, weights: npt.ArrayLike | None = None) -> Floats:
    """Area under the ROC curve, ties half (Hanley and McNeil, Radiology 143:29, 1982), NaN with one class."""
    check_scores(positive, scores)
    return _auc(positive, scores, _by_image(as_weights(weights, len(positive))))


def pr_auc(positive: Bools, scores: Floats, weights: npt.ArrayLike | None = None) -> Floats:
    """Average precision, the sum of precision x step in recall (Manning et al. 2008, section 8.4).

    Steps are not joined by straight lines, which flatter (Davis and Goadrich, ICML 2006). NaN without
    positives.
    """
    check_scores(positive, scores)
    drawn = _by_image(as_weights(weights, len(positive)))
    hits, others = np.flatnonzero(positive), np.flatnonzero(~positive)
    hits, others = hits[np.argsort(-scores[hits])], others[np.argsort(-scores[others])]
    own = drawn[hits]
    # For each positive image, what is called positive at its own score: all that is not lower.
    tp, fp = (
        _sums_of_first(drawn, group, np.searchsorted(-scores[group], -scores[hits], side="right"))
        for group in (hits, others)
    )
    return ratio(_dot(own, np.nan_to_num(ratio(tp, tp + fp))), own.sum(axis=0))


def class_auc(labels: Ints, probs: Floats, weights: npt.ArrayLike | None = None) -> Floats:
    """ROC AUC of each class against all others, [..., K] (Provost and Domingos, Mach. Learn. 52, 2003)."""
    check_scores(labels, probs)
    drawn = _by_image(as_weights(weights, len(labels)))
    return np.stack([_auc(labels == index, probs[:, index], drawn) for index in range(probs.shape[1])], axis=-1)


def macro_auc(labels: Ints, probs: Floats, weights: npt.ArrayLike | None = None) -> Floats:
    """Mean one-versus-rest ROC AUC over the classes that occur (scikit-learn's ``multi_class="ovr"``)."""
    return mean_of_defined(class_auc(labels, probs, weights))
