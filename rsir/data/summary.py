"""What was read, in one line: what a run says first."""

from __future__ import annotations

import numpy as np

from rsir.data.io.events import Reading
from rsir.data.sequences import Sequences
from rsir.data.splits import EvaluationSet, Split

__all__ = ["known_share", "summary"]


def summary(data: Sequences, parts: Split, reading: Reading | None = None) -> str:
    """One line on data: file and columns, size, what was left out, and what tells that the wrong column was taken.

    A log whose users had most of their targets before is one of repeats, or of ratings taken for items; one user with
    most of the events is a marker of missing values, or the wrong column.

    Parameters
    ----------
    data : Sequences
    parts : Split
        The split of the data.
    reading : Reading, optional
        How the data was read from a file.
    """
    lengths = data.lengths
    said = [f"{len(data):,} users, {data.num_items:,} items, {data.num_interactions:,} events"]
    if reading is not None and reading.dropped:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in reading.dropped.items())
        said.append(f"dropped {sum(reading.dropped.values()):,} ({reasons})")
    if len(parts.test):
        evaluated, known = np.unique(parts.test.rows).size, _percent(known_share(parts.test))
        said.append(f"{evaluated:,} users evaluated, who had {known} of their targets before")
    largest = int(lengths.max(initial=0)) / max(data.num_interactions, 1)
    said.append(f"the largest user has {_percent(largest)} of the events")
    return f"{_source(reading)}: {'; '.join(said)}"


def known_share(tasks: EvaluationSet) -> float:
    """Share of targets that are in the history they follow: what a recommender of new items cannot find."""
    return np.count_nonzero(tasks.known()) / max(len(tasks), 1)


def _source(reading: Reading | None) -> str:
    if reading is None:
        return "data"
    roles = ", ".join(f"{role} {name!r}" for role, name in reading.columns.items())
    how = ": ".join(filter(None, (reading.format, roles)))
    return f"{reading.name} ({how})" if how else reading.name


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.0995 else f"{share:.0%}"
