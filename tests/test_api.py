"""The public surface: its names, what they load, and a run and an evaluation on data in every form."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import rsir
from rsir.config import to_dict
from rsir.config.changes import with_settings
from rsir.data import leave_one_out, to_table, write
from rsir.errors import ConfigError, DataError, DataWarning, RunError
from rsir.models import Ensemble

PUBLIC = [
    *("AcquisitionConfig", "DataConfig", "DistillationConfig", "FidelityConfig", "GenerationConfig", "ItemKnnConfig"),
    *("ModelConfig", "RecursionConfig", "RsirError", "Sequences", "SimulationConfig", "TrainingConfig", "__version__"),
    *("enrich", "evaluate", "from_frame", "load", "read", "run"),
]
SMALL: dict[str, Any] = {
    "rounds": 1,
    "model": {"dim": 8, "layers": 1, "heads": 1, "feedforward": 8},
    "training": {"max_evaluations": 1},
    "fidelity": {"tau": 10},
}
LISTS = [[f"item {(user + step) % 25}" for step in range(6)] for user in range(40)]


def printed(code: str, folder: Path | None = None) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# names


def test_the_names_are_these_and_no_more() -> None:
    assert printed("import rsir; print(*dir(rsir))").split() == PUBLIC
    assert printed("import rsir, rsir.data, rsir.ops; rsir.run; print(*dir(rsir))").split() == PUBLIC
    assert printed("from rsir import *; print(*sorted(name for name in dir() if name[:2] != '__'))").split() == [
        name for name in PUBLIC if name != "__version__"
    ]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_name_is_loaded_when_asked_for_and_is_no_module(name: str) -> None:
    assert importlib.util.find_spec(f"rsir.{name}") is None
    assert getattr(rsir, name) is not None
    light = {*(name for name in PUBLIC if name.endswith("Config")), "RsirError", "__version__"}
    light |= {"Sequences", "read", "from_frame"}
    loaded = printed(f"import sys, rsir; rsir.{name}; print('torch' in sys.modules, 'numpy' in sys.modules)").split()
    assert loaded[0] == str(name not in light)
    assert loaded[1] == str(not (name.endswith(("Config", "Error", "__"))))


def test_importing_rsir_loads_nothing_else() -> None:
    code = "import sys, rsir; print([name for name in sys.modules if name.startswith('rsir.')], 'torch' in sys.modules)"
    assert printed(code) == "[] False"


def test_modules_are_no_attributes_before_they_are_imported() -> None:
    code = "import rsir\nfor name in ('data', 'ops', 'recurse', 'enlarge'):\n    assert not hasattr(rsir, name), name"
    printed(code)
    with pytest.raises(AttributeError, match="no attribute 'enlarge'; its names are AcquisitionConfig"):
        _ = rsir.enlarge  # type: ignore[attr-defined]


# settings by name


@pytest.mark.parametrize(
    "settings",
    [
        {"rounds": 3, "generation": {"m": 5}},
        {"rounds": 3, "generation": rsir.GenerationConfig(m=5)},
        {"rounds": 3, "generation.m": 5},
    ],
)
def test_settings_are_given_by_name(settings: dict[str, Any]) -> None:
    expected = rsir.RecursionConfig(rounds=3, generation=rsir.GenerationConfig(m=5))
    assert with_settings(rsir.RecursionConfig(), settings) == expected


def test_a_mapping_changes_what_it_names_and_a_section_gives_all() -> None:
    config = rsir.RecursionConfig(generation=rsir.GenerationConfig(m=5))
    assert with_settings(config, {"generation": {"p": 0.1}}).generation == rsir.GenerationConfig(m=5, p=0.1)
    given = rsir.GenerationConfig(p=0.1)
    assert with_settings(config, {"generation": given}).generation == given
    assert with_settings(config, {}) == config
    assert with_settings(config, {"fidelity": {"tau": (20, 10)}}).fidelity.tau == [20, 10]


def test_a_backbone_brings_its_own_defaults() -> None:
    base = rsir.RecursionConfig()
    for settings in ({"model": "gru4rec"}, {"model.name": "gru4rec"}, {"model": {"name": "gru4rec"}}):
        assert with_settings(base, settings).model == rsir.ModelConfig(name="gru4rec", layers=1)
    whole = rsir.ModelConfig(name="gru4rec", layers=2)
    assert with_settings(base, {"model": whole}).model == whole


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rouns": 1}, "rouns: unknown setting; did you mean rounds?"),
        ({"m": 1}, "m: unknown setting; did you mean generation.m?"),
        ({"generation": {"mm": 1}}, "generation.mm: unknown setting; did you mean generation.m?"),
        ({"xyzzy": 1}, "xyzzy: unknown setting; known: rounds, seed"),
        ({"generation": 3}, "generation: expected a mapping of settings or GenerationConfig, got 3"),
        ({"generation": {"m": 1}, "generation.m": 2}, "generation.m: given twice"),
        ({"rounds": "3"}, "rounds: expected int, got '3'"),
        ({"generation": {"p": 2}}, "generation.p: expected a probability in [0, 1], got 2.0"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        rsir.run(**settings)


# runs


@pytest.fixture(scope="module")
def run() -> Any:
    return rsir.run(data=LISTS, **SMALL)


def frame() -> Any:
    pandas = pytest.importorskip("pandas")
    events = [(user, item, step) for user, row in enumerate(LISTS) for step, item in enumerate(row)]
    return pandas.DataFrame(events, columns=["user", "item", "time"])


def test_every_form_of_data_gives_the_same_run(run: Any, tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    sequences = rsir.from_frame(frame())
    write(sequences, tmp_path / "log.csv")
    forms = [frame(), polars.DataFrame(frame()), pa.Table.from_pandas(frame()), sequences]
    forms += [tmp_path / "log.csv", str(tmp_path / "log.csv"), rsir.DataConfig(path=str(tmp_path / "log.csv"))]
    expected = [{**result.metrics(), "round": number} for number, result in enumerate(run.rounds)]
    for form in forms:
        assert [result.metrics() for result in rsir.run(data=form, **SMALL).rounds] == expected, type(form)


def test_lists_may_hold_integers_and_filters_apply(run: Any) -> None:
    lists = [[int(item.split()[1]) for item in row] for row in LISTS]
    found = rsir.run(data=[*lists, [999] * 3], **{**SMALL, "data.k_core": 4})
    assert found.data.item_labels.type == pa.int64()
    assert (len(found.data), found.data.num_items) == (40, 25)
    assert len(found.recommend([[3, 4]], k=2)[0]) == 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "expected a data frame"),
        ([1, 2], "expected a list of items for each user, got 1 for user 0"),
        (["abc"], "expected a list of items for each user, got 'abc' for user 0"),
        ([["a", 1]], "expected items that are all integers or all strings"),
        ([[], []], "expected at least one item, got empty lists"),
        ("absent.csv", "absent.csv: no such file"),
    ],
)
def test_data_that_are_refused(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        rsir.run(data=data, **SMALL)


def test_what_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="config: expected a RecursionConfig, got str; data go in as data="):
        rsir.run("log.csv")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="resume: needs out"):
        rsir.run(resume=True)
    with pytest.raises(ConfigError, match="device='tpu'"):
        rsir.run(device="tpu")
    with pytest.raises(RunError, match="no run"):
        rsir.run(out=tmp_path / "none", resume=True)


def test_a_run_is_resumed_with_its_own_settings_and_data(run: Any, tmp_path: Path) -> None:
    rsir.run(data=LISTS, out=tmp_path / "run", **{**SMALL, "rounds": 0})
    resumed = rsir.run(out=tmp_path / "run", resume=True, rounds=1)
    assert [result.metrics() for result in resumed.rounds] == [result.metrics() for result in run.rounds]
    assert to_dict(resumed.config) == to_dict(run.config)
    loaded = rsir.load(tmp_path / "run")
    assert [result.metrics() for result in loaded.rounds] == [result.metrics() for result in run.rounds]


def test_a_run_shows_itself_in_a_few_lines(run: Any) -> None:
    lines = repr(run).splitlines()
    assert len(lines) == 2 + len(run.rounds)
    assert lines[0] == f"Run of bsarec on 40 users and 25 items; round {run.best} is the best by validation"
    assert max(map(len, lines)) <= 100
    assert [line[0] for line in lines[2:]] == ["*" if number == run.best else " " for number in range(len(run.rounds))]
    assert f"{run.rounds[0].test['recall@10']:.4f}" in lines[2]
    page = run._repr_html_()
    assert page.count("<tr>") == 1 + len(run.rounds)
    assert page.count("<table>") == page.count("</table>") == 1
    named = dataclasses.replace(run, path=Path("a<b"))
    assert "in a&lt;b;" in named._repr_html_()


# evaluations


def test_a_run_is_evaluated_as_it_was_when_it_was_made(run: Any) -> None:
    best = run.rounds[run.best]
    assert rsir.evaluate(run).metrics == best.test
    assert rsir.evaluate(run, part="validation").metrics == best.validation
    for form in (LISTS, frame(), run.data, to_table(run.data)):
        assert rsir.evaluate(run, form).metrics == best.test
    tasks = leave_one_out(run.data).test
    assert np.array_equal(rsir.evaluate(run, tasks).ranks, rsir.evaluate(run).ranks)


def test_data_of_a_run_are_matched_by_the_names_of_items(run: Any) -> None:
    backwards = [[f"item {number}" for number in (7, 3, 9, 1)], ["item 2", "new", "item 4", "item 1", "item 8"]]
    with pytest.warns(DataWarning, match="the run does not know 1 of the items: omitted 1 of 9 events"):
        found = rsir.evaluate(run, backwards)
    ids = {label: number + 1 for number, label in enumerate(run.data.item_labels.to_pylist())}
    known = [[ids[item] for item in row if item in ids] for row in backwards]
    same = rsir.Sequences.from_lists(known, num_items=25, item_labels=run.data.item_labels)
    assert np.array_equal(found.ranks, rsir.evaluate(run, same).ranks)
    with pytest.raises(DataError, match="the run knows none of the items, 'a' for one"):
        rsir.evaluate(run, [["a", "b", "c"], ["b", "c", "a"]])
    with pytest.raises(
        DataError, match=r"cannot be matched by name: the run has names and 25 items, the data none and"
    ):
        rsir.evaluate(run, rsir.Sequences.from_lists([[1, 2, 3]]))


def test_a_model_of_ones_own_is_evaluated_over_its_own_ids(run: Any) -> None:
    model = run.model
    assert isinstance(model, (Ensemble, torch.nn.Module))
    assert np.array_equal(rsir.evaluate(model, run.data).ranks, rsir.evaluate(run).ranks)
    for data in (None, LISTS, frame()):
        with pytest.raises(DataError, match="expected Sequences, whose item ids are"):
            rsir.evaluate(model, data)
    with pytest.raises(ConfigError, match="part: expected one of validation, test, got 'train'"):
        rsir.evaluate(run, part="train")  # type: ignore[arg-type]
