"""``python -m tests.harness NAME ...``: the checks that take long, each the module of its name in this folder."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before torch is loaded: a process with threads cannot be forked safely

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if "\n\nif __name__ ==" in path.read_text())

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        sys.exit(f"python -m tests.harness NAME [options]; NAME is one of {', '.join(NAMES)}")
    name = sys.argv.pop(1)
    sys.argv[0] = f"python -m tests.harness {name}"
    runpy.run_module(f"tests.harness.{name}", run_name="__main__")
