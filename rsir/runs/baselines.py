"""What a run's rounds stand beside: recommenders that are counted and not trained, and what to say of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from rsir.config import ItemKnnConfig, as_text
from rsir.config.counting import FIXED
from rsir.errors import ConfigError, RunError
from rsir.metrics import CRITERION
from rsir.runs.directory import RunDirectory
from rsir.runs.layout import BASELINES
from rsir.runs.rounds import RoundResult

__all__ = ["Baselines", "parameters_of", "read_baselines", "remarks", "said_of_the_search"]

Baselines = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Metrics by name of the baseline, part ("validation", "test") and name of the metric; the item-kNN has "parameters",
too."""

_COVERAGE = "coverage@10"
_NARROW = 0.05  # a share of the catalogue; of trained models that rank well, the first ten places hold half of it
_EARLY, _MANY = 3, 10  # validations


def read_baselines(directory: RunDirectory) -> Baselines:
    """Those of a run; none of one that an earlier version wrote.

    Raises
    ------
    RunError
        They have been changed to what no run writes.
    """
    path = directory.path / BASELINES
    if not path.exists():
        return {}
    found = directory.read_json(BASELINES)
    if not _well_formed(found):
        raise RunError(f"{path}: is damaged; put the original back")
    return cast(Baselines, found)


def _well_formed(found: Any) -> bool:
    if not isinstance(found, dict) or not all(isinstance(by, dict) for by in found.values()):
        return False
    if not all(isinstance(values, dict) for by in found.values() for values in by.values()):
        return False
    parameters: Any = parameters_of(found)
    if parameters is None:
        return True
    try:
        return parameters.keys() == FIXED.keys() and ItemKnnConfig(**parameters).parameters() == parameters
    except ConfigError:
        return False


def parameters_of(baselines: Baselines) -> Mapping[str, float] | None:
    """The parameters of the item-kNN that was measured; None where there are none."""
    return baselines.get("item-kNN", {}).get("parameters")


def said_of_the_search(rounds: Sequence[RoundResult], baselines: Baselines, config: ItemKnnConfig) -> str:
    """What the search of the item-kNN's parameters came to, a sentence; "" where nothing was searched."""
    found, fixed = parameters_of(baselines), config.parameters()
    if found is None or not config.searches:
        return ""
    other = [f"{name} {as_text(found[name])}" for name, value in fixed.items() if found[name] != value]
    if not other:
        return "No values of the item-kNN's parameters were found that are better on validation than the fixed ones."
    said = f"The item-kNN has {', '.join(other)}, which a search on validation found"
    votes = rounds[0].itemknn
    if votes and votes == fixed:
        said += "; the vote beside the networks has the fixed values, with which the base is at least as good"
    return said + "."


def remarks(rounds: Sequence[RoundResult], baselines: Baselines) -> list[str]:
    """What anybody who reads the figures of these rounds should know, a sentence each; mostly nothing."""
    found = []
    for name, parts in baselines.items():
        value = parts["validation"][CRITERION]
        below = [result for result in rounds if result.validation[CRITERION] < value]
        if below:
            found.append(
                f"{_these(below)} below {name} on validation (NDCG@20 "
                f"{', '.join(f'{result.validation[CRITERION]:.4f}' for result in below)} against {value:.4f})."
            )
    narrow = [result for result in rounds if result.validation.get(_COVERAGE, 1.0) < _NARROW]
    if narrow:
        found.append(
            f"{_these(narrow)} narrow: the first ten places of all users together hold "
            f"{', '.join(f'{result.validation[_COVERAGE]:.1%}' for result in narrow)} of the catalogue."
        )
    early = [result for result in rounds if _stopped_early(result)]
    if early:
        found.append(
            f"{_these(early)} best within the first {_EARLY} validations of the training and never after, which is "
            "mostly too high a learning rate or too little data."
        )
    return found


def _these(rounds: Sequence[RoundResult]) -> str:
    numbers = ", ".join(str(result.round) for result in rounds)
    return f"Round {numbers} is" if len(rounds) == 1 else f"Rounds {numbers} are"


def _stopped_early(result: RoundResult) -> bool:
    steps = result.history.get("step", [])
    return len(steps) >= _MANY and result.best_step <= steps[_EARLY - 1]
