"""A run folder that an earlier rsir wrote (tests/fixtures/run-c804f1c, by the options of tests/harness/tiny.py) is used
as one of today: loaded, inspected, recommended with, and resumed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import rsir
from rsir.cli.main import main
from rsir.data.load import split
from rsir.errors import RunError

OLD = Path(__file__).parents[1] / "fixtures" / "run-c804f1c"

HISTORIES = [
    ["genre 1 item 3"],
    ["genre 3 item 1", "genre 4 item 2", "genre 4 item 5"],
    [
        *("genre 4 item 40", "genre 1 item 7", "genre 1 item 7", "genre 2 item 12", "genre 3 item 30"),
        *("genre 4 item 2", "genre 0 item 9", "genre 3 item 1", "genre 4 item 4", "genre 2 item 22"),
    ],
]
RECOMMENDED = [
    ["genre 3 item 37", "genre 0 item 29", "genre 0 item 6", "genre 3 item 20", "genre 0 item 18"],
    ["genre 3 item 37", "genre 0 item 29", "genre 0 item 6", "genre 4 item 21", "genre 3 item 20"],
    ["genre 3 item 37", "genre 3 item 20", "genre 0 item 29", "genre 0 item 6", "genre 4 item 21"],
]
"""By the rsir that wrote the run; neighbouring items are 0.005 or more apart in their logits."""


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_is_trained_again_on_all_events(tmp_path: Path) -> None:
    refit = rsir.load(OLD).refit(tmp_path / "refit")
    assert rsir.load(tmp_path / "refit").recommend(HISTORIES, 5) == refit.recommend(HISTORIES, 5) != RECOMMENDED


def test_it_recommends_what_it_did() -> None:
    run = rsir.load(OLD)
    assert (len(run.rounds), run.best, len(run.data), run.data.num_items) == (3, 1, 60, 40)
    assert [round(result.validation["ndcg@20"], 6) for result in run.rounds] == [0.22462, 0.252243, 0.228803]
    assert run.recommend(HISTORIES, 5) == RECOMMENDED


def test_it_keeps_the_rule_that_it_was_measured_by(tmp_path: Path) -> None:
    """Before the setting data.repeats, a held-out item that the user had before was ranked; today it is a miss."""
    run = rsir.load(OLD)
    assert run.config.data.repeats == "targets"
    assert (run.config.simulation.order, run.config.training.real_last, run.config.model.name) == (0, 0, "sasrec")
    assert split(run.data, run.config.data, run.config.seed).test.repeats == "targets"
    assert run.recommend(HISTORIES, 5, repeats="targets") == run.recommend(HISTORIES, 5, repeats="excluded")
    copy = tmp_path / "run"
    shutil.copytree(OLD, copy)
    resumed = rsir.run(out=copy, resume=True, rounds=3)
    assert resumed.config.data.repeats == rsir.load(copy).config.data.repeats == "targets"
    with pytest.raises(RunError, match=r"another data\.repeats: the run has 'targets', got 'excluded'"):
        rsir.run(out=copy, resume=True, **{"data.repeats": "excluded"})


def test_its_files_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(OLD)]) == 0
    assert "Files:    every checksum holds" in capsys.readouterr().out


def test_it_is_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "run"
    shutil.copytree(OLD, copy)
    before = files(copy)
    assert main(["--out", str(copy), "--resume", "--rounds", "3"]) == 0
    assert main(["inspect", str(copy)]) == 0
    assert "Files:    every checksum holds" in capsys.readouterr().out
    after = files(copy)
    assert [name for name in before if name.startswith("round-") and after[name] != before[name]] == []
    assert {name for name in after if name.startswith("round-03/")} == {
        f"round-03/{name}"
        for name in ("DONE", "metrics.json", "model.json", "model.safetensors", "timings.json", "trajectories.parquet")
    }
    run = rsir.load(copy)
    assert [result.round for result in run.rounds] == [0, 1, 2, 3]
    # of before the item-kNN could vote, which a new run lets it
    assert run.config.itemknn.vote == "off" != rsir.RecursionConfig().itemknn.vote
    assert [result.vote for result in run.rounds] == [0.0] * 4
    assert run.config.itemknn.cold_neighbours == 0  # items without an event had no part in the count
