"""Chromium without a window, where there is one, for tests of pages."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

__all__ = ["BROWSER", "shown"]

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""Its path; None where there is none, and tests that need it are skipped."""
_QUIET = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,900", "--virtual-time-budget=5000"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def shown(address: str, profile: Path, *options: str) -> str:
    """The page's document once its scripts have run, as HTML; `profile` is an empty folder for the browser's files."""
    command = [str(BROWSER), *_QUIET, "--dump-dom", f"--user-data-dir={profile}", *options, address]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
