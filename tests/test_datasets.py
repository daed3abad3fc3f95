"""Fetching data sets, against a server on this machine."""

from __future__ import annotations

import hashlib
import http.server
import io
import resource
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rsir import datasets
from rsir.cli import main as recurse
from rsir.config import DataConfig
from rsir.data import read
from rsir.datasets import DATASETS, Dataset, fetch
from rsir.errors import FetchError

EVENTS = [(1, 10, 5.0, 3), (1, 30, 4.0, 1), (1, 20, 2.0, 2), (2, 10, 3.5, 9), (2, 20, 1.0, 8), (2, 30, 4.0, 7)]


class Server:
    """Serves one file of given bytes; what it is to do wrong is set by a test."""

    def __init__(self) -> None:
        self.content = b""
        self.breaks_after: int | None = None
        self.knows_ranges = True
        self.status = 200
        self.asked: list[str | None] = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers["Range"]
                server.asked.append(asked)
                start = int(asked[6:-1]) if asked and server.knows_ranges else 0
                body = server.content[start:]
                self.send_response(206 if start else server.status)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: server.breaks_after])

            def log_message(self, *_: object) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/file"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def archive(separator: str, header: str = "", name: str = "set/table", **others: bytes) -> bytes:
    rows = [separator.join((str(u), str(i), str(r), str(t))) for u, i, r, t in EVENTS]
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr(name, "\n".join([header, *rows] if header else rows) + "\n")
        for path, content in others.items():
            opened.writestr(path, content)
    return sink.getvalue()


def offer(monkeypatch: pytest.MonkeyPatch, server: Server, content: bytes, **fields: object) -> Dataset:
    """Add a data set called "set", whose bytes these are, to those that are known; the server has it."""
    made = Dataset(server.url, len(content), hashlib.sha256(content).hexdigest(), "Terms: none.", "six events")
    made = replace(made, **fields)  # type: ignore[arg-type]
    monkeypatch.setitem(DATASETS, "set", made)
    server.content = content
    return made


@pytest.mark.parametrize(
    ("separator", "header"),
    [("\t", ""), ("::", ""), (",", "userId,movieId,rating,timestamp")],
    ids=["tab", "::", "csv"],
)
def test_an_archive_becomes_a_file_that_loads(separator, header, server, monkeypatch, tmp_path) -> None:
    content = archive(separator, header, **{"../evil": b"x", "/tmp/evil": b"x", "set/README": b"x"})
    offer(monkeypatch, server, content, member="set/table", separator=separator, header=bool(header))
    path = fetch("set", tmp_path / "new" / "data")
    data = read(path)
    assert [data.item_labels[int(item) - 1].as_py() for item in data.items] == [30, 20, 10, 30, 20, 10]
    assert data.times.tolist() == [1, 2, 3, 7, 8, 9]
    assert read(path, DataConfig(min_rating=2)).num_interactions == 5
    found = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*"))
    assert found == ["new", "new/data", "new/data/set.parquet"]  # one table was read; no other member touched the disk
    assert fetch("set", tmp_path / "new" / "data") == path
    assert len(server.asked) == 1  # what is there is not fetched again


def test_text_is_kept_as_it_came(server, monkeypatch, tmp_path) -> None:
    offer(monkeypatch, server, b"1 3 2 1\n2 1 2 3\n")
    path = fetch("set", tmp_path)
    assert path.read_bytes() == server.content
    assert read(path).num_interactions == 6


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_broken_connection_is_taken_up_where_it_broke(knows_ranges, server, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(datasets, "BLOCK", 1000)
    content = b"".join(b"%d 1 2 3\n" % user for user in range(1, 5000))
    offer(monkeypatch, server, content)
    server.breaks_after, server.knows_ranges = 10_000, knows_ranges
    with pytest.raises(FetchError, match=r"the same command asks for what is missing"):
        fetch("set", tmp_path)
    assert not (tmp_path / "set.txt").exists()
    server.breaks_after = None
    assert fetch("set", tmp_path).read_bytes() == content
    assert server.asked == [None, "bytes=10000-"]
    assert [file.name for file in tmp_path.iterdir()] == ["set.txt"]


def test_other_bytes_are_refused_and_removed(server, monkeypatch, tmp_path) -> None:
    good = b"1 2 3 4\n"
    offer(monkeypatch, server, good)
    server.content = b"1 2 3 5\n"
    with pytest.raises(FetchError, match=r"expected SHA-256 [0-9a-f]{64}, got [0-9a-f]{64}; nothing was kept"):
        fetch("set", tmp_path)
    assert list(tmp_path.iterdir()) == []
    server.content = good + b"5 6 7 8\n"
    with pytest.raises(FetchError, match="expected 8 bytes, got more"):
        fetch("set", tmp_path)
    server.content = good
    assert fetch("set", tmp_path).read_bytes() == good


def test_an_answer_that_never_ends_is_cut_off(server, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(datasets, "BLOCK", 1000)
    offer(monkeypatch, server, b"1 2 3 4\n")
    server.content = bytes(10_000_000)
    with pytest.raises(FetchError, match="got more"):
        fetch("set", tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == 0


def test_a_table_that_grows_out_of_hand_is_refused(server, monkeypatch, tmp_path) -> None:
    content = archive("\t", name="set/table", bomb=bytes(10_000_000))
    offer(monkeypatch, server, content, member="bomb")
    with pytest.raises(FetchError, match=r"bomb would have 10,000,000 bytes, expected at most"):
        fetch("set", tmp_path)
    assert not (tmp_path / "set.parquet").exists()


@pytest.mark.parametrize(
    ("content", "fields", "message"),
    [
        (archive("\t"), {"member": "set/other", "separator": "\t"}, "holds no set/other"),
        (b"no archive", {"member": "set/table"}, "cannot be read: File is not a zip file"),
        (archive("\t"), {"member": "set/table", "separator": ","}, "cannot be read: CSV parse error"),
    ],
)
def test_an_archive_that_is_not_what_it_should_be(content, fields, message, server, monkeypatch, tmp_path) -> None:
    offer(monkeypatch, server, content, **fields)
    with pytest.raises(FetchError, match=message):
        fetch("set", tmp_path)
    assert not (tmp_path / "set.parquet").exists()


def test_no_server_no_file_no_address(server, monkeypatch, tmp_path) -> None:
    made = offer(monkeypatch, server, b"1 2 3 4\n")
    server.status = 404
    with pytest.raises(FetchError, match="the server answered 404 Not Found") as refused:
        fetch("set", tmp_path)
    assert refused.value.__cause__.closed  # else Python 3.14 warns when it is collected
    server.close()
    with pytest.raises(FetchError, match=r"cannot be fetched: .*refused.*is there a network\?"):
        fetch("set", tmp_path)
    with pytest.raises(FetchError, match=r"begins with https://"):
        fetch("set", tmp_path, url="ftp://there/file")
    with pytest.raises(FetchError, match="'sett': unknown data set; expected one of amazon-beauty, "):
        fetch("sett", tmp_path)
    (tmp_path / "mirror").write_bytes(b"1 2 3 4\n")
    assert fetch("set", tmp_path, url=(tmp_path / "mirror").as_uri()).stat().st_size == made.size
    monkeypatch.setattr(server, "close", lambda: None)


def test_a_disk_that_refuses_is_named(server, monkeypatch, tmp_path) -> None:
    offer(monkeypatch, server, b"1 2 3 4\n" * 1000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(FetchError, match=r"\.set\.part: cannot be written: File too large"):
            fetch("set", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert fetch("set", tmp_path).stat().st_size == 8000
    assert server.asked == [None, "bytes=1000-"]
    (tmp_path / "file").write_text("")
    with pytest.raises(FetchError, match=r"file.*: cannot be written"):
        fetch("set", tmp_path / "file" / "below")


def test_one_process_at_a_time(server, monkeypatch, tmp_path) -> None:
    offer(monkeypatch, server, b"1 2 3 4\n")
    with datasets._alone(tmp_path / ".set.part", "set"), pytest.raises(FetchError, match="another process is fetching"):
        fetch("set", tmp_path)


def test_from_the_command_line_to_a_run(server, monkeypatch, tmp_path, capsys) -> None:
    content = "".join(f"{user} " + " ".join(str((user + i) % 9 + 1) for i in range(6)) + "\n" for user in range(1, 30))
    offer(monkeypatch, server, content.encode())
    monkeypatch.chdir(tmp_path)
    assert recurse.main(["datasets", "fetch", "set"]) == 0
    shown = capsys.readouterr()
    assert shown.err == "Terms: none.\n\n"
    command = shown.out.splitlines()[1]
    assert command == "rsir --data data/set.txt"
    small = [
        "--rounds",
        "1",
        "--fidelity.tau",
        "5",
        "--model.dim",
        "8",
        "--model.layers",
        "1",
        "--model.feedforward",
        "8",
        "--out",
        "run",
    ]
    assert recurse.main([*command.split()[1:], *small, "--training.max_evaluations", "1"]) == 0
    assert (tmp_path / "run" / "round-01" / "DONE").exists()
    server.content = b"x"
    assert recurse.main(["datasets", "fetch", "set", "--out", "other"]) == 2
    assert "rsir: error: " in capsys.readouterr().err
    assert recurse.main(["datasets", "list"]) == 0
    assert "set " in capsys.readouterr().out


def test_those_that_are_offered() -> None:
    for name, dataset in DATASETS.items():
        assert dataset.url.startswith("https://")
        assert len(bytes.fromhex(dataset.sha256)) == 32
        assert "https://" in dataset.terms
        assert Path(dataset.url).stem in dataset.member or dataset.suffix == ".txt", name
