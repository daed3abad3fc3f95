"""What one round came to, and what follows from the rounds there are."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rsir import files
from rsir.config import RecursionConfig, TrainingConfig
from rsir.metrics import CRITERION
from rsir.runs.directory import RunDirectory

__all__ = ["RoundResult", "best_round", "best_steps", "is_over", "read_round", "voters"]


@dataclass(frozen=True)
class RoundResult:
    """What one round was trained on and what came of it.

    Attributes
    ----------
    round : int
        0 is the base, trained on real data alone.
    sequences : int
        Non-empty rows of the training set.
    generated, verified, acquired : int
        Trajectories decoded for this round, those that passed the checks, and those it trains on beside what
        earlier rounds acquired.
    novel_share : float
        Share of the acquired trajectories' items that are not in the user's own sequence; nan in round 0.
    mean_length : float
        Mean length of the acquired trajectories; nan in round 0.
    leak : float
        Share of the trusted rank verdicts that were wrong, measured on a sample; nan unless fidelity.verify is trust
        and the catalogue is large.
    validation, test : dict
        Metrics by name ("recall@10", "ndcg@20", ...), of the round's model; with retention, of the ensemble
        that it is one of.
    steps, best_step : int
        Training steps made, and the one whose weights were kept.
    tokens : int
        Positions trained on, an item as often as it was seen.
    seconds : dict
        Wall clock by phase. Kept apart from the metrics, which are the same on every repetition.
    rates : dict
        Work a second: "tokens/s" trained on (validation left out), "trajectories/s" generated, verified and
        acquired, "users/s" ranked in the evaluation at the end.
    alone : dict
        Validation metrics of the round's model alone, where others recommend beside it; else empty.
    alone_test : dict
        The same on test; empty in runs of versions that did not measure it, too.
    groups : dict
        "history length" and "target popularity" (events of the item in the training data): test users in thirds by
        it, a dict each: "least" and "most" of it, number of "tasks", "recall@10" and "ndcg@10"
        (:func:`rsir.evaluation.by_thirds`).
    vote : float
        Weight of the item-kNN beside the networks; 0: it does not vote.
    itemknn : dict
        Parameters of the item-kNN that votes, by name; empty where none is to vote, and in runs of versions that
        searched none.
    against_best : dict
        The best "round" before this one, and the "difference" in validation NDCG@20 from it with the "low" and "high"
        end of its 95% interval (:func:`rsir.evaluation.difference_beyond_seeds`); empty in round 0.
    against_base : dict
        By part and metric ("validation/ndcg@20", "test/recall@10", "test/ndcg@10"): mean difference from round 0 and
        the ends of its paired 95% interval over users, [difference, low, high]; empty in round 0.
    alone_against_base : dict
        The same of the round's network alone against round 0's alone; empty in round 0, and in runs of versions that
        did not measure it.
    history : dict
        History of the training, validation by validation: "step", mean training "loss" since the one before, "ndcg@20".
    """

    round: int
    sequences: int
    generated: int
    verified: int
    acquired: int
    novel_share: float
    mean_length: float
    leak: float
    validation: dict[str, float]
    test: dict[str, float]
    steps: int
    best_step: int
    seconds: dict[str, float] = field(compare=False)
    tokens: int = 0
    rates: dict[str, float] = field(default_factory=dict, compare=False)
    alone: dict[str, float] = field(default_factory=dict)
    alone_test: dict[str, float] = field(default_factory=dict)
    groups: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    vote: float = 0.0
    itemknn: dict[str, float] = field(default_factory=dict)
    against_best: dict[str, float] = field(default_factory=dict)
    against_base: dict[str, list[float]] = field(default_factory=dict)
    alone_against_base: dict[str, list[float]] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)

    @property
    def worse(self) -> bool:
        """Whether the round is worse on validation than the best one before it, by more than the noise."""
        return self.against_best.get("high", 0.0) < 0

    def indistinct(self, part: str, metric: str) -> bool:
        """Whether the 95% interval of the difference from round 0 includes 0; False where there is none."""
        _, low, high = self.against_base.get(f"{part}/{metric}", (0.0, 1.0, 1.0))
        return low <= 0 <= high

    def metrics(self) -> dict[str, Any]:
        """Everything but the wall clock, as JSON values (nan as None)."""
        values = asdict(self)
        del values["seconds"], values["rates"]
        plain: dict[str, Any] = files.plain(values)
        return plain

    @classmethod
    def from_json(cls, metrics: dict[str, Any], timings: dict[str, dict[str, float]]) -> RoundResult:
        """Back from :meth:`metrics` and the content of timings.json."""
        nan: dict[str, Any] = {
            name: float("nan") for name in ("novel_share", "mean_length", "leak") if metrics[name] is None
        }
        for part in ("validation", "test", "alone", "alone_test"):
            found = metrics.get(part, {})
            nan[part] = {name: float("nan") if value is None else value for name, value in found.items()}
        return cls(**{**metrics, **nan}, seconds=timings["seconds"], rates=timings["rates"])


def best_steps(result: RoundResult, base: RoundResult, training: TrainingConfig) -> tuple[int, int]:
    """Steps that led to the weights that a round kept: on all its sequences, and then on real ones alone
    (``training.real_last``), 0 where none of those weights were the best."""
    last = training.real_last if training.synthetic_weight > 0 and result.sequences > base.sequences else 0
    steps, values = result.history.get("step", []), result.history.get(CRITERION, [])
    if not last or len(values) <= last:
        return result.best_step, 0
    main = values[:-last]
    return int(steps[main.index(max(main))]), max(0, result.best_step - int(steps[-last - 1]))


def best_round(rounds: list[RoundResult]) -> int:
    """The round with the highest validation NDCG@20; among equals the earliest."""
    return max(rounds, key=lambda result: (result.validation[CRITERION], -result.round)).round


def is_over(config: RecursionConfig, rounds: list[RoundResult]) -> bool:
    """Whether no round is to follow those there are: enough were made, none gained for long, or the last is refused."""
    enough, stale = len(rounds) > config.rounds, rounds[-1].round - best_round(rounds) >= config.stop_after
    return enough or stale or (config.guard and rounds[-1].worse)


def voters(policy: str, round_: int) -> range:
    """Rounds whose models recommend together after a round, under a policy of ``RecursionConfig.retention``."""
    return range({"none": round_, "pair": max(round_ - 1, 0), "all": 0}[policy], round_ + 1)


def read_round(directory: RunDirectory, round_: int) -> RoundResult:
    """A finished round's result; RunError where its files are missing or damaged."""
    name = directory.round_path(round_).name
    metrics, timings = (directory.read_json(f"{name}/{file}.json") for file in ("metrics", "timings"))
    return RoundResult.from_json(metrics, timings)
