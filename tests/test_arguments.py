"""Public functions called with values of a wrong type: one sentence that names the argument, whichever it is."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from typing_extensions import TypeAliasType

import rsir
from rsir import evaluation
from rsir.config.arguments import typed
from rsir.data import leave_one_out, write
from rsir.errors import ConfigError, DataError, RsirError
from rsir.runs.results import enriched

LISTS = [[1 + (user + step) % 25 for step in range(6)] for user in range(40)]
SMALL: dict[str, Any] = {"rounds": 1, "training": {"max_evaluations": 1}, "model": {"dim": 8}, "generation": {"m": 1}}


class Surface:
    """Each public function with good arguments, to be called with one of them replaced."""

    def __init__(self, folder: Path) -> None:
        data = rsir.Sequences.from_lists(LISTS)
        run = rsir.run(data=data, out=folder / "run", **SMALL)
        events = folder / "events.csv"
        events.write_text("user,item\n" + "".join(f"{user},{item}\n" for user in range(9) for item in range(6)))
        net, test = run.model, leave_one_out(data).test
        ranked = {"model": net, "histories": test.histories}
        self.calls: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
            "run": (rsir.run, {"data": data, **SMALL}),
            "evaluate": (rsir.evaluate, {"model": run}),
            "read": (rsir.read, {"path": events}),
            "from_frame": (rsir.from_frame, {"frame": {"user": [1], "item": [2]}}),
            "load": (rsir.load, {"path": folder / "run"}),
            "enrich": (rsir.enrich, {"data": data, "encoder": net}),
            "write": (write, {"data": data, "path": folder / "out.csv"}),
            "from_lists": (rsir.Sequences.from_lists, {"lists": LISTS}),
            "enriched": (enriched, {"run": run}),
            "recommend": (run.recommend, {"histories": [[1, 2]]}),
            "evaluation.recommend": (evaluation.recommend, ranked),
            "evaluation.evaluate": (evaluation.evaluate, {"model": net, "tasks": test}),
        }


@pytest.fixture(scope="module")
def surface(tmp_path_factory: pytest.TempPathFactory) -> Surface:
    return Surface(tmp_path_factory.mktemp("surface"))


ARGUMENTS = {
    "run": "config out resume device threads progress on_round rounds seed training generation",
    "evaluate": "part threads",
    "read": "path config",
    "from_frame": "config",
    "load": "path device",
    "enrich": "data generation fidelity acquisition seed round_ table threads progress",
    "write": "data path file_format",
    "from_lists": "lists num_items",
    "enriched": "run round_",
    "recommend": "histories k users candidates exclude round_",
    "evaluation.recommend": "histories k exclude_history table backend threads",
    "evaluation.evaluate": "tasks popularity spread batch_size table runtime",
}
NAMED = {"histories": "history|item", "candidates": "item", "exclude": "item", "users": "user", "round_": ".*round"}
WRONG = [object(), b"\xff", 1.5, np.zeros((2, 2)), [3.5, "x"], -(2**70)]


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_wrong_type_is_named_in_one_sentence(surface: Surface, name: str) -> None:
    function, good = surface.calls[name]
    for argument in ARGUMENTS[name].split():
        for value in WRONG:
            if isinstance(value, bytes) and argument in ("path", "out"):  # a path
                continue
            with pytest.raises(RsirError) as error:
                function(**{**good, argument: value})
            assert re.match(f"{NAMED.get(argument, argument)}|.*{argument}", str(error.value)), (argument, value)
            assert "\n" not in str(error.value), (argument, value, error.value)


@pytest.mark.parametrize(
    "name", [name for name, arguments in ARGUMENTS.items() if {"path", "out"} & {*arguments.split()}]
)
def test_a_path_of_bytes_is_one_of_text(surface: Surface, name: str, tmp_path: Path) -> None:
    function, good = surface.calls[name]
    argument = "path" if "path" in good else "out"
    paths = [os.fsdecode(good[argument]) if argument in good else str(tmp_path / "run")]
    paths.append(os.fsencode(paths[0]))
    if argument == "out":
        paths[1] += b"2"
    found = [type(function(**{**good, argument: path})) for path in paths]
    assert found[0] is found[1]
    if argument == "out":
        assert Path(os.fsdecode(paths[1]), "manifest.json").exists()


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("enrich", {"seed": "x"}, "seed: expected an integer, got 'x'"),
        ("enrich", {"seed": -1}, r"seed: expected in 0\.\.2\*\*64 - 1, got -1"),
        ("enrich", {"generation": {"m": 2}}, "generation: expected GenerationConfig or None, got dict"),
        ("run", {"threads": "two"}, "threads: expected an integer or None, got 'two'"),
        ("run", {"threads": 2**40}, "threads: expected a whole number of at least 1, got 1099511627776"),
        ("run", {"device": None}, "device: expected text, got None"),
        ("run", {"device": "gpu"}, "device='gpu': expected cpu or cuda"),
        ("run", {"device": "cuda:first"}, "device='cuda:first': expected cpu or cuda"),
        ("run", {"out": 3}, "out: expected a path or None, got 3"),
        ("run", {"progress": True}, "progress: expected a function, got True"),
        ("read", {"path": None}, "path: expected a path, got None"),
        ("read", {"config": "csv"}, "config: expected DataConfig or None, got 'csv'"),
        ("load", {"path": ["run"]}, "path: expected a path, got list"),
        ("evaluate", {"part": 3}, "part: expected one of validation, test, got 3"),
        ("evaluation.recommend", {"backend": "gpu"}, "backend: expected 'auto' or one of"),
        ("recommend", {"k": 0}, "k: expected at least 1, got 0"),
        ("recommend", {"users": 3}, "users: expected Iterable or None, got 3"),
        ("recommend", {"histories": [1, 2]}, r"history 0: expected a list of items, got 1; write \[1\]"),
        ("recommend", {"histories": [["x"]]}, "histories: none of their items, 'x' for one, is in the catalogue"),
        ("from_lists", {"lists": [1, 2]}, "lists: expected a list of item ids in row 0, got 1"),
        ("from_lists", {"lists": [[1, [2]], [3]]}, "lists must hold integers, got lists within"),
    ],
)
def test_what_it_says(surface: Surface, name: str, arguments: dict[str, Any], message: str) -> None:
    function, good = surface.calls[name]
    with pytest.raises(RsirError, match=f"^{message}"):
        function(**{**good, **arguments})


def test_numbers_of_numpy_are_numbers(surface: Surface) -> None:
    function, good = surface.calls["enrich"]
    expected = function(**good, seed=3, threads=1).fingerprint()
    assert function(**good, seed=np.int64(3), threads=np.int32(1)).fingerprint() == expected


def test_a_folder_may_be_called_like_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs:2").mkdir()
    data = rsir.Sequences.from_lists(LISTS)
    data.save("runs:2/data.parquet")
    assert rsir.Sequences.load("runs:2/data.parquet").fingerprint() == data.fingerprint()
    for place in ("runs:2/events.parquet", "runs:2/events.arrow"):
        write(data, place)
        assert rsir.read(place).num_interactions == data.num_interactions
    Path("runs:2/data.parquet").unlink()
    Path("runs:2/events.arrow").unlink()
    assert rsir.read("runs:2").num_interactions == data.num_interactions


def test_the_decorator_by_itself() -> None:
    @typed(DataError)
    def function(ids: list[int], *more: int, scale: float = 1.0, **others: int) -> list[Any]:
        return [ids, more, scale, others]

    assert function([1], "x", scale=2, y="z") == [[1], ("x",), 2, {"y": "z"}]
    with pytest.raises(DataError, match=re.escape("scale: expected a number, got True")):
        function([1], scale=True)
    with pytest.raises(DataError, match="ids: expected list, got 'abc'"):
        function("abc")
    with pytest.raises(TypeError, match="missing a required argument: 'ids'"):
        function()
    with pytest.raises(ConfigError):
        typed()(lambda: None) and typed()(function.__wrapped__)(3)


def test_an_alias_is_what_it_stands_for() -> None:
    """As ``NDArray`` of NumPy from 2.5 on, which Python 3.12 and newer have."""
    element = TypeVar("element")
    several = TypeAliasType("several", list[element], type_params=(element,))

    @typed()
    def function(ids: Any, times: Any = None) -> list[Any]:
        return [ids, times]

    function.__wrapped__.__annotations__.update(ids=several[int], times=several[int] | None)  # type: ignore[attr-defined]
    assert function([1]) == [[1], None]
    with pytest.raises(ConfigError, match="ids: expected list, got 3"):
        function(3)
    with pytest.raises(ConfigError, match="times: expected list or None, got 'ab'"):
        function([1], "ab")
