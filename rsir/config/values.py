"""Settings as plain JSON values and back, and the checks that settings share."""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from rsir.errors import ConfigError

__all__ = ["check_types", "choice", "from_dict", "require", "shown", "to_dict"]

Config = TypeVar("Config")


def require(condition: bool, name: str, expected: str, value: object) -> None:
    if not condition:
        raise ConfigError(f"{name}: expected {expected}, got {value!r}")


def shown(value: object) -> str:
    """A value in a message: numbers and short text as they are, else its type, as a frame would fill the screen."""
    plain = value is None or isinstance(value, (bool, int, float, str, bytes))
    return repr(value) if plain and len(repr(value)) < 80 else type(value).__name__


def check_types(config: Any, where: str = "") -> None:
    """Hold every field of a configuration to its annotation: what ``__post_init__`` does before it checks values.

    An int becomes a float where one is due, NumPy's numbers and arrays Python's, a path text.

    Raises
    ------
    ConfigError
        Names the field, what was expected and what came.
    """
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        name = f"{where}.{field.name}" if where else field.name
        if dataclasses.is_dataclass(hint):
            require(isinstance(value, typing.cast(type, hint)), name, f"a {hint.__name__}", value)  # type: ignore[union-attr]
            continue
        plain = value.tolist() if type(value).__module__ == "numpy" else value  # which is not imported for settings
        plain = os.fspath(plain) if isinstance(plain, os.PathLike) else plain
        plain = _typed(hint, list(plain) if isinstance(plain, tuple) else plain, name)
        if plain is not value:
            object.__setattr__(config, field.name, plain)


def choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    require(value in choices, name, "one of " + ", ".join(choices), value)


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values; :func:`from_dict` reads it back."""
    return dataclasses.asdict(config)


def from_dict(kind: type[Config], values: Mapping[str, Any], where: str = "") -> Config:
    """Build a configuration from JSON values, refusing unknown keys; its constructor refuses wrong types.

    Parameters
    ----------
    kind : a configuration dataclass
    values : mapping
        May leave out any key that has a default.
    where : str
        Dotted name of the mapping, for messages.

    Raises
    ------
    ConfigError
        Names the key, what was expected and what came.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'configuration'}: expected a mapping, got {type(values).__name__}")
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{where}.{key}" if where else str(key)
        if key not in names:
            raise ConfigError(f"{name}: unknown option; known here: {', '.join(names)}")
        hint = hints[key]
        nested = dataclasses.is_dataclass(hint)
        arguments[key] = from_dict(typing.cast(type, hint), value, name) if nested else value
    return kind(**arguments)


def _typed(hint: Any, value: Any, name: str) -> Any:
    """The value, an int widened where a float is due; ConfigError when it does not fit the annotation."""
    if _fits(hint, value):
        return value
    if type(value) is int and abs(value) < 2**1000 and _fits(hint, float(value)):
        return float(value)
    if typing.get_origin(hint) is Literal:
        expected = "one of " + ", ".join(map(str, typing.get_args(hint)))
    else:
        expected = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
    raise ConfigError(f"{name}: expected {expected}, got {value!r}")


def _fits(hint: Any, value: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin is Literal:
        return value in typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(option, value) for option in typing.get_args(hint))
    if origin is list:
        return isinstance(value, list) and all(_fits(typing.get_args(hint)[0], v) for v in value)
    return type(value) is hint or (hint is type(None) and value is None)
