"""The guides' code runs as it stands there, block after block in an empty folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from rsir import export, recommend

DOCS = Path(__file__).parents[1] / "docs"
COMMANDS = {"rsir.export": export.main, "rsir.recommend": recommend.main}


@pytest.mark.parametrize("page", ["data", "models"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_guide(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page}
    blocks = re.findall(
        r"^```(python|bash)\n(.*?)^```", (DOCS / f"{page}.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert len(blocks) > 2
    for kind, code in blocks:
        if kind == "python":
            exec(compile(code, f"{page}.md", "exec", dont_inherit=True), names)
            continue
        for line in code.splitlines():
            python, dash, module, *arguments = shlex.split(line)
            if (python, dash) == ("python", "-m") and module in COMMANDS and ".onnx" not in line:
                assert COMMANDS[module](arguments) == 0  # others need other environments, ONNX a while
