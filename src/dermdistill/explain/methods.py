"""Every way to explain, in one shape: ``explain(model, images, method, target) -> Explanation``.

Adding one is a function and an entry of ``METHODS``.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dermdistill.errors import ConfigError
from dermdistill.explain.activations import check_classes, normalised
from dermdistill.explain.explainer import BATCH
from dermdistill.explain.explanation import Explanation
from dermdistill.explain.gradcam import branch_effects
from dermdistill.explain.lime import LimeSettings, heat_of, lime_fits
from dermdistill.explain.scorecam import ScoreCamSettings, score_cams
from dermdistill.explain.scorers import NetworkScorer, Scorer, scorer_name, scores_of
from dermdistill.explain.target_layers import TargetLayer, target_layers

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class GradCamSettings:
    """How Grad-CAM works.

    Args:
        batch_size: images at once; it bounds the memory and does not change the maps.

    Raises:
        ConfigError: a batch size below 1.
    """

    batch_size: int = BATCH

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"Grad-CAM with batch_size {self.batch_size}", rule="at least 1")


@dataclass(frozen=True, eq=False)
class Question:
    """What a method is asked.

    Args:
        model: the network whose layers are read.
        images: float32 [B, 3, S, S], normalised.
        targets: int64 [B], the class that each map explains.
        settings: of the method; None: its defaults.
        scorer: what is explained; None: the network itself.
        layers: names of the layers to read; None: those that ``target_layers`` chooses.
    """

    model: nn.Module
    images: Tensor
    targets: Tensor
    settings: Any = None
    scorer: Scorer | None = None
    layers: Sequence[str] | None = None

    def settings_of(self, kind: type[Settings]) -> Settings:
        """The settings, which must be of that kind.

        Raises:
            ConfigError: those of another method.
        """
        if self.settings is None:
            return kind()
        if not isinstance(self.settings, kind):
            raise ConfigError(f"settings are {type(self.settings).__name__}", rule=f"this method takes {kind.__name__}")
        return self.settings

    def read_layers(self) -> tuple[TargetLayer, ...]:
        """The layers to read, with their names in the network.

        Raises:
            ConfigError: a network without a rule and no names, or a name that it does not have.
        """
        if self.layers is None:
            return target_layers(self.model, self.images.shape[2])
        modules = dict(self.model.named_modules())
        unknown = [name for name in self.layers if name not in modules]
        if unknown or not self.layers:
            raise ConfigError(
                f"the network has no layers {unknown}" if unknown else "no target layer was given",
                rule="layers are names of the network's modules, as named_modules gives them",
            )
        return tuple(TargetLayer(name, modules[name], "named") for name in self.layers)

    def scored_by(self) -> Scorer:
        """What gives the scores."""
        return self.scorer or NetworkScorer(self.model)


def by_grad_cam(question: Question) -> Explanation:
    """Grad-CAM; see ``gradcam.py``."""
    settings = question.settings_of(GradCamSettings)
    if question.scorer is not None:
        raise ConfigError(
            f"Grad-CAM cannot explain {scorer_name(question.scorer)}",
            rule="it differentiates, so it explains a network by that network's own logits",
            next_step="take score_cam or lime",
        )
    layers = question.read_layers()
    modules = [layer.module for layer in layers]
    images, targets = (torch.split(given, settings.batch_size) for given in (question.images, question.targets))
    effects = [branch_effects(question.model, *batch, layers=modules) for batch in zip(images, targets, strict=True)]
    return _explanation("grad_cam", question, layers, torch.cat(effects, dim=1), asdict(settings))


def by_score_cam(question: Question) -> Explanation:
    """Score-CAM; see ``scorecam.py``."""
    settings = question.settings_of(ScoreCamSettings)
    layers = question.read_layers()
    modules = [layer.module for layer in layers]
    found = score_cams(question.model, question.images, modules, settings, question.scorer, classes=question.targets)
    facts = {**asdict(settings), "of_channels": list(found.of)}
    figures = {"channels": found.scored.sum(dim=0).double().numpy()}
    return _explanation("score_cam", question, layers, found.weighted()[:, :, 0], facts, figures)


def by_lime(question: Question) -> Explanation:
    """LIME; see ``lime.py``."""
    settings = question.settings_of(LimeSettings)
    fits = lime_fits(question.scored_by(), question.images, question.targets, settings)
    return Explanation(
        heat_of(fits, question.images),
        "lime",
        question.targets,
        {**asdict(settings), "scorer": scorer_name(question.scored_by())},
        {
            "r2": np.array([fit.r2 for fit in fits], dtype=np.float64),
            "segments": np.array([len(fit.weights) for fit in fits], dtype=np.float64),
        },
    )


METHODS: dict[str, Callable[[Question], Explanation]] = {
    "grad_cam": by_grad_cam,
    "score_cam": by_score_cam,
    "lime": by_lime,
}


def explain(
    model: nn.Module,
    images: Tensor,
    method: str,
    target: int | Tensor | None = None,
    settings: Any = None,
    *,
    scorer: Scorer | None = None,
    layers: Sequence[str] | None = None,
) -> Explanation:
    """Heat maps of one method. The model is left as it was.

    Args:
        model: a network: images -> logits [B, K], or a tuple with the logits first.
        images: float32 [B, 3, S, S], normalised, on the model's device; at least one.
        method: a name in ``METHODS``.
        target: the class to explain, for all images; or int64 [B], one for each; None: the class with the largest
            score of what is explained.
        settings: ``GradCamSettings``, ``ScoreCamSettings`` or ``LimeSettings``, as the method wants; None: defaults.
        scorer: what is explained, where that is not the network itself: an INT8 model as ``ArrayScorer``. Score-CAM
            then takes masks from the network and scores from the scorer; LIME asks the scorer alone.
        layers: names of the layers to read, one a branch; None: those of ``target_layers``.

    Returns:
        Maps [B, S, S], and what made them.

    Raises:
        ConfigError: an unknown method, settings of another one, a target that does not fit, a network without a rule
            for its layers, or Grad-CAM of a scorer.
    """
    if method not in METHODS:
        raise ConfigError(f"unknown method {method!r}", rule=f"one of {', '.join(METHODS)}")
    if images.ndim != 4 or not len(images) or not images.is_floating_point():
        raise ConfigError(f"images are {images.dtype} {list(images.shape)}", rule="float32 [B, 3, S, S], at least one")
    targets = _targets(scorer or NetworkScorer(model), images, target)
    return METHODS[method](Question(model, images, targets, settings, scorer, layers))


def _targets(scorer: Scorer, images: Tensor, target: int | Tensor | None) -> Tensor:
    if target is None:
        return scores_of(scorer, images, BATCH).argmax(dim=1)
    if isinstance(target, int):
        targets = torch.full((len(images),), target, dtype=torch.int64, device=images.device)
    else:
        targets = target.to(images.device)
    check_classes(targets, len(images), scores_of(scorer, images[:1], 1))
    return targets.to(torch.int64)


def maps_by(
    method: str, settings: Any = None, *, scorer: Scorer | None = None, layers: Sequence[str] | None = None
) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """A method as the function (model, images, classes) -> maps float32 [B, S, S] that the scores of maps take."""

    def maps(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        return explain(model, images, method, classes, settings, scorer=scorer, layers=layers).maps

    return maps


def _explanation(
    method: str,
    question: Question,
    layers: Sequence[TargetLayer],
    effects: Tensor,
    facts: dict[str, Any],
    figures: dict[str, npt.NDArray[np.float64]] | None = None,
) -> Explanation:
    """Maps of the branches [L, B, S, S], in one unit, and their sum."""
    names = [layer.name for layer in layers]
    described = [{"name": layer.name, "kind": layer.kind} for layer in layers]
    several = len(names) > 1
    shares = {f"share {name}": share for name, share in zip(names, _shares(effects), strict=True)} if several else {}
    return Explanation(
        normalised(effects.sum(dim=0)),
        method,
        question.targets,
        {**facts, "layers": described, "scorer": scorer_name(question.scored_by())},
        {**(figures or {}), **shares},
        {name: normalised(effect) for name, effect in zip(names, effects, strict=True)} if several else {},
    )


def _shares(effects: Tensor) -> npt.NDArray[np.float64]:
    """How much of the whole map is each branch's, [L, B] in [0, 1]; NaN where the map is blank."""
    sums = effects.double().sum(dim=(2, 3))
    found: npt.NDArray[np.float64] = (sums / sums.sum(dim=0)).cpu().numpy()
    return found
