"""The command line, with a loop that computes nothing."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rsir.recursion.loop
from rsir.cli import run
from rsir.cli.bars import Bars
from rsir.cli.main import main
from rsir.cli.show import line, rounds_table
from rsir.config import RecursionConfig
from rsir.errors import DataError
from rsir.runs.directory import RunDirectory
from rsir.runs.results import Run
from tests.cli.fake_loop import READ, Loop, result


def test_a_run_ends_with_the_table(loop: Loop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    output = capsys.readouterr()
    assert rounds_table([result(k, value) for k, value in enumerate(loop.values)], 1) in output.out
    assert "Best by validation NDCG@20: round 1" in output.out
    assert "Load it:   rsir.load('runs/simulated-000') in Python, or rsir recommend runs/simulated-000 " in output.out
    assert output.out.endswith("Go on:     rsir --out runs/simulated-000 --resume --rounds 4\n")
    shown = [line(result(k, value), result(0)) for k, value in enumerate(loop.values)]
    assert output.err.splitlines() == [f"rsir: {READ}", *shown]
    assert loop.options["runtime"].device == "cpu"
    assert RunDirectory.open(tmp_path / "runs" / "simulated-000").config == RecursionConfig()


def test_runs_are_numbered_by_their_data(loop: Loop) -> None:
    for expected in ("a-b-000", "a-b-001", "a-b-002"):
        assert main(["--data", "somewhere/a b.csv"]) == 0
        assert loop.options["out"] == Path("runs") / expected
    assert main(["--data", "..."]) == 0
    assert loop.options["out"] == Path("runs/data-000")


def test_two_runs_begun_at_once_have_folders_of_their_own(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    free, found = run._free_folder, []

    def other_is_faster(config: RecursionConfig) -> Path:
        found.append(free(config))
        if len(found) == 1:
            found[0].mkdir()
        return found[-1]

    monkeypatch.setattr(run, "_free_folder", other_is_faster)
    assert main([]) == 0
    assert loop.options["out"] == Path("runs/simulated-001")
    assert found == [Path("runs/simulated-000"), Path("runs/simulated-001")]


def test_resuming_takes_the_settings_of_the_run(loop: Loop) -> None:
    begun = ["--seed", "3", "--generation.m", "2", "--out", "x"]
    assert main(begun) == 0
    config = loop.config
    assert main(["--out", "x", "--resume"]) == 0
    assert (loop.config, loop.options["resume"]) == (config, True)
    assert main([*begun, "--resume", "--rounds", "5"]) == 0
    assert loop.config == replace(config, rounds=5)


def test_resuming_with_another_setting_is_refused(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", "x"]) == 0
    capsys.readouterr()
    assert main(["--out", "x", "--resume", "--fidelity.tau", "3"]) == 2
    assert "x: cannot resume with another fidelity.tau: the run has none, got 3" in capsys.readouterr().err
    assert main(["--out", "x"]) == 2
    assert "x: holds a run already; resume it with --resume" in capsys.readouterr().err
    assert main(["--resume"]) == 2


def test_the_newest_run_is_named_when_out_is_missing(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    capsys.readouterr()
    assert main(["--resume"]) == 2
    assert "the newest run here is --out runs/simulated-000" in capsys.readouterr().err


def test_bad_data_ends_with_one_line_and_nothing_written(
    loop: Loop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop.error = DataError("toys.txt: is empty, expected interactions")
    assert main(["--data", "toys.txt"]) == 2
    assert capsys.readouterr().err == "rsir: error: toys.txt: is empty, expected interactions\n"
    assert list(tmp_path.iterdir()) == []


def test_missing_data_end_with_one_line_and_nothing_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--data", "absent.csv"]) == 2
    assert capsys.readouterr().err.startswith("rsir: error: absent.csv: no such file")
    assert list(tmp_path.iterdir()) == []


def test_profiling_says_where_the_traces_are(
    loop: Loop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    assert main(["--out", "plain"]) == 0
    assert loop.options["runtime"].profile is False
    assert "Traces" not in capsys.readouterr().out
    assert main(["--profile", "--out", "a run"]) == 0
    assert loop.options["runtime"].profile is True
    assert "Traces:    a run/profile (chrome://tracing" in capsys.readouterr().out


def test_an_interruption_says_how_to_go_on(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    loop.error = KeyboardInterrupt()
    assert main(["--out", "my run"]) == 130
    assert capsys.readouterr().err == "\nInterrupted. Resume with: rsir --out 'my run' --resume\n"


def test_an_interruption_before_the_run_began(
    loop: Loop, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rsir.recursion.loop, "recurse", interrupted)
    assert main([]) == 130
    assert capsys.readouterr().err == "\nInterrupted before the run began; nothing was written.\n"
    assert list(tmp_path.iterdir()) == []


def test_the_unexpected_keeps_its_traceback(loop: Loop) -> None:
    loop.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        main([])


def test_warnings_are_notes(loop: Loop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def warning(*arguments: Any, **options: Any) -> Run:
        warnings.warn("toys.txt: dropped 3 of 9 events", UserWarning, stacklevel=1)
        return loop(*arguments, **options)

    monkeypatch.setattr(rsir.recursion.loop, "recurse", warning)
    assert main([]) == 0
    assert capsys.readouterr().err.startswith(f"rsir: {READ}\nrsir: note: toys.txt: dropped 3 of 9 events\nround 0: ")


def test_the_first_line_says_what_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{user},{item},9\n" for user in ("NA", *range(9)) for item in range(5))
    Path("log.csv").write_text("user,item,other\n" + rows)
    short = ["--rounds", "0", "--training.max_evaluations", "1", "--training.evaluate_every", "1", "--model.dim", "8"]
    for more in (["--out", "run"], ["--out", "run", "--resume"]):
        assert main(["--data", "log.csv", *short, *more]) == 0
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == (
            "rsir: log.csv (csv: user 'user', item 'item'): 10 users, 5 items, 50 events; 10 users evaluated, who had "
            "0.0% of their targets before; the largest user has 10% of the events"
        )
        assert [text.startswith("rsir: note: log.csv: ") for text in lines[1:3]] == [True, True]
    Path("log.csv").unlink()
    assert main([*short, "--out", "run", "--resume"]) == 0
    assert capsys.readouterr().err.startswith("rsir: run/data.parquet (kept by the run): 10 users, ")


def test_notes_that_wait_are_shown_when_reading_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text("user,item,other\na,b,c\n")
    assert main(["--data", "log.csv"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("rsir: note: log.csv: no column of times")
    assert "only one user" in lines[1]


def test_bars_only_on_a_terminal(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main([]) == 0
    assert not isinstance(loop.options["runtime"].progress, Bars)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main([]) == 0
    assert isinstance(loop.options["runtime"].progress, Bars)


def test_bars_show_phase_rate_and_note(capsys: pytest.CaptureFixture[str]) -> None:
    bars = Bars()
    for done in (0, 50, 100):
        bars("round 1 generate", done, 100, "trajectories")
    bars("round 1 train", 7, None, "steps", "validation ndcg@20 0.0711")
    bars.close()
    shown = capsys.readouterr().err
    assert "round 1 generate:   0%|" in shown
    assert "trajectories/s" in shown
    assert "round 1 train: 7 [" in shown or "round 1 train: 0 [" in shown
