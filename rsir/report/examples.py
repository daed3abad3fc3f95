"""Some users with their real and generated sequences side by side, in their own item labels."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsir.data.sequences import Sequences
from rsir.report.html import text

__all__ = ["example_users"]

USERS = 6
TRAJECTORIES = 4  # a user
ITEMS = 30  # a sequence


def example_users(data: Sequences, made: Sequences, titles: pa.Array | None = None) -> str:
    """Up to six users who have generated sequences, at even distances over all of them.

    `titles` (N,) stand in the place of items' names, where they are not null.
    """
    names = data.item_labels
    if titles is not None:
        own = pa.array(np.arange(1, data.num_items + 1)) if names is None else names
        names = pc.coalesce(titles.cast(pa.large_string()), own.cast(pa.large_string()))
    sources = np.unique(made.source)
    if not len(sources):
        return "<p>No sequence was kept.</p>"
    chosen = sources[np.unique(np.linspace(0, len(sources) - 1, USERS).round().astype(np.int64))]
    note = (
        '<p>An item that the user has never had is marked <span class="items"><b>+</b></span> and framed by dashes.</p>'
    )
    return note + "".join(_user(data, made, int(source), names) for source in chosen)


def _user(data: Sequences, made: Sequences, source: int, names: pa.Array | None) -> str:
    real, rows = data[source], np.flatnonzero(made.source == source)
    own = set(real.tolist())
    label = f"row {source}" if data.user_labels is None else str(data.user_labels[source].as_py())
    generated = "".join(_items(names, made[int(row)], own) for row in rows[:TRAJECTORIES])
    more = f"<p>{len(rows) - TRAJECTORIES} more.</p>" if len(rows) > TRAJECTORIES else ""
    return (
        f'<article class="user"><h3>{text(label)}</h3><div class="pair">'
        f"<div><h4>real, {len(real):,} items, the last may be held out</h4>{_items(names, real, own)}</div>"
        f'<div class="made"><h4>generated, {len(rows):,} kept</h4>{generated}{more}</div></div></article>'
    )


def _items(labels: pa.Array | None, items: np.ndarray, own: set[int]) -> str:
    shown = items[:ITEMS]
    names = shown.tolist() if labels is None else labels.take(pa.array(shown - 1)).to_pylist()
    listed = "".join(
        f"<li>{text(name, 60)}</li>" if item in own else f'<li class="new">+ {text(name, 60)}</li>'
        for item, name in zip(shown.tolist(), names, strict=True)
    )
    more = f"<li>… and {len(items) - ITEMS:,} more</li>" if len(items) > ITEMS else ""
    return f'<ol class="items">{listed}{more}</ol>'
