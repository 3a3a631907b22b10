"""From a configuration to a classifier, and the list of what can be built."""

from dataclasses import dataclass

import torch

from dermdistill.config import ModelConfig
from dermdistill.models.backbones import BACKBONES, OWN_BACKBONES, create_backbone
from dermdistill.models.branch import Branch
from dermdistill.models.hybrid import HybridClassifier
from dermdistill.models.weights import OFFLINE, load_backbone

MEGABYTE = 1e6


def build_model(config: ModelConfig, *, classes: int, size: int, seed: int) -> HybridClassifier:
    """Build a classifier; what is not loaded starts from the seed.

    Args:
        config: branches, exits, fusion.
        classes: number of classes.
        size: side of the square input in pixels.
        seed: seed of the random start.

    Raises:
        ConfigError: unknown backbone or unfit options.
        WeightsError: weights that cannot be had.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        loaded = [load_backbone(branch, size=size) for branch in config.branches]
        return HybridClassifier(
            [
                Branch(network, cut=branch.stages is not None)
                for branch, (network, _) in zip(config.branches, loaded, strict=True)
            ],
            classes=classes,
            exits=config.exits,
            fusion_width=config.fusion_width if config.fusion else None,
            dropout=config.dropout,
            weight_records=[record for _, record in loaded],
        )


@dataclass(frozen=True)
class BackboneSummary:
    """One line of the list of backbones.

    Attributes:
        parameters: without a classifier.
        megabytes: of these parameters in float32.
        stages: ``channels/stride`` at the four depths.
        weights: the sources that can be asked for.
    """

    name: str
    parameters: int
    megabytes: float
    stages: tuple[str, ...]
    weights: tuple[str, ...]


def list_backbones(size: int = 224) -> list[BackboneSummary]:
    """All listed backbones, built on the meta device: nothing is allocated or downloaded."""
    summaries = []
    for name in [*OWN_BACKBONES, *BACKBONES]:
        with torch.device("meta"):
            branch = Branch(create_backbone(name, size=size))
        count = sum(parameter.numel() for parameter in branch.parameters())
        strides = [branch.network.feature_info[index]["reduction"] for index in branch.indices]
        stages = tuple(f"{width}/{stride}" for width, stride in zip(branch.widths, strides, strict=True))
        sources = ["none", *(["hub"] if name in BACKBONES else []), *(["offline"] if name in OFFLINE else [])]
        summaries.append(BackboneSummary(name, count, 4 * count / MEGABYTE, stages, tuple(sources)))
    return summaries
