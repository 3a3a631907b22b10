"""The one way from an image to a model's input (numpy and Pillow alone): training, export, server and browser.

``resize_image`` gives the stored uint8 picture; ``normalise`` gives the float input. The image store keeps the
result of the first, so that training and serving see the same bytes.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from dermdistill.errors import ConfigError, DataError

ResizeMode = Literal["squash", "crop"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class PreprocessSpec:
    """How an image becomes an input.

    Args:
        size: side of the square input in pixels.
        resize: ``squash`` scales both sides to ``size``; ``crop`` scales the shorter side and keeps the centre.
        mean: per RGB channel, in the unit range [0, 1].
        std: per RGB channel, in the unit range [0, 1].
    """

    size: int
    resize: ResizeMode = "squash"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values; ``PreprocessSpec.from_dict`` reads it back."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PreprocessSpec":
        """Read what ``to_dict`` wrote."""
        return cls(
            size=int(values["size"]),
            resize=values["resize"],
            mean=(values["mean"][0], values["mean"][1], values["mean"][2]),
            std=(values["std"][0], values["std"][1], values["std"][2]),
        )


def resize_image(image: npt.NDArray[np.uint8], spec: PreprocessSpec) -> npt.NDArray[np.uint8]:
    """Resize an RGB image to the square of the spec, bilinear with antialiasing (Pillow's ``reducing`` off).

    Args:
        image: uint8 [H, W, 3], RGB.
        spec: the wanted size and mode.

    Returns:
        uint8 [size, size, 3].

    Raises:
        ConfigError: the array is not uint8 [H, W, 3].
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ConfigError(f"image is {image.dtype} {list(image.shape)}", rule="an RGB image is uint8 [H, W, 3]")
    picture = Image.fromarray(image)
    width, height = picture.size
    box: tuple[float, float, float, float] = (0, 0, width, height)
    if spec.resize == "crop":
        side = min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    resized = picture.resize((spec.size, spec.size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized, dtype=np.uint8)


def check_prepared(images: npt.NDArray[np.uint8], spec: PreprocessSpec) -> None:
    """Refuse what is not a batch of stored pictures, uint8 [N, S, S, 3].

    Raises:
        DataError: another shape or type.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (spec.size, spec.size, 3):
        raise DataError(
            f"images are {images.dtype} {list(images.shape)}",
            rule=f"uint8 [N, {spec.size}, {spec.size}, 3]",
            next_step="resize them with dermdistill.preprocess.resize_image",
        )


def normalise(images: npt.NDArray[np.uint8], spec: PreprocessSpec) -> npt.NDArray[np.float32]:
    """Stored pictures to a model's input.

    Args:
        images: uint8 [B, S, S, 3], RGB.
        spec: holds mean and std.

    Returns:
        float32 [B, 3, S, S].
    """
    scale = (1.0 / (255.0 * np.asarray(spec.std))).astype(np.float32)
    offset = (-np.asarray(spec.mean) / np.asarray(spec.std)).astype(np.float32)
    values = images.astype(np.float32) * scale + offset
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
