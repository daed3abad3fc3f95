"""What a run has come to, as text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rsir.metrics import CRITERION, HEADLINE, change, title

if TYPE_CHECKING:
    from rsir.config import TrainingConfig
    from rsir.runs.baselines import Baselines
    from rsir.runs.rounds import RoundResult

__all__ = ["cut_short", "line", "rounds_table", "verdict"]

_METRICS = [("validation", "ndcg@20"), ("validation", "recall@10"), ("validation", "ndcg@10")]
_METRICS += [("test", "recall@10"), ("test", "ndcg@10")]
_CELL = 15
_SHORT = {"item-kNN": "kNN", "popularity": "pop."}
_WIDTHS = (14, 27, 13, 16, 8, 4)
_INDISTINCT = "not distinguishable from the base"


def rounds_table(rounds: list[RoundResult], best: int, baselines: Baselines | None = None) -> str:
    """Three blocks, at most 100 columns wide: what each round was trained on, how well it ranks, and how sure."""
    lines = [_row("round", "sequences", "generated", "verified", "kept", "kept %", "novel", "length", "seconds")]
    for result in rounds:
        generated = result.round > 0
        lines.append(
            _row(
                _mark(result, best),
                f"{result.sequences:,}",
                *(f"{count:,}" if generated else "-" for count in (result.generated, result.verified, result.acquired)),
                f"{result.acquired / result.generated:.1%}" if result.generated else "-",
                "-" if math.isnan(result.novel_share) else f"{result.novel_share:.1%}",
                "-" if math.isnan(result.mean_length) else f"{result.mean_length:.1f}",
                _seconds(result),
            )
        )
    groups = f"{'':8}{'validation':<{3 * (_CELL + 2)}}test"
    names = f"{'round':>6}  " + "  ".join(f"{title(metric):<{_CELL}}" for _, metric in _METRICS)
    lines += ["", groups, names.rstrip()]
    for result in rounds:
        cells = [_value(result, rounds[0], part, metric) for part, metric in _METRICS]
        lines.append((f"{_mark(result, best):>6}  " + "  ".join(f"{cell:<{_CELL}}" for cell in cells)).rstrip())
    for name, parts in (baselines or {}).items():
        cells = [f"{parts[part][metric]:.4f}" for part, metric in _METRICS]
        lines.append((f"{_SHORT.get(name, name):>6}  " + "  ".join(f"{cell:<{_CELL}}" for cell in cells)).rstrip())
    lines += ["", *_certainty(rounds, best)]
    lines.append("     *  best by validation NDCG@20; changes are against round 0, with 95% intervals over users")
    if any(result.vote for result in rounds):
        lines.append("     w  weight of the item-kNN beside the networks, chosen on validation")
    if any(result.worse for result in rounds):
        lines.append("     -  worse on validation than the best round before it, by more than the noise")
    return "\n".join(lines)


def _certainty(rounds: list[RoundResult], best: int) -> list[str]:
    """Rows of what each round recommends with, of its newest network alone beside round 0's alone, of how much of the
    catalogue is shown, and of the item-kNN's weight."""
    metric = "ndcg@10"
    heads = f"test {title(metric)}", "95% interval of the change", "network alone", "95% interval", "coverage", "w"
    lines = [f"{'round':>6}  " + "  ".join(f"{head:<{width}}" for head, width in zip(heads, _WIDTHS, strict=True))]
    for result in rounds:
        alone, coverage = result.alone_test.get(metric), result.test.get("coverage@10", math.nan)
        before = rounds[0].alone_test.get(metric, rounds[0].test[metric])
        gain = change(alone, before, none="") if alone is not None and result.round else ""
        cells = [
            _value(result, rounds[0], "test", metric),
            _interval(result, rounds[0], "test", metric, "(includes 0)") or "-",
            "-" if alone is None else f"{alone:.4f}{gain and f' {gain:>6}'}",
            _percent(result.alone_against_base.get(f"test/{metric}"), before) or "-",
            "-" if math.isnan(coverage) else f"{coverage:.1%}",
            f"{result.vote:g}" if result.vote else "-",
        ]
        row = "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, _WIDTHS, strict=True))
        lines.append(f"{_mark(result, best):>6}  {row}")
    return [line.rstrip() for line in lines]


def _interval(result: RoundResult, base: RoundResult, part: str, metric: str, note: str) -> str:
    """The interval of a gain over the base in percent, with a note where it includes 0; "" where there is none."""
    found = _percent(result.against_base.get(f"{part}/{metric}"), getattr(base, part)[metric])
    return found and found + (f" {note}" if result.indistinct(part, metric) else "")


def _percent(interval: list[float] | None, before: float) -> str:
    """The ends of an interval of a difference from a value, in percent of it; "" where there is none."""
    if not interval or not before:
        return ""
    low, high = (change(before + end, before) for end in interval[1:])
    return f"{low} to {high}"


def line(result: RoundResult, base: RoundResult) -> str:
    """One finished round in one line."""
    kept = f", {result.acquired:,} of {result.generated:,} generated kept" if result.round else ""
    gain = change(result.validation[CRITERION], base.validation[CRITERION], none="") if result.round else ""
    vote = f" with the item-kNN (w {result.vote:g})" if result.vote else ""
    return (
        f"round {result.round}: {result.sequences:,} sequences{kept}, validation NDCG@20 "
        f"{result.validation[CRITERION]:.4f}{gain and f' ({gain})'}{vote}, {_seconds(result)} s"
    )


def verdict(rounds: list[RoundResult], best: int, asked: int, *, guard: bool) -> str:
    """Which round is the best, by how much, and why there are no more."""
    base, winner = rounds[0], rounds[best]
    lines = []
    if len(rounds) <= asked:
        last, cause = rounds[-1], f"no gain on validation since round {best}"
        if guard and last.worse:
            against = last.against_best
            cause = (
                f"its model is refused, its validation NDCG@20 is {-against['difference']:.4f} below round "
                f"{against['round']}'s (95% interval {-against['high']:.4f} to {-against['low']:.4f}); "
                "--resume --guard false goes on all the same"
            )
        lines.append(f"Ended after round {last.round} of {asked}: {cause}.")
    if best == 0:
        others = "" if len(rounds) == 1 else "; no later round beat it"
        lines.append(f"Best by validation NDCG@20: round 0, the base ({winner.validation[CRITERION]:.4f}{others}).")
    else:
        changes = [
            f"{title(metric, part)} {getattr(winner, part)[metric]:.4f} ({_gain(winner, base, part, metric)})"
            for part, metric in HEADLINE
        ]
        lines.append(f"Best by validation NDCG@20: round {best}")
        lines += [f"           {entry}" for entry in changes]
    return "\n".join(lines)


def _gain(result: RoundResult, base: RoundResult, part: str, metric: str) -> str:
    gain = change(getattr(result, part)[metric], getattr(base, part)[metric], none="")
    interval = _interval(result, base, part, metric, f"includes 0: {_INDISTINCT}")
    return f"{gain}, 95% interval {interval}" if interval else gain


def cut_short(rounds: list[RoundResult], training: TrainingConfig) -> str:
    """Which trainings were ended by their number of validations and not by patience, as a line; "" where none was."""
    if training.schedule == "cosine":  # which is to end so
        return ""
    found = []
    for result in rounds:
        steps = result.history.get("step", [])
        most = training.max_evaluations + (training.real_last if result.acquired else 0)
        if len(steps) >= most and result.steps - result.best_step < training.patience * steps[0]:
            found.append(str(result.round))
    if not found:
        return ""
    limit = f"{training.max_evaluations} validation{'' if training.max_evaluations == 1 else 's'}"
    return (
        f"Note:      training ended at its limit of {limit} (training.max_evaluations) and not by its patience in "
        f"round {', '.join(found)};\n"
        "           a higher limit, or a larger training.evaluate_every (steps between validations), may do better\n"
    )


def _row(*cells: str) -> str:
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, (6, 13, 13, 11, 11, 9, 9, 9, 10), strict=True))


def _mark(result: RoundResult, best: int) -> str:
    return f"{'* ' if result.round == best else '- ' if result.worse else ''}{result.round}"


def _value(result: RoundResult, base: RoundResult, part: str, metric: str) -> str:
    value, before = getattr(result, part)[metric], getattr(base, part)[metric]
    return f"{value:.4f}" if result.round == 0 else f"{value:.4f} {change(value, before, none=''):>7}"


def _seconds(result: RoundResult) -> str:
    total = sum(result.seconds.values())
    return f"{total:,.0f}" if total >= 100 else f"{total:.1f}"
