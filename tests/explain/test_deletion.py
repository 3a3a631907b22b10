import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from dermdistill.errors import ConfigError
from dermdistill.explain.deletion import blurred, deletion_curves, importance_ranks, random_maps

SIZE = 16
IMAGES = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 1, 0])


def _spot() -> Tensor:
    spot = torch.zeros(SIZE, SIZE)
    spot[3:8, 9:13] = 1
    return spot


def _scorer(images: Tensor) -> Tensor:
    """Class 0 where the spot is bright in red, class 1 where it is dark."""
    seen = 0.1 * (images[:, 0] * _spot()).sum(dim=(1, 2))
    return torch.stack([seen, -seen], dim=1)


def _bright() -> tuple[Tensor, Tensor]:
    """Images whose spot alone speaks for class 0."""
    images = torch.full((3, 3, SIZE, SIZE), -0.1)
    images[:, 0] += _spot()
    return images, torch.zeros(3, dtype=torch.int64)


def test_curves_equal_those_made_pixel_by_pixel() -> None:
    maps = np.random.default_rng(0).random((3, SIZE, SIZE))
    curves = deletion_curves(_scorer, IMAGES, CLASSES, maps, seed=0, steps=8, batch_size=5)
    empty = blurred(IMAGES)
    for row in range(3):
        out, into = IMAGES[row].clone(), empty[row].clone()
        found = []
        order = np.argsort(-maps[row].ravel())
        for step in range(9):
            probs = [_scorer(one[None]).softmax(dim=1)[0, CLASSES[row]].item() for one in (out, into)]
            found.append(probs)
            for place in order[step * 32 : (step + 1) * 32]:
                y, x = divmod(int(place), SIZE)
                out[:, y, x], into[:, y, x] = empty[row, :, y, x], IMAGES[row, :, y, x]
        np.testing.assert_allclose(np.stack([curves.deletion[row], curves.insertion[row]], axis=1), found, atol=1e-6)
    areas = curves.areas()
    wanted = ((curves.deletion[:, 1:] + curves.deletion[:, :-1]) / 2).mean(axis=1)
    np.testing.assert_allclose(areas["deletion"], wanted)
    assert np.array_equal(curves.shares, np.arange(9) / 8)


def test_map_of_what_matters_does_better_than_random_and_its_opposite_worse() -> None:
    images, classes = _bright()
    right = np.broadcast_to(_spot().numpy(), (3, SIZE, SIZE))
    areas = [
        deletion_curves(_scorer, images, classes, maps, seed=0).areas()
        for maps in (right, random_maps(3, SIZE, SIZE, seed=0), 1 - right)
    ]
    deletion, insertion = ([float(one[name].mean()) for one in areas] for name in ("deletion", "insertion"))
    assert deletion[0] + 0.05 < deletion[1] < deletion[2] - 0.05
    assert insertion[0] - 0.05 > insertion[1] > insertion[2] + 0.05


def test_blank_map_has_no_curve_and_leaves_the_others_as_they_are() -> None:
    maps = np.random.default_rng(0).random((3, SIZE, SIZE))
    whole = deletion_curves(_scorer, IMAGES, CLASSES, maps, seed=0).areas()
    maps[1] = 0
    for name, values in deletion_curves(_scorer, IMAGES, CLASSES, maps, seed=0).areas().items():
        assert np.isnan(values).tolist() == [False, True, False]
        assert np.array_equal(values[[0, 2]], whole[name][[0, 2]])


def test_pixels_of_equal_importance_come_in_random_order() -> None:
    maps = np.zeros((4, 10, 10))
    maps[:, 2, 3], maps[:, 5:] = 2, 1
    ranks = importance_ranks(maps, seed=0)
    assert (np.sort(ranks.reshape(4, -1), axis=1) == np.arange(100)).all()
    assert (ranks[:, 2, 3] == 0).all()
    assert ranks[:, 5:].max() == 50
    # In order of place the first half of the tied pixels would lie above the second.
    assert abs(ranks[:, 5:7].mean() - ranks[:, 8:].mean()) < 12
    assert len({one.tobytes() for one in ranks}) == 4
    assert np.array_equal(importance_ranks(maps, seed=0), ranks)
    assert not np.array_equal(importance_ranks(maps, seed=1), ranks)


@pytest.mark.parametrize("spread", [0.05, 0.2])
def test_blur_equals_scipy(spread: float) -> None:
    images = torch.rand(2, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    wanted = images.numpy()
    for axis, side in ((2, 20), (3, 30)):
        reach = max(1, round(3 * (spread * side)))
        wanted = gaussian_filter1d(wanted, spread * side, axis=axis, mode="nearest", radius=reach)
    np.testing.assert_allclose(blurred(images, spread).numpy(), wanted, atol=1e-5)


def test_random_maps_are_seeded_and_coarse() -> None:
    maps = random_maps(5, 64, 64, seed=0)
    assert maps.shape == (5, 64, 64) and maps.min() >= 0 and maps.max() <= 1
    assert np.array_equal(maps, random_maps(5, 64, 64, seed=0))
    assert not np.array_equal(maps, random_maps(5, 64, 64, seed=1))
    assert np.abs(np.diff(maps, axis=2)).max() <= 1 / 8 + 1e-6


@pytest.mark.parametrize(
    ("maps", "classes", "steps"),
    [
        (np.ones((3, SIZE, SIZE + 1)), CLASSES, 4),
        (np.ones((3, SIZE, SIZE)), CLASSES[:2], 4),
        (np.ones((3, SIZE, SIZE)), CLASSES, 0),
    ],
)
def test_what_does_not_fit_the_images_is_refused(maps: np.ndarray, classes: Tensor, steps: int) -> None:
    with pytest.raises(ConfigError, match="at least one step"):
        deletion_curves(_scorer, IMAGES, classes, maps, seed=0, steps=steps)
