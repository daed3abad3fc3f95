"""A run's folder that somebody else has made: links and special files in it lead nowhere."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from rsir import files
from rsir.cli.main import main
from rsir.config import RecursionConfig
from rsir.data.sequences import Sequences
from rsir.errors import CheckpointError, DataError, RunError
from rsir.models import checkpoint
from rsir.runs.directory import RunDirectory

CONFIG, DATA = RecursionConfig(rounds=2), "ab" * 32


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a finished round."""
    with RunDirectory.create(tmp_path / "run", CONFIG, DATA) as made:
        made.write_bytes(f"{made.start_round(0)}/model.safetensors", b"weights")
        made.finish_round(0)
    return tmp_path / "run"


def resume(run: Path) -> None:
    RunDirectory.create(run, CONFIG, DATA, resume=True).close()


@pytest.mark.parametrize("name", ["log.jsonl", "config.json", "manifest.json", ".lock", "round-00/DONE", ".a.0.tmp"])
@pytest.mark.parametrize("use", [resume, RunDirectory.open])
def test_a_linked_file_is_refused_and_its_target_stays(run: Path, name: str, use: Callable[[Path], object]) -> None:
    target = run.parent / "profile of a shell"
    before = (run / name).read_bytes() if (run / name).exists() else b"echo\n"
    target.write_bytes(before)
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(target)
    with pytest.raises(RunError, match="is a link, and a run's files are never reached through one"):
        use(run)
    assert target.read_bytes() == before


@pytest.mark.parametrize("name", ["round-00", "round-01", "round-01/partial", "profile"])
def test_a_linked_folder_is_refused_and_nothing_behind_it_removed(run: Path, name: str) -> None:
    precious = run.parent / "precious"
    precious.mkdir()
    for file in ("thesis", "DONE", ".a.0.tmp"):
        (precious / file).write_text("years")
    (run / name).parent.mkdir(exist_ok=True)
    if (run / name).exists():
        files.remove(run / name)
    (run / name).symlink_to(precious)
    with pytest.raises(RunError, match=f"{name}: is a link"):
        resume(run)
    assert sorted(os.listdir(precious)) == [".a.0.tmp", "DONE", "thesis"]


def test_a_link_that_comes_while_a_run_writes_is_not_followed(run: Path) -> None:
    precious = run.parent / "precious"
    precious.mkdir()
    (precious / "thesis").write_text("years")
    with RunDirectory.create(run, CONFIG, DATA, resume=True) as writer:
        (run / "round-01").symlink_to(precious)
        with pytest.raises(RunError, match="round-01: cannot be written"):
            writer.start_round(1)
        (run / "log.jsonl").unlink()
        (run / "log.jsonl").symlink_to(precious / "thesis")
        with pytest.raises(RunError, match=r"log\.jsonl: cannot be written: is a link, expected the file itself"):
            writer.log("round")
        (run / "round-00" / "model.safetensors").unlink()
        (run / "round-00" / "model.safetensors").symlink_to(precious / "thesis")
        with pytest.raises(RunError, match=r"model\.safetensors: cannot be read: is a link"):
            writer.finished_rounds()
    assert (precious / "thesis").read_text() == "years"


def test_removing_a_tree_keeps_what_its_links_point_to(tmp_path: Path) -> None:
    (tmp_path / "kept" / "inner").mkdir(parents=True)
    (tmp_path / "kept" / "inner" / "file").touch()
    (tmp_path / "gone" / "deep").mkdir(parents=True)
    (tmp_path / "gone" / "deep" / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "gone" / "file").symlink_to(tmp_path / "kept" / "inner" / "file")
    files.remove(tmp_path / "gone")
    files.remove(tmp_path / "gone")
    assert not (tmp_path / "gone").exists()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    with pytest.raises(OSError, match="link"):
        files.clear(tmp_path / "link", lambda name: True)
    files.remove(tmp_path / "link")
    assert (tmp_path / "kept" / "inner" / "file").exists()


def test_the_folder_of_a_run_may_be_a_link(run: Path) -> None:
    link = run.parent / "link"
    link.symlink_to(run)
    (run / ".a.0.tmp").touch()
    resume(link)
    assert not (run / ".a.0.tmp").exists()
    assert RunDirectory.open(link).finished_rounds() == 1


@pytest.mark.parametrize("name", ["manifest.json", "log.jsonl", "round-00/model.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_special_files_are_refused_at_once(run: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / name).unlink()
    if kind == "pipe":
        os.mkfifo(run / name)
    else:
        monkeypatch.chdir((run / name).parent)  # a socket's name is short
        with socket.socket(socket.AF_UNIX) as one:
            one.bind((run / name).name)
    for use in (resume, RunDirectory.open):
        with pytest.raises(RunError, match="is a pipe, a socket or a device, expected a regular file"):
            use(run)


@pytest.mark.parametrize("name", ["/dev/zero", "pipe"])
def test_special_files_are_not_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "pipe":
        os.mkfifo(path)
    with pytest.raises(RunError, match="cannot be read: is a pipe, a socket or a device"):
        files.read_json(path)
    with pytest.raises(DataError, match="is a pipe, a socket or a device"):
        Sequences.load(path)
    with pytest.raises(RunError, match="cannot be written: is a pipe, a socket or a device"):
        files.append(path, b"line\n")
    (tmp_path / "model.json").symlink_to(path)
    with pytest.raises(CheckpointError, match=r"model\.json cannot be read: is a pipe"):
        checkpoint.load(tmp_path)


def test_what_a_run_says_of_itself_cannot_command_the_terminal(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "env.json").write_text('{"python": "\\u001b]0;owned\\u0007\\u202e\\u009b2J"}')
    main(["inspect", str(run)])
    shown = capsys.readouterr()
    assert "python \\x1b]0;owned\\x07\\u202e\\x9b2J" in shown.out
    assert main(["report", "\x1b[2Jno such run"]) == 2
    assert capsys.readouterr().err.startswith("rsir: error: \\x1b[2Jno such run")
