"""Any trained torch module as a backbone: what encodes, and the layer that scores."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsir.adapters.base import Adapter
from rsir.errors import BackboneError, RsirError

__all__ = ["from_torch"]


def from_torch(
    forward: Callable[..., Tensor],
    head: nn.Linear | nn.Embedding | Tensor,
    item_labels: Sequence[Any] | None = None,
    *,
    max_len: int,
) -> Adapter:
    """A trained module of your own as a backbone.

    Parameters
    ----------
    forward : callable
        ``forward(items, lengths)``, or ``forward(items)``: int64 ids (B, L), oldest first, padded with 0 on the right,
        and their numbers (B,). Gives a query a history (B, d), or one a place (B, L, d), of which each history's last
        is taken. A query must depend on its own history alone.
    head : torch.nn.Linear, torch.nn.Embedding or tensor
        What scores items: its weight is (N + 1, d), row 0 for the padding, or, with labels, also (N, d). The bias of a
        linear layer is kept as one more dimension, at which queries are 1.
    item_labels : sequence of str or int, optional
        Outside names of items 1..N; default: their numbers.
    max_len : int
        Longest history that ``forward`` takes.

    Raises
    ------
    BackboneError
        The parts are not of these shapes or kinds, or do not fit each other; says what was expected and what came.

    Examples
    --------
    >>> adapter = from_torch(net, net.output, labels, max_len=50)  # doctest: +SKIP
    """
    name = type(forward).__name__ if isinstance(forward, nn.Module) else getattr(forward, "__name__", "forward")
    if not callable(forward):
        raise BackboneError(f"forward: expected a module or a function of items and lengths, got {name}")
    weight = head if isinstance(head, Tensor) else getattr(head, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        got = tuple(weight.shape) if isinstance(weight, Tensor) else type(head).__name__
        raise BackboneError(f"head: expected a linear layer, an embedding or a tensor of (items + 1, d), got {got}")
    table = weight.detach().float()
    bias = getattr(head, "bias", None)
    if isinstance(bias, Tensor):
        table = torch.cat([table, bias.detach().float()[:, None]], 1)
    labels = list(range(1, len(table))) if item_labels is None else list(item_labels)
    if len(table) == len(labels):
        table = F.pad(table, (0, 0, 1, 0))
    if len(table) != len(labels) + 1:
        raise BackboneError(
            f"head: expected {len(labels) + 1} rows, that of the padding and one an item (or {len(labels)} without "
            f"it), got {len(table)}"
        )
    if not labels:
        raise BackboneError("head: expected at least one item beside the padding, got none")
    if isinstance(max_len, bool) or not isinstance(max_len, int) or max_len < 1:
        raise BackboneError(f"max_len: expected a whole number of at least 1, got {max_len!r}")
    adapter = _Plain(forward, labels, table, max_len, isinstance(bias, Tensor))
    try:
        _check_queries(adapter, name)
    except (RsirError, torch.OutOfMemoryError):
        raise
    except Exception as cause:  # whatever a module of somebody's raises
        reason = f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"
        raise BackboneError(f"{name}: does not encode int64 items (B, L) and lengths (B,): {reason}") from cause
    return adapter


class _Plain(Adapter):
    def __init__(
        self, forward: Callable[..., Tensor], labels: list[Any], table: Tensor, max_len: int, biased: bool
    ) -> None:
        network = forward if isinstance(forward, nn.Module) else _Function(forward)
        super().__init__(network, labels, table, max_len)
        self.biased, self._takes_lengths = biased, _takes_lengths(forward)

    def encode(self, items: Tensor, lengths: Tensor) -> Tensor:
        found: Any = self.network(items, lengths) if self._takes_lengths else self.network(items)
        if isinstance(found, Tensor) and found.ndim == 3:
            found = found[torch.arange(len(items), device=items.device), lengths - 1]
        if not isinstance(found, Tensor):
            raise TypeError(f"expected a tensor of queries, got {type(found).__name__}")
        query: Tensor = found.float()
        return F.pad(query, (0, 1), value=1.0) if self.biased else query


class _Function(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._function(*inputs)


def _takes_lengths(forward: Callable[..., Tensor]) -> bool:
    try:
        parameters = inspect.signature(forward.forward if isinstance(forward, nn.Module) else forward).parameters
    except (TypeError, ValueError):
        return True
    places = [one for one in parameters.values() if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    needed = [one for one in places if one.default is one.empty]
    several = any(one.kind is one.VAR_POSITIONAL for one in parameters.values())
    return several or len(needed) >= 2 or (len(places) >= 2 and places[1].name in ("lengths", "length", "seq_len"))


@torch.no_grad()
def _check_queries(adapter: _Plain, name: str) -> None:
    """Refuse a module whose queries are of another shape, or depend on the other rows of their batch or on padding."""
    width = min(adapter.max_len, 4)
    device = adapter.item_table.device
    items = torch.arange(2 * width, device=device).view(2, width) % adapter.num_items + 1
    lengths = torch.tensor([1, width], device=device)
    items[0, 1:] = 0
    queries, wanted = adapter.encode(items, lengths), (2, adapter.item_table.shape[1])
    if queries.shape != wanted:
        raise BackboneError(
            f"{name}: expected one query a history as wide as an item embedding, {wanted} here, got "
            f"{tuple(queries.shape)}"
        )
    if not queries.isfinite().all():
        raise BackboneError(f"{name}: its query after item 1 is not finite: has its training diverged?")
    together, alone = queries[0], adapter.encode(items[:1, :1], lengths[:1])[0]
    difference = float((together - alone).abs().max())
    if difference > 1e-3 * max(1.0, float(alone.abs().max())):
        raise BackboneError(
            f"{name}: its query after one item differs by up to {difference:.3g} with the padding and the batch around "
            "it; mask what lies behind each history, and take nothing from other rows (a norm over the batch, say)"
        )
