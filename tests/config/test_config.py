from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from rsir.cli.options import configuration
from rsir.config import (
    DataConfig,
    FidelityConfig,
    GenerationConfig,
    ModelConfig,
    RecursionConfig,
    TrainingConfig,
    changed,
    from_dict,
    to_dict,
)
from rsir.config.changes import with_settings
from rsir.data.load import load_data
from rsir.errors import ConfigError


def test_round_trip_through_json() -> None:
    config = RecursionConfig(
        rounds=5,
        data=DataConfig(path="x.csv", min_rating=3.5),
        generation=GenerationConfig(p=0.25, k=7),
        fidelity=FidelityConfig(tau=[20, 10]),
    )
    assert from_dict(RecursionConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_left_out_keys_take_their_defaults_and_whole_numbers_widen() -> None:
    assert from_dict(RecursionConfig, {}) == RecursionConfig()
    assert from_dict(RecursionConfig, {"generation": {"p": 1}}).generation.p == 1.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"round": 2}, "round: unknown option; known here: rounds, seed"),
        ({"data": {"pth": "x"}}, r"data\.pth: unknown option; known here: path"),
        ({"rounds": "2"}, "rounds: expected int, got '2'"),
        ({"rounds": True}, "rounds: expected int, got True"),
        ({"rounds": -1}, r"rounds: expected in 0\.\.32767, got -1"),
        ({"generation": {"p": 1.5}}, r"generation\.p: expected a probability in \[0, 1\], got 1\.5"),
        ({"generation": {"p": float("nan")}}, r"generation\.p: expected a probability"),
        ({"generation": {"temperature": 0.0}}, r"generation\.temperature: expected above 0"),
        ({"fidelity": {"verify": "exct"}}, r"fidelity\.verify: expected one of exact, trust, got 'exct'"),
        ({"fidelity": {"tau": []}}, r"fidelity\.tau: expected a number of at least 1, or a list of them, got \[\]"),
        ({"fidelity": {"tau": [5, 0]}}, r"fidelity\.tau: .* got \[5, 0\]"),
        ({"model": {"heads": 3}}, r"model\.heads: expected a divisor of dim 64, got 3"),
        ({"model": {"dropout": 0.999}}, r"model\.dropout: expected in \[0, 0\.998\), got 0\.999"),
        ({"model": {"max_len": 2**16}}, r"model\.max_len: expected in 2\.\.65535, got 65536"),
        ({"model": {"max_len": 2}}, r"generation\.min_length: expected at most model\.max_len, 2, got 3"),
        ({"training": {"learning_rate": float("inf")}}, r"training\.learning_rate: expected above 0, got inf"),
        ({"training": {"synthetic_weight": float("inf")}}, r"training\.synthetic_weight: expected 0 or more, got inf"),
        (
            {"simulation": {"mean_length": float("inf")}},
            r"simulation\.mean_length: expected in 5\.\.1,000,000, got inf",
        ),
        ({"training": 5}, "training: expected a mapping, got int"),
    ],
)
def test_what_cannot_be_is_refused_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(RecursionConfig, values)


def test_constructors_check_too_and_configurations_are_frozen() -> None:
    with pytest.raises(ConfigError, match="p: expected a probability"):
        GenerationConfig(p=-0.1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig().dim = 3  # type: ignore[misc]


def test_a_backbone_brings_its_own_defaults_and_leaves_what_was_set() -> None:
    base = ModelConfig()
    assert base.for_backbone("bsarec") == base
    assert base.for_backbone("someone's") == ModelConfig(name="someone's")
    strong = base.for_backbone("esasrec")
    assert strong == ModelConfig(name="esasrec", dropout=0.2)
    assert strong.for_backbone("gru4rec") == ModelConfig(name="gru4rec", layers=1)
    assert strong.for_backbone("bsarec") == base
    assert ModelConfig(dropout=0.3, dim=32).for_backbone("esasrec") == ModelConfig("esasrec", dropout=0.3, dim=32)


def test_a_backbone_brings_its_own_training_unless_it_is_given() -> None:
    standard = RecursionConfig()
    assert standard.training == TrainingConfig(patience=8, synthetic_weight=0.5, real_last=2)
    sasrec = standard.for_backbone("sasrec")
    assert sasrec.model == ModelConfig("sasrec")
    assert sasrec.training == TrainingConfig(patience=20, synthetic_weight=1.0, real_last=0)
    assert sasrec.for_backbone("sasrec") == sasrec
    assert sasrec.for_backbone("bsarec") == standard
    assert with_settings(standard, {"model": "sasrec"}) == sasrec
    own = with_settings(standard, {"model": "sasrec", "training.negatives": 256, "training": {"real_last": 2}})
    assert own.training == TrainingConfig(negatives=256, patience=20, synthetic_weight=1.0)
    assert configuration(standard, None, {"model.name": "sasrec"}) == sasrec
    given = {"model.name": "sasrec", "training.negatives": "256", "training.real_last": "2"}
    assert configuration(standard, None, given) == own
    # a run of before, with the values that it had then, is resumed with them
    assert configuration(own, None, {"model.name": "sasrec"}) == own
    assert changed(sasrec) == {"model.name": ("sasrec", "bsarec")}
    assert changed(own)["training.negatives"] == (256, 1024)


def test_a_recurrent_network_has_no_heads_to_divide() -> None:
    assert ModelConfig(name="gru4rec", dim=65).dim == 65


@pytest.mark.parametrize("filters", [{"k_core": 2}, {"min_rating": 3.0}])
def test_filters_without_a_file_are_refused(filters: dict) -> None:
    with pytest.raises(ConfigError, match=r"they filter a file, and none is given: expected data\.path"):
        load_data(RecursionConfig(data=DataConfig(**filters)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GenerationConfig(p="x"), r"generation\.p: expected float, got 'x'"),
        (lambda: GenerationConfig(m=2.5), r"generation\.m: expected int, got 2\.5"),
        (lambda: FidelityConfig(tau=["5"]), r"fidelity\.tau: expected int \| list\[int\] \| None, got \['5'\]"),
        (lambda: RecursionConfig(rounds="2"), "rounds: expected int, got '2'"),
        (lambda: RecursionConfig(model="sasrec"), "model: expected a ModelConfig, got 'sasrec'"),
    ],
)
def test_constructors_refuse_other_types_by_name(make, message) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_constructors_take_numbers_of_numpy_and_paths() -> None:
    config = RecursionConfig(
        rounds=np.int64(2),
        generation=GenerationConfig(p=1, temperature=np.float64(0.5)),
        fidelity=FidelityConfig(tau=np.array([20, 10])),
        data=DataConfig(path=Path("log.csv")),
    )
    assert from_dict(RecursionConfig, json.loads(json.dumps(to_dict(config)))) == config
    assert (config.fidelity.tau, config.data.path, type(config.generation.p)) == ([20, 10], "log.csv", float)
