"""The measure that all libraries are held to, and what a worker reads and writes; needs numpy and torch alone."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

K = 20
CHUNK = 256


def validation_ndcg(score: Callable[[list[np.ndarray]], Tensor], tasks: dict[str, np.ndarray]) -> float:
    """NDCG@20 over the whole catalogue; items of the history are not ranked, and a target among them is a miss.

    ``score`` maps histories (item ids from 1, oldest first) to (B, N + 1) scores by item id.
    """
    items, offsets, targets = (tasks[f"validation_{name}"] for name in ("items", "offsets", "targets"))
    gain = 0.0
    for first in range(0, len(targets), CHUNK):
        rows = range(first, min(first + CHUNK, len(targets)))
        histories = [items[offsets[row] : offsets[row + 1]] for row in rows]
        with torch.no_grad():
            scores = score(histories).clone()
        scores[:, 0] = -torch.inf
        for number, row in enumerate(rows):
            target = int(targets[row])
            own = scores[number, target].clone()
            if own == -torch.inf or target in histories[number]:  # the library may have left an item out
                continue
            scores[number, torch.from_numpy(histories[number].astype(np.int64))] = -torch.inf
            rank = 1 + int((scores[number] > own).sum()) + int((scores[number, :target] == own).sum())
            gain += 1 / np.log2(rank + 1) if rank <= K else 0.0
    return gain / len(targets)


class Task:
    """The arguments of a worker, ``DATA.npz OUT.json SETTINGS``, and the figures it writes epoch by epoch."""

    def __init__(self) -> None:
        _, data, out, settings = sys.argv
        del sys.argv[1:]  # some libraries read it
        self.arrays: dict[str, np.ndarray] = dict(np.load(data))
        self.num_items = int(self.arrays["num_items"])
        self.out = Path(out)
        self.settings: dict[str, Any] = json.loads(settings)
        torch.set_num_threads(self.settings["threads"])
        self.figures: dict[str, Any] = {"epochs": [], "torch": torch.__version__}
        self.seconds = self.cpu_seconds = 0.0
        self._began: tuple[float, float] | None = None

    @property
    def histories(self) -> list[np.ndarray]:
        """Training sequences, oldest item first; empty ones, too."""
        return np.split(self.arrays["train_items"], self.arrays["train_offsets"][1:-1])

    def start(self) -> None:
        """From here on time counts as training."""
        self._began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        assert self._began is not None
        self.seconds += time.perf_counter() - self._began[0]
        self.cpu_seconds += time.process_time() - self._began[1]
        self._began = None

    def report(self, ndcg: float) -> None:
        """An epoch has ended with this NDCG@20 on validation."""
        self.figures["epochs"].append({"seconds": self.seconds, "cpu_seconds": self.cpu_seconds, "ndcg": ndcg})
        self.figures["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self.write()
        print(f"  epoch {len(self.figures['epochs'])}: {self.seconds:.1f} s, NDCG@20 {ndcg:.4f}", file=sys.stderr)

    def write(self) -> None:
        self.out.write_text(json.dumps(self.figures))
