"""How one model file's scores become answers: calibrated probabilities, operating points, prediction sets, abstention.

Everything here was chosen on the validation part, for each file from its own scores, and travels in the manifest. Two
rules hold wherever a model of this project speaks:

- the label is the class with the largest raw score. A network trained with logit adjustment treats all diagnoses as
  equally frequent (Menon et al., ICLR 2021), and calibration does not change that;
- probabilities are calibrated: they fit the frequencies of the validation part. So the most probable class can be
  another than the label, and the confidence of an answer is the calibrated probability of its label.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from dermdistill.errors import BundleError

Method = Literal["none", "temperature", "vector"]
Floats = npt.NDArray[np.float64]

# Smaller probabilities than float32 keeps apart from 0 count as this.
SMALLEST: Final = 1e-12
POINTS: Final = ("youden", "at_80_sensitivity", "at_90_sensitivity", "at_95_sensitivity")
LARGEST: Final = 1e6


@dataclass(frozen=True)
class Calibration:
    """From raw to calibrated probabilities: ``softmax(scale * log(raw) + bias)``.

    ``temperature`` is one scale of 1 / T and no bias (Guo et al., ICML 2017); ``vector`` has a scale and a bias a class
    (vector scaling there; on log probabilities it is diagonal Dirichlet calibration, Kull et al., NeurIPS 2019).

    Args:
        method: ``none``, ``temperature`` or ``vector``.
        scale: of each class, above 0.
        bias: of each class.

    Raises:
        BundleError: values that no calibration has.
    """

    method: Method
    scale: tuple[float, ...]
    bias: tuple[float, ...]

    def __post_init__(self) -> None:
        values = [*self.scale, *self.bias]
        if self.method not in get_args(Method) or len(self.scale) != len(self.bias) or not self.scale:
            raise BundleError(
                f"calibration {self.method!r} with {len(self.scale)} scales and {len(self.bias)} biases",
                rule=f"one of {', '.join(get_args(Method))}, with a scale and a bias for each class",
            )
        if not all(abs(value) < LARGEST for value in values) or min(self.scale) <= 0:
            raise BundleError(f"calibration scales {self.scale}, biases {self.bias}", rule="finite, scales above 0")

    @classmethod
    def identity(cls, classes: int) -> "Calibration":
        """No calibration of so many classes."""
        return cls("none", (1.0,) * classes, (0.0,) * classes)

    @classmethod
    def of_temperature(cls, temperature: float, classes: int) -> "Calibration":
        """One temperature for all classes."""
        return cls("temperature", (1.0 / temperature,) * classes, (0.0,) * classes)

    @property
    def temperature(self) -> float | None:
        """The temperature, where the method is one."""
        return 1.0 / self.scale[0] if self.method == "temperature" else None

    def apply(self, probs: npt.ArrayLike) -> Floats:
        """Calibrated probabilities of raw ones, float64 [N, K]; without a method the raw ones."""
        raw = np.asarray(probs, dtype=np.float64)
        if self.method == "none":
            return raw
        values = np.log(np.maximum(raw, SMALLEST)) * np.array(self.scale) + np.array(self.bias)
        powers = np.exp(values - values.max(axis=-1, keepdims=True))
        calibrated: Floats = powers / powers.sum(axis=-1, keepdims=True)
        return calibrated

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {"method": self.method, "scale": list(self.scale), "bias": list(self.bias)}


@dataclass(frozen=True)
class Decisions:
    """What the validation part decided for one model file.

    Args:
        calibration: of its probabilities.
        thresholds: on the calibrated probability of melanoma, by the names in ``POINTS``; None where validation gave
            none.
        quantiles: for each class the largest ``1 - p`` at which the class belongs into the prediction set; None where
            the class had too few images, so that it always does. Empty: there are no prediction sets.
        coverage: that prediction sets promise for each class, in (0, 1).
        confidence: an answer below it is withheld; None: none is.
    """

    calibration: Calibration
    thresholds: Mapping[str, float | None]
    quantiles: tuple[float | None, ...] = ()
    coverage: float = 0.9
    confidence: float | None = None

    @classmethod
    def plain(cls, thresholds: Mapping[str, float | None], classes: int) -> "Decisions":
        """Thresholds alone, on raw probabilities of so many classes."""
        return cls(Calibration.identity(classes), dict(thresholds))

    def sets(self, probs: Floats) -> npt.NDArray[np.bool_]:
        """Which classes belong into each image's prediction set, bool [N, K]; never none of them.

        A set that the quantiles leave empty holds the most probable class, which can only add to its coverage.

        Args:
            probs: calibrated, [N, K].
        """
        limits = np.array([1.0 if value is None else value for value in self.quantiles])
        member: npt.NDArray[np.bool_] = 1.0 - probs <= limits
        member[np.arange(len(probs)), probs.argmax(axis=1)] |= ~member.any(axis=1)
        return member

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values; ``from_dict`` reads it back."""
        return {
            "calibration": self.calibration.to_dict(),
            "thresholds": dict(self.thresholds),
            "quantiles": list(self.quantiles),
            "coverage": self.coverage,
            "confidence": self.confidence,
        }

    @classmethod
    def from_dict(cls, values: Any, classes: int) -> "Decisions":
        """Read what ``to_dict`` wrote, for so many classes.

        Raises:
            BundleError: another form, or a value out of its range.
        """
        keys = {"calibration", "thresholds", "quantiles", "coverage", "confidence"}
        found = set(values) if isinstance(values, Mapping) else set()
        if found != keys:
            odd = ", ".join(sorted(map(str, found ^ keys)))
            raise BundleError(f"keys {odd} are missing or not known", rule=f"the keys are {', '.join(sorted(keys))}")
        method = values["calibration"]
        if not isinstance(method, Mapping) or set(method) != {"method", "scale", "bias"}:
            raise BundleError(f"calibration {method!r:.200}", rule="it has the keys method, scale, bias")
        thresholds, quantiles = values["thresholds"], _list(values["quantiles"], "quantiles")
        if not isinstance(thresholds, Mapping) or not set(thresholds) <= set(POINTS):
            raise BundleError(f"thresholds {thresholds!r:.200}", rule=f"by the names {', '.join(POINTS)}")
        shares = [*thresholds.values(), *quantiles, values["confidence"]]
        faults = [value for value in shares if value is not None and not (_is_number(value) and 0 <= value <= 1)]
        coverage = values["coverage"]
        if faults or not (_is_number(coverage) and 0 < coverage < 1):
            raise BundleError(
                f"decisions hold {[*faults, coverage][0]!r}", rule="each threshold is null or a number in [0, 1]"
            )
        scale, bias = (_numbers(method[key], key) for key in ("scale", "bias"))
        if len(scale) != classes or len(quantiles) not in (0, classes):
            raise BundleError(
                f"{len(scale)} scales, {len(quantiles)} quantiles", rule=f"one for each of {classes} classes"
            )
        return cls(
            Calibration(method["method"], scale, bias),
            dict(thresholds),
            tuple(quantiles),
            coverage,
            values["confidence"],
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _list(values: Any, name: str) -> list[Any]:
    if not isinstance(values, list):
        raise BundleError(f"{name} {values!r:.200}", rule="it is a list")
    return values


def _numbers(values: Any, name: str) -> tuple[float, ...]:
    found: Sequence[Any] = _list(values, name)
    if not all(_is_number(value) for value in found):
        raise BundleError(f"{name} {values!r:.200}", rule="it is a list of numbers")
    return tuple(float(value) for value in found)
