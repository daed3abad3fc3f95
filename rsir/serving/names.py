"""Outside names of users and items, and their ids."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rsir.errors import DataError

__all__ = ["Names"]

_NO_NAME = 2**63
"""No label: these are int64."""


class Names:
    """The names of ids 1..size, found in both directions.

    Parameters
    ----------
    kind : {"item", "user"}
        For messages.
    labels : pyarrow array of strings or integers, optional
        ``labels[i - 1]`` is the name of id i; default: the ids themselves.
    size : int
    """

    def __init__(self, kind: str, labels: pa.Array | None, size: int) -> None:
        self.kind, self.size = kind, size
        self.labels = pa.array(np.arange(1, size + 1)) if labels is None else labels
        self._numbered = labels is None
        self._type: type = int if pa.types.is_integer(self.labels.type) else str

    def ids(self, names: Iterable[Any]) -> npt.NDArray[np.int64]:
        """(n,) id of each name, 0 for those that are not known.

        Integers and their text are taken for the same, as a file of text does not say which of them it means.

        Raises
        ------
        DataError
            Something that is neither an integer nor a string.
        """
        names = list(names)
        if set(map(type, names)) - {self._type}:
            names = [self._plain(name) for name in names]
        if self._numbered:
            return np.array([name if 0 < name <= self.size else 0 for name in names], np.int64)
        get = self._index.get
        return np.array([get(name, 0) for name in names], np.int64)

    def of(self, ids: npt.NDArray[np.int64]) -> pa.Array:
        """The names of ids (n,)."""
        return self.labels.take(pa.array(ids - 1))

    @cached_property
    def _index(self) -> dict[Any, int]:
        return {name: number for number, name in enumerate(self.labels.to_pylist(), 1)}

    def _plain(self, name: Any) -> Any:
        """A name of the type that the labels have; one that no label has where its text is no number."""
        if isinstance(name, np.generic):
            name = name.item()
        if isinstance(name, bool) or not isinstance(name, (int, str)):
            wanted = "an integer" if self._type is int else "a string"
            raise DataError(f"{self.kind}: expected {wanted} as in the data, got {name!r}")
        if self._type is str:
            return str(name)
        if isinstance(name, int):
            return name
        digits = name.removeprefix("-")
        number = int(name) if digits.isascii() and digits.isdigit() and len(digits) < 20 else 0
        return number if str(number) == name else _NO_NAME
