"""The gate before the network: is this a picture of the kind that it was trained on, and good enough to be read?

A network answers whatever it is shown. The gate compares the statistics of a picture (``image_statistics``) with those
of the training pictures and says what is wrong with it, in words. It is a few hundred numbers in the manifest and numpy
alone, so a phone can run it before the network. Its thresholds are quantiles of the validation pictures: what share of
good pictures it refuses was decided when it was fitted, whatever else it may be shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from dermdistill.bundle.image_statistics import NAMES, SMALLEST, Floats, Images, column, statistics
from dermdistill.errors import BundleError, DataError

UNLIKE = "unlike_training_images"
# In the order in which they are told: what the user can mend first.
REASONS: tuple[str, ...] = ("blurred", "too_dark", "too_bright", "colour_cast", "no_lesion", UNLIKE)
BELOW = frozenset({"blurred", "too_dark", "no_lesion"})  # a low value is the fault; of the others a high one
QUANTILE = 0.99
QUALITY_SHARE = 0.003
DIGITS = 9  # significant; they make the manifest half as long, and JSON gives them back exactly
CLIP = 8.0  # robust deviations: beyond, one statistic alone says enough
_CAST = [NAMES.index("red_green"), NAMES.index("yellow_blue")]
_SPREADS = ("log_luminance_spread", "log_red_green_spread", "log_yellow_blue_spread")

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class ImageGate:
    """What good pictures look like. ``fit_gate`` makes one; ``to_dict`` and ``from_dict`` carry it in a manifest.

    Args:
        size: side in pixels of the pictures that it was fitted on and takes.
        images: how many pictures of ``train`` and ``validation`` it rests on.
        quantile: share of validation pictures whose distance passes.
        quality_share: share of validation pictures that each other reason may refuse.
        statistics: ``image_statistics.NAMES``, in order.
        centre: median of each statistic over the training pictures, [F].
        scale: its robust deviation, [F], positive.
        mean: of the standardised and clipped statistics, [F].
        whitening: lower triangle L, row by row, of L L' = the inverse of their shrunk covariance.
        cast_mean: as ``mean``, of the two colour statistics alone, for ``colour_cast``.
        cast_whitening: as ``whitening``, of these two.
        thresholds: of each of ``REASONS``.
    """

    size: int
    images: Mapping[str, int]
    quantile: float
    quality_share: float
    statistics: tuple[str, ...]
    centre: Numbers
    scale: Numbers
    mean: Numbers
    whitening: tuple[Numbers, ...]
    cast_mean: Numbers
    cast_whitening: tuple[Numbers, ...]
    thresholds: Mapping[str, float]

    def score(self, images: Images) -> Floats:
        """Distance from the training pictures, [N], larger is stranger.

        Mahalanobis distance as Lee et al. (NeurIPS 2018) use it, of statistics of the picture in place of a network's
        features, and with one mean for all classes: a rare diagnosis is no other kind of picture.

        Args:
            images: uint8 [N, S, S, 3] with S = ``size``.

        Raises:
            DataError: another shape or type.
        """
        return self.measures(images)[UNLIKE]

    def check(self, images: Images) -> list[tuple[str, ...]]:
        """What is wrong with each picture: any of ``REASONS`` in their order, an empty tuple for a good one.

        Args:
            images: uint8 [N, S, S, 3] with S = ``size``.

        Raises:
            DataError: another shape or type.
        """
        flags = self.flags(self.measures(images))
        return [tuple(reason for reason in REASONS if flags[reason][place]) for place in range(len(images))]

    def measures(self, images: Images) -> dict[str, Floats]:
        """What each reason looks at, {reason: [N]}."""
        if images.ndim != 4 or images.shape[1:3] != (self.size, self.size):
            problem = f"images are {images.dtype} {list(images.shape)}"
            raise DataError(problem, rule=f"this gate takes uint8 [N, {self.size}, {self.size}, 3]")
        return self.measures_of(statistics(images))

    def measures_of(self, values: Floats) -> dict[str, Floats]:
        """As ``measures``, of statistics [N, F] that were computed before."""
        z = _standardised(values, np.array(self.centre), np.array(self.scale))
        return {
            **_quality(values),
            "colour_cast": _distance(z[:, _CAST], self.cast_mean, self.cast_whitening),
            UNLIKE: _distance(z, self.mean, self.whitening),
        }

    def flags(self, measures: Mapping[str, Floats]) -> dict[str, np.ndarray[Any, np.dtype[np.bool_]]]:
        """Which pictures each reason refuses, {reason: bool [N]}: those beyond its threshold."""
        limits = self.thresholds
        return {
            name: measures[name] < limits[name] if name in BELOW else measures[name] > limits[name] for name in REASONS
        }

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values; ``ImageGate.from_dict`` reads back an equal gate."""
        return {item.name: _plain(getattr(self, item.name)) for item in fields(self)}

    @classmethod
    def from_dict(cls, values: Any) -> "ImageGate":
        """Read what ``to_dict`` wrote.

        Raises:
            BundleError: a key missing or unknown, statistics of another version, or a number that makes no sense.
        """
        names = {item.name for item in fields(cls)}
        if not isinstance(values, Mapping) or set(values) != names:
            given = sorted(map(str, values)) if isinstance(values, Mapping) else type(values).__name__
            raise _unusable(f"it holds {given}", f"it holds {', '.join(sorted(names))}")
        if values["statistics"] != list(NAMES):
            raise _unusable(f"its statistics are {values['statistics']}", f"they are {', '.join(NAMES)}")
        size = values["size"]
        if type(size) is not int or size < SMALLEST:
            raise _unusable(f"its size is {size!r}", f"a whole number of pixels, at least {SMALLEST}")
        many = len(NAMES)
        return cls(
            size=size,
            images=_counts(values["images"]),
            quantile=_share(values["quantile"], "quantile"),
            quality_share=_share(values["quality_share"], "quality_share"),
            statistics=NAMES,
            centre=_row(values["centre"], many, "centre"),
            scale=_row(values["scale"], many, "scale", positive=True),
            mean=_row(values["mean"], many, "mean"),
            whitening=_triangle(values["whitening"], many, "whitening"),
            cast_mean=_row(values["cast_mean"], len(_CAST), "cast_mean"),
            cast_whitening=_triangle(values["cast_whitening"], len(_CAST), "cast_whitening"),
            thresholds=_limits(values["thresholds"]),
        )


def fit_gate(
    train_images: Images,
    val_images: Images,
    *,
    val_names: Sequence[str] | None = None,
    quantile: float = QUANTILE,
    quality_share: float = QUALITY_SHARE,
) -> ImageGate:
    """A gate that knows the training pictures and lets the validation pictures pass.

    Args:
        train_images: uint8 [N, S, S, 3], as the network is given them, before normalisation. At least 2.
        val_images: uint8 [M, S, S, 3], at least 1; they set the thresholds alone.
        val_names: [M], a name each; of pictures with one name the first counts.
        quantile: share of validation pictures whose distance passes, in (0, 1).
        quality_share: share of them that each of the other reasons may refuse, in (0, 1).

    Raises:
        DataError: too few pictures, or another shape or type.
    """
    if train_images.ndim != 4 or train_images.shape[1:] != val_images.shape[1:]:
        problem = f"training images are {list(train_images.shape)}, validation images {list(val_images.shape)}"
        raise DataError(problem, rule="both are uint8 [N, S, S, 3] of one size")
    if val_names is not None:
        if len(val_names) != len(val_images):
            raise DataError(f"{len(val_names)} names for {len(val_images)} validation images", rule="one name each")
        val_images = val_images[np.sort(np.unique(np.asarray(val_names), return_index=True)[1])]
    return fit_statistics(
        statistics(train_images),
        statistics(val_images),
        size=train_images.shape[1],
        quantile=quantile,
        quality_share=quality_share,
    )


def fit_statistics(
    train: Floats, val: Floats, *, size: int, quantile: float = QUANTILE, quality_share: float = QUALITY_SHARE
) -> ImageGate:
    """As ``fit_gate``, of statistics [N, F] and [M, F] of pictures of side ``size``.

    Raises:
        DataError: fewer than two training pictures, no validation picture, or a share outside (0, 1).
    """
    if len(train) < 2 or not len(val):
        problem = f"{len(train)} training and {len(val)} validation images"
        raise DataError(problem, rule="a gate needs at least 2 and 1")
    if not (0 < quantile < 1 and 0 < quality_share < 1):
        raise DataError(f"quantile {quantile}, quality_share {quality_share}", rule="both lie in (0, 1)")
    centre, scale = _rounded(np.median(train, axis=0)), _rounded(_robust_scale(train))
    z = _standardised(train, centre, scale)
    mean, cast_mean = _rounded(z.mean(axis=0)), _rounded(z[:, _CAST].mean(axis=0))
    without = ImageGate(
        size=size,
        images={"train": len(train), "validation": len(val)},
        quantile=quantile,
        quality_share=quality_share,
        statistics=NAMES,
        centre=tuple(centre.tolist()),
        scale=tuple(scale.tolist()),
        mean=tuple(mean.tolist()),
        whitening=_rows(_whitening(z)),
        cast_mean=tuple(cast_mean.tolist()),
        cast_whitening=_rows(_whitening(z[:, _CAST])),
        thresholds={},
    )
    measures = without.measures_of(val)
    shares = {name: quality_share if name in BELOW else 1 - quality_share for name in REASONS} | {UNLIKE: quantile}
    # Towards the tail: never more validation pictures are refused than the share says.
    limits = {
        name: float(np.quantile(measures[name], shares[name], method="lower" if name in BELOW else "higher"))
        for name in REASONS
    }
    return replace(without, thresholds=limits)


def _quality(values: Floats) -> dict[str, Floats]:
    # Both relative to the light, so that a picture that is only dark is not called blurred or empty as well.
    light = 2 * np.log(np.maximum(column(values, "luminance"), 1 / 255))
    spread = np.logaddexp.reduce([column(values, name) for name in _SPREADS], axis=0) - light
    return {
        "blurred": column(values, "log_sharpness") - light,
        "too_dark": column(values, "luminance_p95"),
        "too_bright": column(values, "luminance"),
        "no_lesion": spread,
    }


def _robust_scale(values: Floats) -> Floats:
    """Deviation of each statistic from its quartiles, and never under 0.3 of the ordinary one: some are often alike."""
    low, high = np.quantile(values, [0.25, 0.75], axis=0)
    return np.asarray(np.maximum.reduce([(high - low) / 1.349, 0.3 * values.std(axis=0), np.full(low.shape, 1e-3)]))


def _standardised(values: Floats, centre: Floats, scale: Floats) -> Floats:
    return np.clip((values - centre) / scale, -CLIP, CLIP)


def shrunk_covariance(values: Floats) -> Floats:
    """Covariance [F, F] of rows [N, F], drawn to a multiple of the identity (Ledoit and Wolf, JMVA 88:365, 2004)."""
    centred = values - values.mean(axis=0)
    rows, columns = centred.shape
    covariance = centred.T @ centred / rows
    level = np.trace(covariance) / columns
    spread = ((covariance - level * np.eye(columns)) ** 2).sum()
    # Sum over rows of |x x' - S|^2 is sum |x|^4 - N |S|^2.
    noise = ((centred**2).sum(axis=1) ** 2).sum() / rows**2 - (covariance**2).sum() / rows
    share = min(1.0, noise / spread) if spread > 0 else 1.0
    return np.asarray((1 - share) * covariance + share * level * np.eye(columns))


def _whitening(values: Floats) -> Floats:
    """Lower triangle L with L L' = the inverse covariance, so that |L' (z - mean)| is the distance."""
    covariance = shrunk_covariance(values) + 1e-6 * np.eye(values.shape[1])
    return _rounded(np.linalg.cholesky(np.linalg.inv(covariance)))


def _distance(z: Floats, mean: Numbers, whitening: Sequence[Numbers]) -> Floats:
    triangle = np.zeros((len(mean), len(mean)))
    triangle[np.tril_indices(len(mean))] = [value for row in whitening for value in row]
    return np.asarray(np.linalg.norm((z - np.array(mean)) @ triangle, axis=1))


def _rounded(values: Floats) -> Floats:
    return np.array([float(f"{value:.{DIGITS}g}") for value in values.ravel().tolist()]).reshape(values.shape)


def _rows(triangle: Floats) -> tuple[Numbers, ...]:
    return tuple(tuple(row[: place + 1].tolist()) for place, row in enumerate(triangle))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _unusable(why: str, rule: str) -> BundleError:
    return BundleError(
        f"the image gate cannot be used: {why}",
        rule=rule,
        next_step="copy the bundle again from where it was made, or fit the gate again with this version",
    )


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise _unusable(f"{name} holds {value!r}", "every value is a finite number")
    return float(value)


def _share(value: Any, name: str) -> float:
    share = _number(value, name)
    if not 0 < share < 1:
        raise _unusable(f"{name} is {share}", "a share lies in (0, 1)")
    return share


def _row(values: Any, length: int, name: str, *, positive: bool = False) -> Numbers:
    if not isinstance(values, list) or len(values) != length:
        raise _unusable(f"{name} is not a list of {length} numbers", "one number a statistic")
    row = tuple(_number(value, name) for value in values)
    if positive and min(row) <= 0:
        raise _unusable(f"{name} holds {min(row)}", "every value is positive")
    return row


def _triangle(values: Any, length: int, name: str) -> tuple[Numbers, ...]:
    if not isinstance(values, list) or len(values) != length:
        raise _unusable(f"{name} does not have {length} rows", "one row a statistic")
    rows = tuple(_row(row, place + 1, f"{name} row {place}") for place, row in enumerate(values))
    if min(row[-1] for row in rows) <= 0:
        raise _unusable(f"{name} has a value of 0 or less on its diagonal", "a triangle that can be inverted")
    return rows


def _counts(values: Any) -> dict[str, int]:
    parts = ("train", "validation")
    if not isinstance(values, Mapping) or set(values) != set(parts):
        raise _unusable(f"images is {values!r}", "counts of train and validation")
    if any(type(values[part]) is not int or values[part] < 1 for part in parts):
        raise _unusable(f"images is {dict(values)!r}", "whole numbers of at least 1")
    return {part: values[part] for part in parts}


def _limits(values: Any) -> dict[str, float]:
    if not isinstance(values, Mapping) or set(values) != set(REASONS):
        raise _unusable(f"thresholds is {values!r}", f"one of each: {', '.join(REASONS)}")
    return {name: _number(values[name], f"thresholds {name}") for name in REASONS}
