"""The one table that says which module computes the ops."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch
from torch import Tensor

from rsir.errors import BackendUnavailable

__all__ = ["BACKENDS", "load", "resolve", "resolve_training"]

BACKENDS = {
    "reference": "rsir.ops.reference",
    "cpp": "rsir.ops.cpp",
    "triton": "rsir.ops.triton",
}
"""Every backend by name. Each module implements the ops on inputs that :mod:`rsir.ops` has checked."""

_MODULES = BACKENDS | {"sharded": "rsir.ops.sharded"}
"""What may have packed items: a sharded table is joined of packed ones, and not asked for by name."""

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


def resolve_training(backend: str, values: Tensor, *, kernels: bool = False) -> str:
    """Name of the backend of an op used in training; "auto" is cpp for float32 on a CPU, else the reference.

    With ``kernels``, for an op that has them, "auto" is triton for float32 on CUDA. For the others torch's autograd of
    the reference is what trains there.
    """
    device, exact = values.device.type, values.dtype == torch.float32
    if backend == "auto":
        usable = {"cpu": "cpp", **({"cuda": "triton"} if kernels else {})}
        return usable.get(device, "reference") if exact else "reference"
    name = resolve(backend, values)
    if name == "triton" and not kernels:
        raise BackendUnavailable(
            "backend 'triton' has no kernels for this: use backend='reference', which runs on any device"
        )
    if (name == "cpp" and device != "cpu") or (name != "reference" and not exact):
        raise ValueError(
            f"backend {name!r} trains in float32{' on cpu' if name == 'cpp' else ''}, got {values.dtype} on "
            f"{values.device}; convert with .float(){'.cpu()' if name == 'cpp' else ''} or use backend='reference'"
        )
    return name


def load(name: str) -> ModuleType:
    """Import a backend's module, or raise :class:`BackendUnavailable` with the cause and the other choices."""
    try:
        return importlib.import_module(_MODULES[name])
    except ImportError as cause:
        others = sorted(set(BACKENDS) - {name})
        raise BackendUnavailable(f"backend {name!r} cannot be used here: {cause}. Others: {others}") from cause
