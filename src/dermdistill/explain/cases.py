"""The pictures that methods of explanation are tested on: as they are, and with the lesion moved off the centre."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dermdistill.errors import ConfigError, DataError
from dermdistill.explain.composites import Composite, Refusal, move_lesion
from dermdistill.explain.localisation import mask_at
from dermdistill.explain.scorers import Scorer, scores_of
from dermdistill.preprocess import PreprocessSpec, normalise, resize_image

Mask = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]
BATCH = 64


@dataclass(frozen=True, eq=False)
class Shown:
    """Some images, the class that is explained in each, and where the lesion is.

    Args:
        images: float32 [N, 3, S, S], normalised.
        classes: int64 [N].
        masks: bool [N, S, S]; all False where no mask is known.

    Raises:
        ConfigError: lengths or sizes that do not fit.
    """

    images: Tensor
    classes: Tensor
    masks: Mask

    def __post_init__(self) -> None:
        count = len(self.images)
        if (
            self.images.ndim != 4
            or self.classes.shape != (count,)
            or self.masks.shape != (count, *self.images.shape[2:])
        ):
            raise ConfigError(
                f"images {list(self.images.shape)}, classes {list(self.classes.shape)}, masks {list(self.masks.shape)}",
                rule="images [N, 3, S, S], classes [N], masks [N, S, S]",
            )

    def __len__(self) -> int:
        return len(self.images)

    def some(self, rows: npt.NDArray[np.int64]) -> "Shown":
        """Those of the rows."""
        chosen = torch.from_numpy(rows)
        return Shown(self.images[chosen], self.classes[chosen], self.masks[rows])


@dataclass(frozen=True, eq=False)
class Cases:
    """Pictures to test methods on.

    Args:
        plain: the N pictures as they are.
        moved: M of them with the lesion moved off the centre.
        moved_rows: int64 [M], which of the N these are.
        refused: why lesions could not be moved: reason -> how many.
    """

    plain: Shown
    moved: Shown
    moved_rows: npt.NDArray[np.int64]
    refused: dict[str, int]


def make_cases(
    pictures: Sequence[Pixels],
    masks: Sequence[Mask | None],
    spec: PreprocessSpec,
    scorer: Scorer,
    *,
    seed: int,
    device: torch.device | str = "cpu",
) -> Cases:
    """Bring pictures and masks to the model's size, move lesions, and ask the model for the classes to explain.

    The class is the one that the model finds likeliest on the very picture, moved lesion included: a map is asked why
    the model said what it said.

    Args:
        pictures: N of uint8 [H, W, 3], as decoded; sizes may differ.
        masks: N of bool [H, W], or None where there is none.
        spec: of the model's input.
        scorer: images to logits; a network is ``NetworkScorer(model)``.
        seed: of the places; with the picture's row.
        device: of the tensors.

    Raises:
        DataError: no pictures, other numbers of masks, or a mask that does not fit its picture.
    """
    if not len(pictures) or len(pictures) != len(masks):
        raise DataError(
            f"{len(pictures)} pictures and {len(masks)} masks", rule="at least one, and a mask or None each"
        )
    known = [
        np.zeros(picture.shape[:2], np.bool_) if m is None else m for picture, m in zip(pictures, masks, strict=True)
    ]
    found = [
        move_lesion(picture, mask, seed=seed + row)
        for row, (picture, mask) in enumerate(zip(pictures, known, strict=True))
    ]
    rows = [row for row, one in enumerate(found) if isinstance(one, Composite)]
    moved = [one for one in found if isinstance(one, Composite)]
    reasons = [
        "there is no mask" if m is None else one.reason
        for m, one in zip(masks, found, strict=True)
        if isinstance(one, Refusal)
    ]
    return Cases(
        _shown(pictures, known, spec, scorer, device),
        _shown([one.image for one in moved], [one.mask for one in moved], spec, scorer, device),
        np.array(rows, dtype=np.int64),
        dict(Counter(reasons)),
    )


def _shown(
    pictures: Sequence[Pixels], masks: Sequence[Mask], spec: PreprocessSpec, scorer: Scorer, device: torch.device | str
) -> Shown:
    size = (spec.size, spec.size)
    resized = np.array([resize_image(picture, spec) for picture in pictures], dtype=np.uint8).reshape(-1, *size, 3)
    images = torch.from_numpy(normalise(resized, spec)).to(device)
    classes = scores_of(scorer, images, BATCH).argmax(dim=1) if len(images) else images.new_zeros(0, dtype=torch.int64)
    return Shown(images, classes, np.array([mask_at(mask, spec) for mask in masks], np.bool_).reshape(-1, *size))
