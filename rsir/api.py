"""What Python users call first: a run, and the evaluation of a model, on data in any form.

:mod:`rsir` hands these on as ``rsir.run`` and ``rsir.evaluate``.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from rsir import evaluation
from rsir.config import DataConfig, RecursionConfig
from rsir.config.arguments import typed
from rsir.config.changes import with_settings
from rsir.data import EvaluationSet, Sequences, from_frame, leave_one_out, read
from rsir.data.alignment import align, check_catalogue
from rsir.data.load import split
from rsir.data.sequences import item_popularity
from rsir.errors import ConfigError, DataError
from rsir.models.protocol import Backbone, check_backbone
from rsir.models.times import uses_times
from rsir.objects.address import Address, place
from rsir.recursion.loop import recurse
from rsir.runs.directory import RunDirectory
from rsir.runs.inputs import read_data
from rsir.runs.layout import DATA
from rsir.runs.results import Run
from rsir.runs.rounds import RoundResult
from rsir.runtime.environment import check_device
from rsir.runtime.progress import Progress, silent
from rsir.runtime.runtime import Runtime

__all__ = ["evaluate", "run"]


@typed(unchecked=("config",))
def run(
    config: RecursionConfig | None = None,
    *,
    data: Any = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = silent,
    on_round: Callable[[RoundResult], None] | None = None,
    **settings: Any,
) -> Run:
    """Let a recommender improve itself: train, generate, verify, train the successor, and again.

    ``rsir.run(data=frame, rounds=2)`` is enough.

    Parameters
    ----------
    config : RecursionConfig, optional
        Default: the defaults; with ``resume``, the settings of the run in ``out``.
    data : path, data frame, list of lists, Sequences or DataConfig, optional
        What to learn from: a file or folder in any format of :func:`rsir.read`; a frame of events as for
        :func:`rsir.from_frame`; lists of items, one a user, oldest first, items being integers or strings;
        or sequences that are read already. A DataConfig names a file with the options of reading it. Default: the
        embedded simulated users; with ``resume``, the data of the run in ``out``.
    out : path, optional
        Folder of the run, or an address such as ``s3://bucket/run``; :func:`rsir.load` brings the run back from it.
        Without one nothing is written.
    resume : bool, default False
        Resume the run in ``out`` after its last finished round; the result is what it would have been without the
        interruption. ``rounds`` may be larger than before.
    device : str, default "cpu"
        "cpu" or "cuda".
    threads : int, optional
        CPU threads of the scoring ops; default: torch's number.
    progress : Progress, optional
        Called as the work proceeds (:mod:`rsir.runtime.progress`).
    on_round : callable, optional
        Called with each finished round's :class:`rsir.runs.rounds.RoundResult`.
    **settings
        Changes to ``config`` by the names of :class:`rsir.RecursionConfig`: ``rounds=3``; of a section as a mapping of
        what changes, ``generation={"m": 5}``, or as its dataclass, ``generation=rsir.GenerationConfig(m=5)``; with a
        dotted name, ``**{"data.k_core": 5}``, as ``data`` is taken here. ``model="gru4rec"`` names a backbone.

    Returns
    -------
    Run
        Its rounds, the model of the best one, and ``recommend``.

    Raises
    ------
    RsirError
        Settings or data that cannot be used; nothing has been written then. Or a training that diverged.
    """
    if resume and out is None:
        raise ConfigError("resume: needs out, the folder of the run to resume, got none")
    if config is None:
        config = RunDirectory.open(out).config if resume and out is not None else RecursionConfig()
    elif not isinstance(config, RecursionConfig):
        raise ConfigError(f"config: expected a RecursionConfig, got {type(config).__name__}; data go in as data=...")
    if isinstance(data, DataConfig):
        settings, data = {**settings, "data": data}, None
    elif isinstance(data, (str, os.PathLike)):
        settings, data = {**settings, "data.path": os.fspath(data)}, None
    config = with_settings(config, settings)
    check_device(device, f"device={device!r}")
    return recurse(
        config,
        data=_real_sequences(data, config, place(out) if resume and out is not None else None),
        out=out if out is None else place(out),
        resume=resume,
        runtime=Runtime(device=device, threads=threads, progress=progress),
        on_round=on_round,
    )


@typed()
def evaluate(
    model: Backbone | Run,
    data: Any = None,
    *,
    part: Literal["validation", "test"] = "test",
    threads: int | None = None,
) -> evaluation.Evaluation:
    """How well a run's best model, or a model of one's own, ranks what users took next.

    The whole catalogue is ranked for every user, without the items in the user's history, unless the data's setting
    ``repeats`` is "included". :func:`rsir.evaluation.evaluate` has further options.

    Parameters
    ----------
    model : Run or Backbone
        A run's best model, or anything that offers ``num_items``, ``max_len``, ``encode`` and ``item_embeddings``.
    data : EvaluationSet, Sequences, path, data frame or list of lists, optional
        An :class:`rsir.data.EvaluationSet` is ranked as it is. Sequences are split first: as the run's settings say,
        or, for a model of one's own, leaving out the last items. Data in the other forms of :func:`rsir.run` are for
        a run alone, whose catalogue has names to match them by; of a model of one's own, item id i is the data's.
        Default: the run's own data, which gives the figures of its best round.
    part : "validation" or "test", default "test"
        Which targets of the split.
    threads : int, optional
        CPU threads of the scoring ops; default: torch's number.

    Returns
    -------
    Evaluation
        ``metrics`` by name ("recall@10", "ndcg@20", ...); ``gains`` by user for :func:`rsir.evaluation.paired_test`.

    Raises
    ------
    RsirError
        No data, or data that is not of the model's catalogue.
    """
    if part not in ("validation", "test"):
        raise ConfigError(f"part: expected one of validation, test, got {part!r}")
    if isinstance(model, Run) and model.refitted and data is None:
        raise ConfigError(
            "model: a refit was trained on its run's validation and test events, too, and cannot be measured on them; "
            "evaluate the run, or give data from later"
        )
    if isinstance(model, Run):
        net, table = model.model, model.item_table()
        given = model.data if data is None else data
    else:
        net, table, given = model, None, data
        check_backbone(model)
        if not isinstance(data, EvaluationSet):
            check_catalogue(data, model.num_items, type(model).__name__)
    runtime = Runtime(threads=threads)
    if isinstance(given, EvaluationSet):
        return evaluation.evaluate(net, given, table=table, runtime=runtime)
    if isinstance(model, Run):
        own = _over_catalogue_of(model, given)
        parts = split(own, model.config.data, model.config.seed, timed=uses_times(net))
    else:
        parts = leave_one_out(given, timed=uses_times(net))
    popularity = item_popularity(parts.train)
    return evaluation.evaluate(net, getattr(parts, part), popularity=popularity, table=table, runtime=runtime)


def _real_sequences(data: Any, config: RecursionConfig, resumed: Path | Address | None) -> Sequences | None:
    """Data in any form as sequences; None for what the configuration names."""
    if data is None:
        if resumed is None or config.data.path is not None:
            return None
        if isinstance(resumed, Path) and not (resumed / DATA).exists():
            return None
        directory = RunDirectory.open(resumed)
        return read_data(directory) if (directory.path / DATA).exists() else None
    if isinstance(data, Sequences):
        return data
    if isinstance(data, (list, tuple)):
        return _from_lists(data, config.data)
    return from_frame(data, config.data)


def _from_lists(lists: list[Any] | tuple[Any, ...], config: DataConfig) -> Sequences:
    """Sequences of lists of item labels; users are called by their places in the list, from 0."""
    for user, row in enumerate(lists):
        if isinstance(row, (str, bytes)) or not hasattr(row, "__iter__"):
            raise DataError(f"data: expected a list of items for each user, got {row!r} for user {user}")
    rows = [list(row) for row in lists]
    items = [item for row in rows for item in row]
    if not items:
        raise DataError("data: expected at least one item, got empty lists")
    try:
        column = pa.array(items)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as cause:
        raise DataError(f"data: expected items that are all integers or all strings: {cause}") from cause
    users = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    table = pa.table({"user": users, "item": column})
    return from_frame(table, dataclasses.replace(config, user=None, item=None, time=None, rating=None))


def _over_catalogue_of(run: Run, data: Any) -> Sequences:
    """Data in any form over a run's catalogue."""
    if isinstance(data, (str, os.PathLike)):
        sequences = read(data, dataclasses.replace(run.config.data, path=os.fspath(data)))
    else:
        found = _real_sequences(data, run.config, None)
        assert found is not None  # evaluate has put the run's own in the place of none
        sequences = found
    labels, own = sequences.item_labels, run.data.item_labels
    if own is None or labels is None:
        if own is None and labels is None and sequences.num_items == run.data.num_items:
            return sequences
        raise DataError(
            f"data: items cannot be matched by name: the run has {'no names' if own is None else 'names'} and "
            f"{run.data.num_items} items, the data {'none' if labels is None else 'names'} and {sequences.num_items}"
        )
    return sequences if labels.equals(own) else align(sequences, own, "the run")
