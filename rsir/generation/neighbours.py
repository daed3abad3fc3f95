"""Approximate nearest neighbours: the item-item graph, and an index of likely items.

The only module that imports FAISS. A GPU build of FAISS that sees a GPU clusters the items there; that path is written
to FAISS's documentation and has not been run on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import faiss as _faiss
import numpy as np
import torch
from torch import Tensor

from rsir import ops
from rsir.ops import ItemTable, Ragged, TopK
from rsir.runtime.world import ALONE, World

faiss: Any = _faiss  # its type stubs know the C++ signatures, not the Python ones

__all__ = ["CandidateIndex", "index_bytes", "neighbour_graph"]

_METHODS = ("auto", "flat", "ivf")

GRAPH_FLAT_LIMIT = 50_000
"""Largest catalogue whose graph "auto" builds by the exact all-pairs scan on a CPU: there both take 2 processor seconds
(d = 64, K = 20); at 100,000 items flat takes 7.6 and ivf 2.9."""

INDEX_FLAT_LIMIT = 200_000
"""Largest catalogue for which "auto" leaves out the index: there proofs gain less than a fifth over the exact scan with
early exit, and at 20,000 items they lose half."""

_GRAPH_POOL = 16_384
"""Items an IVF graph compares each item with. Clustered items need 4,096; embeddings of a SASRec trained on 12,000
items found 0.91 of their neighbours among 4,096 and 0.98 among 8,192."""

_MOST_LISTS = 2048
"""Of an index: twice the square root of 1,000,000 items. For 10,000,000 more of them take longer to build than they
save."""

_ROWS = 1 << 16
"""Items handed to an index at a time."""

_TILE = 1024
"""Centroids compared with all others at once."""


def neighbour_graph(
    items: Tensor | np.ndarray,
    neighbours: int,
    *,
    method: Literal["auto", "flat", "ivf"] = "auto",
    threads: int | None = None,
    seed: int = 0,
    world: World = ALONE,
) -> np.ndarray:
    """The nearest other items of every item, by cosine similarity.

    Cosine and not the inner product that the embeddings were trained for: their norms carry popularity, and by inner
    product a few popular items would be everyone's neighbours, so that nearly any step towards them would count as
    staying on a user's manifold. An item with a zero embedding has similarity 0 to every other.

    Parameters
    ----------
    items : (N + 1, d) float32
        Item embeddings; row 0 is padding.
    neighbours : int
        K, at least 1; may exceed N - 1.
    method : {"auto", "flat", "ivf"}
        flat compares all pairs by :func:`rsir.ops.topk` (exact; runs where the items are). ivf compares each item
        with the clusters nearest to its own. auto takes flat up to 50,000 items on a CPU and at any size on a GPU,
        else ivf.
    threads : int, optional
        Default: torch's number. Changes nothing but the time.
    seed : int
        Seed of the clustering (ivf), at least 0.
    world : World, optional
        Processes that call this together, with the same arguments: they divide the items, and each returns what one
        process would.

    Returns
    -------
    (N + 1, K) int32
        Nearest first, among equals the lower id first (flat), the item itself left out. Row 0 is 0, and 0
        fills up places beyond N - 1.

    Raises
    ------
    ValueError
        Wrong shape, dtype or number; an embedding that is not finite (names the item).
    """
    items = _checked_items(items)
    threads = torch.get_num_threads() if threads is None else at_least("threads", threads, 1)
    neighbours = at_least("neighbours", neighbours, 1)
    seed = at_least("seed", seed, 0)
    if _choice(method) == "auto":
        method = "flat" if items.is_cuda or len(items) - 1 <= GRAPH_FLAT_LIMIT else "ivf"
    unit = _unit_rows(items)
    reach = min(neighbours, len(items) - 2)
    graph = np.zeros((len(items), neighbours), dtype=np.int32)
    if reach > 0:
        if method == "flat":
            _fill_flat(graph, unit, reach, threads, world)
        else:
            _fill_ivf(graph, unit.cpu(), reach, threads, seed, world)
    return graph


def _fill_flat(graph: np.ndarray, unit: Tensor, reach: int, threads: int, world: World) -> None:
    table = ops.pack(unit)
    parts = world.parts(len(unit) - 1, 65_536)  # bounds the buffers of ids and logits
    for number in world.claims(len(parts)):
        block = torch.arange(1 + parts[number].start, 1 + parts[number].stop, device=unit.device)
        best = ops.topk(unit[block], table, reach, excluded=_one_each(block), threads=threads)
        graph[1:][parts[number], :reach] = best.ids.cpu().numpy()
    world.all_reduce(torch.from_numpy(graph))


def _fill_ivf(graph: np.ndarray, unit: Tensor, reach: int, threads: int, seed: int, world: World) -> None:
    """Each cluster's items against one shared pool, the nearest clusters, as a blocked product: 7 times the speed of a
    FAISS search per item that visits as many."""
    lists = _Lists.build(unit, threads, seed, spherical=True)
    size = max(_GRAPH_POOL, 4 * reach)
    centroids = ops.pack(torch.nn.functional.pad(lists.centroids, (0, 0, 1, 0)))
    ids, offsets, sizes = lists.order.numpy(), lists.offsets.numpy(), lists.sizes.numpy()
    vectors = unit.numpy()[ids]  # cluster by cluster, so that a pool is a few copies of whole slices
    parts = world.parts(len(lists), _TILE)
    for number in world.claims(len(parts)):
        tile = lists.centroids[parts[number]]
        around = ops.topk(tile, centroids, len(lists), threads=threads).ids.numpy() - 1
        for cluster, near in enumerate(around, parts[number].start):
            near = np.concatenate([[cluster], near[near != cluster]])
            near = near[: 1 + np.searchsorted(sizes[near].cumsum(), size)]
            slices = [slice(offsets[c], offsets[c + 1]) for c in near]
            pool = np.concatenate([[0], *(ids[part] for part in slices)])
            table = np.concatenate([vectors[:1], *(vectors[part] for part in slices)])
            own = torch.arange(1, 1 + sizes[cluster])
            members = torch.from_numpy(vectors[slices[0]])
            best = ops.topk(members, torch.from_numpy(table), reach, excluded=_one_each(own), threads=threads)
            graph[ids[slices[0]], :reach] = pool[best.ids.numpy()]
    world.all_reduce(torch.from_numpy(graph))


class CandidateIndex:
    """Items likely to score highest against a query, for large catalogues on a CPU.

    Parameters
    ----------
    items : (N + 1, d) float32 or ItemTable
        A snapshot: build the index anew after the embeddings change. Packed items are shared, not copied.
    method : {"auto", "flat", "ivf"}
        flat is the exact scan and no index at all; ivf clusters the items. auto takes flat up to 200,000 items, else
        ivf.
    probes : int
        Lists an ivf search visits (of about twice the square root of N, at most 2,048). At 1,000,000 items 4 proves
        95% of the failing rows, 8 prove 98% and take as long as they save; more are worth their time where what is not
        proved is trusted.
    threads : int, optional
        For building. Default: torch's number.
    seed : int
        Seed of the clustering.

    Raises
    ------
    ValueError
        Wrong shape, dtype, device or number; an embedding that is not finite (names the item).
    """

    def __init__(
        self,
        items: Tensor | ItemTable,
        *,
        method: Literal["auto", "flat", "ivf"] = "auto",
        probes: int = 4,
        threads: int | None = None,
        seed: int = 0,
    ) -> None:
        table = items if isinstance(items, ItemTable) else ops.pack(_checked_items(items))
        if table.backend.name == "sharded":
            raise ValueError("items: expected one table, got a sharded one: its scan is divided, and needs no index")
        _check_finite(table.weights)
        if table.weights.is_cuda:
            raise ValueError("items are on cuda: use ops.rank_within, which scans there faster than FAISS on the CPU")
        threads = torch.get_num_threads() if threads is None else at_least("threads", threads, 1)
        self.table = table
        self.probes = at_least("probes", probes, 1)
        self.method: str = _choice(method)
        if method == "auto":
            self.method = "flat" if self.table.num_items <= INDEX_FLAT_LIMIT else "ivf"
        self.largest_norm = max(torch.linalg.vector_norm(part, dim=1).amax() for _, part in self._scored())
        if self.method == "ivf":
            # a squared distance between two items must be a number, or FAISS ends the process
            most = (torch.finfo(torch.float32).max / (4 * self.table.dim)) ** 0.5
            if self.largest_norm > most:
                raise ValueError(
                    f"items: expected norms of at most {most:.3g} to cluster, got {float(self.largest_norm):.3g}; "
                    "did the training diverge?"
                )
            self._build_ivf(threads, at_least("seed", seed, 0))

    def _scored(self) -> Iterator[tuple[int, Tensor]]:
        """(id of the first, items (n, d) float32) as the table holds them: rounded, where it is of half precision."""
        for first in range(1, self.table.num_items + 1, _ROWS):
            part = self.table.weights[first : first + _ROWS].detach()
            yield first, part.to(self.table.dtype).float()

    def _build_ivf(self, threads: int, seed: int) -> None:
        weights = self.table.weights.detach().float()
        # Lists are compact in L2 and probed by inner product: a centroid's logit is the mean logit of its list.
        lists = _Lists.build(weights, threads, seed, spherical=False, most=_MOST_LISTS)
        self._centroids = ops.pack(torch.nn.functional.pad(lists.centroids, (0, 0, 1, 0)))
        self._quantizer = faiss.IndexFlatIP(self.table.dim)  # kept here: FAISS holds a bare pointer to it
        self._quantizer.add(lists.centroids.numpy())
        self._ivf = _empty_ivf(self._quantizer, len(lists), half=self.table.dtype == torch.float16)
        for first, part in self._scored():
            assigned = lists.assigned[first - 1 : first - 1 + len(part)].numpy()
            arrays = part.contiguous().numpy(), np.arange(first, first + len(part)), assigned
            self._ivf.add_core(len(part), *map(faiss.swig_ptr, arrays))

    def search(self, queries: Tensor, k: int, *, threads: int | None = None) -> TopK:
        """Items likely to be the k best of each query, best first; a row's answer does not depend on its batch.

        Parameters
        ----------
        queries : (B, d) float32
        k : int
            At least 1.
        threads : int, optional
            Default: torch's number.

        Returns
        -------
        TopK
            ids (B, k) int64, 0 where fewer were found, and their logits (B, k) float32 (-inf there). Exact if flat;
            else the logits may differ from the ops' in their last bits.
        """
        threads = torch.get_num_threads() if threads is None else at_least("threads", threads, 1)
        k = at_least("k", k, 1)
        if self.method == "flat":
            return ops.topk(queries, self.table, k, threads=threads)
        # The lists come from our op and not from FAISS, whose choice in a close call depends on the batch.
        near = ops.topk(queries, self._centroids, min(self.probes, len(self._centroids.weights) - 1), threads=threads)
        self._ivf.nprobe = near.ids.shape[1]
        with _faiss_threads(threads):
            logits, found = self._ivf.search_preassigned(queries.detach().numpy(), k, near.ids.numpy() - 1, None)
        return _found(found, logits)


def index_bytes(items: Tensor) -> bytes:
    """A flat FAISS index of all items by inner product, whose ids are the item ids, as FAISS writes it to a file.

    Parameters
    ----------
    items : (N + 1, d) float32
        Row 0 is padding and left out.

    Raises
    ------
    ValueError
        Wrong shape or dtype, or an embedding that is not finite.
    """
    vectors = _checked_items(items).cpu()[1:].numpy()
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
    index.add_with_ids(vectors, np.arange(1, len(vectors) + 1))
    content: bytes = faiss.serialize_index(index).tobytes()
    return content


@dataclass(frozen=True)
class _Lists:
    """A partition of the items into clusters."""

    centroids: Tensor
    """(C, d) float32."""
    assigned: Tensor
    """(N,) int64: cluster of item i + 1."""
    order: Tensor
    """(N,) int64: item ids, cluster by cluster, rising within each."""
    offsets: Tensor
    """(C + 1,) int64."""
    sizes: Tensor
    """(C,) int64."""

    @classmethod
    def build(cls, items: Tensor, threads: int, seed: int, *, spherical: bool, most: int = 1 << 30) -> _Lists:
        vectors = items[1:].numpy()
        count = min(most, 1 << max(0, round(np.log2(2 * len(vectors) ** 0.5)) if len(vectors) > 64 else 0))
        with _faiss_threads(threads):
            # 64 points a cluster are plenty for a partition, and keep training a small part of the whole.
            kmeans = faiss.Kmeans(
                vectors.shape[1],
                count,
                niter=10,
                seed=seed % 2**31,
                spherical=spherical,
                min_points_per_centroid=1,
                max_points_per_centroid=64,
                gpu=int(_has_gpu()),  # how many
            )
            kmeans.train(vectors)
            _, nearest = kmeans.index.search(vectors, 1)
        assigned = torch.from_numpy(nearest[:, 0].copy())
        sizes = torch.bincount(assigned, minlength=count)
        offsets = torch.nn.functional.pad(sizes.cumsum(0), (1, 0))
        return cls(torch.from_numpy(kmeans.centroids), assigned, assigned.argsort(stable=True) + 1, offsets, sizes)

    def __len__(self) -> int:
        return len(self.sizes)


def _empty_ivf(quantizer: Any, count: int, *, half: bool) -> Any:
    """An index of so many lists, without items; of half precision, which rounds no item that is of it already."""
    if not half:
        return faiss.IndexIVFFlat(quantizer, quantizer.d, count, faiss.METRIC_INNER_PRODUCT)
    kind = faiss.ScalarQuantizer.QT_fp16
    index = faiss.IndexIVFScalarQuantizer(quantizer, quantizer.d, count, kind, faiss.METRIC_INNER_PRODUCT, False)
    index.is_trained = True  # there is nothing to learn
    return index


def _has_gpu() -> bool:
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


def _found(ids: np.ndarray, logits: np.ndarray) -> TopK:
    """FAISS marks an empty place by a negative id; here it is id 0 at -inf."""
    missing = ids < 1
    return TopK(
        *(torch.from_numpy(np.where(missing, empty, x)) for x, empty in ((ids, 0), (logits, np.float32(-np.inf))))
    )


@contextmanager
def _faiss_threads(threads: int) -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _one_each(ids: Tensor) -> Ragged:
    return Ragged(ids, torch.arange(len(ids) + 1, device=ids.device))


def _unit_rows(items: Tensor) -> Tensor:
    """Rows of length 1 (or 0), whatever their scale: dividing by the largest entry first keeps squares in range."""
    largest = items.abs().amax(dim=1, keepdim=True)
    scaled = items / torch.where(largest > 0, largest, 1)
    norms = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    unit = scaled / torch.where(norms > 0, norms, 1)
    unit[0] = 0
    return unit


def _checked_items(items: Tensor | np.ndarray) -> Tensor:
    table = torch.from_numpy(items) if isinstance(items, np.ndarray) else items.detach()
    if table.dtype != torch.float32:
        raise ValueError(f"items: expected float32, got {table.dtype}; convert with .float() or .astype(np.float32)")
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[1] < 1:
        raise ValueError(
            f"items: expected (N + 1, d) with N >= 1 and d >= 1 (row 0 is padding), got {tuple(table.shape)}"
        )
    _check_finite(table)
    return table.contiguous()


def _check_finite(table: Tensor) -> None:
    parts = (table[first : first + _ROWS].isfinite().all(dim=1) for first in range(1, len(table), _ROWS))
    odd = (~torch.cat(list(parts))).nonzero()[:, 0] + 1
    if len(odd):
        raise ValueError(
            f"items: the embedding of item {int(odd[0])} is not finite ({len(odd)} such items): has training diverged?"
        )


def at_least(name: str, value: int, least: int) -> int:
    if isinstance(value, bool) or int(value) != value or value < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")
    return int(value)


def _choice(method: str) -> str:
    if method not in _METHODS:
        raise ValueError(f"method: expected one of {list(_METHODS)}, got {method!r}")
    return method
