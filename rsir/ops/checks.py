"""What every op checks of its arguments, before a backend sees them; each returns the value ready for use."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rsir.errors import ConfigError
from rsir.ops.types import AdamMoments, Draw, LayerDropout, LayerFilter, LayerParameters, Ragged, SparseScores

__all__ = [
    "check_adam",
    "check_added",
    "check_bytes",
    "check_count",
    "check_draw",
    "check_floats",
    "check_ids",
    "check_layer",
    "check_matrix",
    "check_optional",
    "check_ragged",
    "check_stack",
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


def check_count(name: str, value: int, most: int = 2**40) -> int:
    number = value.item() if isinstance(value, (Tensor, np.generic)) else value
    whole = isinstance(number, (int, float)) and not isinstance(number, bool) and number % 1 == 0
    if not whole or not 1 <= number <= most:
        raise ConfigError(f"{name}: expected a whole number of at least 1, got {value!r}")
    return int(number)


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


def check_added(added: SparseScores | None, queries: Tensor, num_items: int) -> SparseScores | None:
    if added is None:
        return None
    ids, offsets = check_ragged("added", Ragged(added.ids, added.offsets), queries, num_items)
    values = added.values
    if values.shape != ids.shape or values.dtype != torch.float32 or values.device != queries.device:
        raise ValueError(
            f"added.values: expected {tuple(ids.shape)} float32 on {queries.device}, got {tuple(values.shape)} "
            f"{values.dtype} on {values.device}"
        )
    found, ends, own = (part.detach().cpu().numpy() for part in (ids, offsets, values))  # see check_ragged
    falls = np.flatnonzero(found[1:] <= found[:-1]) + 1
    for what, wrong in (
        (
            "holds NaN, expected numbers",
            np.flatnonzero(np.isnan(own)) if len(own) and np.isnan(own.min()) else falls[:0],
        ),
        (
            "does not ascend, expected each id once and in order",
            falls[ends[np.searchsorted(ends, falls)] != falls],
        ),
    ):
        if len(wrong):
            raise ValueError(f"added: row {int(np.searchsorted(ends, wrong[0], side='right')) - 1} {what}")
    return SparseScores(ids, offsets, values.detach().contiguous())


def thread_count(threads: int | None) -> int:
    return torch.get_num_threads() if threads is None else check_count("threads", threads, 2**31 - 1)


def check_layer(parameters: LayerParameters, heads: int, f: int, x: Tensor) -> None:
    """Refuse parameters of a layer that do not fit inputs x (..., d), or a feed-forward width other than f."""
    d = x.shape[-1]
    if heads < 1 or d % heads:
        raise ValueError(f"heads: expected a divisor of {d}, got {heads}")
    shapes = ((3 * d, d), (3 * d,), (d, d), (d,), (d,), (d,), (f, d), (f,), (d, f), (d,), (d,), (d,))
    for name, value, shape in zip(LayerParameters._fields, parameters.tensors, shapes, strict=False):
        check_floats(name, value, shape, x)
    if (own := parameters.filter) is None:
        return
    sizes: tuple[tuple[int | None, ...], ...] = ((heads, None), (d,), (d,), (d,))
    for name, value, size in zip(LayerFilter._fields, own[:4], sizes, strict=False):
        check_floats(f"filter.{name}", value, size, x)
    if not (0 <= own.share <= 1 and 0 <= own.decay < 1):
        raise ValueError(f"filter: expected a share in [0, 1] and a decay in [0, 1), got {own.share} and {own.decay}")


def check_bytes(dropout: LayerDropout, parameters: LayerParameters, heads: int, x: Tensor) -> None:
    """Refuse random bytes that do not fit inputs x (R, W, d) and a layer."""
    rows, width, d = x.shape
    if not 0 < dropout.dropped < 256:
        raise ValueError(f"dropout.dropped: expected 1..255, got {dropout.dropped}")
    wide = (rows, width, d)
    shapes = ((rows, heads, width, width), wide, (rows, width, len(parameters.up_weight)), wide, wide)
    if (parameters.filter is None) != (dropout.low is None):
        raise ValueError("dropout.low: expected for a layer with a filter, and only then")
    for name, value, shape in zip(LayerDropout._fields[1:], dropout[1:], shapes, strict=True):
        if value is None:
            continue
        if value.shape != shape or value.dtype != torch.uint8:
            raise ValueError(f"dropout.{name}: expected {shape} uint8, got {tuple(value.shape)} {value.dtype}")


def check_adam(
    weights: Tensor,
    moments: AdamMoments,
    step: int,
    ids: Tensor | None,
    gradients: Tensor | None,
    betas: tuple[float, float],
    average: Tensor | None,
    decay: float,
    padding: int | None,
) -> None:
    """Refuse what :func:`rsir.ops.adam_rows` cannot step."""
    check_floats("weights", weights, (None, None), weights)
    for name, value in (("first", moments.first), ("second", moments.second)):
        check_floats(f"moments.{name}", value, tuple(weights.shape), weights)
    last = moments.last
    if last is not None and (
        last.shape != weights.shape[:1] or last.dtype != torch.int32 or last.device != weights.device
    ):
        raise ValueError(f"moments.last: expected ({len(weights)},) int32, got {tuple(last.shape)} {last.dtype}")
    if average is not None:
        check_floats("average", average, tuple(weights.shape), weights)
    if not all(value is None or value.is_contiguous() for value in (weights, *moments, average)):
        raise ValueError("weights, moments, average: expected contiguous tensors, which are changed in place")
    if ids is not None:
        check_ids("ids", ids, len(ids), weights)
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(weights):
            raise ValueError(f"ids: expected 0..{len(weights) - 1}, got {int(ids.min())}..{int(ids.max())}")
    if gradients is not None:
        if ids is None and last is not None:
            raise ValueError("gradients: expected ids that say whose they are")
        check_floats("gradients", gradients, (len(weights if ids is None else ids), weights.shape[1]), weights)
    elif last is None:
        raise ValueError("gradients: expected some, as no row stays behind without moments.last")
    if not 1 <= step < 2**31:
        raise ValueError(f"step: expected 1..2**31 - 1, got {step}")
    if not (0 <= betas[0] < 1 and betas[0] ** 2 < betas[1] < 1):
        raise ValueError(f"betas: expected a first one in [0, 1) whose square is below a second one in (0, 1): {betas}")
    if not 0 <= decay < 1:
        raise ValueError(f"decay: expected a number in [0, 1), got {decay}")
    if padding is not None and not 0 <= padding < len(weights):
        raise ValueError(f"padding: expected a row in 0..{len(weights) - 1}, got {padding}")


def check_floats(name: str, value: Tensor, shape: tuple[int | None, ...], like: Tensor) -> None:
    if value.shape != shape and not _fits(value.shape, shape):
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name}: expected shape ({expected}), got {tuple(value.shape)}")
    if not value.is_floating_point() or value.dtype != like.dtype or value.device != like.device:
        raise ValueError(
            f"{name}: expected floats like the first argument's, {like.dtype} on {like.device}, "
            f"got {value.dtype} on {value.device}"
        )


def _fits(got: torch.Size, shape: tuple[int | None, ...]) -> bool:
    return len(got) == len(shape) and all(want in (None, size) for want, size in zip(shape, got, strict=True))


def check_ids(name: str, value: Tensor, length: int, like: Tensor) -> None:
    if value.shape != (length,) or value.dtype != torch.int64 or value.device != like.device:
        raise ValueError(
            f"{name}: expected ({length},) int64 on {like.device}, "
            f"got {tuple(value.shape)} {value.dtype} on {value.device}"
        )


def check_stack(embeddings: Tensor, positions: Tensor | None, layers: Sequence[LayerParameters], heads: int) -> int:
    """Refuse layers and tables that do not fit each other; the length of the longest history that they read."""
    if not layers:
        raise ValueError("layers: expected at least one, got none")
    if positions is None:
        if layers[0].filter is None:
            raise ValueError("positions: expected (L, d), got None, which layers with a filter alone can do with")
        positions = embeddings.new_empty(layers[0].filter.distances.shape[-1], embeddings.shape[-1])
    if embeddings.ndim != 2 or positions.ndim != 2 or embeddings.shape[1] != positions.shape[1] or not len(positions):
        raise ValueError(
            f"embeddings, positions: expected (N + 1, d) and (L, d) with L >= 1, got {tuple(embeddings.shape)} and "
            f"{tuple(positions.shape)}"
        )
    for layer in layers:
        check_layer(layer, heads, len(layers[0].up_weight), embeddings)
        if (layer.filter is None) != (layers[0].filter is None):
            raise ValueError("layers: expected a filter in all of them or in none")
        if layer.filter is not None:
            check_floats("filter.distances", layer.filter.distances, (heads, len(positions)), embeddings)
    return len(positions)
