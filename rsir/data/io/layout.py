"""How a table of text is laid out: what separates its columns, whether a header names them, and what to say if not."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rsir.config import DataConfig
from rsir.data.io.columns import USUAL_NAMES, simplified
from rsir.errors import DataError

__all__ = ["Layout", "advice", "has_names", "is_data", "is_time", "layout_of"]

_TIME = re.compile(
    r"[1-4]\d{9}(\d{3}|\.\d*)?|[89]\d{8}(\.\d*)?|(19|20)\d\d-\d\d-\d\d([T ]\d\d:\d\d(:\d\d.*)?)?|"
    r"\d{1,2}[/.]\d{1,2}[/.](19|20)\d\d( .*)?|(Mon|Tue|Wed|Thu|Fri|Sat|Sun) \w{3} .*",
    re.ASCII,
)
_NUMBER = re.compile(r"\s*[+-]?\d+(\.\d*)?\s*", re.ASCII)
_MOVIELENS = ("u.data", *(f"u{fold}.{part}" for fold in "12345ab" for part in ("base", "test")))


@dataclass(frozen=True)
class Layout:
    """What is known of a table of text from its first lines.

    Attributes
    ----------
    separator : str
        ",", ";", tab, "|", "::" or " ", which stands for any number of spaces.
    names : list of str
        Names of the columns; "0", "1", ... where there is no header.
    fields : list of str
        The first line's.
    header : int
        Lines before the first event: 1, or 0.
    usual : dict of str
        Columns by role that are known without names: MovieLens.
    quoted : bool
        Whether a field may stand in double quotes.
    """

    separator: str
    names: list[str]
    fields: list[str]
    header: int
    usual: dict[str, str]
    quoted: bool

    @property
    def delimiter(self) -> str:
        """The one character between columns once :attr:`change` is done."""
        return {"::": "\x1f", " ": "\t"}.get(self.separator, self.separator)

    @property
    def change(self) -> Callable[[bytes], bytes] | None:
        """What is to be done to whole lines first."""
        if self.separator == "::":
            return lambda piece: piece.replace(b"::", b"\x1f")
        if self.separator == " ":
            return lambda piece: re.sub(rb"(?m)^[ \t]+|[ \t]+(?=\r?$)", b"", re.sub(rb"[ \t]+", b"\t", piece))
        return None


def layout_of(path: Path, lines: list[str], config: DataConfig) -> Layout:
    """The layout of a table by its first lines, which are those of :func:`rsir.data.io.opening.beginning`."""
    if not lines:
        raise DataError(f"{path}: is empty, expected interactions")
    if not lines[0].strip():
        raise DataError(f"{path}: line 1: is blank, expected a header such as user_id,item_id,timestamp")
    _refuse_known(path, lines)
    separator = _separator(lines)
    fields = split(lines[0], separator)
    given = [getattr(config, role) for role in ("user", "item", "time", "rating")]
    by_number = any(name is not None and name not in fields and name.isdecimal() for name in given)
    header = {"present": True, "absent": False}.get(config.header)
    if header is None:
        header = not any(map(is_data, fields)) and (has_names(fields) or not by_number)
    if header:
        return Layout(separator, fields, fields, 1, {}, separator not in ("::", " "))
    roles = dict(zip(("user", "item", "rating", "time"), "0123", strict=True))
    movielens = len(fields) == 4 and (separator == "::" or path.name in _MOVIELENS) and all(map(is_data, fields))
    known = roles if movielens else {}
    if not known and (config.user is None or config.item is None):
        raise DataError(
            f"{path}: line 1: expected the names of the columns, got {lines[0][:80]!r}; "
            f"{advice(fields, header=False, path=path)}"
        )
    names = [str(number) for number in range(len(fields))]
    return Layout(separator, names, fields, 0, known, separator not in ("::", " ", "\t"))


def split(line: str, separator: str) -> list[str]:
    """Fields of a line."""
    if separator in ("::", " "):
        return line.split(None if separator == " " else separator)
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:  # a field of more than csv's limit, or a line break inside quotes
        return line.split(separator)


def has_names(fields: Sequence[str]) -> bool:
    """Whether a field is a usual name of users or items."""
    usual = {name for role in ("user", "item") for name in USUAL_NAMES[role].split()}
    return any(simplified(field) in usual for field in fields)


def is_time(text: str) -> bool:
    """Whether it is written as a time since about 1998 is: seconds or milliseconds since 1970, or a date."""
    return _TIME.fullmatch(text.strip()) is not None


def advice(fields: list[str], *, header: bool, with_format: bool = False, path: Path | None = None) -> str:
    """What to type for a table whose columns have no usual names, or no names at all."""
    numeric = sum(_NUMBER.fullmatch(field) is not None for field in fields)
    if len(fields) > 40 and numeric > len(fields) / 2:
        return (
            f"its {len(fields)} columns of numbers look like a matrix with a column an item: write it with one event a "
            "line (user_id,item_id,rating), as pandas does by melt"
        )
    form = "--data.format csv " if with_format else ""
    if header:
        return f"read it as a table by {form or '--data.format csv '}(and --data.user, --data.item, --data.time NAME)"
    guess = _guess(fields)
    shown = ", ".join(f"{number} {field[:24]!r}" for number, field in enumerate(fields[:12]))
    more = ", ..." if len(fields) > 12 else ""
    return (
        f"name its columns by number, from 0: {shown}{more}; for example "
        f"{form}{' '.join(f'--data.{role} {number}' for role, number in guess.items())}, or add a header line such as "
        "user_id,item_id,timestamp"
    )


def _guess(fields: list[str]) -> dict[str, int]:
    times = [number for number, field in enumerate(fields) if is_time(field)]
    others = [n for n in range(len(fields)) if n not in times and not re.fullmatch(r"-?\d+\.\d+", fields[n])]
    others += [n for n in range(len(fields)) if n not in others]
    guess = {"user": others[0], "item": others[1] if len(others) > 1 else others[0]}
    return guess | ({"time": times[-1]} if times else {})


def is_data(field: str) -> bool:
    """Whether it is a number or a time, as no column is called."""
    return _NUMBER.fullmatch(field) is not None or is_time(field)


def _separator(lines: list[str]) -> str:
    """What separates the columns: of what occurs as often in each of the first lines the most frequent."""
    if "::" in lines[0] and len({line.count("::") for line in lines[:20] if line}) == 1:
        return "::"
    first = max(",;\t|", key=lines[0].count)
    if has_names(split(lines[0], first)):
        return first
    some = [line for line in lines[:20] if line.strip()]
    steady = [mark for mark in "\t,;|" if some[0].count(mark) > 0 and len({line.count(mark) for line in some}) == 1]
    if steady:
        return max(steady, key=some[0].count)
    if some[0].count(first):
        return first
    return " " if len(some[0].split()) > 1 else ","


_NETFLIX = """awk -F, 'BEGIN{print "user,item,rating,date"} /:$/{sub(":",""); m=$0; next} {print $1","m","$2","$3}'"""
_MIND = (
    """awk -F'\\t' 'BEGIN{print "user\\titem\\ttime"} {n=split($5,a," "); for(i=1;i<=n;i++) if(a[i]~/-1$/) """
    """print $2"\\t"substr(a[i],1,length(a[i])-2)"\\t"$3}'"""
)


def _refuse_known(path: Path, lines: list[str]) -> None:
    """DataError for the layouts of known data sets that are no table."""
    if re.fullmatch(r"\d+:", lines[0].strip()) and len(lines) > 1 and re.fullmatch(r"\d+,[1-5],[\d-]{10}", lines[1]):
        raise DataError(
            f"{path}: line 1: is a film, as in the files of the Netflix prize, expected an event a line: write them by "
            f"{_NETFLIX} {path.name} > events.csv"
        )
    fields = lines[0].split("\t")
    if len(fields) == 5 and re.fullmatch(r"(\S+-[01] ?)+", fields[4]):
        raise DataError(
            f"{path}: line 1: is an impression, as in behaviors.tsv of MIND, expected an event a line: write clicks by "
            f"{_MIND} {path.name} > events.tsv, and read that with --data.time_format '%m/%d/%Y %I:%M:%S %p'"
        )
