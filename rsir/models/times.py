"""Times for backbones that attend to when items came: which do, and the buckets that differences are told apart by."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsir.config import ModelConfig
from rsir.data.ragged import Int64Array
from rsir.data.sequences import Sequences
from rsir.errors import ConfigError, DataError
from rsir.models.registry import maker_of

__all__ = ["BUCKETS", "bucket_of", "decided", "given", "prefix_times", "spaced", "uses_times", "usual_gap"]

BUCKETS = 128
"""The last bucket; differences in seconds, or in microseconds, do not get there."""
_BASE = 0.301  # as HSTU's authors have it: logarithm of 2 to the base 10, taken of natural logarithms
_FIRST = torch.tensor([math.ceil(math.exp(_BASE * bucket)) for bucket in range(1, BUCKETS + 1)], dtype=torch.int64)


def uses_times(model: object) -> bool:
    """Whether a backbone is to be given times: it has an attribute ``uses_times``, which is true."""
    return bool(getattr(model, "uses_times", False))


def given(model: object, times: Tensor | None) -> dict[str, Tensor]:
    """The argument ``times`` of ``encode``, ``encode_prefixes`` or ``step`` for a backbone that uses them, or none."""
    return {} if times is None or not uses_times(model) else {"times": times}


def decided(config: ModelConfig, data: Sequences) -> ModelConfig:
    """The settings of a backbone with ``times`` on or off where they say auto: on where the data have times.

    Those of a backbone that never uses times stay as they are.

    Raises
    ------
    ConfigError
        They are on for a backbone that does not use times.
    DataError
        They are on, and the data have none.
    """
    if not uses_times(maker_of(config.name)):
        if config.times == "on":
            raise ConfigError(f"model.times on: {config.name} does not use times; expected auto or off")
        return config
    if config.times == "on" and data.times is None:
        raise DataError(f"model.times on: {config.name} expects the time of each event, and the data have none")
    if config.times == "auto":
        return replace(config, times="off" if data.times is None else "on")
    return config


def bucket_of(elapsed: Tensor) -> Tensor:
    """floor(log(max(1, abs(elapsed))) / 0.301), at most 128: int64 of the shape of ``elapsed``, int64.

    By comparing whole numbers, so that a bucket does not depend on how a logarithm is rounded.
    """
    return torch.bucketize(elapsed.abs(), _first(elapsed.device), right=True)


@functools.cache
def _first(device: torch.device) -> Tensor:
    """The least difference of each bucket from 1 on; copied to a device once, as a CUDA graph holds no such copy."""
    return _FIRST.to(device)


def usual_gap(data: Sequences) -> int:
    """The median time between two events of a user, one after the other, in the real sequences; 0 if there are none."""
    end = int(data.offsets[data.num_real])
    if data.times is None or end < 2:
        return 0
    gaps = np.diff(data.times[:end])
    within = np.ones(end - 1, bool)
    starts = data.offsets[1 : data.num_real]
    within[starts[(starts > 0) & (starts < end)] - 1] = False
    return int(np.median(gaps[within])) if within.any() else 0


def spaced(gap: Tensor, width: int) -> Tensor:
    """Times (width + 1,) of items that came a gap apart, and of what is asked for as long after the last."""
    return gap * torch.arange(width + 1, device=gap.device)


def prefix_times(times: Int64Array, offsets: Int64Array, asked: Int64Array) -> Int64Array:
    """(nnz, 2): when each item of some rows came, and when the one after it did; after a row's last what is asked for.

    Parameters
    ----------
    times : (nnz,) int64
    offsets : (n + 1,) int64
        Of rows that are not empty.
    asked : (n,) int64
    """
    next_ = np.append(times[1:], 0)
    next_[offsets[1:] - 1] = asked
    return np.stack([times, next_], 1)


def checked(times: Tensor, shape: tuple[int, ...], of: Any) -> Tensor:
    """Times of the shape that a backbone expects."""
    if tuple(times.shape) != shape:
        raise ValueError(f"{type(of).__name__}: times: expected {shape}, got {tuple(times.shape)}")
    return times
