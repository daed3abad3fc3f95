"""The item-item graph and the candidate index of rsir.generation.neighbours, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rsir import ops
from rsir.generation import neighbours as ann
from rsir.generation.neighbours import CandidateIndex, neighbour_graph

METHODS = ["flat", "ivf"]


def table(num_items: int, dim: int, seed: int = 0) -> torch.Tensor:
    """(N + 1, d) items around a few centres; the padding row holds what must never be read as an item."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((8, dim))
    items = centres[random.integers(8, size=num_items + 1)] + 0.3 * random.standard_normal((num_items + 1, dim))
    items[0] = 100
    return torch.from_numpy(items.astype(np.float32))


def brute_force_graph(items: np.ndarray, neighbours: int) -> np.ndarray:
    """Cosine in float64, sorted stably, the item itself left out."""
    items = items.astype(np.float64)
    norms = np.linalg.norm(items, axis=1, keepdims=True)
    unit = items / np.where(norms > 0, norms, 1)
    graph = np.zeros((len(items), neighbours), np.int32)
    for item in range(1, len(items)):
        others = np.delete(np.arange(1, len(items)), item - 1)
        ranked = others[np.argsort(-(unit[others] @ unit[item]), kind="stable")][:neighbours]
        graph[item, : len(ranked)] = ranked
    return graph


def overlap(graph: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(graph[1:], truth[1:], strict=True)]))


class TestNeighbourGraph:
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize(("num_items", "dim", "neighbours"), [(1, 3, 2), (2, 1, 1), (7, 3, 6), (60, 5, 4)])
    def test_small_catalogues_match_brute_force(self, method, num_items, dim, neighbours):
        items = table(num_items, dim, seed=num_items)
        graph = neighbour_graph(items, neighbours, method=method)
        assert graph.shape == (num_items + 1, neighbours)
        assert graph.dtype == np.int32
        if dim == 1:
            assert graph[1:].tolist() == [[2], [1]]
        else:
            np.testing.assert_array_equal(graph, brute_force_graph(items.numpy(), neighbours))

    @pytest.mark.parametrize("method", METHODS)
    def test_more_neighbours_than_items_pads_with_zeros(self, method):
        graph = neighbour_graph(table(5, 4), 9, method=method)
        assert (graph[0] == 0).all()
        assert (graph[1:, 4:] == 0).all()
        for item in range(1, 6):
            assert sorted(graph[item, :4]) == sorted({1, 2, 3, 4, 5} - {item})

    @pytest.mark.parametrize("method", ["flat", "ivf"])
    def test_equal_items_rank_by_id(self, method):
        items = torch.ones(31, 4)
        graph = neighbour_graph(items, 5, method=method)
        np.testing.assert_array_equal(graph, brute_force_graph(items.numpy(), 5))

    def test_duplicates_are_each_others_nearest(self):
        items = table(40, 6)
        items[7] = items[31] = items[19]
        graph = neighbour_graph(items, 3)
        assert graph[7, :2].tolist() == [19, 31]
        assert graph[31, :2].tolist() == [7, 19]

    @pytest.mark.parametrize("method", METHODS)
    def test_zero_and_extreme_embeddings(self, method):
        items = table(30, 4)
        items[3] = 0
        items[4] = items[5] * 1e30
        items[6] *= 1e-38
        graph = neighbour_graph(items, 4, method=method)
        assert (graph[1:] > 0).all()
        assert graph[4, 0] == 5
        if method == "flat":
            assert graph[3].tolist() == [1, 2, 4, 5]  # similarity 0 to all: by id

    def test_norms_do_not_matter(self):
        items = table(50, 8)
        louder = items * torch.rand(51, 1).add(0.5)
        np.testing.assert_array_equal(neighbour_graph(items, 5), neighbour_graph(louder, 5))

    def test_larger_catalogues_are_nearly_exact(self):
        items = table(3000, 16)
        graph = neighbour_graph(items, 10, method="ivf")
        assert overlap(graph, neighbour_graph(items, 10, method="flat")) > 0.97
        assert (graph[1:] != np.arange(1, 3001)[:, None]).all()
        assert all(len(set(row)) == 10 for row in graph[1:])

    @pytest.mark.parametrize("method", METHODS)
    def test_threads_and_repetition_change_nothing(self, method):
        items = table(3000, 16)
        one = neighbour_graph(items, 6, method=method, threads=1)
        np.testing.assert_array_equal(one, neighbour_graph(items, 6, method=method, threads=2))
        np.testing.assert_array_equal(one, neighbour_graph(items, 6, method=method, threads=2))

    def test_pools_wider_than_the_catalogue_and_narrow_ones(self, monkeypatch):
        items = table(500, 8)
        exact = neighbour_graph(items, 5, method="flat")
        np.testing.assert_array_equal(neighbour_graph(items, 5, method="ivf"), exact)
        monkeypatch.setattr("rsir.generation.neighbours._GRAPH_POOL", 1)
        narrow = neighbour_graph(items, 200, method="ivf")
        assert (narrow[1:] > 0).all()  # the pool grows until it holds K others

    def test_accepts_numpy_and_non_contiguous(self):
        items = table(20, 6)
        expected = neighbour_graph(items, 3)
        np.testing.assert_array_equal(neighbour_graph(items.numpy(), 3), expected)
        np.testing.assert_array_equal(neighbour_graph(items.T.contiguous().T, 3), expected)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_odd_embeddings_are_named(self, value):
        items = table(20, 6)
        items[13, 2] = items[17, 0] = value
        with pytest.raises(ValueError, match=r"item 13 is not finite \(2 such"):
            neighbour_graph(items, 3)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"items": torch.ones(5, 3, dtype=torch.float64)}, "float32, got torch.float64"),
            ({"items": torch.ones(5)}, r"\(N \+ 1, d\)"),
            ({"items": torch.ones(1, 3)}, "N >= 1"),
            ({"neighbours": 0}, "neighbours: expected a whole number of at least 1, got 0"),
            ({"method": "annoy"}, "one of .*'ivf'.* got 'annoy'"),
            ({"threads": 0}, "threads"),
            ({"seed": -1}, "seed"),
        ],
    )
    def test_wrong_arguments(self, change, message):
        with pytest.raises(ValueError, match=message):
            neighbour_graph(**{"items": torch.ones(5, 3), "neighbours": 2, **change})

    def test_auto_goes_by_size(self, monkeypatch):
        items = table(300, 8)
        monkeypatch.setattr("rsir.generation.neighbours.GRAPH_FLAT_LIMIT", 299)
        monkeypatch.setattr("rsir.generation.neighbours._fill_flat", None)
        assert (neighbour_graph(items, 3)[1:] > 0).all()


class TestCandidateIndex:
    @pytest.mark.parametrize("method", METHODS)
    def test_finds_nearly_the_best(self, method):
        items = table(3000, 16)
        queries = items[5:400:7] + 0.1
        index = CandidateIndex(items, method=method, probes=16)
        assert index.method == method
        found = index.search(queries, 10)
        truth = ops.topk(queries, items, 10)
        assert found.ids.shape == (len(queries), 10)
        assert overlap(found.ids.numpy(), truth.ids.numpy()) > 0.9
        assert all(len(set(row)) == 10 for row in found.ids.tolist())
        exact = (queries[:, None] * items[found.ids]).sum(2)
        torch.testing.assert_close(found.logits, exact, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("method", METHODS)
    def test_a_row_does_not_depend_on_its_batch_or_on_threads(self, method):
        items = table(2000, 16)
        queries = items[1:101] * 1.5
        index = CandidateIndex(items, method=method)
        whole = index.search(queries, 5, threads=2)
        parts = [index.search(part, 5, threads=1) for part in queries.split(7)]
        assert torch.equal(whole.ids, torch.cat([part.ids for part in parts]))
        assert torch.equal(whole.logits, torch.cat([part.logits for part in parts]))

    @pytest.mark.parametrize("method", METHODS)
    def test_places_without_an_item(self, method):
        found = CandidateIndex(table(3, 4), method=method).search(torch.ones(2, 4), 5)
        assert (found.ids[:, 3:] == 0).all()
        assert (found.logits[:, 3:] == -torch.inf).all()
        assert sorted(found.ids[0, :3].tolist()) == [1, 2, 3]

    def test_auto_goes_by_size(self, monkeypatch):
        assert CandidateIndex(table(300, 4)).method == "flat"
        monkeypatch.setattr("rsir.generation.neighbours.INDEX_FLAT_LIMIT", 299)
        assert CandidateIndex(table(300, 4)).method == "ivf"

    def test_shares_the_table(self):
        packed = ops.pack(table(30, 4))
        assert CandidateIndex(packed).table is packed

    def test_odd_embeddings_are_named(self):
        items = table(20, 6)
        items[13, 2] = np.nan
        with pytest.raises(ValueError, match="item 13 is not finite"):
            CandidateIndex(items)

    def test_leaves_the_thread_count_of_faiss_alone(self):
        import faiss

        before = faiss.omp_get_max_threads()
        neighbour_graph(table(500, 8), 3, method="ivf", threads=1)
        assert faiss.omp_get_max_threads() == before


@pytest.mark.parametrize(("build", "gpus", "asked"), [("cpu", 1, 0), ("gpu", 0, 0), ("gpu", 2, 1)])
def test_a_gpu_build_of_faiss_clusters_on_a_gpu_that_it_sees(monkeypatch, build, gpus, asked):
    kmeans, used = ann.faiss.Kmeans, []

    def recorded(*args, gpu, **kwargs):
        used.append(gpu)
        return kmeans(*args, **kwargs)

    if build == "gpu":
        monkeypatch.setattr(ann.faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(ann.faiss, "get_num_gpus", lambda: gpus)
    monkeypatch.setattr(ann.faiss, "Kmeans", recorded)
    neighbour_graph(table(100, 4), 3, method="ivf")
    assert used == [asked]


def test_embeddings_that_cannot_be_clustered_are_refused():
    """FAISS would end the process: squared distances would not be numbers."""
    items = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    CandidateIndex(items * 1e17, method="ivf")
    with pytest.raises(ValueError, match=r"expected norms of at most .* to cluster, got .*; did the training"):
        CandidateIndex(items * 5e18, method="ivf")


@pytest.mark.parametrize("method", METHODS)
def test_queries_that_do_not_fit_are_refused(method):
    index = CandidateIndex(table(50, 4), method=method)
    with pytest.raises(ValueError, match="queries: expected float32"):
        index.search(torch.ones(2, 4, dtype=torch.float64), 3)
    with pytest.raises(ValueError, match=r"queries.* 4 .*got 5"):
        index.search(torch.ones(2, 5), 3)
