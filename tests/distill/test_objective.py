"""Which terms an objective has, with which weights, and that each of them moves the student."""

from typing import Any

import pytest
import torch

from dermdistill.config import DistillConfig, StageDistillConfig
from dermdistill.distill.feature_losses import feature_matching
from dermdistill.distill.logits_losses import LOGITS_LOSSES, distillation_kl
from dermdistill.distill.losses import cross_entropy, label_targets
from dermdistill.distill.objective import StudentObjective, TeacherObjective, TeacherShape, total
from dermdistill.distill.signals import Signals, attention_of, signal_plan, signals_of
from dermdistill.models.output import Output

TARGETS = label_targets(torch.tensor([0, 1, 2, 1]), 3)
WIDTH, EXIT_WIDTHS = 5, (7, 9)
OWN = TeacherShape(1.0, 6)


def output(seed: int, exits: int, width: int, grad: bool = False) -> Output:
    generator = torch.Generator().manual_seed(seed)

    def tensor(*shape: int) -> torch.Tensor:
        return torch.randn(4, *shape, generator=generator).requires_grad_(grad)

    maps = tuple(tensor(3, side, side) for side in (8, 4, 4, 2))
    pooled = (tensor(3), tensor(EXIT_WIDTHS[0]), tensor(EXIT_WIDTHS[1]), tensor(width))
    return Output(tensor(3), tuple(tensor(3) for _ in range(exits)), maps, tensor(width), pooled)


def teacher_signals(config: DistillConfig, seed: int = 1, exits: tuple[int, ...] = (2,), grad: bool = False) -> Signals:
    return signals_of(output(seed, 2, 6, grad), (1, 2), signal_plan(config, exits))


def student_objective(
    config: DistillConfig, exits: tuple[int, ...] = (2,), teachers: tuple[TeacherShape, ...] = (OWN,)
) -> StudentObjective:
    torch.manual_seed(0)
    widths = dict(zip((1, 2), EXIT_WIDTHS, strict=True))
    return StudentObjective(
        cross_entropy,
        config,
        exit_depths=exits,
        exit_widths=tuple(widths[depth] for depth in exits),
        width=WIDTH,
        teachers=teachers,
        class_weights=torch.tensor([0.5, 1.0, 1.5]),
    )


def weights(terms: dict[str, Any]) -> dict[str, float]:
    return {name: term.weight for name, term in terms.items()}


def test_multi_stage_terms_are_weighed_as_published() -> None:
    config = DistillConfig()
    terms = student_objective(config)(output(0, 1, WIDTH), TARGETS, [teacher_signals(config)])
    wanted = {
        "exit_kd_2": 0.15,
        "exit_features_2": 0.075,
        "fused_features": 0.075,
        "logits_kd": 0.3,
        "classification": 0.4,
    }
    assert weights(terms) == pytest.approx(wanted)


def test_multi_stage_total_is_the_formula() -> None:
    config = DistillConfig(alpha=0.3, beta=0.3, gamma=0.4, temperature=2.0, feature_share=0.5)
    objective, student, teacher = student_objective(config), output(0, 1, WIDTH), output(1, 2, 6)
    exits = distillation_kl(student.exits[0], teacher.exits[1], temperature=2.0)
    final, exit = objective.projections["final-0"], objective.projections["2-0"]
    features = feature_matching(final(student.fused), teacher.fused) / 2
    features = features + feature_matching(exit(student.pooled[2]), teacher.fused) / 2
    logits = distillation_kl(student.logits, teacher.logits, temperature=2.0)
    wanted = 0.3 * (0.5 * exits + 0.5 * features) + 0.3 * logits + 0.4 * cross_entropy(student.logits, TARGETS)
    assert total(objective(student, TARGETS, [teacher_signals(config)])).item() == pytest.approx(
        wanted.item(), rel=1e-6
    )


def test_exit_learns_from_the_teachers_exit_of_its_own_depth() -> None:
    config = DistillConfig(feature_share=0.0)
    student, teacher = output(0, 1, WIDTH), output(1, 2, 6)
    value = student_objective(config)(student, TARGETS, [teacher_signals(config)])["exit_kd_2"].value
    assert value.item() == pytest.approx(distillation_kl(student.exits[0], teacher.exits[1], temperature=2.0).item())


def test_stages_set_weights_and_temperature_of_their_exit_alone() -> None:
    stage = StageDistillConfig(depth=2, alpha=0.11, beta=0.22, gamma=0.33, temperature=5.0)
    config = DistillConfig(stages=(stage,))
    student, teacher = output(0, 2, WIDTH), output(1, 2, 6)
    terms = student_objective(config, exits=(1, 2))(student, TARGETS, [teacher_signals(config, exits=(1, 2))])
    assert weights(terms) == pytest.approx(
        {
            "exit_kd_1": 0.075,
            "exit_features_1": 0.05,
            "exit_kd_2": 0.22,
            "exit_features_2": 0.11,
            "exit_2": 0.33,
            "fused_features": 0.05,
            "logits_kd": 0.3,
            "classification": 0.4,
        }
    )
    hot = distillation_kl(student.exits[1], teacher.exits[1], temperature=5.0)
    assert terms["exit_kd_2"].value.item() == pytest.approx(hot.item())


def test_teachers_share_the_weight_and_have_their_own_terms() -> None:
    config = DistillConfig()
    shapes = (TeacherShape(0.75, 6), TeacherShape(0.25, 6))
    objective = student_objective(config, teachers=shapes)
    first, second = teacher_signals(config, seed=1), teacher_signals(config, seed=2)
    student = output(0, 1, WIDTH)
    terms = objective(student, TARGETS, [first, second])
    assert (terms["logits_kd"].weight, terms["logits_kd@2"].weight) == pytest.approx((0.225, 0.075))
    assert terms["logits_kd@2"].value.item() == pytest.approx(
        distillation_kl(student.logits, second.logits, temperature=2.0).item()
    )
    assert sum(weights(terms).values()) == pytest.approx(1.0)
    assert objective.projections["final-0"] is not objective.projections["final-1"]


@pytest.mark.parametrize("name", sorted(LOGITS_LOSSES))
def test_any_logits_loss_serves_final_logits_and_exits(name: str) -> None:
    config = DistillConfig.model_validate({"logits_loss": name, "temperature": 3.0, "dkd_beta": 2.0})
    student, teacher = output(0, 1, WIDTH), output(1, 2, 6)
    terms = student_objective(config)(student, TARGETS, [teacher_signals(config)])
    for term, own, other in (
        ("logits_kd", student.logits, teacher.logits),
        ("exit_kd_2", student.exits[0], teacher.exits[1]),
    ):
        wanted = LOGITS_LOSSES[config.logits_loss](
            own,
            other,
            temperature=3.0,
            targets=TARGETS,
            class_weights=torch.tensor([0.5, 1.0, 1.5]),
            dkd_beta=2.0,
        )
        assert terms[term].value.item() == pytest.approx(wanted.item())


def test_attention_and_relations_are_further_terms() -> None:
    config = DistillConfig(alpha=0.0, beta=0.5, gamma=0.5, attention=20.0, relational=3.0)
    student = output(0, 1, WIDTH)
    terms = student_objective(config)(student, TARGETS, [teacher_signals(config)])
    assert weights(terms) == pytest.approx(
        {
            "attention_2": 10.0,
            "attention_3": 10.0,
            "relational_distance": 1.0,
            "relational_angle": 2.0,
            "logits_kd": 0.5,
            "classification": 0.5,
        }
    )


def test_self_distillation_teaches_exits_and_not_the_final_logits() -> None:
    config = DistillConfig(alpha=0.0, beta=0.0, gamma=0.0001, self_distillation=0.6)
    student = output(0, 2, WIDTH, grad=True)
    terms = student_objective(config, exits=(1, 2), teachers=())(student, TARGETS)
    assert terms["exit_self_1"].weight == pytest.approx(0.3)
    terms["exit_self_1"].value.backward()
    assert student.exits[0].grad is not None and float(student.exits[0].grad.abs().sum()) > 0
    assert student.logits.grad is None


def test_single_stage_has_two_terms_and_no_projection() -> None:
    config = DistillConfig(alpha=0.0, beta=0.9, gamma=0.1)
    objective = student_objective(config)
    assert len(objective.projections) == 0
    assert set(objective(output(0, 1, WIDTH), TARGETS, [teacher_signals(config)])) == {"logits_kd", "classification"}


def test_every_term_has_a_gradient_at_the_student_only() -> None:
    config = DistillConfig(attention=1.0, relational=1.0, self_distillation=1.0)
    student, teacher = output(0, 1, WIDTH, grad=True), output(1, 2, 6, grad=True)
    signals = signals_of(teacher, (1, 2), signal_plan(config, (2,)))
    terms = student_objective(config)(student, TARGETS, [signals])
    learning = (student.logits, *student.exits, student.fused, student.pooled[2], *student.features[2:])
    for name, term in terms.items():
        gradients = torch.autograd.grad(term.value, learning, retain_graph=True, allow_unused=True)
        assert any(one is not None and float(one.abs().sum()) > 0 for one in gradients), name
    total(terms).backward()
    assert all(one.grad is None for one in (teacher.logits, *teacher.exits, teacher.fused, *teacher.features))


def test_another_number_of_teachers_is_refused() -> None:
    with pytest.raises(ValueError, match="teachers"):
        student_objective(DistillConfig())(output(0, 1, WIDTH), TARGETS, [])


def test_student_without_teacher_learns_from_labels_alone() -> None:
    config = DistillConfig(alpha=0.0, beta=0.0, gamma=1.0)
    assert not config.needs_teacher
    terms = student_objective(config, teachers=())(output(0, 1, WIDTH), TARGETS)
    assert weights(terms) == {"classification": 1.0}


def test_plan_asks_for_no_more_than_the_terms_need() -> None:
    plan = signal_plan(DistillConfig(alpha=0.0, beta=1.0), (1, 2))
    assert (plan.exits, plan.fused, plan.attention) == ((), False, ())
    full = signal_plan(DistillConfig(attention=1.0), (1, 2))
    assert (full.exits, full.fused, full.attention) == ((1, 2), True, (1, 2, 3))
    assert signal_plan(DistillConfig(feature_share=0.0, relational=1.0), (1,)).fused


def test_attention_of_branches_is_averaged_at_the_smallest_size_after_scaling() -> None:
    one = output(0, 1, WIDTH)
    coarse = torch.rand(4, 3, 2, 2)
    both = one._replace(features=(*one.features, *one.features[:2], 10 * coarse, one.features[3]))
    squares = [maps.square().mean(dim=1) for maps in (one.features[2], 10 * coarse)]
    scaled = [maps / maps.mean(dim=(1, 2), keepdim=True) for maps in squares]
    pooled = scaled[0].reshape(4, 2, 2, 2, 2).mean(dim=(2, 4))
    assert torch.allclose(attention_of(both, 2), (pooled + scaled[1]) / 2, atol=1e-6)


def test_teacher_objective_shares_the_exit_weight() -> None:
    objective = TeacherObjective(cross_entropy, (1, 2), 0.3)
    terms = objective(output(0, 2, WIDTH), TARGETS)
    assert weights(terms) == pytest.approx({"classification": 1.0, "exit_1": 0.15, "exit_2": 0.15})


def test_teacher_objective_without_exit_weight_has_one_term() -> None:
    assert set(TeacherObjective(cross_entropy, (1, 2), 0.0)(output(0, 2, WIDTH), TARGETS)) == {"classification"}
