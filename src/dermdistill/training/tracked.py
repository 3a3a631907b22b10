"""What every tracker needs: an epoch's line and the settings as flat names, and a package's failure in plain words."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dermdistill.errors import ConfigError, DermdistillError, OutputError


def numbers(role: str, line: Mapping[str, Any]) -> dict[str, float]:
    """Every number of an epoch's line under a stable name, such as ``student/terms/logits_kd/value``.

    Args:
        role: first part of each name.
        line: may be nested; True and False become 1 and 0, what is no number is left out, and so is ``epoch``.
    """
    return {name: value for name, value in _numbers(role, line) if name != f"{role}/epoch"}


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _numbers(f"{name}/{_plain(str(key))}", part)
    elif isinstance(value, int | float):
        yield name, float(value)


def settings_text(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings as flat text: dotted key, as ``--set`` takes it, to value; lists of groups are numbered from 0."""
    return dict(_settings("", settings))


def _settings(name: str, value: Any) -> Iterator[tuple[str, str]]:
    groups = isinstance(value, list | tuple) and any(isinstance(part, Mapping) for part in value)
    if isinstance(value, Mapping) or groups:
        for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _settings(f"{name}.{_plain(str(key))}".removeprefix("."), part)
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, default=str)


def _plain(key: str) -> str:
    """The key in letters that MLflow takes in names."""
    return re.sub(r"[^\w.\- ]", "_", key)


def missing_package(extra: str, error: ImportError) -> ConfigError:
    """The error for a package that an extra of this project would bring."""
    return ConfigError(
        f"tracking: {extra} cannot be imported ({error})",
        rule=f"tracking with {extra} needs the extra of that name",
        next_step=f"pip install 'dermdistill[{extra}]', or take {extra} out of tracking",
    )


@contextmanager
def refused(package: str, place: Path) -> Iterator[None]:
    """What a package raises while it writes, whatever its kind, as our own error."""
    try:
        yield
    except DermdistillError:
        raise
    except Exception as error:
        raise OutputError(
            f"{place}: {package} cannot write there ({error})",
            next_step=f"mend that, or go on without: take {package} out of tracking; training lost nothing",
        ) from error
