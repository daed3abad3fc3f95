"""A run in a few lines, as text and as a table of HTML, for the Python prompt and for notebooks."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from rsir.metrics import HEADLINE, title

if TYPE_CHECKING:
    from rsir.runs.results import Run
    from rsir.runs.rounds import RoundResult

__all__ = ["html", "text"]

_HEAD = ("round", "sequences", "generated", "kept", *(title(metric, part) for part, metric in HEADLINE))


def text(run: Run) -> str:
    """The title, and a line for each round."""
    rows = [_HEAD, *(_cells(result) for result in run.rounds)]
    lines = []
    for number, row in enumerate(rows, -1):
        cells = "  ".join(f"{cell:>{len(head)}}" for cell, head in zip(row, _HEAD, strict=True))
        lines.append(f"{'*' if number == run.best else ' '} {cells}")
    return "\n".join([_title(run), *lines])


def html(run: Run) -> str:
    """A table with a row for each round, the best one in bold."""
    head = "".join(f"<th>{name}</th>" for name in _HEAD)
    rows = []
    for result in run.rounds:
        tag = "th" if result.round == run.best else "td"
        rows.append("<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in _cells(result)) + "</tr>")
    body = "".join(rows)
    return f"<table><caption>{escape(_title(run))}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _title(run: Run) -> str:
    where = "" if run.path is None else f", in {run.path}"
    if run.refitted:
        return (
            f"Refit of {run.config.model.name} on all events of {len(run.data):,} users and {run.data.num_items:,} "
            f"items{where}; no metrics of its own: below are those of the run it was made from"
        )
    goes_on = f", going on from {run.lineage[-1]['run']}" if run.lineage else ""
    return (
        f"Run of {run.config.model.name} on {len(run.data):,} users and {run.data.num_items:,} items{where}{goes_on}; "
        f"round {run.best} is the best by validation"
    )


def _cells(result: RoundResult) -> tuple[str, ...]:
    counts = (f"{result.generated:,}", f"{result.acquired:,}") if result.round else ("-", "-")
    values = (getattr(result, part)[metric] for part, metric in HEADLINE)
    return (str(result.round), f"{result.sequences:,}", *counts, *(f"{value:.4f}" for value in values))
