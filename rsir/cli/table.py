"""Rows of values as aligned lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["lines"]


def lines(rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """A line for each row, columns as wide as their widest value."""
    cells = [[f"{value:.4f}" if isinstance(value, float) else str(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
