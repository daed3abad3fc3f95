"""Which runs a run goes on from."""

from __future__ import annotations

from typing import Any

from rsir.runs.directory import RunDirectory
from rsir.runs.layout import UPDATE

__all__ = ["read_lineage"]


def read_lineage(directory: RunDirectory) -> tuple[dict[str, Any], ...]:
    """Those of :attr:`rsir.runs.results.Run.lineage`; none where the run began from nothing."""
    if not (directory.path / UPDATE).exists():
        return ()
    found: list[dict[str, Any]] = directory.read_json(UPDATE)["lineage"]
    return tuple(found)
