"""Classification losses against torch and scikit-learn, and in extreme cases."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss
from torch.nn import functional

from dermdistill.distill.losses import (
    at_least_float32,
    cross_entropy,
    focal_loss,
    label_targets,
    logit_adjusted_cross_entropy,
    mixed_targets,
)


def random_logits(*shape: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gap", [300.0, -300.0])
def test_losses_stay_finite_at_large_gaps(dtype: torch.dtype, gap: float) -> None:
    student = torch.tensor([[gap, 0.0, 0.0], [0.0, gap, 0.0]], dtype=dtype, requires_grad=True)
    targets = label_targets(torch.tensor([0, 2]), 3).to(dtype)
    log_priors = torch.tensor([0.9899, 0.01, 0.0001]).log()
    for value in (
        cross_entropy(student, targets),
        logit_adjusted_cross_entropy(student, targets, log_priors=log_priors, tau=1.0),
        logit_adjusted_cross_entropy(student, targets, log_priors=log_priors.to(dtype), tau=2.0),
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


@settings(deadline=None, max_examples=30)
@given(share=st.floats(0, 1), smoothing=st.floats(0, 0.9), classes=st.integers(2, 9))
def test_targets_are_distributions(share: float, smoothing: float, classes: int) -> None:
    own = label_targets(torch.tensor([0, 1]), classes, smoothing=smoothing)
    mixed = mixed_targets(own, own.flip(0), torch.tensor([share, 1.0], dtype=torch.float32))
    assert torch.all(mixed >= 0)
    assert mixed.sum(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert math.isclose(float(mixed[1, 1]), float(own[1, 1]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_at_least_float32_narrows_nothing(dtype: torch.dtype) -> None:
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    assert at_least_float32(torch.ones(2, dtype=dtype)).dtype == wanted
