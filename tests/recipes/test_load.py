"""Recipes by name and file, and changes of single keys."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dermdistill.config import BranchConfig, DataConfig, Recipe
from dermdistill.errors import ConfigError
from dermdistill.recipes.load import load_recipe, parse_config, parse_recipe, recipe_names, recipe_text


def leaves(values: Any, prefix: str = "") -> dict[str, Any]:
    """Every value below tables, by dotted key; lists count as values and by their places."""
    found: dict[str, Any] = {} if isinstance(values, dict) else {prefix: values}
    items = values.items() if isinstance(values, dict) else enumerate(values) if type(values) is list else ()
    for key, value in items:
        found |= leaves(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def test_the_recipes_of_the_design_are_there() -> None:
    assert set(recipe_names()) >= {"quick", "edge", "fusion", "melanoma"}


@pytest.mark.parametrize("name", recipe_names())
def test_every_packaged_recipe_loads_and_describes_itself(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name and len(recipe.description) > 40


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_text_holds_every_key_and_gives_the_recipe_back(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    text = recipe_text(recipe)
    (tmp_path / "mine.yaml").write_text(text)
    assert load_recipe(str(tmp_path / "mine.yaml")) == recipe
    assert yaml.safe_load(text) == recipe.model_dump(mode="json")


@pytest.mark.parametrize("name", recipe_names())
def test_setting_every_key_to_its_value_changes_nothing(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    (tmp_path / "mine.yaml").write_text(recipe_text(recipe))
    values = leaves(recipe.model_dump(mode="json"))
    words = [f"{key}={json.dumps(value)}" for key, value in values.items()]  # JSON is YAML too
    assert len(words) > 80 and any(word.startswith("teacher.model.branches.0.") for word in words)
    assert load_recipe(str(tmp_path / "mine.yaml"), words) == recipe


@settings(deadline=None, max_examples=25)
@given(epochs=st.integers(1, 10_000), rate=st.floats(1e-6, 1))
def test_set_changes_that_key_alone(epochs: int, rate: float) -> None:
    before = load_recipe("quick")
    after = load_recipe("quick", [f"student.epochs={epochs}", f"student.learning_rate={rate!r}"])
    assert (after.student.epochs, after.student.learning_rate) == (epochs, rate)
    student = after.student.model_copy(
        update={"epochs": before.student.epochs, "learning_rate": before.student.learning_rate}
    )
    assert after.model_copy(update={"student": student}) == before


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("teacher.model.branches.1.backbone=resnet18", ("vit_tiny", "resnet18")),
        ("teacher.model.branches.0={backbone: resnet50}", ("resnet50", "convnext_atto")),
        ("teacher.model.branches=[{backbone: resnet34}]", ("resnet34",)),
    ],
)
def test_set_reaches_into_lists(setting: str, found: tuple[str, ...]) -> None:
    recipe = load_recipe("quick", [setting])
    assert tuple(branch.backbone for branch in recipe.teacher.model.branches) == found


def test_set_makes_tables_that_the_file_leaves_out_and_the_last_one_counts() -> None:
    recipe = load_recipe("quick", ["student.distill.alpha=0.1", "student.distill.alpha=1e-1", "explain.wrong=0"])
    assert (recipe.student.distill.alpha, recipe.explain.wrong) == (0.1, 0)
    assert recipe.student.distill.beta == load_recipe("quick").student.distill.beta


def test_a_value_may_hold_the_equals_sign() -> None:
    assert load_recipe("quick", ["description=a=b"]).description == "a=b"


def test_settings_do_not_stick_to_the_packaged_recipe() -> None:
    load_recipe("quick", ["seed=99", "teacher.model.branches.0.backbone=resnet18"])
    assert load_recipe("quick").seed == 0
    assert load_recipe("quick").teacher.model.branches[0].backbone == "vit_tiny"


def test_unknown_keys_list_what_exists_at_that_place() -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("quick", ["data.sizes=64", "teacher.model.branches.0.width=3", "tempo=1"])
    lines = {line.split(":")[0].strip(" -"): line for line in str(caught.value).splitlines()}
    assert lines["data.sizes"].endswith(f"known here: {', '.join(DataConfig.model_fields)}")
    assert lines["teacher.model.branches.0.width"].endswith(f"known here: {', '.join(BranchConfig.model_fields)}")
    assert lines["tempo"].endswith(f"known here: {', '.join(Recipe.model_fields)}")


@pytest.mark.parametrize("setting", ["epochs", "=3", "seed=[1", "seed={a", "name=2024-13-45", "a.b.c=1"])
def test_settings_that_cannot_work_are_named(setting: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("quick", [setting])
    assert (
        setting.split("=", maxsplit=1)[0].split(".", maxsplit=1)[0] in str(caught.value)
        and caught.value.rule + caught.value.next_step
    )


@pytest.mark.parametrize("values", [None, True, 3, "quick", [], [{"name": "x"}]])
def test_values_that_are_no_table_are_refused(values: Any) -> None:
    with pytest.raises(ConfigError, match="recipe 'mine' cannot work"):
        parse_recipe(values, source="mine")


@settings(deadline=None, max_examples=25)
@given(st.dictionaries(st.sampled_from(list(DataConfig.model_fields)), st.none() | st.integers() | st.text()))
def test_any_settings_give_a_config_or_a_config_error(values: dict[str, Any]) -> None:
    try:
        assert isinstance(parse_config(DataConfig, values, source="mine"), DataConfig)
    except ConfigError as error:
        assert any(name in str(error) for name in [*values, "split_file"])
