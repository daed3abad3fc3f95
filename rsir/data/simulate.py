"""Simulated users with a known structure: the embedded data set, and planted truth to test against.

Genres of items lie on a two-dimensional manifold, a torus, and so do users: each near a home genre, popular genres
being home to more of them. A user's taste is a distribution over genres that falls steeply with the distance on the
torus. The next item of a user is

- one of the two that follow the last one in the order of its genre, as volumes of a series do
  (`SimulationConfig.order`, the share of such events), else
- a chart item, as half of the others are: drawn by overall popularity (Zipf's law), whoever the user is, or
- any item of a genre drawn from the taste,

and never repeats an item of the same user. So a good part of every history is noise, and what a model can learn is what
follows what and which items share their users, from few events each. That is the situation in which verified sequences
of its own, which hold less noise than real ones, can teach a recommender something.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rsir.config import SimulationConfig
from rsir.data.ragged import sealed
from rsir.data.sequences import Int32Array, Int64Array, Sequences, offsets_of
from rsir.runtime import memory

FloatArray = npt.NDArray[np.float64]

# Chosen so that the default data leaves room between popularity, a trained model and the planted truth, as sparse
# real logs do; the figures are asserted by the tests of this module.
ITEMS_PER_GENRE = 8
CONCENTRATION = 200.0  # of a user's taste around their place on the torus: one or two genres count
SPREAD = 0.1  # of users around their home genre, in radians
REACH = 0.32  # genres farther than this from a user's home genre have less than 1e-17 of the taste
CHART_EXPONENT, GENRE_EXPONENT = 0.9, 0.7  # Zipf's law for chart items and for the popularity of genres
FROM_CHART = 0.5  # of what does not follow the item before; what is left comes from the taste
FOLLOWERS = 2  # items that may follow one, the next ones of its genre
MIN_LENGTH = 5
MAX_LENGTH = 50
SECONDS_OBSERVED = 365 * 86_400
MEAN_GAP = 7 * 86_400  # seconds between two events of a user


@dataclass(frozen=True, eq=False)
class SimulatedData:
    """Simulated sequences and all that their next items were drawn from.

    Attributes
    ----------
    sequences : Sequences
        U users over N items, with times in seconds.
    user_points : (U, 2) float64
        Each user's angles on the torus.
    genre_points : (G, 2) float64
        Each genre's angles.
    genres : (N,) int64
        Genre of item id i at ``i - 1``.
    popularity : (N,) float64
        Share of each item in the chart, at ``i - 1``.
    order : float
        Share of the events that follow the one before.
    """

    sequences: Sequences
    user_points: FloatArray
    genre_points: FloatArray
    genres: Int64Array
    popularity: FloatArray
    order: float

    def taste(self, rows: Int64Array) -> FloatArray:
        """Distributions over genres of some users (B,), (B, G) float64."""
        return _closeness(self.user_points[rows], self.genre_points)

    def next_probabilities(self, rows: Int64Array, items: Int32Array, offsets: Int64Array) -> FloatArray:
        """True distribution of the next item: the best that any model could know.

        Parameters
        ----------
        rows : (B,) int64
            Users, as rows of `sequences`.
        items, offsets : (nnz,) int32 and (B + 1,) int64
            Their histories, oldest first, none empty.

        Returns
        -------
        (B, N + 1) float64
            Column i is item id i; 0 for column 0 and for items of the history.
        """
        within = 1 / np.bincount(self.genres)  # of one item among those of its genre
        out = np.zeros((len(rows), len(self.genres) + 1))
        out[:, 1:] = FROM_CHART * self.popularity + (1 - FROM_CHART) * (self.taste(rows) * within)[:, self.genres]
        out *= 1 - self.order
        series = _Series.of(self.genres)
        for after in range(FOLLOWERS):
            out[np.arange(len(rows)), series.follower(items[offsets[1:] - 1], after)] += self.order / FOLLOWERS
        out[np.repeat(np.arange(len(rows)), np.diff(offsets)), items] = 0
        return out / out.sum(1, keepdims=True)


@dataclass(frozen=True, eq=False)
class _Series:
    """The items of every genre in their order.

    Attributes
    ----------
    by_genre, starts : (N,) and (G + 1,) int64
        Those of genre g are ``by_genre[starts[g]:starts[g + 1]]``, ids less 1.
    genres, places : (N,) int64
        Genre of item id i, and its place in `by_genre`, at ``i - 1``.
    """

    by_genre: Int64Array
    starts: Int64Array
    genres: Int64Array
    places: Int64Array

    @classmethod
    def of(cls, genres: Int64Array) -> _Series:
        by_genre = np.argsort(genres, kind="stable")
        places = np.empty_like(by_genre)
        places[by_genre] = np.arange(len(genres))
        return cls(by_genre, offsets_of(np.bincount(genres)), genres, places)

    def follower(self, items: npt.NDArray[np.integer], after: int | Int64Array) -> Int64Array:
        """Ids of what stands so many places behind the one after each item; the last one's is the first again."""
        genres = self.genres[items - 1]
        first, size = self.starts[genres], self.starts[genres + 1] - self.starts[genres]
        return 1 + self.by_genre[first + (self.places[items - 1] - first + 1 + after) % size]


def simulate(config: SimulationConfig | None = None) -> SimulatedData:
    """Simulated sequences with the structure planted in them; equal configurations give equal data.

    Parameters
    ----------
    config : SimulationConfig, default: SimulationConfig()

    Returns
    -------
    SimulatedData
        Its `sequences` has ``config.num_users`` rows of at least 5 items each, with times (seconds) and labels.
    """
    config = config or SimulationConfig()
    users, items = config.num_users, config.num_items
    from rsir.data import drawing  # which needs the compiled module

    # only uniform numbers are drawn: their stream stays the same from one numpy to the next
    generator = np.random.Generator(np.random.Philox(config.seed))
    random = generator.random

    num_genres = max(2, items // ITEMS_PER_GENRE)
    genre_points = 2 * np.pi * random((num_genres, 2))
    home = _draw(_zipf(num_genres, GENRE_EXPONENT), random(users)).astype(np.int32)
    user_points = _around(genre_points, home, random)
    genres = np.argsort(random(items), kind="stable") % num_genres
    popularity = _zipf(items, CHART_EXPONENT)[np.argsort(random(items), kind="stable")]
    chart = np.cumsum(popularity)
    series = _Series.of(genres)
    by_genre, starts = series.by_genre, series.starts

    lengths = _lengths(config, random(users))
    offsets = offsets_of(lengths)
    longest = int(lengths.max())
    history = memory.empty(int(offsets[-1]), np.int32)
    close = drawing.near(genre_points, REACH)
    for step in range(longest):
        waiting = np.flatnonzero(lengths > step)
        while waiting.size:
            genre = drawing.draw_genres(
                waiting, random(waiting.size), user_points, home, genre_points, *close, CONCENTRATION
            )
            place = starts[genre] + (random(waiting.size) * (starts[genre + 1] - starts[genre])).astype(np.int64)
            charted = np.searchsorted(chart, random(waiting.size) * chart[-1], side="right")
            drawn = 1 + np.where(random(waiting.size) < FROM_CHART, np.minimum(charted, items - 1), by_genre[place])
            if step and config.order:
                follows = np.flatnonzero(random(waiting.size) < config.order)
                after = (FOLLOWERS * random(follows.size)).astype(np.int64)
                drawn[follows] = series.follower(history[offsets[waiting[follows]] + step - 1], after)
            # a repeat is drawn anew, source and all, which leaves the distribution over the items not yet seen
            waiting = waiting[drawing.find_repeats(waiting, drawn.astype(np.int32), step, history, offsets)]
            memory.release()

    times = _times(generator, lengths, offsets, longest)
    sequences = Sequences(
        items=sealed(history),
        offsets=sealed(offsets),
        num_items=items,
        times=times,
        item_labels=pa.array([f"genre {genre} item {item}" for item, genre in enumerate(genres.tolist(), 1)]),
        user_labels=pc.binary_join_element_wise("user", pa.array(np.arange(1, users + 1)).cast(pa.string()), " "),
    )
    return SimulatedData(sequences, user_points, genre_points, genres, popularity, config.order)


def _around(centres: FloatArray, home: npt.NDArray[np.int32], random: Callable[..., FloatArray]) -> FloatArray:
    """Each user's angles, near those of their home genre."""
    points = np.empty((len(home), 2))
    for users in memory.blocks(len(home)):
        points[users] = centres[home[users]] + SPREAD * (2 * random((users.stop - users.start, 2)) - 1)
    return points


def _times(generator: np.random.Generator, lengths: Int64Array, offsets: Int64Array, longest: int) -> Int64Array:
    """Seconds of all events: those of a row follow each other by exponential gaps; rows begin at any time of a year."""
    state = generator.bit_generator.state
    for users in memory.blocks(len(lengths), longest):
        generator.random((users.stop - users.start, longest))
    begin = SECONDS_OBSERVED * generator.random(len(lengths))  # drawn after the gaps
    generator.bit_generator.state = state
    times = memory.empty(int(offsets[-1]), np.int64)
    for users in memory.blocks(len(lengths), longest):
        filled = np.arange(longest) < lengths[users, None]
        gaps = np.where(filled, 1 - MEAN_GAP * np.log1p(-generator.random(filled.shape)), 0)
        gaps[:, 0] += begin[users]
        times[offsets[users.start] : offsets[users.stop]] = np.cumsum(gaps, axis=1)[filled].astype(np.int64)
    return sealed(times)


def _closeness(points: FloatArray, centres: FloatArray) -> FloatArray:
    """Of each point a distribution over centres that falls with their distance on the torus."""
    affinity = np.zeros((len(points), len(centres)))
    for axis in (0, 1):
        affinity += np.cos(points[:, axis, None] - centres[:, axis])
    weights = np.exp(CONCENTRATION * affinity)
    return weights / weights.sum(1, keepdims=True)


def _zipf(n: int, exponent: float) -> FloatArray:
    """Shares of n things by Zipf's law, largest first."""
    weights = (1.0 + np.arange(n)) ** -exponent
    return weights / weights.sum()


def _draw(distribution: FloatArray, uniform: FloatArray) -> Int64Array:
    """One column for each of the numbers (B,), by the distribution (n,)."""
    cdf = np.cumsum(distribution)
    return np.searchsorted(cdf[:-1], uniform * cdf[-1], side="right")


def _lengths(config: SimulationConfig, uniform: FloatArray) -> Int64Array:
    """5 and more, geometrically; never more than half the catalogue, so that there is always something new."""
    excess = config.mean_length - MIN_LENGTH
    if excess > 0:
        excess = np.floor(np.log1p(-uniform) / np.log(excess / (1 + excess)))
    longest = max(MIN_LENGTH, min(MAX_LENGTH, config.num_items // 2))
    return np.minimum(MIN_LENGTH + np.broadcast_to(excess, uniform.shape), longest).astype(np.int64)
