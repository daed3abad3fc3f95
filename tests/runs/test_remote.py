"""Runs in object storage: the files of a folder, resumed from any point, one writer, read back by every command."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

import rsir
from rsir.cli.main import main
from rsir.errors import RsirError, RunError
from rsir.objects import claim
from rsir.objects.address import place
from rsir.objects.copies import fetched
from rsir.objects.storage import Storage
from rsir.runs.results import enriched
from tests.harness import tiny

ADDRESS = "s3://bucket/{}"


class Killed(BaseException):
    """As if the process were no more: nothing it still does reaches the storage."""


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    with tiny.saving_always(), tiny.quiet():
        assert tiny.start(folder, resume=False) == 0
    return tiny.contents(folder)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "RENEWED", 3600.0)


def start(name: str, *more: str) -> int:
    with tiny.saving_always(), tiny.quiet():
        return main([*tiny.OPTIONS, "--out", ADDRESS.format(name), *more])


def contents(name: str) -> dict[str, str]:
    return tiny.contents(fetched(ADDRESS.format(name)))


def test_the_files_are_those_of_a_folder(s3: str, expected: dict[str, str]) -> None:
    assert start("whole") == 0
    assert contents("whole") == expected
    names = Storage(place(ADDRESS.format("whole"))).entries()
    assert not [name for name in names if "/partial/" in name or name.startswith(".lock/")]


@pytest.mark.parametrize("point", range(0, 120, 11))
def test_a_run_that_ends_at_any_write_is_resumed(
    s3: str, expected: dict[str, str], point: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before or after the n-th object that is written or removed, and again some writes later."""
    name = f"killed-{point}"
    for attempt, last in enumerate((point, 17)):
        with monkeypatch.context() as patch:
            dying(patch, last, after=(point + attempt) % 2 == 0)
            resume = ["--resume"] if begun(name) else []
            try:
                start(name, *resume)
            except Killed:
                continue
            break
    assert start(name, *(["--resume"] if begun(name) else [])) == 0
    assert contents(name) == expected


def dying(patch: pytest.MonkeyPatch, last: int, after: bool) -> None:
    """The process ends at its n-th write; to others it then looks like one that has ended."""
    count, dead = itertools.count(), []

    def wrapped(call: Any, changes: bool) -> Any:
        def instead(*arguments: Any, **options: Any) -> Any:
            if dead:
                raise Killed
            if changes and next(count) == last:
                if after:
                    call(*arguments, **options)
                dead.append(True)
                raise Killed
            return call(*arguments, **options)

        return instead

    for method in ("write", "remove", "read", "entries", "send"):
        patch.setattr(Storage, method, wrapped(getattr(Storage, method), method in ("write", "remove", "send")))
    ended = {**claim._here(), "process": 2**30, "started": "0"}
    patch.setattr(claim, "_here", lambda: ended)


def begun(name: str) -> bool:
    return "manifest.json" in Storage(place(ADDRESS.format(name))).entries()


def test_two_writers(s3: str, capsys: pytest.CaptureFixture[str]) -> None:
    held = claim.Claim(Storage(place(ADDRESS.format("two"))))
    assert start("two") == 2
    held.release()
    assert start("two", "--rounds", "0") == 0
    assert main([*tiny.OPTIONS, "--out", ADDRESS.format("two")]) == 2
    assert "s3://bucket/two: holds a run already; resume it with --resume" in capsys.readouterr().err
    held = claim.Claim(Storage(place(ADDRESS.format("two"))))
    assert main(["--out", ADDRESS.format("two"), "--resume", "--rounds", "1"]) == 2
    assert "s3://bucket/two: another process is writing this run" in capsys.readouterr().err
    held.release()
    assert start("two", "--resume", "--rounds", "1") == 0


def test_a_writer_that_was_taken_over_records_nothing_more(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When its round ends, somebody else's claim is in the place of its own."""
    run = Storage(place(ADDRESS.format("taken")))
    with pytest.raises(RunError, match="another process has taken over this run"):
        rsir.run(
            rounds=0,
            out=ADDRESS.format("taken"),
            progress=lambda *_: take_over(run),
            **{"simulation.num_users": 60, "simulation.num_items": 40, "training.max_evaluations": 1},
        )
    assert not [name for name in run.entries() if name.endswith("DONE")]
    assert json.loads(run.read("manifest.json"))["rounds"] == {}


def take_over(run: Storage) -> None:
    for name in run.entries(".lock"):
        run.remove(name)


def test_every_command_reads_it(s3: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = ADDRESS.format("read")
    for command in (["inspect", address], ["report", address], ["recommend", address, "--out", "x.parquet"]):
        assert main(command) == 2
        assert "s3://bucket/read: holds no run: there is no manifest.json in it" in capsys.readouterr().err
    assert start("read") == 0
    run = rsir.load(address)
    assert len(run.rounds) == tiny.ROUNDS
    assert len(enriched(run, 1)) > len(run.data)
    for command, says in (
        (["inspect", address], "every checksum holds"),
        (["report", address], "s3://bucket/read/report.html"),
        (["report", address, address, "--out", str(tmp_path / "two.html")], "two.html"),
        (["recommend", address, "--out", str(tmp_path / "best.parquet")], "best.parquet: the best 10 items"),
        (["export", address, str(tmp_path / "round.csv"), "--round", "1"], "60 real"),
        (["export", address, str(tmp_path / "items.faiss")], "items.faiss: round"),
    ):
        assert main(command) == 0, command
        assert says in capsys.readouterr().out
    storage = Storage(place(address))
    model = storage.read("round-01/model.safetensors")
    storage.write("round-01/model.safetensors", model[:-1] + bytes([model[-1] ^ 1]))
    assert main(["inspect", address]) == 1
    assert f"{address}/round-01/model.safetensors" in capsys.readouterr().out
    assert main(["--out", address, "--resume"]) == 2
    assert f"{address}/round-01/model.safetensors" in capsys.readouterr().err
    storage.remove("manifest.json")
    with pytest.raises(RsirError, match="holds no run"):
        rsir.load(address)


def test_other_objects_are_left_alone(s3: str, capsys: pytest.CaptureFixture[str]) -> None:
    Storage(place(ADDRESS.format("full"))).write("photo.jpg", b"1")
    assert main([*tiny.OPTIONS, "--out", ADDRESS.format("full")]) == 2
    assert "holds files that are not of a run (photo.jpg)" in capsys.readouterr().err
    assert main([*tiny.OPTIONS, "--out", ADDRESS.format("full/photo.jpg")]) == 2
    assert "is an object, expected a folder" in capsys.readouterr().err
    assert main(["--out", ADDRESS.format("empty"), "--resume"]) == 2
    assert "s3://bucket/empty: no run to resume, there is none" in capsys.readouterr().err
    assert main([*tiny.OPTIONS, "--out", "s3://no-bucket/run"]) == 2
    assert "rsir: error: s3://no-bucket/run: there is no bucket 'no-bucket'; make it" in capsys.readouterr().err
