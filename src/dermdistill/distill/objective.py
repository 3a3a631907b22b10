"""The objectives of teacher and student: named, weighted terms of one batch.

Teacher: ``classification + exit_weight * mean(exits)``. Student: ``alpha * intermediate + beta * logits +
gamma * classification`` (Pavel et al., Scientific Reports 2025), where *intermediate* is shared between the exits, each
of which learns from the teacher's exit at its depth, and the fused features. Single-stage distillation is alpha 0.
"""

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor, nn

from dermdistill.config import DistillConfig
from dermdistill.distill.classification import ClassificationLoss
from dermdistill.distill.losses import distillation_kl, feature_matching
from dermdistill.models.output import Output


class Term(NamedTuple):
    """One part of the objective: its unweighted value (a scalar with gradient) and its weight."""

    value: Tensor
    weight: float


Terms = dict[str, Term]


def total(terms: Terms) -> Tensor:
    """The weighted sum of all terms."""
    values = [term.weight * term.value for term in terms.values()]
    return sum(values[1:], start=values[0])


class TeacherObjective(nn.Module):
    """What a teacher, or a student without one, learns from: labels, at the end and at the exits.

    Args:
        loss: classification loss.
        exit_depths: depths of the model's exits, in the order of ``Output.exits``.
        exit_weight: weight of the mean loss of the exits.
    """

    def __init__(self, loss: ClassificationLoss, exit_depths: tuple[int, ...], exit_weight: float) -> None:
        super().__init__()
        self.loss = loss
        self.exit_depths = exit_depths if exit_weight > 0 else ()
        self.exit_weight = exit_weight

    def forward(self, output: Output, targets: Tensor, teacher: Output | None = None) -> Terms:
        """Terms of one batch; ``targets`` is [B, K]."""
        terms = {"classification": Term(self.loss(output.logits, targets), 1.0)}
        for depth, logits in zip(self.exit_depths, output.exits, strict=False):
            terms[f"exit_{depth}"] = Term(self.loss(logits, targets), self.exit_weight / len(self.exit_depths))
        return terms


class StudentObjective(nn.Module):
    """What a student learns from: labels, the teacher's logits, exits and fused features.

    Args:
        loss: classification loss.
        config: weights and temperature.
        exit_depths: depths of the student's exits.
        teacher_exit_depths: depths of the teacher's exits, a superset.
        student_width: width of the student's fused features.
        teacher_width: width of the teacher's.
    """

    def __init__(
        self,
        loss: ClassificationLoss,
        config: DistillConfig,
        *,
        exit_depths: tuple[int, ...],
        teacher_exit_depths: tuple[int, ...],
        student_width: int,
        teacher_width: int,
    ) -> None:
        super().__init__()
        self.loss = loss
        self.config = config
        self.exits = [(depth, position, teacher_exit_depths.index(depth)) for position, depth in enumerate(exit_depths)]
        uses_features = config.alpha > 0 and config.feature_share > 0
        self.projection = nn.Linear(student_width, teacher_width) if uses_features else None

    def forward(self, output: Output, targets: Tensor, teacher: Output | None = None) -> Terms:
        """Terms of one batch; ``targets`` is [B, K] and the teacher saw the same views."""
        if teacher is None:
            raise ValueError("a student objective needs the teacher's output")
        terms = dict(self._intermediate(output, teacher))
        if self.config.beta > 0:
            kl = distillation_kl(output.logits, teacher.logits, temperature=self.config.temperature)
            terms["logits_kd"] = Term(kl, self.config.beta)
        if self.config.gamma > 0:
            terms["classification"] = Term(self.loss(output.logits, targets), self.config.gamma)
        return terms

    def _intermediate(self, output: Output, teacher: Output) -> Iterator[tuple[str, Term]]:
        config = self.config
        exit_share = config.alpha * (1 - config.feature_share)
        if exit_share > 0:
            for depth, own, other in self.exits:
                kl = distillation_kl(output.exits[own], teacher.exits[other], temperature=config.temperature)
                yield f"exit_kd_{depth}", Term(kl, exit_share / len(self.exits))
        if self.projection is not None:
            distance = feature_matching(self.projection(output.fused), teacher.fused)
            yield "fused_features", Term(distance, config.alpha * config.feature_share)


Objective = TeacherObjective | StudentObjective
