"""Every error that rsir raises for input, files, devices or processes that it cannot use.

All are :class:`RsirError`, and so ValueErrors. A message says what was expected, what came, and how to fix it.
"""

from __future__ import annotations

__all__ = [
    "BackboneError",
    "BackendUnavailable",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DataWarning",
    "ExportError",
    "FetchError",
    "GenerationError",
    "Interrupted",
    "RsirError",
    "RunError",
    "TrainingError",
    "WorldError",
]


class RsirError(ValueError):
    """What rsir cannot use or cannot do; catch this one for all of those below."""


class ConfigError(RsirError):
    """A setting is unknown or out of its range; the message names it, what was expected and what came."""


class DataError(RsirError):
    """Data, or a file of data, that cannot be used; the message says what was found and how to fix it."""


class BackboneError(RsirError):
    """A backbone lacks something, or is not known by the name given."""


class CheckpointError(RsirError):
    """A checkpoint cannot be read or written; the message names the file and what is wrong with it."""


class BackendUnavailable(RsirError, RuntimeError):
    """A backend was asked for by name and cannot run here; the message says why and how to fix it."""


class TrainingError(RsirError):
    """Training cannot go on; the message says at which step and why."""


class GenerationError(RsirError):
    """Generation cannot go on; the message says why."""


class RunError(RsirError):
    """A run's folder cannot be used, or not written to; the message names the file, the cause and how to fix it."""


class ExportError(RsirError):
    """A model cannot be exported; the message says why and what to do."""


class FetchError(RsirError):
    """A data set cannot be fetched; the message names the address or file, the cause and how to fix it."""


class WorldError(RsirError):
    """The processes of a run cannot meet, or have lost one of them."""


class Interrupted(Exception):
    """Asked to stop, and stopped; in a run's folder everything computed so far is saved."""


class DataWarning(UserWarning):
    """Data was changed on reading; the message says what and how much."""
