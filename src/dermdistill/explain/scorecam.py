"""Score-CAM: which parts of an image, shown alone, raise the score of a class. It needs no gradients.

Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks", CVPR workshops 2020.
Each channel of a layer, enlarged and scaled to 0..1, masks the image; the channel's weight is by how much the target's
score of the masked image exceeds that of a blank one (the paper's equation 4). Taking the score itself, softmaxed over
the channels, is common (the package grad-cam does); such maps hardly change when the classifier is made random.

The masks come from a network, the scores from any function: an INT8 file is explained by its own scores with the masks
of the FP32 network that it was made from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from dermdistill.errors import ConfigError
from dermdistill.explain.activations import as_layers, check_classes, enlarged, grids, normalised
from dermdistill.explain.channels import as_masks, dead_channels, estimated, uniform_channels, widest
from dermdistill.explain.scorers import NetworkScorer, Scorer, scores_of

Weighting = Literal["increase", "paper", "softmax"]


@dataclass(frozen=True)
class ScoreCamSettings:
    """How Score-CAM works.

    Args:
        channels: how many channels of a layer are scored, those of largest spread over the image; the weights of the
            others are estimated from theirs, or 0 under ``softmax``. None: all that can matter, which is exact.
        weighting: what a channel's weight is.
            ``increase``: of the target's logit above the mean of all logits (only differences of logits mean
            something), over a blank image of this image's own mean colour, which hidden parts have.
            ``paper``: of the target's logit, over a blank image of the colour 0, which hidden parts have. That colour
            is foreign to skin; often nothing raises the score above it, and the map is blank.
            ``softmax``: as ``paper``, but softmax of the logits over the channels, and masks stretched from corner to
            corner, as the package grad-cam does; to compare with it.
        batch_size: masked images at once; it bounds the memory and does not change the maps.

    Raises:
        ConfigError: channels or batch size below 1, or another weighting.
    """

    channels: int | None = None
    weighting: Weighting = "increase"
    batch_size: int = 8

    def __post_init__(self) -> None:
        if self.batch_size < 1 or (self.channels is not None and self.channels < 1):
            raise ConfigError(
                f"Score-CAM with batch_size {self.batch_size} and channels {self.channels}",
                rule="both are at least 1, or channels is None: all",
            )
        if self.weighting not in get_args(Weighting):
            raise ConfigError(f"unknown weighting {self.weighting!r}", rule=f"one of {', '.join(get_args(Weighting))}")


@dataclass(frozen=True, eq=False)
class ScoreCams:
    """Score-CAM of a batch, for all classes.

    Args:
        branches: float32 [L, B, K, S, S] >= 0, the map of each layer before it is normalised.
        effects: float32 [L, B, K] >= 0, by how much the branch's map, as a mask, raises the score over a blank image;
            1 where there is one layer.
        scored: int64 [L, B], channels that were scored.
        of: channels of each layer.
    """

    branches: Tensor
    effects: Tensor
    scored: Tensor
    of: tuple[int, ...]

    def weighted(self) -> Tensor:
        """The maps of the branches, each normalised and then multiplied by its effect: float32 [L, B, K, S, S]."""
        scaled = torch.stack([_each_normalised(one) for one in self.branches])
        return scaled * self.effects[..., None, None]

    def fused(self) -> Tensor:
        """The maps of all branches together: float32 [B, K, S, S] in [0, 1]."""
        return _each_normalised(self.weighted().sum(dim=0))


def _each_normalised(maps: Tensor) -> Tensor:
    """Maps [B, K, S, S], each divided by its largest value."""
    return normalised(maps.flatten(0, 1)).view_as(maps)


def score_cam(
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    layers: nn.Module | Sequence[nn.Module],
    settings: ScoreCamSettings | None = None,
    scorer: Scorer | None = None,
) -> Tensor:
    """Score-CAM heat maps of one class an image. The model is left as it was.

    Args:
        model: its activations make the masks; see ``grad_cam``.
        images: float32 [B, 3, S, S], normalised.
        classes: int64 [B], the class whose score is explained.
        layers: target layer, or one for each branch of a hybrid: each branch's map is weighted by how much it, as a
            mask, raises the score over a blank image.
        settings: the defaults if None.
        scorer: gives the scores; the model itself if None.

    Returns:
        float32 [B, S, S] in [0, 1]; the largest value of each map is 1, a blank map is all zero.

    Raises:
        ConfigError: a layer that does not run exactly once or has an unknown shape; classes that do not fit; scores of
            another form.
    """
    maps = score_cams(model, images, layers, settings, scorer, classes=classes).fused()
    return maps[:, 0]


def score_cams(
    model: nn.Module,
    images: Tensor,
    layers: nn.Module | Sequence[nn.Module],
    settings: ScoreCamSettings | None = None,
    scorer: Scorer | None = None,
    *,
    classes: Tensor | None = None,
) -> ScoreCams:
    """Score-CAM of all classes from one pass: the same masked images serve every class.

    Args:
        classes: int64 [B]; only this class of each image, so that K is 1; None: all.

    The others, and what is raised, as ``score_cam``.
    """
    chosen = settings or ScoreCamSettings()
    found, _ = grids(model, images, as_layers(layers))
    score = scorer or NetworkScorer(model)
    asked = [_Asked(score, image, chosen) for image in images]
    if classes is not None:
        check_classes(classes, len(images), torch.stack([one.blank_score for one in asked]))
    picks = [slice(None)] * len(images) if classes is None else [slice(one, one + 1) for one in classes.tolist()]
    maps = [[_map(one, grid[row]) for row, one in enumerate(asked)] for grid in found]
    size = (images.shape[2], images.shape[3])
    branches = torch.stack(
        [torch.stack([enlarged(one[pick], size) for (one, _), pick in zip(made, picks, strict=True)]) for made in maps]
    )
    return ScoreCams(
        branches,
        _effects(asked, branches, picks),
        torch.tensor([[count for _, count in made] for made in maps], dtype=torch.int64),
        tuple(grid.shape[1] for grid in found),
    )


class _Asked:
    """One image and what is asked of the scorer about it."""

    def __init__(self, scorer: Scorer, image: Tensor, settings: ScoreCamSettings) -> None:
        self.scorer, self.image, self.settings = scorer, image, settings
        own_colour = settings.weighting == "increase"
        self.blank = image.mean(dim=(1, 2), keepdim=True) if own_colour else image.new_zeros(3, 1, 1)
        self.blank_score = self.scores(self.blank.expand_as(image)[None])[0]

    def scores(self, images: Tensor) -> Tensor:
        """Scores [n, K]; for ``increase`` each row less its mean."""
        found = scores_of(self.scorer, images, self.settings.batch_size)
        return found - found.mean(dim=1, keepdim=True) if self.settings.weighting == "increase" else found

    def shown(self, masks: Tensor) -> Tensor:
        """Scores [n, K] of the image shown through masks [n, S, S] in 0..1."""
        return self.scores(self.blank + masks[:, None] * (self.image - self.blank))


def _map(asked: _Asked, grid: Tensor) -> tuple[Tensor, int]:
    """The map [K, h, w] >= 0 of each class from one grid [C, h, w], and how many channels were scored."""
    settings = asked.settings
    # A channel that is the same everywhere masks to a blank image: its increase is 0. A dead one adds nothing under any
    # weight; in a softmax it only scales the others.
    like_package = settings.weighting == "softmax"
    live = grid[~(dead_channels(grid) if like_package else uniform_channels(grid))]
    scored = widest(live, settings.channels)
    size = (asked.image.shape[1], asked.image.shape[2])
    parts = [
        asked.shown(as_masks(channels, size, align_corners=like_package))
        for channels in torch.split(live[scored], settings.batch_size)
    ]
    scores = torch.cat(parts) if parts else grid.new_zeros(0, len(asked.blank_score))
    if like_package:
        weights = grid.new_zeros(len(live), scores.shape[1]).index_copy(0, scored, scores.softmax(dim=0))
    else:
        weights = estimated(live, scored, scores - asked.blank_score)
    return torch.einsum("ck,chw->khw", weights, live).relu(), len(scored)


def _effects(asked: Sequence[_Asked], branches: Tensor, picks: Sequence[slice]) -> Tensor:
    """By how much each branch's own map, as a mask, raises the score over a blank image: [L, B, K] >= 0."""
    effects = branches.new_ones(branches.shape[:3])
    if len(branches) == 1:
        return effects
    for layer, maps in enumerate(branches):
        for row, one in enumerate(asked):
            increase = (one.shown(normalised(maps[row])) - one.blank_score)[:, picks[row]]
            effects[layer, row] = increase.diagonal().relu()
    return effects
