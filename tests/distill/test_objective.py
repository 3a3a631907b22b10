"""Which terms an objective has, with which weights, and that each of them moves the student."""

import pytest
import torch

from dermdistill.config import DistillConfig
from dermdistill.distill.losses import cross_entropy, distillation_kl, feature_matching, label_targets
from dermdistill.distill.objective import StudentObjective, TeacherObjective, total
from dermdistill.models.output import Output

TARGETS = label_targets(torch.tensor([0, 1, 2, 1]), 3)


def output(seed: int, exits: int, width: int, grad: bool = False) -> Output:
    generator = torch.Generator().manual_seed(seed)

    def tensor(columns: int) -> torch.Tensor:
        return torch.randn(4, columns, generator=generator).requires_grad_(grad)

    return Output(tensor(3), tuple(tensor(3) for _ in range(exits)), (), tensor(width))


def student_objective(config: DistillConfig, exits: tuple[int, ...] = (2,)) -> StudentObjective:
    torch.manual_seed(0)
    return StudentObjective(
        cross_entropy,
        config,
        exit_depths=exits,
        teacher_exit_depths=(1, 2),
        student_width=5,
        teacher_width=6,
    )


def test_multi_stage_terms_are_weighed_as_published() -> None:
    objective = student_objective(DistillConfig())
    terms = objective(output(0, 1, 5), TARGETS, output(1, 2, 6))
    weights = {name: term.weight for name, term in terms.items()}
    assert weights == pytest.approx(
        {"exit_kd_2": 0.15, "fused_features": 0.15, "logits_kd": 0.3, "classification": 0.4}
    )


def test_multi_stage_total_is_the_formula() -> None:
    config = DistillConfig(alpha=0.3, beta=0.3, gamma=0.4, temperature=2.0, feature_share=0.5)
    objective, student, teacher = student_objective(config), output(0, 1, 5), output(1, 2, 6)
    intermediate = 0.5 * distillation_kl(student.exits[0], teacher.exits[1], temperature=2.0)
    assert objective.projection is not None
    intermediate = intermediate + 0.5 * feature_matching(objective.projection(student.fused), teacher.fused)
    logits = distillation_kl(student.logits, teacher.logits, temperature=2.0)
    wanted = 0.3 * intermediate + 0.3 * logits + 0.4 * cross_entropy(student.logits, TARGETS)
    assert total(objective(student, TARGETS, teacher)).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_exit_learns_from_the_teachers_exit_of_its_own_depth() -> None:
    objective = student_objective(DistillConfig(feature_share=0.0))
    student, teacher = output(0, 1, 5), output(1, 2, 6)
    value = objective(student, TARGETS, teacher)["exit_kd_2"].value
    assert value.item() == pytest.approx(distillation_kl(student.exits[0], teacher.exits[1], temperature=2.0).item())


def test_single_stage_has_two_terms_and_no_projection() -> None:
    objective = student_objective(DistillConfig(alpha=0.0, beta=0.9, gamma=0.1))
    assert objective.projection is None
    assert set(objective(output(0, 1, 5), TARGETS, output(1, 2, 6))) == {"logits_kd", "classification"}


def test_every_term_has_a_gradient_at_the_student_only() -> None:
    objective = student_objective(DistillConfig())
    student, teacher = output(0, 1, 5, grad=True), output(1, 2, 6, grad=True)
    total(objective(student, TARGETS, teacher)).backward()
    for tensor in (student.logits, student.exits[0], student.fused):
        assert tensor.grad is not None and float(tensor.grad.abs().sum()) > 0
    assert all(tensor.grad is None for tensor in (teacher.logits, *teacher.exits, teacher.fused))


def test_student_objective_without_teacher_is_refused() -> None:
    with pytest.raises(ValueError, match="teacher"):
        student_objective(DistillConfig())(output(0, 1, 5), TARGETS, None)


def test_teacher_objective_shares_the_exit_weight() -> None:
    objective = TeacherObjective(cross_entropy, (1, 2), 0.3)
    terms = objective(output(0, 2, 5), TARGETS)
    assert {name: term.weight for name, term in terms.items()} == pytest.approx(
        {"classification": 1.0, "exit_1": 0.15, "exit_2": 0.15}
    )


def test_teacher_objective_without_exit_weight_has_one_term() -> None:
    assert set(TeacherObjective(cross_entropy, (1, 2), 0.0)(output(0, 2, 5), TARGETS)) == {"classification"}
