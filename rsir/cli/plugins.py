"""``--plugins FILE.py``: Python files that register backbones and policies, imported before a command looks them up."""

from __future__ import annotations

import importlib.util
import shlex
import sys
import traceback
from pathlib import Path

from rsir.errors import ConfigError, RsirError

__all__ = ["OPTION", "as_options", "load", "take"]

OPTION = "--plugins"

_loaded: dict[Path, str] = {}  # as they were given, by the place they are at


def take(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Arguments without ``--plugins FILE``, which may come up often, and the files."""
    left, files = [], []
    rest = iter(arguments)
    for word in rest:
        name, equals, value = word.partition("=")
        if name != OPTION:
            left.append(word)
            continue
        file = value if equals else next(rest, "")
        if not file or file.startswith("--"):
            raise ConfigError(
                f"{OPTION}: expected a Python file, got {file or 'nothing'}; for example {OPTION} mine.py"
            )
        files.append(file)
    return left, files


def load(file: str) -> None:
    """Import a file, once a process.

    Raises
    ------
    ConfigError
        There is no such file, or it raises an error.
    """
    path = Path(file).resolve()
    if path in _loaded:
        return
    if not path.is_file() or path.suffix != ".py":
        raise ConfigError(f"{OPTION} {file}: expected a Python file, found {'no .py' if path.is_file() else 'none'}")
    name = f"rsir_plugins_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as cause:
        del sys.modules[name]
        lines = [frame.lineno for frame in traceback.extract_tb(cause.__traceback__) if frame.filename == str(path)]
        where = f", line {cause.lineno if isinstance(cause, SyntaxError) else lines[-1] if lines else 1}"
        kind = "" if isinstance(cause, RsirError) else f"{type(cause).__name__}: "
        raise ConfigError(f"{OPTION} {file}{where}: {kind}{cause}") from cause
    _loaded[path] = file


def as_options() -> str:
    """What has been loaded, as options: " --plugins mine.py"."""
    return "".join(f" {OPTION} {shlex.quote(file)}" for file in _loaded.values())
