"""Counter-based random numbers: what is drawn is named by a key and a counter, never by its place in a batch.

Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

__all__ = ["Stream", "counters", "gumbel", "philox4x32", "uniform"]

_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


class Stream(IntEnum):
    """What a number is drawn for; keeps draws for different purposes apart."""

    ITEM = 0
    POOL = 1
    PREFIX = 2
    ACQUISITION = 3


def counters(stream: Stream, round_: int, source: np.ndarray, trajectory: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Counter words of draws -> (n, 3) int64.

    ``source`` (n,) is below 2**40, ``trajectory`` (n,), ``step`` (n,) and ``round_`` are below 2**16.
    """
    source, trajectory, step = (np.asarray(a, np.int64) for a in (source, trajectory, step))
    return np.stack(
        [source & 0xFFFFFFFF, trajectory << 16 | step, (round_ << 16) + (int(stream) << 8) + (source >> 32)], axis=1
    )


def uniform(seed: int, words: np.ndarray, item: np.ndarray | int = 0) -> np.ndarray:
    """Numbers strictly between 0 and 1: counter words (n, 3) and items (n,) or (n, k) -> float64 like the items."""
    item = np.asarray(item, np.uint64)
    shape = item.shape if item.ndim else (len(words),)
    rest = (words[:, j].astype(np.uint64).reshape(-1, *[1] * (len(shape) - 1)) for j in range(3))
    counter = [np.broadcast_to(word, shape) for word in (item, *rest)]
    return (philox4x32(seed, counter)[0].astype(np.float64) + 0.5) * 2.0**-32


def gumbel(seed: int, words: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Standard Gumbel noise of each (row, item): (n, 3), (n, k) -> (n, k) float64."""
    return -np.log(-np.log(uniform(seed, words, item)))


def philox4x32(seed: int, counter: list[np.ndarray]) -> list[np.ndarray]:
    """Four counter words and a 64-bit key -> four random words.

    Every array holds 32-bit words in uint64, so that the product of two of them does not overflow.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32)
    for _ in range(10):
        a, b = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (b >> _SHIFT) ^ c1 ^ k0, b & _LOW, (a >> _SHIFT) ^ c3 ^ k1, a & _LOW
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & _LOW, (k1 + np.uint64(0xBB67AE85)) & _LOW
    return [c0, c1, c2, c3]
