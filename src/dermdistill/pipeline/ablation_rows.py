"""The rows of an ablation: students that differ from the recipe's in one thing each. Adding one is one entry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dermdistill.config import Recipe, StudentConfig
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
        distill: takes the place of the recipe's ``student.distill`` but for its teachers; None keeps it.
        control: a further row that it is compared with, beside the student without a teacher.
        needs: keys of ``NEEDS``, what the recipe's student must have for the row to be what it is called.
    """

    title: str
    group: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    distill: Mapping[str, Any] | None = None
    control: str | None = None
    needs: tuple[str, ...] = ()


NEEDS = {
    "exits": "student.model.exits",
    "intermediate": "a weight for exits (student.distill.alpha or stages)",
    "fusion": "student.model.fusion",
}
_ALONE = {"alpha": 0.0, "beta": 0.0, "gamma": 1.0}
_PLAIN: Mapping[str, Any] = {"student.model.exits": [], "student.model.fusion": False}
_NO_EXITS: Mapping[str, Any] = {"student.model.exits": []}
_NO_FUSION: Mapping[str, Any] = {"student.model.fusion": False}
_FUSED = "no_teacher_fusion"
_STAGES = ("exits", "intermediate")


def _kd(temperature: float, share: float, **more: Any) -> dict[str, Any]:
    """``share * T^2 * KL + (1 - share) * classification``, and further terms."""
    weights = {"alpha": 0.0, "beta": share, "gamma": round(1 - share, 10)}
    return {**weights, "temperature": temperature, **more}


def _single(title: str, group: str, distill: Mapping[str, Any]) -> Row:
    """A student without exits and fusion, with these terms alone."""
    return Row(title, group, _PLAIN, distill)


def _fused(title: str, group: str, **changes: Any) -> Row:
    """The recipe's own student with other keys of ``student.distill``."""
    keys = {f"student.distill.{name}": value for name, value in changes.items()}
    return Row(title, group, keys, control=_FUSED, needs=(*_STAGES, "fusion"))


ROWS: dict[str, Row] = {
    CONTROL: _single("no teacher", "arms", _ALONE),
    "no_teacher_fusion": Row("no teacher, layer fusion", "arms", _NO_EXITS, _ALONE, needs=("fusion",)),
    "single_stage": _single("single-stage (T 2, alpha .5)", "arms", _kd(2.0, 0.5)),
    "multi_stage": Row("multi-stage", "arms", {**_NO_FUSION, "student.distill.feature_share": 0.0}, needs=_STAGES),
    "multi_stage_fusion": _fused("multi-stage + layer fusion", "arms"),
    "t1_a50": _single("single-stage, T 1, alpha .5", "grid", _kd(1.0, 0.5)),
    "t1_a90": _single("single-stage, T 1, alpha .9", "grid", _kd(1.0, 0.9)),
    "t2_a50": _single("single-stage, T 2, alpha .5", "grid", _kd(2.0, 0.5)),
    "t2_a90": _single("single-stage, T 2, alpha .9", "grid", _kd(2.0, 0.9)),
    "fusion_logits": _fused("multi-stage + layer fusion, logits alone", "search", feature_share=0.0),
    "fusion_teacher_heavy": _fused(
        "multi-stage + layer fusion, weights .1/.8/.1", "search", alpha=0.1, beta=0.8, gamma=0.1
    ),
    "fusion_teacher_only": _fused(
        "multi-stage + layer fusion, weights .1/.9/0", "search", alpha=0.1, beta=0.9, gamma=0.0
    ),
    "logit_std": _single("LogitStd", "optional", _kd(2.0, 0.5, logits_loss="logit_std")),
    "dist": _single("DIST", "optional", _kd(1.0, 0.5, logits_loss="dist")),
    "class_rebalanced": _single("class-rebalanced KD", "optional", _kd(2.0, 0.5, logits_loss="class_rebalanced")),
    "fitnet": _single(
        "KD + feature matching (FitNet)",
        "optional",
        {"alpha": 0.3, "beta": 0.3, "gamma": 0.4, "temperature": 2.0, "feature_share": 1.0},
    ),
    "attention": _single("KD + attention transfer (last stage)", "optional", _kd(2.0, 0.5, attention=100.0)),
    "relational": _single("KD + relational (distance, angle)", "optional", _kd(2.0, 0.5, relational=1.0)),
    "self_distillation": Row(
        "self-distillation, no teacher", "optional", _NO_FUSION, {**_ALONE, "self_distillation": 0.3}, needs=("exits",)
    ),
    "gradient_balance": _fused(
        "multi-stage + layer fusion, weights by gradient norm", "optional", balance="gradient_norm"
    ),
    "focal": Row(
        "no teacher, focal loss (gamma 2)",
        "optional",
        {**_PLAIN, "student.loss.logit_adjustment": 0.0, "student.loss.focal_gamma": 2.0},
        _ALONE,
    ),
    "cross_entropy": Row(
        "no teacher, plain cross-entropy",
        "optional",
        {**_PLAIN, "student.loss.logit_adjustment": 0.0, "student.loss.focal_gamma": 0.0},
        _ALONE,
    ),
    "no_teacher_unmixed": Row("no teacher, no mixup", "optional", {**_PLAIN, "augment.mixup": 0.0}, _ALONE),
    "dkd": Row(
        "DKD (no mixup)",
        "optional",
        {**_PLAIN, "augment.mixup": 0.0},
        _kd(2.0, 0.5, logits_loss="dkd", dkd_beta=2.0),
        control="no_teacher_unmixed",
    ),
}


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
    """The recipe of one row and seed. Targets are stored.

    Raises:
        ConfigError: the recipe's student cannot have this row, or the row would not be what it is called.
    """
    row = ROWS[name]
    _require(recipe, name, row)
    values = recipe.model_dump(mode="json")
    if row.distill is not None:
        values["student"]["distill"] = {**row.distill, **_teachers_of(recipe, row.distill)}
    changes = {"seed": seed, "student.distill.targets": "stored", **row.changes}
    if _joins_branches(recipe.student):
        changes.pop("student.model.fusion", None)
    for key, value in changes.items():
        _put(values, key.split("."), value)
    return parse_recipe(values, source=f"{recipe.name}, row {name}")


def _joins_branches(student: StudentConfig) -> bool:
    """Several branches have nothing but fusion to join them, so that every row has it."""
    return len(student.model.branches) > 1


def _require(recipe: Recipe, name: str, row: Row) -> None:
    student = recipe.student
    has = {
        "exits": bool(student.model.exits),
        "intermediate": student.distill.alpha > 0 or bool(student.distill.stages),
        "fusion": student.model.fusion,
    }
    missing = [NEEDS[part] for part in row.needs if not has[part]]
    if missing:
        raise ConfigError(
            f"{recipe.name}, row {name}: its student lacks {', '.join(missing)}",
            rule=f"the row is called {row.title!r}",
            next_step="set what is lacking, or choose other --rows",
        )
    if _joins_branches(student) and name in ("no_teacher_fusion", "multi_stage"):
        raise ConfigError(
            f"{recipe.name}, row {name}: its student joins several branches by fusion, in every row",
            rule=f"the row is called {row.title!r}, but would be another row once more",
        )


def _teachers_of(recipe: Recipe, distill: Mapping[str, Any]) -> dict[str, Any]:
    """Which teachers a row has that is taught at all: those of the recipe."""
    if not any(distill.get(weight, 0) for weight in ("alpha", "beta", "attention", "relational")):
        return {}
    return recipe.student.distill.model_dump(mode="json", include={"teacher_weight", "other_teachers"})


def _put(values: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        values = values[key]
    values[keys[-1]] = value
