"""Scoring, ranking and sampling over a catalogue, fused and batched.

Every op has the same signature and the same answer on every backend: ``"reference"`` (plain torch, the truth),
``"cpp"`` (the default on CPU) and ``"triton"`` (the default on CUDA). Inputs are checked here, once.

Conventions shared by all of them
---------------------------------
* A logit is the dot product of a query and an item embedding, in float32. Item 0 is padding: it is never scored.
* A NaN logit counts as -inf, and an item at -inf is never returned or drawn. +inf beats every finite logit.
* Higher logits come first; among equal logits the lower id comes first.
* Item ids are 1..N. Lists of ids (`Ragged`) may be empty and may repeat an id, which changes nothing.
* The ops on an item table take scores that are added to the logits of a few items a row (`SparseScores`): what is said
  of a logit is then true of the float32 sum, and answers are exact.
* Draws (`Draw`) are Gumbel-max with Philox4x32-10 noise keyed by ``(seed, counters[b], item)``: a row's draw does not
  depend on its place in the batch, the batch's size or the number of threads.
* No backend but the reference writes a (B, N) matrix.
"""

from __future__ import annotations

from rsir.ops.backend import BACKENDS, Backend
from rsir.ops.catalogue import (
    count_above,
    logits_of,
    neighbour_votes,
    place_within,
    pool_sample,
    rank_and_sample,
    rank_and_topk,
    rank_within,
    topk,
    topk_sample,
)
from rsir.ops.items import ItemTable, Together, join_tables, pack, table_part
from rsir.ops.network import (
    adam_rows,
    encode_histories,
    extend_histories,
    full_softmax,
    sampled_softmax,
    transformer_layer,
)
from rsir.ops.reference import average_keeps
from rsir.ops.types import (
    GREEDY,
    AdamMoments,
    Draw,
    FullSoftmax,
    LayerDropout,
    LayerFilter,
    LayerParameters,
    Ragged,
    RankedSample,
    RankedTopK,
    Sample,
    SampledSoftmax,
    SparseScores,
    TopK,
)

__all__ = [
    "BACKENDS",
    "GREEDY",
    "AdamMoments",
    "Backend",
    "Draw",
    "FullSoftmax",
    "ItemTable",
    "LayerDropout",
    "LayerFilter",
    "LayerParameters",
    "Ragged",
    "RankedSample",
    "RankedTopK",
    "Sample",
    "SampledSoftmax",
    "SparseScores",
    "Together",
    "TopK",
    "adam_rows",
    "average_keeps",
    "count_above",
    "encode_histories",
    "extend_histories",
    "full_softmax",
    "join_tables",
    "logits_of",
    "neighbour_votes",
    "pack",
    "place_within",
    "pool_sample",
    "rank_and_sample",
    "rank_and_topk",
    "rank_within",
    "sampled_softmax",
    "table_part",
    "topk",
    "topk_sample",
    "transformer_layer",
]
