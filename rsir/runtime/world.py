"""One run by several processes, as ``torchrun`` starts them.

Every process runs the same program on the same data. Where the program says so, they divide work among them
(:meth:`World.claims`), sum what each has found (:meth:`World.all_reduce`) and take over what the first one alone has
made (:meth:`World.broadcast_object`). A process by itself is a world of one, for which all of this is nothing. The
methods have the names of torch.distributed.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ALONE", "Claims", "World"]

T = TypeVar("T")


class Claims:
    """Numbers 0, 1, ... below a count, each handed to one process, to whichever asks first.

    Parameters
    ----------
    count : int
    advance : callable
        Adds to a counter that all processes share, and returns what it was before.
    """

    def __init__(self, count: int, advance: Callable[[int], int]) -> None:
        self.count, self._advance, self._over = count, advance, False

    def __iter__(self) -> Claims:
        return self

    def __next__(self) -> int:
        number = self.count if self._over else self._advance(1)
        if number >= self.count:
            self._over = True
            raise StopIteration
        return number

    def cancel(self) -> None:
        """Let no process have any more of them."""
        self._advance(self.count)


def to_json(value: object) -> bytes:
    """JSON as bytes."""
    return json.dumps(value).encode()


class World:
    """The processes of a run; this one by itself.

    Each of them must call these methods in the same order, :meth:`first_to` and claiming excepted.

    Parameters
    ----------
    restarted : bool, default False
        Whether torchrun has started this process in the place of one that ended.

    Attributes
    ----------
    rank, size : int
        Number of this process, from 0, and how many there are.
    """

    def __init__(self, restarted: bool = False) -> None:
        self.rank, self.size, self.restarted = 0, 1, restarted

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes the run and says how it goes."""
        return self.rank == 0

    def on_main(self, call: Callable[[T], None] | None) -> Callable[[T], None]:
        """What is to be called in the first process alone; a call that does nothing in the others, or of None."""
        return call if call is not None and self.is_main else lambda value: None

    @property
    def name(self) -> str:
        """What to call this process in a message; nothing where it is the only one."""
        return f"rank {self.rank} of {self.size} ({socket.gethostname()}): " if self.size > 1 else ""

    def broadcast_object(
        self,
        make: Callable[[], T],
        encode: Callable[[T], bytes] = to_json,
        decode: Callable[[bytes], T] = json.loads,
    ) -> T:
        """What the first process makes, for all of them; `make` runs there alone. By default a JSON value."""
        return make()

    def all_reduce(self, *tensors: Tensor) -> None:
        """Put the sum over all processes in the place of each tensor."""

    def all_gather(self, *tensors: Tensor) -> list[Tensor]:
        """Of each tensor, (n, ...) with an n of its own in every process, the rows of all, in the order of ranks."""
        return list(tensors)

    def broadcast(self, *tensors: Tensor) -> None:
        """Put the first process's values in the place of each tensor."""

    def any(self, flag: bool) -> bool:
        """Whether it is true in any process."""
        return flag

    def barrier(self) -> None:
        """Let no process go on before all are here."""

    def claims(self, count: int) -> Claims:
        """Numbers below `count`, divided among the processes as they come to ask for them."""
        counter = [0]

        def advance(by: int) -> int:
            counter[0] += by
            return counter[0] - by

        return Claims(count, advance)

    def parts(self, count: int, most: int, least: int = 1) -> list[slice]:
        """0..count in parts for a process to do at a time: of `most` at most, and not of fewer than `least` but one."""
        return [slice(first, min(first + most, count)) for first in range(0, count, most)]

    def first_to(self, what: str) -> bool:
        """Whether no process has asked this before."""
        return True

    def close(self) -> None:
        """Part from the others, when all are done."""


ALONE = World()
"""A process by itself."""
