"""Settings by name: given as in ``rsir.run(rounds=2, generation={"m": 5})``, and those of a configuration."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from typing import Any

from rsir.config.values import from_dict, shown, to_dict
from rsir.errors import ConfigError

__all__ = ["as_text", "flat", "nearest", "with_settings"]

Config = typing.TypeVar("Config")


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """A configuration with some settings changed.

    Parameters
    ----------
    config : a configuration dataclass
    settings : mapping
        By name: a setting (``rounds``), a setting of a section (``generation.m``), or a section: a mapping of its
        settings that change, or the section's own dataclass, which gives all of them. ``model`` may also be the name
        of a backbone. A backbone brings its own defaults, as ``--model`` does on the command line.

    Raises
    ------
    ConfigError
        A name is unknown (the message says which known one is nearest), or given twice, or a value does not fit.
    """
    values = to_dict(config)
    sections = {name: getattr(config, name) for name, value in values.items() if isinstance(value, dict)}
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        for dotted, one in _settings_of(name, value, sections):
            if dotted in flat:
                raise ConfigError(f"{dotted}: given twice")
            flat[dotted] = list(one) if isinstance(one, tuple) else one
    known = [name for name in values if name not in sections]
    known += [f"{section}.{name}" for section in sections for name in values[section]]
    for name in flat:
        if name not in known:
            near = nearest(name, known)
            raise ConfigError(f"{name}: unknown setting; " + (f"did you mean {near}?" if near else _listing(known)))
    if "model.name" in flat and isinstance(flat["model.name"], str):
        other: Any = config
        values = to_dict(other.for_backbone(flat["model.name"]))
    for name, value in flat.items():
        section, _, setting = name.rpartition(".")
        (values[section] if section else values)[setting] = value
    return from_dict(type(config), values)


def flat(config: Any, where: str = "") -> dict[str, Any]:
    """Settings by dotted name, in their order, of a configuration or of what :func:`to_dict` made of one."""
    result: dict[str, Any] = {}
    for key, value in (config if isinstance(config, Mapping) else to_dict(config)).items():
        name = f"{where}.{key}" if where else str(key)
        result |= flat(value, name) if isinstance(value, Mapping) else {name: value}
    return result


def as_text(value: object) -> str:
    """A setting as it is given on the command line."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def nearest(name: str, known: list[str]) -> str | None:
    """The known name that is most like one that is not: of the same last part, or spelt nearly the same."""
    last = name.lstrip("-").rpartition(".")[2]
    same = [other for other in known if "." in other and other.rpartition(".")[2] == last]
    return next(iter(same or difflib.get_close_matches(name, known, n=1)), None)


def _settings_of(name: str, value: Any, sections: dict[str, Any]) -> list[tuple[str, Any]]:
    """(dotted name, value) of what one keyword gives."""
    if name not in sections:
        return [(name, value)]
    kind = type(sections[name])
    if isinstance(value, kind):
        return [(f"{name}.{field.name}", getattr(value, field.name)) for field in dataclasses.fields(kind)]
    if isinstance(value, Mapping):
        return [(f"{name}.{key}", one) for key, one in value.items()]
    if name == "model" and isinstance(value, str):
        return [("model.name", value)]
    raise ConfigError(f"{name}: expected a mapping of settings or {kind.__name__}, got {shown(value)}")


def _listing(known: list[str]) -> str:
    return "known: " + ", ".join(known)
