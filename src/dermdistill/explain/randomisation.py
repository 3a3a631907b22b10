"""Does a map depend on what the model has learnt? The test by randomised weights.

Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, section 3: weights of a copy are initialised anew and
the maps of both models correlated. A method whose maps hardly change shows the picture, not the model's reasons. The
classifier alone is randomised (``randomisation_test``: mean rank correlation at most ``LIMIT`` passes), or layer after
layer from the classifier down to the input (``cascade``).
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dermdistill.errors import ConfigError
from dermdistill.explain.activations import evaluation_mode, logits_in
from dermdistill.explain.agreement import spearman
from dermdistill.explain.explainer import BATCH, Explainer, Maps, Scores, maps_of

LIMIT = 0.5
# One new classifier is one draw: by chance it may resemble the old one, or be its opposite. So each image has its own.
REPEATS = 3


def layers_from_the_top(model: nn.Module, image: Tensor) -> list[str]:
    """Names of the modules with weights of their own, the classifier first, those nearest to the image last.

    The order is that in which they start to run. One that is not run itself, as its weights are read by the module
    around it, stands with that module.

    Args:
        model: images -> logits.
        image: float32 [1, 3, H, W], to run it once.

    Raises:
        ConfigError: it has no weights.
    """
    started: dict[str, int] = {}

    def note(name: str) -> Callable[[nn.Module, Any], None]:
        def hook(_module: nn.Module, _inputs: Any) -> None:
            started.setdefault(name, len(started))

        return hook

    handles = [module.register_forward_pre_hook(note(name)) for name, module in model.named_modules()]
    try:
        with torch.no_grad(), evaluation_mode(model):
            model(image)
    finally:
        for handle in handles:
            handle.remove()
    owners = [name for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False))]
    if not owners:
        raise ConfigError(
            f"{type(model).__name__} has no weights", rule="the test by randomised weights needs a network with weights"
        )
    return sorted(owners, key=lambda name: _start(name, started), reverse=True)


def _start(name: str, started: dict[str, int]) -> int:
    while name not in started and name:
        name = name.rpartition(".")[0]
    return started.get(name, 0)


def randomised(model: nn.Module, names: Sequence[str], *, seed: int) -> nn.Module:
    """A copy of the model in which the weights of some modules are initialised anew; the model is left as it was.

    A module with ``reset_parameters`` starts as PyTorch starts it; of others the values are shuffled.

    Args:
        model: the trained network.
        names: of the modules; only their own weights, not those of modules inside them.
        seed: of the new weights; the global generator is left as it was.
    """
    other = copy.deepcopy(model)
    modules = dict(other.named_modules())
    with _seeded(other, seed), torch.no_grad():
        for name in names:
            _initialise(modules[name])
    return other


@contextmanager
def _seeded(model: nn.Module, seed: int) -> Iterator[None]:
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _initialise(module: Any) -> None:
    if callable(getattr(module, "reset_parameters", None)):
        module.reset_parameters()
        return
    for weights in module.parameters(recurse=False):
        order = torch.randperm(weights.numel()).to(weights.device)
        weights.copy_(weights.flatten()[order].reshape(weights.shape))


def randomisation_test(
    explainer: Explainer,
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    *,
    seed: int,
    maps: Maps | None = None,
    repeats: int = REPEATS,
    batch_size: int = BATCH,
) -> Scores:
    """Rank correlation of each image's map before and after the classifier was initialised anew.

    Every image has new classifiers of its own. Were they shared, the mean over images would be one over a handful of
    classifiers, and an interval over images would not know it.

    Args:
        explainer: the method. It must explain the model that it is given: one that asks another model for scores, as
            Score-CAM of an INT8 file does, cannot be tested so.
        model: the trained network; it is left as it was.
        images: float32 [N, 3, H, W], normalised; at least one.
        classes: int64 [N]; the same before and after.
        seed: of the new weights, with the image's row.
        maps: float32 [N, H, W] of these images, if they are known.
        repeats: how many new classifiers an image; the mean over them is given.
        batch_size: images at once, where the maps are not known.

    Returns:
        float64 [N] in [-1, 1], signed; NaN where the map, or every one after, is blank or constant.

    Raises:
        ConfigError: the model has no weights, or what seems to be its classifier does not act on the logits.
    """
    before = maps_of(explainer, model, images, classes, batch_size=batch_size) if maps is None else maps
    classifier = layers_from_the_top(model, images[:1])[0]
    found = np.empty((repeats, len(images)))
    for row in range(len(images)):
        one = slice(row, row + 1)
        for repeat in range(repeats):
            other = randomised(model, [classifier], seed=draw_seed(seed, row, repeat))
            _check_changed(model, other, images[one], classifier)
            after = maps_of(explainer, other, images[one], classes[one], batch_size=1)
            found[repeat, row] = spearman(before[one], after)[0]
    defined = np.isfinite(found)
    return np.where(defined.any(axis=0), np.where(defined, found, 0).sum(axis=0) / defined.sum(axis=0).clip(1), np.nan)


def draw_seed(seed: int, row: int, repeat: int) -> int:
    """Of an image's new classifier: another one for every row and repeat."""
    return int(np.random.SeedSequence([seed, row, repeat]).generate_state(1)[0])


def cascade(
    explainer: Explainer,
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    *,
    seed: int,
    stops: int = 8,
    batch_size: int = BATCH,
) -> dict[str, Scores]:
    """Rank correlation with the maps of the trained model while more and more of it is initialised anew.

    Args:
        explainer, model, images, classes, seed, batch_size: as ``randomisation_test``.
        stops: how often to look, evenly over the layers, the classifier alone first and the whole model last.

    Returns:
        By the name of the last layer that was initialised anew, top down, float64 [N].
    """
    before = maps_of(explainer, model, images, classes, batch_size=batch_size)
    names = layers_from_the_top(model, images[:1])
    depths = np.unique(np.linspace(1, len(names), min(stops, len(names))).round().astype(int)).tolist()
    models = ((names[depth - 1], randomised(model, names[:depth], seed=seed)) for depth in depths)
    return {
        name: spearman(before, maps_of(explainer, other, images, classes, batch_size=batch_size))
        for name, other in models
    }


def _check_changed(model: nn.Module, other: nn.Module, image: Tensor, classifier: str) -> None:
    with torch.no_grad(), evaluation_mode(model), evaluation_mode(other):
        same = torch.equal(logits_in(model(image)), logits_in(other(image)))
    if same:
        raise ConfigError(
            f"{classifier!r} was initialised anew and the logits stayed the same",
            rule="the last module with weights that starts to run is the classifier",
        )
