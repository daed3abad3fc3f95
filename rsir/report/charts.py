"""The charts of a run's page, each with its figures in a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from rsir.data.sequences import Sequences
from rsir.metrics import CRITERION, HEADLINE, change, percent_change, title
from rsir.report.html import figure, table
from rsir.report.svg import Series, bars, lines
from rsir.runs.rounds import RoundResult
from rsir.runtime import memory

__all__ = [
    "INTERVALS",
    "Made",
    "changes",
    "drift",
    "gains",
    "generated",
    "groups",
    "signed",
    "time_by_phase",
    "training",
]

INTERVALS = (
    "Error bars are 95% intervals of the difference from round 0, paired user by user. They say what other users would "
    "change, not what another seed would; where a round has none, it was made by a version that did not keep them."
)

_LONGEST = 30  # lengths beyond are counted together


def gains(rounds: Sequence[RoundResult]) -> str:
    """Change against the base by round, in percent, and the values."""
    numbers = [result.round for result in rounds]
    series, rows = [], [[f"{number}"] for number in numbers]
    for part, metric in HEADLINE:
        values, low, high = changes(rounds, part, metric)
        series.append(Series(title(metric, part), numbers, values, low, high))
        for row, result, value, a, b in zip(rows, rounds, values, low, high, strict=True):
            interval = f" ({a:+.1f} to {b:+.1f})" if a == a else ""
            change = f"<br><small>{value:+.1f}%{interval}</small>" if result.round and value == value else ""
            row.append(f"{getattr(result, part)[metric]:.4f}{change}")
    last = "; ".join(f"{one.label} {signed(one.y[-1])}%" for one in series)
    chart = lines(
        "gains-chart",
        "Gain over the base by round",
        f"Lines over rounds 0 to {numbers[-1]}. In the last round: {last}.",
        series,
        x_label="round",
        y_label="gain over the base, %",
        show=lambda v: f"{v:+.4g}" if v else "0",
        zero=True,
    )
    caption = "Metrics by round (gain, interval)"
    shown = figure(chart, "Gain over the base, the round trained on real data alone", _labels(series), line=True)
    figures = table(caption, ["round", *(title(metric, part) for part, metric in HEADLINE)], rows)
    return f'<div class="beside">{shown}{figures}</div>'


def changes(rounds: Sequence[RoundResult], part: str, metric: str) -> tuple[list[float], list[float], list[float]]:
    """Change of a metric against the base by round, in percent, and the ends of its interval; nan where unknown."""
    before = getattr(rounds[0], part)[metric]
    intervals = [result.against_base.get(f"{part}/{metric}", [nan] * 3) for result in rounds]
    values = [percent_change(getattr(result, part)[metric], before) for result in rounds]
    low, high = ([percent_change(before + interval[end], before) for interval in intervals] for end in (1, 2))
    return values, low, high


def training(rounds: Sequence[RoundResult]) -> str:
    """Validation metric and loss by step, a line a round."""
    kept = [result for result in rounds if result.history]
    if not kept:
        return "<p>The run was made by a version that did not keep the history of its trainings.</p>"
    rows = []
    for r in kept:
        values, losses = r.history[CRITERION], r.history["loss"]
        rows.append([f"{r.round}", f"{r.steps:,}", f"{r.best_step:,}", f"{max(values):.4f}", f"{losses[-1]:.4f}"])
    figures = table("Trainings", ["round", "steps", "best step", "best validation NDCG@20", "last loss"], rows)
    drawn = []
    for name, heading, label in (
        (CRITERION, f"Validation {title(CRITERION)}", title(CRITERION, "validation")),
        ("loss", "Training loss", "loss"),
    ):
        series = [Series(f"round {r.round}", r.history["step"], r.history[name]) for r in kept]
        chart = lines(
            f"training-{name.partition('@')[0]}",
            f"{heading} by step",
            f"A line a round, {len(series)} in all; the figures are in the table that follows.",
            series,
            x_label="training steps",
            y_label=label,
            show=_short,
            whole=False,
        )
        drawn.append(figure(chart, f"{heading} during each round's training", _labels(series), line=True))
    return _row(*drawn) + figures


def generated(rounds: Sequence[RoundResult]) -> str:
    """What became of the trajectories of each round."""
    later = [result for result in rounds if result.round > 0]
    series = [
        ("kept for training", [float(r.acquired) for r in later]),
        ("verified, not acquired", [float(r.verified - r.acquired) for r in later]),
        ("refused", [float(r.generated - r.verified) for r in later]),
    ]
    chart = bars(
        "filter-chart",
        "Trajectories kept and refused by round",
        "; ".join(f"round {r.round}: {r.acquired:,} of {r.generated:,} kept" for r in later),
        [f"{r.round}" for r in later],
        series,
        x_label="round",
        y_label="trajectories",
        show=_short,
        stacked=True,
    )
    rows = [
        [
            f"{r.round}",
            *(f"{count:,}" for count in (r.generated, r.generated - r.verified, r.verified, r.acquired, r.sequences)),
            f"{r.acquired / r.generated:.1%}" if r.generated else "-",
            f"{r.leak:.2%}" if r.leak == r.leak else "-",
        ]
        for r in later
    ]
    names = ["round", "generated", "refused", "verified", "kept", "trained on in all", "kept, %", "wrong verdicts"]
    caption = "Refused: not faithful to the user, too short, or a copy"
    return _row(figure(chart, caption, [label for label, _ in series], line=False)) + table(
        "Trajectories by round", names, rows
    )


def groups(base: RoundResult, best: RoundResult) -> str:
    """Test metrics of users in groups, of the base and of the best round."""
    rows = []
    for name, thirds in best.groups.items():
        for before, after in zip(base.groups.get(name, []), thirds, strict=False):
            row = [f"{name} {after['least']:,} to {after['most']:,}", f"{after['tasks']:,}"]
            for part, metric in HEADLINE:
                if part == "test":
                    row += [f"{before[metric]:.4f}", f"{after[metric]:.4f}", change(after[metric], before[metric])]
            rows.append(row)
    if not rows:
        return "<p>The run was made by a version that did not measure groups.</p>"
    names = [
        head for part, metric in HEADLINE if part == "test" for head in (f"base {title(metric)}", "best", "change")
    ]
    return table(f"Test users in thirds: the base and round {best.round}", ["group", "users", *names], rows)


@dataclass(frozen=True)
class Made:
    """What the chart of drift shows of the sequences that a round kept.

    Attributes
    ----------
    popularity : float
        Mean number of interactions of their items in the real sequences; nan where there is no item.
    lengths : (n,) int64
    """

    popularity: float
    lengths: np.ndarray

    @classmethod
    def of(cls, sequences: Sequences, popularity: np.ndarray) -> Made:
        """Measured by the popularity of each item id, (N + 1,) int64."""
        return cls(_mean_of(popularity, sequences.items), sequences.lengths)


def drift(rounds: Sequence[RoundResult], train: Made, made: Mapping[int, Made]) -> str:
    """Lengths of real and generated sequences, and how new and how popular what is generated and recommended is.

    `train` is of the real sequences without what is held out; `made` of those that each round kept.
    """
    numbers = [r.round for r in rounds]
    of_real = train.popularity
    of_made = {number: one.popularity for number, one in made.items()}
    recommended = [r.validation.get("popularity@10", nan) for r in rounds]
    coverage = [100 * r.validation.get("coverage@10", nan) for r in rounds]
    newest = made[max(made)]
    novel = [100 * r.novel_share for r in rounds]
    popular = [
        Series("in generated sequences", numbers, [of_made.get(number, nan) for number in numbers]),
        Series("in recommendations (first ten)", numbers, recommended),
        Series("in real sequences", numbers, [of_real] * len(numbers)),
    ]
    shares = [Series("new to the user", numbers, novel), Series("of the catalogue recommended", numbers, coverage)]
    means = [_figure(_mean(one.lengths), 1) for one in (train, newest)]
    lengths, labels = _lengths(train.lengths, newest.lengths)
    drawn = [
        figure(
            bars(
                "length-chart",
                "Lengths of real and generated sequences",
                f"Mean length: real {means[0]}, generated {means[1]} items.",
                labels,
                lengths,
                x_label="items",
                y_label="% of sequences",
                show=_short,
                stacked=False,
            ),
            f"Lengths: real sequences, and those that round {max(made)} kept",
            [label for label, _ in lengths],
            line=False,
        ),
        _by_round("novelty-chart", "Novelty and coverage", shares, "%", _short),
        _by_round("popularity-chart", "Popularity of items", popular, "interactions an item", _short),
    ]
    rows = [
        [
            f"{r.round}",
            *(_figure(value, 1) for value in (r.mean_length, novel[k], coverage[k])),
            *(_figure(value, 1) for value in (of_made.get(r.round, nan), recommended[k], of_real)),
        ]
        for k, r in enumerate(rounds)
    ]
    names = ["round", "mean length", "new to the user, %", "catalogue recommended, %"]
    names += ["popularity, generated", "recommended", "real"]
    return _row(*drawn) + table("Drift by round", names, rows)


def time_by_phase(rounds: Sequence[RoundResult]) -> str:
    """Seconds by round and phase."""
    phases = ["generate", "train", "evaluate"]
    series = [(phase, [r.seconds.get(phase, 0.0) for r in rounds]) for phase in phases]
    total = sum(sum(values) for _, values in series)
    chart = bars(
        "time-chart",
        "Seconds by round and phase",
        f"{total:,.1f} seconds in all.",
        [f"{r.round}" for r in rounds],
        series,
        x_label="round",
        y_label="seconds",
        show=_short,
        stacked=True,
    )
    rates = ["tokens/s", "trajectories/s", "users/s"]
    rows = [
        [
            f"{r.round}",
            *(_figure(r.seconds.get(phase, nan), 1) for phase in phases),
            *(_figure(r.rates.get(rate, nan), 0) for rate in rates),
        ]
        for r in rounds
    ]
    header = ["round", "generate, s", "train, s", "evaluate, s", "tokens/s", "trajectories/s", "users/s"]
    caption = "Wall clock by phase, interruptions left out"
    return _row(figure(chart, caption, phases, line=False)) + table("Time by round", header, rows)


def _by_round(name: str, title: str, series: list[Series], label: str, show: Callable[[float], str]) -> str:
    last = "; ".join(f"{one.label} {_figure(one.y[-1], 1)}" for one in series)
    chart = lines(
        name, title, f"In the last round: {last}.", series, x_label="round", y_label=label, show=show, zero=True
    )
    return figure(chart, f"{title} by round", _labels(series), line=True)


def _lengths(real: np.ndarray, made: np.ndarray) -> tuple[list[tuple[str, list[float]]], list[str]]:
    """Share of sequences of each length in percent, those of `_LONGEST` or more together; and the lengths' names."""
    most = int(min(max(real.max(initial=1), made.max(initial=1)), _LONGEST))
    labels = [str(length) for length in range(1, most + 1)]
    if max(real.max(initial=1), made.max(initial=1)) > most:
        labels[-1] += "+"
    found = []
    for label, lengths in (("real", real), ("generated", made)):
        counts = np.bincount(np.minimum(lengths[lengths > 0], most), minlength=most + 1)[1:]
        found.append((label, [100 * float(count) / max(int(counts.sum()), 1) for count in counts]))
    return found, labels


def signed(value: float) -> str:
    """A change as text."""
    return f"{value:+.1f}" if value == value else "-"


def _row(*parts: str) -> str:
    return f'<div class="charts">{"".join(parts)}</div>'


def _labels(series: Sequence[Series]) -> list[str]:
    return [one.label for one in series]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else nan


def _mean_of(popularity: np.ndarray, items: np.ndarray) -> float:
    """Mean popularity of items."""
    total = sum(int(popularity[items[block]].sum()) for block in memory.blocks(items.size))
    return total / items.size if items.size else nan


def _figure(value: float, places: int) -> str:
    return f"{value:,.{places}f}" if value == value else "-"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"
