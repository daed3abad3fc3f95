"""Whether a run that is asked for makes sense on its data, before anything is computed."""

from __future__ import annotations

import warnings

from rsir.config import FidelityConfig, RecursionConfig, to_dict
from rsir.data.sequences import Sequences
from rsir.errors import ConfigError, DataError
from rsir.generation import acquisition, fidelity
from rsir.generation.fidelity import threshold
from rsir.models.registry import maker_of
from rsir.runs.results import Run
from rsir.runs.rounds import voters
from rsir.runtime import memory

__all__ = ["check_names", "check_run"]

# the options of the data that it is split and evaluated by
_SPLIT = ("split", "validation_fraction", "test_fraction", "target", "repeats")
_LOOSE = 0.9  # share of random ranks that pass the check, above which users are told
_LATER = 128 * 2**20  # what is loaded once it is needed: FAISS, the optimizer


def check_run(config: RecursionConfig, data: Sequences, train: Sequences, base: Run | None) -> None:
    """Refuse a run that makes no sense on its data or their training part, on another run's base, or within the limit
    on memory."""
    check_names(config)
    _check_model(config)
    if train.lengths.max(initial=0) < 2:
        raise DataError(
            f"none of {len(train)} users has two items left to train on when those to validate and test are held out: "
            f"expected longer histories, got {data.lengths.max(initial=0)} items at most"
        )
    _check_catalogue(config, data.num_items)
    if base is not None:
        _check_base(base, config, data)
    limit = memory.current()
    if limit is not None:
        limit.left(_needs(config, data))
    _note_of_a_loose_check(config, train)


def check_names(config: RecursionConfig) -> None:
    """Refuse a backbone or a policy that is not registered; the message lists those that are."""
    maker_of(config.model.name)
    fidelity.POLICIES.check(config.fidelity.policy)
    acquisition.POLICIES.check(config.acquisition.policy)


def _needs(config: RecursionConfig, data: Sequences) -> dict[str, int]:
    """Bytes of what a run holds at once beside what lies in mapped files, estimated, under the names of what needs
    them."""
    table = 4 * (data.num_items + 1) * config.model.dim
    models = len(voters(config.retention, config.rounds))
    return {
        "libraries still to be loaded": _LATER,
        # weights, gradients, two moments, their average, the best ones, and copies to validate and to save; models
        # that recommend together are there twice more, as one wide table
        f"the item table of {data.num_items:,} items": table * (10 + 3 * models),
        # their labels, weights and order in training, their places and gains in the rounds that are compared
        f"numbers kept for each of {len(data):,} users": 250 * len(data),
    }


def _check_model(config: RecursionConfig) -> None:
    """Refuse a backbone that is not known, or cannot do what is asked of it."""
    without_dropout = maker_of(config.model.name).__module__.startswith("rsir.") and config.model.dropout < 1 / 512
    if config.acquisition.policy == "disagreement" and without_dropout:
        raise ConfigError(
            "acquisition.policy disagreement: expected a model.dropout of 1/512 or more, got "
            f"{config.model.dropout:g}: without dropout a model never disagrees with itself"
        )


def _check_catalogue(config: RecursionConfig, num_items: int) -> None:
    """Refuse thresholds that a catalogue of this size makes void."""
    policy, fidelity = config.fidelity.policy, config.fidelity
    limits: list[tuple[str, int | list[int], int]] = [("generation.k", config.generation.k, num_items)]
    if config.distillation.share > 0:
        limits.append(("distillation.k", config.distillation.k, num_items))
    if policy in ("rank", "both", "itemknn", "rank-itemknn") and fidelity.tau is not None:
        limits.append(("fidelity.tau", fidelity.tau, num_items))
    if policy in ("neighbours", "both"):
        limits.append(("fidelity.neighbours", fidelity.neighbours, num_items - 1))
    for name, value, most in limits:
        if max(value if isinstance(value, list) else [value]) > most:
            advice = ""
            if name.startswith("fidelity"):
                default = ", the default" if value == getattr(FidelityConfig(), name.removeprefix("fidelity.")) else ""
                advice = (
                    f"{default}; a check that refuses something: --{name} {max(1, num_items // 20)}, for example; "
                    "for no check at all: --fidelity.policy off"
                )
            raise ConfigError(
                f"{name}: expected at most {most}, as the data has {num_items} items, got {value}{advice}"
            )


def _note_of_a_loose_check(config: RecursionConfig, train: Sequences) -> None:
    """Warn of a rank check that refuses little: one of many unused items is mostly somewhere in front.

    If ranks were random, the best of n items of N would be within tau with probability 1 - (1 - tau / N) ** n.
    """
    if config.rounds == 0 or config.fidelity.policy not in ("rank", "both", "rank-itemknn"):
        return
    tau, mean = threshold(config.fidelity, train.num_items, 1), train.num_interactions / len(train)
    by_chance = 1 - (1 - tau / train.num_items) ** mean
    if by_chance > _LOOSE:
        fewer = max(1, int(train.num_items / (5 * mean)))
        warnings.warn(
            f"fidelity.tau {tau}: users have {mean:.0f} of {train.num_items:,} items on average, so that "
            f"{by_chance:.0%} of random ranks would pass; --fidelity.tau {fewer} refuses more",
            stacklevel=2,
        )


def _check_base(base: Run, config: RecursionConfig, data: Sequences) -> None:
    """Refuse a run whose round 0 is not what this one would train."""
    if len(base.rounds) != 1:
        raise ConfigError(f"base: expected a run of round 0 alone, got one of {len(base.rounds)} rounds")
    if base.data.fingerprint() != data.fingerprint():
        raise ConfigError("base: expected a run on the same data, got one on other data")
    settings, its = to_dict(config), to_dict(base.config)
    for values in (settings, its):
        values["data"] = {key: values["data"][key] for key in _SPLIT}
    for name in ("seed", "data", "model", "training", "itemknn"):
        if settings[name] != its[name]:
            raise ConfigError(f"base: expected a run with {name} {settings[name]}, got one with {its[name]}")
