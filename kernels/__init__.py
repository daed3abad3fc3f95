"""Triton kernels of rsir; installed as ``rsir.kernels``. Imports torch and triton only."""

from .attention import attend_cached
from .decode import FRESH, Slots
from .fused import best_items, count_above, rank_and_best, rank_within
from .gumbel import draw
from .plan import PRECISIONS, fastest_precision, platform
from .pool import logits_of, pool_best
from .softmax import sampled_softmax
from .types import Best, ItemTable, Lists

__all__ = [
    "FRESH",
    "PRECISIONS",
    "Best",
    "ItemTable",
    "Lists",
    "Slots",
    "attend_cached",
    "best_items",
    "count_above",
    "draw",
    "fastest_precision",
    "logits_of",
    "platform",
    "pool_best",
    "rank_and_best",
    "rank_within",
    "sampled_softmax",
]
