"""The decoding engine behind :mod:`rsir.generation.generate`: many trajectories side by side, one slot each.

A slot that ends is given to the next trajectory at once, so the batch stays full. Trajectories of one source that
have the same items so far share one encoding and one verdict: they follow a leader, until they part.
What a trajectory becomes depends on its source, its number and the seed alone: never on the slots or their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsir.config import GenerationConfig
from rsir.data.sequences import Sequences, ragged_indices
from rsir.errors import Interrupted
from rsir.generation.drawing import Slots, adds
from rsir.generation.fidelity import Fidelity
from rsir.generation.open_items import Targets
from rsir.generation.times import are_timed, times_at
from rsir.models.protocol import Backbone, IncrementalBackbone
from rsir.models.recomputing import Recomputed
from rsir.ops import ItemTable
from rsir.runtime.philox import Stream, counters, uniform
from rsir.runtime.resume import NO_CHECKPOINTS, Checkpoints, Snapshot
from rsir.runtime.runtime import RUNTIME, Runtime

__all__ = ["Engine", "Found"]

_BLOCKS = 4
"""The largest part of the sources, those that take longest, is this part of a process's share."""


@dataclass(frozen=True)
class Found:
    """Finished trajectories, ordered by source row and number.

    Attributes
    ----------
    row : (T,) int64
        Source row of each.
    items : (T, L) int32
        Padded with 0.
    lengths : (T,) int64
    refused : (T,) bool
        Whether the fidelity check ended it.
    scanned, scanned_refused : (T,) int64
        Verdicts on it by exact scan (all but those a screening policy could give), and how many were refusals.
    """

    row: np.ndarray
    items: np.ndarray
    lengths: np.ndarray
    refused: np.ndarray
    scanned: np.ndarray
    scanned_refused: np.ndarray


class Engine(Slots):
    """One generation from some sources; see :func:`rsir.generation.generate.generate` for the parameters.

    `rows` (n,) int64 are those to start from, each with at least two different items. A job is one trajectory: job j is
    number ``j % m`` of source row ``j // m``.
    """

    def __init__(
        self,
        model: Backbone,
        sources: Sequences,
        rows: np.ndarray,
        config: GenerationConfig,
        fidelity: Fidelity,
        *,
        seed: int,
        round_: int,
        table: ItemTable,
        numbers: np.ndarray | None = None,
        runtime: Runtime = RUNTIME,
    ) -> None:
        self.runtime, self.world, self.numbers = runtime, runtime.world, numbers
        self.model, self.sources, self.config, self.fidelity = model, sources, config, fidelity
        self.seed, self.round, self.threads = seed, round_, runtime.threads
        self.table = table
        # What takes long comes first: in the end the batch would run on for a few long trajectories.
        order = rows[np.argsort(-self._lengths(rows), kind="stable")]
        self.jobs = (order[:, None] * config.m + np.arange(config.m)).ravel()
        self.max_length = model.max_len
        self.adds = adds(model, config)
        self.rows, device = rows, self.table.weights.device
        self.device = device
        slots = min(self._most_slots(), max(1, -(-len(order) // self.world.size) * config.m))
        if isinstance(model, IncrementalBackbone):
            self.state: Any = model.new_state(slots)
            self.step: Any = model.step
        else:
            self.state, self.step = Recomputed(model, slots), Recomputed.step
        self.job = torch.full((slots,), -1, device=device)
        self.items = torch.zeros(slots, self.max_length, dtype=torch.int64, device=device)
        self.length = torch.zeros(slots, dtype=torch.int64, device=device)
        self.given = torch.zeros_like(self.length)  # how many items come from the source: the start
        self.pending = torch.zeros_like(self.length)  # the item to append next
        self.targets = Targets(slots, device)  # what is open is known of leaders
        self.leader = torch.arange(slots, device=device)  # the slot that is encoded for this one
        self.query = torch.zeros(slots, self.table.dim, device=device)  # of leaders
        self.refused = torch.zeros(slots, dtype=torch.bool, device=device)
        self.scanned = torch.zeros_like(self.length)
        self.scanned_refused = torch.zeros_like(self.length)
        self.clock: Tensor | None = None  # of each slot: the times of its places, and of what comes after the last
        if are_timed(model, sources):
            self.clock = torch.zeros(slots, self.max_length + 1, dtype=torch.int64, device=device)

    def run(self, checkpointer: Checkpoints = NO_CHECKPOINTS) -> Found:
        """Decode every job that ``checkpointer`` does not hold already, and save there what is finished now and then.

        Of several processes each gets some sources' trajectories: what it has decoded, and what it has read.
        """
        parts: list[dict[str, Tensor]] = []
        self._decode(self._todo(checkpointer, parts), parts, checkpointer)
        return self._found(parts)

    def _todo(self, checkpointer: Checkpoints, parts: list[dict[str, Tensor]]) -> np.ndarray:
        """(n,) int64: the jobs that no file holds, those from long sources first; what files hold goes to `parts`.

        Each file is read by one of the processes.
        """
        names = checkpointer.names("trajectories")
        if not names:
            return self.jobs
        rank, size = self.world.rank, self.world.size
        read = (saved.tensors for saved in checkpointer.read(names[rank::size]))
        found = _joined([self._ended(self.job[:0]), *read])
        found = _some(found, torch.isin(found["job"], torch.from_numpy(self.jobs)))
        job, of = (each.numpy() for each in self.world.all_gather(found["job"], torch.full_like(found["job"], rank)))
        # What was made again at a restart, as its file was not seen then, is there twice.
        done, once = np.unique(job, return_index=True)
        parts.append(_some(found, torch.from_numpy(np.sort(once[of[once] == rank]) - np.searchsorted(of, rank))))
        return self.jobs[np.isin(self.jobs, done, invert=True)]

    def _decode(self, todo: np.ndarray, parts: list[dict[str, Tensor]], checkpointer: Checkpoints) -> None:
        """Decode jobs, as many of them as this process comes to take; what it finishes is appended to `parts`."""
        saved = len(parts)

        def unsaved() -> Snapshot | None:
            """All of a source's trajectories or none, so that one process filters them."""
            nonlocal saved
            if len(parts) == saved:
                return None
            new = _joined(parts[saved:])
            whole = self._whole(new["job"])
            if not whole.any():
                return None
            parts[saved:] = [_some(new, whole), _some(new, ~whole)]
            saved += 1
            return Snapshot(parts[-2], {})

        m, alone = self.config.m, self.world.size == 1
        most = len(todo) if alone else len(todo) // (m * _BLOCKS * self.world.size)
        blocks = self.world.parts(len(todo) // m, max(most, 1))
        claims = self.world.claims(len(blocks))
        waiting, running, taken, stopping = todo[:0], 0, 0, False
        while True:
            if not len(waiting) and running < len(self.job) and (number := next(claims, None)) is not None:
                waiting = todo[blocks[number].start * m : blocks[number].stop * m]
                taken = blocks[number].stop * m
            if not len(waiting) and not running:
                break
            free = self._free(len(waiting))
            if len(free) >= self.config.m:
                # Whole sources where there is room, so that their trajectories can share.
                free = free[: len(free) - len(free) % self.config.m]
            if len(free):
                self._start(free, waiting[: len(free)])
                waiting, running = waiting[len(free) :], running + len(free)
            ended = self._advance(self._busy())
            if len(ended):
                parts.append(self._ended(ended))
                running -= len(ended)
                # What others took before is counted as finished.
                finished = len(self.jobs) - len(todo) + taken - len(waiting) - running
                self.runtime.progress("generate", finished, len(self.jobs), "trajectories")
            stopping = self.runtime.stop()
            if stopping:
                break
            checkpointer.maybe_save("trajectories", unsaved)
        if stopping:
            claims.cancel()  # for all processes
        if self.world.any(stopping):
            checkpointer.save("trajectories", unsaved)
            raise Interrupted("stopped as asked")

    def _most_slots(self) -> int:
        return self.config.slots

    def _free(self, most: int) -> Tensor:
        """The first slots that hold no trajectory, at most this many."""
        return (self.job < 0).nonzero()[:, 0][:most]

    def _busy(self) -> Tensor:
        return (self.job >= 0).nonzero()[:, 0]

    def _whole(self, job: Tensor) -> Tensor:
        """Which of these trajectories are of sources that have all of theirs here."""
        _, row, count = (job // self.config.m).unique(return_inverse=True, return_counts=True)
        return (count == self.config.m)[row]

    def _found(self, parts: Sequence[Mapping[str, Tensor]]) -> Found:
        found = {name: values.numpy() for name, values in _joined([self._ended(self.job[:0]), *parts]).items()}
        job = found.pop("job")
        sorted_ = np.argsort(job, kind="stable")
        return Found(job[sorted_] // self.config.m, **{name: values[sorted_] for name, values in found.items()})

    def _ended(self, slots: Tensor) -> dict[str, Tensor]:
        """What became of the trajectories in these slots, which are free from now on."""
        ended = {
            "job": self.job[slots],
            "items": self.items[slots].int(),
            "lengths": self.length[slots],
            "refused": self.refused[slots],
            "scanned": self.scanned[slots],
            "scanned_refused": self.scanned_refused[slots],
        }
        self.job[slots] = -1
        return {name: values.cpu() for name, values in ended.items()}

    def _start(self, slots: Tensor, job: np.ndarray) -> None:
        """Give free slots these jobs."""
        row, number = self._row_and_number(job)
        lengths = self._lengths(row)
        self.targets.start(slots, self.sources.items[ragged_indices(self.sources.offsets[row], lengths)], lengths)
        self.job[slots] = self._tensor(job)
        self.items[slots] = 0
        for fresh in (self.length, self.refused, self.scanned, self.scanned_refused):
            fresh[slots] = 0
        self.given[slots] = self._tensor(self._start_lengths(row, number, lengths))
        self.pending[slots] = self.targets.at(slots, torch.zeros_like(slots))
        first = np.append(True, row[1:] != row[:-1])
        self.leader[slots] = slots[self._tensor(np.maximum.accumulate(np.where(first, np.arange(len(row)), 0)))]
        self.state.reset(slots)
        if self.clock is not None:
            self.clock[slots] = self._tensor(times_at(self.sources, row[:, None], np.arange(self.max_length + 1)))

    def _start_lengths(self, row: np.ndarray, number: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        if self.config.start == "first":
            return np.ones(len(row), np.int64)
        longest = np.minimum(lengths, self.max_length) - 1
        words = counters(Stream.PREFIX, self.round, self._number_of(row), number, np.zeros_like(row))
        return 1 + (uniform(self.seed, words) * longest).astype(np.int64)

    def _advance(self, slots: Tensor) -> Tensor:
        """Append each slot's pending item, verify, draw the next one; -> the slots whose trajectory ends."""
        self.items[slots, self.length[slots]] = self.pending[slots]
        leaders = slots[self.leader[slots] == slots]
        self.targets.use(leaders, self.pending[leaders])
        self.query[leaders] = self.step(self.state, leaders, self.pending[leaders], **self._times(leaders))
        self.length[slots] += 1
        length = self.length[slots]
        ended = length == self.max_length
        if self.fidelity.checks_items and bool(ended.any()):
            full = slots[ended]
            self._refuse(full[self._strays(full)])
        starting = (length < self.given[slots]) & ~ended
        self.pending[slots[starting]] = self.targets.at(slots[starting], length[starting])

        deciding = (~ended & ~starting).nonzero()[:, 0]
        if len(deciding):
            ended[deciding] = self._decide(slots[deciding])
        self._part(slots[~ended])
        return slots[ended]

    def _times(self, slots: Tensor) -> dict[str, Tensor]:
        """When the items that slots append come, and when the next ones are asked for; empty without times."""
        if self.clock is None:
            return {}
        place = self.length[slots, None] + torch.arange(2, device=self.device)
        return {"times": self.clock[slots[:, None], place]}

    def _part(self, slots: Tensor) -> None:
        """Let slots that had one leader and now append different items follow leaders of their own."""
        together = self.leader[slots] * (self.table.num_items + 1) + self.pending[slots]
        _, group = together.unique(return_inverse=True)
        lowest = torch.full((len(slots),), len(self.job), device=self.device)
        lowest = lowest.scatter_reduce(0, group, slots, "amin")[group]
        # The old leader leads again if it goes on: it is the lowest of those it led. Its state stays where it is.
        new = (lowest == slots) & (self.leader[slots] != slots)
        for held in (self.state, self.targets):
            held.copy(self.leader[slots[new]], slots[new])
        self.leader[slots] = lowest

    def _decide(self, slots: Tensor) -> Tensor:
        """Verify trajectories and draw their next items; -> whether each ends here."""
        length = self.length[slots]
        passed = self.targets.left[self.leader[slots]] > 0  # no target left is an end, but no failure

        failed = self._strays(slots) if self.fidelity.checks_items else torch.zeros_like(passed)
        if self.fidelity.judges:
            judged = (passed & ~failed).nonzero()[:, 0]
            if len(judged):
                failed[judged] = ~self._judged(slots[judged])
        going = (passed & ~failed).nonzero()[:, 0]
        own = self._draws_own(slots[going])
        drawn = torch.zeros_like(length)
        if self.device.type == "cpu" or self.adds:
            parts = [(going, *self._draw_together(slots[going], own))] if len(going) else []
        else:
            parts = list(self._draw_apart(slots, going, own))
        for rows, within, best, scanned in parts:
            failed[rows], drawn[rows] = ~within, best
            self.scanned[slots[rows]] += scanned
            self.scanned_refused[slots[rows]] += scanned & ~within
        self.pending[slots] = drawn
        self._refuse(slots[failed])
        return drawn == 0

    def _strays(self, slots: Tensor) -> Tensor:
        """Whether each trajectory, of those that have a target left, ends in a generated item that is not accepted."""
        strays = torch.zeros(len(slots), dtype=torch.bool, device=self.device)
        open_ = self.targets.left[self.leader[slots]] > 0
        checked = (open_ & (self.length[slots] > self.given[slots])).nonzero()[:, 0]
        new = self.items[slots[checked], self.length[slots[checked]] - 1]
        strays[checked] = ~self.fidelity.accepts(new, self.targets.sources(slots[checked]))
        return strays

    def _judged(self, slots: Tensor) -> Tensor:
        """Whether each trajectory passes the judge; those that follow one leader are the same so far."""
        leaders, leader = self.leader[slots].unique(return_inverse=True)
        row, _ = self._row_and_number(self.job[leaders].cpu().numpy())
        users, targets = self.sources.source[row], self.targets.lists(leaders)
        passed = self.fidelity.judge(users, self._used(leaders), targets, self.threads)
        return passed[leader]

    def _refuse(self, slots: Tensor) -> None:
        """Mark trajectories that failed the check, and take back the item that they failed by, if it was generated."""
        self.refused[slots] = True
        if self.fidelity.on_fail == "drop":
            back = slots[self.length[slots] > self.given[slots]]
            self.length[back] -= 1
            self.items[back, self.length[back]] = 0


def _joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _some(part: Mapping[str, Tensor], kept: Tensor) -> dict[str, Tensor]:
    return {name: part[name][kept] for name in part}
