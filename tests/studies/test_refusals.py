"""What studies refuse, and with which words: options, data, folders and lines that do not fit."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from rsir.cli.options import dump
from rsir.cli.studies import STUDIES
from rsir.config import RecursionConfig
from rsir.data.load import load_data
from rsir.errors import RunError
from rsir.runtime.runtime import Runtime
from rsir.studies import lab as module
from rsir.studies.lab import Lab
from rsir.studies.lines import Lines
from tests.studies.small import CONFIG, TINY, lines, main

SETTINGS = {"guard.yaml": "guard: false", "seed.yaml": "seed: 1", "other.yaml": "generation: {m: 3}"}


@pytest.mark.parametrize(
    ("study", "given", "message"),
    [
        ("main", "--generation.mm 3", "--generation.mm: unknown option; did you mean"),
        (
            "main",
            "--generation.m 2",
            "--generation.m: a study sets it for each arm; omit it (what holds for every",
        ),
        ("cost", "--fidelity.tau 10", "--fidelity.tau: a study sets it for each arm"),
        ("sensitivity", "--acquisition.policy all", "--acquisition.policy: a study sets it for each arm"),
        ("rounds", "--retention=none", "--retention: a study sets it for each arm"),
        ("rounds", "--guard", "--guard: a study sets it for each arm"),
        ("main", "--stop-after 9", "--stop_after: a study sets it for each arm"),
        ("main", "--config guard.yaml", "guard.yaml: guard: a study sets it for each arm"),
        ("main", "--config other.yaml", "other.yaml: generation.m: a study sets it for each arm"),
        ("main", "--config seed.yaml", "seed.yaml: seed: a study takes --seeds N ... in its place"),
        ("main", "--data.path x.csv", "--data.path: a study takes --data FILE ... in its place"),
        ("main", "--model.name hstu", "--model.name: a study takes --models NAME ... in its place"),
        ("main", "--print-config", "--print-config: a study does not take this option of rsir; omit it"),
        ("main", "--resume", "--resume: a study does not take this option of rsir: it always continues where it ended"),
        ("landscape", "--rounds 2", "--rounds: expected none, as landscape has one round"),
        ("main", "--rounds -1", "rounds: expected in 0..32767, got -1"),
        ("main", "--threads 0", "--threads: expected at least 1, got 0"),
        (
            "main",
            "--models sasrec sasrek",
            "--models: expected some of bsarec, cl4srec, esasrec, gru4rec, hstu, sasrec, got 'sa",
        ),
        (
            "main",
            "--arms rsri",
            "--arms: expected some of 'base, four seeds', 'base, two seeds', 'count', 'insertion',",
        ),
        ("landscape", "--arms rsir", "--arms: this study has none to choose, got 'rsir'"),
        ("noise", "--data.split global-time", "--data.split: noise leaves the last two events of a user as they are"),
        ("main", "--data none.csv", "none.csv: no such file"),
        ("main", "--data.k_core 5", "data.k_core, data.min_rating: they filter a file, and none is given"),
    ],
)
def test_what_a_study_refuses_before_it_trains(
    study: str,
    given: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rsir.recursion.loop.fit", None)
    for name, text in SETTINGS.items():
        Path(name).write_text(text)
    assert main([study, "--out", "out", *TINY, *given.split()]) == 2
    assert f"rsir: error: {message}" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_file_of_all_settings_may_have_those_that_arms_set(tmp_path: Path, one_seed: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(dump(RecursionConfig()))
    given = ["--seeds", "0", "--arms", "rsir", "--rounds", "0", "--config", str(file)]
    shutil.copytree(one_seed, tmp_path / "lines")
    assert main(["main", "--out", str(tmp_path / "lines"), *given, *TINY]) == 0


def test_no_rounds_are_none(tmp_path: Path) -> None:
    assert main(["main", "--seeds", "0", "--rounds", "0", "--arms", "rsir", "--out", str(tmp_path), *TINY]) == 0
    found = lines(tmp_path / "main.jsonl")
    assert [line["arm"] for line in found if line["kind"] == "training"] == ["base"]
    assert " --rounds 0 --arms rsir " in found[-1]["arm"]


def test_what_cannot_be_trained_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["main", "--seeds", "0", "--out", str(tmp_path), *TINY, "--training.learning_rate", "1e30"]) == 2
    assert "rsir: error: " in capsys.readouterr().err


def test_without_cuda_gpu_is_refused_and_with_it_models_are_trained_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["main", "--seeds", "0", "--rounds", "1", "--out", str(tmp_path), *TINY, "--gpu"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(given) == 2
    assert "--gpu: torch finds no CUDA device" in capsys.readouterr().err
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)

    def elsewhere(*_: Any, runtime: Runtime, **__: Any) -> None:
        raise RunError(f"trained on {runtime.device}")

    monkeypatch.setattr(module, "recurse", elsewhere)
    assert main(given) == 2
    assert "trained on cuda" in capsys.readouterr().err


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("model", ["sasrec", "gru4rec"])
def test_the_arms_that_a_study_declares_are_those_it_asks_for(study: str, model: str, tmp_path: Path) -> None:
    asked = []

    class Asked(Lab):
        def record_base(self) -> None:
            if not asks:
                raise StopIteration  # the study has no arms to choose

        def wants(self, arm: str) -> bool:
            asked.append(arm)
            return False

    config = dataclasses.replace(CONFIG, model=CONFIG.model.for_backbone(model))
    asks = (own := import_module(f"rsir.studies.{study.replace('-', '_')}")).arms(config)
    with contextlib.suppress(StopIteration):
        own.run(Asked("simulated", load_data(config), config, Lines(tmp_path / "lines"), tmp_path, print), 1)
    assert sorted(asked) == sorted(asks)


@pytest.fixture(scope="module")
def one_seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one-seed")
    assert main(["main", "--seeds", "0", "--rounds", "0", "--arms", "rsir", "--out", str(folder), *TINY]) == 0
    return folder


@pytest.mark.parametrize("seeds", [["0"], ["1"], ["0", "1"]])
@pytest.mark.parametrize("others", [["--training.patience", "3"], ["--simulation.seed", "1"], ["--model.dropout", "0"]])
def test_lines_of_other_settings_or_data_are_not_added_to(
    seeds: list[str],
    others: list[str],
    one_seed: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = (one_seed / "main.jsonl").read_bytes()
    monkeypatch.setattr("rsir.recursion.loop.fit", None)
    assert main(["main", "--seeds", *seeds, "--out", str(one_seed), *TINY, *others]) == 2
    said = capsys.readouterr().err
    assert "main.jsonl: has lines of simulated, bsarec with other options" in said
    assert "or another --out" in said
    assert (one_seed / "main.jsonl").read_bytes() == before


def test_lines_without_a_recipe_are_told_by_the_seed_s_base(
    one_seed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = [{name: line[name] for name in line if name != "recipe"} for line in lines(one_seed / "main.jsonl")]
    (tmp_path / "main.jsonl").write_text("".join(json.dumps(line) + "\n" for line in old))
    shutil.copytree(one_seed / "ranks", tmp_path / "ranks")
    shutil.copytree(one_seed / "work", tmp_path / "work")
    given = ["main", "--rounds", "0", "--arms", "rsir", "--out", str(tmp_path), *TINY]
    assert main([*given, "--seeds", "0", "--training.patience", "3"]) == 2
    assert "has lines of simulated, bsarec with other options" in capsys.readouterr().err
    assert main([*given, "--seeds", "0", "1"]) == 0
    found = [line for line in lines(tmp_path / "main.jsonl") if line["kind"] == "training"]
    assert [(line["seed"], "recipe" in line) for line in found] == [(0, False), (1, True)]


def test_seeds_rounds_and_arms_are_added_to_lines(one_seed: Path, tmp_path: Path) -> None:
    shutil.copytree(one_seed, tmp_path, dirs_exist_ok=True)
    given = ["main", "--out", str(tmp_path), *TINY]
    assert main([*given, "--seeds", "0", "1", "--rounds", "1", "--arms", "rsir"]) == 0
    assert main([*given, "--seeds", "1", "--rounds", "2", "--arms", "rsir", "reordering"]) == 0
    found = [line for line in lines(tmp_path / "main.jsonl") if line["kind"] == "training"]
    assert [line for line in lines(one_seed / "main.jsonl") if line["kind"] == "training"] == found[:1]
    places = {(line["arm"], line["round"], line["seed"]) for line in found if ", " not in line["arm"]}
    assert places == {
        ("base", 0, 0),
        ("base", 0, 1),
        ("rsir", 1, 0),
        ("rsir", 1, 1),
        ("rsir", 2, 1),
        ("reordering", 1, 1),
    }
    assert len({line["recipe"] for line in found}) == 1


def test_files_of_one_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / folder / f"log.{ending}" for folder, ending in (("a", "csv"), ("b", "txt"))]
    assert main(["main", "--data", *map(str, files), "--out", str(tmp_path / "out"), *TINY]) == 2
    assert f"--data: lines go by the names of files, and {files[0]} and {files[1]} are both 'log'" in (
        capsys.readouterr().err
    )


def test_the_page_lies_beside_the_lines_unless_told_otherwise(
    one_seed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    shutil.copytree(one_seed, tmp_path / "lines")
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["results", "lines"]) == 0
    assert main(["results", "lines", "--out", "new/folder/page.md"]) == 0
    assert capsys.readouterr().out == "lines/results.md\nnew/folder/page.md\n"
    pages = [Path("lines/results.md"), Path("new/folder/page.md")]
    assert pages[0].read_bytes() == pages[1].read_bytes()
    assert all((page.parent / "results-main.svg").exists() for page in pages)
    assert not any(Path("docs").iterdir())
    assert main(["results", "lines", "--out", "lines/main.jsonl/page.md"]) == 2
    assert "rsir: error: lines/main.jsonl/page.md: cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ('{"kind": "training", "da\n', "main.jsonl, line 3: is not JSON (Unterminated string"),
        ("[1]\n", "main.jsonl, line 3: expected a JSON object with a kind"),
        ("\n", "main.jsonl, line 3: is not JSON"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(
    damage: str, message: str, one_seed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(one_seed / "main.jsonl", tmp_path)
    with (tmp_path / "main.jsonl").open("a") as file:
        file.write(damage)
    assert main(["results", str(tmp_path)]) == 2
    assert f"rsir: error: {tmp_path}/{message}" in capsys.readouterr().err
    assert main(["main", "--seeds", "0", "--out", str(tmp_path), *TINY]) == 2
    assert f"rsir: error: {tmp_path}/{message}" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["base", "command"])
def test_lines_that_make_no_page(kind: str, one_seed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of an arm without its base, and those of no training."""
    training, command = lines(one_seed / "main.jsonl")
    line = command if kind == "command" else {**training, "arm": "rsir", "round": 1}
    (tmp_path / "main.jsonl").write_text(json.dumps(line) + "\n")
    assert main(["results", str(tmp_path)]) == 2
    expected = (
        "no lines of a study found" if kind == "command" else "has lines of simulated, bsarec, but none of its base"
    )
    assert expected in capsys.readouterr().err
