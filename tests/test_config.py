"""The settings: frozen, unknown keys refused, finite, and sound together."""

import itertools
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from dermdistill import config
from dermdistill.config import (
    DataConfig,
    DistillConfig,
    Frozen,
    LossConfig,
    ModelConfig,
    NetworkConfig,
    OptimConfig,
    Recipe,
    StudentConfig,
    TeacherConfig,
)
from dermdistill.errors import ConfigError
from dermdistill.preprocess import PreprocessSpec
from dermdistill.recipes.load import load_recipe

BRANCH = {"backbone": "small_cnn"}
MODEL = {"branches": [BRANCH]}
MINIMAL = {"name": "x", "teacher": {"model": MODEL}, "student": {"model": MODEL}}
# With an entry in every list and a value where the default is None.
FULL = {
    "name": "x",
    "teacher": {"model": MODEL, "size": 96},
    "student": {
        "model": MODEL,
        "distill": {
            "stages": [{"depth": 1, "beta": 0.2, "temperature": 3.0}],
            "other_teachers": [{"run": "runs/other"}],
        },
    },
}
CONFIGS = [item for item in vars(config).values() if isinstance(item, type) and issubclass(item, Frozen)]


def dumped() -> dict[str, Any]:
    """A fresh copy of a valid recipe with every key and no empty list."""
    return Recipe.model_validate(FULL).model_dump(mode="json")


def kinds(settings: BaseModel) -> Iterator[type[BaseModel]]:
    """The models that settings are made of."""
    yield type(settings)
    for _, value in settings:
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, BaseModel):
                yield from kinds(part)


def tables(values: Any) -> Iterator[dict[str, Any]]:
    """Every table of a recipe except the free options of a backbone."""
    if isinstance(values, dict):
        yield values
        for key, value in values.items():
            if key != "options":
                yield from tables(value)
    elif isinstance(values, list):
        for value in values:
            yield from tables(value)


TABLES = len(list(tables(dumped())))
NUMBERS = [
    (table, key)
    for table, values in enumerate(tables(dumped()))
    for key, value in values.items()
    if type(value) in (int, float)
]


def test_the_walk_over_a_recipe_reaches_all_of_it() -> None:
    recipe = Recipe.model_validate(FULL)
    assert set(CONFIGS) - set(kinds(recipe)) == {Frozen, OptimConfig, NetworkConfig}
    assert len(list(kinds(recipe))) == TABLES and len(NUMBERS) > 70


@pytest.mark.parametrize("table", range(TABLES))
def test_unknown_keys_are_refused_everywhere(table: int) -> None:
    values = dumped()
    list(tables(values))[table]["no_such_key"] = 1
    with pytest.raises(ValidationError, match="no_such_key"):
        Recipe.model_validate(values)


@pytest.mark.parametrize(("table", "key"), NUMBERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, 1e12])
def test_no_number_may_be_absurd(table: int, key: str, value: float) -> None:
    values = dumped()
    list(tables(values))[table][key] = value
    unbounded = {"clip_norm", "warmup_epochs", "seed", "bootstrap_seed", "patience"}
    if value == 1e12 and key in unbounded:
        return
    with pytest.raises(ValidationError, match=key):
        Recipe.model_validate(values)


@pytest.mark.parametrize("model", CONFIGS, ids=lambda model: model.__name__)
def test_settings_are_frozen_and_documented(model: type[BaseModel]) -> None:
    assert model.model_config["frozen"] and model.model_config["extra"] == "forbid" and model.__doc__
    recipe = Recipe.model_validate(MINIMAL)
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 1  # type: ignore[misc]


def test_defaults_are_valid_and_stand_for_what_is_left_out() -> None:
    assert Recipe.model_validate(dumped()) == Recipe.model_validate(FULL)
    minimal = Recipe.model_validate(MINIMAL)
    assert Recipe.model_validate(minimal.model_dump(mode="json")) == minimal
    shared = NetworkConfig.model_validate({"model": MODEL}).model_dump()
    assert OptimConfig().model_dump().items() <= shared.items()
    for role in (TeacherConfig, StudentConfig):
        own = role.model_validate({"model": MODEL}).model_dump()
        assert {key: own[key] for key in shared} == shared, "a role states a second default"
    assert "distill" not in TeacherConfig.model_fields and "size" not in StudentConfig.model_fields


def test_preprocess_takes_size_and_mode_from_the_data_settings() -> None:
    data = DataConfig(size=96, resize="crop")
    assert data.preprocess() == PreprocessSpec(96, "crop")
    assert data.preprocess(128) == PreprocessSpec(128, "crop")


REMEDIES = {"logit_adjustment": 1.0, "focal_gamma": 2.0, "class_weights": True, "sampler": True}


@pytest.mark.parametrize("name", REMEDIES)
def test_one_remedy_for_imbalance_is_fine(name: str) -> None:
    assert getattr(LossConfig.model_validate({name: REMEDIES[name]}), name) == REMEDIES[name]


@pytest.mark.parametrize("names", [*itertools.combinations(REMEDIES, 2), tuple(REMEDIES)])
def test_stacked_remedies_are_refused_by_name(names: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match=f"{' and '.join(names)} are stacked"):
        LossConfig.model_validate({name: REMEDIES[name] for name in names})


def recipe_with(**student: Any) -> dict[str, Any]:
    return {**MINIMAL, "student": {"model": MODEL, **student}}


def distilling(*exits: int, teacher_exits: tuple[int, ...] = (1, 2), **distill: Any) -> dict[str, Any]:
    """A recipe whose student has these exits and learns as said."""
    student = {"model": {**MODEL, "exits": exits}, "distill": distill}
    return {"name": "x", "teacher": {"model": {**MODEL, "exits": teacher_exits}}, "student": student}


def melanoma(recipe: dict[str, Any]) -> dict[str, Any]:
    return {**recipe, "task": "melanoma"}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DataConfig(protocol="given"), "set both or neither"),
        (lambda: DataConfig(split_file="x.csv"), "set both or neither"),
        (lambda: LossConfig(focal_alpha=0.75), "focal_alpha needs focal_gamma"),
        (lambda: ModelConfig.model_validate({**MODEL, "exits": [1, 1]}), "different depth"),
        (lambda: ModelConfig.model_validate({**MODEL, "exits": [4]}), "different depth"),
        (lambda: ModelConfig.model_validate({"branches": [BRANCH, BRANCH], "fusion": False}), "need fusion"),
        (lambda: ModelConfig.model_validate({"branches": []}), "at least 1 item"),
        (
            lambda: Recipe.model_validate(recipe_with(loss={"focal_gamma": 2, "focal_alpha": 0.5})),
            "student.loss.focal_alpha is for the task 'melanoma' only",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make()


NO_WEIGHT = {"alpha": 0, "beta": 0, "gamma": 0}


@pytest.mark.parametrize(
    ("distill", "said"),
    [
        (NO_WEIGHT, "nothing would be learnt"),
        ({**NO_WEIGHT, "stages": [{"depth": 1}]}, "nothing would be learnt"),
        ({"stages": [{"depth": 1, "beta": 1}, {"depth": 1}]}, r"stages name depths \[1, 1\]: each depth at most once"),
        ({"alpha": 0, "beta": 0, "other_teachers": [{"run": "r"}]}, "no term learns from a teacher"),
        ({"logits_loss": "mse"}, "'kd', 'dkd', 'logit_std', 'dist' or 'class_rebalanced'"),
        ({"stages": [{"depth": 4}]}, "less than or equal to 3"),
        ({"stages": [{"depth": 1, "temperature": 0}]}, "greater than 0"),
        ({"other_teachers": [{"run": "r", "weight": 0}]}, "greater than 0"),
    ],
)
def test_distillation_that_cannot_work_is_refused(distill: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DistillConfig.model_validate(distill)


@pytest.mark.parametrize("name", ["attention", "relational"])
def test_one_optional_term_is_enough_to_learn_from_a_teacher(name: str) -> None:
    config = DistillConfig.model_validate({**NO_WEIGHT, name: 1.0})
    assert config.needs_teacher


@pytest.mark.parametrize(
    ("distill", "needs"),
    [
        ({}, True),
        ({"alpha": 0, "beta": 0}, False),
        ({"alpha": 0, "beta": 0, "self_distillation": 1}, False),
        ({"alpha": 0, "beta": 0, "stages": [{"depth": 1, "gamma": 1}]}, False),
        ({"alpha": 0, "beta": 0, "stages": [{"depth": 1, "beta": 1}]}, True),
        ({"alpha": 0, "beta": 0, "stages": [{"depth": 1, "alpha": 1}]}, True),
    ],
)
def test_a_teacher_is_needed_where_a_term_learns_from_one(distill: dict[str, Any], needs: bool) -> None:
    assert DistillConfig.model_validate(distill).needs_teacher == needs


STAGE_2 = {"depth": 2, "beta": 1.0}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (distilling(0, 3), r"student exits \[0, 3\] have no counterpart in the teacher's \[1, 2\]"),
        (distilling(1, 2, teacher_exits=(1,)), r"student exits \[2\] have no counterpart in the teacher's \[1\]"),
        (
            distilling(2, teacher_exits=(1,), alpha=0, stages=[STAGE_2]),
            r"student exits \[2\] have no counterpart in the teacher's \[1\]",
        ),
        (
            distilling(1, 2, teacher_exits=(2,), stages=[STAGE_2]),
            r"student exits \[1\] have no counterpart in the teacher's \[2\]",
        ),
        (distilling(1, stages=[STAGE_2]), r"stages name depths \[2\]; the student's exits are \[1\]"),
        (distilling(), "alpha > 0 needs student.model.exits, or feature_share=1"),
        (distilling(alpha=0, self_distillation=1), "self_distillation needs student.model.exits"),
    ],
)
def test_exits_that_cannot_learn_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Recipe.model_validate(values)


@pytest.mark.parametrize(
    "values",
    [
        distilling(0, 3, alpha=0),
        distilling(0, 3, feature_share=1),
        distilling(0, alpha=0, self_distillation=1),
        distilling(0, 1, stages=[{"depth": 0, "alpha": 1, "gamma": 1}]),
        distilling(feature_share=1),
        distilling(2),
        distilling(1, 2, stages=[STAGE_2]),
    ],
)
def test_exits_with_a_counterpart_or_no_use_for_one_are_fine(values: dict[str, Any]) -> None:
    assert isinstance(Recipe.model_validate(values), Recipe)


DKD = distilling(1, logits_loss="dkd")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (melanoma(distilling(1, logits_loss="logit_std")), "logits_loss=logit_std with two classes: the z-scores"),
        (melanoma(DKD), "logits_loss=dkd with two classes: NCKD is exactly 0"),
        ({**DKD, "augment": {"mixup": 0.1}}, "dkd needs one true class an image: set augment.mixup=0"),
        (
            {**DKD, "student": {**DKD["student"], "loss": {"label_smoothing": 0.1}}},
            "dkd needs one true class an image: .*student.loss.label_smoothing=0",
        ),
    ],
)
def test_logits_losses_that_cannot_work_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Recipe.model_validate(values)


@pytest.mark.parametrize(
    "values",
    [
        DKD,
        {**DKD, "teacher": {**DKD["teacher"], "loss": {"label_smoothing": 0.1}}},
        distilling(1, logits_loss="logit_std"),
        *(melanoma(distilling(1, logits_loss=name)) for name in ("kd", "dist", "class_rebalanced")),
        *({**distilling(1, logits_loss=name), "augment": {"mixup": 0.3}} for name in ("kd", "logit_std", "dist")),
    ],
)
def test_logits_losses_that_can_work_are_fine(values: dict[str, Any]) -> None:
    assert isinstance(Recipe.model_validate(values), Recipe)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_batch_of_one_is_refused(role: str) -> None:
    with pytest.raises(ValidationError, match="batch_size"):
        Recipe.model_validate({**MINIMAL, role: {"model": MODEL, "batch_size": 1}})


def test_config_module_reads_no_file_and_no_environment() -> None:
    modules = {item.__name__ for item in vars(config).values() if isinstance(item, types.ModuleType)}
    assert modules == set()


def test_alpha_that_no_term_takes_is_refused() -> None:
    stages = [{"depth": 1, "beta": 0.1}, {"depth": 2, "beta": 0.1}]
    with pytest.raises(ConfigError, match="no term left"):
        load_recipe("quick", ["student.distill.feature_share=0", f"student.distill.stages={stages}"])


def test_relations_of_two_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="three corners"):
        load_recipe("quick", ["student.distill.relational=1", "student.batch_size=2"])


def test_teacher_named_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="at most once"):
        load_recipe("quick", ["student.distill.other_teachers=[{run: a}, {run: a}]"])
