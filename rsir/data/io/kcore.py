"""The k-core of an interaction log."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rsir.data.sequences import Int64Array


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
    from rsir.runtime.core import _core

    return _core.k_core(np.ascontiguousarray(users, np.int64), np.ascontiguousarray(items, np.int64), k)
