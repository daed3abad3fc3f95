"""The compiled module, or an error that says how to get it."""

from __future__ import annotations

from rsir.errors import BackendUnavailable

try:
    from rsir import _core
except ImportError as cause:
    raise BackendUnavailable(
        f"the compiled module rsir._core does not load ({cause}). In a checkout the folder rsir/ hides an installed "
        "package: build it in place with 'pip install -e .', or run from another folder"
    ) from cause

__all__ = ["_core"]
