"""What is explained: any function from images to scores. A network is one, and so is an ONNX session of INT8."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dermdistill.errors import ConfigError
from dermdistill.explain.activations import evaluation_mode, logits_in

# Images float32 [B, 3, S, S], normalised, to scores [B, K]: logits, larger where a class is likelier.
Scorer = Callable[[Tensor], Tensor]


class RunsArrays(Protocol):
    """An exported model, such as ``OnnxClassifier``: normalised float32 [B, 3, S, S] to logits float32 [B, K]."""

    @property
    def path(self) -> Any:
        """Its file."""

    def run(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits of one batch."""


@dataclass(frozen=True)
class NetworkScorer:
    """A network's own logits, without gradients and in evaluation mode; its mode is given back.

    Args:
        model: images -> logits [B, K], or a tuple with the logits first.
    """

    model: nn.Module

    @property
    def name(self) -> str:
        """What an explanation says it was made from."""
        return f"the network ({type(self.model).__name__})"

    def __call__(self, images: Tensor) -> Tensor:
        """Logits float32 [B, K]."""
        # Convolutions over many masked copies of an image run faster with the channels innermost.
        with torch.no_grad(), evaluation_mode(self.model):
            return logits_in(self.model(images.contiguous(memory_format=torch.channels_last))).float()


@dataclass(frozen=True)
class ArrayScorer:
    """The logits of an exported model that runs on arrays, such as the INT8 file in ONNX Runtime.

    Args:
        classifier: has ``run`` and ``path``, as ``OnnxClassifier`` and ``LiteRtClassifier`` do.
    """

    classifier: RunsArrays

    @property
    def name(self) -> str:
        """The model's file name."""
        return str(self.classifier.path.name)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits float32 [B, K], on the images' device."""
        found = self.classifier.run(np.ascontiguousarray(images.detach().cpu().numpy(), dtype=np.float32))
        return torch.from_numpy(np.asarray(found, dtype=np.float32)).to(images.device)


def scorer_name(scorer: Scorer) -> str:
    """How an explanation names what it explains: the scorer's ``name``, or that of the function."""
    return str(getattr(scorer, "name", getattr(scorer, "__name__", type(scorer).__name__)))


def scores_of(scorer: Scorer, images: Tensor, batch_size: int) -> Tensor:
    """Scores float32 [N, K] of images [N, 3, S, S], batch by batch.

    Raises:
        ConfigError: scores of another shape, or that are not finite.
    """
    with torch.no_grad():
        parts = [scorer(part) for part in torch.split(images, batch_size)]
    for part, given in zip(parts, torch.split(images, batch_size), strict=True):
        if not isinstance(part, Tensor) or part.ndim != 2 or len(part) != len(given) or not bool(part.isfinite().all()):
            shape = list(part.shape) if isinstance(part, Tensor) else type(part).__name__
            raise ConfigError(
                f"{scorer_name(scorer)} gives {shape} for {len(given)} images, or values that are not finite",
                rule="a scorer gives finite scores [B, K], one row an image",
            )
    return torch.cat(parts).float()
