"""Charts as SVG text. Colours come from the page (classes s0 to s5), so that they follow its light or dark scheme;
series differ by marker and dash, or by hatching, too."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

__all__ = ["HATCHES", "KINDS", "Series", "bars", "key", "lines", "ticks"]

WIDTH, HEIGHT = 400, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 46
KINDS = 6
"""How many series look different."""

_DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 2", "10 4")
HATCHES = "".join(
    f'<pattern id="hatch{k}" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate({angle})">'
    f'<rect class="s{k} pale" width="6" height="6"/><line class="s{k}" x1="0" y1="0" x2="0" y2="6"/></pattern>'
    for k, angle in ((1, 45), (2, 135))
)
"""Patterns that :func:`bars` fills its second and third series with; once a page."""


@dataclass(frozen=True)
class Series:
    """Values over x; `low` and `high` are the ends of an interval around each, nan where there is none."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = field(default_factory=list)
    high: Sequence[float] = field(default_factory=list)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers, at most `most` and at least two, from at or below `low` to at or above `high`."""
    size = max(abs(low), abs(high))
    if high - low <= max(1e-9 * size, 1e-99):  # as good as equal
        margin = size / 2 if size > 1e-99 else 0.5
        low, high = low - margin, high + margin
    base = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (base * factor for factor in itertools.cycle((1, 2, 5, 10, 20, 50, 100))):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first + 1 <= most:
            return [float(f"{n * step:.12g}") for n in range(first, last + 1)]
    raise AssertionError("the largest step leaves two")


def lines(
    name: str,
    title: str,
    description: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    show: Callable[[float], str],
    zero: bool = False,
    whole: bool = True,
) -> str:
    """A chart of lines with markers and, where given, error bars.

    Parameters
    ----------
    name : str
        Unique on the page.
    title, description : str
        For those who hear the page.
    series : sequence of Series
    show : callable
        A value of y as text.
    zero : bool, default False
        Whether y must reach 0.
    whole : bool, default True
        Whether every x is marked by its number, as of rounds; else x begins at 0 and round numbers are marked.
    """
    xs = [x for one in series for x in one.x]
    bounds = [v for one in series for v in (*one.y, *one.low, *one.high) if math.isfinite(v)]
    marks = ticks(min([*bounds, *([0.0] if zero else [])]), max([*bounds, *([0.0] if zero else [])]))
    places = sorted(set(xs)) if whole else [t for t in ticks(0, max(xs)) if t <= max(xs)]
    left, right = (min(xs) - 0.3, max(xs) + 0.3) if whole else (0, max(xs))

    def at_x(x: float) -> float:
        return LEFT + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT)

    at_y = _vertical(marks)
    parts = [_axes(marks, at_y, show, x_label, y_label), _x_ticks([(at_x(x), f"{x:,.0f}") for x in places])]
    if marks[0] < 0 < marks[-1]:
        parts.append(f'<path class="zero" d="M{LEFT} {at_y(0):.1f}H{WIDTH - RIGHT}"/>')
    for number, one in enumerate(series):
        kind, shift = number % KINDS, (number - (len(series) - 1) / 2) * 5 if one.low else 0.0
        points = [(at_x(x) + shift, at_y(y), k) for k, (x, y) in enumerate(zip(one.x, one.y, strict=True)) if y == y]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in points)
        if points:
            parts.append(f'<path class="line s{kind}" stroke-dasharray="{_DASHES[kind]}" d="M{path}"/>')
        for x, _, k in points:
            if one.low and one.low[k] == one.low[k]:
                parts.append(_error_bar(kind, x, at_y(one.low[k]), at_y(one.high[k])))
        sparse = max(1, len(points) // 12)
        parts += [_marker(kind, x, y) for x, y, k in points if k % sparse == 0 or k == len(points) - 1]
        parts += [_spot(x, y, f"{x_label} {one.x[k]:,.0f}, {one.label}: {_value(one, k, show)}") for x, y, k in points]
    return _svg(name, title, description, "".join(parts))


def bars(
    name: str,
    title: str,
    description: str,
    categories: Sequence[str],
    series: Sequence[tuple[str, Sequence[float]]],
    *,
    x_label: str,
    y_label: str,
    show: Callable[[float], str],
    stacked: bool,
) -> str:
    """A chart of bars, (label, values by category), at most three series; stacked or side by side."""
    heights = (
        [sum(values[k] for _, values in series) for k in range(len(categories))]
        if stacked
        else [v for _, values in series for v in values]
    )
    marks = ticks(0, max(heights, default=0) or 1)
    at_y, room = _vertical(marks), (WIDTH - LEFT - RIGHT) / max(len(categories), 1)
    parts = [_axes(marks, at_y, show, x_label, y_label)]
    every = math.ceil(len(categories) / 14)
    centres = [LEFT + (k + 0.5) * room for k in range(len(categories))]
    parts.append(_x_ticks([(x, categories[k]) for k, x in enumerate(centres) if k % every == 0]))
    wide = min(0.76 * room, 60)
    for k, centre in enumerate(centres):
        floor = 0.0
        for number, (label, values) in enumerate(series):
            width = wide if stacked else wide / len(series)
            x = centre - wide / 2 + (0 if stacked else number * width)
            top, bottom = at_y(floor + values[k]), at_y(floor)
            floor += values[k] if stacked else 0
            if bottom - top > 0.05:
                box = f'x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="{bottom - top:.1f}"'
                shown = escape(f"{x_label} {categories[k]}, {label}: {values[k]:,.4g}")
                parts.append(f'<rect class="bar s{number}" {_fill(number)} {box}><title>{shown}</title></rect>')
    return _svg(name, title, description, "".join(parts))


def key(number: int, label: str, *, line: bool) -> str:
    """An entry of a legend, HTML."""
    kind = number % KINDS
    if line:
        drawn = f'<path class="line s{kind}" stroke-dasharray="{_DASHES[kind]}" d="M0 7H30"/>{_marker(kind, 15, 7)}'
    else:
        drawn = f'<rect class="bar s{number}" {_fill(number)} x="6" y="1" width="18" height="12"/>'
    picture = f'<svg aria-hidden="true" width="30" height="14" viewBox="0 0 30 14">{drawn}</svg>'
    return f"<li>{picture} {escape(label)}</li>"


def _svg(name: str, title: str, description: str, content: str) -> str:
    return (
        f'<svg role="img" aria-labelledby="{name}-title {name}-desc" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
        f"{content}</svg>"
    )


def _vertical(marks: list[float]) -> Callable[[float], float]:
    low, high = marks[0], marks[-1]
    return lambda y: HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def _axes(
    marks: list[float], at_y: Callable[[float], float], show: Callable[[float], str], x_label: str, y_label: str
) -> str:
    grid = "".join(
        f'<path class="grid" d="M{LEFT} {at_y(v):.1f}H{WIDTH - RIGHT}"/>'
        f'<text class="end" x="{LEFT - 6}" y="{at_y(v) + 4:.1f}">{escape(show(v))}</text>'
        for v in marks
    )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return (
        f'{grid}<text class="middle" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}">{escape(x_label)}</text>'
        f'<text class="middle" transform="translate(13 {middle}) rotate(-90)">{escape(y_label)}</text>'
    )


def _x_ticks(places: list[tuple[float, str]]) -> str:
    y = HEIGHT - BOTTOM + 16
    return "".join(f'<text class="middle" x="{x:.1f}" y="{y}">{escape(text)}</text>' for x, text in places)


def _error_bar(kind: int, x: float, low: float, high: float) -> str:
    path = f"M{x:.1f} {low:.1f}V{high:.1f}M{x - 4:.1f} {low:.1f}h8M{x - 4:.1f} {high:.1f}h8"
    return f'<path class="error s{kind}" d="{path}"/>'


def _marker(kind: int, x: float, y: float) -> str:
    shapes = (
        "m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
        "m-3.2 -3.2h6.4v6.4h-6.4z",
        "m0 -4.2l4 7h-8z",
        "m0 -4.4l4.4 4.4l-4.4 4.4l-4.4 -4.4z",
        "m0 4.2l4 -7h-8z",
        "m-4 -1h3v-3h2v3h3v2h-3v3h-2v-3h-3z",
    )
    return f'<path class="marker s{kind}" d="M{x:.1f} {y:.1f}{shapes[kind]}"/>'


def _spot(x: float, y: float, shown: str) -> str:
    """What a pointer over a value shows."""
    return f'<circle class="spot" cx="{x:.1f}" cy="{y:.1f}" r="7"><title>{escape(shown)}</title></circle>'


def _value(one: Series, k: int, show: Callable[[float], str]) -> str:
    """A value with its interval, where it has one."""
    within = f" ({one.low[k]:.4g} to {one.high[k]:.4g})" if one.low and one.low[k] == one.low[k] else ""
    return f"{show(float(f'{one.y[k]:.4g}'))}{within}"


def _fill(number: int) -> str:
    return "" if number == 0 else f'style="fill:url(#hatch{number})"'
