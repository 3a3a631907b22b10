"""Read a recipe by name or file, change keys, and say in plain words what is wrong with it."""

import reprlib
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from dermdistill.config import EvaluateConfig, Recipe
from dermdistill.errors import ConfigError

Config = TypeVar("Config", bound=BaseModel)
# PyYAML lets a date such as 2024-13-45 end in a ValueError.
NOT_YAML = (yaml.YAMLError, ValueError)


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("dermdistill.recipes")
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_recipe(name: str, settings: list[str] | None = None) -> Recipe:
    """A recipe with some keys changed.

    Args:
        name: of a packaged recipe, or path of a YAML file.
        settings: ``key=value`` each, keys dotted (``student.epochs=5``), values in YAML.

    Raises:
        ConfigError: unknown recipe or key, unreadable YAML, or a value that cannot work; all faults at once.
    """
    values = _read(name)
    for setting in settings or []:
        _apply(values, setting)
    return parse_recipe(values, source=name)


def parse_recipe(values: Any, *, source: str) -> Recipe:
    """Validate a recipe's values; ``source`` names it in errors.

    Raises:
        ConfigError: with every fault and the keys that exist beside an unknown one.
    """
    return parse_config(Recipe, values, source=f"recipe {source!r}")


def evaluate_settings(settings: list[str]) -> EvaluateConfig:
    """The section ``evaluate`` with some keys changed, for an evaluation outside any run.

    Args:
        settings: ``evaluate.key=value`` each, as in ``load_recipe``.

    Raises:
        ConfigError: another section, an unknown key, or a value that cannot work.
    """
    values = check_section(settings, "evaluate", example="evaluate.robustness_images=0")
    return parse_config(EvaluateConfig, values, source="evaluate")


def check_section(settings: list[str], section: str, *, example: str) -> dict[str, Any]:
    """The values that settings give to one section, for a command that takes no other.

    Args:
        settings: ``key=value`` each, as in ``load_recipe``.
        section: of the recipe.
        example: a setting that works, for the error.

    Raises:
        ConfigError: a key of another section.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        _apply(values, setting)
    others = sorted(set(values) - {section})
    if others:
        raise ConfigError(
            f"--set {others[0]}: is no key of this command",
            rule=f"the models are finished: keys of the section {section} alone can be set",
            next_step=f"--set {example}, for example",
        )
    found: dict[str, Any] = values.get(section, {})
    return found


def parse_config(model: type[Config], values: Any, *, source: str) -> Config:
    """Validate the values of any settings; ``source`` names them in errors.

    Raises:
        ConfigError: with every fault and the keys that exist beside an unknown one.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = "".join(f"\n  - {_fault(item, model)}" for item in error.errors())
        raise ConfigError(
            f"{source} cannot work:{faults}",
            next_step="`dermdistill recipes show quick` prints every key with a value that works",
        ) from error


def recipe_text(recipe: Recipe) -> str:
    """The whole recipe, defaults included, as YAML."""
    text: str = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, width=110)
    return text


def _read(name: str) -> dict[str, Any]:
    names = recipe_names()
    if name in names:
        text = resources.files("dermdistill.recipes").joinpath(f"{name}.yaml").read_text()
    elif Path(name).is_file():
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{name}: cannot be read ({error})", rule="a recipe is YAML in UTF-8") from error
    else:
        raise ConfigError(f"unknown recipe {name!r}", rule=f"one of {', '.join(names)}, or the path of a YAML file")
    try:
        values = yaml.safe_load(text)
    except NOT_YAML as error:
        raise ConfigError(f"{name}: is not YAML: {error}", rule="a YAML table of keys") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{name}: holds no recipe", rule="a YAML table of keys")
    return values


def _apply(values: dict[str, Any], setting: str) -> None:
    key, found, text = setting.partition("=")
    if not found or not key:
        raise ConfigError(f"--set {setting!r}", rule="key=value, such as student.epochs=5")
    try:
        value = yaml.safe_load(text)
    except NOT_YAML as error:
        raise ConfigError(
            f"--set {setting!r}: the value is not YAML: {error}", rule="key=value, such as student.epochs=5"
        ) from error
    target: Any = values
    *parents, last = key.split(".")
    for name in parents:
        target = _step(target, name, setting)
    if isinstance(target, list):
        target[_index(target, last, setting)] = value
    elif isinstance(target, dict):
        target[last] = value
    else:
        raise ConfigError(
            f"--set {setting!r}: {'.'.join(parents)} is a value, not a table", rule="keys stand in tables"
        )


def _step(target: Any, name: str, setting: str) -> Any:
    if isinstance(target, list):
        return target[_index(target, name, setting)]
    if not isinstance(target, dict):
        raise ConfigError(
            f"--set {setting!r}: {name!r} is no key here: its parent is a value", rule="keys stand in tables"
        )
    return target.setdefault(name, {})


def _index(target: list[Any], name: str, setting: str) -> int:
    if not name.isdecimal() or int(name) >= len(target):
        raise ConfigError(f"--set {setting!r}: {name!r} is no place in a list of {len(target)}", rule="0 is the first")
    return int(name)


def _fault(item: Any, model: type[BaseModel]) -> str:
    location = [str(part) for part in item["loc"]]
    if item["type"] == "extra_forbidden":
        known = _keys_at(model, location[:-1])
        return f"{'.'.join(location)}: unknown key; known here: {', '.join(known)}"
    message = item["msg"].removeprefix("Value error, ")
    given = item.get("input")
    shown = "" if isinstance(given, dict | BaseModel) else f" (given: {reprlib.repr(given)})"
    return f"{'.'.join(location) or 'recipe'}: {message}{shown}"


def _keys_at(model: Any, location: list[str]) -> list[str]:
    for name in location:
        if name.isdecimal():
            continue
        annotation = model.model_fields[name].annotation
        arguments = [a for a in getattr(annotation, "__args__", ()) if isinstance(a, type)]
        model = next((a for a in arguments if issubclass(a, BaseModel)), annotation)
    return list(model.model_fields)
