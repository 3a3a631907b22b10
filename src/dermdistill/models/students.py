"""Named students of several sizes, to choose from: a new one is one function and one entry of ``STUDENTS``."""

from collections.abc import Callable
from dataclasses import dataclass

from dermdistill.config import BranchConfig

Branches = tuple[BranchConfig, ...]


@dataclass(frozen=True)
class Student:
    """One student network; its exits, fusion and training are those of a recipe.

    Attributes:
        title: one line for people.
        branches: gives the branches that take the place of the recipe's.
    """

    title: str
    branches: Callable[[], Branches]

    @property
    def pretrained(self) -> bool:
        """Whether every branch starts from weights that were trained elsewhere."""
        return all(branch.weights != "none" for branch in self.branches())


def _nano() -> Branches:
    return (BranchConfig(backbone="efficientnet_lite0", weights="offline", stages=4),)


def _mobilenetv3_small() -> Branches:
    return (BranchConfig(backbone="mobilenetv3_small"),)


def _mobilenetv4_small() -> Branches:
    return (BranchConfig(backbone="mobilenetv4_small"),)


def _lite0() -> Branches:
    return (BranchConfig(backbone="efficientnet_lite0", weights="offline", stages=5),)


def _lite1() -> Branches:
    return (BranchConfig(backbone="efficientnet_lite1", weights="offline", stages=5),)


def _lite0_whole() -> Branches:
    return (BranchConfig(backbone="efficientnet_lite0", weights="offline"),)


STUDENTS: dict[str, Student] = {
    "nano": Student("EfficientNet-Lite0, four stages, ImageNet weights", _nano),
    "mobilenetv3_small": Student("MobileNetV3-Small, no packaged weights: random start", _mobilenetv3_small),
    "mobilenetv4_small": Student("MobileNetV4-Conv-Small, no packaged weights: random start", _mobilenetv4_small),
    "lite0": Student("EfficientNet-Lite0, no final convolution, ImageNet weights", _lite0),
    "lite1": Student("EfficientNet-Lite1, no final convolution, ImageNet weights", _lite1),
    "lite0_whole": Student("EfficientNet-Lite0, whole, ImageNet weights", _lite0_whole),
}
