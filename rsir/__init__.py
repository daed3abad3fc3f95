"""rsir: recommenders that improve themselves (Recursive Self-Improving Recommendation, arXiv 2602.15659)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rsir.api import evaluate, run
    from rsir.config import (
        AcquisitionConfig,
        DataConfig,
        DistillationConfig,
        FidelityConfig,
        GenerationConfig,
        ItemKnnConfig,
        ModelConfig,
        RecursionConfig,
        SimulationConfig,
        TrainingConfig,
    )
    from rsir.data import Sequences, from_frame, read
    from rsir.errors import RsirError
    from rsir.generation.enrich import enrich
    from rsir.runs.results import load

__all__ = [
    "AcquisitionConfig",
    "DataConfig",
    "DistillationConfig",
    "FidelityConfig",
    "GenerationConfig",
    "ItemKnnConfig",
    "ModelConfig",
    "RecursionConfig",
    "RsirError",
    "Sequences",
    "SimulationConfig",
    "TrainingConfig",
    "__version__",
    "enrich",
    "evaluate",
    "from_frame",
    "load",
    "read",
    "run",
]

__version__ = "0.1.0"

_HOMES = {
    "RsirError": "rsir.errors",
    "Sequences": "rsir.data",
    "enrich": "rsir.generation.enrich",
    "evaluate": "rsir.api",
    "from_frame": "rsir.data",
    "load": "rsir.runs.results",
    "read": "rsir.data",
    "run": "rsir.api",
}
"""Where a name is defined; its module is loaded when the name is first asked for, as torch takes seconds to load."""


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _HOMES or name in __all__:
        return getattr(import_module(_HOMES.get(name, "rsir.config")), name)
    raise AttributeError(
        f"module {__name__!r} has no attribute {name!r}; its names are {', '.join(__all__)}, and its modules are "
        f"imported, as in import {__name__}.data"
    )


def __dir__() -> list[str]:
    return sorted(__all__)
