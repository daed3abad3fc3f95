"""Vectors of items and users as Parquet, for databases and indexes that search by the inner product."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rsir import files
from rsir.errors import ExportError
from rsir.models.encoding import encode_sequences
from rsir.models.itemknn import network_of

if TYPE_CHECKING:
    from rsir.runs.results import Run

__all__ = ["write_vectors"]

_BLOCK = 8192  # users at a time


def write_vectors(run: Run, path: str | os.PathLike[str], of: Literal["items", "users"]) -> int:
    """Write the vectors of a run's best round: the inner product of a user's and an item's is the model's logit.

    A row is ``id`` (int64, from 1), ``label`` (the outside name), ``vector`` (float32, one length) and, of items,
    ``title`` where the run has titles. Users are encoded after all that they have in the run's data; those without an
    event are left out.

    Parameters
    ----------
    run : Run
    path : path of the file
        Ends in ``.parquet``.
    of : {"items", "users"}

    Returns
    -------
    int
        Rows.

    Raises
    ------
    ExportError
        The name ends otherwise, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".parquet":
        raise ExportError(f"{path}: vectors are written as Parquet, expected a name that ends in .parquet")
    network, recommender = network_of(run.model), run.recommender()
    width = int(network.item_embeddings().shape[1])
    names = recommender.items if of == "items" else recommender.users
    schema = {"id": pa.int64(), "label": names.labels.type, "vector": pa.list_(pa.float32(), width)}
    titled = of == "items" and recommender.titles is not None
    fields = pa.schema({**schema, **({"title": pa.string()} if titled else {})})
    rows = 0
    with (
        files.replacing(path, ExportError) as temporary,
        pq.ParquetWriter(temporary, fields, compression="zstd") as file,
    ):

        def add(ids: np.ndarray, vectors: np.ndarray) -> None:
            nonlocal rows
            flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
            columns = [pa.array(ids), names.of(ids), pa.FixedSizeListArray.from_arrays(flat, width)]
            titles = recommender.titled(ids) if titled else None
            file.write_batch(pa.record_batch([*columns, *([] if titles is None else [titles])], schema=fields))
            rows += len(ids)

        if of == "items":
            add(np.arange(1, names.size + 1), network.item_embeddings().detach().cpu().numpy()[1:])
        else:
            lists = recommender.histories_of().lists
            filled = np.flatnonzero(lists.lengths)
            for first in range(0, len(filled), _BLOCK):
                some = filled[first : first + _BLOCK]
                own = type(lists).windows(lists.values, lists.offsets[some], lists.lengths[some])
                add(some + 1, encode_sequences(network, own).detach().cpu().numpy())
    return rows
