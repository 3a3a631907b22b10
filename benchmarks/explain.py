"""Are our class activation maps those of the package grad-cam, and what do they cost beside it?

On EfficientNet-Lite0 with its packaged ImageNet weights and classifier (extra `offline`), on crops of the two
photographs that scikit-learn brings, one thread: CPU milliseconds an image of Grad-CAM, of Score-CAM over all channels,
over those that can matter (exact) and over the 128 of largest spread; correlations of the maps; and how much memory
each Score-CAM takes on top of the loaded network, each in a process of its own.

Prints one JSON object; `met` says whether what was promised is kept: correlations of at least .999 (.99 with 128
channels), Grad-CAM in at most half of the package's time, Score-CAM twice as fast exact and eight times with 128
channels, below 200 MB.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dermdistill.provenance import origin

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dermdistill.explain.scorecam import ScoreCamSettings

BACKBONE = "efficientnet_lite0"
TOP_CHANNELS = 128
LIMITS = {
    "correlation_grad_cam": (0.999, None),
    "correlation_score_cam": (0.999, None),
    "correlation_top_channels": (0.99, None),
    "package / grad_cam": (2.0, None),
    "package / score_cam_exact": (2.0, None),
    "package / score_cam_top": (8.0, None),
    "extra_megabytes_exact": (None, 200.0),
    "extra_megabytes_top": (None, 200.0),
}
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
Explainer = Callable[["Tensor", "Tensor"], "Tensor"]


def network() -> "nn.Module":
    """The ImageNet classifier: the package's file lists its layers in timm's order."""
    import timm
    import torch

    from dermdistill.models.weights import OFFLINE, OFFLINE_BATCH_NORM_EPS

    module, name = OFFLINE[BACKBONE]
    path = getattr(importlib.import_module(module), name).get_model_file_path()
    model: nn.Module = timm.create_model(BACKBONE, bn_eps=OFFLINE_BATCH_NORM_EPS)
    stored = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), stored.values(), strict=True)))
    return model.eval()


def pictures(size: int, count: int) -> "Tensor":
    """Crops of a temple and of a flower, normalised: float32 [count, 3, size, size], count at most 6."""
    import torch
    from sklearn.datasets import load_sample_images

    from dermdistill.preprocess import PreprocessSpec, normalise, resize_image

    found = []
    for photo in load_sample_images().images:
        side = photo.shape[0]
        lefts = (photo.shape[1] - side) // 2 * np.arange(3)
        found += [photo[:, left : left + side] for left in lefts]
    spec = PreprocessSpec(size)
    crops = [resize_image(np.ascontiguousarray(found[index]), spec) for index in (4, 1, 3, 0, 5, 2)[:count]]
    return torch.from_numpy(normalise(np.stack(crops), spec))


def package(model: "nn.Module", layer: "nn.Module", name: str) -> Explainer:
    """A method of the package grad-cam, as users call it."""
    import pytorch_grad_cam
    import torch
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    method = getattr(pytorch_grad_cam, name)

    def explain(images: "Tensor", classes: "Tensor") -> "Tensor":
        with method(model=model, target_layers=[layer]) as cam:
            found = cam(input_tensor=images, targets=[ClassifierOutputTarget(one) for one in classes.tolist()])
        return torch.from_numpy(found)

    return explain


def ours(model: "nn.Module", layer: "nn.Module", settings: "ScoreCamSettings") -> Explainer:
    """Our Score-CAM."""
    from dermdistill.explain.scorecam import score_cam

    return lambda images, classes: score_cam(model, images, classes, layer, settings)


def explainers(model: "nn.Module") -> dict[str, Explainer]:
    """What is compared, all on one layer."""
    from dermdistill.explain.gradcam import grad_cam
    from dermdistill.explain.scorecam import ScoreCamSettings
    from dermdistill.explain.target_layers import target_layers

    (layer,) = target_layers(model, 224)
    exact, top = ScoreCamSettings(), ScoreCamSettings(channels=TOP_CHANNELS)
    return {
        "package GradCAM": package(model, layer.module, "GradCAM"),
        "grad_cam": lambda images, classes: grad_cam(model, images, classes, layer.module),
        "package ScoreCAM": package(model, layer.module, "ScoreCAM"),
        "score_cam_exact": ours(model, layer.module, exact),
        "score_cam_top": ours(model, layer.module, top),
        "score_cam_softmax": ours(model, layer.module, ScoreCamSettings(weighting="softmax")),
    }


def timed(explain: Explainer, images: "Tensor", classes: "Tensor", repeats: int) -> tuple[float, "Tensor"]:
    """CPU milliseconds an image, the median over images and repeats, and the maps."""
    import torch

    times, maps = [], []
    for repeat in range(repeats):
        for image, target in zip(images[:, None], classes[:, None], strict=True):
            begun = time.process_time()
            found = explain(image, target)
            times.append(1000 * (time.process_time() - begun))
            maps += [found] if repeat == 0 else []
    return statistics.median(times), torch.cat(maps)


def correlation(one: "Tensor", other: "Tensor") -> float:
    """The lowest of the images' Pearson correlations."""
    pairs = zip(one.flatten(1).numpy(), other.flatten(1).numpy(), strict=True)
    return float(min(np.corrcoef(a, b)[0, 1] for a, b in pairs))


def compared(options: argparse.Namespace) -> dict[str, Any]:
    """Times, ratios and correlations, in this process."""
    import torch

    model, images = network(), pictures(options.size, options.images)
    with torch.no_grad():
        classes = model(images).argmax(dim=1)
    every = explainers(model)
    for name in ("package GradCAM", "grad_cam"):
        every[name](images[:1], classes[:1])
    slow = [name for name in every if "score" in name.lower()]
    found = {
        name: timed(explain, images, classes, options.slow_repeats if name in slow else options.repeats)
        for name, explain in every.items()
    }
    milliseconds = {name: round(time, 2) for name, (time, _) in found.items()}
    maps = {name: map_ for name, (_, map_) in found.items()}
    return {
        "cpu_ms_an_image": milliseconds,
        "package / grad_cam": round(milliseconds["package GradCAM"] / milliseconds["grad_cam"], 2),
        **{
            f"package / {name}": round(milliseconds["package ScoreCAM"] / milliseconds[name], 2)
            for name in ("score_cam_exact", "score_cam_top")
        },
        "correlation_grad_cam": round(correlation(maps["grad_cam"], maps["package GradCAM"]), 6),
        "correlation_score_cam": round(correlation(maps["score_cam_softmax"], maps["package ScoreCAM"]), 6),
        "correlation_top_channels": round(correlation(maps["score_cam_top"], maps["score_cam_exact"]), 6),
    }


def _memory(field: str) -> int:
    """A field of this process's memory in kB: ``VmRSS`` now, ``VmHWM`` at most."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def extra_megabytes(name: str, size: int) -> float:
    """How far the peak of this process lies above what it held with the network loaded and the image scored once."""
    import torch

    model, images = network(), pictures(size, 1)
    explain = explainers(model)[name]
    with torch.no_grad():
        classes = model(images).argmax(dim=1)
    before = _memory("VmRSS")
    explain(images, classes)
    return round((_memory("VmHWM") - before) / 1024, 1)


def _in_a_process(options: argparse.Namespace, *more: str) -> Any:
    command = [sys.executable, __file__, "--size", str(options.size), "--images", str(options.images)]
    command += ["--repeats", str(options.repeats), "--slow-repeats", str(options.slow_repeats), *more]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True, env={**os.environ, **THREADS}
    )
    return json.loads(done.stdout.splitlines()[-1])


def kept(results: dict[str, Any]) -> bool:
    """Whether every figure keeps its limit."""
    return all(
        (low is None or results[name] >= low) and (high is None or results[name] <= high)
        for name, (low, high) in LIMITS.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=3, choices=range(1, 7))
    parser.add_argument("--repeats", type=int, default=15, help="of Grad-CAM")
    parser.add_argument("--slow-repeats", type=int, default=1, help="of Score-CAM")
    parser.add_argument("--compare", action="store_true", help="times and correlations, in this process")
    parser.add_argument("--memory", help="the extra memory of one method, in this process")
    options = parser.parse_args()
    if options.compare or options.memory:
        import torch

        torch.set_num_threads(1)
        print(json.dumps(extra_megabytes(options.memory, options.size) if options.memory else compared(options)))
        return
    results = _in_a_process(options, "--compare")
    for key, name in (("package", "package ScoreCAM"), ("exact", "score_cam_exact"), ("top", "score_cam_top")):
        results[f"extra_megabytes_{key}"] = _in_a_process(options, "--memory", name)
    print(
        json.dumps(
            {
                "benchmark": "explain",
                "threads": 1,
                "backbone": BACKBONE,
                "size": options.size,
                "images": options.images,
                "top_channels": TOP_CHANNELS,
                "limits": {name: {"low": low, "high": high} for name, (low, high) in LIMITS.items()},
                "results": results,
                "met": kept(results),
                **origin(),
            }
        )
    )


if __name__ == "__main__":
    main()
