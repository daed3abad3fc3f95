"""The data that a configuration names, and its split."""

from __future__ import annotations

from dataclasses import replace

from rsir.config import DataConfig, RecursionConfig
from rsir.data.io.events import Reading
from rsir.data.io.readers import read_log
from rsir.data.sequences import Sequences
from rsir.data.simulate import simulate
from rsir.data.splits import Split, global_time, leave_one_out
from rsir.errors import ConfigError

__all__ = ["load_data", "load_log", "split"]


def load_data(config: RecursionConfig) -> Sequences:
    """The interactions a configuration names: its file, or the embedded simulation."""
    return load_log(config)[0]


def load_log(config: RecursionConfig) -> tuple[Sequences, Reading]:
    """As `load_data`, and how its file was read."""
    if config.data.path is None:
        if config.data.k_core > 1 or config.data.min_rating is not None:
            raise ConfigError("data.k_core, data.min_rating: they filter a file, and none is given: expected data.path")
        return simulate(config.simulation).sequences, Reading(name="simulated data")
    return read_log(config.data.path, config.data)


def split(data: Sequences, config: DataConfig, seed: int = 0, *, timed: bool = False) -> Split:
    """Training, validation and test part of the data, as the configuration says; histories with times if `timed`."""
    if config.split == "leave-one-out":
        parts = leave_one_out(data, timed=timed)
    else:
        fractions = config.validation_fraction, config.test_fraction
        parts = global_time(data, *fractions, config.target, seed, timed=timed)
    validation, test = (replace(tasks, repeats=config.repeats) for tasks in (parts.validation, parts.test))
    return Split(parts.train, validation, test)
