"""Bounded exploration: the current model generates sequences for each user, checked step by step (RSIR, section 3).

Many trajectories are decoded side by side, one slot each; a slot that ends is given to the next trajectory at once.
What a trajectory becomes depends on its source, its number and the seed alone: never on the slots or their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import ops
from .config import GenerationConfig
from .data.sequences import Sequences, offsets_of, ragged_indices
from .fidelity import Fidelity
from .models.protocol import Backbone
from .ops import Ragged
from .philox import Stream, counters, uniform
from .progress import Progress, silent

__all__ = ["Generated", "generate"]


@dataclass(frozen=True)
class Generated:
    """Verified trajectories and how they came about.

    Attributes
    ----------
    trajectories : Sequences
        Generated rows alone, ordered by source row and trajectory number; join them to their sources with
        ``Sequences.concat``.
    decoded : int
        Trajectories decoded.
    refused : int
        Trajectories that the fidelity check ended.
    too_short, copies, duplicates : int
        Trajectories dropped for their length, as a prefix of their source, or as equal to an earlier one of the
        same source.
    """

    trajectories: Sequences
    decoded: int
    refused: int
    too_short: int
    copies: int
    duplicates: int


@torch.no_grad()
def generate(
    model: Backbone,
    sources: Sequences,
    config: GenerationConfig,
    fidelity: Fidelity,
    *,
    seed: int,
    round_: int,
    on_fail: str = "drop",
    backend: str = "auto",
    threads: int | None = None,
    progress: Progress = silent,
) -> Generated:
    """Generate and verify ``config.m`` trajectories for every row of ``sources``.

    Parameters
    ----------
    model : Backbone
        The generator; the incremental part of the protocol is used where it is offered.
    sources : Sequences
        Rows to start from. Rows with fewer than 2 different items have nothing to be verified against and
        generate nothing.
    config : GenerationConfig
    fidelity : Fidelity
        Bound to the same model; see :func:`rsir.fidelity.build`.
    seed : int
        0..2**64 - 1.
    round_ : int
        1 or more; marks the trajectories and keys their random numbers.
    on_fail : {"drop", "keep"}
        Whether the generated item that failed the check is taken off again (the paper) or stays (the authors'
        code).
    backend, threads
        As for :func:`rsir.ops.topk`.
    progress : Progress
        Called with the number of finished trajectories.

    Returns
    -------
    Generated

    Raises
    ------
    ValueError
        If the sources have more items than the model.
    """
    if sources.num_items != model.num_items:
        raise ValueError(
            f"sources: expected a catalogue of {model.num_items} items as the model's, got {sources.num_items}"
        )
    engine = _Engine(model, sources, config, fidelity, seed, round_, on_fail, backend, threads)
    found = engine.run(progress)
    return _filtered(found, engine.refused, sources, config, round_)


@dataclass(frozen=True)
class _Found:
    """Finished trajectories in the order of their jobs: row and number (T,), items (T, L), lengths (T,)."""

    row: np.ndarray
    items: np.ndarray
    lengths: np.ndarray


class _Engine:
    """The decoding loop. A job is one trajectory: number ``job`` belongs to source ``order[job // m]``."""

    def __init__(
        self,
        model: Backbone,
        sources: Sequences,
        config: GenerationConfig,
        fidelity: Fidelity,
        seed: int,
        round_: int,
        on_fail: str,
        backend: str,
        threads: int | None,
    ) -> None:
        self.model, self.sources, self.config, self.fidelity = model, sources, config, fidelity
        self.seed, self.round, self.drop = seed, round_, on_fail == "drop"
        self.packed = ops.pack(model.item_embeddings(), backend=backend)
        self.threads = threads
        self.device = self.packed.weights.device
        # Sources side by side should be of like length: their items are held as one padded matrix.
        lengths = sources.lengths
        several = np.flatnonzero(_has_two_items(sources))
        self.order = several[np.argsort(lengths[several], kind="stable")]
        self.jobs = len(self.order) * config.m
        self.slots = min(config.slots, max(self.jobs, 1))
        self.refused = 0
        self.max_length = model.max_len
        self.state: Any = model.new_state(self.slots) if hasattr(model, "new_state") else _Recomputed(model, self.slots)
        self.step = model.step if hasattr(model, "step") else _Recomputed.step
        self.job = torch.full((self.slots,), -1, device=self.device)
        self.items = torch.zeros(self.slots, self.max_length, dtype=torch.int64, device=self.device)
        self.length = torch.zeros(self.slots, dtype=torch.int64, device=self.device)
        self.given = torch.zeros_like(self.length)  # how many items come from the source: the start
        self.pending = torch.zeros_like(self.length)  # the item to append next
        self.source = torch.zeros(self.slots, 1, dtype=torch.int64, device=self.device)  # items of the source, 0-padded
        self.used = torch.zeros(self.slots, 1, dtype=torch.bool, device=self.device)  # which of them the trajectory has

    def run(self, progress: Progress) -> _Found:
        jobs: list[np.ndarray] = []
        items: list[np.ndarray] = []
        lengths: list[np.ndarray] = []
        started = finished = 0
        phase = f"round {self.round} generate"
        while finished < self.jobs:
            free = (self.job < 0).nonzero()[:, 0][: self.jobs - started]
            if len(free):
                self._start(free, started)
                started += len(free)
            ended = self._advance((self.job >= 0).nonzero()[:, 0])
            if len(ended):
                jobs.append(self.job[ended].cpu().numpy())
                items.append(self.items[ended].cpu().numpy().astype(np.int32))
                lengths.append(self.length[ended].cpu().numpy())
                self.job[ended] = -1
                finished += len(ended)
                progress(phase, finished, self.jobs, "trajectories")
        if not jobs:
            nothing = np.zeros(0, np.int64)
            return _Found(nothing, np.zeros((0, self.max_length), np.int32), nothing)
        job = np.concatenate(jobs)
        row = self.order[job // self.config.m]
        by_row = np.lexsort((job % self.config.m, row))
        return _Found(row[by_row], np.concatenate(items)[by_row], np.concatenate(lengths)[by_row])

    def _start(self, slots: Tensor, first_job: int) -> None:
        """Give free slots the next jobs."""
        job = first_job + np.arange(len(slots))
        row = self.order[job // self.config.m]
        lengths = self.sources.lengths[row]
        padded = np.zeros((len(row), int(lengths.max())), np.int64)
        padded[np.arange(padded.shape[1]) < lengths[:, None]] = self.sources.items[
            ragged_indices(self.sources.offsets[row], lengths)
        ]
        missing = padded.shape[1] - self.source.shape[1]
        if missing > 0:
            self.source = torch.nn.functional.pad(self.source, (0, missing))
            self.used = torch.nn.functional.pad(self.used, (0, missing))
        self.source[slots] = 0
        self.used[slots] = False
        self.source[slots, : padded.shape[1]] = torch.from_numpy(padded).to(self.device)
        self.job[slots] = torch.from_numpy(job).to(self.device)
        self.items[slots] = 0
        self.length[slots] = 0
        self.given[slots] = torch.from_numpy(self._start_lengths(row, job % self.config.m, lengths)).to(self.device)
        self.pending[slots] = self.source[slots, 0]
        self.state.reset(slots)

    def _start_lengths(self, row: np.ndarray, trajectory: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        if self.config.start == "first":
            return np.ones(len(row), np.int64)
        longest = np.minimum(lengths, self.max_length) - 1
        words = counters(Stream.PREFIX, self.round, row, trajectory, np.zeros_like(row))
        return 1 + (uniform(self.seed, words) * longest).astype(np.int64)

    def _advance(self, slots: Tensor) -> Tensor:
        """Append each slot's pending item, verify, draw the next one; -> the slots whose trajectory ends."""
        self.items[slots, self.length[slots]] = self.pending[slots]
        self.used[slots] |= self.source[slots] == self.pending[slots, None]
        queries = self.step(self.state, slots, self.pending[slots])
        self.length[slots] += 1
        length = self.length[slots]
        ended = length == self.max_length
        starting = (length < self.given[slots]) & ~ended
        self.pending[slots[starting]] = self.source[slots[starting], length[starting]]

        deciding = (~ended & ~starting).nonzero()[:, 0]
        if len(deciding):
            ended[deciding] = self._decide(slots[deciding], queries[deciding])
        return slots[ended]

    def _decide(self, slots: Tensor, queries: Tensor) -> Tensor:
        """Verify trajectories and draw their next items; -> whether each ends here."""
        source, length = self.source[slots], self.length[slots]
        open_targets = (source > 0) & ~self.used[slots]
        passed = open_targets.any(dim=1)  # no target left is an end, but no failure

        generated = length > self.given[slots]
        checked = (passed & generated).nonzero()[:, 0]
        accepted = self.fidelity.accepts(self.items[slots[checked], length[checked] - 1], _ragged(source[checked]))
        failed = torch.zeros_like(passed)
        if accepted is not None:
            failed[checked] = ~accepted

        going = (passed & ~failed).nonzero()[:, 0]
        own = self._draws_own(slots[going])
        drawn = torch.zeros_like(length)
        for rows, draw in ((going[own], self._draw_own), (going[~own], self._draw_catalogue)):
            if len(rows):
                targets = _ragged(torch.where(open_targets[rows], source[rows], 0))
                within, drawn[rows] = draw(slots[rows], queries[rows], targets)
                failed[rows] = ~within
        self.pending[slots] = drawn
        self.refused += int(failed.sum())
        if self.drop:
            back = slots[failed & generated]
            self.length[back] -= 1
            self.items[back, self.length[back]] = 0
        return drawn == 0

    def _draws_own(self, slots: Tensor) -> Tensor:
        """Whether each slot's next item comes from its source's own items (probability p)."""
        return torch.from_numpy(uniform(self.seed, self._counters(Stream.POOL, slots)) < self.config.p).to(self.device)

    def _draw_own(self, slots: Tensor, queries: Tensor, targets: Ragged) -> tuple[Tensor, Tensor]:
        """-> whether each row is within tau, and its drawn item, 0 where it is not."""
        tau = self.fidelity.tau
        if tau is None:
            within = torch.ones(len(slots), dtype=torch.bool, device=self.device)
        else:
            within = ops.rank_within(queries, self.packed, targets, tau, threads=self.threads) <= tau
        # The unused own items are the targets themselves, so nothing else needs to be excluded.
        drawn = ops.pool_sample(queries, self.packed, targets, **self._sampling(slots)).ids
        return within, torch.where(within, drawn, 0)

    def _draw_catalogue(self, slots: Tensor, queries: Tensor, targets: Ragged) -> tuple[Tensor, Tensor]:
        """-> whether each row is within tau, and its drawn item, 0 where it is not."""
        tau = self.fidelity.tau
        sampling = self._sampling(slots) | {"excluded": _ragged(self.items[slots])}
        if tau is None:
            drawn = ops.topk_sample(queries, self.packed, **sampling).ids
            return torch.ones_like(drawn, dtype=torch.bool), drawn
        verdict = ops.rank_and_sample(queries, self.packed, targets, tau, **sampling)
        return verdict.ranks <= tau, verdict.ids

    def _sampling(self, slots: Tensor) -> dict[str, Any]:
        words = torch.from_numpy(self._counters(Stream.ITEM, slots)).to(self.device)
        return {
            "k": self.config.k,
            "temperature": self.config.temperature,
            "seed": self.seed,
            "counters": words,
            "threads": self.threads,
        }

    def _counters(self, stream: Stream, slots: Tensor) -> np.ndarray:
        job = self.job[slots].cpu().numpy()
        row = self.order[job // self.config.m]
        return counters(stream, self.round, row, job % self.config.m, self.length[slots].cpu().numpy())


class _Recomputed:
    """Decoding state of a backbone without ``step``: the items themselves, encoded anew each time."""

    def __init__(self, model: Backbone, slots: int) -> None:
        self.model = model
        device = model.item_embeddings().device
        self.items = torch.zeros(slots, model.max_len, dtype=torch.int64, device=device)
        self.lengths = torch.zeros(slots, dtype=torch.int64, device=device)

    def reset(self, slots: Tensor) -> None:
        self.items[slots] = 0
        self.lengths[slots] = 0

    def step(self, slots: Tensor, items: Tensor) -> Tensor:
        self.items[slots, self.lengths[slots]] = items
        self.lengths[slots] += 1
        return self.model.encode(self.items[slots], self.lengths[slots])


def _ragged(padded: Tensor) -> Ragged:
    """Rows of ids with 0 for nothing (n, w) -> lists of the ids."""
    real = padded > 0
    offsets = torch.zeros(len(padded) + 1, dtype=torch.int64, device=padded.device)
    offsets[1:] = real.sum(dim=1).cumsum(dim=0)
    return Ragged(padded[real], offsets)


def _has_two_items(sources: Sequences) -> np.ndarray:
    """(n,) bool: whether a row holds at least two different items."""
    row = np.repeat(np.arange(len(sources)), sources.lengths)
    first = sources.items[sources.offsets[row]]
    differs = np.zeros(len(sources), bool)
    differs[row[sources.items != first]] = True
    return differs


def _filtered(found: _Found, refused: int, sources: Sequences, config: GenerationConfig, round_: int) -> Generated:
    """Drop what is too short, a copy of its source's beginning, or the same as an earlier one of its source."""
    decoded = len(found.row)
    long_enough = found.lengths >= config.min_length
    copy = np.zeros(decoded, bool)
    if not config.keep_copies:
        copy = long_enough & _is_prefix(found, sources)
    kept = np.flatnonzero(long_enough & ~copy)
    # Rows of bytes compare as wholes; padding is 0, which no item is, so lengths need no comparing.
    key = np.ascontiguousarray(np.column_stack([found.row[kept], found.items[kept]]))
    first = np.unique(key.view(f"V{key.strides[0]}")[:, 0], return_index=True)[1] if len(kept) else kept
    unique = kept[np.sort(first)]
    lengths = found.lengths[unique]
    trajectories = Sequences(
        items=found.items[unique][np.arange(found.items.shape[1]) < lengths[:, None]],
        offsets=offsets_of(lengths),
        num_items=sources.num_items,
        source=sources.source[found.row[unique]],
        round=np.full(len(unique), round_, np.int16),
        item_labels=sources.item_labels,
        user_labels=sources.user_labels,
    )
    return Generated(
        trajectories,
        decoded=decoded,
        refused=refused,
        too_short=int((~long_enough).sum()),
        copies=int(copy.sum()),
        duplicates=len(kept) - len(unique),
    )


def _is_prefix(found: _Found, sources: Sequences) -> np.ndarray:
    """(T,) bool: whether a trajectory equals the beginning of its source."""
    place = np.arange(found.items.shape[1])
    at = sources.offsets[found.row][:, None] + place
    there = np.append(sources.items, 0)[np.minimum(at, len(sources.items))]
    inside = place < found.lengths[:, None]
    fits = found.lengths <= sources.lengths[found.row]
    return fits & np.where(inside, there == found.items, True).all(axis=1)
