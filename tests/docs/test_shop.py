"""docs/shop.md as a new user would follow it: its commands, a service in a process of its own, and curl."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rsir.cli.main import main
from tests.browser import BROWSER, shown
from tests.docs.pages import blocks

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("pandas")
CURL = shutil.which("curl")


class Shell:
    """Runs the lines of the page's shell blocks, in a folder; rsir in this process, but for the service."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.answers: list[Any] = []
        self._service: subprocess.Popen[str] | None = None
        self.address = ""
        self.printed: dict[str, str] = {}
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}

    def __call__(self, line: str) -> None:
        words = shlex.split(line)
        if words[:2] == ["rsir", "serve"]:
            self._serve(words[1:])
        elif words[0] == "rsir":
            assert main(words[1:]) == 0
            self.printed[line] = self.capsys.readouterr().out
        elif words[0] == "curl":
            self.answers.append(self._ask([CURL or "curl", "-s", *words[1:]]))
        else:
            assert words[0] == "ln", line
            self._run(["bash", "-c", line])

    def close(self) -> None:
        if self._service is not None:
            self._service.terminate()
            self._service.communicate(timeout=60)

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, env=self._environment)
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def _serve(self, words: list[str]) -> None:
        """On any port that is free, in place of the page's, and looking for a newer run more often."""
        command = [sys.executable, "-m", "rsir", *words, "--port", "0", "--reload", "0.2"]
        service = subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, text=True, env=self._environment)
        self._service = service
        assert service.stdout is not None
        said = service.stdout.readline()
        assert "serving runs/current, round" in said
        self.address = said.split()[-1].rstrip("/")

    def _ask(self, command: list[str]) -> Any:
        command = [word.replace("http://127.0.0.1:8000", self.address) for word in command]
        if "/health" in command[-1]:  # until the newer run is there
            for _ in range(300):
                answer = json.loads(self._run(command))
                if answer["run"] == "films-update-1-refit":
                    break
                time.sleep(0.2)
            return answer
        return json.loads(self._run(command))


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    made = Shell(tmp_path, capsys)
    yield made
    made.close()


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
def test_the_page_from_its_first_line_to_its_last(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "shop"}
    for kind, code in blocks("shop"):
        if kind == "python":
            assert "num_users=400, num_items=250" in code or "simulate" not in code
            exec(code.replace("num_users=400, num_items=250", "num_users=80, num_items=150"), names)
        else:
            for line in code.splitlines():
                shell(line)
    first, history, similar, health, later = shell.answers
    assert [len(one["items"]) for one in (first, history, similar, later)] == [2] * 4
    assert all(" of " in item["title"] for one in (first, history, similar, later) for item in one["items"])
    assert health["status"] == "ok"
    assert health["reload_failure"] is None
    export = names["export"]
    assert health["items"] == export.item.nunique() > names["first"].item.nunique()
    assert len(shell.printed) == 7
    assert any(" of " in line for line in shell.printed["rsir recommend runs/films --users u17 u4 --k 3"].splitlines())
    assert "House of" in (tmp_path / "runs" / "films" / "report.html").read_text("utf-8")
    assert (tmp_path / "top.parquet").exists()
    if BROWSER is not None:
        page = shown(f"{shell.address}/?user=u17", tmp_path / "profile")
        assert later["items"][0]["title"] in page
