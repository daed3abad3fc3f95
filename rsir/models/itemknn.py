"""The item-kNN: a recommender that is counted in one pass over the sequences and not trained.

It is no backbone of the registry, whose models are trained by gradients. As a :class:`rsir.models.Backbone` it has
embeddings of 0, to which it adds its scores: whatever evaluates or recommends takes it as any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rsir.config.counting import ItemKnnConfig
from rsir.config.values import choice
from rsir.data.io.items import ItemVectors
from rsir.data.sequences import Sequences, item_popularity, offsets_of, ragged_indices
from rsir.errors import BackboneError, DataError
from rsir.models.cold_items import Lists, cold_items, with_cold_items
from rsir.models.itemknn_reference import ReferenceItemKnn, reference_with_cold_items
from rsir.models.protocol import Backbone, HistoryBackbone, IncrementalBackbone, PrefixBackbone
from rsir.models.times import given, uses_times
from rsir.ops import Ragged, SparseScores
from rsir.ops.backend import load
from rsir.ops.checks import thread_count

__all__ = ["ItemKnn", "Shares", "Unseen", "WithItemKnn", "network_of", "with_vote"]

_ALL = 2**40
_FLOOR = 1e-4  # what an item that is not listed counts as: the logarithm of a share of 0 is taken of this


@dataclass(frozen=True, eq=False)
class Shares:
    """For each history the items that its own go with, and what share of the summed values each has.

    Attributes
    ----------
    ids : (nnz,) int32
        By ascending id in each row; items that are not listed have share 0.
    values : (nnz,) float32
        Above 0; a row's sum to 1 unless some were left out.
    offsets : (n + 1,) int64
        Row r owns entries ``offsets[r] .. offsets[r + 1] - 1``; empty where nothing is known of a history's items.
    """

    ids: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]
    offsets: npt.NDArray[np.int64]


class ItemKnn:
    """Which items go with which, counted over sequences; what that says of the next item after a history.

    Let A[a, b] be the sum over pairs of a, and b at a distance g <= window after it, of decay**(g - 1);
    B = A + backward * A'; n the occurrences. Then b goes with a by
    S[a, b] = n_a**-history_exponent * B[a, b] * n_b**-item_exponent, and the score of b after a history is the sum over
    its items of age_decay**age * S[item, b], where the newest item has age 0.

    Attributes
    ----------
    num_items : int
    max_len : int
        Items of a history that are looked at.
    config : ItemKnnConfig
        None of its parameters is none.
    counted
        The lists before cold items were added to them; ``lists`` themselves where there are none.
    """

    def __init__(self, lists: Any, config: ItemKnnConfig, counted: Any = None) -> None:
        self.lists, self.num_items = lists, int(lists.num_items)
        self.config, self.max_len = config.filled(), config.newest
        self.counted = lists if counted is None else counted

    @classmethod
    def fit(
        cls,
        train: Sequences,
        config: ItemKnnConfig | None = None,
        *,
        items: ItemVectors | None = None,
        backend: Literal["auto", "cpp", "reference"] = "auto",
        threads: int | None = None,
    ) -> ItemKnn:
        """Count sequences.

        Parameters
        ----------
        train : Sequences
        config : ItemKnnConfig, optional
            Parameters that are none have their fixed values; nothing is searched.
        items : ItemVectors, optional
            With vectors, an item without an event is counted as its nearest seen ones (``config.cold_neighbours``).
        backend : {"auto", "cpp", "reference"}
            "reference" holds (N + 1)**2 doubles; "auto" is "cpp".
        threads : int, optional
            Default: torch's number. The result is the same for any.

        Returns
        -------
        ItemKnn
            Its memory is 8 bytes for each pair of items that was seen, at most ``config.neighbours`` an item.
        """
        config = (ItemKnnConfig() if config is None else config).filled()
        choice("backend", backend, ("auto", "cpp", "reference"))
        counter = _counter(backend)
        lists = counter.fit(
            train.items,
            train.offsets,
            train.num_items,
            config.window,
            config.decay,
            config.backward,
            config.history_exponent,
            config.item_exponent,
            config.neighbours,
            thread_count(threads),
        )
        if items is None or not config.cold_neighbours:
            return cls(lists, config)
        cold = cold_items(items, item_popularity(train), config.cold_neighbours, threads=threads)
        if not cold.weights.any():
            return cls(lists, config)
        add = reference_with_cold_items if backend == "reference" else with_cold_items
        return cls(counter(*add(_arrays(lists), cold, config.neighbours)), config, lists)

    def __reduce__(self) -> tuple[Any, ...]:
        # what is compiled has none; a model with a vote is copied and pickled as any other
        counted = None if self.counted is self.lists else _arrays(self.counted)
        return _rebuilt, (type(self.lists), _arrays(self.lists), self.config, counted)

    def shares(
        self,
        items: npt.NDArray[np.int32],
        offsets: npt.NDArray[np.int64],
        *,
        most: int | None = None,
        without_own: bool = False,
        threads: int | None = None,
    ) -> Shares:
        """Score histories.

        Parameters
        ----------
        items : (nnz,) int32
        offsets : (n + 1,) int64
            History r is ``items[offsets[r]:offsets[r + 1]]``, oldest first.
        most : int, optional
            List at most so many items a history, those of the largest shares.
        without_own : bool, default False
            Leave out the items of the history; shares are of what is left.
        threads : int, optional
            Default: torch's number.
        """
        return self.shares_between(
            items, offsets[:-1], offsets[1:], most=most, without_own=without_own, threads=threads
        )

    def shares_between(
        self,
        items: npt.NDArray[np.int32],
        begins: npt.NDArray[np.int64],
        ends: npt.NDArray[np.int64],
        *,
        most: int | None = None,
        without_own: bool = False,
        threads: int | None = None,
    ) -> Shares:
        """The same for histories ``items[begins[r]:ends[r]]``, which may overlap, as prefixes of a sequence do."""
        try:
            found = self.lists.score(
                np.ascontiguousarray(items, np.int32),
                np.ascontiguousarray(begins, np.int64),
                np.ascontiguousarray(ends, np.int64),
                self.config.age_decay,
                self.config.newest,
                _ALL if most is None else most,
                without_own,
                thread_count(threads),
            )
        except ValueError as cause:
            raise DataError(f"histories: {cause}") from cause
        return Shares(*found)

    def logarithms(self, histories: Ragged) -> tuple[Ragged, Tensor]:
        """What a vote of weight 1 adds to the logits of the items that it lists: log((share + 1e-4) / 1e-4).

        Parameters
        ----------
        histories : Ragged
            As for :class:`rsir.models.AddingBackbone`.

        Returns
        -------
        listed : Ragged
            int32 ids, ascending in each row, at most ``config.listed`` a history; on the CPU.
        values : (nnz,) float64
        """
        found = self.shares(histories.ids.numpy(), histories.offsets.numpy(), most=self.config.listed)
        values = np.log1p(found.values.astype(np.float64) / _FLOOR)
        return Ragged(torch.from_numpy(found.ids), torch.from_numpy(found.offsets)), torch.from_numpy(values)

    def encode(self, items: Tensor, lengths: Tensor) -> Tensor:
        """(B, 1) zeros; see :class:`rsir.models.Backbone`."""
        return torch.zeros(len(items), 1)

    def item_embeddings(self) -> Tensor:
        """(N + 1, 1) zeros."""
        return torch.zeros(self.num_items + 1, 1)

    def added_scores(self, histories: Ragged) -> SparseScores:
        """The shares; see :class:`rsir.models.AddingBackbone`."""
        found = self.shares(histories.ids.numpy(), histories.offsets.numpy(), most=self.config.listed)
        return SparseScores(*map(torch.from_numpy, (found.ids, found.offsets, found.values)))


def _arrays(lists: Any) -> Lists:
    return lists.ids, lists.values, lists.offsets


def _rebuilt(kind: Any, lists: Lists, config: ItemKnnConfig, counted: Lists | None) -> ItemKnn:
    return ItemKnn(kind(*lists), config, None if counted is None else kind(*counted))


def _counter(backend: str) -> Any:
    """The class that counts; BackendUnavailable where the compiled module was not built."""
    if backend == "reference":
        return ReferenceItemKnn
    load("cpp")
    from rsir import _core

    return _core.ItemKnn


class Unseen:
    """The item-kNN as it would be if one user's sequence had not been counted, for each user in turn.

    A user's own pairs and occurrences are taken out of the counts when a history is scored, which is exact but for the
    rounding of float32, and for what the full count cut off at ``neighbours``. Items without an event have no score.

    Parameters
    ----------
    knn : ItemKnn
    train : Sequences
        What was counted.
    """

    def __init__(self, knn: ItemKnn, train: Sequences) -> None:
        if knn.num_items != train.num_items:
            raise DataError(f"train: expected the {knn.num_items} items of the count, got {train.num_items}")
        self.knn, self.train = knn, train
        self.occurrences = item_popularity(train)

    def ranks(
        self,
        users: npt.NDArray[np.int64],
        histories: Ragged,
        targets: Ragged,
        tau: int,
        *,
        threads: int | None = None,
    ) -> npt.NDArray[np.int64]:
        """The rank of each row's best target after its history, by the count of all users but one.

        Parameters
        ----------
        users : (n,) int64
            Row of ``train`` that is left out.
        histories, targets : Ragged
            n lists; oldest first. Items of a history compete with no target.
        tau : int
            At least 1.
        threads : int, optional
            Default: torch's number.

        Returns
        -------
        ranks : (n,) int64
            At most tau + 1, which is also that of rows whose targets have no score. Of scores that differ by less than
            a millionth the lower id comes first.
        """
        config, offsets = self.knn.config, self.train.offsets
        lengths = offsets[users + 1] - offsets[users]
        own = self.train.items[ragged_indices(offsets[users], lengths)]
        lists = [
            array
            for ids, starts in (histories, targets)
            for array in (ids.cpu().numpy().astype(np.int32, copy=False), starts.cpu().numpy())
        ]
        found: npt.NDArray[np.int64] = self.knn.counted.ranks_unseen(
            self.occurrences,
            own,
            offsets_of(lengths),
            *lists,
            config.window,
            config.decay,
            config.backward,
            config.history_exponent,
            config.item_exponent,
            config.age_decay,
            config.newest,
            tau,
            thread_count(threads),
        )
        return found


class WithItemKnn(nn.Module):
    """A network and the item-kNN as one recommender: a sum of log-probabilities, the count's weighted.

    The score of an item is its logit + weight * log((share + 1e-4) / 1e-4): that of the network alone for all items
    that the count does not list. So it is exact at the cost of a few items a history.

    Parameters
    ----------
    network : Backbone
        In its place as a backbone; it trains without the count, and generates with it only where
        ``generation.generator`` says so.
    knn : ItemKnn
    weight : float
        At least 0.
    """

    def __init__(self, network: Backbone, knn: ItemKnn, weight: float) -> None:
        super().__init__()
        if network.num_items != knn.num_items:
            raise BackboneError(
                f"knn: expected a count of {network.num_items} items as the network has, got one of {knn.num_items}"
            )
        self.network: Any = network
        self.knn, self.weight = knn, weight
        self.num_items, self.max_len = network.num_items, network.max_len
        self.uses_times = uses_times(network)
        if isinstance(network, IncrementalBackbone):
            self.new_state, self.step = network.new_state, network.step
        if isinstance(network, HistoryBackbone):
            self.encode_histories = network.encode_histories
        if isinstance(network, PrefixBackbone):
            self.encode_prefixes = network.encode_prefixes
        self.eval()

    @classmethod
    def alone(cls, knn: ItemKnn) -> WithItemKnn:
        """The count beside a network that has no opinion: logarithms of shares as logits."""
        return cls(knn, knn, 1.0)

    def encode(self, items: Tensor, lengths: Tensor, times: Tensor | None = None) -> Tensor:
        """Query of the network after each history; see :class:`rsir.models.Backbone`."""
        query: Tensor = self.network.encode(items, lengths, **given(self.network, times))
        return query

    def item_embeddings(self) -> Tensor:
        """Those of the network, (N + 1, d) float32."""
        embeddings: Tensor = self.network.item_embeddings()
        return embeddings

    def added_scores(self, histories: Ragged) -> SparseScores:
        """The count's part of the scores; see :class:`rsir.models.AddingBackbone`."""
        listed, logarithms = self.knn.logarithms(histories)
        device = self.network.item_embeddings().device
        values = (self.weight * logarithms).float()
        return SparseScores(*(tensor.to(device) for tensor in (*listed, values)))


def with_vote(network: Any, knn: ItemKnn | None, weight: float) -> Any:
    """A network, and the item-kNN beside it where its vote has a weight."""
    return WithItemKnn(network, knn, weight) if knn is not None and weight > 0 else network


def network_of(model: Any) -> Any:
    """A recommender without the item-kNN's vote."""
    return model.network if isinstance(model, WithItemKnn) else model
