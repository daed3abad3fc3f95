"""Fidelity verdicts for large catalogues: proofs from a candidate index in place of exact scans.

Nothing approximate reaches a verdict: candidates either prove what the exact scan would say, or leave the row to it
(or, where the caller asks for that, to trust).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from . import ops
from .ann import CandidateIndex, at_least
from .ops import Ragged, TopK

__all__ = ["ProofStats", "rank_within_proved"]

_SCAN_SHARE = 0.1
"""Largest share of the catalogue worth searching list by list for a complete answer: FAISS reads an item about six
times slower than the blocked scan of :func:`rsir.ops.rank_within`."""

_TILE = 1024
"""Rows handled at once where a (rows, lists) matrix is needed."""


@dataclass(frozen=True)
class ProofStats:
    """How the verdicts of :func:`rank_within_proved` came about; add them up over calls."""

    rows: int = 0
    """Rows judged."""
    rejected: int = 0
    """Rejected by proof."""
    accepted: int = 0
    """Accepted by proof."""
    scanned: int = 0
    """Judged by the exact scan, audits among them."""
    trusted: int = 0
    """Rows without a proof under ``verify="trust"``, audited ones among them."""
    audited: int = 0
    """Trusted rows that the exact scan judged as a sample."""
    leaked: int = 0
    """Audited rows that the exact scan rejected."""

    @property
    def leak(self) -> float:
        """Estimated share of trusted rows that the exact scan would have rejected; NaN while none was audited."""
        return self.leaked / self.audited if self.audited else float("nan")

    def __add__(self, other: ProofStats) -> ProofStats:
        return ProofStats(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def rank_within_proved(
    queries: Tensor,
    index: CandidateIndex,
    targets: Ragged,
    tau: int,
    *,
    verify: Literal["exact", "trust"] = "exact",
    audit: float = 0.05,
    threads: int | None = None,
) -> tuple[Tensor, ProofStats]:
    """:func:`rsir.ops.rank_within` for large catalogues, with as few exact scans as proofs allow.

    A row is proved rejected when tau candidates score above its best target. It is proved accepted when every list
    that could hold a better item has been searched and fewer than tau were found. Candidates' and targets' logits
    come from other arithmetic than the scan's; they are compared with a margin that covers the rounding of float32
    dot products in any order of summation, so a proof holds for the scan of every backend, to the bit.

    Parameters
    ----------
    queries : (B, d) float32
    index : CandidateIndex
        With method "flat" every row is scanned.
    targets : Ragged
    tau : int
        At least 1.
    verify : {"exact", "trust"}
        What happens to rows without a proof. exact: they are scanned, and the ranks are those of ``rank_within``.
        trust: they are accepted, but for a sample chosen by their queries' bits that is scanned to measure the leak.
    audit : float
        Share of the rows without a proof that is sampled under trust, in [0, 1].
    threads : int, optional
        Default: torch's number.

    Returns
    -------
    ranks : (B,) int64
        At most tau where a row is accepted, tau + 1 where it is not. Under trust an accepted row that was not
        sampled has 1 + the number of candidates found above it, a lower bound of its rank.
    stats : ProofStats

    Raises
    ------
    ValueError
        As for ``rank_within``; an unknown ``verify``; ``audit`` out of its range.
    """
    if verify not in ("exact", "trust"):
        raise ValueError(f"verify: expected 'exact' or 'trust', got {verify!r}")
    if not 0 <= audit <= 1:
        raise ValueError(f"audit: expected a share in [0, 1], got {audit!r}")
    tau = at_least("tau", tau, 1)
    threads = torch.get_num_threads() if threads is None else at_least("threads", threads, 1)
    if index.method == "flat" or len(queries) == 0:
        ranks = ops.rank_within(queries, index.packed, targets, tau, threads=threads)
        return ranks, ProofStats(rows=len(queries), scanned=len(queries))

    try:
        row = _Rows(queries.contiguous(), index, targets, threads)
    except ValueError:
        ops.rank_within(queries, index.packed, targets, tau, threads=threads)  # says it of the targets
        raise
    above, _ = row.count_above(index.search(queries, tau, threads=threads), slice(None))
    rejected = (above >= tau) | (targets.offsets.diff() == 0)
    ranks = torch.where(rejected, tau + 1, 1 + above)
    open_rows = (~rejected).nonzero()[:, 0]
    stats = {"rows": len(queries), "rejected": int(rejected.sum())}
    scan = open_rows
    if verify == "trust":
        scan = open_rows[_sampled(queries[open_rows], audit)]
        stats |= {"trusted": len(open_rows), "audited": len(scan)}
    elif index.method == "ivf":
        settled = torch.cat([row.settle(part, tau, ranks, threads) for part in open_rows.split(_TILE)] or [open_rows])
        failed = ranks[open_rows[settled]] > tau
        stats["rejected"] += int(failed.sum())
        stats["accepted"] = int((~failed).sum())
        scan = open_rows[~settled]
    ranks[scan] = ops.rank_within(queries[scan], index.packed, _select(targets, scan), tau, threads=threads)
    if verify == "trust":
        stats["leaked"] = int((ranks[scan] > tau).sum())
    return ranks, ProofStats(**stats, scanned=len(scan))


class _Rows:
    """A batch of queries with bounds on the logit of each one's best target."""

    def __init__(self, queries: Tensor, index: CandidateIndex, targets: Ragged, threads: int) -> None:
        best = ops.pool_sample(queries, index.packed, targets, threads=threads).logits
        self.queries, self.index, self.targets = queries, index, targets
        # A float32 dot product, summed in any order, is within d units of roundoff of the true one, relative to the
        # product of the norms. Between a candidate's logit and the target's lie four: ours and the scan's of each.
        largest = torch.linalg.vector_norm(queries, dim=1) * index.largest_norm
        margin = 4 * (index.packed.dim + 4) * 2.0**-24 * largest + index.packed.dim * 2.0**-124
        # A row with an odd logit is left to the scan: nothing is above +inf, everything may be above -inf.
        odd = ~(best.isfinite() & margin.isfinite())
        self.high = torch.where(odd, torch.inf, best + margin)
        self.low = torch.where(odd, -torch.inf, best - margin)
        self.margin = margin

    def count_above(self, found: TopK, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Candidates that surely score above a row's best target, and those that may. A target never surely does."""
        surely = (found.logits > self.high[rows][:, None]) & (found.logits < torch.inf)
        perhaps = ~(found.logits < self.low[rows][:, None])
        return surely.sum(1), perhaps.sum(1)

    def settle(self, rows: Tensor, tau: int, ranks: Tensor, threads: int) -> Tensor:
        """Judge rows (n,) by all lists that could hold an item above their best target, where these are few; write
        their ranks. Returns (n,) bool: which rows that settled."""
        # Four more margins for the rounding of the lists' bounds. Written so that a NaN makes a list relevant.
        below = self.index.highest(self.queries[rows]) + 4 * self.margin[rows][:, None] < self.low[rows][:, None]
        relevant = ~below & (self.index.lists.sizes > 0)
        size = relevant.to(torch.float32) @ self.index.lists.sizes.to(torch.float32)
        settled = size <= _SCAN_SHARE * self.index.packed.num_items
        rows, relevant = rows[settled], relevant[settled]
        if len(rows) == 0:
            return settled
        owner, chosen = relevant.nonzero(as_tuple=True)
        counts = relevant.sum(1)
        place = torch.arange(len(owner)) - (counts.cumsum(0) - counts)[owner]
        lists = torch.full((len(rows), max(int(counts.max()), 1)), -1)
        lists[owner, place] = chosen
        # tau above it settle a row, and so does a place left over; targets may take up one place each.
        most = int(self.targets.offsets.diff()[rows].max())
        found = self.index.search_lists(self.queries[rows], lists, tau + most, threads)
        own = _member(found.ids, _select(self.targets, rows), self.index.packed.num_items)
        found = TopK(torch.where(own, 0, found.ids), torch.where(own, -torch.inf, found.logits))
        surely, perhaps = self.count_above(found, rows)
        known = (surely == perhaps) | (surely >= tau)
        ranks[rows[known]] = 1 + surely[known].clamp(max=tau)
        settled[settled.clone()] = known
        return settled


def _sampled(queries: Tensor, share: float) -> Tensor:
    """(B,) bool: a sample of the queries, keyed by their bits and not by their places."""
    bits = queries.contiguous().view(torch.int32).long()
    odd = torch.arange(bits.shape[1]) * 0x9E3779B9 + 0x7F4A7C15 | 1
    mixed = (bits * odd).sum(1)
    mixed = (mixed ^ (mixed >> 29)) * 0x2545F4914F6CDD1D
    return ((mixed >> 32) & 0xFFFFFF) < share * 2**24


def _select(lists: Ragged, rows: Tensor) -> Ragged:
    """The named rows' lists."""
    counts = lists.offsets.diff()[rows]
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    within = torch.arange(int(offsets[-1])) - torch.repeat_interleave(offsets[:-1], counts)
    return Ragged(lists.ids[torch.repeat_interleave(lists.offsets[rows], counts) + within], offsets)


def _member(ids: Tensor, lists: Ragged, num_items: int) -> Tensor:
    """(B, k) bool: which of a row's ids its list holds."""
    rows = torch.arange(len(ids))
    listed = torch.repeat_interleave(rows, lists.offsets.diff()) * (num_items + 1) + lists.ids
    return torch.isin(rows[:, None] * (num_items + 1) + ids, listed)
