"""LIME: a linear model of what a classifier does when parts of one image are hidden. It needs nothing but scores.

Ribeiro et al., "Why Should I Trust You? Explaining the Predictions of Any Classifier", KDD 2016. The image is cut into
SLIC segments; each sample hides a random half of them; ridge regression, weighted by how near a sample is to the whole
image, tells what each segment adds to the target's score. Lasso, which is common, gave all-zero maps in half of our
images; ridge does not.

The answer is a random one: ``r2`` tells how well the linear model fits, ``lime_stability`` how far two seeds agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dermdistill.errors import ConfigError
from dermdistill.explain.activations import check_classes, normalised
from dermdistill.explain.scorers import Scorer, scores_of

Floats = npt.NDArray[np.float64]
Segments = npt.NDArray[np.int64]
Hidden = Literal["image_mean", "segment_mean", "zero"]

TOP = 5


@dataclass(frozen=True)
class LimeSettings:
    """How LIME works.

    Args:
        samples: perturbed images for each image; below 1,000 two seeds hardly agree.
        segments: about how many SLIC segments an image is cut into.
        compactness: of SLIC: the larger, the squarer the segments.
        hidden: what a hidden segment shows: the image's mean colour; the segment's own, under which a lesion of one
            colour hardly changes; or the colour 0, which is foreign to skin.
        kernel_width: of the exponential kernel on the cosine distance to the whole image.
        ridge: strength of the ridge penalty.
        seed: of the samples. Each image's samples depend on the seed and the number of its segments alone.
        batch_size: perturbed images at once.

    Raises:
        ConfigError: a number out of its range, or another way to hide.
    """

    samples: int = 1000
    segments: int = 50
    compactness: float = 10.0
    hidden: Hidden = "image_mean"
    kernel_width: float = 0.25
    ridge: float = 1.0
    seed: int = 0
    batch_size: int = 64

    def __post_init__(self) -> None:
        least = {"samples": 2, "segments": 2, "batch_size": 1}
        low = [f"{name} {getattr(self, name)}" for name, value in least.items() if getattr(self, name) < value]
        positive = ("compactness", "kernel_width", "ridge")
        low += [f"{name} {getattr(self, name)}" for name in positive if not getattr(self, name) > 0]
        if low or self.hidden not in get_args(Hidden):
            raise ConfigError(
                f"LIME with {', '.join([*low, f'hidden {self.hidden!r}'])}",
                rule="at least 2 samples, 2 segments and 1 image a batch; compactness, kernel_width and ridge above 0; "
                f"hidden one of {', '.join(get_args(Hidden))}",
            )


@dataclass(frozen=True, eq=False)
class LimeFit:
    """The linear model of one image and class.

    Args:
        segments: int64 [H, W], 0..d-1: which segment each pixel belongs to.
        weights: float64 [d], what each segment adds to the score.
        r2: share of the scores' weighted variance that the linear model explains, at most 1; NaN where the scores do
            not vary.
    """

    segments: Segments
    weights: Floats
    r2: float

    def heat(self) -> npt.NDArray[np.float32]:
        """What raised the score, float32 [H, W] >= 0."""
        found: npt.NDArray[np.float32] = np.maximum(self.weights, 0)[self.segments].astype(np.float32)
        return found

    def top(self, count: int = TOP) -> frozenset[int]:
        """The segments with the largest weights; of equal ones those that come first."""
        return frozenset(np.argsort(-self.weights, kind="stable")[:count].tolist())


def slic_segments(image: Tensor, settings: LimeSettings) -> Segments:
    """SLIC superpixels of an image float32 [3, H, W], in any units: int64 [H, W], 0..d-1 without gaps.

    Achanta et al., "SLIC Superpixels Compared to State-of-the-art Superpixel Methods", TPAMI 2012. The values are
    scaled to 0..1 over all channels together before they are taken for RGB.
    """
    from skimage.segmentation import slic

    pixels = image.detach().cpu().double().permute(1, 2, 0).numpy()
    low, high = pixels.min(), pixels.max()
    scaled = (pixels - low) / (high - low) if high > low else np.zeros_like(pixels)
    found = slic(scaled, n_segments=settings.segments, compactness=settings.compactness, sigma=0, start_label=0)
    return np.unique(found, return_inverse=True)[1].reshape(found.shape).astype(np.int64)


def shown_segments(count: int, settings: LimeSettings) -> npt.NDArray[np.bool_]:
    """Which segments each sample shows, bool [samples, count]: the whole image first, then coin tosses.

    Every other sample shows what the one before it hides. Every segment is then shown as often as hidden, and what the
    scores have of even order cancels out: two seeds agree better for the same number of samples (paired sampling; for
    Shapley values Covert and Lee, "Improving KernelSHAP", AISTATS 2021).
    """
    rng = np.random.default_rng(np.random.SeedSequence([settings.seed, count]))
    tossed = rng.random(((settings.samples + 1) // 2, count)) < 0.5
    shown = np.stack([tossed, ~tossed], axis=1).reshape(-1, count)[: settings.samples]
    shown[0] = True
    return shown


def nearness(shown: npt.NDArray[np.bool_], width: float) -> Floats:
    """Weight of each sample, float64 [n] in (0, 1]: exponential kernel of its cosine distance to the whole image."""
    distance = 1 - np.sqrt(shown.mean(axis=1))
    found: Floats = np.sqrt(np.exp(-(distance**2) / width**2))
    return found


def ridge_fit(shown: npt.NDArray[np.bool_], scores: Floats, weights: Floats, ridge: float) -> tuple[Floats, float]:
    """Weighted ridge regression with an intercept that is not penalised.

    Args:
        shown: bool [n, d].
        scores: [n].
        weights: of the samples, [n].
        ridge: penalty on the squared coefficients.

    Returns:
        Coefficients [d], and the weighted R2 of the fit; zeros and NaN where the scores do not vary.
    """
    if np.ptp(scores) == 0:
        return np.zeros(shown.shape[1]), float("nan")
    share = weights / weights.sum()
    inputs = shown - share @ shown
    outputs = scores - share @ scores
    normal = inputs.T @ (weights[:, None] * inputs) + ridge * np.eye(inputs.shape[1])
    found: Floats = np.linalg.solve(normal, inputs.T @ (weights * outputs))
    left = float(weights @ (outputs - inputs @ found) ** 2)
    return found, 1 - left / float(weights @ outputs**2)


def perturbed_scores(
    scorer: Scorer, image: Tensor, segments: Segments, shown: npt.NDArray[np.bool_], settings: LimeSettings
) -> Tensor:
    """Scores [n, K] of an image [3, H, W] with segments hidden as ``shown`` [n, d] says."""
    places = torch.from_numpy(segments).to(image.device)
    hidden = _hidden_image(image, places, settings.hidden)
    parts = []
    for part in torch.split(torch.from_numpy(shown).to(image.device), settings.batch_size):
        parts.append(scores_of(scorer, torch.where(part[:, places][:, None], image, hidden), settings.batch_size))
    return torch.cat(parts)


def _hidden_image(image: Tensor, places: Tensor, hidden: Hidden) -> Tensor:
    """What the image [3, H, W] shows where everything is hidden."""
    if hidden == "zero":
        return torch.zeros_like(image)
    if hidden == "image_mean":
        return image.mean(dim=(1, 2), keepdim=True).expand_as(image)
    flat = places.flatten()
    sums = image.new_zeros(image.shape[0], int(flat.max()) + 1).index_add_(1, flat, image.flatten(1))
    return (sums / torch.bincount(flat).to(image.dtype))[:, places]


def lime_fits(scorer: Scorer, images: Tensor, classes: Tensor, settings: LimeSettings | None = None) -> list[LimeFit]:
    """The linear model of each image.

    Args:
        scorer: what is explained: images -> logits [B, K].
        images: float32 [B, 3, S, S], normalised.
        classes: int64 [B], the class whose logit is explained.
        settings: the defaults if None.

    Raises:
        ConfigError: classes that do not fit, or scores of another form.
    """
    chosen = settings or LimeSettings()
    segments = [slic_segments(image, chosen) for image in images]
    return [_fit(scorer, *one, chosen) for one in zip(images, segments, _checked(classes, images, scorer), strict=True)]


def _checked(classes: Tensor, images: Tensor, scorer: Scorer) -> list[int]:
    check_classes(classes, len(images), scores_of(scorer, images[:1], 1) if len(images) else images.new_zeros(0, 1))
    found: list[int] = classes.tolist()
    return found


def _fit(scorer: Scorer, image: Tensor, segments: Segments, target: int, settings: LimeSettings) -> LimeFit:
    shown = shown_segments(int(segments.max()) + 1, settings)
    scores = perturbed_scores(scorer, image, segments, shown, settings)[:, target].double().cpu().numpy()
    return LimeFit(segments, *ridge_fit(shown, scores, nearness(shown, settings.kernel_width), settings.ridge))


def heat_of(fits: Sequence[LimeFit], images: Tensor) -> Tensor:
    """Heat maps float32 [B, S, S] in [0, 1] of fits, on the images' device."""
    maps = [torch.from_numpy(fit.heat()) for fit in fits]
    stacked = torch.stack(maps) if maps else torch.zeros(0, *images.shape[2:])
    return normalised(stacked).to(images.device)


def lime(scorer: Scorer, images: Tensor, classes: Tensor, settings: LimeSettings | None = None) -> Tensor:
    """LIME heat maps: the segments whose showing raised the target's score, the others 0.

    Returns:
        float32 [B, S, S] in [0, 1]; the largest value of each map is 1, a blank map is all zero.

    Raises:
        ConfigError: as ``lime_fits``.
    """
    return heat_of(lime_fits(scorer, images, classes, settings), images)


def lime_stability(
    scorer: Scorer,
    images: Tensor,
    classes: Tensor,
    settings: LimeSettings | None = None,
    *,
    seeds: Sequence[int] = (0, 1),
    top: int = TOP,
) -> Floats:
    """How far LIME agrees with itself: the share of the ``top`` segments that two seeds have in common.

    Returns:
        float64 [B] in [0, 1], the mean over all pairs of seeds. Where an image has fewer segments than ``top``, these
        are all in common.

    Raises:
        ConfigError: fewer than two seeds, one twice, or as ``lime_fits``.
    """
    if len(seeds) < 2 or len(set(seeds)) < len(seeds):
        raise ConfigError(f"stability between the seeds {list(seeds)}", rule="at least two, all different")
    chosen = settings or LimeSettings()
    return top_overlap([lime_fits(scorer, images, classes, replace(chosen, seed=seed)) for seed in seeds], top)


def top_overlap(fits: Sequence[Sequence[LimeFit]], top: int = TOP) -> Floats:
    """The share of each image's ``top`` segments that fits of several seeds have in common, as ``lime_stability``.

    Args:
        fits: for each seed, at least two, the fit of each image.
        top: how many of an image's segments.
    """
    overlaps = [
        [len(a.top(top) & b.top(top)) / len(a.top(top)) for a, b in zip(one, other, strict=True)]
        for one, other in combinations(fits, 2)
    ]
    found: Floats = np.mean(overlaps, axis=0, dtype=np.float64)
    return found
