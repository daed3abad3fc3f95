"""``rsir recommend RUN --out FILE``: the best items for every user, written as they are found."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from rsir import files
from rsir.cli.notes import notes
from rsir.cli.parsing import Parser
from rsir.data import Sequences, read_histories
from rsir.data.io.columnar import SUFFIXES
from rsir.data.io.events import Histories
from rsir.data.io.readers import histories_config
from rsir.data.ragged import Ragged, offsets_of
from rsir.errors import DataError
from rsir.runtime.environment import check_device
from rsir.runtime.progress import Progress, silent

if TYPE_CHECKING:
    from rsir.models.protocol import Backbone
    from rsir.ops import ItemTable

__all__ = ["histories_of", "main", "parser", "write"]

BLOCK = 8192
"""Users scored at a time; their recommendations are a row group of the file."""


def parser() -> Parser:
    """The parser of the command."""
    made = Parser("recommend", "Write the best items for every user of a run to a Parquet file.")
    made.add_argument("run", metavar="RUN", type=Path, help="folder of the run; its best round's model recommends")
    made.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        required=True,
        help="Parquet file, a row for each recommendation: user_id, item_id, rank (from 1), score",
    )
    made.add_argument("--k", type=int, default=10, metavar="N", help="items for each user [10]")
    made.add_argument(
        "--histories",
        metavar="FILE",
        type=Path,
        help="what users had, in any format that a run reads; the run's min_rating applies where it has ratings [the "
        "run's own users, held-out events included]",
    )
    for role in ("user", "item", "time"):
        made.add_argument(
            f"--{role}", metavar="COLUMN", help=f"column of the {role}s in FILE [as in the run, or found]"
        )
    made.add_argument(
        "--repeats",
        choices=("excluded", "included"),
        help="whether items that a user had already are recommended [as the run was evaluated: its data.repeats]",
    )
    made.add_argument("--gpu", action="store_true", help="compute on a CUDA device")
    return made


def main(arguments: list[str]) -> int:
    """Run the command; 0 if the file was written."""
    options = parser().parse_args(arguments)
    from rsir.runs.results import load

    device = "cuda" if options.gpu else "cpu"
    check_device(device, "--gpu")
    _check_request(options.out, options.k)
    run = load(options.run, device=device)
    histories = histories_of(run.data)
    if options.histories is not None:
        columns = {role: getattr(options, role) for role in ("user", "item", "time") if getattr(options, role)}
        config = histories_config(options.histories, run.config.data, columns)
        with notes():
            histories = read_histories(options.histories, run.data, config)
    write(
        options.out,
        run.model,
        run.data,
        histories,
        options.k,
        exclude_history=(options.repeats or run.config.data.repeats) == "excluded",
        table=run.item_table(),
    )
    if histories.unknown_events:
        print(
            f"Omitted as their items are not in the catalogue: {histories.unknown_events:,} events, and "
            f"{histories.unknown_users:,} users who have no others",
            file=sys.stderr,
        )
    print(f"{options.out}: the best {options.k} items for {len(histories.users):,} users")
    return 0


def write(
    path: str | os.PathLike[str],
    model: Backbone,
    catalogue: Sequences,
    histories: Histories,
    k: int = 10,
    *,
    exclude_history: bool = True,
    table: ItemTable | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> None:
    """Recommend after every history, and write a Parquet file, row group by row group.

    Memory holds the histories and one block of recommendations, however many users there are. The file appears when it
    is whole. A row is ``user_id``, ``item_id``, ``rank`` (int32 from 1) and ``score`` (float32, the model's);
    users come in the order of the histories, their items best first.

    Parameters
    ----------
    path : path of the file
    model : Backbone
    catalogue : Sequences
        For the items' labels; its own ids if it has none.
    histories : Histories
        From :func:`histories_of` or :func:`rsir.data.read_histories`.
    k : int, default 10
    exclude_history : bool, default True
        Do not recommend what the user had already.
    table : ItemTable, optional
        As for :func:`rsir.evaluation.evaluate`.
    threads : int, optional
        CPU threads of the scoring ops; default: torch's number.
    progress : Progress

    Raises
    ------
    DataError
        k is below 1, or the file does not end in .parquet or .pq, or it cannot be written.
    """
    import pyarrow.parquet as pq

    _check_request(files.local(path, DataError), k)
    labels = catalogue.item_labels
    items = pa.array(np.arange(1, catalogue.num_items + 1)) if labels is None else labels
    schema = pa.schema(
        {"user_id": histories.users.type, "item_id": items.type, "rank": pa.int32(), "score": pa.float32()}
    )
    with (
        files.replacing(files.local(path, DataError), DataError) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as file,
    ):
        for first, ids, scores in _blocks(model, histories, k, exclude_history, table, threads):
            found = ids > 0
            users = pa.array(np.repeat(np.arange(first, first + len(ids)), found.sum(1)))
            ranks = np.broadcast_to(np.arange(1, k + 1, dtype=np.int32), ids.shape)
            columns = [
                histories.users.take(users),
                items.take(pa.array(ids[found] - 1)),
                pa.array(ranks[found]),
                pa.array(scores[found]),
            ]
            file.write_batch(pa.record_batch(columns, schema=schema))
            progress("recommend", first + len(ids), len(histories.users), "users")


def _check_request(path: Path, k: int) -> None:
    if k < 1:
        raise DataError(f"k: expected at least 1, got {k}")
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: expected a file that ends in {' or '.join(SUFFIXES)}, as Parquet is written")


def _blocks(
    model: Backbone, histories: Histories, k: int, exclude: bool, table: ItemTable | None, threads: int | None
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(first history, ids (b, k) int64, scores (b, k) float32) block by block; id 0 where there is no further item."""
    from rsir import ops
    from rsir.models.encoding import added_scores, encode_sequences
    from rsir.models.items import pack_items

    table = pack_items(model, table)
    for first in range(0, len(histories.users), BLOCK):
        block = histories.lists.rows(first, min(first + BLOCK, len(histories.users)))
        queries = encode_sequences(model, block)
        excluded = ops.Ragged.from_numpy(block.values, block.offsets, queries.device) if exclude else None
        added = added_scores(model, block)
        best = ops.topk(queries, table, k, excluded=excluded, added=added, threads=threads)
        yield first, best.ids.cpu().numpy(), best.logits.cpu().numpy()


def histories_of(data: Sequences) -> Histories:
    """The real sequences of a data set as histories; users without items have none."""
    rows = np.flatnonzero((data.lengths > 0) & data.is_real)
    labels = data.user_labels
    users = pa.array(rows + 1) if labels is None else labels.take(pa.array(rows))
    end = data.offsets[data.num_real]
    return Histories(users, Ragged(data.items[:end], offsets_of(data.lengths[rows])))
