"""Paths of data: the home folder, addresses, names of any bytes, and what is no file."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rsir
from rsir.cli.main import main
from rsir.config import DataConfig
from rsir.data import read, read_histories, write
from rsir.errors import DataError, RsirError
from rsir.files import local
from tests.data.io.logs import EVENTS, WANTED, by_label, put


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    put(tmp_path, "e.csv", EVENTS)
    data = read("~/e.csv")
    assert by_label(data) == WANTED
    write(data, "~/copy.csv")
    assert by_label(read(tmp_path / "copy.csv")) == WANTED
    assert len(read_histories("~/copy.csv", data).users) == 2
    with pytest.raises(DataError, match="no home folder is known for this path"):
        read("~nobody-of-this-name/e.csv")


@pytest.mark.parametrize("address", ["nothing://bucket/e.parquet", "no+thing://b/folder"])
def test_addresses_of_unknown_kind_are_refused_before_anything_is_made(tmp_path, monkeypatch, capsys, address):
    monkeypatch.chdir(tmp_path)
    for use in (read, lambda path: rsir.run(data=path, out=tmp_path / "out")):
        with pytest.raises(RsirError, match=r"no file system for .*; install fsspec and its package"):
            use(address)
    with pytest.raises(RsirError, match="no file system for"):
        rsir.run(out=address)
    assert main(["--data", address]) == 2
    assert main(["--out", address]) == 2
    assert capsys.readouterr().err.count("or give a path of this machine") == 2
    assert list(tmp_path.iterdir()) == []


def test_a_file_address_names_its_path():
    with pytest.raises(DataError, match=r"give '/data/e\.csv'"):
        read("file:///data/e.csv")
    with pytest.raises(DataError, match="expected a path, got an empty one"):
        local("", DataError)


@pytest.mark.parametrize("name", [b"caf\xe9.csv", b"\xff\xfe", b"new\nline.csv", "ünï.csv".encode()])
def test_names_of_any_bytes(tmp_path, name):
    path = os.path.join(os.fsencode(tmp_path), name)
    with open(path, "wb") as file:
        file.write(EVENTS.encode())
    assert by_label(read(os.fsdecode(path))) == WANTED
    assert by_label(read(path)) == WANTED


def test_a_parquet_file_of_other_bytes_is_refused(tmp_path):
    path = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9.parquet"))
    with open(path, "wb") as file:
        pq.write_table(pa.table({"user": [1], "item": [2]}), file)
    with pytest.raises(DataError, match="its name is not UTF-8, which Arrow needs; rename it"):
        read(path)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="is a pipe, which cannot be read twice: write it to a file and give that"):
        read(tmp_path / "pipe.csv")
    for device in ("/dev/zero", "/dev/null"):
        with pytest.raises(DataError, match="is a device or a socket, expected a file"):
            read(device)


def test_a_pipe_of_the_shell():
    reading, writing = os.pipe()
    os.write(writing, EVENTS.encode())
    os.close(writing)
    with pytest.raises(DataError, match="is a pipe"):
        read(f"/dev/fd/{reading}", DataConfig(format="csv"))
    os.close(reading)


def test_lines_that_end_in_carriage_returns_alone(tmp_path):
    with pytest.raises(DataError, match=r"lines end in carriage returns alone; convert it by tr '\\r' '\\n' < e\.csv"):
        read(put(tmp_path, "e.csv", EVENTS.replace("\n", "\r")))
    assert by_label(read(put(tmp_path, "e.csv", EVENTS.replace("\n", "\r\n", 3)))) == WANTED
