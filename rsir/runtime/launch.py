"""How the processes of a run find each other, as ``torchrun`` starts them."""

from __future__ import annotations

import os

from rsir.runtime.world import World

__all__ = ["STARTED_AS", "join", "local_rank", "restarts_allowed"]

STARTED_AS = "RSIR_STARTED_AS"
"""Variable of the environment: the command that started the processes of a run, where it was not torchrun."""


def join() -> World:
    """Meet the other processes of a run, if torchrun or its like has started several; else a world of one.

    Raises
    ------
    WorldError
        They cannot be met.
    """
    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        return World(restarted > 0)
    from rsir.runtime.processes import meet  # loads torch.distributed

    return meet(restarted, local_rank())


def local_rank() -> int:
    """Number of this process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def restarts_allowed() -> bool:
    """Whether torchrun starts processes again that ended in an error."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0
