"""Fidelity verdicts for large catalogues: proofs from a candidate index in place of exact scans.

Nothing approximate reaches a verdict: candidates either prove what the exact scan would say, or leave the row to it
(or, where the caller asks for that, to trust).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rsir import ops
from rsir.generation.neighbours import CandidateIndex, at_least
from rsir.ops import Ragged

__all__ = ["screen"]

_CANDIDATES = 2**22  # at a time, of all rows: ids and logits of 48 MiB


def screen(
    queries: Tensor,
    index: CandidateIndex,
    targets: Ragged,
    tau: int,
    *,
    verify: Literal["exact", "trust"] = "exact",
    audit: float = 0.05,
    threads: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Rows that need no exact scan: those proved to fail the rank check, and those to be trusted to pass it.

    A row is proved rejected when tau candidates score above its best target. Their logits come from other arithmetic
    than the scan's, so they are compared with a margin that covers the rounding of float32 dot products in any order
    of summation: a proof holds for the scan of every backend, to the bit. The same margin keeps a row's own targets
    from counting. What passes is never proved: a bound on the items not searched (Cauchy and Schwarz on each list's
    radius) left two thirds of a clustered catalogue to search.

    Parameters
    ----------
    queries : (B, d) float32
    index : CandidateIndex
        With method "flat" every row is left to the scan.
    targets : Ragged
    tau : int
        At least 1.
    verify : {"exact", "trust"}
        What happens to rows without a proof. exact: they are to be scanned. trust: they are accepted, but for a
        sample chosen by their queries' bits that is to be scanned, to measure how many of them should not have been.
    audit : float
        Share of the rows without a proof that is sampled under trust, in [0, 1].
    threads : int, optional
        Default: torch's number.

    Returns
    -------
    rejected, trusted : (B,) bool
        Never both; what is neither needs the scan.

    Raises
    ------
    ValueError
        As for :func:`rsir.ops.rank_within`; an unknown ``verify``; ``audit`` out of its range.
    """
    if verify not in ("exact", "trust"):
        raise ValueError(f"verify: expected 'exact' or 'trust', got {verify!r}")
    if not 0 <= audit <= 1:
        raise ValueError(f"audit: expected a share in [0, 1], got {audit!r}")
    tau = at_least("tau", tau, 1)
    threads = torch.get_num_threads() if threads is None else at_least("threads", threads, 1)
    rejected = torch.zeros(len(queries), dtype=torch.bool)
    if index.method == "flat" or len(queries) == 0:
        return rejected, rejected.clone()
    rejected = targets.offsets.diff() == 0
    if tau < index.table.num_items:  # else nothing can have so many items before it
        rejected |= _count_above(queries, index, targets, tau, threads) >= tau
    trusted = torch.zeros_like(rejected)
    if verify == "trust":
        trusted = ~rejected & ~_sampled(queries, audit)
    return rejected, trusted


def _count_above(queries: Tensor, index: CandidateIndex, targets: Ragged, tau: int, threads: int) -> Tensor:
    """(B,) int64: how many of the tau best candidates surely score above a row's best target."""
    try:
        best = ops.pool_sample(queries, index.table, targets, threads=threads).logits
    except ValueError:
        ops.rank_within(queries, index.table, targets, tau, threads=threads)  # says it of the targets
        raise
    # A float32 dot product, summed in any order, is within d units of roundoff of the true one, relative to the
    # product of the norms. Between a candidate's logit and the target's lie four: ours and the scan's of each.
    largest = torch.linalg.vector_norm(queries, dim=1) * index.largest_norm
    margin = 4 * (index.table.dim + 4) * 2.0**-24 * largest + index.table.dim * 2.0**-124
    # Without a finite margin, or without a finite target, nothing is sure.
    bound = torch.where(best.isfinite() & margin.isfinite(), best + margin, torch.inf)
    above = torch.empty(len(queries), dtype=torch.int64)
    rows = max(1, _CANDIDATES // tau)
    for first in range(0, len(queries), rows):
        part = slice(first, first + rows)
        candidates = index.search(queries[part], tau, threads=threads).logits
        above[part] = ((candidates > bound[part, None]) & (candidates < torch.inf)).sum(1)
    return above


def _sampled(queries: Tensor, share: float) -> Tensor:
    """(B,) bool: a sample of the queries, keyed by their bits and not by their places."""
    bits = queries.contiguous().view(torch.int32).long()
    odd = torch.arange(bits.shape[1]) * 0x9E3779B9 + 0x7F4A7C15 | 1
    mixed = (bits * odd).sum(1)
    mixed = (mixed ^ (mixed >> 29)) * 0x2545F4914F6CDD1D
    return ((mixed >> 32) & 0xFFFFFF) < share * 2**24
