"""What studies record: a file of JSON lines, the names in them, and the ranks that p-values are computed from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsir import files
from rsir.errors import RunError
from rsir.metrics import HEADLINE

__all__ = ["BASES", "METRICS", "WITH_COUNT", "Lines", "file_name", "ranks_file"]

METRICS = tuple(metric for part, metric in HEADLINE if part == "test")
"""The test metrics that studies compare."""

WITH_COUNT = " + count"
"""What the name of an arm ends with whose networks the item-kNN votes beside."""
BASES = {2: "base, two seeds", 3: "base, three seeds", 4: "base, four seeds"}
"""Arms of several bases together, by their number."""


class Lines:
    """A study's results, one JSON object a line; what is there already is not computed again.

    Parameters
    ----------
    path : Path
        Made with the first line.

    Raises
    ------
    RunError
        A line cannot be read.
    """

    _KEY = ("kind", "data", "backbone", "arm", "seed", "round")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines = {self._key(line): line for line in _read(path)}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._lines.values())

    def has(self, **key: Any) -> bool:
        """Whether there is a line with these values."""
        return any(all(line.get(name) == value for name, value in key.items()) for line in self)

    def put(self, line: dict[str, Any]) -> None:
        """Add a line, or replace the one of the same arm, seed and round."""
        self._lines[self._key(line)] = line
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(files.plain(each), allow_nan=False) + "\n" for each in self)
        files.replace(self.path, text.encode())

    def _key(self, line: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(line.get(name) for name in self._KEY)


def _read(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as cause:
        raise RunError(f"{path}: cannot be read: {cause.strerror}") from cause
    for number, content in enumerate(text.splitlines(), 1):
        try:
            line = json.loads(content)
        except (ValueError, RecursionError) as cause:
            raise RunError(f"{path}, line {number}: is not JSON ({cause}); fix or remove the line") from cause
        if not isinstance(line, dict) or "kind" not in line:
            raise RunError(f"{path}, line {number}: expected a JSON object with a kind, as studies write it; remove it")
        yield line


def ranks_file(lines: Lines, place: dict[str, str], arm: str, round_: int, seed: int, part: str) -> Path:
    """Where the ranks of a training are kept, beside its study's lines."""
    folder = lines.path.parent / "ranks" / lines.path.stem
    name = file_name(place["data"], place["backbone"], arm, round_, seed, *(() if part == "test" else (part,)))
    return folder / f"{name}.npy"


def file_name(*parts: object) -> str:
    """The parts as a name without blanks or slashes."""
    return re.sub(r"[^\w.+-]+", "-", "-".join(map(str, parts)))
