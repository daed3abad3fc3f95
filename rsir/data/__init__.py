"""Interaction data: the `Sequences` type, readers and writers, splits and the simulator."""

from rsir.data.events import DataWarning
from rsir.data.readers import read, read_histories
from rsir.data.sequences import DataError, Sequences
from rsir.data.simulate import SimulatedData, simulate
from rsir.data.splits import EvaluationSet, Split, global_time, leave_one_out
from rsir.data.tables import from_frame
from rsir.data.writers import to_table, write

__all__ = [
    "DataError",
    "DataWarning",
    "EvaluationSet",
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
