import math

import numpy as np
import pytest
from scipy import ndimage

from dermdistill.data.synthetic_texture import branching_lines, dots, fractal_noise, honeycomb, smooth_noise


def axes(side: int, reach: float) -> tuple[np.ndarray, np.ndarray]:
    line = np.linspace(-reach, reach, side, dtype=np.float32)
    u, v = np.meshgrid(line, line)
    return u, v


@pytest.mark.parametrize("spacing", [0.15, 0.3])
def test_honeycomb_without_disorder_has_one_hole_per_hexagon(spacing: float) -> None:
    u, v = axes(400, 1.5)
    lines = honeycomb(np.random.default_rng(1), u, v, spacing, disorder=0)
    _, holes = ndimage.label(lines < 0.3)
    expected = 3.0**2 / (spacing**2 * math.sqrt(3) / 2)
    # Holes cut by the border count whole, hence the margin of about half a row all round.
    assert expected * 0.95 < holes < expected * (1 + 2.2 * spacing / 1.5)
    assert 0 <= lines.min() <= lines.max() <= 1


def test_honeycomb_with_disorder_is_less_regular() -> None:
    u, v = axes(200, 1.5)

    def spread(disorder: float) -> float:
        lines = honeycomb(np.random.default_rng(3), u, v, 0.3, disorder)
        # A mild fade breaks no line here, so this sees the displacement of the lines alone.
        labels, holes = ndimage.label(lines == 0)
        areas = np.bincount(labels.ravel(), minlength=holes + 1)[1:]
        return float(areas.std() / areas.mean())

    assert spread(0.3) > 1.2 * spread(0.0)


def test_noise_has_mean_near_zero_and_deviation_near_one() -> None:
    rng = np.random.default_rng(0)
    for noise in (smooth_noise(rng, (240, 320), 30), fractal_noise(rng, (240, 320), 15)):
        assert noise.shape == (240, 320)
        assert noise.dtype == np.float32
        assert abs(noise.mean()) < 0.15
        assert 0.75 < noise.std() < 1.25


def test_noise_keeps_its_form_at_another_resolution() -> None:
    coarse = smooth_noise(np.random.default_rng(4), (60, 80), 6)
    fine = smooth_noise(np.random.default_rng(4), (120, 160), 6)
    halved = fine.reshape(60, 2, 80, 2).mean(axis=(1, 3))
    assert np.corrcoef(coarse.ravel(), halved.ravel())[0, 1] > 0.99


def test_dots_cover_the_area_of_their_discs() -> None:
    drawn = dots((100, 100), np.array([[30.0, 30.0], [70.0, 60.0]]), np.array([[10.0, 10.0], [15.0, 6.0]]))
    assert drawn.sum() == pytest.approx(math.pi * (100 + 90), rel=0.08)
    assert drawn[60, 70] == 1
    assert drawn[5, 5] == 0


def test_branches_start_on_the_stem_and_are_thinner() -> None:
    stem, *branches = branching_lines(np.random.default_rng(2), np.zeros(2), 0.0, 1.0, depth=1)
    assert len(branches) in (2, 3)
    for points, width in branches:
        assert width < stem[1]
        assert np.abs(stem[0] - points[0]).sum(axis=1).min() == 0
