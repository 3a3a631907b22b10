"""Losses against published values, against torch and scikit-learn, and in extreme cases."""

import json
import math
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss
from torch.nn import functional

from dermdistill.distill.losses import (
    cross_entropy,
    distillation_kl,
    feature_matching,
    focal_loss,
    label_targets,
    logit_adjusted_cross_entropy,
    mixed_targets,
)

GOLDEN = Path(__file__).with_name("kd_golden.json")


@pytest.fixture(scope="module")
def golden() -> dict:
    return json.loads(GOLDEN.read_text())


def random_logits(*shape: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [1, 4])
def test_distillation_kl_has_the_published_values(golden: dict, temperature: int) -> None:
    student, teacher = (torch.tensor(golden[name], dtype=torch.float64) for name in ("zs", "zt"))
    value = distillation_kl(student, teacher, temperature=temperature)
    assert value.item() == pytest.approx(golden[f"T{temperature}"]["KD"], abs=1e-9)


def test_distillation_kl_of_equal_logits_is_zero() -> None:
    logits = random_logits(5, 7)
    assert distillation_kl(logits, logits + 4.0, temperature=3.0).item() == pytest.approx(0, abs=1e-12)


def test_distillation_kl_gives_the_teacher_no_gradient() -> None:
    student, teacher = random_logits(4, 3).requires_grad_(), random_logits(4, 3, seed=1).requires_grad_()
    distillation_kl(student, teacher, temperature=2.0).backward()
    assert student.grad is not None and teacher.grad is None


def test_distillation_kl_keeps_its_gradient_scale_over_temperatures() -> None:
    # T^2 KL tends to the same quadratic form as T grows (Hinton et al. 2015, equation 4)
    student, teacher = random_logits(6, 5), random_logits(6, 5, seed=1)
    centred = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    limit = centred.square().mean(dim=1).mean() / 2
    assert distillation_kl(student, teacher, temperature=1e4).item() == pytest.approx(limit.item(), rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gap", [300.0, -300.0])
def test_losses_stay_finite_at_large_gaps(dtype: torch.dtype, gap: float) -> None:
    student = torch.tensor([[gap, 0.0, 0.0], [0.0, gap, 0.0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[0.0, gap, 0.0], [gap, 0.0, 0.0]], dtype=dtype)
    targets = label_targets(torch.tensor([0, 2]), 3).to(dtype)
    for value in (
        distillation_kl(student, teacher, temperature=1.0),
        cross_entropy(student, targets),
        focal_loss(student, targets, gamma=2.0),
        focal_loss(student, targets, gamma=0.5),
    ):
        (gradient,) = torch.autograd.grad(value, student, retain_graph=True)
        assert torch.isfinite(value) and torch.isfinite(gradient).all()


def test_cross_entropy_equals_torch_and_scikit_learn() -> None:
    logits, labels = random_logits(20, 4), torch.arange(20) % 4
    value = cross_entropy(logits, label_targets(labels, 4).double())
    assert value.item() == pytest.approx(functional.cross_entropy(logits, labels).item(), abs=1e-12)
    oracle = log_loss(labels.numpy(), logits.softmax(1).numpy(), labels=range(4))
    assert value.item() == pytest.approx(oracle, abs=1e-9)


def test_cross_entropy_with_class_weights_divides_by_the_batch() -> None:
    logits, labels, weights = random_logits(9, 3), torch.arange(9) % 3, torch.tensor([0.5, 1.0, 4.0]).double()
    value = cross_entropy(logits, label_targets(labels, 3).double(), class_weights=weights)
    oracle = functional.cross_entropy(logits, labels, weight=weights, reduction="sum") / 9
    assert value.item() == pytest.approx(oracle.item(), abs=1e-12)


def test_label_smoothing_equals_torch() -> None:
    logits, labels = random_logits(9, 3), torch.arange(9) % 3
    value = cross_entropy(logits, label_targets(labels, 3, smoothing=0.2).double())
    oracle = functional.cross_entropy(logits, labels, label_smoothing=0.2)
    assert value.item() == pytest.approx(oracle.item(), abs=1e-6)


def test_focal_loss_at_gamma_zero_is_cross_entropy() -> None:
    logits, targets = random_logits(8, 3), label_targets(torch.arange(8) % 3, 3).double()
    assert focal_loss(logits, targets, gamma=0.0).item() == pytest.approx(cross_entropy(logits, targets).item())


def test_focal_loss_of_two_classes_equals_the_sigmoid_form() -> None:
    torchvision_ops = pytest.importorskip("torchvision.ops")
    logits, labels = random_logits(12, 2), torch.arange(12) % 2
    alpha = torch.tensor([0.25, 0.75]).double()
    value = focal_loss(logits, label_targets(labels, 2).double(), gamma=2.0, alpha=alpha)
    oracle = torchvision_ops.sigmoid_focal_loss(
        logits[:, 1] - logits[:, 0], labels.double(), alpha=0.75, gamma=2.0, reduction="mean"
    )
    assert value.item() == pytest.approx(oracle.item(), abs=1e-9)


def test_logit_adjustment_with_equal_priors_changes_nothing() -> None:
    logits, targets = random_logits(8, 4), label_targets(torch.arange(8) % 4, 4).double()
    priors = torch.full((4,), 0.25, dtype=torch.float64).log()
    value = logit_adjusted_cross_entropy(logits, targets, log_priors=priors, tau=1.0)
    assert value.item() == pytest.approx(cross_entropy(logits, targets).item(), abs=1e-12)


def test_logit_adjustment_is_the_balanced_softmax_at_tau_one() -> None:
    logits, labels = random_logits(8, 3), torch.arange(8) % 3
    counts = torch.tensor([70.0, 20.0, 10.0]).double()
    weighted = counts * logits.exp()
    oracle = -(weighted / weighted.sum(1, keepdim=True)).log()[torch.arange(8), labels].mean()
    priors = (counts / counts.sum()).log()
    value = logit_adjusted_cross_entropy(logits, label_targets(labels, 3).double(), log_priors=priors, tau=1.0)
    assert value.item() == pytest.approx(oracle.item(), abs=1e-12)


def test_feature_matching_ignores_the_teachers_scale_and_offset() -> None:
    student, teacher = random_logits(4, 16), random_logits(4, 16, seed=1)
    value = feature_matching(student, teacher)
    assert feature_matching(student, 50 * teacher + 7).item() == pytest.approx(value.item(), rel=1e-4)


def test_feature_matching_is_zero_at_the_standardised_teacher() -> None:
    teacher = random_logits(4, 16)
    wanted = (teacher - teacher.mean(1, keepdim=True)) / (teacher.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    assert feature_matching(wanted, teacher).item() == pytest.approx(0, abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(share=st.floats(0, 1), smoothing=st.floats(0, 0.9), classes=st.integers(2, 9))
def test_targets_are_distributions(share: float, smoothing: float, classes: int) -> None:
    own = label_targets(torch.tensor([0, 1]), classes, smoothing=smoothing)
    mixed = mixed_targets(own, own.flip(0), torch.tensor([share, 1.0], dtype=torch.float32))
    assert torch.all(mixed >= 0)
    assert mixed.sum(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert math.isclose(float(mixed[1, 1]), float(own[1, 1]))


def test_golden_values_are_the_published_file() -> None:
    folder = Path(os.environ.get("DERMDISTILL_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
    original = folder / "kd_losses.json"
    if not original.is_file():
        pytest.skip(f"REFERENCE VALUES MISSING: {original}")
    assert json.loads(original.read_text()) == json.loads(GOLDEN.read_text())
