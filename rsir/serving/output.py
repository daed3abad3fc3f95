"""Recommendations as lists of names, as a table, and as files of Parquet, CSV or JSON lines."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from rsir import files
from rsir.data.io.columnar import SUFFIXES as PARQUET
from rsir.data.io.events import Histories
from rsir.data.splits import Repeats
from rsir.errors import DataError
from rsir.runtime.progress import Progress, silent
from rsir.serving.recommender import EVERYTHING, Best, Offer, Recommender, check_request

__all__ = ["SUFFIXES", "Recommendations", "check_name", "left_out", "write"]

SUFFIXES = (*PARQUET, ".csv", ".jsonl")


class Recommendations(list[list[Any]]):
    """A list of item names for each history, best first, with their scores and how they were found.

    Attributes
    ----------
    users : pyarrow array or None
        Whom each list is for; None where histories were given.
    scores : list of lists of float
        The model's score of each item, or how often it occurs in the data where ``by`` is "popularity".
    by : list of {"model", "popularity"}
        What recommends: the most popular items stand in where nothing is known of a history.
    unknown_items : int
        Items of the histories that are not in the catalogue, and were skipped.
    titles : list of lists of str, or None
        The title of each item; None where the run has none.
    """

    def __init__(
        self,
        lists: list[list[Any]],
        scores: list[list[float]],
        by: list[str],
        users: pa.Array | None,
        names: pa.DataType,
        unknown_items: int,
        titles: list[list[Any]] | None = None,
    ) -> None:
        super().__init__(lists)
        self.scores, self.by, self.users, self.unknown_items = scores, by, users, unknown_items
        self._names, self.titles = names, titles

    def table(self) -> pa.Table:
        """One recommendation a row: ``user_id`` (or ``history``, from 0), ``item_id``, ``rank``, ``score``, ``by``, and
        ``title`` where the run has titles."""
        lengths = [len(row) for row in self]
        users = pa.array(np.arange(len(self))) if self.users is None else self.users
        rows = pa.array(np.repeat(np.arange(len(self)), lengths))
        titles = [one for row in self.titles or () for one in row]
        titled = {} if self.titles is None else {"title": pa.array(titles, pa.string())}
        return pa.table(
            {
                "history" if self.users is None else "user_id": users.take(rows),
                "item_id": pa.array([item for row in self for item in row], self._names),
                "rank": pa.array([rank for n in lengths for rank in range(1, n + 1)], pa.int32()),
                "score": pa.array([score for row in self.scores for score in row], pa.float32()),
                "by": pa.array(self.by, pa.string()).take(rows),
                **titled,
            }
        )


def recommendations(
    recommender: Recommender,
    histories: Histories,
    k: int,
    *,
    offer: Offer = EVERYTHING,
    repeats: Repeats | None = None,
    named: bool = False,
) -> Recommendations:
    """What is recommended after histories, all in memory; `named` histories are those of users."""
    check_request(k, repeats or recommender.repeats)
    lists: list[list[Any]] = []
    scores: list[list[float]] = []
    by: list[str] = []
    titles: list[list[Any]] | None = None if recommender.titles is None else []
    for _, best in recommender.blocks(histories.lists, k, offer=offer, repeats=repeats):
        found = best.ids > 0
        ends = np.cumsum(found.sum(1))[:-1]
        flat = np.array(recommender.items.of(best.ids[found]).to_pylist(), object)
        lists += [part.tolist() for part in np.split(flat, ends)]
        scores += [part.tolist() for part in np.split(best.scores[found], ends)]
        by += _by(best)
        named_so = recommender.titled(best.ids[found])
        if titles is not None and named_so is not None:
            titles += [part.tolist() for part in np.split(np.array(named_so.to_pylist(), object), ends)]
    users = histories.users if named else None
    kind = recommender.items.labels.type
    return Recommendations(lists, scores, by, users, kind, histories.unknown_events, titles)


def left_out(histories: Histories, offer: Offer) -> list[str]:
    """What to tell of names that are not in the catalogue, a sentence each."""
    told = []
    if histories.unknown_events:
        told.append(
            f"skipped {histories.unknown_events:,} events whose items are not in the catalogue"
            + f"; {histories.unknown_users:,} users have no others" * bool(histories.unknown_users)
        )
    if offer.unknown:
        told.append(f"skipped {offer.unknown:,} candidates that are not in the catalogue")
    return told


def check_name(path: Path) -> None:
    """Refuse a file whose ending is of no format that is written."""
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}")


def write(
    path: str | os.PathLike[str],
    recommender: Recommender,
    histories: Histories,
    k: int = 10,
    *,
    offer: Offer = EVERYTHING,
    repeats: Repeats | None = None,
    progress: Progress = silent,
) -> int:
    """Recommend after every history, and write a file, block by block.

    Memory holds the histories and one block of recommendations, however many users there are. The file appears when it
    is whole. A row is ``user_id``, ``item_id``, ``rank`` (int32 from 1), ``score`` (float32) and ``by``: "model", or
    "popularity" where nothing is known of the history, with the item's count as its score; and ``title`` where the run
    has titles. Users come in the order of the histories, their items best first.

    Parameters
    ----------
    path : path of the file
        Parquet (``.parquet``, ``.pq``), ``.csv`` or JSON lines (``.jsonl``).
    recommender : Recommender
    histories : Histories
        From a :class:`~rsir.serving.recommender.Recommender` or :func:`rsir.data.read_histories`.
    k : int, default 10
    offer : Offer
        From :meth:`~rsir.serving.recommender.Recommender.offer`; default: every item.
    repeats : {"excluded", "included"}, optional
    progress : Progress

    Returns
    -------
    int
        Users who got the most popular items.

    Raises
    ------
    DataError
        k is below 1, or the file ends in something else, or it cannot be written.
    """
    check_request(k, repeats or recommender.repeats)
    path = files.local(path, DataError)
    check_name(path)
    schema = pa.schema(
        {
            "user_id": histories.users.type,
            "item_id": recommender.items.labels.type,
            "rank": pa.int32(),
            "score": pa.float32(),
            "by": pa.string(),
            **({} if recommender.titles is None else {"title": pa.string()}),
        }
    )
    popular = 0
    with files.replacing(path, DataError) as temporary, _writer(path, temporary, schema) as add:
        for first, best in recommender.blocks(histories.lists, k, offer=offer, repeats=repeats):
            found = best.ids > 0
            rows = np.repeat(np.arange(len(best.ids)), found.sum(1))
            ranks = np.broadcast_to(np.arange(1, found.shape[1] + 1, dtype=np.int32), found.shape)
            columns = [
                histories.users.take(pa.array(first + rows)),
                recommender.items.of(best.ids[found]),
                pa.array(ranks[found]),
                pa.array(best.scores[found]),
                pa.array(_by(best), pa.string()).take(pa.array(rows)),
            ]
            titles = recommender.titled(best.ids[found])
            columns += [] if titles is None else [titles]
            add(pa.record_batch(columns, schema=schema))
            popular += int(best.popular.sum())
            progress("recommend", first + len(best.ids), len(histories.users), "users")
    return popular


def _by(best: Best) -> list[str]:
    popular: npt.NDArray[np.bool_] = best.popular
    return ["popularity" if one else "model" for one in popular.tolist()]


@contextmanager
def _writer(path: Path, temporary: Path, schema: pa.Schema) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """What writes a block of a file of the path's format."""
    suffix = path.suffix.lower()
    if suffix in PARQUET:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as parquet:
            yield parquet.write_batch
    elif suffix == ".csv":
        with arrow_csv.CSVWriter(str(temporary), schema) as csv:
            yield csv.write_batch
    else:
        with open(temporary, "w", encoding="utf-8") as lines:

            def add(batch: pa.RecordBatch) -> None:
                lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist())

            yield add
