import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dermdistill.config import ModelConfig
from dermdistill.errors import ConfigError
from dermdistill.explain.activations import normalised
from dermdistill.explain.gradcam import branch_effects, grad_cam
from dermdistill.explain.lime import LimeSettings, lime
from dermdistill.explain.methods import METHODS, GradCamSettings, explain, maps_by
from dermdistill.explain.scorecam import ScoreCamSettings, score_cam
from dermdistill.explain.target_layers import target_layers
from dermdistill.models.build import build_model
from dermdistill.models.hybrid import HybridClassifier

SIZE = 32
QUICK: dict[str, Any] = {"grad_cam": None, "score_cam": None, "lime": LimeSettings(samples=60, segments=12)}
VIT = {"backbone": "vit_tiny", "options": {"patch_size": 8, "depth": 4, "embed_dim": 24, "num_heads": 2}}
CNN = {"backbone": "small_cnn", "options": {"widths": (8, 8, 8, 12)}}


def _model(*branches: dict[str, Any]) -> HybridClassifier:
    config = ModelConfig.model_validate({"branches": branches, "exits": [1], "fusion_width": 16})
    model = build_model(config, classes=5, size=SIZE, seed=0)
    with torch.no_grad():
        for _ in range(3):
            model.train()(_images(8))
    return model.eval()


def _images(count: int = 3) -> Tensor:
    coarse = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic")


def _modules(model: HybridClassifier) -> list[torch.nn.Module]:
    return [layer.module for layer in target_layers(model, SIZE)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("branches", [(CNN,), (VIT,), (VIT, CNN)])
def test_every_method_explains_the_predicted_class_of_every_network(
    method: str, branches: tuple[dict[str, Any], ...]
) -> None:
    model, images = _model(*branches), _images()
    found = explain(model, images, method, settings=QUICK[method])
    with torch.no_grad():
        assert torch.equal(found.targets, model(images).logits.argmax(dim=1))
    assert found.method == method and found.maps.shape == (3, SIZE, SIZE)
    json.dumps(found.made_from)
    deployed = explain(model.deployed(), images, method, settings=QUICK[method])
    assert torch.equal(deployed.maps, found.maps)


def test_methods_give_the_maps_of_their_functions() -> None:
    model, images, classes = _model(VIT, CNN), _images(), torch.tensor([0, 2, 4])
    layers = _modules(model)
    expected = {
        "grad_cam": grad_cam(model, images, classes, layers),
        "score_cam": score_cam(model, images, classes, layers),
        "lime": lime(lambda x: model(x).logits.detach(), images, classes, QUICK["lime"]),
    }
    for method, maps in expected.items():
        torch.testing.assert_close(explain(model, images, method, classes, QUICK[method]).maps, maps)
        torch.testing.assert_close(maps_by(method, QUICK[method])(model, images, classes), maps)


def test_hybrid_shows_each_branch_and_its_share_in_the_whole() -> None:
    model, images, classes = _model(VIT, CNN), _images(), torch.tensor([0, 2, 4])
    names = [layer.name for layer in target_layers(model, SIZE)]
    effects = branch_effects(model, images, classes, _modules(model))
    found = explain(model, images, "grad_cam", classes)
    assert list(found.branch_maps) == names
    for name, effect in zip(names, effects, strict=True):
        torch.testing.assert_close(found.branch_maps[name], normalised(effect))
        share = (effect.sum(dim=(1, 2)) / effects.sum(dim=(0, 2, 3))).double().numpy()
        np.testing.assert_allclose(found.figures[f"share {name}"], share, rtol=1e-5)
    torch.testing.assert_close(found.maps, normalised(effects.sum(dim=0)))
    alone = explain(_model(CNN), images, "grad_cam", classes)
    assert not alone.branch_maps and not alone.figures


@pytest.mark.parametrize("method", METHODS)
def test_one_class_for_all_is_that_class_for_each(method: str) -> None:
    model, images = _model(CNN), _images()
    one = explain(model, images, method, 2, QUICK[method])
    each = explain(model, images, method, torch.tensor([2, 2, 2]), QUICK[method])
    assert one.targets.tolist() == [2, 2, 2] and torch.equal(one.maps, each.maps)


def test_what_made_the_maps_is_said() -> None:
    model, images = _model(CNN), _images()
    layer = {"name": "branches.0.network.stages.1", "kind": "activation"}
    cam = explain(model, images, "score_cam", 0, ScoreCamSettings(channels=3))
    assert cam.made_from["layers"] == [layer] and cam.made_from["channels"] == 3 and cam.made_from["of_channels"] == [8]
    assert cam.made_from["weighting"] == "increase" and "HybridClassifier" in cam.made_from["scorer"]
    assert cam.figures["channels"].tolist() == [3, 3, 3]
    linear = explain(model, images, "lime", 0, LimeSettings(samples=60, segments=12, seed=7))
    assert (linear.made_from["seed"], linear.made_from["samples"]) == (7, 60)
    assert set(linear.figures) == {"r2", "segments"} and (linear.figures["r2"] <= 1).all()


def test_grad_cam_in_small_batches_gives_the_same_maps() -> None:
    model, images = _model(VIT, CNN), _images()
    expected = explain(model, images, "grad_cam", 1).maps
    torch.testing.assert_close(explain(model, images, "grad_cam", 1, GradCamSettings(batch_size=2)).maps, expected)


def _reversed_scores(model: HybridClassifier) -> Any:
    def reversed_scores(images: Tensor) -> Tensor:
        with torch.no_grad():
            return -model(images).logits

    return reversed_scores


@pytest.mark.parametrize("method", ["score_cam", "lime"])
def test_scorer_is_what_is_explained(method: str) -> None:
    model, images = _model(CNN), _images()
    other = explain(model, images, method, settings=QUICK[method], scorer=_reversed_scores(model))
    with torch.no_grad():
        assert torch.equal(other.targets, model(images).logits.argmin(dim=1))
    assert other.made_from["scorer"] == "reversed_scores"
    own = explain(model, images, method, other.targets, QUICK[method])
    assert not torch.allclose(other.maps, own.maps, atol=0.1)


def test_named_layers_are_read_instead_of_the_rule() -> None:
    model, images, classes = _model(CNN), _images(), torch.tensor([0, 2, 4])
    name = "branches.0.network.stages.1"
    found = explain(model, images, "grad_cam", classes, layers=[name])
    assert torch.equal(found.maps, grad_cam(model, images, classes, model.get_submodule(name)))
    assert found.made_from["layers"] == [{"name": name, "kind": "named"}]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"method": "saliency"}, "one of grad_cam, score_cam, lime"),
        ({"settings": LimeSettings()}, "takes GradCamSettings"),
        ({"target": 5}, "do not fit"),
        ({"target": torch.tensor([0, 1])}, "do not fit"),
        ({"images": torch.zeros(3, SIZE, SIZE)}, "images are"),
        ({"images": torch.zeros(0, 3, SIZE, SIZE)}, "images are"),
        ({"layers": ["branches.7"]}, "no layers .'branches.7'"),
        ({"layers": []}, "no target layer"),
        ({"scorer": lambda images: images.mean(dim=(2, 3))}, "take score_cam or lime"),
    ],
)
def test_questions_that_make_no_sense_are_refused(change: dict[str, Any], problem: str) -> None:
    asked = {"images": _images(), "method": "grad_cam", "target": 0, **change}
    with pytest.raises(ConfigError, match=problem):
        explain(_model(CNN), **asked)


def test_grad_cam_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size 0"):
        GradCamSettings(batch_size=0)
