"""From images to predictions with numpy, Pillow, onnxruntime and pydantic alone: no torch needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from dermdistill.bundle.manifest import FP32_FILE, INT8_FILE, MODEL_NAMES, read_manifest
from dermdistill.errors import BundleError, ConfigError, DataError
from dermdistill.labels import melanoma_index
from dermdistill.preprocess import PreprocessSpec, normalise, resize_image

Decision = Literal["refer", "no_referral", "no_threshold"]
ImageLike = npt.NDArray[np.uint8] | Path | str

OPERATING_POINT = "at_95_sensitivity"
# Modes that convert to 8-bit RGB without losing range; 16-bit and float pictures would be clipped.
READABLE_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"})
_ORT_ERROR = 3


def softmax(logits: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Probabilities float32 [N, K] of logits [N, K], computed in float64.

    The only one: a threshold chosen in the evaluation is compared with the very same values here.
    """
    values = np.asarray(logits, dtype=np.float64)
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    probs: npt.NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return probs


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
        reason = (str(error).splitlines() or [""])[0][:200]
        raise BundleError(
            f"{path}: cannot be loaded ({reason or type(error).__name__})",
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
        """Logits float32 [B, K] of normalised inputs float32 [B, 3, S, S], in one call."""
        logits: npt.NDArray[np.float32] = self._session.run(None, {self._input: inputs})[0]
        return logits

    def logits(self, images: npt.NDArray[np.uint8], batch_size: int = 64) -> npt.NDArray[np.float32]:
        """Logits of stored pictures.

        Args:
            images: uint8 [N, S, S, 3], RGB, already resized; a memory map is read batch by batch.
            batch_size: images a call.

        Returns:
            float32 [N, K].

        Raises:
            DataError: another shape or type.
        """
        wanted = (self.spec.size, self.spec.size, 3)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != wanted:
            raise DataError(
                f"images are {images.dtype} {list(images.shape)}",
                rule=f"uint8 [N, {self.spec.size}, {self.spec.size}, 3]",
                next_step="resize them with dermdistill.preprocess.resize_image",
            )
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

    def predict(self, images: Sequence[ImageLike]) -> list[Prediction]:
        """Predictions for images of any size.

        Args:
            images: each a uint8 [H, W, 3] RGB array or the path of an image file.

        Returns:
            One a given image, in order.

        Raises:
            DataError: images that cannot be read or have another form, every one of them listed.
        """
        logits = self._classifier.logits(_prepare(images, self.manifest.spec))
        return [self._prediction(row) for row in softmax(logits)]

    def _prediction(self, probs: npt.NDArray[np.float32]) -> Prediction:
        classes = self.manifest.classes
        melanoma = float(probs[melanoma_index(self.manifest.task)])
        return Prediction(
            probs={name: float(value) for name, value in zip(classes, probs, strict=True)},
            label=classes[int(probs.argmax())],
            melanoma_probability=melanoma,
            decision=decide(melanoma, self.threshold),
        )


def decide(melanoma_probability: float, threshold: float | None) -> Decision:
    """``refer`` at the threshold and above it; ``no_threshold`` where there is none."""
    if threshold is None:
        return "no_threshold"
    return "refer" if melanoma_probability >= threshold else "no_referral"


def _prepare(images: Sequence[ImageLike], spec: PreprocessSpec) -> npt.NDArray[np.uint8]:
    """Read and resize all images: uint8 [N, S, S, 3]."""
    prepared = np.zeros((len(images), spec.size, spec.size, 3), dtype=np.uint8)
    faults = []
    for index, image in enumerate(images):
        try:
            prepared[index] = resize_image(_pixels(image), spec)
        except _UnreadableError as error:
            faults.append(f"image {index}: {error}")
    if faults:
        raise DataError(
            f"{len(faults)} of {len(images)} images cannot be used",
            faults=faults,
            rule="each is a uint8 [H, W, 3] RGB array or a readable 8-bit image file",
            next_step="leave them out or mend them; nothing was predicted",
        )
    return prepared


class _UnreadableError(Exception):
    """One image that cannot be used, and why."""


def _pixels(image: ImageLike) -> npt.NDArray[np.uint8]:
    if isinstance(image, (str, Path)):
        return _read(Path(image))
    if not isinstance(image, np.ndarray):
        raise _UnreadableError(f"is a {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise _UnreadableError(f"is {image.dtype} {list(image.shape)}")
    return image


def _read(path: Path) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(path) as picture:
            if picture.mode not in READABLE_MODES:
                raise _UnreadableError(f"{path}: its pixels are {picture.mode!r}, not 8-bit colour or grey")
            return np.asarray(picture.convert("RGB"), dtype=np.uint8)
    except OSError as error:
        raise _UnreadableError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _UnreadableError(f"{path}: cannot be decoded ({error})") from error
