"""The documentation site builds, says what the docstrings say, and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs")
pytest.importorskip("material")
pytest.importorskip("mkdocstrings")

ROOT = Path(__file__).parents[2]


def test_site(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(tmp_path).as_posix(): path.read_text("utf-8") for path in tmp_path.rglob("*.html")}
    assert 'id="rsir.recursion.loop.recurse"' in pages["reference/runs.html"]
    assert 'id="rsir.data.Sequences.save"' in pages["reference/data.html"]
    assert "unused real item must rank within tau" in pages["reference/config.html"]
    for name, page in pages.items():
        assert not re.search(r"<(?:script|img|iframe|source)[^>]* src=\"?(?:https?:)?//", page), name
        assert not re.search(r"<link[^>]* href=\"?(?:https?:)?//", page), name
        assert not re.search(r":(?:mod|func|class|meth):<code>", page), f"{name}: a role that is no link"
    for sheet in tmp_path.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", sheet.read_text("utf-8")), sheet
