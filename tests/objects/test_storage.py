"""Objects by address: written whole, listed, fetched; faults in one sentence; data read as from files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rsir.config import DataConfig
from rsir.data import read, read_histories
from rsir.data.io.readers import read_log
from rsir.errors import DataError, RunError
from rsir.objects.address import Address, place
from rsir.objects.copies import at_hand, exists, fetched
from rsir.objects.storage import Storage
from tests.data.io.logs import EVENTS, WANTED, by_label
from tests.objects import server


def storage(name: str) -> Storage:
    return Storage(Address("s3", f"{server.BUCKET}/{name}"))


def test_addresses() -> None:
    address = place("s3://bucket/a/b/?region=eu-west-1")
    assert isinstance(address, Address)
    assert str(address) == os.fspath(address) == "s3://bucket/a/b?region=eu-west-1"
    assert str(address / "c") == "s3://bucket/a/b/c?region=eu-west-1"
    assert (address.name, address.bucket) == ("b", "bucket")
    assert place("a/s3:/b") == Path("a/s3:/b")
    assert place(Path("a")) == Path("a")
    for wrong in ("s3://", "s3://bucket//x", "s3://bucket/../x", "gs:///x"):
        with pytest.raises(DataError, match="got an empty part or dots"):
            place(wrong, DataError)
    with pytest.raises(RunError, match="give '/run'"):
        place("file:///run")


def test_objects_are_what_was_written(s3: str, tmp_path: Path) -> None:
    here = storage("objects")
    assert here.kind() is None
    assert here.entries() == {}
    here.write("a/one", b"1")
    here.write("a/one", b"2")
    here.write("empty", b"")
    large = os.urandom(12_000_000)  # in several parts
    (tmp_path / "large").write_bytes(large)
    here.send("large", tmp_path / "large")
    here.send("nothing", _touched(tmp_path / "nothing"))
    here.write(".hidden/x", b"3")
    assert here.kind() == "folder"
    assert {name: entry.size for name, entry in here.entries().items()} == {
        "a/one": 1,
        "empty": 0,
        "large": len(large),
        "nothing": 0,
        ".hidden/x": 1,
    }
    assert list(here.entries("a")) == ["a/one"]
    assert here.read("a/one") == b"2"
    (tmp_path / "copy").mkdir()
    here.fetch(tmp_path / "copy", lambda name: name != "empty")
    found = {
        path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*") if path.is_file()
    }
    assert found == {"a/one", "large", "nothing"}
    assert (tmp_path / "copy" / "large").read_bytes() == large
    here.remove("a/one")
    here.remove("a/one")
    with pytest.raises(RunError, match=r"s3://bucket/objects/a/one: no such object"):
        here.read("a/one")
    assert storage("objects/large").is_file()


def _touched(file: Path) -> Path:
    file.touch()
    return file


@pytest.mark.parametrize("name", ["a b", "ä", "100%", "a%20b", "day=3", "a[b]*", "+&#;,@:'"])
def test_names_of_any_characters(s3: str, name: str, tmp_path: Path) -> None:
    here = Storage(place(f"s3://bucket/names/{name}"))
    here.write(name, b"1")
    assert list(here.entries()) == [name]
    assert list(storage("names").entries(name)) == [f"{name}/{name}"]
    here.fetch(tmp_path)
    assert (tmp_path / name).read_bytes() == b"1"
    here.remove(name)
    assert here.entries() == {}


def test_faults_are_one_sentence(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = Storage(Address("s3", "no-bucket/x"), DataError)
    for call in (nowhere.kind, nowhere.check, lambda: nowhere.write("a", b"1")):
        with pytest.raises(DataError, match=r"^s3://no-bucket/x: there is no bucket 'no-bucket'; make it"):
            call()
    with pytest.raises(RunError, match=r"s3://bucket/none: no such object, and none whose name begins so"):
        storage("none").is_file()
    server.only_known_users(s3)
    try:
        refused = r"^s3://bucket/x(/a)?: cannot be \w+: access is refused; give credentials that may do that \(AWS_"
        for call in (storage("x").kind, storage("x").entries, lambda: storage("x").write("a", b"1")):
            with pytest.raises(RunError, match=refused):
                call()
    finally:
        server.anybody(s3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(RunError, match=r"^s3://bucket/x/a: cannot be written: the storage is not reached; check"):
        storage("x").write("a", b"1")


def test_no_file_system() -> None:
    for address in ("nothing://bucket/x", "https-of-mine://b/x"):
        with pytest.raises(DataError, match=r"no file system for .*; install fsspec and its package"):
            read(address)


def test_fsspec_where_arrow_has_none() -> None:
    pytest.importorskip("fsspec")
    here = Storage(Address("memory", "bucket/x"))
    here.write("a/b", b"1")
    assert here.kind() == "folder"
    here.write("a[b]*", b"2")
    here.remove("a[b]*")
    assert list(here.entries()) == ["a/b"]
    assert (fetched("memory://bucket/x") / "a" / "b").read_bytes() == b"1"


@pytest.mark.parametrize("name", ["e.csv", "folder"])
def test_data_are_read_as_from_files(s3: str, name: str, tmp_path: Path) -> None:
    lines = EVENTS.splitlines(keepends=True)
    if name == "e.csv":
        storage(f"data/{name}").write("", EVENTS.encode())
    else:
        storage(f"data/{name}").write("a.csv", "".join(lines[:3]).encode())
        storage(f"data/{name}").write("b.csv", "".join([lines[0], *lines[3:]]).encode())
        storage(f"data/{name}").write("_SUCCESS", b"")
    before = set(Path(os.environ.get("TMPDIR", "/tmp")).glob("rsir-*"))
    data, reading = read_log(f"s3://bucket/data/{name}", DataConfig())
    assert by_label(data) == WANTED
    assert reading.name == f"s3://bucket/data/{name}"
    assert len(read_histories(f"s3://bucket/data/{name}", data).users) == 2
    assert exists(f"s3://bucket/data/{name}", DataError)
    assert not exists(f"s3://bucket/data/{name}x", DataError)
    with pytest.raises(DataError, match=rf"s3://bucket/data/{name}.*k_core|s3://bucket/data/{name}: .*50-core"):
        read(f"s3://bucket/data/{name}", DataConfig(k_core=50))
    assert set(Path(os.environ.get("TMPDIR", "/tmp")).glob("rsir-*")) == before  # copies are removed


def test_faults_in_data_name_the_address(s3: str) -> None:
    storage("data/bad.csv").write("", b"user,item,time\n1,2,3\n1,2\n")
    with pytest.raises(DataError, match=r"^s3://bucket/data/bad\.csv: line 3: "):
        read("s3://bucket/data/bad.csv")
    with (
        pytest.raises(RunError, match=r"^s3://bucket/data/bad\.csv is wrong"),
        at_hand("s3://bucket/data/bad.csv", RunError) as copy,
    ):
        raise RunError(f"{copy} is wrong")
