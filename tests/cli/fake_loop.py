"""A loop that computes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rsir.config import RecursionConfig
from rsir.errors import DataError, Interrupted
from rsir.runs.directory import RunDirectory
from rsir.runs.results import Run
from rsir.runs.rounds import RoundResult

READ = "toys.txt (text): 19,412 users, 11,924 items, 167,597 events"


def result(number: int, value: float = 0.0711) -> RoundResult:
    metrics = {"ndcg@20": value, "recall@10": 1.5 * value, "ndcg@10": 0.8 * value}
    nan, base = float("nan"), number == 0
    return RoundResult(
        round=number,
        sequences=19_412 if base else 54_201,
        generated=0 if base else 97_060,
        verified=0 if base else 40_122,
        acquired=0 if base else 34_789,
        novel_share=nan if base else 0.6125,
        mean_length=nan if base else 7.43,
        leak=nan,
        validation=metrics,
        test={name: 0.9 * other for name, other in metrics.items()},
        steps=512,
        best_step=256,
        seconds={"train": 61.25} if base else {"generate": 30.0, "train": 1171.5},
    )


class Loop:
    """Stands for the recursion: keeps what it was called with, writes a run's folder, hands back given rounds."""

    def __init__(self) -> None:
        self.config = RecursionConfig()
        self.options: dict[str, Any] = {}
        self.values = [0.0711, 0.0733, 0.0720]
        self.error: BaseException | None = None
        self.work: Callable[[Callable[[], bool]], list[object]] | None = None

    def __call__(self, config: RecursionConfig, *, out: Path, resume: bool, **options: Any) -> Run:
        self.config, self.options = config, {**options, "out": out, "resume": resume}
        if isinstance(self.error, DataError):
            raise self.error
        with RunDirectory.create(out, config, "data", resume=resume):
            if self.error is not None:
                raise self.error
            if self.work is not None and self.work(options["runtime"].stop)[-1]:
                raise Interrupted
            if options["runtime"].profile:
                (out / "profile").mkdir()
            options["runtime"].progress("round 0 train", 3, None, "steps", "validation ndcg@20 0.0711")
            options["on_data"](READ)
            rounds = [result(number, value) for number, value in enumerate(self.values)]
            for each in rounds:
                options["on_round"](each)
        best = max(rounds, key=lambda each: each.validation["ndcg@20"]).round
        return Run(config=config, data=None, rounds=rounds, best=best, model=None, path=out)  # type: ignore[arg-type]
