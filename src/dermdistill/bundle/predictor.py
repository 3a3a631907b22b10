"""From images to predictions with numpy, Pillow and onnxruntime alone: no torch needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnxruntime

from dermdistill.bundle.decisions import Decisions
from dermdistill.bundle.manifest import read_manifest
from dermdistill.bundle.variants import FP32_FILE, INT8_FILE, MODEL_NAMES
from dermdistill.compress.exact_int8 import ask_exact_products
from dermdistill.errors import BundleError, ConfigError, DataError
from dermdistill.labels import melanoma_index
from dermdistill.pictures import PictureError, read_content, read_pixels
from dermdistill.preprocess import PreprocessSpec, check_prepared, normalise, resize_image

Decision = Literal["refer", "no_referral", "no_threshold"]
ImageLike = npt.NDArray[np.uint8] | Path | str | bytes

OPERATING_POINT = "at_95_sensitivity"
# What the manifest calls the decisions of a model whose scores are averaged over the views of ``FLIPS``.
FLIPPED = "_flips"
LOW_CONFIDENCE = "low_confidence"
BATCH_SIZE = 64
# Axes of [B, H, W, 3] that are turned over in each view of an image.
FLIPS: tuple[tuple[int, ...], ...] = ((), (1,), (2,), (1, 2))
_ORT_ERROR = 3


def softmax(logits: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Probabilities float32 [N, K] of logits [N, K], computed in float64.

    The only one: a threshold chosen in the evaluation is compared with the very same values here.
    """
    values = np.asarray(logits, dtype=np.float64)
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    probs: npt.NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return probs


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    if threads < 1:
        raise ConfigError(f"threads is {threads}", rule="at least 1")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = _ORT_ERROR
    ask_exact_products(options, path)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BundleError(
            f"{path}: cannot be loaded ({_first_line(error)})",
            rule="an ONNX file that ONNX Runtime can run",
            next_step="export it again",
        ) from error


class OnnxClassifier:
    """An ONNX classifier on the CPU.

    Args:
        path: file with the input ``images`` float32 [batch, 3, S, S] and one output [batch, K].
        spec: the preprocessing that the file was exported with.
        threads: CPU threads; the logits are reproducible for a given number.

    Raises:
        BundleError: the file cannot be loaded or expects another input.
        ConfigError: ``threads`` below 1.
    """

    def __init__(self, path: Path, spec: PreprocessSpec, *, threads: int = 1) -> None:
        self.path = path
        self.spec = spec
        self._session = _session(path, threads)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        wanted = [3, spec.size, spec.size]
        if len(inputs) != 1 or list(inputs[0].shape[1:]) != wanted or len(outputs) != 1:
            raise BundleError(
                f"{path}: has inputs {[item.shape for item in inputs]} and {len(outputs)} outputs",
                rule=f"one input [batch, {', '.join(map(str, wanted))}] and one output [batch, K]",
                next_step="use the preprocessing that the file was exported with",
            )
        self._input = inputs[0].name
        self.classes = int(outputs[0].shape[1])

    def run(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits float32 [B, K] of normalised inputs float32 [B, 3, S, S], in one call.

        Raises:
            BundleError: ONNX Runtime cannot run the file on them.
        """
        try:
            logits: npt.NDArray[np.float32] = self._session.run(None, {self._input: inputs})[0]
        except Exception as error:
            raise BundleError(
                f"{self.path}: cannot be run on inputs {list(inputs.shape)} ({_first_line(error)})",
                next_step="verify the bundle; leave memory for it, or take smaller batches",
            ) from error
        return logits

    def logits(self, images: npt.NDArray[np.uint8], batch_size: int = BATCH_SIZE) -> npt.NDArray[np.float32]:
        """Logits of stored pictures.

        Args:
            images: uint8 [N, S, S, 3], RGB, already resized; a memory map is read batch by batch.
            batch_size: images a call.

        Returns:
            float32 [N, K].

        Raises:
            DataError: another shape or type.
        """
        check_prepared(images, self.spec)
        parts = [np.empty((0, self.classes), dtype=np.float32)]
        for start in range(0, len(images), batch_size):
            parts.append(self.run(normalise(np.asarray(images[start : start + batch_size]), self.spec)))
        return np.concatenate(parts)


def flipped_probabilities(classifier: OnnxClassifier, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Raw probabilities float32 [N, K], averaged over stored pictures uint8 [N, S, S, 3] and their reflections."""
    views = [softmax(classifier.logits(np.flip(images, axes))) for axes in FLIPS]
    return np.asarray(np.mean(views, axis=0, dtype=np.float64), dtype=np.float32)


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image; see ``bundle/decisions.py`` for label, probabilities and confidence.

    Args:
        probs: calibrated probability of each class, in the order of the logits.
        label: the class with the largest raw score.
        melanoma_probability: calibrated, in [0, 1].
        decision: ``refer`` where that reaches the threshold that held 95% sensitivity on validation, else
            ``no_referral``; ``no_threshold`` where validation gave none.
        confidence: the calibrated probability of the label.
        prediction_set: the classes that, with the coverage that the manifest names, hold the true one; empty where the
            bundle has no quantiles.
        abstain: whether the answer should not be used: there is a reason.
        reasons: ``low_confidence``, or what is wrong with the picture (``bundle/image_gate.py``).
    """

    probs: dict[str, float]
    label: str
    melanoma_probability: float
    decision: Decision
    confidence: float
    prediction_set: tuple[str, ...]
    abstain: bool
    reasons: tuple[str, ...]


class Predictor:
    """Predictions from a verified bundle.

    Args:
        bundle_folder: holds ``manifest.json`` and the files that it names.
        int8: run ``model.int8.onnx``; otherwise ``model.onnx``. Each has its own thresholds.
        threads: CPU threads.

    Raises:
        BundleError: the bundle is incomplete, was changed, or lacks the wanted file.
    """

    def __init__(self, bundle_folder: Path | str, *, int8: bool = True, threads: int = 1) -> None:
        folder = Path(bundle_folder)
        self.manifest = read_manifest(folder)
        name = INT8_FILE if int8 else FP32_FILE
        if name not in self.manifest.files:
            raise BundleError(
                f"{folder}: holds no {name}",
                rule=f"its files are {', '.join(self.manifest.files)}",
                next_step=f"ask for int8={not int8}, or write the bundle again",
            )
        self._classifier = OnnxClassifier(folder / name, self.manifest.spec, threads=threads)
        if self._classifier.classes != len(self.manifest.classes):
            raise BundleError(
                f"{folder / name}: gives {self._classifier.classes} logits",
                rule=f"one for each of the classes {', '.join(self.manifest.classes)}",
            )
        self._model = MODEL_NAMES[name]

    def decisions(self, *, flips: bool = False) -> Decisions:
        """What validation decided for the model; for the average over views, what it decided for that."""
        return self.manifest.decisions_of(self._model + FLIPPED * flips)

    def predict(self, images: Sequence[ImageLike], *, flips: bool = False) -> list[Prediction]:
        """Predictions for images of any size.

        Args:
            images: each a uint8 [H, W, 3] RGB array, the path of an image file, or the bytes of one.
            flips: average the probabilities over the image and its three reflections (test-time augmentation, four
                times the work). Calibration and thresholds are those that validation gave for that average; a bundle
                without them answers with raw probabilities and ``no_threshold``.

        Returns:
            One a given image, in order.

        Raises:
            DataError: images that cannot be read or have another form, every one of them listed.
        """
        outcomes = self.predict_each(images, flips=flips)
        faults = [
            f"image {index}: {outcome.problem}"
            for index, outcome in enumerate(outcomes)
            if isinstance(outcome, PictureError)
        ]
        if faults:
            raise DataError(
                f"{len(faults)} of {len(images)} images cannot be used",
                faults=faults,
                rule="each is a uint8 [H, W, 3] RGB array, or a whole JPEG, PNG, BMP, TIFF or WebP (or its bytes)",
                next_step="leave them out or mend them; nothing was predicted",
            )
        return [outcome for outcome in outcomes if isinstance(outcome, Prediction)]

    def predict_each(self, images: Sequence[ImageLike], *, flips: bool = False) -> list[Prediction | PictureError]:
        """As ``predict``, but an image that cannot be used gives its error in place of its prediction."""
        spec = self.manifest.spec
        prepared = np.empty((len(images), spec.size, spec.size, 3), dtype=np.uint8)
        errors: dict[int, PictureError] = {}
        for index, image in enumerate(images):
            try:
                prepared[index] = prepare(image, spec)
            except PictureError as error:
                errors[index] = error
        usable = [index for index in range(len(images)) if index not in errors]
        found = dict(zip(usable, self._predictions(prepared[usable], flips=flips), strict=True))
        return [found[index] if index in found else errors[index] for index in range(len(images))]

    def _predictions(self, images: npt.NDArray[np.uint8], *, flips: bool) -> list[Prediction]:
        raw, decisions = self._probabilities(images, flips=flips), self.decisions(flips=flips)
        classes, melanoma = self.manifest.classes, melanoma_index(self.manifest.task)
        probs = decisions.calibration.apply(raw)
        sets = decisions.sets(probs) if decisions.quantiles else np.zeros(probs.shape, dtype=bool)
        gate = self.manifest.gate
        reasons = gate.check(images) if gate is not None else [()] * len(images)
        answers = []
        for row, label, member, faults in zip(probs, raw.argmax(axis=1), sets, reasons, strict=True):
            unsure = decisions.confidence is not None and row[label] < decisions.confidence
            why = (*faults, LOW_CONFIDENCE) if unsure else tuple(faults)
            answers.append(
                Prediction(
                    probs={name: float(value) for name, value in zip(classes, row, strict=True)},
                    label=classes[int(label)],
                    melanoma_probability=float(row[melanoma]),
                    decision=decide(float(row[melanoma]), decisions.thresholds.get(OPERATING_POINT)),
                    confidence=float(row[label]),
                    prediction_set=tuple(name for name, inside in zip(classes, member, strict=True) if inside),
                    abstain=bool(why),
                    reasons=why,
                )
            )
        return answers

    def _probabilities(self, images: npt.NDArray[np.uint8], *, flips: bool) -> npt.NDArray[np.float32]:
        return flipped_probabilities(self._classifier, images) if flips else softmax(self._classifier.logits(images))


def decide(melanoma_probability: float, threshold: float | None) -> Decision:
    """``refer`` at the threshold and above it; ``no_threshold`` where there is none."""
    if threshold is None:
        return "no_threshold"
    return "refer" if melanoma_probability >= threshold else "no_referral"


def prepare(image: ImageLike, spec: PreprocessSpec) -> npt.NDArray[np.uint8]:
    """One image as the network wants it, before normalisation.

    Returns:
        uint8 [S, S, 3].

    Raises:
        PictureError: it cannot be read, or has another form.
    """
    if isinstance(image, (str, Path)):
        return resize_image(read_pixels(read_content(Path(image)), str(image)), spec)
    if isinstance(image, bytes):
        return resize_image(read_pixels(image, "its bytes"), spec)
    if not isinstance(image, np.ndarray):
        raise PictureError("wrong_type", f"is a {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise PictureError("wrong_type", f"is {image.dtype} {list(image.shape)}")
    return resize_image(image, spec)
