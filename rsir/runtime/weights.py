"""Tensors by name as bytes in the safetensors format, which nothing has to be unpickled from."""

from __future__ import annotations

from collections.abc import Mapping

import safetensors.torch
from torch import Tensor

__all__ = ["to_bytes"]


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """The tensors' content; those that share memory, as tied weights do, are written each for itself."""
    unshared: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in tensors.items():
        here = value.detach().cpu().contiguous()
        place = here.untyped_storage().data_ptr()
        unshared[name] = here.clone() if place in seen else here
        seen.add(place)
    return safetensors.torch.save(unshared)
