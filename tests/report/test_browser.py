"""The page in a browser, where there is one: nothing sticks out of narrow and wide windows, and dark is dark."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rsir.recursion.loop import recurse
from tests.harness.small import SMALL

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PROBE = """<script>document.title = [
    [...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') && !e.closest('svg')
        && e.getBoundingClientRect().right > innerWidth).length,
    document.documentElement.scrollWidth > innerWidth,
    document.querySelectorAll('main svg[role=img]').length,
    getComputedStyle(document.body).backgroundColor].join('; ')</script></body>"""
FRAME = """<iframe id="frame" src="probe.html" style="width:{width}px;height:900px;border:0"></iframe>
<script>frame.onload = () => document.title = frame.contentDocument.title</script>"""


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
@pytest.mark.parametrize(("width", "dark"), [(380, True), (1280, False)])
def test_a_page_fits_its_window(width: int, dark: bool, tmp_path: Path) -> None:
    recurse(SMALL, out=tmp_path / "run")
    content = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    # the page itself forbids scripts; this one only measures
    content = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", content).replace("</body>", PROBE)
    (tmp_path / "probe.html").write_text(content, encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME.format(width=width), encoding="utf-8")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,900", "--dump-dom"]
    options += [
        "--allow-file-access-from-files",
        "--virtual-time-budget=5000",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    options += [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    shown = subprocess.run(
        [str(BROWSER), *options, (tmp_path / "frame.html").as_uri()], capture_output=True, text=True, timeout=120
    ).stdout
    background = "rgb(18, 22, 27)" if dark else "rgb(255, 255, 255)"
    assert f"<title>0; false; 8; {background}</title>" in shown
