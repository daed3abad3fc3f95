"""Splits into training, validation and test data that keep every held-out event out of the training data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from rsir.data.ragged import Ragged, Timed, gathered, sealed
from rsir.data.sequences import Int32Array, Int64Array, Sequences, offsets_of
from rsir.errors import DataError
from rsir.runtime import memory

Target = Literal["last", "first", "all", "random"]
Repeats = Literal["excluded", "included", "targets"]
"""Whether items that a user had already are ranked and recommended; "targets" was the rule before there was one."""


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Ranking tasks: given a history, at which rank does the model put the target? Read-only.

    Attributes
    ----------
    rows : (n,) int64
        Row of the data set that each task was made from; a row may have more than one task, or none.
    histories : Ragged
        Items (nnz,) int32 that a task's target follows: oldest first, never empty, untruncated. Where the data have
        times, :class:`~rsir.data.ragged.Timed` ones, asked at the time of the target.
    targets : (n,) int32
        The item that came next.
    repeats : {"excluded", "included", "targets"}, default "excluded"
        Whether items of the history are ranked. Where they are excluded, a target among them is a miss; "targets" ranks
        it, as the only one of them.
    """

    rows: Int64Array
    histories: Ragged
    targets: Int32Array
    repeats: Repeats = "excluded"

    def __post_init__(self) -> None:
        for array in (self.rows, self.histories.values, self.histories.offsets, self.targets):
            array.flags.writeable = False
        if isinstance(self.histories, Timed):
            for array in (self.histories.times, self.histories.asked):
                array.flags.writeable = False

    def __len__(self) -> int:
        """Number of tasks."""
        return self.rows.size

    def known(self) -> npt.NDArray[np.bool_]:
        """(n,) bool: whether each target is in the history before it."""
        known = np.zeros(len(self), np.bool_)
        for rows in memory.row_blocks(self.histories.offsets):
            histories = self.histories.rows(rows.start, rows.stop)
            hits = histories.values == np.repeat(self.targets[rows], histories.lengths)
            known[rows] = np.logical_or.reduceat(hits, histories.offsets[:-1])
        return known


@dataclass(frozen=True, eq=False)
class Split:
    """A data set split three ways; see `leave_one_out` and `global_time`.

    Attributes
    ----------
    train : Sequences
        The data without any held-out event: same rows (some may be empty), same labels.
    validation, test : EvaluationSet
        A test history may hold validation events; neither target is in `train` at its position or later.
    """

    train: Sequences
    validation: EvaluationSet
    test: EvaluationSet


def leave_one_out(data: Sequences, *, timed: bool = True) -> Split:
    """Hold out the last item of each row for test and the one before for validation.

    Rows of at least 3 items take part; shorter ones stay in the training data whole. The test history
    includes the validation item.

    Parameters
    ----------
    data : Sequences
        Real rows.
    timed : bool, default True
        Whether the histories to rank after have the times that the data have.

    Raises
    ------
    DataError
        If there are generated rows, or no row has 3 items.
    """
    _require_real(data)
    lengths = data.lengths
    taking_part = lengths >= 3
    if not taking_part.any():
        longest = int(lengths.max(initial=0))
        raise DataError(
            "no user has 3 or more items (the longest sequence has "
            f"{longest}), so nothing can be held out: leave-one-out needs one item each to train, "
            "validate and test; filter the data less (min_rating, k_core), or check which column holds the users"
        )
    rows = np.flatnonzero(taking_part)
    ends = data.offsets[1:][rows]
    return Split(
        train=_prefixes(data, lengths - 2 * taking_part),
        validation=_tasks(data, rows, ends - 2, timed),
        test=_tasks(data, rows, ends - 1, timed),
    )


def global_time(
    data: Sequences,
    valid_fraction: float = 0.1,
    test_fraction: float = 0.1,
    target: Target = "last",
    seed: int = 0,
    *,
    timed: bool = True,
) -> Split:
    """Hold out everything that happened at or after two points in time, the same for all users.

    Training data ends at the first point, validation data lies between the two, test data follows the second.
    An event in the validation or test period can be a target if the user has an earlier event, to serve as
    history, and the item occurs in the training data: of an item never seen nothing can be learnt.

    Parameters
    ----------
    data : Sequences
        Real rows with times.
    valid_fraction, test_fraction : float, default 0.1 each
        Share of all events in each period; ties in time go to the later period together.
    target : {"last", "first", "all", "random"}, default "last"
        Which of a user's possible targets in a period to rank, each given all that precedes it: the last, as
        leave-one-out does; the first, closest to the end of training; every one in turn; or one at random.
    seed : int, default 0
        For ``target="random"``; the choice depends on the seed, the period and the row alone.
    timed : bool, default True
        As for `leave_one_out`.

    Raises
    ------
    DataError
        If there are no times, or generated rows; if a fraction is not in (0, 1) or they leave nothing to
        train on; if a period has no possible target.
    """
    _require_real(data)
    if data.times is None:
        raise DataError(
            "a global time split needs the time of each interaction, which this data lacks: "
            "read it with a time column, or split by leave-one-out"
        )
    if not (0 < valid_fraction < 1 and 0 < test_fraction < 1 and valid_fraction + test_fraction < 1):
        raise DataError(
            "valid_fraction and test_fraction must be above 0 and sum to less than 1, "
            f"got {valid_fraction} and {test_fraction}"
        )
    if target not in ("last", "first", "all", "random"):
        raise DataError(f'target must be "last", "first", "all" or "random", got {target!r}')
    if data.num_interactions == 0:
        raise DataError("there is no interaction to split")
    ordered = np.sort(data.times)
    last = ordered.size - 1
    test_start = ordered[min(last, round((1 - test_fraction) * ordered.size))]
    valid_start = ordered[min(last, round((1 - test_fraction - valid_fraction) * ordered.size))]

    training_lengths = np.add.reduceat(np.append(data.times < valid_start, False), data.offsets[:-1], dtype=np.int64)
    train = _prefixes(data, np.where(data.lengths > 0, training_lengths, 0))
    seen = np.zeros(data.num_items + 1, bool)
    seen[train.items] = True
    row_of = np.repeat(np.arange(len(data)), data.lengths)
    possible = seen[data.items]
    possible[data.offsets[:-1][data.lengths > 0]] = False  # no history
    periods = {
        "validation": (data.times >= valid_start) & (data.times < test_start),
        "test": data.times >= test_start,
    }
    sets = []
    for number, (period, inside) in enumerate(periods.items()):
        events = np.flatnonzero(inside & possible)
        if not events.size:
            raise DataError(
                f"the {period} period of the global time split has no event with an earlier event of the "
                f"same user and an item known from training; times go from {ordered[0]} to {ordered[-1]}, "
                f"validation starts at {valid_start} and test at {test_start}: change the fractions, or split "
                "by leave-one-out"
            )
        events = _choose(events, row_of[events], target, np.random.Generator(np.random.Philox(key=[seed, number])))
        sets.append(_tasks(data, row_of[events], events, timed))
    return Split(train, *sets)


def _choose(events: Int64Array, rows: Int64Array, target: Target, generator: np.random.Generator) -> Int64Array:
    """Of the possible targets (in row order) those that the rule picks."""
    if target == "all":
        return events
    starts = np.flatnonzero(np.append(True, rows[1:] != rows[:-1]))
    counts = np.diff(np.append(starts, rows.size))
    if target == "first":
        return events[starts]
    if target == "last":
        return events[starts + counts - 1]
    draws = generator.random(int(rows[-1]) + 1)[rows[starts]]
    return events[starts + (draws * counts).astype(np.int64)]


def _require_real(data: Sequences) -> None:
    generated = len(data) - data.num_real
    if generated:
        raise DataError(
            f"a split takes real data, got {generated} generated rows, which may hold test events; "
            "split first, then enrich the training part"
        )


def _prefixes(data: Sequences, lengths: npt.NDArray[np.int64]) -> Sequences:
    """The first `lengths[r]` events of each row."""
    starts, offsets = data.offsets[:-1], sealed(offsets_of(lengths))
    return Sequences(
        items=gathered(data.items, starts, offsets),
        offsets=offsets,
        num_items=data.num_items,
        source=data.source,
        round=data.round,
        times=None if data.times is None else gathered(data.times, starts, offsets),
        item_labels=data.item_labels,
        user_labels=data.user_labels,
    )


def _tasks(data: Sequences, rows: Int64Array, events: Int64Array, timed: bool) -> EvaluationSet:
    """One task for each event (index into `data.items`) of the row named; what precedes it is its history."""
    starts = data.offsets[rows]
    return EvaluationSet(
        rows=rows,
        histories=data.windows(starts, events - starts, timed=timed),
        targets=gathered(data.items, events, np.arange(len(events) + 1)),
    )
