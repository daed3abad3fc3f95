"""Interaction data: the `Sequences` type, readers and writers, splits and the simulator."""

from rsir.data.io.frames import from_frame
from rsir.data.io.readers import read, read_histories
from rsir.data.io.writers import to_table, write
from rsir.data.ragged import Ragged
from rsir.data.sequences import Sequences
from rsir.data.simulate import SimulatedData, simulate
from rsir.data.splits import EvaluationSet, Split, global_time, leave_one_out

__all__ = [
    "EvaluationSet",
    "Ragged",
    "Sequences",
    "SimulatedData",
    "Split",
    "from_frame",
    "global_time",
    "leave_one_out",
    "read",
    "read_histories",
    "simulate",
    "to_table",
    "write",
]
