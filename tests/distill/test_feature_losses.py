"""Feature losses against published values, against naive loops, and where images coincide."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dermdistill.distill.feature_losses import (
    attention_map,
    attention_transfer,
    feature_matching,
    relational_angle,
    relational_distance,
)

RELATIONAL = [relational_distance, relational_angle]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(__file__).with_name("kd_golden.json").read_text())["attention_transfer"]
    return content


@pytest.fixture
def published_features() -> tuple[torch.Tensor, torch.Tensor]:
    """The features of the file's ``about``, [2, 2, 2, 2], of student and teacher."""
    student = torch.arange(16, dtype=torch.float64).reshape(2, 2, 2, 2) / 10
    return student, student.flip(-1)


def random_features(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def huber(difference: float) -> float:
    return difference**2 / 2 if abs(difference) <= 1 else abs(difference) - 0.5


def test_attention_transfer_has_the_published_value(
    golden: dict[str, Any], published_features: tuple[torch.Tensor, torch.Tensor]
) -> None:
    value = attention_transfer(*(attention_map(features) for features in published_features))
    assert value.item() == pytest.approx(golden["AT"], rel=0, abs=1e-9)


def test_feature_matching_has_the_published_value(
    golden: dict[str, Any], published_features: tuple[torch.Tensor, torch.Tensor]
) -> None:
    # every row has the same spread, so that standardising both sides only scales the plain squared difference
    student, teacher = (features.flatten(1) for features in published_features)
    spread = teacher.var(dim=1, unbiased=False, keepdim=True) + 1e-5
    assert spread[0].item() == pytest.approx(spread[1].item())
    projected = (student - teacher.mean(dim=1, keepdim=True)) / spread.sqrt()
    value = feature_matching(projected, teacher) * spread[0, 0]
    assert value.item() == pytest.approx(golden["MSE"], rel=0, abs=1e-9)


def test_feature_matching_ignores_the_teachers_scale_and_offset() -> None:
    student, teacher = random_features(4, 16), random_features(4, 16, seed=1)
    value = feature_matching(student, teacher)
    assert feature_matching(student, 50 * teacher + 7).item() == pytest.approx(value.item(), rel=1e-4)


def test_feature_matching_is_zero_at_the_standardised_teacher() -> None:
    teacher = 3 * random_features(4, 16)
    wanted = (teacher - teacher.mean(1, keepdim=True)) / (teacher.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    assert feature_matching(wanted, teacher).item() == pytest.approx(0, abs=1e-12)


def test_attention_map_is_the_mean_square_over_channels() -> None:
    features = random_features(2, 3, 4, 5)
    maps = attention_map(features)
    assert maps.shape == (2, 4, 5)
    assert maps[1, 2, 3].item() == pytest.approx(sum(features[1, c, 2, 3].item() ** 2 for c in range(3)) / 3)


def test_attention_map_of_half_precision_does_not_overflow() -> None:
    features = torch.full((1, 2, 1, 1), 1000.0, dtype=torch.float16)
    assert attention_map(features).item() == 1e6


@settings(deadline=None, max_examples=20)
@given(scale=st.floats(1e-3, 1e3))
def test_attention_transfer_ignores_scale(scale: float) -> None:
    student, teacher = random_features(3, 4, 4).square(), random_features(3, 4, 4, seed=1).square()
    value = attention_transfer(scale * student, teacher).item()
    assert value == pytest.approx(attention_transfer(student, teacher).item(), rel=1e-9)


@pytest.mark.parametrize("larger", ["student", "teacher"])
def test_attention_maps_of_different_sizes_are_pooled_to_the_smaller(larger: str) -> None:
    big, small = random_features(2, 4, 6).square(), random_features(2, 2, 3, seed=1).square()
    pooled = torch.stack(
        [big[:, 2 * row : 2 * row + 2, 2 * col : 2 * col + 2].mean(dim=(1, 2)) for row in range(2) for col in range(3)],
        dim=1,
    ).reshape(2, 2, 3)
    wanted = attention_transfer(pooled, small).item()
    value = attention_transfer(big, small) if larger == "student" else attention_transfer(small, big)
    assert value.item() == pytest.approx(wanted, rel=1e-12) and wanted > 0


def test_attention_maps_that_are_each_larger_on_one_side_meet_at_the_smaller_of_both() -> None:
    student, teacher = torch.ones(2, 4, 2), torch.ones(2, 2, 4)
    assert attention_transfer(student, teacher).item() == 0


def test_attention_of_a_dead_map_is_finite_and_without_gradient() -> None:
    features = torch.zeros(2, 3, 2, 2)
    features[1] = 1 + torch.arange(12.0).reshape(3, 2, 2)
    features.requires_grad_()
    maps = attention_map(features)
    # a caller that divides by a mean of 0 multiplies the gradient by the largest number there is
    scaled = maps / maps.mean(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    value = attention_transfer(scaled, torch.rand(2, 2, 2, generator=torch.Generator().manual_seed(0)))
    (gradient,) = torch.autograd.grad(value, features)
    assert torch.isfinite(value) and torch.isfinite(gradient).all()
    assert (gradient[0] == 0).all() and gradient[1].abs().max() > 0


def test_relational_distance_equals_a_naive_loop() -> None:
    student, teacher = random_features(5, 3), random_features(5, 7, seed=1)
    own, wanted = (
        [math.dist(rows[i].tolist(), rows[j].tolist()) for i in range(5) for j in range(5) if i != j]
        for rows in (student, teacher)
    )
    own_mean, wanted_mean = sum(own) / 20, sum(wanted) / 20
    oracle = sum(huber(a / own_mean - b / wanted_mean) for a, b in zip(own, wanted, strict=True)) / 20
    assert relational_distance(student, teacher).item() == pytest.approx(oracle, abs=1e-12)


def cosine_at(rows: torch.Tensor, i: int, j: int, k: int) -> float:
    first, second = (rows[i] - rows[j]).tolist(), (rows[k] - rows[j]).tolist()
    return sum(a * b for a, b in zip(first, second, strict=True)) / (math.hypot(*first) * math.hypot(*second))


def test_relational_angle_equals_a_naive_triple_loop() -> None:
    student, teacher = random_features(5, 3), random_features(5, 7, seed=1)
    differences = [
        cosine_at(student, i, j, k) - cosine_at(teacher, i, j, k)
        for i in range(5)
        for j in range(5)
        for k in range(5)
        if len({i, j, k}) == 3
    ]
    assert max(map(abs, differences)) > 1, "the linear part of the Huber loss is not reached"
    oracle = sum(map(huber, differences)) / 60
    assert relational_angle(student, teacher).item() == pytest.approx(oracle, abs=1e-12)


@pytest.mark.parametrize("loss", RELATIONAL)
def test_relations_ignore_rotation_scale_and_offset(loss: Loss) -> None:
    features = random_features(6, 4)
    rotation = torch.linalg.qr(random_features(4, 4, seed=2)).Q
    assert loss(3 * features @ rotation + 5, features).item() == pytest.approx(0, abs=1e-12)
    assert loss(random_features(6, 4, seed=1), features).item() > 1e-3


@pytest.mark.parametrize("loss", [*RELATIONAL, feature_matching])
def test_gradient_is_the_slope_and_none_goes_to_the_teacher(loss: Loss) -> None:
    student, teacher = random_features(4, 3).requires_grad_(), random_features(4, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda features: loss(features, teacher.detach()), student)
    loss(student, teacher).backward()
    assert student.grad is not None and teacher.grad is None


def test_gradient_of_attention_transfer_is_the_slope_and_none_goes_to_the_teacher() -> None:
    student, teacher = random_features(2, 3, 4, 4).requires_grad_(), random_features(2, 3, 2, 2, seed=1)
    assert torch.autograd.gradcheck(
        lambda maps: attention_transfer(attention_map(maps), attention_map(teacher)), student
    )
    teacher.requires_grad_()
    attention_transfer(attention_map(student), attention_map(teacher)).backward()
    assert student.grad is not None and teacher.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("loss", RELATIONAL)
def test_gradients_are_stable_where_images_coincide(loss: Loss, dtype: torch.dtype) -> None:
    rows = random_features(6, 8)
    rows[3] = rows[0]
    student = rows.to(dtype).requires_grad_()
    teacher = random_features(6, 5, seed=1).to(dtype)
    teacher[5] = teacher[1]
    value = loss(student, teacher)
    (gradient,) = torch.autograd.grad(value, student)
    assert torch.isfinite(value) and torch.isfinite(gradient).all()
    assert 0 < gradient.abs().max() < 1


@pytest.mark.parametrize("loss", RELATIONAL)
def test_relations_of_equal_images_are_finite(loss: Loss) -> None:
    student = torch.ones(4, 3, requires_grad=True)
    value = loss(student, random_features(4, 3).float())
    (gradient,) = torch.autograd.grad(value, student)
    assert torch.isfinite(value) and (gradient == 0).all()


@pytest.mark.parametrize("loss", RELATIONAL)
def test_two_images_have_one_distance_and_no_angle(loss: Loss) -> None:
    student = random_features(2, 3).requires_grad_()
    value = loss(student, random_features(2, 4, seed=1))
    (gradient,) = torch.autograd.grad(value, student)
    assert value.item() == 0 and torch.isfinite(gradient).all()


@pytest.mark.parametrize("loss", RELATIONAL)
def test_relations_of_one_image_are_refused(loss: Loss) -> None:
    with pytest.raises(ValueError, match="batch of one image"):
        loss(random_features(1, 3), random_features(1, 3, seed=1))


@pytest.mark.parametrize("loss", [*RELATIONAL, feature_matching])
def test_half_precision_is_widened_before_anything_is_computed(loss: Loss) -> None:
    student, teacher = random_features(5, 4).bfloat16(), random_features(5, 4, seed=1).half()
    value = loss(student, teacher)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(student.float(), teacher.float()).item(), rel=1e-6)
