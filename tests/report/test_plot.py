"""The picture of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsir.cli.main import main
from rsir.config import RecursionConfig
from rsir.runs.directory import RunDirectory
from rsir.runs.rounds import RoundResult


def made_up_run(folder: Path, rounds: int) -> Path:
    with RunDirectory.create(folder, RecursionConfig(), "data") as directory:
        for k in range(rounds):
            metrics = {"ndcg@20": 0.1 + 0.01 * k, "ndcg@10": 0.09, "recall@10": 0.2}
            result = RoundResult(k, 10, 20 * k, 9 * k, 9 * k, 0.5, 4.0, float("nan"), metrics, metrics, 5, 5, {})
            name = directory.start_round(k)
            directory.write_json(f"{name}/metrics.json", result.metrics())
            directory.finish_round(k)
    return folder


def test_a_run_is_drawn_the_same_every_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = made_up_run(tmp_path / "run", 3)
    files = [tmp_path / "a.svg", tmp_path / "b.svg", tmp_path / "c.png"]
    assert [main(["report", str(run), "--plot", str(file)]) for file in files] == [0, 0, 0]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_text().count("<path") > 20
    assert files[2].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("none/x.svg", "there is no folder {}/none; make it first"),
        ("x.bmp", "x.bmp: expected a file that ends in .svg, .png or .pdf, got '.bmp'"),
        ("x", "x: expected a file that ends in .svg, .png or .pdf, got 'no ending'"),
        ("run/env.json/x.png", "cannot be written: Not a directory; choose another file"),
    ],
)
def test_what_cannot_be_written(file: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert main(["report", str(made_up_run(tmp_path / "run", 2)), "--plot", str(tmp_path / file)]) == 2
    assert message.format(tmp_path) in capsys.readouterr().err
    assert not (tmp_path / file).exists()


@pytest.mark.parametrize(("rounds", "message"), [(None, "no run"), (0, "no round is finished yet")])
def test_what_cannot_be_drawn(
    rounds: int | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    run = tmp_path / "run" if rounds is None else made_up_run(tmp_path / "run", rounds)
    assert main(["report", str(run), "--plot", str(tmp_path / "x.svg")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.svg").exists()
