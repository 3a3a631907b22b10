"""The rows of an ablation: students that differ from the recipe's in one thing each. Adding one is one entry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dermdistill.config import Recipe
from dermdistill.errors import ConfigError
from dermdistill.recipes.load import parse_recipe

CONTROL = "no_teacher"
GROUPS = ("arms", "grid", "search", "optional")


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        title: for people.
        group: ``arms``, ``grid``, ``search`` (settings of multi-stage + layer fusion, among which the validation part
            chooses) or ``optional``.
        changes: keys of the recipe, dotted, and their values in this row.
        control: a further row that it is compared with, beside the student without a teacher.
    """

    title: str
    group: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    control: str | None = None


_LABELS_ONLY = {"student.distill.alpha": 0.0, "student.distill.beta": 0.0, "student.distill.gamma": 1.0}
_FUSED = "no_teacher_fusion"
_PLAIN = {"student.model.exits": [], "student.model.fusion": False, "student.distill.stages": []}


def _single(temperature: float, share: float, **more: Any) -> dict[str, Any]:
    """Single-stage distillation ``share * T^2 * KL + (1 - share) * classification`` of a plain student."""
    return {
        **_PLAIN,
        "student.distill.alpha": 0.0,
        "student.distill.beta": share,
        "student.distill.gamma": round(1 - share, 10),
        "student.distill.temperature": temperature,
        **{f"student.distill.{name}": value for name, value in more.items()},
    }


def _weights(alpha: float, beta: float, gamma: float) -> dict[str, Any]:
    return {f"student.distill.{name}": value for name, value in (("alpha", alpha), ("beta", beta), ("gamma", gamma))}


ROWS: dict[str, Row] = {
    CONTROL: Row("no teacher", "arms", {**_PLAIN, **_LABELS_ONLY}),
    "no_teacher_fusion": Row(
        "no teacher, layer fusion", "arms", {**_LABELS_ONLY, "student.model.exits": [], "student.distill.stages": []}
    ),
    "single_stage": Row("single-stage (T 2, alpha .5)", "arms", _single(2.0, 0.5)),
    "multi_stage": Row(
        "multi-stage", "arms", {"student.model.fusion": False, "student.distill.feature_share": 0.0}
    ),
    "multi_stage_fusion": Row("multi-stage + layer fusion", "arms", {}, _FUSED),
    "t1_a50": Row("single-stage, T 1, alpha .5", "grid", _single(1.0, 0.5)),
    "t1_a90": Row("single-stage, T 1, alpha .9", "grid", _single(1.0, 0.9)),
    "t2_a50": Row("single-stage, T 2, alpha .5", "grid", _single(2.0, 0.5)),
    "t2_a90": Row("single-stage, T 2, alpha .9", "grid", _single(2.0, 0.9)),
    "fusion_logits": Row(
        "multi-stage + layer fusion, logits alone", "search", {"student.distill.feature_share": 0.0}, _FUSED
    ),
    "fusion_teacher_heavy": Row(
        "multi-stage + layer fusion, weights .1/.8/.1", "search", _weights(0.1, 0.8, 0.1), _FUSED
    ),
    "fusion_teacher_only": Row(
        "multi-stage + layer fusion, weights .1/.9/0", "search", _weights(0.1, 0.9, 0.0), _FUSED
    ),
    "logit_std": Row("LogitStd", "optional", _single(2.0, 0.5, logits_loss="logit_std")),
    "dist": Row("DIST", "optional", _single(1.0, 0.5, logits_loss="dist")),
    "class_rebalanced": Row("class-rebalanced KD", "optional", _single(2.0, 0.5, logits_loss="class_rebalanced")),
    "fitnet": Row(
        "KD + feature matching (FitNet)",
        "optional",
        {**_single(2.0, 0.3), "student.distill.alpha": 0.3, "student.distill.gamma": 0.4,
         "student.distill.feature_share": 1.0},
    ),
    "attention": Row("KD + attention transfer", "optional", _single(2.0, 0.5, attention=100.0)),
    "relational": Row("KD + relational (distance, angle)", "optional", _single(2.0, 0.5, relational=1.0)),
    "self_distillation": Row(
        "self-distillation, no teacher",
        "optional",
        {**_LABELS_ONLY, "student.model.fusion": False, "student.distill.stages": [],
         "student.distill.self_distillation": 0.3},
    ),
    "gradient_balance": Row(
        "multi-stage + layer fusion, weights by gradient norm",
        "optional",
        {"student.distill.balance": "gradient_norm"},
        _FUSED,
    ),
    "no_teacher_unmixed": Row("no teacher, no mixup", "optional", {**_PLAIN, **_LABELS_ONLY, "augment.mixup": 0.0}),
    "dkd": Row(
        "DKD (no mixup)",
        "optional",
        {**_single(2.0, 0.5, logits_loss="dkd", dkd_beta=2.0), "augment.mixup": 0.0},
        control="no_teacher_unmixed",
    ),
}  # fmt: skip


def chosen_rows(names: Sequence[str]) -> list[str]:
    """Row names from names of rows and groups, in the order of ``ROWS``, the control and second controls included.

    Raises:
        ConfigError: an unknown name.
    """
    unknown = [name for name in names if name not in ROWS and name not in GROUPS]
    if unknown:
        raise ConfigError(
            f"--rows: unknown {', '.join(repr(name) for name in unknown)}",
            rule=f"groups {', '.join(GROUPS)}; rows {', '.join(ROWS)}",
        )
    wanted = {name for name, row in ROWS.items() if name in names or row.group in names} | {CONTROL}
    wanted |= {control for name in wanted if (control := ROWS[name].control)}
    return [name for name in ROWS if name in wanted]


def searched_rows() -> list[str]:
    """The settings of one method, multi-stage with layer fusion, of which the validation part chooses one."""
    return ["multi_stage_fusion", *(name for name, row in ROWS.items() if row.group == "search")]


def row_recipe(recipe: Recipe, name: str, *, seed: int) -> Recipe:
    """The recipe of one row and seed. Targets are stored; several branches stay joined by fusion in every row.

    Raises:
        ConfigError: the recipe's student cannot have this row.
    """
    values = recipe.model_dump(mode="json")
    changes = {"seed": seed, "student.distill.targets": "stored", **ROWS[name].changes}
    if len(recipe.student.model.branches) > 1:
        changes.pop("student.model.fusion", None)
    for key, value in changes.items():
        _put(values, key.split("."), value)
    return parse_recipe(values, source=f"{recipe.name}, row {name}")


def _put(values: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        values = values[key]
    values[keys[-1]] = value
