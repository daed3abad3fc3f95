"""``python -m tests.harness tritons [VERSION ...]``: the kernels' tests under other Tritons than the installed one.

A CUDA build of torch brings one Triton and no other: torch 2.9 has 3.5.1, 2.10 and 2.11 have 3.6.0, 2.12 and 2.13 have
3.7.0 or 3.7.1. Each version is installed in a folder of its own, without what it depends on, and put before the
installed one. Every kernel is compiled for all architectures and then run in that Triton's interpreter.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.5.1", "3.6.0", "3.7.1", "3.8.0")
OLD_NUMPY = "2.2.6"
"""The interpreter of a Triton before 3.7 takes arrays of one element for numbers, which NumPy 2.4 refuses."""


def installed(package: str, version: str, folder: Path) -> Path:
    """The folder of this version of a package, which is made first where it is missing."""
    place = folder / f"{package}-{version}"
    if not (place / package).is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", place]
        subprocess.run([*pip, f"{package}=={version}"], check=True)
    return place


def run(version: str, folder: Path, tests: list[str]) -> int:
    """Run tests under a version of Triton; the exit status of pytest."""
    places = [installed("triton", version, folder)]
    options = []
    if tuple(map(int, version.split("."))) < (3, 7):
        places.append(installed("numpy", OLD_NUMPY, folder))
        options = ["-W", "ignore:Conversion of an array:DeprecationWarning"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, places))}
    environment.pop("TRITON_INTERPRET", None)
    ask = [sys.executable, "-c", "import triton; print(triton.__version__)"]
    found = subprocess.run(ask, env=environment, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()
    if found != version:
        raise RuntimeError(f"expected Triton {version} in {folder}, found {found}")
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", *options, *tests]
    return subprocess.run(pytest, env=environment, cwd=ROOT).returncode


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.harness tritons", description=__doc__)
    parser.add_argument("versions", nargs="*", default=VERSIONS, help=f"default: {' '.join(VERSIONS)}")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "tritons", help="where the versions are kept")
    parser.add_argument("--tests", nargs="+", default=["tests/kernels"])
    options = parser.parse_args()
    failed = []
    for version in options.versions:
        began = time.monotonic()
        if run(version, options.folder, options.tests):
            failed.append(version)
        print(
            f"Triton {version}: {'fails' if version in failed else 'passes'}, {time.monotonic() - began:.0f} s",
            flush=True,
        )
    if failed:
        sys.exit(f"fails under Triton {', '.join(failed)}")


if __name__ == "__main__":
    main()
