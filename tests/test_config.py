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
    OptimConfig,
    Recipe,
    StudentConfig,
    TeacherConfig,
)
from dermdistill.preprocess import PreprocessSpec

BRANCH = {"backbone": "small_cnn"}
MODEL = {"branches": [BRANCH]}
MINIMAL = {"name": "x", "teacher": {"model": MODEL}, "student": {"model": MODEL}}
CONFIGS = [item for item in vars(config).values() if isinstance(item, type) and issubclass(item, Frozen)]


def dumped() -> dict[str, Any]:
    """A fresh copy of a valid recipe with every key."""
    return Recipe.model_validate(MINIMAL).model_dump(mode="json")


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
    assert len(CONFIGS) - 2 <= TABLES and len(NUMBERS) > 60


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
    assert Recipe.model_validate(dumped()) == Recipe.model_validate(MINIMAL)
    shared = OptimConfig().model_dump()
    for role in (TeacherConfig, StudentConfig):
        own = role.model_validate({"model": MODEL}).model_dump()
        assert {key: own[key] for key in shared} == shared, "a role states a second default"


def test_preprocess_takes_size_and_mode_from_the_data_settings() -> None:
    assert DataConfig(size=96, resize="crop").preprocess() == PreprocessSpec(96, "crop")


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


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DataConfig(protocol="given"), "set both or neither"),
        (lambda: DataConfig(split_file="x.csv"), "set both or neither"),
        (lambda: LossConfig(focal_alpha=0.75), "focal_alpha needs focal_gamma"),
        (lambda: DistillConfig(alpha=0, beta=0, gamma=0), "nothing would be learnt"),
        (lambda: ModelConfig.model_validate({**MODEL, "exits": [1, 1]}), "different depth"),
        (lambda: ModelConfig.model_validate({**MODEL, "exits": [4]}), "different depth"),
        (lambda: ModelConfig.model_validate({"branches": [BRANCH, BRANCH], "fusion": False}), "need fusion"),
        (lambda: ModelConfig.model_validate({"branches": []}), "at least 1 item"),
        (
            lambda: Recipe.model_validate(recipe_with(model={**MODEL, "exits": [0, 3]})),
            r"student exits \[0, 3\] have no counterpart",
        ),
        (
            lambda: Recipe.model_validate(recipe_with(model={**MODEL, "exits": []})),
            "needs student.model.exits",
        ),
        (
            lambda: Recipe.model_validate(recipe_with(loss={"focal_gamma": 2, "focal_alpha": 0.5})),
            "student.loss.focal_alpha is for the task 'melanoma' only",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make()


@pytest.mark.parametrize(
    "student",
    [
        {"model": {**MODEL, "exits": [0, 3]}, "distill": {"alpha": 0}},
        {"model": {**MODEL, "exits": []}, "distill": {"feature_share": 1}},
        {"model": {**MODEL, "exits": [2]}},
    ],
)
def test_exits_without_use_for_a_counterpart_are_fine(student: dict[str, Any]) -> None:
    assert isinstance(Recipe.model_validate(recipe_with(**student)), Recipe)


def test_config_module_reads_no_file_and_no_environment() -> None:
    modules = {item.__name__ for item in vars(config).values() if isinstance(item, types.ModuleType)}
    assert modules == set()
