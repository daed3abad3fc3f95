"""Full-catalogue ranking metrics, recommendations, and a paired test between two models."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from rsir import ops
from rsir.config.arguments import typed
from rsir.data.ragged import Ragged, extent
from rsir.data.splits import EvaluationSet
from rsir.errors import ConfigError, DataError
from rsir.metrics import HEADLINE
from rsir.models.encoding import added_scores, encode_sequences
from rsir.models.items import pack_items
from rsir.models.protocol import Backbone, require
from rsir.runtime import memory
from rsir.runtime.runtime import RUNTIME, Runtime
from rsir.runtime.torch_state import plain_torch

__all__ = [
    "Evaluation",
    "PairedTest",
    "by_thirds",
    "difference_beyond_seeds",
    "evaluate",
    "mean_interval",
    "paired_test",
    "recommend",
]

CUTOFFS = (5, 10, 20)
SPREAD_CUTOFF = 10  # coverage and popularity are those of the first ten places
_RANKED = ("recall", "ndcg", "mrr")
_FEWEST = 128  # tasks at a time, of several processes: fewer take less time than what comes with every batch
_NORMAL_95 = 1.959963984540054


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How well a model ranks the targets of an evaluation set.

    Attributes
    ----------
    metrics : dict of str to float
        recall@K, ndcg@K and mrr@K for K in 5, 10, 20 (means over tasks); if asked for, coverage@10 (share of the
        catalogue that is in somebody's first ten) and popularity@10 (mean popularity of what is in the first ten).
    ranks : (n,) int64
        Place of each task's target, from 1; 0 if it is beyond the largest K.
    """

    metrics: dict[str, float]
    ranks: npt.NDArray[np.int64]

    def gains(self, metric: str) -> npt.NDArray[np.float64]:
        """What each task adds to a ranking metric such as "ndcg@10", (n,) float64; their mean is the metric."""
        name, _, cutoff = metric.partition("@")
        if name not in _RANKED or not cutoff.isdigit() or int(cutoff) not in CUTOFFS:
            known = ", ".join(f"{name}@{k}" for name in _RANKED for k in CUTOFFS)
            raise ValueError(f"metric: expected one of {known}, got {metric!r}")
        return _gains(self.ranks, name, int(cutoff))


@typed()
@plain_torch()
def evaluate(
    model: Backbone,
    tasks: EvaluationSet,
    *,
    popularity: npt.NDArray[np.int64] | None = None,
    spread: bool = True,
    batch_size: int = 8192,
    table: ops.ItemTable | None = None,
    runtime: Runtime = RUNTIME,
) -> Evaluation:
    """Rank the whole catalogue for every task.

    Items of the (untruncated) history are not ranked, and a target among them is a miss, unless ``tasks.repeats`` says
    otherwise. Ties: lower id first.

    Parameters
    ----------
    model : Backbone
    tasks : EvaluationSet
    popularity : (N + 1,) int, optional
        Popularity of each item id, for popularity@10; usually how often it occurs in the training data.
    spread : bool, default True
        Whether to find out what everybody's first places hold, for coverage@10 and popularity@10. Without, only the
        places of the targets are counted, and the other metrics come out the same in less than half the time.
    batch_size : int, default 8192
        Tasks at a time; bounds memory and changes no bit of the result.
    table : ItemTable, optional
        The model's items where they are packed already, or are to be of half precision
        (:func:`rsir.models.pack_items`), or to be scored by a backend of choice; default: packed here.
    runtime : Runtime, optional
        Threads of the ranking, and the processes that divide the tasks.

    Returns
    -------
    Evaluation

    Raises
    ------
    DataError
        No task, or an item or target outside the model's catalogue.
    """
    require(model, Backbone)
    if len(tasks) == 0:
        raise DataError("nothing to evaluate: the evaluation set has no task")
    _check_ids("history", tasks.histories.values, model.num_items)
    _check_ids("target", tasks.targets, model.num_items)
    if popularity is not None and popularity.shape != (model.num_items + 1,):
        raise DataError(f"popularity: expected ({model.num_items + 1},), one an id, got {popularity.shape}")
    world, threads = runtime.world, runtime.threads
    table = pack_items(model, table, world=world)
    ranks = np.zeros(len(tasks), np.int64)
    seen = np.zeros(model.num_items + 1, bool)
    places, popular = 0, 0
    excluding = tasks.repeats != "included"
    known = tasks.known() if tasks.repeats == "excluded" and not spread else None  # misses
    parts = world.parts(len(tasks), _positive("batch_size", batch_size), _FEWEST)
    for number in world.claims(len(parts)):
        memory.release()
        first, last = parts[number].start, parts[number].stop
        histories, targets = tasks.histories.rows(first, last), tasks.targets[first:last]
        queries, added = encode_sequences(model, histories), added_scores(model, histories)
        history = None
        if excluding:
            left = histories
            if tasks.repeats == "targets":
                left = left.where(left.values != np.repeat(targets, left.lengths))
            history = ops.Ragged.from_numpy(left.values, left.offsets, queries.device)
        if not spread:
            target = torch.tensor(targets, dtype=torch.int64, device=queries.device)
            place = ops.place_within(
                queries, table, target, max(CUTOFFS), excluded=history, added=added, threads=threads
            )
            found = torch.where(place > max(CUTOFFS), 0, place).cpu().numpy()
            ranks[first:last] = found if known is None else np.where(known[first:last], 0, found)
            continue
        best = ops.topk(queries, table, max(CUTOFFS), excluded=history, added=added, threads=threads)
        ids = best.ids.cpu().numpy()
        hit = ids == targets[:, None]
        ranks[first:last] = np.where(hit.any(1), hit.argmax(1) + 1, 0)
        shown = ids[:, :SPREAD_CUTOFF]
        shown = shown[shown > 0]
        seen[shown] = True
        places += shown.size
        popular += 0 if popularity is None else int(popularity[shown].sum())
    sums = torch.from_numpy(np.concatenate([ranks, seen, [places, popular]]))  # int64: sums are exact
    world.all_reduce(sums)
    ranks, seen, (places, popular) = np.split(sums.numpy(), [len(tasks), len(tasks) + len(seen)])
    metrics = {f"{name}@{k}": float(_gains(ranks, name, k).mean()) for k in CUTOFFS for name in _RANKED}
    if spread:
        metrics[f"coverage@{SPREAD_CUTOFF}"] = float((seen[1:] > 0).mean())
    if spread and popularity is not None:
        metrics[f"popularity@{SPREAD_CUTOFF}"] = int(popular) / int(places) if places else math.nan
    return Evaluation(metrics, ranks)


@typed()
@plain_torch()
def recommend(
    model: Backbone,
    histories: Ragged,
    k: int = 10,
    *,
    exclude_history: bool = True,
    table: ops.ItemTable | None = None,
    backend: str = "auto",
    threads: int | None = None,
) -> ops.TopK:
    """The k items a model expects next.

    Parameters
    ----------
    model : Backbone
    histories : Ragged
        Item ids 1..N (nnz,) of any integer type, oldest first; none is empty. :class:`~rsir.data.ragged.Timed` ones for
        a model that uses times.
    k : int, default 10
    exclude_history : bool, default True
        Do not recommend what the user had already.
    table : ItemTable, optional
        As for :func:`evaluate`.
    backend, threads
        As for :func:`rsir.ops.topk`.

    Returns
    -------
    TopK
        ids (n, k) int64, best first, and their scores (n, k) float32; 0 and -inf where no item is left.

    Raises
    ------
    ValueError
        An empty history, or an id that the model does not know.
    """
    require(model, Backbone)
    _check_ids("history", histories.values, model.num_items)
    histories = replace(histories, values=histories.values.astype(np.int32, copy=False))
    queries = encode_sequences(model, histories)
    excluded = None
    if exclude_history:
        excluded = ops.Ragged.from_numpy(histories.values, histories.offsets, queries.device)
    table = pack_items(model, table, backend=backend)
    added = added_scores(model, histories)
    return ops.topk(queries, table, k, excluded=excluded, added=added, threads=threads)


def by_thirds(found: Evaluation, values: npt.NDArray[np.integer]) -> list[dict[str, float]]:
    """The headline metrics of tasks in thirds.

    Parameters
    ----------
    found : Evaluation
    values : (n,) int
        What the tasks are ordered by, one a task; equal values are in one group, so that groups may differ in size.

    Returns
    -------
    list of dict
        "least" and "most" value, number of "tasks", and metrics by name; groups without a task are omitted.
    """
    group = np.searchsorted(np.quantile(values, [1 / 3, 2 / 3], method="lower"), values)
    metrics = [metric for part, metric in HEADLINE if part == "test"]
    gains = {metric: found.gains(metric) for metric in metrics}
    thirds = [np.flatnonzero(group == number) for number in range(3)]
    return [
        {
            "least": int(values[tasks].min()),
            "most": int(values[tasks].max()),
            "tasks": len(tasks),
            **{metric: float(gains[metric][tasks].mean()) for metric in metrics},
        }
        for tasks in thirds
        if len(tasks)
    ]


@dataclass(frozen=True)
class PairedTest:
    """Whether one model is better than another on the same tasks.

    Attributes
    ----------
    difference : float
        Mean gain of the second over the first.
    low, high : float
        95% interval of the difference, from the normal approximation.
    p_value : float
        Two-sided, of a permutation test that swaps the models at random for each task.
    """

    difference: float
    low: float
    high: float
    p_value: float


def paired_test(
    first: npt.ArrayLike, second: npt.ArrayLike, *, permutations: int = 10_000, seed: int = 0
) -> PairedTest:
    """Compare the gains of two models task by task.

    Parameters
    ----------
    first, second : (n,) float
        From :meth:`Evaluation.gains`, of the same evaluation set; n at least 2.
    permutations : int, default 10,000
        The smallest p-value is one in this number.
    seed : int, default 0
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.ndim != 1 or a.shape != b.shape or a.size < 2:
        raise ValueError(f"expected two arrays of the same tasks, at least 2, got shapes {a.shape} and {b.shape}")
    difference = b - a
    mean, low, high = mean_interval(difference)
    # A task with equal gains adds nothing however it is swapped.
    unequal = difference[difference != 0]
    generator = np.random.default_rng(seed)
    observed = abs(unequal.sum()) * (1 - 1e-12)
    extreme, drawn = 0, 0
    rows = max(1, 4_000_000 // max(unequal.size, 1))
    while drawn < _positive("permutations", permutations):
        count = min(rows, permutations - drawn)
        signs = generator.integers(0, 2, (count, unequal.size), np.int8) * 2.0 - 1.0
        extreme += int((np.abs(signs @ unequal) >= observed).sum())
        drawn += count
    return PairedTest(mean, low, high, (extreme + 1) / (permutations + 1))


def mean_interval(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean of (n,) values and the ends of its 95% interval, from the normal approximation; of one value: no bounds."""
    mean = float(values.mean())
    margin = _NORMAL_95 * float(values.std(ddof=1)) / math.sqrt(values.size) if values.size > 1 else math.inf
    return mean, mean - margin, mean + margin


def difference_beyond_seeds(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], noise: float
) -> tuple[float, float, float]:
    """By how much a second training is better than a first, with a 95% interval that covers what a seed changes.

    Two trainings that differ by their seed alone are different models, which enough tasks tell apart. So the interval
    of :func:`paired_test`, which is about these tasks, is widened by the spread between seeds: independent trainings,
    each with a standard deviation of ``noise`` times the first one's mean gain.

    Parameters
    ----------
    first, second : (n,) float
        From :meth:`Evaluation.gains`, of the same tasks.
    noise : float
    """
    mean, low, _ = mean_interval(second - first)
    margin = math.hypot(mean - low, _NORMAL_95 * math.sqrt(2) * noise * float(first.mean()))
    return mean, mean - margin, mean + margin


def _gains(ranks: npt.NDArray[np.int64], name: str, cutoff: int) -> npt.NDArray[np.float64]:
    """Gain of a rank under a metric; rank 0 is beyond every cutoff."""
    by_rank = np.zeros(max(CUTOFFS) + 1)
    within = np.arange(1, cutoff + 1)
    by_rank[1 : cutoff + 1] = {"recall": within**0, "ndcg": 1 / np.log2(within + 1), "mrr": 1 / within}[name]
    return by_rank[ranks]


def _check_ids(what: str, ids: npt.NDArray[np.integer], num_items: int) -> None:
    low, high = extent(ids) if ids.size else (1, 1)
    if low < 1 or high > num_items:
        raise DataError(f"{what}: expected item ids in 1..{num_items}, got ids from {low} to {high}")


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ConfigError(f"{name}: expected at least 1, got {value}")
    return value
