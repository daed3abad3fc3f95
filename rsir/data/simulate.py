"""Simulated users with a known structure: the embedded data set, and planted truth to test against.

Each user is a point on a two-dimensional manifold, a torus; so is each genre of items. A user's taste is a
distribution over genres that falls with the distance on the torus. Within genres items follow Zipf's law. Every item
has a few successors in genres close to its own. The next item of a user is drawn

- from the taste (a genre, then an item of it), or
- from the successors of the last item, those of the user's favourite genres first, or
- in the same way from the successors of the item before the last,

and never repeats an item of the same user.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rsir.config import SimulationConfig
from rsir.data.sequences import Int32Array, Int64Array, Sequences, offsets_of

FloatArray = npt.NDArray[np.float64]

# Chosen so that the default data leaves room between popularity, a trained model and the planted truth, as sparse
# real logs do; the figures are asserted by the tests of this module.
ITEMS_PER_GENRE = 25
SUCCESSORS = 16
SUCCESSOR_SHARES = 0.95 ** np.arange(SUCCESSORS)
CONCENTRATION = 2.5  # of a user's taste and of an item's successors around their place on the torus
ZIPF_EXPONENT = 0.7
FROM_TASTE, FROM_LAST = 0.5, 0.35  # what is left goes to the item before the last
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
    taste : (U, G) float64
        Each user's distribution over genres.
    genres : (N,) int64
        Genre of item id i at ``i - 1``.
    popularity : (N,) float64
        Share of each item within its genre, at ``i - 1``.
    successors : (N, 16) int32
        Item ids that may follow item id i, at ``i - 1``, likeliest first before taste.
    """

    sequences: Sequences
    user_points: FloatArray
    genre_points: FloatArray
    taste: FloatArray
    genres: Int64Array
    popularity: FloatArray
    successors: Int32Array

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
        lengths = np.diff(offsets)
        out = np.zeros((len(rows), len(self.genres) + 1))
        out[:, 1:] = FROM_TASTE * self.taste[rows][:, self.genres] * self.popularity
        earlier = np.where(lengths > 1, 1 - FROM_TASTE - FROM_LAST, 0.0)
        for back, share in ((1, 1 - FROM_TASTE - earlier), (2, earlier)):
            latest = items[np.maximum(offsets[1:] - back, offsets[:-1])]
            followers = self.successors[latest - 1]
            weights = _successor_shares(self.taste[rows], self.genres[followers - 1])
            np.add.at(out, (np.arange(len(rows))[:, None], followers), share[:, None] * weights)
        out[np.repeat(np.arange(len(rows)), lengths), items] = 0
        return out / out.sum(1, keepdims=True)


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
    # only uniform numbers are drawn: their stream stays the same from one numpy to the next
    random = np.random.Generator(np.random.Philox(config.seed)).random

    num_genres = max(2, items // ITEMS_PER_GENRE)
    genre_points = 2 * np.pi * random((num_genres, 2))
    user_points = 2 * np.pi * random((users, 2))
    taste = _closeness(user_points, genre_points)
    genres = np.argsort(random(items), kind="stable") % num_genres
    zipf = 1.0 / (1 + np.argsort(random(items), kind="stable")) ** ZIPF_EXPONENT
    by_genre = np.argsort(genres, kind="stable")
    starts = offsets_of(np.bincount(genres, minlength=num_genres))
    popularity = zipf / np.bincount(genres, zipf, num_genres)[genres]
    item_cdf = np.cumsum(popularity[by_genre])  # genre g spans g..g + 1

    def draw_item(genre: Int64Array) -> Int32Array:
        """One item id of each genre given, by popularity."""
        place = np.searchsorted(item_cdf, genre + random(genre.shape), side="right")
        return (1 + by_genre[np.clip(place, starts[genre], starts[genre + 1] - 1)]).astype(np.int32)

    # successors may name an item twice or the item itself, which then is never drawn after itself
    near = _closeness(genre_points, genre_points)
    successors = draw_item(_draw(np.repeat(near[genres], SUCCESSORS, axis=0), random).reshape(items, SUCCESSORS))

    lengths = _lengths(config, random(users))
    history = np.zeros((users, int(lengths.max())), np.int32)
    for step in range(history.shape[1]):
        waiting = np.flatnonzero(lengths > step)
        while waiting.size:
            drawn = draw_item(_draw(taste[waiting], random))
            if step:
                source = random(waiting.size)
                for back in (1, 2):
                    chosen = source >= FROM_TASTE if back == 1 else source >= FROM_TASTE + FROM_LAST
                    rows = waiting[chosen] if step >= back else waiting[:0]
                    if rows.size:
                        followers = successors[history[rows, step - back] - 1]
                        picked = _draw(_successor_shares(taste[rows], genres[followers - 1]), random)
                        drawn[chosen] = followers[np.arange(rows.size), picked]
            history[waiting, step] = drawn
            # a repeat is drawn anew, source and all, which leaves the distribution over the items not yet seen
            waiting = waiting[(history[waiting, :step] == drawn[:, None]).any(1)]

    filled = np.arange(history.shape[1]) < lengths[:, None]
    gaps = np.where(filled, 1 - MEAN_GAP * np.log1p(-random(history.shape)), 0)
    gaps[:, 0] += SECONDS_OBSERVED * random(users)
    sequences = Sequences(
        items=history[filled],
        offsets=offsets_of(lengths),
        num_items=items,
        times=np.cumsum(gaps, axis=1)[filled].astype(np.int64),
        item_labels=pa.array([f"genre {genre} item {item}" for item, genre in enumerate(genres.tolist(), 1)]),
        user_labels=pa.array([f"user {user}" for user in range(1, users + 1)]),
    )
    return SimulatedData(sequences, user_points, genre_points, taste, genres, popularity, successors)


def _closeness(points: FloatArray, centres: FloatArray) -> FloatArray:
    """Of each point a distribution over centres that falls with their distance on the torus."""
    affinity = np.zeros((len(points), len(centres)))
    for axis in (0, 1):
        affinity += np.cos(points[:, axis, None] - centres[:, axis])
    weights = np.exp(CONCENTRATION * affinity)
    return weights / weights.sum(1, keepdims=True)


def _successor_shares(taste: FloatArray, genres: Int64Array) -> FloatArray:
    """Distribution over the successors (B, 16) of one item each, given their genres and the users' taste."""
    weights = SUCCESSOR_SHARES * np.take_along_axis(taste, genres, axis=1)
    return weights / weights.sum(1, keepdims=True)


def _draw(distributions: FloatArray, random: Callable[[tuple[int, int]], FloatArray]) -> Int64Array:
    """One column of each row (B, n), by its distribution."""
    cdf = np.cumsum(distributions, axis=1)
    return (cdf[:, :-1] <= random((len(cdf), 1)) * cdf[:, -1:]).sum(1)


def _lengths(config: SimulationConfig, uniform: FloatArray) -> Int64Array:
    """5 and more, geometrically; never more than half the catalogue, so that there is always something new."""
    excess = config.mean_length - MIN_LENGTH
    if excess > 0:
        excess = np.floor(np.log1p(-uniform) / np.log(excess / (1 + excess)))
    longest = max(MIN_LENGTH, min(MAX_LENGTH, config.num_items // 2))
    return np.minimum(MIN_LENGTH + np.broadcast_to(excess, uniform.shape), longest).astype(np.int64)
