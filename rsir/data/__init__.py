"""Interaction data: the `Sequences` type, readers and writers, splits and the simulator."""

from rsir.data.sequences import DataError, Sequences
from rsir.data.splits import EvaluationSet, Split, global_time, leave_one_out

__all__ = ["DataError", "EvaluationSet", "Sequences", "Split", "global_time", "leave_one_out"]
