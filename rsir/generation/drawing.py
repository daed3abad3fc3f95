"""Verdicts and draws of the decoding engine: what each slot's trajectory is judged by, and which item it gets next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from rsir import ops
from rsir.config import GenerationConfig
from rsir.data.sequences import Sequences
from rsir.generation.fidelity import Fidelity
from rsir.generation.open_items import Targets
from rsir.models.protocol import AddingBackbone, Backbone
from rsir.models.recomputing import ragged
from rsir.ops import Draw, ItemTable, Ragged, SparseScores
from rsir.runtime.philox import Stream, counters, uniform

__all__ = ["Slots", "adds"]


class Slots:
    """Trajectories side by side, one a slot, and what their next items are drawn from.

    Attributes
    ----------
    job : (slots,) int64
        What each slot holds, or -1: job j is number ``j % m`` of source row ``j // m``.
    items : (slots, max_length) int64
        Padded with 0.
    length, given : (slots,) int64
        How many items there are, and how many come from the source.
    leader : (slots,) int64
        The slot that is encoded for each: trajectories of one source that have the same items so far share one.
    query : (slots, dim) float32
        What the model made of the items; of leaders.
    targets : Targets
        The source's items that are still open; of leaders.
    numbers : (rows,) int64, optional
        What the random numbers of source rows are keyed by, where it is not the row.
    """

    model: Backbone
    sources: Sequences
    config: GenerationConfig
    fidelity: Fidelity
    table: ItemTable
    device: torch.device
    threads: int | None
    seed: int
    round: int
    numbers: np.ndarray | None
    adds: bool
    job: Tensor
    items: Tensor
    length: Tensor
    given: Tensor
    leader: Tensor
    query: Tensor
    targets: Targets

    def _draws_own(self, slots: Tensor) -> Tensor:
        """Whether each slot's next item comes from its source's own items (probability p)."""
        return self._tensor(uniform(self.seed, self._counters(Stream.POOL, slots)) < self.config.p)

    def _draw_together(self, slots: Tensor, own: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Verdicts and draws where all that follow a leader share one scan, as they have one query.

        ``own`` (n,) bool: which draw from their sources' unused items, the others from the catalogue.
        -> whether each slot is within tau; its draw, 0 where it is not; whether it took a scan to know.
        """
        leaders, leader = self.leader[slots].unique(return_inverse=True)
        added = self._added(leaders)
        within, scan = self._screened(self.query[leaders], self.targets.lists(leaders))
        scanned = torch.zeros_like(within).index_fill_(0, scan, True)
        listing = torch.zeros_like(within).index_fill_(0, leader[~own], True)  # whose k best items are asked for
        best = torch.zeros(len(leaders), self.config.k, dtype=torch.int64, device=self.device)
        trusted = (within & listing).nonzero()[:, 0]  # no check, or trusted to pass it
        if len(trusted):
            queries, used = self.query[leaders[trusted]], self._used(leaders[trusted])
            best[trusted] = ops.topk(
                queries, self.table, self.config.k, excluded=used, added=_rows(added, trusted), threads=self.threads
            ).ids
        tau = self.fidelity.tau
        listed, others = scan[listing[scan]], scan[~listing[scan]]
        if tau is not None and len(others):
            queries, targets = self.query[leaders[others]], self.targets.lists(leaders[others])
            ranks = ops.rank_within(queries, self.table, targets, tau, added=_rows(added, others), threads=self.threads)
            within[others] = ranks <= tau
        if tau is not None and len(listed):
            queries, targets = self.query[leaders[listed]], self.targets.lists(leaders[listed])
            used = self._used(leaders[listed])
            found = ops.rank_and_topk(
                queries,
                self.table,
                targets,
                tau,
                self.config.k,
                excluded=used,
                added=_rows(added, listed),
                threads=self.threads,
            )
            within[listed], best[listed] = found.ranks <= tau, found.ids
        drawn = torch.zeros_like(slots)
        passed = within[leader]
        for rows, pool in ((passed & own, self._targets(slots[passed & own])), (passed & ~own, None)):
            if rows.any():
                pool = ragged(best[leader[rows]]) if pool is None else pool
                queries, draw, own_added = (
                    self._queries(slots[rows]),
                    self._draw(slots[rows]),
                    _rows(added, leader[rows]),
                )
                drawn[rows] = ops.pool_sample(
                    queries, self.table, pool, draw, added=own_added, threads=self.threads
                ).ids
        return passed, drawn, scanned[leader]

    def _draw_apart(self, slots: Tensor, going: Tensor, own: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """The same slot by slot: on a GPU sharing saves less than its launches and waits take."""
        for rows, draw in ((going[own], self._draw_own), (going[~own], self._draw_catalogue)):
            if not len(rows):
                continue
            if self.config.k == 1:  # the same for all that follow a leader
                leaders, inverse = self.leader[slots[rows]].unique(return_inverse=True)
                within, best, scanned = draw(leaders)
                yield rows, within[inverse], best[inverse], scanned[inverse]
            else:
                yield rows, *draw(slots[rows])

    def _draw_own(self, slots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw from the sources' unused items.

        -> whether each slot is within tau; its draw, 0 where it is not; whether it took a scan to know.
        """
        queries, targets = self._queries(slots), self._targets(slots)
        within, scan = self._screened(queries, targets)
        tau = self.fidelity.tau
        if tau is not None and len(scan):
            if len(scan) < len(slots):
                queries, targets = queries[scan], self._targets(slots[scan])
            within[scan] = ops.rank_within(queries, self.table, targets, tau, threads=self.threads) <= tau
        drawn = torch.zeros_like(slots)
        scanned = torch.zeros_like(within).index_fill_(0, scan, True)
        slots = slots[within]
        # The unused own items are the targets themselves, so nothing else needs to be excluded.
        drawn[within] = ops.pool_sample(
            self._queries(slots), self.table, self._targets(slots), self._draw(slots), threads=self.threads
        ).ids
        return within, drawn, scanned

    def _draw_catalogue(self, slots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw from the catalogue; otherwise as :meth:`_draw_own`."""
        queries, targets = self._queries(slots), self._targets(slots)
        within, scan = self._screened(queries, targets)
        drawn = torch.zeros_like(slots)
        if within.any():  # no check, or trusted to pass it
            part = slots[within]
            drawn[within] = ops.topk_sample(
                self._queries(part), self.table, self._draw(part), excluded=self._used(part), threads=self.threads
            ).ids
        tau = self.fidelity.tau
        if tau is not None and len(scan):
            part = slots[scan]
            if len(scan) < len(slots):
                queries, targets = queries[scan], self._targets(part)
            verdict = ops.rank_and_sample(
                queries,
                self.table,
                targets,
                tau,
                self._draw(part),
                excluded=self._used(part),
                threads=self.threads,
            )
            within[scan], drawn[scan] = verdict.ranks <= tau, verdict.ids
        return within, drawn, torch.zeros_like(within).index_fill_(0, scan, True)

    def _screened(self, queries: Tensor, targets: Ragged) -> tuple[Tensor, Tensor]:
        """-> (n,) bool, whether each row passes the rank check without a scan; and which of them need the scan."""
        every = torch.arange(len(queries), device=self.device)
        if self.fidelity.tau is None:
            return torch.ones_like(every, dtype=torch.bool), every[:0]
        # proofs are of logits alone
        screened = None if self.adds else self.fidelity.screen(queries, targets, self.threads)
        if screened is None:
            return torch.zeros_like(every, dtype=torch.bool), every
        rejected, trusted = screened
        return trusted, (~rejected & ~trusted).nonzero()[:, 0]

    def _added(self, leaders: Tensor) -> SparseScores | None:
        """What the model adds to the logits after each trajectory."""
        if not self.adds:
            return None
        ids, offsets = self._used(leaders)
        return cast(AddingBackbone, self.model).added_scores(Ragged(ids.int().cpu(), offsets.cpu()))

    def _queries(self, slots: Tensor) -> Tensor:
        return self.query[self.leader[slots]]

    def _targets(self, slots: Tensor) -> Ragged:
        return self.targets.lists(self.leader[slots])

    def _used(self, slots: Tensor) -> Ragged:
        """The items of each trajectory."""
        return ragged(self.items[:, : int(self.length[slots].max())][slots])

    def _draw(self, slots: Tensor) -> Draw:
        # the best item is taken without a random number
        counters = None if self.config.k == 1 else self._tensor(self._counters(Stream.ITEM, slots))
        return Draw(self.config.k, self.config.temperature, self.seed, counters)

    def _counters(self, stream: Stream, slots: Tensor) -> np.ndarray:
        row, number = self._row_and_number(self.job[slots].cpu().numpy())
        return counters(stream, self.round, self._number_of(row), number, self.length[slots].cpu().numpy())

    def _row_and_number(self, job: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return job // self.config.m, job % self.config.m

    def _lengths(self, rows: np.ndarray) -> np.ndarray:
        return self.sources.offsets[rows + 1] - self.sources.offsets[rows]

    def _number_of(self, row: np.ndarray) -> np.ndarray:
        """What the random numbers of source rows are keyed by."""
        return row if self.numbers is None else self.numbers[row]

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def adds(model: Backbone, config: GenerationConfig) -> bool:
    """Whether trajectories are drawn and verified by what a model adds to its logits, too."""
    return config.generator != "networks" and isinstance(model, AddingBackbone)


def _rows(added: SparseScores | None, rows: Tensor) -> SparseScores | None:
    """Added scores of some rows, of which one may come up often."""
    if added is None:
        return None
    counts = added.offsets.diff()[rows]
    offsets = pad(counts.cumsum(0), (1, 0))
    places = torch.repeat_interleave(added.offsets[rows] - offsets[:-1], counts)
    places += torch.arange(len(places), device=places.device)
    return SparseScores(added.ids[places], offsets, added.values[places])
