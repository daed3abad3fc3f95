"""Public data sets: where they are, under which terms, what their bytes must be, and how to fetch them.

Nothing is fetched unless asked for, and nothing is kept whose SHA-256 is not the one given here. The checksums of
MovieLens are those that TensorFlow Datasets records (``tensorflow_datasets/url_checksums/movielens.txt``); the text
files lie in a git repository at a fixed commit, whose objects they were computed from.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import re
import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from rsir import __version__, files
from rsir.errors import FetchError
from rsir.runtime.progress import Progress, silent

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["DATASETS", "Dataset", "fetch"]

BLOCK = 1 << 18
TIMEOUT = 30.0
"""Seconds without a byte after which a connection is given up."""

EXPANSION = 20
"""A table may be this many times as large as the archive that it comes from; compression alone would allow 1,000."""

_GROUPLENS = """\
MovieLens data of GroupLens Research, University of Minnesota: research use; no redistribution without permission; no
commercial use without permission; publications must acknowledge it. All terms: {readme}
Cite: F. M. Harper, J. A. Konstan. The MovieLens Datasets: History and Context. ACM TiiS 5(4), 2015."""

_S3REC = """\
Prepared by the authors of S3-Rec (CIKM 2020), whose repository states no licence: https://github.com/RUCAIBox/CIKM2020-S3Rec
"""

_AMAZON = (
    _S3REC
    + """\
Made from the Amazon product data of 2014 (https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html).
Cite: J. McAuley, C. Targett, Q. Shi, A. van den Hengel. Image-based Recommendations on Styles and Substitutes.
SIGIR 2015."""
)

_YELP = (
    _S3REC
    + """\
Made from the Yelp Open Dataset, which may be used for academic purposes under Yelp's own terms
(https://www.yelp.com/dataset)."""
)


@dataclass(frozen=True)
class Dataset:
    """A public data set.

    Attributes
    ----------
    url : str
        Address of the file that is fetched.
    size : int
        Size of that file in bytes.
    sha256 : str
        Digest of that file.
    terms : str
        Under which it may be used, and what to cite.
    text : str
        What it holds, in a few words.
    member : str
        The table of events in a zip archive; empty where the file itself is the table.
    separator : str
        Between the fields of that table.
    header : bool
        Whether its first line names columns.
    """

    url: str
    size: int
    sha256: str
    terms: str
    text: str
    member: str = ""
    separator: str = ","
    header: bool = False

    @property
    def suffix(self) -> str:
        """Extension of the file that :func:`fetch` makes."""
        return ".parquet" if self.member else ".txt"


def _movielens(name: str, size: int, sha256: str, text: str, member: str, separator: str, header: bool) -> Dataset:
    base = "https://files.grouplens.org/datasets/movielens/"
    readme = f"{base}{name}-README.{'html' if header else 'txt'}"
    return Dataset(f"{base}{name}.zip", size, sha256, _GROUPLENS.format(readme=readme), text,
                   f"{name}/{member}", separator, header)  # fmt: skip


def _s3rec(name: str, size: int, sha256: str, text: str, terms: str) -> Dataset:
    commit = "2a81540ae18615d88ef88227b0c066e5b74781e5"
    url = f"https://raw.githubusercontent.com/RUCAIBox/CIKM2020-S3Rec/{commit}/data/{name}.txt"
    return Dataset(url, size, sha256, terms, text)


DATASETS = {
    "amazon-beauty": _s3rec(
        "Beauty", 1_090_094, "226cce9c3105299ca0db9615d7d3fb32b3175e90da43100ae352599f0f0107b8",
        "Amazon Beauty 2014, 5-core, without times", _AMAZON,
    ),
    "amazon-sports": _s3rec(
        "Sports_and_Outdoors", 1_707_483, "2a095e0648872beb9982408958290f5d655db5be2911c3756b5446de9f0b8de2",
        "Amazon Sports and Outdoors 2014, 5-core, without times", _AMAZON,
    ),
    "amazon-toys": _s3rec(
        "Toys_and_Games", 922_166, "176c680c688d497598c4a89a03b402c0fe78d795e5db335c2e78dd5f2d778a3f",
        "Amazon Toys and Games 2014, 5-core, without times", _AMAZON,
    ),
    "ml-100k": _movielens(
        "ml-100k", 4_924_029, "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        "MovieLens, 100,000 ratings of 1997 and 1998", "u.data", "\t", False,
    ),
    "ml-1m": _movielens(
        "ml-1m", 5_917_549, "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        "MovieLens, 1 million ratings of 2000 to 2003", "ratings.dat", "::", False,
    ),
    "ml-20m": _movielens(
        "ml-20m", 198_702_078, "96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
        "MovieLens, 20 million ratings of 1995 to 2015", "ratings.csv", ",", True,
    ),
    "ml-25m": _movielens(
        "ml-25m", 261_978_986, "8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
        "MovieLens, 25 million ratings of 1995 to 2019", "ratings.csv", ",", True,
    ),
    "yelp": _s3rec(
        "Yelp", 1_814_224, "724b219106b81dd2349027da997334ddb6da9fe2f152ad6e0d97a93170f7caed",
        "Yelp reviews since 2019, 5-core, without times", _YELP,
    ),
}  # fmt: skip
"""The data sets by name."""


def fetch(name: str, out: str | os.PathLike[str] = "data", url: str | None = None, progress: Progress = silent) -> Path:
    """Fetch a data set into a folder, as a file that :func:`rsir.data.read` reads.

    What has arrived is kept when the connection breaks, and the next call asks for the rest. The file appears whole
    or not at all, and only if size and SHA-256 are those of :data:`DATASETS`. Of an archive one table is read, by its
    name, and written as Parquet with the columns ``user_id``, ``item_id``, ``rating`` and ``timestamp``; nothing else
    of it touches the disk.

    Parameters
    ----------
    name : str
        A key of :data:`DATASETS`.
    out : path of the folder, default "data"
        Made if it is not there.
    url : str, optional
        Another http, https or file address of the same bytes. Default: the data set's own.
    progress : Progress
        Told of the bytes that have arrived.

    Returns
    -------
    Path
        Path of the file; one that was there already is left as it is.

    Raises
    ------
    FetchError
        The name is unknown, the address does not answer, the bytes are not the expected ones, or the disk refuses.
    """
    if name not in DATASETS:
        raise FetchError(f"{name!r}: unknown data set; expected one of {', '.join(DATASETS)}")
    dataset, folder = DATASETS[name], Path(out)
    target = folder / f"{name}{dataset.suffix}"
    if target.exists():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise files.refused(folder, cause, FetchError) from cause
    part = folder / f".{name}.part"
    with _alone(part, name) as file:
        _download(dataset, url or dataset.url, part, file, progress, f"fetch {name}")
        with files.replacing(target, FetchError) as temporary:
            if dataset.member:
                _convert(dataset, part, temporary)
            else:
                shutil.copyfile(part, temporary)
        part.unlink()
    return target


@contextmanager
def _alone(part: Path, name: str) -> Iterator[FileIO]:
    """The file of what has arrived so far, to append to; FetchError while another process has it."""
    try:
        with part.open("ab", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file
    except BlockingIOError as cause:
        raise FetchError(f"{part}: another process is fetching {name}; wait for it to end") from cause
    except OSError as cause:
        raise files.refused(part, cause, FetchError) from cause


def _download(dataset: Dataset, url: str, part: Path, file: FileIO, progress: Progress, phase: str) -> None:
    """Append what is missing, then compare size and SHA-256; a file that fails is removed."""
    if file.tell() > dataset.size:
        _restart(file)
    if file.tell() < dataset.size:
        _receive(dataset, url, file, progress, phase)
    os.fsync(file.fileno())
    sha256 = hashlib.sha256()
    with part.open("rb") as whole:
        while block := whole.read(BLOCK):
            sha256.update(block)
    if sha256.hexdigest() != dataset.sha256:
        part.unlink()
        raise FetchError(
            f"{url}: expected SHA-256 {dataset.sha256}, got {sha256.hexdigest()}; nothing was kept. The file there has "
            "changed or was damaged on the way: fetch it again, or from another address (--url)"
        )


def _receive(dataset: Dataset, url: str, file: FileIO, progress: Progress, phase: str) -> None:
    if not re.match("(https?|file)://", url):
        raise FetchError(f"{url}: expected an address that begins with https://, http:// or file://")
    had = file.tell()
    request = urllib.request.Request(url, headers={"User-Agent": f"rsir/{__version__}"})
    if had:
        request.add_header("Range", f"bytes={had}-")
    again = "; the same command asks for what is missing"
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            if had and not _continues(response, had):
                _restart(file)
            while block := response.read(BLOCK):
                if file.tell() + len(block) > dataset.size:
                    _restart(file)
                    raise FetchError(
                        f"{url}: expected {dataset.size:,} bytes, got more; nothing was kept. The file there has "
                        "changed: fetch it from another address (--url)"
                    )
                _append(file, block)
                progress(phase, file.tell(), dataset.size, "bytes")
    except urllib.error.HTTPError as cause:
        cause.close()  # it is the answer, too
        if cause.code == 416:  # there is no such rest: the next attempt begins anew
            _restart(file)
        raise FetchError(f"{url}: the server answered {cause.code} {cause.reason}; try later, or --url") from cause
    except (urllib.error.URLError, http.client.HTTPException, OSError) as cause:
        reason = getattr(cause, "reason", None) or cause
        raise FetchError(f"{url}: cannot be fetched: {reason}; is there a network?{again[1:]}") from cause
    if file.tell() < dataset.size:
        raise FetchError(f"{url}: ended after {file.tell():,} of {dataset.size:,} bytes{again}")


def _continues(response: object, start: int) -> bool:
    """Whether an answer to a request for the rest is the rest, and not the whole file once more."""
    headers = getattr(response, "headers", {})
    return getattr(response, "status", None) == 206 and str(headers.get("Content-Range", "")).startswith(
        f"bytes {start}-"
    )


def _append(file: FileIO, block: bytes) -> None:
    left = memoryview(block)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as cause:  # told apart from the network's
        raise files.refused(Path(str(file.name)), cause, FetchError) from cause


def _restart(file: FileIO) -> None:
    file.seek(0)
    file.truncate()


def _convert(dataset: Dataset, archive: Path, target: Path) -> None:
    """The table of events in an archive, as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    limit = EXPANSION * dataset.size
    try:
        with zipfile.ZipFile(archive) as opened:
            entry = opened.getinfo(dataset.member)
            if entry.file_size > limit:
                raise FetchError(
                    f"{archive}: {dataset.member} would have {entry.file_size:,} bytes, expected at most {limit:,}"
                )
            with opened.open(entry) as member:
                batches = _events(dataset, member)
                first = next(batches)
                with pq.ParquetWriter(target, first.schema, compression="zstd") as writer:
                    writer.write_batch(first)
                    for batch in batches:
                        writer.write_batch(batch)
    except KeyError as cause:
        raise FetchError(f"{archive}: holds no {dataset.member}") from cause
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, pa.ArrowInvalid) as cause:
        raise FetchError(f"{archive}: cannot be read: {cause}") from cause


def _events(dataset: Dataset, member: IO[bytes]) -> Iterator[pa.RecordBatch]:
    """Users, items, ratings and times, block by block, so that memory does not grow with the table."""
    import pyarrow as pa
    import pyarrow.csv as arrow_csv

    names = ("user_id", "item_id", "rating", "timestamp")
    between = len(dataset.separator) - 1  # a separator of two characters leaves an empty column between two fields
    columns = [name for field in names for name in (field, *[f"{field} {i}" for i in range(between)])]
    reader = arrow_csv.open_csv(
        cast("pa.NativeFile", member),
        read_options=arrow_csv.ReadOptions(
            column_names=columns[: len(columns) - between], skip_rows=int(dataset.header), block_size=1 << 22
        ),
        parse_options=arrow_csv.ParseOptions(delimiter=dataset.separator[0]),
        convert_options=arrow_csv.ConvertOptions(
            include_columns=list(names),
            column_types=dict(zip(names, (pa.int64(), pa.int64(), pa.float32(), pa.int64()), strict=True)),
        ),
    )
    yield from reader
