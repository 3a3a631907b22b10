from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from torch import Tensor

from dermdistill.errors import ConfigError
from dermdistill.explain.lime import (
    LimeSettings,
    lime,
    lime_fits,
    lime_stability,
    nearness,
    perturbed_scores,
    ridge_fit,
    shown_segments,
    slic_segments,
)

SIZE = 32
QUICK = LimeSettings(samples=200, segments=12, hidden="zero")


def _images(count: int = 2) -> Tensor:
    """Smooth pictures, so that SLIC finds segments of a usual size."""
    coarse = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic")


def _corner_brightness(images: Tensor) -> Tensor:
    """Linear in the pixels: class 0 likes the upper left quarter, class 1 the lower right one."""
    half = SIZE // 2
    absolute = images.abs().mean(dim=1)
    return torch.stack([absolute[:, :half, :half].mean(dim=(1, 2)), absolute[:, half:, half:].mean(dim=(1, 2))], dim=1)


def _entangled(images: Tensor) -> Tensor:
    """Far from linear in what is shown."""
    waves = torch.sin(images.mean(dim=1).flatten(1) @ torch.linspace(-1, 1, SIZE * SIZE)[:, None])
    return torch.cat([waves, -waves], dim=1)


FIRST = torch.tensor([0, 0])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.integers(2, 20), st.floats(1e-3, 1e3))
def test_ridge_fit_agrees_with_scikit_learn(seed: int, segments: int, ridge: float) -> None:
    rng = np.random.default_rng(seed)
    shown = rng.random((60, segments)) < 0.5
    scores, weights = rng.normal(size=60), rng.uniform(0.1, 1, 60)
    found, r2 = ridge_fit(shown, scores, weights, ridge)
    model = Ridge(alpha=ridge).fit(shown.astype(float), scores, sample_weight=weights)
    np.testing.assert_allclose(found, model.coef_, rtol=1e-6, atol=1e-9)
    assert r2 == pytest.approx(model.score(shown.astype(float), scores, sample_weight=weights), abs=1e-9)


@given(st.integers(2, 60), st.floats(0.05, 2))
def test_nearer_samples_weigh_more_and_the_whole_image_most(segments: int, width: float) -> None:
    shown = np.tril(np.ones((segments, segments), dtype=bool))  # 1, 2, ... segments shown
    found = nearness(shown, width)
    assert found[-1] == 1 and (found >= 0).all() and (np.diff(found) >= 0).all()


def test_nearness_is_the_kernel_of_the_paper_by_the_cosine_distance() -> None:
    shown = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]], dtype=bool)
    cosine = np.array([0, 1 - 2 / np.sqrt(2 * 4), 1])
    np.testing.assert_allclose(nearness(shown, 0.25), np.exp(-((cosine / 0.25) ** 2) / 2))


def test_segments_cover_the_image_and_have_no_gaps() -> None:
    found = slic_segments(_images()[0], QUICK)
    assert found.shape == (SIZE, SIZE) and 6 <= found.max() + 1 <= 24
    assert np.array_equal(np.unique(found), np.arange(found.max() + 1))
    assert np.array_equal(found, slic_segments(_images()[0] * 3 + 1, QUICK)), "units do not matter"
    flat = slic_segments(torch.ones(3, SIZE, SIZE), QUICK)
    assert flat.shape == (SIZE, SIZE)


def test_samples_begin_with_the_whole_image_and_then_show_half_of_it() -> None:
    shown = shown_segments(12, LimeSettings(samples=101))
    assert shown.shape == (101, 12) and shown[0].all()
    assert np.array_equal(shown[2:100:2], ~shown[3:101:2]), "every other sample shows what the one before it hides"
    assert 0.4 < shown[2:100:2].mean() < 0.6
    assert np.array_equal(shown, shown_segments(12, LimeSettings(samples=101)))
    assert not np.array_equal(shown, shown_segments(12, LimeSettings(samples=101, seed=1)))


@pytest.mark.parametrize("hidden", ["zero", "image_mean", "segment_mean"])
def test_hidden_segments_show_what_was_asked_for(hidden: Any) -> None:
    image, chosen = _images()[0], LimeSettings(segments=12, hidden=hidden)
    segments = slic_segments(image, chosen)
    count = segments.max() + 1
    shown = np.ones((2, count), dtype=bool)
    shown[1, 3] = False
    seen: list[Tensor] = []

    def look(images: Tensor) -> Tensor:
        seen.append(images)
        return images.mean(dim=(2, 3))

    perturbed_scores(look, image, segments, shown, chosen)
    whole, part = seen[0]
    inside = torch.from_numpy(segments == 3)
    assert torch.equal(whole, image) and torch.equal(part[:, ~inside], image[:, ~inside])
    wanted = {
        "zero": torch.zeros(3),
        "image_mean": image.mean(dim=(1, 2)),
        "segment_mean": image[:, inside].mean(dim=1),
    }[hidden]
    torch.testing.assert_close(part[:, inside], wanted[:, None].expand(-1, int(inside.sum())))


def test_linear_scorer_is_explained_exactly() -> None:
    images = _images()
    fits = lime_fits(_corner_brightness, images, FIRST, replace(QUICK, ridge=1e-6))
    half = SIZE // 2
    for image, fit in zip(images, fits, strict=True):
        share = torch.zeros(SIZE, SIZE)
        share[:half, :half] = image.abs().mean(dim=0)[:half, :half] / half**2
        wanted = np.bincount(fit.segments.ravel(), share.numpy().ravel())
        np.testing.assert_allclose(fit.weights, wanted, atol=1e-5)
        assert fit.r2 == pytest.approx(1)


def test_map_shows_what_raises_the_target_alone() -> None:
    images = _images()
    first, second = lime(_corner_brightness, images, FIRST, QUICK), lime(_corner_brightness, images, FIRST + 1, QUICK)
    assert first.shape == (2, SIZE, SIZE) and first.dtype == torch.float32
    assert first.amax(dim=(1, 2)).tolist() == [1, 1] and float(first.min()) == 0
    upper_left = [float(maps[:, :8, :8].mean()) for maps in (first, second)]
    lower_right = [float(maps[:, -8:, -8:].mean()) for maps in (first, second)]
    assert min(upper_left[0], lower_right[1]) > 0.5
    assert max(upper_left[1], lower_right[0]) < 0.1


def test_seed_gives_the_same_map_alone_and_in_a_batch() -> None:
    images = _images()
    together = lime(_entangled, images, FIRST, QUICK)
    assert torch.equal(together, lime(_entangled, images, FIRST, QUICK))
    assert torch.equal(together[1:], lime(_entangled, images[1:], FIRST[1:], QUICK))
    small = replace(QUICK, batch_size=7)
    torch.testing.assert_close(lime(_entangled, images, FIRST, small), together, atol=1e-4, rtol=1e-4)
    assert not torch.equal(together, lime(_entangled, images, FIRST, replace(QUICK, seed=1)))


def test_fit_and_stability_tell_a_linear_scorer_from_an_entangled_one() -> None:
    images = _images()
    plain, hard = (lime_fits(scorer, images, FIRST, QUICK) for scorer in (_corner_brightness, _entangled))
    assert min(fit.r2 for fit in plain) > 0.98
    assert max(fit.r2 for fit in hard) < 0.7
    few = replace(QUICK, samples=100, ridge=1e-3)
    steady, shaky = (lime_stability(scorer, images, FIRST, few, top=3) for scorer in (_corner_brightness, _entangled))
    assert steady.shape == (2,)
    assert steady.mean() > 0.9
    assert shaky.mean() < 0.6


def test_stability_is_the_share_of_common_top_segments_over_all_pairs() -> None:
    images, seeds = _images(), (0, 1, 5)
    few = LimeSettings(samples=40, segments=30)
    tops = [
        [set(np.argsort(-fit.weights)[:5]) for fit in lime_fits(_entangled, images, FIRST, few_seeded)]
        for few_seeded in (LimeSettings(samples=40, segments=30, seed=seed) for seed in seeds)
    ]
    pairs = [(0, 1), (0, 2), (1, 2)]
    wanted = [np.mean([len(tops[a][image] & tops[b][image]) / 5 for a, b in pairs]) for image in range(2)]
    found = lime_stability(_entangled, images, FIRST, few, seeds=seeds)
    assert found.tolist() == pytest.approx(wanted)
    assert 0 < found.mean() < 1


def test_scorer_that_never_varies_gives_a_blank_map_and_no_r2() -> None:
    images = _images()
    (fit, _) = lime_fits(lambda x: x.new_ones(len(x), 2), images, FIRST, QUICK)
    assert np.isnan(fit.r2)
    assert not lime(lambda x: x.new_ones(len(x), 2), images, FIRST, QUICK).any()


@pytest.mark.parametrize(
    "wrong",
    [{"samples": 1}, {"segments": 1}, {"batch_size": 0}, {"kernel_width": 0.0}, {"ridge": -1.0}, {"hidden": "noise"}],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="LIME with"):
        LimeSettings(**wrong)


def test_questions_that_make_no_sense_are_refused() -> None:
    images = _images()
    with pytest.raises(ConfigError, match="do not fit"):
        lime(_corner_brightness, images, torch.tensor([0, 2]), QUICK)
    with pytest.raises(ConfigError, match="not finite"):
        lime(lambda x: x.new_full((len(x), 2), torch.nan), images, FIRST, QUICK)
    for seeds in ((0,), (1, 1)):
        with pytest.raises(ConfigError, match="at least two"):
            lime_stability(_corner_brightness, images, FIRST, QUICK, seeds=seeds)
