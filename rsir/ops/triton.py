"""The ops on Triton kernels: CUDA and HIP tensors, or CPU tensors in Triton's interpreter.

``instruction_set`` names how the pass over the catalogue multiplies: "ieee" is float32. "tf32", "float16" and
"bfloat16" use tensor cores; what the margin of their rounding leaves open is scored again in float32, so that answers
are those of "ieee" to the bit. None takes the one that was measured as the fastest on this device, else "ieee".
"""

from __future__ import annotations

import torch
from torch import Tensor

from rsir.errors import BackendUnavailable
from rsir.ops.backend import Backend, lacking
from rsir.ops.checks import check_version, version_of
from rsir.ops.composed import Composed
from rsir.ops.items import ItemTable
from rsir.ops.types import Draw, Ragged, RankedSample, Sample, SampledSoftmax, TopK

try:
    import rsir.kernels as kernels  # type: ignore[import-not-found,import-untyped,unused-ignore]
except ImportError as cause:
    raise BackendUnavailable(
        f"backend 'triton' cannot be used here: {cause}. Install it with `pip install rsir[triton]` (Linux on x86-64)"
    ) from cause


class Triton(Composed):
    """The catalogue ops and the sampled softmax on Triton kernels.

    ``place_within`` is looked up among the best: that pass over the catalogue costs the same as one that only counts.
    """

    name = "triton"

    def pack(self, items: Tensor, instruction_set: str | None, dtype: torch.dtype) -> ItemTable:
        _check_device(items)
        items = items.to(dtype)
        precision = instruction_set or kernels.fastest_precision(items)
        return ItemTable(self, items, (kernels.ItemTable.pack(items, precision), version_of(items)), precision, dtype)

    def topk(self, queries: Tensor, table: ItemTable, k: int, excluded: Ragged | None, threads: int) -> TopK:
        with _device(queries):
            return TopK(*kernels.best_items(queries, packed(table), k, _lists(excluded)))

    def topk_sample(
        self,
        queries: Tensor,
        table: ItemTable,
        draw: Draw,
        excluded: Ragged | None,
        threads: int,
    ) -> Sample:
        with _device(queries):
            best = kernels.best_items(queries, packed(table), min(draw.k, table.num_items), _lists(excluded))
            return _drawn(best, draw)

    def pool_sample(
        self,
        queries: Tensor,
        table: ItemTable,
        pool: Ragged,
        draw: Draw,
        excluded: Ragged | None,
        threads: int,
    ) -> Sample:
        with _device(queries):
            best = kernels.pool_best(
                queries, packed(table), kernels.Lists(*pool), min(draw.k, table.num_items), _lists(excluded)
            )
            return _drawn(best, draw)

    def rank_within(self, queries: Tensor, table: ItemTable, targets: Ragged, tau: int | None, threads: int) -> Tensor:
        with _device(queries):
            return kernels.rank_within(queries, packed(table), kernels.Lists(*targets), tau)

    def count_above(self, queries: Tensor, table: ItemTable, bars: Tensor, limit: int | None, threads: int) -> Tensor:
        with _device(queries):
            return kernels.count_above(queries, packed(table), bars, limit)

    def logits_of(self, queries: Tensor, table: ItemTable, lists: Ragged, threads: int) -> Tensor:
        with _device(queries):
            return kernels.logits_of(queries, packed(table), kernels.Lists(*lists))

    def rank_and_sample(
        self,
        queries: Tensor,
        table: ItemTable,
        targets: Ragged,
        tau: int | None,
        draw: Draw,
        excluded: Ragged | None,
        threads: int,
    ) -> RankedSample:
        with _device(queries):
            ranks, best = kernels.rank_and_best(
                queries,
                packed(table),
                kernels.Lists(*targets),
                tau,
                min(draw.k, table.num_items),
                _lists(excluded),
            )
            return RankedSample(ranks, *_drawn(best, draw))

    def neighbour_votes(self, graph: Tensor, items: Tensor, sources: Ragged, threads: int) -> Tensor:
        """Plain torch: one gather of neighbour lists is too little work for a kernel of its own."""
        row = torch.repeat_interleave(sources.offsets.diff())
        row, source = torch.unique(torch.stack([row, sources.ids.long()]), dim=1)  # a repeated id votes once
        agrees = (graph[source] == items[row, None]).any(dim=1)
        return torch.zeros(len(items), dtype=torch.int64, device=items.device).index_add_(0, row, agrees.long())

    def sampled_softmax(
        self,
        queries: Tensor,
        positives: Tensor,
        negatives: Tensor,
        targets: Tensor,
        negative_ids: Tensor,
        weights: Tensor,
        target_offsets: Tensor | None,
        negative_offsets: Tensor | None,
        threads: int,
        instruction_set: str | None,
        bfloat16: bool,
    ) -> SampledSoftmax:
        _check_device(queries)
        if instruction_set is not None:
            raise ValueError(f"backend 'triton' has one way to train, got instruction_set {instruction_set!r}")
        arguments = (queries, positives, negatives, targets, negative_ids, weights, target_offsets, negative_offsets)
        with _device(queries):
            return SampledSoftmax(*kernels.sampled_softmax(*arguments, bfloat16))

    full_softmax = lacking("full_softmax")
    transformer_layer = lacking("transformer_layer")
    encode_histories = lacking("encode_histories")
    extend_histories = lacking("extend_histories")
    adam_rows = lacking("adam_rows")


BACKEND: Backend = Triton()


def _drawn(best: kernels.Best, draw: Draw) -> Sample:
    place = kernels.draw(best, draw.temperature, draw.seed, draw.counters_of(best.ids))[:, None]
    return Sample(best.ids.gather(1, place)[:, 0], best.logits.gather(1, place)[:, 0])


def packed(table: ItemTable) -> kernels.ItemTable:
    """The table; refuses one whose rounded copy or margin is of weights that were trained on since."""
    made, version = table.handle
    if not made.exact:
        check_version(table.weights, version)
    return made


def _lists(lists: Ragged | None) -> kernels.Lists | None:
    return None if lists is None else kernels.Lists(*lists)


def _check_device(items: Tensor) -> None:
    if items.device.type == "cpu" and kernels.platform() != "interpreter":
        raise BackendUnavailable(
            "backend 'triton' needs CUDA tensors, got cpu: move model and data to a GPU, use backend='cpp', or set "
            "TRITON_INTERPRET=1 before Python starts to run the kernels in Triton's (slow) interpreter"
        )
    if items.device.type not in ("cpu", "cuda"):
        raise BackendUnavailable(f"backend 'triton' needs CUDA tensors, got {items.device}: use backend='reference'")


def _device(queries: Tensor) -> torch.cuda.device:
    """Launch on the tensors' device, which need not be the current one; nothing on CPU."""
    return torch.cuda.device(queries.device if queries.device.type == "cuda" else -1)
