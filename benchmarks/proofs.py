"""``rank_within`` with proofs in place of scans (:mod:`rsir.generation.screening`), and how each verdict came about."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from rsir import ops
from rsir.generation.neighbours import CandidateIndex
from rsir.generation.screening import screen
from rsir.ops import Ragged


@dataclass(frozen=True)
class ProofStats:
    """How the verdicts of :func:`rank_within_proved` came about; add them up over calls."""

    rows: int = 0
    """Rows judged."""
    rejected: int = 0
    """Rejected by proof."""
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
    """:func:`rsir.ops.rank_within` with as few exact scans as :func:`rsir.generation.screening.screen` allows.

    Parameters
    ----------
    queries, index, targets, tau, verify, audit, threads
        As for :func:`rsir.generation.screening.screen`.

    Returns
    -------
    ranks : (B,) int64
        At most tau where a row is accepted, tau + 1 where it is not. A trusted row has rank 1.
    stats : ProofStats

    Raises
    ------
    ValueError
        As for :func:`rsir.generation.screening.screen`.
    """
    rejected, trusted = screen(queries, index, targets, tau, verify=verify, audit=audit, threads=threads)
    ranks = torch.where(rejected, tau + 1, 1)
    scan = (~rejected & ~trusted).nonzero()[:, 0]
    ranks[scan] = ops.rank_within(queries[scan], index.table, select(targets, scan), tau, threads=threads)
    stats = ProofStats(rows=len(queries), rejected=int(rejected.sum()), scanned=len(scan))
    if verify == "trust" and index.method != "flat":
        leaked = int((ranks[scan] > tau).sum())
        stats = replace(stats, trusted=int(trusted.sum()) + len(scan), audited=len(scan), leaked=leaked)
    return ranks, stats


def select(lists: Ragged, rows: Tensor) -> Ragged:
    """The named rows' lists."""
    counts = lists.offsets.diff()[rows]
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    within = torch.arange(int(offsets[-1])) - torch.repeat_interleave(offsets[:-1], counts)
    return Ragged(lists.ids[torch.repeat_interleave(lists.offsets[rows], counts) + within], offsets)
