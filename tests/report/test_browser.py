"""The page in a browser, where there is one: nothing sticks out of narrow and wide windows, tables
scroll in narrow ones alone, no label of an axis lies on another, and dark is dark."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rsir.recursion.loop import recurse
from tests.browser import BROWSER, shown
from tests.harness.small import SMALL

PROBE = """<script>document.title = [
    [...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') && !e.closest('svg')
        && e.getBoundingClientRect().right > innerWidth).length,
    document.documentElement.scrollWidth > innerWidth,
    document.querySelectorAll('main svg[role=img]').length,
    [...document.querySelectorAll('.scroll')].filter(e => innerWidth > 1000 && e.scrollWidth > e.clientWidth).length,
    [...document.querySelectorAll('main svg[role=img]')].filter(chart =>
        [...chart.querySelectorAll('text.middle')].some((a, k, all) => all.slice(k + 1).some(b => {
            const [p, q] = [a.getBoundingClientRect(), b.getBoundingClientRect()];
            return p.left < q.right && q.left < p.right && p.top < q.bottom && q.top < p.bottom; }))).length,
    getComputedStyle(document.body).backgroundColor].join('; ')</script></body>"""
FRAME = """<iframe id="frame" src="probe.html" style="width:{width}px;height:900px;border:0"></iframe>
<script>frame.onload = () => document.title = frame.contentDocument.title</script>"""


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
@pytest.mark.parametrize(("width", "dark"), [(380, True), (1100, True), (1280, False)])
def test_a_page_fits_its_window(width: int, dark: bool, tmp_path: Path) -> None:
    recurse(SMALL, out=tmp_path / "run")
    content = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    # the page itself forbids scripts; this one only measures
    content = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", content).replace("</body>", PROBE)
    (tmp_path / "probe.html").write_text(content, encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME.format(width=width), encoding="utf-8")
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    page = shown((tmp_path / "frame.html").as_uri(), tmp_path / "profile", "--allow-file-access-from-files", scheme)
    background = "rgb(18, 22, 27)" if dark else "rgb(255, 255, 255)"
    assert f"<title>0; false; 8; 0; 0; {background}</title>" in page
