"""The HTTP service, asked as a client would, over a real socket."""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pytest

from rsir.cli import main as command
from rsir.cli import serve
from rsir.config import SimulationConfig
from rsir.data import simulate
from rsir.recursion.loop import recurse
from rsir.runs.results import Run
from tests.browser import BROWSER, shown
from tests.harness.small import ON_DATA as SMALL

uvicorn = pytest.importorskip("uvicorn")
application = pytest.importorskip("rsir.service.app").application
Served = pytest.importorskip("rsir.service.served").Served


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    plain = simulate(SimulationConfig(num_users=80, num_items=50, mean_length=7)).sequences
    labels = pa.array([f"item {row}" for row in range(50)])
    users = pa.array([f"user {row}" for row in range(80)])
    data = dataclasses.replace(plain, item_labels=labels, user_labels=users)
    return recurse(dataclasses.replace(SMALL, rounds=1), data=data, out=tmp_path_factory.mktemp("service") / "run")


class Client:
    """A service in a thread of its own, and a connection to it."""

    def __init__(self, path: Any, every: float = 0.0) -> None:
        self.served = Served(path)
        self._socket = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(application(self.served, most=40, every=every), log_level="warning", lifespan="on")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self._thread.start()

    def __call__(self, path: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(*self._socket.getsockname()[:2], timeout=60)
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("GET" if body is None else "POST", path, content)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        kind = answer.headers["content-type"]
        return answer.status, json.loads(text) if kind == "application/json" else text

    @property
    def address(self) -> str:
        host, port = self._socket.getsockname()[:2]
        return f"http://{host}:{port}"

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()


@pytest.fixture(scope="module")
def ask(run: Run) -> Iterator[Client]:
    client = Client(run.path)
    yield client
    client.close()


def pairs(said: dict[str, Any]) -> list[tuple[str, float]]:
    return [(one["item"], one["score"]) for one in said["items"]]


def test_it_says_what_python_says(ask: Client, run: Run) -> None:
    found = run.recommend(users=["user 3"], k=5)
    wanted = list(zip(found[0], found.scores[0], strict=True))
    for status, said in (ask("/recommend?user=user%203&k=5"), ask("/recommend", {"user": "user 3", "k": 5})):
        assert (status, pairs(said), said["by"], said["round"]) == (200, wanted, "model", run.best)
    options = {"candidates": ["item 1", "item 5", "item 9", "new"], "exclude": ["item 5"], "repeats": "included"}
    status, said = ask("/recommend", {"history": ["item 1", "newer"], "round": 0, **options})
    chosen = {"candidates": ["item 1", "item 5", "item 9"], "exclude": ["item 5"], "repeats": "included"}
    found = run.recommend([["item 1"]], round_=0, **chosen)
    assert pairs(said) == list(zip(found[0], found.scores[0], strict=True))
    assert (said["skipped"], said["round"]) == (2, 0)
    status, said = ask("/recommend", {"history": [], "k": 3})
    assert ([item for item, _ in pairs(said)], said["by"]) == (run.recommend([[]], k=3)[0], "popularity")
    for by in ("vectors", "count"):
        assert pairs(ask(f"/similar?item=item%207&k=4&by={by}")[1]) == run.similar("item 7", 4, by=by)
    history = run.data.item_labels.take(pa.array(run.data[3].astype("int64") - 1)).to_pylist()
    assert ask("/user?user=user%203") == (200, {"user": "user 3", "history": history})
    assert ask("/search?q=ITEM%204")[1]["names"] == ["item 4", *(f"item 4{n}" for n in range(10))]
    status, said = ask("/health")
    assert (status, said["status"], said["rounds"], said["best"]) == (200, "ok", [0, 1], run.best)


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        ("/recommend?user=nobody", None, 404, "user: 'nobody' is not in the run, which has 'user 0' for one"),
        ("/recommendations", None, 404, "GET /recommendations: expected GET or POST of /recommend or /similar"),
        ("/health", {"user": "user 3"}, 405, "POST /health: expected GET or POST of /recommend or /similar, or GET of"),
        ("/recommend?history=new", None, 404, "history: none of its items, 'new' for one, is in the catalogue"),
        ("/recommend", None, 422, "expected a user or a history, got neither"),
        ("/recommend?user=user%203&history=item%201", None, 422, "expected a user or a history, got both"),
        ("/recommend?user=user%203&k=1000000", None, 422, "k: expected a whole number in 1..40, got 1000000"),
        ("/recommend?user=user%203&k=ten", None, 422, "k: expected a whole number in 1..40, got 'ten'"),
        ("/recommend", {"user": "user 3", "k": 2.5}, 422, "k: expected a whole number in 1..40, got 2.5"),
        ("/recommend", {"user": "user 3", "k": True}, 422, "k: expected a whole number in 1..40, got True"),
        ("/recommend", {"user": ["user 3"]}, 422, "user: expected a string as in the data, got"),
        ("/recommend", {"history": "item 1"}, 422, "history: expected a list of items, got 'item 1'"),
        ("/recommend", {"history": [1.5]}, 422, "item: expected a string as in the data, got 1.5"),
        ("/recommend", {"history": ["item 1"] * 401}, 422, "history: expected at most 400 items, got 401"),
        ("/recommend", {"history": [], "candidates": ["new"]}, 422, "candidates: expected items of the catalogue"),
        ("/recommend", {"history": [], "repeats": "no"}, 422, "repeats: expected excluded or included, got 'no'"),
        ("/recommend", {"history": [], "repeats": ["no"]}, 422, "repeats: expected excluded or included, got"),
        ("/recommend", {"history": [], "round": 7}, 422, "round: expected one of 0, 1, got 7"),
        ("/recommend", {"history": [], "round": "x"}, 422, "round: expected one of 0, 1, got 'x'"),
        ("/recommend", {"histories": []}, 422, "'histories': unknown; expected some of user, history, k"),
        ("/recommend", [1], 422, "expected a JSON object, got list"),
        ("/recommend", b"{", 400, "expected JSON, got something else"),
        ("/recommend", b"[" * 100_000, 400, "expected JSON, got something else"),
        ("/recommend", b"\xff\xfe\x00", 400, "expected JSON, got something else"),
        ("/recommend", b" " * (2 << 20), 413, "expected at most 1,048,576 bytes of JSON, got more"),
        ("/similar", {"item": "new"}, 404, "item: 'new' is not in the run, which has 'item 0' for one"),
        ("/similar", {"item": "item 1", "by": "taste"}, 422, "by: expected vectors or count, got 'taste'"),
        ("/similar", {"item": "item 1", "by": []}, 422, "by: expected vectors or count, got list"),
        ("/similar", {}, 422, "expected an item, got none"),
        ("/search?kind=shop", None, 422, "kind: expected item or user, got 'shop'"),
    ],
)
def test_bad_input_is_one_sentence(ask: Client, path: str, body: Any, status: int, sentence: str) -> None:
    found, said = ask(path, body)
    assert found == status, said
    assert said["error"].startswith(sentence)
    assert ask("/health")[0] == 200


def test_metrics_count_what_was_asked(ask: Client) -> None:
    def counted() -> dict[str, float]:
        lines = ask("/metrics")[1].splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    before = counted()
    ask("/recommend?user=user%203")
    ask("/recommend?user=nobody")
    after = counted()
    for status in (200, 404):
        name = f'rsir_requests_total{{path="/recommend",status="{status}"}}'
        assert after[name] == before.get(name, 0) + 1
    count = 'rsir_request_seconds_count{path="/recommend"}'
    assert after[count] == after['rsir_request_seconds_bucket{path="/recommend",le="+Inf"}'] == before[count] + 2
    assert after["rsir_items"] == 50


def test_a_newer_run_is_taken_over_and_a_damaged_one_is_not(run: Run, tmp_path: Any) -> None:
    assert run.path is not None
    link = tmp_path / "current"
    link.symlink_to(run.path)
    client = Client(link, every=0.05)

    def until(condition: Any) -> dict[str, Any]:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            said: dict[str, Any] = client("/health")[1]
            if condition(said):
                return said
            time.sleep(0.05)
        raise AssertionError(said)

    def point(folder: Any) -> None:
        (tmp_path / "next").symlink_to(folder)
        os.replace(tmp_path / "next", link)

    try:
        assert client("/health")[1]["run"] == "run"
        run.refit(tmp_path / "refit")
        point(tmp_path / "refit")
        said = until(lambda said: said["run"] == "refit")
        assert (said["refit"], said["rounds"], said["reload_failure"]) == (True, [run.best], None)
        assert client.served.reloads == 1
        shutil.copytree(run.path, tmp_path / "damaged")
        weights = tmp_path / "damaged" / f"round-{run.best:02d}" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
        point(tmp_path / "damaged")
        said = until(lambda said: said["reload_failure"])
        assert said["run"] == "refit"
        assert "model.safetensors" in said["reload_failure"]
        assert client("/recommend?user=user%203")[0] == 200
        point(run.path)
        assert until(lambda said: said["run"] == "run")["reload_failure"] is None
    finally:
        client.close()


def test_an_answer_does_not_wait_for_the_other_side() -> None:
    """Its head and its body are two packets: without the option the second waits 40 ms until the first is confirmed."""
    listener = serve._listening("127.0.0.1", 0)
    with listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_page_loads_nothing_from_elsewhere(ask: Client) -> None:
    status, page = ask("/")
    assert status == 200
    assert not re.findall(r"""(?:src|href)=["'](?!data:)|https?://|@import|url\(""", page)
    for asked in re.findall(r"""ask\(["`](/\w+)""", page):
        assert ask(f"{asked}?user={quote('user 3')}")[0] != 404


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
@pytest.mark.parametrize(
    ("query", "headings"),
    [
        (
            "?user=user+3&round=0&beside=1",
            ["History, oldest first", "Recommended by round 0", "Recommended by round 1"],
        ),
        ("?history=item+3%0Anothing&round=1", ["Recommended by round 1"]),
        ("?item=item+3&round=1", ["Similar by vectors, round 1", "Similar by count, round 1"]),
    ],
)
def test_the_page_in_a_browser(ask: Client, query: str, headings: list[str], tmp_path: Path) -> None:
    page = shown(f"{ask.address}/{query}", tmp_path / "profile")
    assert re.findall("<h2>(.*?)</h2>", page) == headings
    said = ask("/user?user=user+3")[1] if "user=" in query else {"history": []}
    assert " · ".join(said["history"]) in page
    lists = re.findall("<table>(.*?)</table>", page)
    assert [one.count("<td>item ") for one in lists] == [10] * len(lists)
    assert ("1 items are not in the catalogue and were skipped." in page) is ("nothing" in query)


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
def test_a_history_is_typed_where_one_is_asked_for(tmp_path: Path) -> None:
    probe = """<script>document.title = ["user", "history"].map(kind => {
        $("kind").value = kind; kindChanged(); return getComputedStyle($("typed")).display }).join(" ")</script>"""
    page = tmp_path / "page.html"
    page.write_text((Path(serve.__file__).parents[1] / "service/page.html").read_text() + probe)
    assert "<title>none grid</title>" in shown(page.as_uri(), tmp_path / "profile")


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
def test_the_page_says_what_is_wrong(ask: Client, tmp_path: Path) -> None:
    page = shown(f"{ask.address}/?user=nobody", tmp_path / "profile")
    assert re.findall('<p id="error" role="status">(.*?)</p>', page) == [ask("/user?user=nobody")[1]["error"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--port 70000", "--port: expected a number in 0..65535, got 70000"),
        ("--max-k 0", "--max-k: expected at least 1, got 0"),
        ("--threads 0", "--threads: expected at least 1, got 0"),
        ("--reload -1", "--reload: expected seconds of 0 or more, got -1.0"),
        ("--host not-an-address.invalid", "--host not-an-address.invalid --port 8000: cannot be listened at"),
    ],
)
def test_options_of_the_command(run: Run, capsys: pytest.CaptureFixture[str], arguments: str, message: str) -> None:
    assert command.main(["serve", str(run.path), *arguments.split()]) == 2
    assert message in capsys.readouterr().err


def test_a_port_that_is_taken(run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert command.main(["serve", str(run.path), "--port", str(port)]) == 2
    assert "Address already in use; choose another port, or 0 for any that is free" in capsys.readouterr().err
    assert command.main(["serve", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_a_failure_is_forgotten_when_the_served_run_is_at_its_path_again(run: Run, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(run.path)
    served = Served(link)
    link.unlink()
    assert not served.reload()
    assert "holds no run" in served.failure
    link.symlink_to(run.path)
    assert not served.reload()
    assert (served.failure, served.failures, served.reloads) == ("", 1, 0)
