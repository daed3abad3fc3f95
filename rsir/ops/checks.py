"""What every op checks of its arguments, before a backend sees them; each returns the value ready for use."""

from __future__ import annotations

import torch
from torch import Tensor

from rsir.ops.types import Draw, Ragged

__all__ = [
    "check_count",
    "check_draw",
    "check_matrix",
    "check_optional",
    "check_ragged",
    "check_version",
    "thread_count",
    "version_of",
]


def check_matrix(name: str, value: Tensor, dtypes: tuple[torch.dtype, ...] = (torch.float32,)) -> None:
    if not isinstance(value, Tensor) or value.ndim != 2:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name}: expected a 2-D tensor, got {shape}")
    if value.dtype not in dtypes:
        expected = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise ValueError(f"{name}: expected {expected}, got {value.dtype}; convert with .float()")


def version_of(items: Tensor) -> int:
    """Counts in-place changes; of inference tensors, which keep no count, always 0."""
    return 0 if items.is_inference() else items._version


def check_version(items: Tensor, packed: int) -> None:
    """Refuse a table that was changed since a copy of it was packed, for its answers would mix old and new logits."""
    if version_of(items) != packed:
        raise ValueError("items: the embeddings were changed in place after they were packed; pack them again")


def check_count(name: str, value: int) -> int:
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ValueError(f"{name}: expected a whole number of at least 1, got {value!r}")
    return int(value)


def check_draw(draw: Draw, queries: Tensor) -> Draw:
    """A draw checks itself; here only whether its rows are those of the queries."""
    if draw.counters is not None and (len(draw.counters) != len(queries) or draw.counters.device != queries.device):
        raise ValueError(
            f"draw.counters: expected ({len(queries)}, 3) on {queries.device} as the queries, "
            f"got {tuple(draw.counters.shape)} on {draw.counters.device}"
        )
    return draw


def check_optional(name: str, lists: Ragged | None, queries: Tensor, num_items: int) -> Ragged | None:
    return None if lists is None else check_ragged(name, lists, queries, num_items)


def check_ragged(name: str, lists: Ragged, queries: Tensor, num_items: int) -> Ragged:
    ids, offsets = lists
    for part, value, kinds in (
        ("ids", ids, (torch.int32, torch.int64)),
        ("offsets", offsets, (torch.int64,)),
    ):
        if value.ndim != 1 or value.dtype not in kinds:
            expected = " or ".join(str(kind) for kind in kinds)
            raise ValueError(f"{name}.{part}: expected a 1-D {expected} tensor, got {tuple(value.shape)} {value.dtype}")
        if value.device != queries.device:
            raise ValueError(f"{name}.{part}: expected on {queries.device} as the queries, got {value.device}")
    if len(offsets) != len(queries) + 1:
        raise ValueError(
            f"{name}.offsets: expected {len(queries) + 1} entries for {len(queries)} rows, got {len(offsets)}"
        )
    found, ends = ids, offsets
    if ids.device.type == "cpu":  # by numpy: torch would start its threads for each of these small reductions
        found, ends = ids.numpy(), offsets.numpy()  # type: ignore[assignment]
    if int(ends[0]) != 0 or int(ends[-1]) != len(found) or bool((ends[1:] < ends[:-1]).any()):
        raise ValueError(f"{name}.offsets: expected to rise from 0 to the number of ids, {len(found)}")
    if len(found) and (int(found.min()) < 1 or int(found.max()) > num_items):
        at = int(((ids < 1) | (ids > num_items)).nonzero()[0, 0])
        row = int(torch.searchsorted(offsets, at, right=True)) - 1
        raise ValueError(f"{name}: row {row} holds id {int(ids[at])}, expected ids in 1..{num_items}")
    return Ragged(ids.int().contiguous(), offsets.contiguous())


def thread_count(threads: int | None) -> int:
    return torch.get_num_threads() if threads is None else check_count("threads", threads)
