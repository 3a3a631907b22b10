"""Statistics of pictures against SciPy and plain loops, and what must not change them."""

import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from dermdistill.bundle import image_statistics
from dermdistill.bundle.image_statistics import NAMES, TINY, column, statistics
from dermdistill.errors import DataError


def pictures(count: int, size: int = 48, seed: int = 0) -> np.ndarray:
    """Blotches and grain, clipped in places."""
    rng = np.random.default_rng(seed)
    coarse = ndimage.gaussian_filter(rng.normal(0, 1, (count, size, size, 3)), (0, 4, 4, 0))
    values = 140 + 700 * coarse * rng.uniform(0.2, 1, (count, 1, 1, 1)) + rng.normal(0, 5, (count, size, size, 3))
    return values.clip(0, 255).astype(np.uint8)


def halved(plane: np.ndarray) -> np.ndarray:
    side = plane.shape[0] // 2
    return np.array([[plane[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean() for j in range(side)] for i in range(side)])


def steps(plane: np.ndarray) -> float:
    return float(np.mean((plane[1:] - plane[:-1]) ** 2) + np.mean((plane[:, 1:] - plane[:, :-1]) ** 2))


def oracle(image: np.ndarray) -> dict[str, float]:
    """One picture, one statistic after the other, in float64."""
    red, green, blue = (image[:, :, channel] / 255 for channel in range(3))
    planes = [(red + green + blue) / 3, red - green, (red + green) / 2 - blue]
    half = [halved(plane) for plane in planes]
    quarter = [halved(plane) for plane in half]
    size = len(quarter[0])
    y, x = np.mgrid[:size, :size]
    across, up = np.abs((x + 0.5) / size - 0.5), np.abs((y + 0.5) / size - 0.5)
    middle, border = np.hypot(across, up) < 0.25, np.maximum(across, up) > min(0.4, 0.5 - 1 / size)
    found = dict(zip(("luminance", "red_green", "yellow_blue"), (plane.mean() for plane in quarter), strict=True))
    for name, plane in zip(("luminance", "red_green", "yellow_blue"), quarter, strict=True):
        found[f"log_{name}_spread"] = np.log(plane.var() + TINY)
        found[f"middle_{name}"] = plane[middle].mean() - plane[border].mean()
    for name, i, j in (
        ("luminance_red_green", 0, 1), ("luminance_yellow_blue", 0, 2), ("red_green_yellow_blue", 1, 2),
    ):  # fmt: skip
        found[name] = np.arctanh(0.995 * stats.pearsonr(quarter[i].ravel(), quarter[j].ravel())[0])
    for name, share in (("luminance_p05", 5), ("luminance_p50", 50), ("luminance_p95", 95)):
        found[name] = np.percentile(half[0], share)
    cut = size // 2
    quarters = [
        part.mean() for rows in (quarter[0][:cut], quarter[0][-cut:]) for part in (rows[:, :cut], rows[:, -cut:])
    ]
    found["log_uneven_luminance"] = np.log(np.var(quarters) + TINY)
    for name, plane in (("log_gradient", planes), ("log_gradient_half", half), ("log_gradient_quarter", quarter)):
        found[name] = np.log(steps(plane[0]) + TINY)
    found["log_colour_grain"] = np.log(steps(half[1]) + steps(half[2]) + TINY)
    found["log_sharpness"] = np.log(ndimage.laplace(planes[0])[1:-1, 1:-1].var() + TINY)
    dx = ndimage.correlate1d(half[0], [-1, 0, 1], axis=1)[1:-1, 1:-1]
    dy = ndimage.correlate1d(half[0], [-1, 0, 1], axis=0)[1:-1, 1:-1]
    tensor = np.array([[np.mean(dx * dx), np.mean(dx * dy)], [np.mean(dx * dy), np.mean(dy * dy)]])
    small, large = np.linalg.eigvalsh(tensor)
    found["log_direction"] = np.log((large - small) / (large + small) + 0.01)
    angle, length = np.arctan2(dy, dx), np.hypot(dx, dy)
    found["log_axes"] = np.log(np.sum(length**4 * np.cos(2 * angle) ** 2) / np.sum(length**4 * np.sin(2 * angle) ** 2))
    found["log_tails"] = np.log(np.mean(length**4) / np.mean(length**2) ** 2 + 1)
    bins, _ = np.histogram(np.floor(half[0] * 255 + 0.5), bins=64, range=(0, 256))
    found["luminance_entropy"] = stats.entropy(bins)
    r, g, b = (halved(channel) for channel in (red, green, blue))
    most, least = np.maximum(np.maximum(r, g), b), np.minimum(np.minimum(r, g), b)
    levels = np.floor(half[0] * 255 + 0.5) / 255
    for name, mask in (
        ("log_dark_share", levels < 0.08),
        ("log_bright_share", levels > 0.95),
        ("log_saturated_share", most - least > 0.65 * most),
        ("log_not_skin_share", (r <= b) | (r <= g - 0.02)),
    ):
        found[name] = np.log(mask.mean() + 1e-3)
    return found


def test_every_statistic_equals_its_definition():
    images = pictures(6)
    images[0, :20, :20], images[0, 20:30, :20], images[0, 30:, :9] = 2, 253, (250, 20, 30)
    found = statistics(images)
    for place, image in enumerate(images):
        wanted = oracle(image)
        assert set(wanted) == set(NAMES)
        for name in NAMES:
            # Percentiles are read from 256 levels; shares may differ by a cell whose value lies on the limit.
            tolerance = 3 / 255 if name.startswith("luminance_p") else 5e-3
            assert column(found, name)[place] == pytest.approx(wanted[name], abs=tolerance), name


def test_a_picture_has_the_same_statistics_alone_and_in_a_batch(monkeypatch: pytest.MonkeyPatch):
    images = pictures(7, size=33)
    together = statistics(images)
    monkeypatch.setattr(image_statistics, "BLOCK_PIXELS", 2 * 33 * 33)
    np.testing.assert_allclose(statistics(images), together, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(statistics(images[3:4])[0], together[3], rtol=1e-5, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), turns=st.integers(0, 3), flip=st.booleans())
def test_turning_and_mirroring_change_nothing(seed: int, turns: int, flip: bool):
    images = pictures(2, size=32, seed=seed)
    turned = np.rot90(images[:, :, ::-1] if flip else images, turns, axes=(1, 2))
    np.testing.assert_allclose(statistics(turned), statistics(images), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("size", [16, 17, 31, 256])
@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_flat_pictures_of_any_size_are_finite(size: int, value: int):
    found = statistics(np.full((1, size, size, 3), value, dtype=np.uint8))
    assert found.shape == (1, len(NAMES))
    assert np.isfinite(found).all()


def test_blur_lowers_sharpness_and_noise_raises_it():
    images = pictures(5)
    blurred = ndimage.gaussian_filter(images.astype(float), (0, 2, 2, 0)).astype(np.uint8)
    noise = np.random.default_rng(0).normal(0, 25, images.shape)
    noisy = (images + noise).clip(0, 255).astype(np.uint8)
    plain, soft, rough = (column(statistics(x), "log_sharpness") for x in (images, blurred, noisy))
    assert (soft < plain).all() and (plain < rough).all()


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 32, 32, 3)),
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((2, 32, 30, 3), np.uint8),
        np.zeros((2, 32, 32, 1), np.uint8),
        np.zeros((2, 15, 15, 3), np.uint8),
    ],
)
def test_what_is_no_batch_of_pictures_is_refused(images: np.ndarray):
    with pytest.raises(DataError):
        statistics(images)


def test_no_pictures_give_no_rows():
    assert statistics(np.zeros((0, 32, 32, 3), np.uint8)).shape == (0, len(NAMES))


def test_statistics_take_less_than_a_prediction():
    images = pictures(16, size=160)
    best = min(_seconds(images) for _ in range(5)) / len(images)
    # Processor time, about 0.6 ms; the margin is for a slower machine that is busy too.
    assert best < 5e-3


def _seconds(images: np.ndarray) -> float:
    start = time.process_time()
    statistics(images)
    return time.process_time() - start


def test_the_gate_needs_numpy_alone():
    code = (
        "import sys, dermdistill.bundle.image_gate; "
        "print(sorted({'torch', 'scipy', 'pandas', 'sklearn', 'matplotlib', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
