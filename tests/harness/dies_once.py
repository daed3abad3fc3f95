"""One of the processes that torchrun starts in ``tests/runtime/test_processes.py``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from rsir.cli import main as command
from rsir.training.loop import TrainingLoop
from tests.harness import tiny

DIES_AT = 3


def main(folder: Path) -> int:
    gradients = TrainingLoop._gradients
    restarted = os.environ["TORCHELASTIC_RESTART_COUNT"] != "0"
    note = folder.parent / "first step"

    def dying(self, whole, negatives, step, generator):
        if os.environ["RANK"] == "1" and not restarted and step == DIES_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        if os.environ["RANK"] == "1" and restarted and not note.exists():
            note.write_text(str(step))
        return gradients(self, whole, negatives, step, generator)

    TrainingLoop._gradients = dying
    with tiny.saving_always():
        return command.main([*tiny.OPTIONS, "--rounds", "0", "--out", str(folder)])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
