"""From images to predictions with numpy, Pillow, onnxruntime and pydantic alone: no torch needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnxruntime

from dermdistill.bundle.manifest import read_manifest
from dermdistill.bundle.variants import FP32_FILE, INT8_FILE, MODEL_NAMES
from dermdistill.errors import BundleError, ConfigError, DataError
from dermdistill.labels import melanoma_index
from dermdistill.pictures import PictureError, read_content, read_pixels
from dermdistill.preprocess import PreprocessSpec, check_prepared, normalise, resize_image

Decision = Literal["refer", "no_referral", "no_threshold"]
ImageLike = npt.NDArray[np.uint8] | Path | str | bytes

OPERATING_POINT = "at_95_sensitivity"
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


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image.

    Args:
        probs: probability of each class, in the order of the logits.
        label: the most probable class.
        melanoma_probability: in [0, 1].
        decision: ``refer`` where that reaches the threshold that held 95% sensitivity on validation, else
            ``no_referral``; ``no_threshold`` where validation gave none.
    """

    probs: dict[str, float]
    label: str
    melanoma_probability: float
    decision: Decision


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
        self.threshold = self.manifest.thresholds.get(MODEL_NAMES[name], {}).get(OPERATING_POINT)

    def predict(self, images: Sequence[ImageLike], *, flips: bool = False) -> list[Prediction]:
        """Predictions for images of any size.

        Args:
            images: each a uint8 [H, W, 3] RGB array, the path of an image file, or the bytes of one.
            flips: average the probabilities over the image and its three reflections (test-time augmentation, four
                times the work). No threshold was chosen for that average, so the decision is ``no_threshold``.

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
        probs = self._probabilities(prepared[usable], flips=flips)
        threshold = None if flips else self.threshold
        found = {index: self._prediction(row, threshold) for index, row in zip(usable, probs, strict=True)}
        return [found[index] if index in found else errors[index] for index in range(len(images))]

    def _probabilities(self, images: npt.NDArray[np.uint8], *, flips: bool) -> npt.NDArray[np.float32]:
        views = [softmax(self._classifier.logits(np.flip(images, axes))) for axes in (FLIPS if flips else FLIPS[:1])]
        return np.asarray(np.mean(views, axis=0, dtype=np.float64), dtype=np.float32)

    def _prediction(self, probs: npt.NDArray[np.float32], threshold: float | None) -> Prediction:
        classes = self.manifest.classes
        melanoma = float(probs[melanoma_index(self.manifest.task)])
        return Prediction(
            probs={name: float(value) for name, value in zip(classes, probs, strict=True)},
            label=classes[int(probs.argmax())],
            melanoma_probability=melanoma,
            decision=decide(melanoma, threshold),
        )


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
