"""The objectives of teacher and student: named, weighted terms of one batch.

Teacher: ``classification + exit_weight * mean(exits)``. Student: ``alpha * intermediate + beta * logits +
gamma * classification`` (Pavel et al., Scientific Reports 2025). In *intermediate* each exit learns from the logits of
the teacher's exit at its depth, and exits and final features learn from the teacher's fused features through learned
projections. Single-stage distillation is alpha 0. Several teachers each have their own terms.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from dermdistill.config import DistillConfig
from dermdistill.distill.classification import ClassificationLoss
from dermdistill.distill.feature_losses import (
    attention_transfer,
    feature_matching,
    relational_angle,
    relational_distance,
)
from dermdistill.distill.logits_losses import LOGITS_LOSSES, distillation_kl
from dermdistill.distill.signals import (
    Signals,
    attention_of,
    exit_weights,
    final_features,
    signal_plan,
)
from dermdistill.models.output import Output

FINAL = "final"


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
    """What a teacher learns from: labels, at the end and at the exits.

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

    def forward(self, output: Output, targets: Tensor, teachers: Sequence[Signals] = ()) -> Terms:
        """Terms of one batch; ``targets`` is [B, K]."""
        terms = {"classification": Term(self.loss(output.logits, targets), 1.0)}
        for depth, logits in zip(self.exit_depths, output.exits, strict=False):
            terms[f"exit_{depth}"] = Term(self.loss(logits, targets), self.exit_weight / len(self.exit_depths))
        return terms


@dataclass(frozen=True)
class TeacherShape:
    """What a student's objective must know of one teacher: its share of all teachers' weight, and the width of its
    fused features."""

    share: float
    width: int


class StudentObjective(nn.Module):
    """What a student learns from: labels, and the logits, exits, fused features and attention of its teachers.

    Args:
        loss: classification loss.
        config: weights, temperatures, and which logits loss.
        exit_depths: depths of the student's exits, in the order of ``Output.exits``.
        exit_widths: pooled features of the student at these depths.
        width: of the student's fused features.
        teachers: one entry a teacher; their shares sum to 1. Empty where no term needs one.
        class_weights: [K], weights of the classes in class-rebalanced distillation.
    """

    def __init__(
        self,
        loss: ClassificationLoss,
        config: DistillConfig,
        *,
        exit_depths: tuple[int, ...],
        exit_widths: tuple[int, ...],
        width: int,
        teachers: tuple[TeacherShape, ...],
        class_weights: Tensor,
    ) -> None:
        super().__init__()
        self.loss = loss
        self.config = config
        self.exit_depths = exit_depths
        self.exits = exit_weights(config, exit_depths)
        self.final_features = final_features(config, exit_depths)
        self.plan = signal_plan(config, exit_depths)
        self.teachers = teachers
        self.class_weights = class_weights
        self.projections = nn.ModuleDict()
        matched = {FINAL: width} if self.final_features > 0 else {}
        for exit, exit_width in zip(self.exits, exit_widths, strict=True):
            if exit.features > 0:
                matched[str(exit.depth)] = exit_width
        for number, teacher in enumerate(teachers):
            for place, features in matched.items():
                self.projections[f"{place}-{number}"] = nn.Linear(features, teacher.width)

    def forward(self, output: Output, targets: Tensor, teachers: Sequence[Signals] = ()) -> Terms:
        """Terms of one batch.

        Args:
            output: of the student.
            targets: [B, K].
            teachers: what each teacher says about the same views.

        Raises:
            ValueError: another number of teachers than this objective was made for.
        """
        if len(teachers) != len(self.teachers):
            raise ValueError(f"{len(teachers)} teachers' signals, made for {len(self.teachers)}")
        terms: Terms = {}
        for number, (shape, signals) in enumerate(zip(self.teachers, teachers, strict=True)):
            suffix = f"@{number + 1}" if number else ""
            for name, term in self._taught(number, output, targets, signals):
                terms[name + suffix] = Term(term.value, term.weight * shape.share)
        terms.update(self._own(output, targets))
        if self.config.gamma > 0:
            terms["classification"] = Term(self.loss(output.logits, targets), self.config.gamma)
        return terms

    def _taught(self, number: int, output: Output, targets: Tensor, signals: Signals) -> Iterator[tuple[str, Term]]:
        """Terms of one teacher."""
        config = self.config
        between = partial(
            LOGITS_LOSSES[config.logits_loss],
            targets=targets,
            class_weights=self.class_weights.to(targets.device),
            dkd_beta=config.dkd_beta,
        )
        for exit, logits in zip(self.exits, output.exits, strict=True):
            if exit.logits > 0:
                value = between(logits, signals.exits[exit.depth], temperature=exit.temperature)
                yield f"exit_kd_{exit.depth}", Term(value, exit.logits)
            if exit.features > 0:
                projected = self.projections[f"{exit.depth}-{number}"](output.pooled[exit.depth])
                yield f"exit_features_{exit.depth}", Term(feature_matching(projected, _fused(signals)), exit.features)
        if self.final_features > 0:
            projected = self.projections[f"{FINAL}-{number}"](output.fused)
            yield "fused_features", Term(feature_matching(projected, _fused(signals)), self.final_features)
        for depth in self.plan.attention:
            value = attention_transfer(attention_of(output, depth), signals.attention[depth])
            yield f"attention_{depth}", Term(value, config.attention / len(self.plan.attention))
        if config.relational > 0:
            fused = _fused(signals)
            yield "relational_distance", Term(relational_distance(output.fused, fused), config.relational / 3)
            yield "relational_angle", Term(relational_angle(output.fused, fused), config.relational * 2 / 3)
        if config.beta > 0:
            value = between(output.logits, signals.logits, temperature=config.temperature)
            yield "logits_kd", Term(value, config.beta)

    def _own(self, output: Output, targets: Tensor) -> Iterator[tuple[str, Term]]:
        """Terms of the exits that need no teacher: labels, and the student's own final logits."""
        config = self.config
        for exit, logits in zip(self.exits, output.exits, strict=True):
            if exit.labels > 0:
                yield f"exit_{exit.depth}", Term(self.loss(logits, targets), exit.labels)
            if config.self_distillation > 0:
                value = distillation_kl(logits, output.logits, temperature=exit.temperature)
                yield f"exit_self_{exit.depth}", Term(value, config.self_distillation / len(self.exits))


def _fused(signals: Signals) -> Tensor:
    if signals.fused is None:
        raise ValueError("the teacher's fused features were not asked for")
    return signals.fused


Objective = TeacherObjective | StudentObjective
