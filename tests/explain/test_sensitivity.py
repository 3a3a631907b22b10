import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dermdistill.errors import ConfigError
from dermdistill.explain.explainer import maps_of
from dermdistill.explain.gradcam import grad_cam
from dermdistill.explain.sensitivity import max_sensitivity, noise

IMAGES = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 1, 2, 1, 0])


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    )


def _cam(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    assert isinstance(model, nn.Sequential)
    return grad_cam(model, images, classes, model[1])


def test_sensitivity_equals_captum_on_the_same_noise() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from captum.metrics import sensitivity_max
    model, draws, radius = _model(), 4, 0.3
    found = max_sensitivity(_cam, model, IMAGES, CLASSES, seed=7, radius=radius, draws=draws)
    noises = [noise(IMAGES, radius, seed=7, draw=draw) for draw in range(draws)]

    def perturb(inputs: Tensor, _radius: float) -> Tensor:
        """Captum asks for all noises of the first image, then of the second, and so on."""
        assert len(inputs) == draws * len(IMAGES)
        return inputs + torch.stack(noises, dim=1).flatten(0, 1)

    def explain(inputs: Tensor | tuple[Tensor, ...], classes: Tensor) -> tuple[Tensor]:
        """Captum gives a tuple of the plain images, then the noisy ones, and never repeats other arguments."""
        images = inputs if isinstance(inputs, Tensor) else inputs[0]
        return (_cam(model, images, classes.repeat_interleave(len(images) // len(classes))),)

    wanted = sensitivity_max(
        explain, IMAGES, perturb_func=perturb, perturb_radius=radius, n_perturb_samples=draws, classes=CLASSES
    )
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-5)
    assert found.min() > 0


def test_map_that_does_not_depend_on_the_image_has_no_sensitivity() -> None:
    def same(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        return torch.full((len(images), 16, 16), 0.5)

    assert max_sensitivity(same, _model(), IMAGES, CLASSES, seed=0, draws=2).tolist() == [0.0] * 5


def test_sensitivity_grows_with_the_radius_and_with_draws_and_not_with_the_batch() -> None:
    model = _model()
    small, large = (max_sensitivity(_cam, model, IMAGES, CLASSES, seed=0, radius=r, draws=3) for r in (0.01, 0.5))
    assert (small < large).all()
    more = max_sensitivity(_cam, model, IMAGES, CLASSES, seed=0, radius=0.5, draws=6)
    assert (more >= large).all() and (more > large).any()
    maps = maps_of(_cam, model, IMAGES, CLASSES)
    batched = max_sensitivity(_cam, model, IMAGES, CLASSES, seed=0, radius=0.5, draws=3, batch_size=2, maps=maps)
    np.testing.assert_allclose(batched, large, rtol=1e-5)


def test_sensitivity_of_a_blank_map_is_not_defined() -> None:
    def some(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        return (images[:, 0].sigmoid() * (classes != 1)[:, None, None]).float()

    found = max_sensitivity(some, _model(), IMAGES, CLASSES, seed=0, draws=1)
    assert np.isnan(found).tolist() == [False, True, False, True, False]


def test_noise_fills_its_ball_and_differs_between_images_and_draws() -> None:
    first, second = (noise(IMAGES, 0.1, seed=0, draw=draw) for draw in (0, 1))
    assert first.shape == IMAGES.shape
    assert 0.099 < float(first.abs().max()) <= 0.1
    assert not torch.equal(first, second) and not torch.equal(first[0], first[1])
    assert torch.equal(noise(IMAGES[:2], 0.1, seed=0, draw=0), first[:2])


@pytest.mark.parametrize(("draws", "radius"), [(0, 0.1), (1, 0.0), (1, float("nan"))])
def test_no_noise_is_refused(draws: int, radius: float) -> None:
    with pytest.raises(ConfigError, match="draws of noise"):
        max_sensitivity(_cam, _model(), IMAGES, CLASSES, seed=0, draws=draws, radius=radius)
