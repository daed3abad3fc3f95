"""Runs that make no sense are refused before anything is written."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest

from rsir.config import AcquisitionConfig, FidelityConfig, GenerationConfig, SimulationConfig
from rsir.data import Sequences
from rsir.errors import BackboneError, ConfigError, DataError
from rsir.recursion.loop import recurse
from tests.harness.small import SMALL, small


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 1}, "expected a run of round 0 alone, got one of 2 rounds"),
        ({"rounds": 0, "seed": 4}, "expected a run with seed 0, got one with 4"),
        ({"rounds": 0, "simulation": SimulationConfig(num_users=121, num_items=60)}, "on the same data"),
        ({"rounds": 0, "model": dataclasses.replace(SMALL.model, dropout=0.2)}, "expected a run with model"),
    ],
)
def test_a_base_that_is_not_round_0_of_this_run_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recurse(SMALL, start=recurse(small(**changes)))


def test_bad_input_writes_nothing(tmp_path: Path) -> None:
    short = Sequences.from_lists([[1, 2], [2, 3]], num_items=5)
    with pytest.raises(DataError, match="no user has 3 or more items"):
        recurse(SMALL, data=short, out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"fidelity": FidelityConfig(tau=[5, 61])},
            r"fidelity\.tau: expected at most 60, .* got \[5, 61\]; .* --fidelity\.tau 3, .*policy off",
        ),
        (
            {"fidelity": FidelityConfig("both"), "simulation": SimulationConfig(num_users=60, num_items=20)},
            r"fidelity\.neighbours: expected at most 19, .* got 20, the default; .* --fidelity\.neighbours 1, ",
        ),
        ({"fidelity": FidelityConfig("both", tau=5, neighbours=60)}, r"fidelity\.neighbours: expected at most 59"),
        ({"generation": GenerationConfig(k=61)}, r"generation\.k: expected at most 60"),
    ],
)
def test_thresholds_above_the_catalogue_write_nothing(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        recurse(small(**changes), out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": dataclasses.replace(SMALL.model, name="sasrek")}, BackboneError, r"model\.name: .* got 'sasrek'"),
        (
            {
                "model": dataclasses.replace(SMALL.model, dropout=0.0),
                "acquisition": AcquisitionConfig("disagreement"),
            },
            ConfigError,
            r"disagreement: expected a model\.dropout of 1/512 or more, got 0",
        ),
    ],
)
def test_what_a_later_round_could_not_do_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        recurse(small(**changes), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_users_too_short_to_train_on_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    data = Sequences.from_lists([[1, 2, 3], [4, 5, 6], [7, 8, 9]], num_items=40)
    with pytest.raises(DataError, match=r"none of 3 users has two items left to train on .* got 3 items at most"):
        recurse(SMALL, data=data, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_check_that_refuses_little_is_noted() -> None:
    """Of users with half of the catalogue some item is nearly always in front."""
    make = np.random.default_rng(0)
    data = Sequences.from_lists([(make.permutation(40)[:20] + 1).tolist() for _ in range(30)], num_items=40)
    loose, strict = (small(rounds=1, fidelity=FidelityConfig(tau=tau)) for tau in (15, 1))
    with pytest.warns(UserWarning, match=r"fidelity\.tau 15: users have 18 of 40 items .* 100% .*--fidelity\.tau 1 "):
        recurse(loose, data=data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recurse(strict, data=data)
        recurse(dataclasses.replace(loose, rounds=0), data=data)
