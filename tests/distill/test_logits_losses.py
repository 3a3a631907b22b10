"""Logits losses against published values, against torch, numpy and scipy, and in extreme cases."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr
from scipy.stats import zscore
from torch.nn import functional

from dermdistill.config import LogitsLoss
from dermdistill.distill.logits_losses import (
    LOGITS_LOSSES,
    class_rebalanced_kl,
    decoupled_kl,
    dist_loss,
    distillation_kl,
    effective_number_weights,
    inter_class_relation,
    intra_class_relation,
    non_target_class_kl,
    standardised_kl,
    target_class_kl,
)
from dermdistill.distill.losses import label_targets

GOLDEN = Path(__file__).with_name("kd_golden.json")
PUBLISHED: dict[str, Callable[..., torch.Tensor]] = {
    "KD": lambda student, teacher, labels, t: distillation_kl(student, teacher, temperature=t),
    "TCKD": lambda student, teacher, labels, t: target_class_kl(student, teacher, labels=labels, temperature=t),
    "NCKD": lambda student, teacher, labels, t: non_target_class_kl(student, teacher, labels=labels, temperature=t),
    "TCKD+8*NCKD": lambda student, teacher, labels, t: decoupled_kl(student, teacher, labels=labels, temperature=t),
    "LogitStd": lambda student, teacher, labels, t: standardised_kl(student, teacher, temperature=t),
    "DIST": lambda student, teacher, labels, t: dist_loss(student, teacher, temperature=t),
}


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(GOLDEN.read_text())
    return content


def random_logits(*shape: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kl_of_torch(teacher_probs: torch.Tensor, student_logits: torch.Tensor, temperature: float) -> float:
    log_student = functional.log_softmax(student_logits / temperature, dim=1)
    return temperature**2 * functional.kl_div(log_student, teacher_probs, reduction="batchmean").item()


def call(
    name: LogitsLoss,
    student: torch.Tensor,
    teacher: torch.Tensor,
    *,
    temperature: float = 2.0,
    targets: torch.Tensor | None = None,
    class_weights: torch.Tensor | None = None,
    dkd_beta: float = 8.0,
) -> torch.Tensor:
    size, classes = student.shape
    return LOGITS_LOSSES[name](
        student,
        teacher,
        temperature=temperature,
        targets=label_targets(torch.arange(size) % classes, classes) if targets is None else targets,
        class_weights=torch.linspace(0.2, 1.8, classes) if class_weights is None else class_weights,
        dkd_beta=dkd_beta,
    )


@pytest.mark.parametrize("temperature", [1, 4])
@pytest.mark.parametrize("name", PUBLISHED)
def test_losses_have_the_published_values(golden: dict[str, Any], name: str, temperature: int) -> None:
    student, teacher = (torch.tensor(golden[key], dtype=torch.float64) for key in ("zs", "zt"))
    value = PUBLISHED[name](student, teacher, torch.tensor(golden["y"]), temperature)
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(golden[f"T{temperature}"][name], rel=0, abs=1e-9)


@pytest.mark.parametrize(("part", "relation"), [("inter", inter_class_relation), ("intra", intra_class_relation)])
def test_dist_parts_have_the_published_values(
    golden: dict[str, Any], part: str, relation: Callable[..., torch.Tensor]
) -> None:
    student, teacher = (torch.tensor(golden[key], dtype=torch.float64) for key in ("zs", "zt"))
    # the file gives the parts with seven decimals, their sum with ten
    assert relation(student, teacher, temperature=1.0).item() == pytest.approx(
        golden["DIST_tau1"][part], rel=0, abs=5e-8
    )


def test_golden_values_are_the_published_file() -> None:
    folder = Path(os.environ.get("DERMDISTILL_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
    original = folder / "kd_losses.json"
    if not original.is_file():
        pytest.skip(f"REFERENCE VALUES MISSING: {original}")
    assert json.loads(original.read_text()) == json.loads(GOLDEN.read_text())


def test_every_configured_loss_has_one_function() -> None:
    assert tuple(LOGITS_LOSSES) == get_args(LogitsLoss)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gap", [300.0, -300.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("name", LOGITS_LOSSES)
def test_value_and_gradient_are_finite_at_large_gaps(
    name: LogitsLoss, temperature: float, gap: float, dtype: torch.dtype
) -> None:
    rows = [[gap, 0.0, 0.0, -gap], [0.0, gap, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 0.0, -1.0, gap]]
    student = torch.tensor(rows, dtype=dtype, requires_grad=True)
    teacher = torch.tensor(rows[::-1], dtype=dtype, requires_grad=True)
    value = call(name, student, teacher, temperature=temperature)
    value.backward()
    assert student.grad is not None and student.grad.dtype == dtype and teacher.grad is None
    exact = call(name, student.detach().double(), teacher.detach().double(), temperature=temperature)
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)
    assert torch.isfinite(student.grad).all() and 0 < student.grad.abs().max() < 10


@pytest.mark.parametrize("name", LOGITS_LOSSES)
def test_gradient_is_the_slope_and_none_goes_to_the_teacher(name: LogitsLoss) -> None:
    student, teacher = random_logits(4, 5).requires_grad_(), random_logits(4, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda logits: call(name, logits, teacher.detach()), student)
    call(name, student, teacher).backward()
    assert student.grad is not None and teacher.grad is None


@pytest.mark.parametrize("name", LOGITS_LOSSES)
def test_equal_logits_have_no_loss(name: LogitsLoss) -> None:
    logits = random_logits(5, 4)
    value = call(name, logits, logits + 4.0, class_weights=torch.ones(4))
    assert value.item() == pytest.approx(0, abs=1e-5 if name == "dist" else 1e-12)


@pytest.mark.parametrize("name", LOGITS_LOSSES)
def test_half_precision_is_widened_before_anything_is_computed(name: LogitsLoss) -> None:
    student, teacher = random_logits(6, 5).bfloat16(), random_logits(6, 5, seed=1).half()
    value = call(name, student, teacher)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(call(name, student.float(), teacher.float()).item(), rel=1e-6)


def test_each_loss_gets_the_settings_it_needs() -> None:
    student, teacher = random_logits(6, 3), random_logits(6, 3, seed=1)
    labels, weights = torch.tensor([2, 0, 1, 1, 2, 0]), torch.tensor([0.5, 0.7, 1.8])
    wanted = {
        "kd": distillation_kl(student, teacher, temperature=3.0),
        "dkd": decoupled_kl(student, teacher, labels=labels, temperature=3.0, beta=5.0),
        "logit_std": standardised_kl(student, teacher, temperature=3.0),
        "dist": dist_loss(student, teacher, temperature=3.0),
        "class_rebalanced": class_rebalanced_kl(student, teacher, class_weights=weights, temperature=3.0),
    }
    targets = label_targets(labels, 3)
    for name, value in wanted.items():
        given_value = LOGITS_LOSSES[name](  # type: ignore[index]
            student, teacher, temperature=3.0, targets=targets, class_weights=weights, dkd_beta=5.0
        )
        assert given_value.item() == value.item(), name


@pytest.mark.parametrize("temperature", [0.7, 1.0, 5.0])
def test_distillation_kl_equals_torch(temperature: float) -> None:
    student, teacher = random_logits(9, 7), random_logits(9, 7, seed=1)
    oracle = kl_of_torch((teacher / temperature).softmax(1), student, temperature)
    assert distillation_kl(student, teacher, temperature=temperature).item() == pytest.approx(oracle, abs=1e-12)


def test_distillation_kl_keeps_its_gradient_scale_over_temperatures() -> None:
    # T^2 KL tends to the same quadratic form as T grows (Hinton et al. 2015, equation 4)
    student, teacher = random_logits(6, 5), random_logits(6, 5, seed=1)
    centred = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    limit = centred.square().mean(dim=1).mean() / 2
    assert distillation_kl(student, teacher, temperature=1e4).item() == pytest.approx(limit.item(), rel=1e-3)


@settings(deadline=None, max_examples=100)
@given(data=st.data(), classes=st.integers(2, 7), temperature=st.floats(0.5, 10))
def test_kd_is_tckd_plus_the_teachers_doubt_times_nckd(data: Any, classes: int, temperature: float) -> None:
    row = st.lists(st.floats(-40, 40), min_size=classes, max_size=classes)
    student, teacher = (torch.tensor([data.draw(row)], dtype=torch.float64) for _ in range(2))
    label = torch.tensor([data.draw(st.integers(0, classes - 1))])
    others = [k for k in range(classes) if k != int(label)]
    doubt = (teacher / temperature).softmax(1)[0, others].sum().item()
    target = target_class_kl(student, teacher, labels=label, temperature=temperature).item()
    rest = non_target_class_kl(student, teacher, labels=label, temperature=temperature).item()
    whole = distillation_kl(student, teacher, temperature=temperature).item()
    assert whole == pytest.approx(target + doubt * rest, rel=1e-9, abs=1e-9)


def test_target_and_non_target_parts_equal_scipy() -> None:
    student, teacher = random_logits(8, 5), random_logits(8, 5, seed=1)
    labels = torch.tensor([0, 4, 2, 2, 1, 3, 0, 4])
    own, wanted = ((z / 2).softmax(1).numpy() for z in (student, teacher))
    target, rest = [], []
    for p, q, label in zip(wanted, own, labels.tolist(), strict=True):
        target.append(rel_entr(p[label], q[label]) + rel_entr(1 - p[label], 1 - q[label]))
        p_others, q_others = np.delete(p, label), np.delete(q, label)
        rest.append(rel_entr(p_others / p_others.sum(), q_others / q_others.sum()).sum())
    value = target_class_kl(student, teacher, labels=labels, temperature=2.0)
    assert value.item() == pytest.approx(4 * np.mean(target), abs=1e-9)
    value = non_target_class_kl(student, teacher, labels=labels, temperature=2.0)
    assert value.item() == pytest.approx(4 * np.mean(rest), abs=1e-9)


def test_non_target_part_of_two_classes_is_exactly_zero() -> None:
    value = non_target_class_kl(
        random_logits(3, 2), random_logits(3, 2, seed=1), labels=torch.tensor([0, 1, 1]), temperature=2.0
    )
    assert value.item() == 0


def test_decoupled_kl_weighs_its_parts() -> None:
    logits, labels = (random_logits(4, 3), random_logits(4, 3, seed=1)), torch.tensor([0, 1, 2, 0])
    target = target_class_kl(*logits, labels=labels, temperature=2.0).item()
    rest = non_target_class_kl(*logits, labels=labels, temperature=2.0).item()
    value = decoupled_kl(*logits, labels=labels, temperature=2.0, alpha=0.5, beta=3.0)
    assert value.item() == pytest.approx(0.5 * target + 3 * rest)


@pytest.mark.parametrize("row", [[0.7, 0.3, 0.0], [0.999, 0.001, 0.0], [0.4, 0.3, 0.3]])
def test_dkd_refuses_mixed_targets_and_names_the_image(row: list[float]) -> None:
    targets = label_targets(torch.tensor([0, 1, 2]), 3)
    targets[1] = torch.tensor(row)
    with pytest.raises(ValueError, match="one true class an image; targets of image 1 of the batch"):
        call("dkd", random_logits(3, 3), random_logits(3, 3, seed=1), targets=targets)


def test_standardised_kl_equals_scipy_and_torch() -> None:
    student, teacher = random_logits(6, 7), random_logits(6, 7, seed=1)
    own, wanted = (torch.tensor(zscore(z.numpy(), axis=1, ddof=1)) for z in (student, teacher))
    oracle = kl_of_torch((wanted / 2).softmax(1), own, 2)
    assert standardised_kl(student, teacher, temperature=2.0).item() == pytest.approx(oracle, rel=1e-6)


@settings(deadline=None, max_examples=30)
@given(scale=st.floats(0.1, 50), shift=st.floats(-100, 100))
def test_standardised_kl_ignores_scale_and_offset_of_the_student(scale: float, shift: float) -> None:
    student, teacher = random_logits(4, 5), random_logits(4, 5, seed=1)
    value = standardised_kl(scale * student + shift, teacher, temperature=2.0).item()
    assert value == pytest.approx(standardised_kl(student, teacher, temperature=2.0).item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("level", [0.0, 0.1, -300.0])
@pytest.mark.parametrize("name", ["logit_std", "dist"])
def test_constant_logits_of_an_image_have_no_gradient_and_spoil_no_other(
    name: LogitsLoss, level: float, dtype: torch.dtype
) -> None:
    logits = random_logits(4, 7)
    logits[1] = level
    student = logits.to(dtype).requires_grad_()
    loss = standardised_kl if name == "logit_std" else inter_class_relation
    value = loss(student, random_logits(4, 7, seed=1).to(dtype), temperature=1.0)
    (gradient,) = torch.autograd.grad(value, student)
    assert torch.isfinite(value) and (gradient[1] == 0).all()
    assert torch.isfinite(gradient).all() and (gradient[[0, 2, 3]].abs().amax(dim=1) > 0).all()


def test_constant_logits_stand_for_no_preference() -> None:
    teacher = random_logits(1, 7)
    wanted = torch.tensor(zscore(teacher.numpy(), axis=1, ddof=1)).softmax(1)
    oracle = np.log(7) + (wanted * wanted.log()).sum().item()
    constant = torch.full((1, 7), 0.1, dtype=torch.float64)
    assert standardised_kl(constant, teacher, temperature=1.0).item() == pytest.approx(oracle, abs=1e-6)
    assert inter_class_relation(constant, teacher, temperature=1.0).item() == 1


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_dist_loss_with_constant_columns_is_finite(side: str) -> None:
    constant, varied = random_logits(1, 5).expand(6, 5).float(), random_logits(6, 5, seed=1).float()
    student = (constant if side == "student" else varied).clone().requires_grad_()
    value = intra_class_relation(student, varied if side == "student" else constant, temperature=2.0)
    (gradient,) = torch.autograd.grad(value, student)
    assert value.item() == 4 and (gradient == 0).all()
    value = dist_loss(student, varied if side == "student" else constant, temperature=2.0)
    (gradient,) = torch.autograd.grad(value, student)
    assert torch.isfinite(value) and torch.isfinite(gradient).all() and gradient.abs().max() > 0


def test_dist_relations_equal_numpy() -> None:
    student, teacher = random_logits(6, 4, scale=1), random_logits(6, 4, seed=1, scale=1)
    own, wanted = ((z / 2).softmax(1).numpy() for z in (student, teacher))
    inter = 4 * (1 - np.mean([np.corrcoef(own[i], wanted[i])[0, 1] for i in range(6)]))
    intra = 4 * (1 - np.mean([np.corrcoef(own[:, k], wanted[:, k])[0, 1] for k in range(4)]))
    assert inter_class_relation(student, teacher, temperature=2.0).item() == pytest.approx(inter, rel=1e-5)
    assert intra_class_relation(student, teacher, temperature=2.0).item() == pytest.approx(intra, rel=1e-5)
    value = dist_loss(student, teacher, temperature=2.0, beta=0.5, gamma=3.0)
    assert value.item() == pytest.approx(0.5 * inter + 3 * intra, rel=1e-5)


def test_dist_of_one_image_is_refused_and_says_why() -> None:
    with pytest.raises(ValueError, match="batch of one image: the relation within a class is undefined"):
        call("dist", random_logits(1, 4), random_logits(1, 4, seed=1))


def test_class_rebalanced_kl_equals_the_formula() -> None:
    student, teacher = random_logits(5, 3), random_logits(5, 3, seed=1)
    weights = torch.tensor([0.2, 0.8, 2.0], dtype=torch.float64)
    weighted = weights * (teacher / 2).softmax(1)
    oracle = kl_of_torch(weighted / weighted.sum(1, keepdim=True), student, 2)
    value = class_rebalanced_kl(student, teacher, class_weights=weights, temperature=2.0)
    assert value.item() == pytest.approx(oracle, abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(weight=st.floats(1e-3, 1e3))
def test_class_rebalanced_kl_with_equal_weights_is_plain_kd(weight: float) -> None:
    student, teacher = random_logits(5, 3), random_logits(5, 3, seed=1)
    value = class_rebalanced_kl(student, teacher, class_weights=torch.full((3,), weight), temperature=2.0)
    assert value.item() == pytest.approx(distillation_kl(student, teacher, temperature=2.0).item(), rel=1e-9)


def test_class_rebalanced_kl_pulls_the_student_towards_a_rare_class() -> None:
    logits = random_logits(5, 3).requires_grad_()
    weights = torch.tensor([1.0, 1.0, 4.0])
    value = class_rebalanced_kl(logits, logits.detach(), class_weights=weights, temperature=1.0)
    (gradient,) = torch.autograd.grad(value, logits)
    assert (gradient[:, 2] < 0).all() and (gradient[:, :2] > 0).all()


@settings(deadline=None, max_examples=50)
@given(
    counts=st.lists(st.integers(1, 10_000), min_size=2, max_size=9),
    beta=st.one_of(st.just(0.0), st.floats(0.1, 0.9999)),
)
def test_effective_number_weights_equal_the_formula_and_have_mean_one(counts: list[int], beta: float) -> None:
    weights = effective_number_weights(torch.tensor(counts), beta)
    oracle = np.array([(1 - beta) / (1 - beta**n) for n in counts])
    assert weights.dtype == torch.float32 and weights.mean().item() == pytest.approx(1, abs=1e-5)
    assert weights.tolist() == pytest.approx((oracle / oracle.mean()).tolist(), rel=1e-5)


def test_effective_number_weights_span_ones_and_inverse_counts() -> None:
    counts = torch.tensor([6705, 115, 142])
    assert effective_number_weights(counts, 0.0).tolist() == [1, 1, 1]
    inverse = (1 / counts.double()) / (1 / counts.double()).mean()
    assert effective_number_weights(counts, 1 - 1e-14).tolist() == pytest.approx(inverse.tolist(), rel=1e-6)


@pytest.mark.parametrize(
    ("counts", "beta", "said"),
    [([5, 0], 0.9, "every class needs at least one"), ([5, 2], 1.0, "0 <= beta < 1"), ([5, 2], -0.1, "0 <= beta < 1")],
)
def test_effective_number_weights_refuse_what_has_no_weight(counts: list[int], beta: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        effective_number_weights(torch.tensor(counts), beta)
