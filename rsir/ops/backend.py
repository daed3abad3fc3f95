"""The one table that says which module computes the ops."""

from __future__ import annotations

import importlib
from types import ModuleType

from torch import Tensor

from .types import BackendUnavailable

__all__ = ["BACKENDS", "load", "resolve"]

BACKENDS = {
    "reference": "rsir.ops.reference",
    "cpp": "rsir.ops.cpp",
    "triton": "rsir.ops.triton",
}
"""Every backend by name. Each module implements pack, topk, topk_sample, pool_sample, rank_within and
rank_and_sample on inputs that :mod:`rsir.ops` has checked."""

_DEFAULT = {"cpu": "cpp", "cuda": "triton"}


def resolve(backend: str, items: Tensor) -> str:
    """Name of the backend to use for an item table; "auto" chooses by device (cpu: cpp, cuda: triton)."""
    if backend == "auto":
        device = items.device.type
        if device not in _DEFAULT:
            raise BackendUnavailable(
                f"no default backend for device {device!r}: move the items to cpu or cuda, "
                f"or ask for backend='reference'"
            )
        return _DEFAULT[device]
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected 'auto' or one of {sorted(BACKENDS)}, got {backend!r}")
    return backend


def load(name: str) -> ModuleType:
    """Import a backend's module, or raise :class:`BackendUnavailable` with the cause and the other choices."""
    try:
        return importlib.import_module(BACKENDS[name])
    except ImportError as cause:
        others = sorted(set(BACKENDS) - {name})
        raise BackendUnavailable(f"backend {name!r} cannot be used here: {cause}. Others: {others}") from cause
