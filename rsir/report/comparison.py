"""One page about several runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rsir.config import RecursionConfig, as_text, flat
from rsir.metrics import HEADLINE, change, title
from rsir.report.charts import INTERVALS, changes, signed
from rsir.report.html import document, figure, section, table, text
from rsir.report.svg import KINDS, Series, lines
from rsir.runs.rounds import RoundResult, best_round

__all__ = ["Finished", "comparison"]

Finished = tuple[Path, RecursionConfig, str, list[RoundResult]]
"""Folder, settings, fingerprint of the data, and finished rounds of a run."""


def comparison(runs: Sequence[Finished]) -> str:
    """The page of several runs: their best rounds, their gains by round, the settings in which they differ.

    Parameters
    ----------
    runs : sequence of Finished
        Each with at least one round.
    """
    names = _names([path for path, *_ in runs])
    same = len({data for _, _, data, _ in runs}) == 1
    lead = f"<p>{len(runs)} runs, {'on the same data' if same else '<strong>not all on the same data</strong>'}.</p>"
    sections = [
        section("best", "Best rounds", _best(names, runs), INTERVALS),
        section("gains", "Gains by round", _gains(names, runs)),
        section("settings", "Settings that differ", _settings(names, [config for _, config, *_ in runs])),
    ]
    return document(f"rsir: {len(runs)} runs", lead, sections)


def _names(paths: list[Path]) -> list[str]:
    """As short as they are told apart: the folders' own names, or with as many of those above as that takes."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts))):
        names = ["/".join(one[-count:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{number}: {path}" for number, path in enumerate(paths, 1)]


def _best(names: list[str], runs: Sequence[Finished]) -> str:
    rows = []
    for name, (_, config, _, rounds) in zip(names, runs, strict=True):
        best, base = rounds[best_round(rounds)], rounds[0]
        row = [text(name), f"{len(rounds) - 1} of {config.rounds}", f"{best.round}"]
        for part, metric in HEADLINE:
            value, before = getattr(best, part)[metric], getattr(base, part)[metric]
            interval = best.against_base.get(f"{part}/{metric}")
            cell = f"{value:.4f}"
            if best.round:
                ends = [100 * end / before for end in interval[1:]] if interval and before else []
                cell += f"<br><small>{change(value, before)}"
                cell += (f" ({ends[0]:+.1f} to {ends[1]:+.1f})" if ends else "") + "</small>"
            row += [f"{before:.4f}", cell]
        rows.append(row)
    header = ["run", "rounds", "best"]
    header += [name for part, metric in HEADLINE for name in (f"{title(metric, part)}: base", "best")]
    return table("Best rounds by validation NDCG@20 (gain, interval)", header, rows)


def _gains(names: list[str], runs: Sequence[Finished]) -> str:
    drawn, most = [], max(len(rounds) for *_, rounds in runs)
    for part, metric in HEADLINE:
        name_of, series = title(metric, part), []
        for name, (*_, rounds) in zip(names, runs, strict=True):
            values, low, high = changes(rounds, part, metric)
            series.append(Series(name, [result.round for result in rounds], values, low, high))
        chart = lines(
            f"gains-{part}-{metric.partition('@')[0]}",
            f"Gain in {name_of} over each run's base, by round",
            "In the last round: " + "; ".join(f"{one.label} {signed(one.y[-1])}%" for one in series),
            series,
            x_label="round",
            y_label="gain over the base, %",
            show=lambda v: f"{v:+.4g}" if v else "0",
            zero=True,
        )
        rows = [[text(one.label), *(signed(value) for value in one.y)] for one in series]
        rows = [row + ["-"] * (most + 1 - len(row)) for row in rows]
        figures = table(f"Gain in {name_of}, %", ["run", *(f"round {number}" for number in range(most))], rows)
        drawn.append(figure(chart, name_of, names, line=True, figures=figures))
    again = f"<p>From the {KINDS + 1}th run on, colours and markers come again.</p>" if len(runs) > KINDS else ""
    return f'{again}<div class="charts">{"".join(drawn)}</div>'


def _settings(names: list[str], configs: list[RecursionConfig]) -> str:
    values = [flat(config) for config in configs]
    rows = [
        [text(setting), *(text(as_text(one[setting])) for one in values)]
        for setting in values[0]
        if any(one[setting] != values[0][setting] for one in values)
    ]
    if not rows:
        return "<p>None: the runs have the same settings.</p>"
    return table("Settings that are not the same in all runs", ["setting", *names], rows, left=len(names) + 1)
