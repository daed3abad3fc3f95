"""Logs in the order of their users, and their k-core, a block of events at a time: for logs larger than memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from rsir.data.ragged import Int64Array, offsets_of, sealed
from rsir.runtime import memory

__all__ = ["by_block", "core", "in_order", "where"]


def by_block(size: int, dtype: npt.DTypeLike, make: Callable[[slice], npt.ArrayLike]) -> npt.NDArray[Any]:
    """An array (size,) made block by block; read-only."""
    out = memory.empty(size, dtype)
    for block in memory.blocks(size):
        out[block] = make(block)
    return sealed(out)


def where(mask: npt.NDArray[np.bool_]) -> Int64Array:
    """Indices (n,) int64 of what a mask holds, in ascending order; read-only."""
    blocks = list(memory.blocks(mask.size))
    ends = np.cumsum([0, *(int(np.count_nonzero(mask[block])) for block in blocks)])
    out = memory.empty(int(ends[-1]), np.int64)
    for block, first, last in zip(blocks, ends[:-1], ends[1:], strict=True):
        out[first:last] = block.start + np.flatnonzero(mask[block])
        memory.release()
    return sealed(out)


def in_order(users: Int64Array, times: Int64Array | None, counts: Int64Array) -> Int64Array:
    """The order of events by user, then time, then place; as ``np.lexsort((times, users))``.

    Parameters
    ----------
    users : (n,) int64
        Codes from 0.
    times : (n,) int64, optional
    counts : (U,) int64
        Number of events of each user.

    Returns
    -------
    (n,) int64
        Indices of the events; read-only.
    """
    offsets = offsets_of(counts)
    following, order = offsets[:-1].copy(), memory.empty(users.size, np.int64)
    for block in memory.blocks(users.size):
        here = np.argsort(users[block], kind="stable")
        user = users[block][here]
        starts = np.flatnonzero(np.diff(user, prepend=-1))
        runs = np.diff(np.append(starts, user.size))
        order[following[user] + np.arange(user.size) - np.repeat(starts, runs)] = block.start + here
        following[user[starts]] += runs
    if times is not None:
        for rows in memory.row_blocks(offsets):
            first, last = offsets[rows.start], offsets[rows.stop]
            some, row = order[first:last], np.repeat(np.arange(rows.start, rows.stop), counts[rows])
            order[first:last] = some[np.lexsort((times[some], row))]
    return sealed(order)


def core(users: Int64Array, items: Int64Array, k: int) -> npt.NDArray[np.bool_]:
    """Which events are left once users and items of fewer than k events are dropped, again and again, until none is.

    The same as :func:`rsir.data.io.kcore.k_core`, in passes over the events, with a count for each user and item in
    memory and nothing else.
    """
    alive = memory.empty(users.size, np.bool_)
    alive[:] = True
    sizes = [1 + max((int(codes[block].max()) for block in memory.blocks(codes.size)), default=-1) for codes in
             (users, items)]  # fmt: skip
    while True:
        counts = [np.zeros(size, np.int64) for size in sizes]
        for block in memory.blocks(users.size):
            for count, codes in zip(counts, (users, items), strict=True):
                count += np.bincount(codes[block][alive[block]], minlength=count.size)
        dropped = 0
        for block in memory.blocks(users.size):
            enough = (counts[0][users[block]] >= k) & (counts[1][items[block]] >= k)
            dropped += int(np.count_nonzero(alive[block] & ~enough))
            alive[block] &= enough
        if not dropped:
            return sealed(alive)
