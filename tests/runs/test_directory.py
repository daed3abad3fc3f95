"""Run directories: nothing half-written, nothing mixed up, nothing damaged unnoticed."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, tzinfo
from pathlib import Path

import numpy as np
import pytest

from rsir import files
from rsir.config import DataConfig, FidelityConfig, GenerationConfig, RecursionConfig
from rsir.errors import RunError
from rsir.runs import directory, manifest
from rsir.runs.directory import RunDirectory
from rsir.runs.store import Follower

CONFIG = RecursionConfig(rounds=2, seed=7)
DATA = "ab" * 32


def add_round(run: RunDirectory, number: int, content: bytes = b"weights") -> None:
    name = run.start_round(number)
    run.write_bytes(f"{name}/model.safetensors", content)
    run.write_json(f"{name}/metrics.json", {"round": number, "ndcg": 0.1})
    run.finish_round(number)


@pytest.fixture
def run_path(tmp_path: Path) -> Path:
    """A run with rounds 0 and 1 finished."""
    path = tmp_path / "run"
    with RunDirectory.create(path, CONFIG, DATA) as run:
        add_round(run, 0)
        add_round(run, 1, b"other weights")
    return path


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def edited(path: Path, name: str, edit: Callable[[dict], None]) -> None:
    values = json.loads((path / name).read_text())
    edit(values)
    (path / name).write_text(json.dumps(values))


# a new run


def test_a_new_run_holds_its_settings_environment_and_manifest(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "first"
    with RunDirectory.create(path, CONFIG, DATA) as run:
        assert run.finished_rounds() == 0
        assert (path / ".lock").exists()
    assert set(tree(path)) == {"config.json", "env.json", "manifest.json", "log.jsonl"}
    again = RunDirectory.open(path)
    assert (again.config, again.data, again.finished_rounds()) == (CONFIG, DATA, 0)
    environment = json.loads((path / "env.json").read_text())
    assert set(environment) == {"rsir", "torch", "numpy", "python", "system", "cpu", "instruction_set", "device"}
    assert not any(str(secret) in str(environment) for secret in (os.uname().nodename, Path.home(), tmp_path))


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path, CONFIG, DATA).close()
    assert RunDirectory.open(tmp_path).config == CONFIG


def test_a_finished_round_is_recorded_with_all_its_files(run_path: Path) -> None:
    rounds = json.loads((run_path / "manifest.json").read_text())["rounds"]
    assert set(rounds) == {"round-00", "round-01"}
    assert set(rounds["round-01"]) == {"model.safetensors", "metrics.json"}
    assert rounds["round-01"]["model.safetensors"]["size"] == len(b"other weights")
    assert (run_path / "round-01" / "DONE").read_bytes() == b""
    assert RunDirectory.open(run_path).finished_rounds() == 2
    events = [json.loads(line)["event"] for line in (run_path / "log.jsonl").read_text().splitlines()]
    assert events == ["begin", "round", "round"]


@pytest.mark.parametrize("content", [{"notes.txt": b"mine"}, {"config.json": b"{}"}, {".hidden": b""}])
def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path, content: dict[str, bytes]) -> None:
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(RunError, match=rf"not of a run \({next(iter(content))}\); choose another --out"):
        RunDirectory.create(tmp_path, CONFIG, DATA)
    assert tree(tmp_path) == content


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    for path in (tmp_path / "run", tmp_path / "run" / "below"):
        with pytest.raises(RunError, match=r"is a file|Not a directory"):
            RunDirectory.create(path, CONFIG, DATA)


def test_another_run_is_refused(run_path: Path) -> None:
    before = tree(run_path)
    with pytest.raises(RunError, match=r"holds a run already; resume it with --resume, or choose another --out"):
        RunDirectory.create(run_path, CONFIG, DATA)
    assert tree(run_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_place_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="Permission denied; choose an --out that you may write to"):
        RunDirectory.create(tmp_path / "run", CONFIG, DATA)


def test_a_read_only_disk_is_refused(run_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def read_only(path: Path, flags: int, *mode: int, **options: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *mode, **options)

    before = tree(run_path)
    monkeypatch.setattr(files.os, "open", read_only)
    with pytest.raises(RunError, match="Read-only file system; choose an --out that can be written to"):
        RunDirectory.create(run_path, CONFIG, DATA, resume=True)
    assert tree(run_path) == before
    assert RunDirectory.open(run_path).finished_rounds() == 2


def test_a_clock_set_back_shows_in_the_log_alone(
    run_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Past(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime(1999, 12, 31, tzinfo=tz)

    monkeypatch.setattr(directory, "datetime", Past)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with RunDirectory.create(run_path, CONFIG, DATA, resume=True) as run:
        assert run.finished_rounds() == 2
        (run.partial(2) / "training-000001").write_bytes(b"")
        os.utime(run.partial(2) / "training-000001", (0, 0))
        add_round(run, 2)
    assert RunDirectory.open(run_path).finished_rounds() == 3
    times = [json.loads(line)["time"] for line in (run_path / "log.jsonl").read_text().splitlines()]
    assert times[-1] < times[0]


def test_a_run_that_was_interrupted_before_it_began_may_be_begun_again(tmp_path: Path) -> None:
    for name in (".lock", "config.json", ".env.json.0a1b2c3d.tmp"):
        (tmp_path / name).write_text("{")
    with pytest.raises(RunError, match="interrupted before it began; start it without --resume"):
        RunDirectory.create(tmp_path, CONFIG, DATA, resume=True)
    RunDirectory.create(tmp_path, CONFIG, DATA).close()
    assert RunDirectory.open(tmp_path).config == CONFIG
    assert set(tree(tmp_path)) == {"config.json", "env.json", "manifest.json", "log.jsonl"}


def test_a_run_that_cannot_begin_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_on(monkeypatch, "manifest.json", "replace")
    with pytest.raises(RunError, match="No space left on device; free some space"):
        RunDirectory.create(tmp_path / "runs" / "run", CONFIG, DATA)
    assert list(tmp_path.iterdir()) == []


# resuming


@pytest.mark.parametrize(
    "resume", [RunDirectory.open, lambda path: RunDirectory.create(path, CONFIG, DATA, resume=True)]
)
def test_without_a_run_there_is_nothing_to_resume(tmp_path: Path, resume: Callable[[Path], RunDirectory]) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(RunError, match="no run to resume, there is none; start it without --resume"):
            resume(path)
    assert list(tmp_path.iterdir()) == []


def test_resuming_discards_what_was_left_unfinished_and_nothing_else(run_path: Path) -> None:
    before = tree(run_path)
    (run_path / "round-02").mkdir()
    (run_path / "round-02" / "metrics.json").write_text("{}")
    (run_path / ".manifest.json.tmp").write_text("{")
    (run_path / "round-01" / ".model.safetensors.tmp").write_text("half")
    (run_path / "notes.txt").write_text("mine")
    with RunDirectory.create(run_path, CONFIG, DATA, resume=True) as run:
        assert run.finished_rounds() == 2
    after = tree(run_path)
    assert after.pop("notes.txt") == b"mine"
    assert after.pop("log.jsonl").startswith(before.pop("log.jsonl"))
    assert after == before


def test_what_a_round_has_so_far_stays_until_it_is_finished(run_path: Path) -> None:
    with RunDirectory.create(run_path, CONFIG, DATA, resume=True) as run:
        folder = run.partial(2)
        (folder / "training-000001").write_bytes(b"half a training")
    (folder / ".training-000002.0a1b2c3d.tmp").write_bytes(b"torn")
    (folder.parent / "metrics.json").write_text("{}")
    for late in ("round-01", "round-03"):  # finished, and not the next one
        (run_path / late / "partial").mkdir(parents=True)
    with RunDirectory.create(run_path, CONFIG, DATA, resume=True) as run:
        assert sorted(path.relative_to(run_path).as_posix() for path in run_path.rglob("*/partial*")) == [
            "round-02/partial"
        ]
        assert [path.name for path in folder.parent.rglob("*") if path.is_file()] == ["training-000001"]
        assert run.partial(2) == folder
        add_round(run, 2)
        assert not folder.exists()
        assert RunDirectory.open(run_path).finished_rounds() == 3


def test_a_round_that_was_recorded_but_not_marked_done_is_made_again(run_path: Path) -> None:
    before = tree(run_path)
    (run_path / "round-01" / "DONE").unlink()
    with RunDirectory.create(run_path, CONFIG, DATA, resume=True) as run:
        assert run.finished_rounds() == 1
        assert not run.round_path(1).exists()
        add_round(run, 1, b"other weights")
    after = tree(run_path)
    assert {**after, "log.jsonl": b""} == {**before, "log.jsonl": b""}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(CONFIG, seed=8), "another seed: the run has 7, got 8"),
        (
            replace(CONFIG, fidelity=FidelityConfig(tau=[5, 3]), generation=GenerationConfig(m=9)),
            "another generation.m: the run has 10, got 9",
        ),
        (replace(CONFIG, fidelity=FidelityConfig(tau=[5, 3])), r"another fidelity.tau: the run has none, got \[5, 3\]"),
        (replace(CONFIG, rounds=1), "fewer rounds: the run has 2, got 1"),
    ],
)
def test_resuming_with_another_setting_names_it(run_path: Path, config: RecursionConfig, message: str) -> None:
    before = tree(run_path)
    with pytest.raises(RunError, match=message):
        RunDirectory.create(run_path, config, DATA, resume=True)
    assert tree(run_path) == before


def test_resuming_with_other_data_names_them(run_path: Path) -> None:
    with pytest.raises(RunError, match=r"the data \(given or simulated\) are not those"):
        RunDirectory.create(run_path, CONFIG, "cd" * 32, resume=True)
    moved = replace(CONFIG, data=DataConfig(path="new.csv"))
    with pytest.raises(RunError, match=r"another data.path: the run has None, got 'new.csv', whose content differs"):
        RunDirectory.create(run_path, moved, "cd" * 32, resume=True)


def test_a_run_may_be_extended_its_data_moved_and_its_memory_bounded(run_path: Path) -> None:
    rounds = RunDirectory.open(run_path).finished_rounds()
    longer = replace(CONFIG, rounds=5, data=DataConfig(path="moved.csv"), generation=GenerationConfig(slots=64))
    for _ in range(2):
        with RunDirectory.create(run_path, longer, DATA, resume=True) as run:
            assert run.finished_rounds() == rounds == 2
        assert RunDirectory.open(run_path).config == longer
        assert json.loads((run_path / "config.json").read_text())["rounds"] == 5


def test_a_change_of_environment_is_logged(run_path: Path) -> None:
    edited(run_path, "env.json", lambda values: values.update(torch="1.0"))
    RunDirectory.create(run_path, CONFIG, DATA, resume=True).close()
    last = json.loads((run_path / "log.jsonl").read_text().splitlines()[-1])
    assert last["event"] == "resume"
    assert set(last["environment_changed"]) == {"torch"}


# damage


def test_a_damaged_or_missing_file_is_named(run_path: Path) -> None:
    file = run_path / "round-00" / "model.safetensors"
    fix = "remove the folder round-00 and those of all later rounds, and --resume makes them again"
    file.write_bytes(b"weightz")
    with pytest.raises(RunError, match=rf"model.safetensors: is damaged \(other content\); .*{fix}"):
        RunDirectory.open(run_path).finished_rounds()
    file.write_bytes(b"weig")
    with pytest.raises(RunError, match=r"model.safetensors: is damaged \(4 bytes where 7 were written\)"):
        RunDirectory.create(run_path, CONFIG, DATA, resume=True)
    file.unlink()
    with pytest.raises(RunError, match=rf"model.safetensors: is missing; put it back, or {fix}"):
        RunDirectory.open(run_path).finished_rounds()


def test_the_advice_on_damage_helps(run_path: Path) -> None:
    (run_path / "round-01" / "model.safetensors").write_bytes(b"")
    for file in (run_path / "round-01").iterdir():
        file.unlink()
    (run_path / "round-01").rmdir()
    with RunDirectory.create(run_path, CONFIG, DATA, resume=True) as run:
        assert run.finished_rounds() == 1


def test_a_reader_sees_a_live_run_as_it_was_when_opened(run_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer finishes a round while the reader reads the manifest, and another after it."""
    read = manifest.read
    writer = RunDirectory.create(run_path, CONFIG, DATA, resume=True)

    def slow(path: Path, beside: Path) -> object:
        before = read(path, beside)
        add_round(writer, 2)
        return before

    monkeypatch.setattr(manifest, "read", slow)
    reader = RunDirectory.open(run_path)
    monkeypatch.undo()
    assert (reader.damage(), reader.done_rounds()) == ([], [0, 1])
    add_round(writer, 3)
    assert (reader.damage(), reader.finished_rounds()) == ([], 2)
    writer.close()
    assert RunDirectory.open(run_path).finished_rounds() == 4


def test_a_gap_between_rounds_is_named(run_path: Path) -> None:
    (run_path / "round-00" / "DONE").unlink()
    with pytest.raises(RunError, match="round-00: is not finished, yet later rounds are"):
        RunDirectory.create(run_path, CONFIG, DATA, resume=True)
    assert (run_path / "round-00" / "model.safetensors").exists()


def test_a_round_that_is_not_recorded_is_named(run_path: Path) -> None:
    (run_path / "round-02").mkdir()
    (run_path / "round-02" / "DONE").touch()
    with pytest.raises(RunError, match=r"round-02: is marked DONE but not recorded in manifest.json"):
        RunDirectory.open(run_path).finished_rounds()


def test_flipped_bytes_of_the_manifest_are_noticed_or_harmless(run_path: Path) -> None:
    path = run_path / "manifest.json"
    original = path.read_bytes()
    meaning = json.loads(original)
    draw = random.Random(0)
    for place in range(0, len(original), 5):
        flipped = bytearray(original)
        flipped[place] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            RunDirectory.open(run_path)
        except RunError:
            continue
        assert json.loads(flipped) == meaning
    for length in range(0, len(original) - 1, 37):
        path.write_bytes(original[:length])
        with pytest.raises(RunError, match=r"manifest.json: is damaged"):
            RunDirectory.open(run_path)


@pytest.mark.parametrize(
    "change",
    [
        {"rounds": []},
        {"rounds": {"round-00": []}},
        {"rounds": {"round-00": {"a": 1}}},
        {"data": 3},
        {"config": None},
        {"config": 3},
    ],
)
def test_a_manifest_of_another_shape_is_damaged(run_path: Path, change: dict) -> None:
    def edit(values: dict) -> None:
        values.update(change)
        del values["checksum"]
        values["checksum"] = files.checksum(values)

    edited(run_path, "manifest.json", edit)
    with pytest.raises(RunError, match=r"manifest\.json: is damaged"):
        RunDirectory.open(run_path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda values: values.update(seed=8), "config.json: has been changed since the run began"),
        (lambda values: values.update(warp=9), "not hold settings of this version of rsir .warp: unknown option"),
        (lambda values: values.clear(), "config.json: has been changed"),
    ],
)
def test_changed_settings_are_noticed(run_path: Path, edit: Callable[[dict], None], message: str) -> None:
    edited(run_path, "config.json", edit)
    with pytest.raises(RunError, match=message):
        RunDirectory.open(run_path)


def test_every_flipped_byte_of_the_settings_is_noticed_or_harmless(run_path: Path) -> None:
    """Those that a resumed run may change are not in the checksum; the manifest's copy counts."""
    path = run_path / "config.json"
    original = path.read_bytes()
    draw = random.Random(0)
    for place in range(0, len(original), 3):
        flipped = bytearray(original)
        flipped[place] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            assert RunDirectory.open(run_path).config == CONFIG
        except RunError:
            continue
    edited_rounds = original.replace(b'"rounds": 2', b'"rounds": 9')
    assert edited_rounds != original
    path.write_bytes(edited_rounds)
    assert RunDirectory.open(run_path).config == CONFIG


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"a": 1'])
def test_what_is_not_a_json_object_is_damaged(run_path: Path, content: bytes) -> None:
    (run_path / "config.json").write_bytes(content)
    with pytest.raises(RunError, match=r"config.json: is damaged"):
        RunDirectory.open(run_path)


def test_another_format_is_refused(run_path: Path) -> None:
    edited(run_path, "manifest.json", lambda values: values.update(format=99))
    with pytest.raises(RunError, match="has format 99, this rsir reads 1"):
        RunDirectory.open(run_path)


# writing


def fail_on(monkeypatch: pytest.MonkeyPatch, name: str, call: str, error: Exception | None = None) -> None:
    """Let a system call of a write to a file of that name fail."""
    if call == "replace":
        original = os.replace

        def replace_(source: Path, target: Path) -> None:
            if Path(target).name == name:
                raise error or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            original(source, target)

        monkeypatch.setattr(files.os, "replace", replace_)
    else:

        def fsync(descriptor: int) -> None:
            raise error or OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(files.os, "fsync", fsync)


@pytest.mark.parametrize(
    ("call", "error", "raised"),
    [("replace", None, RunError), ("fsync", None, RunError), ("replace", KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_failure_between_write_and_rename_leaves_the_old_file(
    run_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: Exception, raised: type[BaseException]
) -> None:
    with RunDirectory.create(run_path, CONFIG, DATA, resume=True) as run:
        run.write_bytes("report.html", b"old")
        with monkeypatch.context() as patch:
            fail_on(patch, "report.html", call, error)
            with pytest.raises(raised):
                run.write_bytes("report.html", b"new")
        assert (run_path / "report.html").read_bytes() == b"old"
        assert not list(run_path.glob(".*.tmp"))
        run.write_bytes("report.html", b"new")
    assert (run_path / "report.html").read_bytes() == b"new"


@pytest.mark.parametrize("file", ["model.safetensors", "metrics.json", "manifest.json", "DONE"])
def test_a_run_goes_on_after_a_failure_at_any_file_of_a_round(
    run_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    with RunDirectory.create(run_path, CONFIG, DATA, resume=True) as run, monkeypatch.context() as patch:
        fail_on(patch, file, "replace")
        with pytest.raises(RunError, match=rf"{file}: cannot be written: No space left on device"):
            add_round(run, 2)
    with RunDirectory.create(run_path, CONFIG, DATA, resume=True) as run:
        assert run.finished_rounds() == 2
        add_round(run, 2)
    with RunDirectory.create(tmp_path / "whole", CONFIG, DATA) as whole:
        for number, content in enumerate([b"weights", b"other weights", b"weights"]):
            add_round(whole, number, content)
    result, expected = tree(run_path), tree(tmp_path / "whole")
    assert {**result, "log.jsonl": b""} == {**expected, "log.jsonl": b""}


@pytest.mark.parametrize(
    "name", ["../outside", "/outside", "round-00/../../x", "", ".lock", "round-00/.hidden", "a\0b"]
)
def test_names_lead_nowhere_else(run_path: Path, name: str) -> None:
    with RunDirectory.create(run_path, CONFIG, DATA, resume=True) as run:
        for use in (lambda: run.write_bytes(name, b""), lambda: run.read_json(name)):
            with pytest.raises(RunError, match="expected the name of a file inside the run's folder"):
                use()


def test_reading_does_not_write(run_path: Path) -> None:
    run = RunDirectory.open(run_path)
    for use in (lambda: run.write_bytes("a", b""), lambda: run.start_round(2), lambda: run.log("x")):
        with pytest.raises(RunError, match="open for reading only"):
            use()


def test_json_is_stable_and_has_no_nan(run_path: Path) -> None:
    values = {"b": np.float32(0.5), "a": [float("nan"), 0.1 + 0.2, np.int64(3)], "c": {"é": None}}
    with RunDirectory.create(run_path, CONFIG, DATA, resume=True) as run:
        run.write_json("x.json", values)
        assert run.read_json("x.json") == {"a": [None, 0.1 + 0.2, 3], "b": 0.5, "c": {"é": None}}
    text = (run_path / "x.json").read_text()
    assert text.index('"a"') < text.index('"b"')
    assert text.endswith("}\n")


def test_a_log_line_that_was_cut_short_is_ended_first(run_path: Path) -> None:
    with (run_path / "log.jsonl").open("a") as file:
        file.write('{"event": "ro')
    RunDirectory.create(run_path, CONFIG, DATA, resume=True).close()
    lines = (run_path / "log.jsonl").read_text().splitlines()
    assert lines[-2] == '{"event": "ro'
    assert json.loads(lines[-1])["event"] == "resume"


# two processes


def test_a_run_has_one_writer(run_path: Path) -> None:
    with RunDirectory.create(run_path, CONFIG, DATA, resume=True):
        with pytest.raises(RunError, match="another process is writing this run"):
            RunDirectory.create(run_path, CONFIG, DATA, resume=True)
        assert (run_path / ".lock").exists()
        assert RunDirectory.open(run_path).finished_rounds() == 2
    assert not (run_path / ".lock").exists()
    RunDirectory.create(run_path, CONFIG, DATA, resume=True).close()


def _hold_and_die(path: Path) -> None:
    RunDirectory.create(path, CONFIG, DATA, resume=True)
    os._exit(9)


def test_the_lock_of_a_killed_process_is_free(run_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_hold_and_die, args=(run_path,))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert (run_path / ".lock").exists()
    RunDirectory.create(run_path, CONFIG, DATA, resume=True).close()
    assert not (run_path / ".lock").exists()


def test_any_process_of_a_run_says_which_saved_file_it_cannot_use(run_path: Path) -> None:
    """Of several processes only the first holds the lock, and each reads some of the files of trajectories."""
    with RunDirectory.create(run_path, CONFIG, DATA, resume=True) as run:
        saved = run.partial(2) / "trajectories-000001"
        saved.write_bytes(b"damaged")
        other = Follower(RunDirectory.open(run_path))
        assert list(other.checkpointer(2).load("trajectories")) == []
    assert not saved.exists()
    last = json.loads((run_path / "log.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last["file"]) == ("discarded", "round-02/partial/trajectories-000001")
