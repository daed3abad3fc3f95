"""Arguments of public functions, held to their annotations."""

from __future__ import annotations

import functools
import inspect
import os
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar

from rsir.config.values import shown
from rsir.errors import ConfigError, RsirError

__all__ = ["typed"]

P = ParamSpec("P")
R = TypeVar("R")
_NAMES = {int: "an integer", float: "a number", str: "text", bool: "true or false", type(None): "None"}


def typed(
    error: type[RsirError] = ConfigError, unchecked: tuple[str, ...] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: arguments that do not fit their annotations are refused in one sentence that names the first one.

    NumPy's numbers become Python's, and paths of bytes text. ``Any``, type variables and protocols that cannot be
    called are not checked: there the function says itself what it needs.

    Parameters
    ----------
    error : type, default ConfigError
        What is raised.
    unchecked : tuple of str
        Arguments that the function itself has more to say about.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        parameters = signature.parameters.items()
        left = {name for name, one in parameters if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD)} | {*unchecked}
        hints: dict[str, Any] = {}

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            if not hints:  # not before the first call: what they name may be of modules that are still being imported
                hints.update(typing.get_type_hints(function))
            bound = signature.bind(*args, **kwargs)
            for name, value in bound.arguments.items():
                if name in left or name not in hints:
                    continue
                number = type(value).__module__ == "numpy" and getattr(value, "shape", None) == ()
                plain = value.item() if number else value
                if isinstance(value, bytes) and _of_path(hints[name]):
                    plain = os.fsdecode(value)
                if not _fits(hints[name], plain):
                    raise error(f"{name}: expected {_named(hints[name])}, got {shown(value)}")
                bound.arguments[name] = plain
            return function(*bound.args, **bound.kwargs)

        return checked

    return decorate


def _of_path(hint: Any) -> bool:
    return any((typing.get_origin(option) or option) is os.PathLike for option in typing.get_args(hint))


def _meant(hint: Any) -> Any:
    """What an alias of ``type X[T] = ...`` stands for, as NumPy's ``NDArray`` is one from 2.5 on."""
    alias = typing.get_origin(hint) or hint
    return _meant(alias.__value__) if type(alias).__name__ == "TypeAliasType" else hint


def _fits(hint: Any, value: Any) -> bool:
    hint = _meant(hint)
    origin = typing.get_origin(hint)
    if hint is Any or isinstance(hint, TypeVar):
        return True
    if origin is Literal:
        return isinstance(value, str) and value in typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(option, value) for option in typing.get_args(hint))
    kind = origin or hint
    if kind in (int, str, bool, type(None)):  # True is no integer here
        return type(value) is kind
    if kind is float:
        return type(value) in (int, float)
    if kind is Callable or getattr(kind, "_is_protocol", False):
        return callable(value) if kind is Callable or "__call__" in vars(kind) else True
    return isinstance(value, kind) and not isinstance(value, (str, bytes))  # which are iterable, too


def _named(hint: Any) -> str:
    """As "an integer or None"."""
    hint = _meant(hint)
    origin = typing.get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if origin in (types.UnionType, typing.Union):
        names = [_named(option) for option in typing.get_args(hint)]
        if "a path" in names:  # text is one
            names.remove("text")
        return " or ".join(dict.fromkeys(names))
    kind = origin or hint
    if kind is Callable or "__call__" in vars(kind):
        return "a function"
    return "a path" if kind.__name__ == "PathLike" else _NAMES.get(kind, kind.__name__)
