"""The page of one run: ``report.html`` in its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from rsir.config import RecursionConfig, as_text, changed, flat
from rsir.data.sequences import Sequences, item_popularity
from rsir.metrics import HEADLINE, change, title
from rsir.report import charts
from rsir.report.examples import example_users
from rsir.report.html import document, section, table, text
from rsir.runs.baselines import Baselines, remarks, said_of_the_search
from rsir.runs.rounds import RoundResult, best_round, is_over

__all__ = ["REPORT", "Report"]

REPORT = "report.html"
"""In a run's folder. It shows wall clocks, so it is no part of what is the same on every repetition."""


class Report:
    """The page of a run, made from one round after the other.

    Parameters
    ----------
    config : RecursionConfig
    data, train : Sequences
        The real sequences of the run, and what of them is left to train on.
    baselines : mapping, optional
        What the rounds stand beside (:mod:`rsir.runs.baselines`).
    titles : (N,) pyarrow array of strings, optional
        What items are called in the place of their names, where not null.
    """

    def __init__(
        self,
        config: RecursionConfig,
        data: Sequences,
        train: Sequences,
        baselines: Baselines | None = None,
        titles: pa.Array | None = None,
    ) -> None:
        self._config, self._data, self._baselines, self._titles = config, data, baselines or {}, titles
        self._popularity = item_popularity(train)
        self._real = charts.Made.of(train, self._popularity)
        self._rounds: list[RoundResult] = []
        self._made: dict[int, charts.Made] = {}
        self._shown: tuple[int, Sequences] | None = None  # of the best round, or the newest where round 0 is the best

    def add(self, result: RoundResult, acquired: Sequences | None) -> None:
        """Take in the next round, with the generated sequences that it kept; round 0 has none."""
        self._rounds.append(result)
        if acquired is None:
            return
        self._made[result.round] = charts.Made.of(acquired, self._popularity)
        if best_round(self._rounds) in (0, result.round):
            self._shown = result.round, acquired

    def page(self, name: str, environment: Mapping[str, object]) -> str:
        """The page of the rounds so far, at least one; the same for the same rounds.

        Parameters
        ----------
        name : str
            What the run is called.
        environment : mapping
            Versions of what began it, by name.
        """
        rounds = self._rounds
        sections = [
            section("gains", "Gains by round", charts.gains(rounds), charts.INTERVALS),
        ]
        if self._baselines:
            sections.append(
                section("baselines", "Beside the baselines", _beside(rounds, self._baselines, self._config))
            )
        if any(result.groups for result in rounds):
            best = rounds[best_round(rounds)]
            sections.append(section("groups", "Gains by group of users", charts.groups(rounds[0], best)))
        sections.append(section("training", "Training", charts.training(rounds)))
        if self._shown is not None:
            number, acquired = self._shown
            sections += [
                section("filter", "What was generated and kept", charts.generated(rounds)),
                section("drift", "Drift: lengths, novelty, popularity", charts.drift(rounds, self._real, self._made)),
                section(
                    "users",
                    "Example users",
                    example_users(self._data, acquired, self._titles),
                    f"Users for whom round {number} kept sequences, taken at even distances over all of them.",
                ),
            ]
        sections += [
            section("time", "Time", charts.time_by_phase(rounds)),
            section("settings", "Settings", _settings(self._config)),
            section("environment", "Environment", _environment(environment)),
        ]
        return document(f"rsir: {name}", _lead(self._config, self._data, rounds, best_round(rounds)), sections)


def _lead(config: RecursionConfig, data: Sequences, rounds: Sequence[RoundResult], best: int) -> str:
    base, winner = rounds[0], rounds[best]
    tiles = [("best round", f"{best}", "the base" if best == 0 else "by validation NDCG@20")]
    for part, metric in HEADLINE:
        value, before = getattr(winner, part)[metric], getattr(base, part)[metric]
        tiles.append(
            (title(metric, part), f"{value:.4f}", "the base" if best == 0 else f"{change(value, before)} over the base")
        )
    tiles.append(("rounds", f"{len(rounds) - 1} of {config.rounds}", "after the base"))
    source = "simulated users" if config.data.path is None else f"{text(config.data.path)}"
    intro = (
        f"<p>{source}: {len(data):,} users, {data.num_items:,} items, {data.num_interactions:,} interactions. "
        f"Backbone {text(config.model.name)}, seed {config.seed}."
    )
    if not is_over(config, list(rounds)):
        intro += f" <strong>Unfinished: {len(rounds) - 1} of {config.rounds} rounds after the base so far.</strong>"
    elif len(rounds) <= config.rounds:
        intro += (
            f" Ended after round {rounds[-1].round}: {'refused' if config.guard and rounds[-1].worse else 'no gain'}."
        )
    worse = [str(result.round) for result in rounds if result.worse]
    if worse:
        intro += (
            f' <strong class="bad">Worse on validation than the best round before, by more than the noise: round '
            f"{', '.join(worse)}.</strong>"
        )
    cells = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)} <small>{text(note)}</small></dd></div>"
        for name, value, note in tiles
    )
    return f'{intro}</p><dl class="tiles">{cells}</dl>'


def _beside(rounds: Sequence[RoundResult], baselines: Baselines, config: RecursionConfig) -> str:
    """A table of the rounds and the baselines, and what is to be said of them."""
    rows = [
        [f"round {one.round}", *(f"{getattr(one, part)[metric]:.4f}" for part, metric in HEADLINE)] for one in rounds
    ]
    rows += [[text(name), *(f"{by[part][metric]:.4f}" for part, metric in HEADLINE)] for name, by in baselines.items()]
    sentences = [said_of_the_search(rounds, baselines, config.itemknn), *remarks(rounds, baselines)]
    said = "".join(f"<p>{text(sentence)}</p>" for sentence in sentences if sentence)
    caption = "The rounds, and recommenders that are counted and not trained"
    return table(caption, ["recommender", *(title(metric, part) for part, metric in HEADLINE)], rows) + said


def _settings(config: RecursionConfig) -> str:
    values, other = flat(config), changed(config)
    rows = [[text(name), text(as_text(value)), text(as_text(default))] for name, (value, default) in other.items()]
    differing = table("Settings other than the defaults", ["setting", "here", "default"], rows, left=3)
    every = table(
        "All settings", ["setting", "value"], [[text(k), text(as_text(v))] for k, v in values.items()], left=2
    )
    none = "<p>All settings are the defaults.</p>"
    return f"{differing if rows else none}<details><summary>All settings</summary>{every}</details>"


def _environment(environment: Mapping[str, object]) -> str:
    rows = [[text(name), text(value)] for name, value in environment.items()]
    return table("What computed the run, when it began", ["what", "version or name"], rows, left=2)
