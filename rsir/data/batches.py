"""Training batches: sequences packed into rows without padding, shuffled by seed, built in the background."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rsir.data.ragged import counts_of, ragged_indices
from rsir.data.sequences import Sequences
from rsir.errors import DataError
from rsir.runtime import interrupts, memory
from rsir.runtime.world import World

__all__ = ["Batches", "Part", "SoftTargets", "TrainingBatch"]

_AHEAD = 4  # batches built before they are asked for
_PATIENCE = 60  # seconds that the thread which builds them may take to end; it is left behind then
_SHUFFLE, _NEGATIVES, _SOFT = 0, 1, 2  # streams of random numbers


@dataclass(frozen=True)
class TrainingBatch:
    """Sequences laid one after the other into rows of equal width; each position predicts its target.

    A position may look at those of its own segment that do not come after it.

    Attributes
    ----------
    items : (R, W) int64
        Input items; 0 where a row is not filled.
    targets : (R, W) int64
        The item that came next; 0 where a row is not filled.
    positions : (R, W) int64
        Place within the sequence, from 0 for its oldest item.
    segments : (R, W) int64
        Which sequence of its row a position belongs to, from 1; 0 where a row is not filled.
    weights : (R, W) float32
        Weight of each position in the loss; 0 where a row is not filled.
    generator : torch.Generator
        On the device of the tensors; draws dropout and the like.
    tokens : int
        Positions filled.
    corrections : (N + 1,) float32, optional
        By item, what the loss adds to its logit, as target and as negative: minus the logarithm of the probability that
        a negative is this item (log-Q). None where all are drawn alike, which needs no correction.
    full : bool
        Whether the negatives are the whole catalogue, each item once, so that a loss may take the item table itself.
    part : Part, optional
        Where these are some rows of a larger batch, whose others are computed by other processes.
    times : (R, W, 2) int64, optional
        When each input came, and when its target did; 0 where a row is not filled. Of a backbone that uses times.
    """

    items: Tensor
    targets: Tensor
    positions: Tensor
    segments: Tensor
    weights: Tensor
    generator: torch.Generator
    tokens: int
    corrections: Tensor | None = None
    full: bool = False
    part: Part | None = None
    times: Tensor | None = None

    def divided(self, world: World) -> tuple[TrainingBatch, Tensor | float]:
        """The rows that this process computes, and how much their loss, a weighted mean, counts in the batch's.

        Where there are fewer rows than processes each computes all of them, and all count alike.
        """
        rows = len(self.items)
        if world.size == 1:
            return self, 1.0
        if rows < world.size:
            return self, 1 / world.size
        first, last = (rows * rank // world.size for rank in (world.rank, world.rank + 1))
        tensors = ["items", "targets", "positions", "segments", "weights"] + ["times"] * (self.times is not None)
        own = {name: getattr(self, name)[first:last] for name in tensors}
        share = own["weights"].sum() / self.weights.sum()
        return replace(self, **own, part=Part(self, first, last, share, world)), share


@dataclass(frozen=True, eq=False)
class Part:
    """Which rows of a batch a process computes.

    Attributes
    ----------
    whole : TrainingBatch
    first, last : int
        Its rows ``first`` to ``last - 1``.
    share : scalar
        This part's share of the whole batch's weight.
    world : World
    """

    whole: TrainingBatch
    first: int
    last: int
    share: Tensor
    world: World

    def holds(self, places: Tensor) -> Tensor:
        """Whether places of the flattened rows of the whole batch, (n,) int64, are in these rows; (n,) bool."""
        row = places // self.whole.items.shape[1]
        return (row >= self.first) & (row < self.last)

    def joined(self, values: Tensor) -> Tensor:
        """(n, d) values of the whole batch, from values that are 0 wherever they belong to other processes' rows.

        The gradient reaches those of these rows alone.
        """
        total = values.detach().clone()
        self.world.all_reduce(total)
        return values + (total - values.detach())

    def of_whole(self, loss: Tensor) -> Tensor:
        """A loss of the whole batch, for the loss of these rows.

        Every process computes it, and its gradient reaches the rows of that process alone. Weighed by `share` and
        added up over the processes, what this returns gives the loss once and the gradient of all rows.
        """
        return ((loss - loss.detach()) + loss.detach() / self.world.size) / self.share


@dataclass(frozen=True, eq=False)
class SoftTargets:
    """Other items that a position may be trained on, with the probability of each.

    A position's target is replaced, with probability ``share`` and anew each time it is trained on, by a draw from its
    items. The expected loss is that of the mixed distribution, and no loss has to know of it.

    Attributes
    ----------
    ids : (nnz, k) int32
        Items for each interaction of a training set, where it is a target; 0 in the first place: none.
    cumulative : (nnz, k) float32
        Cumulative probabilities of the items.
    share : float
        In [0, 1].
    """

    ids: npt.NDArray[np.int32]
    cumulative: npt.NDArray[np.float32]
    share: float


class Batches:
    """Endless stream of training batches and their negatives.

    Batch for batch the same for a given seed, whatever the machine or the number of threads.

    Parameters
    ----------
    train : Sequences
        Sequences of fewer than two items have nothing to predict and are left out.
    batch_size : int
        Sequences in a batch; the last one of an epoch may be smaller.
    max_len : int
        Inputs of a sequence: its last ``max_len + 1`` items take part. Also the width of a packed row.
    negatives : int
        Negative items a batch, with replacement; a catalogue that is not larger is taken whole. 0 takes it whole, too,
        and says so in the batch.
    seed : int
    device : torch.device
    generator : torch.Generator
        Handed on in every batch.
    weights : (n,) float, optional
        Weight of each sequence in the loss, 0 or more; default 1. Sequences of weight 0 are left out.
    soft : SoftTargets, optional
        Soft targets for the training set.
    proposal : {"uniform", "popularity"}
        What negatives are drawn from: all items alike, or each in proportion to one more than how often it occurs in
        the training set.
    timed : bool, default False
        Whether batches have the times of the training set, which then must have some.
    fixed : bool, default False
        For CUDA graphs: rows are padded to a few numbers, and batches of one number of rows come in the same memory on
        the device, each until the next one is asked for.

    Raises
    ------
    DataError
        When no sequence can be trained on, or there are no times to hand on.
    ValueError
        Weights of the wrong shape, negative or not finite; soft targets of another training set.
    """

    def __init__(
        self,
        train: Sequences,
        batch_size: int,
        max_len: int,
        negatives: int,
        *,
        seed: int,
        device: torch.device,
        generator: torch.Generator,
        weights: npt.ArrayLike | None = None,
        soft: SoftTargets | None = None,
        proposal: Literal["uniform", "popularity"] = "uniform",
        timed: bool = False,
        fixed: bool = False,
    ) -> None:
        if timed and train.times is None:
            raise DataError("train: expected sequences with times, for a backbone that uses them, got some without")
        weight = np.ones(len(train), np.float32) if weights is None else np.asarray(weights, np.float32)
        if weight.shape != (len(train),):
            raise ValueError(f"weights: expected one a sequence, ({len(train)},), got {weight.shape}")
        wrong = ~(np.isfinite(weight) & (weight >= 0))
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(f"weights: expected finite numbers of at least 0, got {weight[row]} for sequence {row}")
        self._rows = np.flatnonzero((train.lengths >= 2) & (weight > 0))
        if len(train) < 2**31:
            self._rows = self._rows.astype(np.int32)  # half the memory, here and shuffled
        if not self._rows.size:
            raise DataError(
                f"none of the {len(train)} sequences has two items and a weight above 0: there is nothing to learn from"
            )
        if soft is not None and len(soft.ids) != len(train.items):
            raise ValueError(f"soft: expected one row for each of {len(train.items)} interactions, got {len(soft.ids)}")
        self._train, self._weight, self._soft = train, weight, soft
        self._times = train.times if timed else None
        self._batch_size, self._width, self._full = batch_size, max_len, negatives == 0
        self._negatives = negatives or train.num_items
        self._seed, self._device, self._generator = seed, device, generator
        self._fixed: dict[int, Tensor] | None = {} if fixed else None  # memory on the device by size
        self._drawn: npt.NDArray[np.int64] | None = None  # cumulative counts of items 0..N
        self._corrections: Tensor | None = None
        if proposal == "popularity" and self._negatives < train.num_items:
            counts = counts_of(train.items, train.num_items + 1) + 1
            counts[0] = 0
            self._drawn = counts.cumsum()
            corrections = np.log(self._drawn[-1] / np.maximum(counts, 1)).astype(np.float32)
            self._corrections = torch.from_numpy(corrections).to(device)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one pass over all sequences."""
        return -(-self._rows.size // self._batch_size)

    def __iter__(self) -> Generator[tuple[TrainingBatch, Tensor], None, None]:
        """:meth:`stream` from the first batch."""
        return self.stream()

    def stream(self, start: int = 0) -> Generator[tuple[TrainingBatch, Tensor], None, None]:
        """(batch, negatives (S,) int64) for ever, from batch ``start`` on; a background thread builds them ahead."""
        ready: queue.Queue[object] = queue.Queue(_AHEAD)
        stop = threading.Event()

        def put(entry: object) -> bool:
            while not stop.is_set():
                try:
                    ready.put(entry, timeout=0.1)
                    return True
                except queue.Full:
                    continue
            return False

        def work() -> None:
            try:
                for built in self._build(start):
                    if not put(built if self._device.type == "cpu" else _pinned(*built)):
                        return
            except BaseException as error:
                put(error)

        worker = threading.Thread(target=work, name="rsir-batches", daemon=True)
        worker.start()
        try:
            while True:
                try:
                    entry = ready.get(timeout=1)
                except queue.Empty:
                    interrupts.check()
                    if not worker.is_alive() and ready.empty():
                        raise RuntimeError("the thread that builds training batches has ended") from None
                    continue
                if isinstance(entry, BaseException):
                    raise entry
                yield self._to_device(*entry)  # type: ignore[misc]
        finally:
            stop.set()
            worker.join(_PATIENCE)

    def _build(self, start: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]]:
        epoch, skipped = divmod(start, self.steps_per_epoch)
        step = start
        while True:
            order = self._rows.copy()
            np.random.default_rng([self._seed, _SHUFFLE, epoch]).shuffle(order)
            for first in range(skipped * self._batch_size, order.size, self._batch_size):
                memory.release()
                grid, weights, times = self._pack(order[first : first + self._batch_size].astype(np.int64), step)
                yield grid, weights, self._draw(step), times
                step += 1
            epoch, skipped = epoch + 1, 0

    def _to_device(self, *built: Any) -> tuple[TrainingBatch, Tensor]:
        """The batch of what :meth:`_build` gives, or :func:`_pinned` of it."""
        if self._device.type == "cpu":
            parts: list[Any] = [None if part is None else torch.from_numpy(part) for part in built]
            grid, weights, negatives, times = parts
            tokens = int(np.count_nonzero(built[0][3]))
        else:
            numbers, shape, tokens = built
            places, timed = math.prod(shape), 0 if self._times is None else 2
            sizes = [4 * places, timed * places, min(self._negatives, self._train.num_items)]
            grid, times, negatives, bits = self._there(numbers).split([*sizes, len(numbers) - sum(sizes)])
            grid, times = grid.view(4, *shape), times.view(*shape, 2) if timed else None
            weights = bits.view(torch.float32)[:places].view(shape)
        items, targets, positions, segments = grid
        noise, corrections = self._generator, self._corrections
        batch = TrainingBatch(items, targets, positions, segments, weights, noise, tokens, corrections, self._full)
        return batch if times is None else replace(batch, times=times), negatives

    def _there(self, numbers: Tensor) -> Tensor:
        """Pinned numbers on the device, in memory of their own or that of the batch before of this size."""
        if self._fixed is None:
            return numbers.to(self._device, non_blocking=True)
        if len(numbers) not in self._fixed:
            self._fixed[len(numbers)] = torch.empty(numbers.shape, dtype=numbers.dtype, device=self._device)
        return self._fixed[len(numbers)].copy_(numbers, non_blocking=True)

    def _pack(self, rows: npt.NDArray[np.int64], step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        from rsir.data import packing

        ends = self._train.offsets[rows + 1]
        lengths = np.minimum(ends - self._train.offsets[rows] - 1, self._width)
        row, column, height = packing.assign(lengths, self._width)
        if self._fixed is not None:
            height = _padded(height)
        grid = np.zeros((4, height, self._width), np.int64)
        weights = np.zeros((height, self._width), np.float32)
        packing.fill(self._train.items, ends, lengths, row, column, self._weight[rows], grid, weights)
        if self._soft is not None:
            numbers = np.random.default_rng([self._seed, _SOFT, step]).random((2, lengths.sum()))
            soft = self._soft
            packing.soften(soft.ids, soft.cumulative, soft.share, numbers, ends, lengths, row, column, grid[1])
        if self._times is None:
            return grid, weights, None
        times = np.zeros((height * self._width, 2), np.int64)
        place = ragged_indices(row * self._width + column, lengths)
        came = ragged_indices(ends - 1 - lengths, lengths)
        times[place, 0], times[place, 1] = self._times[came], self._times[came + 1]
        return grid, weights, times.reshape(height, self._width, 2)

    def _draw(self, step: int) -> npt.NDArray[np.int64]:
        size = self._train.num_items
        if self._negatives >= size:
            return np.arange(1, size + 1)
        random = np.random.default_rng([self._seed, _NEGATIVES, step])
        if self._drawn is None:
            return random.integers(1, size + 1, self._negatives)
        return self._drawn.searchsorted(random.integers(0, self._drawn[-1], self._negatives), side="right")


def _pinned(
    grid: np.ndarray, weights: np.ndarray, negatives: np.ndarray, times: np.ndarray | None
) -> tuple[Tensor, tuple[int, ...], int]:
    """All of a batch in one array of pinned memory, (n,) int64; the shape of its rows, and how many places are filled.

    Grid, times, negatives, and weights, two of which take the place of one whole number.
    """
    bits = np.zeros(-(-weights.size // 2), np.int64)
    bits.view(np.float32)[: weights.size] = weights.ravel()
    parts = [grid.ravel(), *([] if times is None else [times.ravel()]), negatives, bits]
    return torch.from_numpy(np.concatenate(parts)).pin_memory(), weights.shape, int(np.count_nonzero(grid[3]))


def _padded(rows: int) -> int:
    """Rows rounded up to one of eight numbers for each power of two, and to a multiple of 4."""
    step = max(4, 1 << max(0, rows.bit_length() - 4))
    return -(-rows // step) * step
