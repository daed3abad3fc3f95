"""One catalogue in several tables, here or in several processes: best items merged, counts added up.

Every answer is that of one table of all items. Processes call an op together, with the same arguments but for their
tables; each does its own part of the scan, and all get the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.functional import pad

from rsir.ops.backend import lacking
from rsir.ops.composed import Composed, where_kept
from rsir.ops.items import ItemTable, Together
from rsir.ops.types import Ragged, TopK

__all__ = ["BACKEND", "Sharded", "ShardedTable"]


@dataclass(frozen=True)
class _Part:
    """A table, and how many items come before its first one."""

    before: int
    table: ItemTable

    def own(self, ids: Tensor) -> Tensor:
        """(n,) bool: which ids are of this part."""
        return (ids > self.before) & (ids <= self.before + self.table.num_items)

    def of_part(self, lists: Ragged) -> Ragged:
        """What of the lists is of this part, in its own ids."""
        ids, offsets = where_kept(lists, self.own(lists.ids))
        return Ragged(ids - self.before, offsets)


@dataclass(frozen=True)
class ShardedTable(ItemTable):
    """The parts of a catalogue that this process has; ``weights`` are those of the first, ``handle`` holds them all."""

    size: int = 0
    """Items of the whole catalogue."""

    @property
    def num_items(self) -> int:
        return self.size


@dataclass(frozen=True)
class _Handle:
    parts: tuple[_Part, ...]
    world: Together | None

    def add(self, *tensors: Tensor) -> None:
        if self.world is not None:
            self.world.all_reduce(*tensors)

    def gather(self, tensor: Tensor) -> Tensor:
        """(processes, ...): the tensors of all of them."""
        if self.world is None:
            return tensor[None]
        all_ = tensor.new_zeros(self.world.size, *tensor.shape)
        all_[self.world.rank] = tensor
        self.fill_in(all_)
        return all_

    def fill_in(self, values: Tensor) -> None:
        """Take each value from the process that has it: all bits of the others' are 0."""
        self.add(values.view(torch.int32) if values.dtype == torch.float32 else values)


class Sharded(Composed):
    """The catalogue ops on tables joined of others."""

    name = "sharded"

    def join(self, parts: Sequence[ItemTable], world: Together | None) -> ItemTable:
        """:func:`rsir.ops.join_tables`."""
        if not parts:
            raise ValueError("parts: expected at least one table, got none")
        first = parts[0]
        for part in parts:
            for name, own, want in (
                ("dim", part.dim, first.dim),
                ("dtype", part.dtype, first.dtype),
                ("backend", part.backend.name, first.backend.name),
            ):
                if own != want:
                    raise ValueError(f"parts: expected one {name}, got {want} and {own}")
            if part.backend is self or part.weights.device != first.weights.device:
                raise ValueError("parts: expected plain tables on one device, got parts of parts or several devices")
        count = sum(part.num_items for part in parts)
        counts = _Handle((), world).gather(torch.tensor(count, device=first.weights.device)).tolist()
        if sum(counts) >= 2**31 - 64:
            raise ValueError(f"parts: expected fewer than 2**31 - 64 items together, got {sum(counts):,}")
        rank = 0 if world is None else world.rank
        before = accumulate((part.num_items for part in parts), initial=sum(counts[:rank]))
        handle = _Handle(tuple(_Part(*pair) for pair in zip(before, parts, strict=False)), world)
        return ShardedTable(self, first.weights, handle, first.instruction_set, first.dtype, sum(counts))

    def topk(self, queries: Tensor, table: ItemTable, k: int, excluded: Ragged | None, threads: int) -> TopK:
        handle: _Handle = table.handle
        most = min(k, table.num_items)
        found = []
        for part in handle.parts:
            own = part.table.backend.topk(queries, part.table, most, excluded and part.of_part(excluded), threads)
            found.append(TopK(torch.where(own.ids > 0, own.ids + part.before, 0), own.logits))
        merged = _merged(found, most)
        if handle.world is not None:
            gathered = zip(handle.gather(merged.ids), handle.gather(merged.logits), strict=True)
            merged = _merged([TopK(*one) for one in gathered], most)
        missing = k - merged.ids.shape[1]
        return TopK(pad(merged.ids, (0, missing)), pad(merged.logits, (0, missing), value=-torch.inf))

    def count_above(self, queries: Tensor, table: ItemTable, bars: Tensor, limit: int | None, threads: int) -> Tensor:
        counts = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
        for part in table.handle.parts:
            most = part.table.num_items if limit is None else min(limit, part.table.num_items)
            counts += part.table.backend.count_above(queries, part.table, bars, most, threads)
        table.handle.add(counts)
        return counts if limit is None else counts.clamp(max=limit)

    def logits_of(self, queries: Tensor, table: ItemTable, lists: Ragged, threads: int) -> Tensor:
        """From the process that has the item."""
        handle: _Handle = table.handle
        logits = queries.new_zeros(len(lists.ids))
        for part in handle.parts:
            own = part.own(lists.ids)
            logits[own] = part.table.backend.logits_of(queries, part.table, part.of_part(lists), threads)
        handle.fill_in(logits)
        return logits

    pack = lacking("pack")
    neighbour_votes = lacking("neighbour_votes")
    sampled_softmax = lacking("sampled_softmax")
    full_softmax = lacking("full_softmax")
    transformer_layer = lacking("transformer_layer")
    encode_histories = lacking("encode_histories")
    extend_histories = lacking("extend_histories")
    adam_rows = lacking("adam_rows")


BACKEND = Sharded()


def _merged(found: Sequence[TopK], k: int) -> TopK:
    """The best k of several lists a row, each of which has lower ids than the next, or the same rank order."""
    ids, logits = (torch.cat(columns, 1) for columns in zip(*found, strict=True))
    logits, place = logits.sort(dim=1, descending=True, stable=True)  # stable: equal logits stay in the order of ids
    return TopK(ids.gather(1, place)[:, :k], logits[:, :k])
