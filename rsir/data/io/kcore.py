"""The k-core of an interaction log. Compiled on first use and cached; imported only when asked for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rsir.data.sequences import Int64Array
from rsir.runtime.jit import compiled


def k_core(users: Int64Array, items: Int64Array, k: int) -> npt.NDArray[np.bool_]:
    """Which events are left once users and items of fewer than k events are dropped, again and again, until none is.

    Parameters
    ----------
    users, items : (n,) int64
        Codes from 0. A user's events with one item count each time.
    k : int
        Least number of events.

    Returns
    -------
    (n,) bool
    """
    users, items = np.ascontiguousarray(users, np.int64), np.ascontiguousarray(items, np.int64)
    num_users = int(users.max(initial=-1)) + 1
    num_items = int(items.max(initial=-1)) + 1
    # one graph: nodes are users, then items; an event is an edge
    ends = np.concatenate([users, items + num_users])
    degrees = np.bincount(ends, minlength=num_users + num_items)
    edges = np.argsort(ends, kind="stable") % max(users.size, 1)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(degrees)])
    return _peel(users, items + num_users, edges, starts, degrees, k)


@compiled()
def _peel(users, items, edges, starts, degrees, k):  # type: ignore[no-untyped-def]
    """Take off nodes of degree below k one by one; every edge is looked at twice at most."""
    alive = np.ones(users.size, np.bool_)
    waiting = np.flatnonzero(degrees < k)
    stack = np.empty(degrees.size, np.int64)
    stack[: waiting.size] = waiting
    top = waiting.size
    while top:
        top -= 1
        node = stack[top]
        for i in range(starts[node], starts[node + 1]):
            edge = edges[i]
            if alive[edge]:
                alive[edge] = False
                other = users[edge] + items[edge] - node
                degrees[node] -= 1
                degrees[other] -= 1
                if degrees[other] == k - 1:
                    stack[top] = other
                    top += 1
    return alive
