"""Generation over object storage by a Ray cluster: of every file of sources, a file of trajectories.

Ray Data hands the files to workers and has another one do what a lost one had. Paths are those of fsspec, such as
``s3://bucket/folder``, or folders that all machines see. Needs ``rsir[ray]``, and fsspec's package for the storage.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rsir import __version__, files
from rsir.config import FidelityConfig, GenerationConfig, RecursionConfig
from rsir.data.sequences import Sequences
from rsir.errors import ConfigError, DataError
from rsir.generation.enrich import Enricher
from rsir.models import checkpoint
from rsir.runtime.runtime import Runtime

__all__ = ["gather", "generate", "scatter"]


def scatter(data: Sequences, folder: str, rows: int = 100_000) -> int:
    """Write the real sequences as files for :func:`generate`: ``part-000000.parquet`` and so on.

    Parameters
    ----------
    data : Sequences
    folder : str
        fsspec path; files that are there and are not of this data must be removed before.
    rows : int, default 100,000
        Sequences in a file, which is what a worker has in memory at a time and what is lost with it.

    Returns
    -------
    int
        The number of files.

    Raises
    ------
    DataError
        ``rows`` is below 1, or the disk refuses.

    Notes
    -----
    Files of one's own making need two columns: ``source``, int64, a number that no other sequence has, and ``items``,
    a list of int32. Trajectories come back in the order of ``source``.
    """
    if rows < 1:
        raise DataError(f"rows: expected at least 1, got {rows}")
    starts = range(0, data.num_real, rows)
    for number, first in enumerate(starts):
        last = min(first + rows, data.num_real)
        begin, end = data.offsets[first], data.offsets[last]
        lists = pa.ListArray.from_arrays(
            pa.array((data.offsets[first : last + 1] - begin).astype(np.int32)), pa.array(data.items[begin:end])
        )
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"source": pa.array(np.arange(first, last)), "items": lists}), sink)
        _put(f"{folder}/part-{number:06d}.parquet", sink.getvalue().to_pybytes())
    return len(starts)


def generate(
    model: str,
    sources: str,
    out: str,
    *,
    generation: GenerationConfig | None = None,
    fidelity: FidelityConfig | None = None,
    item_table: Literal["float32", "float16"] = "float32",
    seed: int = 0,
    round_: int = 1,
    workers: int = 2,
    threads: int = 1,
) -> dict[str, int]:
    """Generate from every Parquet file of a folder into a file of the same name in another one.

    What a file holds depends on its sources, the model and the settings alone: not on the workers, and not on how the
    sources are divided among files. A file that is there, whole, and of the same sources, model and settings is kept;
    one that is missing or damaged is made again. So a job that was ended is resumed by starting it again.

    Parameters
    ----------
    model : str
        Folder of a checkpoint (a run's ``round-NN``), fsspec path.
    sources, out : str
        Folders, fsspec paths; the first one as :func:`scatter` writes it. Besides each file of trajectories, a
        :class:`rsir.data.Sequences`, a JSON of the same name has its counts and checksum.
    generation : GenerationConfig, default: its defaults
    fidelity : FidelityConfig, default: its defaults
    item_table : {"float32", "float16"}
        As of :class:`rsir.config.RecursionConfig`.
    seed : int, default 0
    round_ : int, default 1
        As of :func:`rsir.generation.generate.generate`.
    workers : int, default 2
        How many files are worked on at a time; each worker has the model in memory.
    threads : int, default 1
        CPUs of each worker.

    Returns
    -------
    dict of str to int
        ``files``; ``kept``, those of them that were there already; ``trajectories``; and the counts of
        :class:`rsir.generation.stats.GenerationStats`, added up.

    Raises
    ------
    ConfigError
        Ray is not installed, or another ``item_table``.
    DataError
        No files of sources, or one that cannot be used; the others have been made. Or ``out`` holds trajectories of a
        file that is not among the sources: nothing has been made then.
    """
    item_table = RecursionConfig(item_table=item_table).item_table  # refuses others
    try:
        import ray.data
    except ImportError as cause:
        raise ConfigError(f"ray: is not installed ({cause}); pip install 'rsir[ray]'") from cause
    names = _names(sources)
    if stale := sorted(set(_listed(out)) - set(names)):
        raise DataError(
            f"{out}/{stale[0]}: expected trajectories of the files in {sources} alone, and there is no such file among "
            f"those ({len(stale)} in all); remove it, or choose another folder"
        )
    task = {
        "model": model,
        "sources": sources,
        "out": out,
        "generation": generation or GenerationConfig(),
        "fidelity": fidelity or FidelityConfig(),
        "item_table": item_table,
        "seed": seed,
        "round_": round_,
        "threads": threads,
    }
    work = ray.data.from_items([{"name": name} for name in names], override_num_blocks=len(names)).map(
        _Worker, fn_constructor_kwargs=task, num_cpus=threads, compute=ray.data.ActorPoolStrategy(size=workers)
    )
    total: Counter[str] = Counter()
    for made in work.take_all():
        if made["error"]:
            raise DataError(made["error"])
        total.update(json.loads(made["counts"]))
    return dict(total)


def gather(folder: str, data: Sequences) -> Sequences:
    """All trajectories that :func:`generate` wrote to a folder, in the order of one process.

    Parameters
    ----------
    folder : str
        fsspec path.
    data : Sequences
        What :func:`scatter` was given; join the two with :meth:`rsir.data.Sequences.concat`.

    Returns
    -------
    Sequences
        Generated rows alone, with the labels of ``data``.

    Raises
    ------
    DataError
        No files, or a damaged one; or two with trajectories of one source, or of one that is not in the data.
    """
    parts: list[Sequences] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in _names(folder):
            copy = Path(scratch) / name
            copy.write_bytes(_get(f"{folder}/{name}"))
            parts.append(Sequences.load(copy))
            copy.unlink()
    _check_sources(parts, _names(folder), data.num_real)
    found = Sequences.concat(*parts)
    found = found.select(np.argsort(found.source, kind="stable"))
    return Sequences(
        items=found.items,
        offsets=found.offsets,
        num_items=found.num_items,
        source=found.source,
        round=found.round,
        item_labels=data.item_labels,
        user_labels=data.user_labels,
    )


def _check_sources(parts: list[Sequences], names: list[str], count: int) -> None:
    """DataError unless each file has trajectories of sequences that there are, and that no other file has."""
    own = [np.unique(part.source) for part in parts]
    sources, file = np.concatenate(own), np.repeat(np.arange(len(own)), [len(each) for each in own])
    order = np.argsort(sources, kind="stable")
    sources, file = sources[order], file[order]
    if len(sources) and sources[-1] >= count:
        raise DataError(
            f"{names[file[-1]]}: has trajectories of sequence {sources[-1]}, and the data have {count}; remove the file"
        )
    for place in np.flatnonzero(sources[1:] == sources[:-1])[:1]:
        raise DataError(
            f"{names[file[place + 1]]}: has trajectories of sequence {sources[place]}, as {names[file[place]]} has; "
            "remove the one whose file of sources is gone"
        )


class _Worker:
    """Makes one file after the other, with the model in memory."""

    def __init__(
        self,
        model: str,
        sources: str,
        out: str,
        generation: GenerationConfig,
        fidelity: FidelityConfig,
        item_table: Literal["float32", "float16"],
        seed: int,
        round_: int,
        threads: int,
    ) -> None:
        self.sources, self.out = sources, out
        files = {name: _get(f"{model}/{name}") for name in (checkpoint.WEIGHTS, checkpoint.CARD)}
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            loaded: Any = checkpoint.load(folder)
        enricher = Enricher(generation, fidelity, item_table=item_table, seed=seed, runtime=Runtime(threads=threads))
        self.bound = enricher.bind(loaded, round_)
        self.made_from = {
            "rsir": __version__,
            "model": [_sha256(content) for content in files.values()],
            "generation": asdict(generation),
            "fidelity": asdict(fidelity),
            "item_table": item_table,
            "seed": seed,
            "round": round_,
        }

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        """The counts of a file, or why it cannot be made."""
        try:
            return {"counts": json.dumps(self._make(row["name"])), "error": ""}
        except ValueError as cause:
            return {"counts": "", "error": f"{self.sources}/{row['name']}: {cause}"}

    def _make(self, name: str) -> dict[str, int]:
        content = _get(f"{self.sources}/{name}")
        made_from = files.checksum({**self.made_from, "sources": _sha256(content)})
        target, card = f"{self.out}/{name}", f"{self.out}/{Path(name).stem}.json"
        try:
            known = json.loads(_get(card))
            if known["made_from"] == made_from and known["sha256"] == _sha256(_get(target)):
                return {**known["counts"], "kept": 1}
        except (OSError, ValueError, KeyError, TypeError):
            pass  # not there, or damaged
        numbers, sources = _sources(content, self.bound.model.num_items)
        found = self.bound.generate(sources, numbers=numbers)
        own = found.trajectories
        trajectories = Sequences(
            items=own.items,
            offsets=own.offsets,
            num_items=own.num_items,
            source=numbers[own.source],
            round=own.round,
        ).to_bytes()
        counts = asdict(found.stats) | {"files": 1, "kept": 0, "trajectories": len(own)}
        _put(target, trajectories)
        _put(card, files.to_json({"made_from": made_from, "sha256": _sha256(trajectories), "counts": counts}))
        return counts


def _sources(content: bytes, num_items: int) -> tuple[np.ndarray, Sequences]:
    """What the rows of a file are called, and the rows."""
    try:
        table = pq.read_table(pa.BufferReader(content), columns=["source", "items"]).combine_chunks()
        numbers = table["source"].cast(pa.int64()).to_numpy()
        lists = pa.concat_arrays(table["items"].cast(pa.large_list(pa.int32())).chunks)
    except (pa.ArrowException, OSError, ValueError) as cause:
        raise DataError(f"expected Parquet with the columns source and items: {cause}") from cause
    if table["source"].null_count or lists.null_count or lists.values.null_count:
        raise DataError("expected no nulls in source and items")
    offsets = lists.offsets.to_numpy()
    items = lists.values.to_numpy()[offsets[0] : offsets[-1]]
    return numbers, Sequences(items=items, offsets=offsets - offsets[0], num_items=num_items)


def _names(folder: str) -> list[str]:
    names = _listed(folder)
    if not names:
        raise DataError(f"{folder}: expected files NAME.parquet, found none")
    return names


def _listed(folder: str) -> list[str]:
    system, path = _storage(folder)
    try:
        return sorted(Path(found).name for found in system.ls(path, detail=False) if found.endswith(".parquet"))
    except FileNotFoundError:
        return []


def _get(path: str) -> bytes:
    system, path = _storage(path)
    content: bytes = system.cat_file(path)
    return content


def _put(path: str, content: bytes) -> None:
    """Write a file, whole or not at all, as object storage does."""
    system, path = _storage(path)
    if "file" in system.protocol:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        files.replace(Path(path), content, DataError)
    else:
        system.pipe_file(path, content)


def _storage(path: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as cause:
        raise ConfigError(f"fsspec: is not installed ({cause}); pip install 'rsir[ray]'") from cause
    system, path = url_to_fs(path)
    return system, path


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
