"""The kNN graph against scikit-learn's, and its parts against planted ones."""

from __future__ import annotations

import sys

import numpy as np
import planted
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.metrics import euclidean_distances
from sklearn.neighbors import kneighbors_graph

from fastcomus.backends import centred_rows, nearest_neighbors, neighbor_descent
from fastcomus.backends.choose import select
from fastcomus.backends.cpu import CpuBackend
from fastcomus.backends.machine import has_bfloat16
from fastcomus.clusters.graph import KnnGraph, build_knn_graph
from fastcomus.errors import InputError

CPU = select("cpu")


def exact_graph(rows: np.ndarray, n_neighbors: int, metric: str = "euclidean") -> KnnGraph:
    return build_knn_graph(rows, n_neighbors, metric, 1.0, 0, CPU)


def scikit_learns(rows: np.ndarray, n_neighbors: int) -> np.ndarray:
    directed = kneighbors_graph(rows.astype(np.float64), n_neighbors, include_self=True).toarray()
    return (directed + directed.T) / 2


def test_graph_of_planted_embeddings_equals_scikit_learns_entry_for_entry() -> None:
    rows, _ = planted.dino_like(1500, 20, 0.605)
    places, others = np.nonzero(exact_graph(rows, 30).affinity.toarray() != scikit_learns(rows, 30))
    assert len(places) <= 8
    # float32 distances order near ties otherwise than float64 ones: whoever differs is as far as a last neighbour.
    distances = euclidean_distances(rows.astype(np.float64))
    last = np.sort(distances, axis=1)[:, 29]
    between = distances[places, others]
    assert (np.minimum(np.abs(between - last[places]), np.abs(between - last[others])) < 1e-6).all()


@pytest.mark.parametrize("n_neighbors", [2, 3, 30, 299])
def test_graph_equals_scikit_learns_entry_for_entry(n_neighbors: int) -> None:
    rows, _ = planted.gaussian()
    affinity = exact_graph(rows, n_neighbors).affinity
    assert isinstance(affinity, csr_array) and affinity.dtype == np.float32 and affinity.has_sorted_indices
    assert (affinity.toarray() == scikit_learns(rows, n_neighbors)).all()


@pytest.mark.parametrize("n", [2, 3, 10])
def test_few_rows_are_all_neighbours(n: int) -> None:
    rows, _ = planted.gaussian(n)
    for n_neighbors in (n, n + 1, 1000):
        graph = exact_graph(rows, n_neighbors)
        assert (graph.affinity.toarray() == 1).all() and graph.component_sizes == (n,)


def test_parts_of_the_graph_are_counted() -> None:
    rows, _ = planted.gaussian(spread=0.01)
    assert exact_graph(rows, 10).component_sizes == (60,) * 5
    assert exact_graph(np.concatenate([rows, rows[:20] + 100]), 10).component_sizes == (60,) * 5 + (20,)
    assert exact_graph(rows, 300).component_sizes == (300,)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(2, 12))
def test_any_graph_is_symmetric_with_every_row_linked(seed: int, n: int, n_neighbors: int) -> None:
    # Whole numbers in one dimension: many duplicates and ties.
    rows = np.random.default_rng(seed).integers(0, 6, (n, 1)).astype(np.float32)
    graph = exact_graph(rows, n_neighbors)
    affinity = graph.affinity.toarray()
    assert (affinity == affinity.T).all() and (affinity.diagonal() == 1).all()
    assert set(np.unique(affinity)) <= {0, 0.5, 1}
    assert affinity.sum() == n * min(n, n_neighbors)
    assert ((affinity > 0).sum(axis=1) >= min(n, n_neighbors)).all()
    assert sum(graph.component_sizes) == n and list(graph.component_sizes) == sorted(graph.component_sizes)[::-1]


def test_cosine_graph_is_the_euclidean_one_of_unit_rows() -> None:
    rows, _ = planted.gaussian()
    rows *= np.random.default_rng(0).uniform(0.1, 10, (len(rows), 1)).astype(np.float32)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosine = exact_graph(rows, 20, "cosine").affinity
    assert (cosine != exact_graph(unit, 20).affinity).nnz == 0
    assert (cosine != exact_graph(rows, 20).affinity).nnz > 0
    rows[:3] = 0  # no direction
    assert np.isfinite(exact_graph(rows, 20, "cosine").affinity.data).all()


def test_approximate_search_reaches_the_recall_that_it_reports() -> None:
    rows, _ = planted.dino_like(3000, 20, 0.605)
    backend = CpuBackend(all_pairs_rows=1000)
    exact = scikit_learns(rows, 30)
    for wanted in (0.9, 0.97):
        graph = build_knn_graph(rows, 30, "euclidean", wanted, 0, backend)
        affinity = graph.affinity.toarray()
        assert (affinity == affinity.T).all() and (affinity.diagonal() == 1).all()
        # Weight shared with the exact graph: half of it for an edge found from one end only.
        shared = np.minimum(affinity, exact).sum() / exact.sum()
        assert graph.recall >= wanted and abs(shared - graph.recall) < 0.02


def test_passes_go_on_until_the_recall_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbor_descent, "_PROBES", 4)
    backend = CpuBackend(all_pairs_rows=1000)
    noise = np.random.default_rng(0).standard_normal((3000, 60)).astype(np.float32)
    recalls = [build_knn_graph(noise, 20, "euclidean", wanted, 0, backend).recall for wanted in (0.1, 0.7, 0.95)]
    assert 0.2 < recalls[0] < 0.7 <= recalls[1] < 0.95 <= recalls[2]


def test_a_recall_out_of_reach_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbor_descent, "_PROBES", 1)
    monkeypatch.setattr(neighbor_descent, "_MOST_PARTITIONS", 2)
    monkeypatch.setattr(neighbor_descent, "_compare_surroundings", lambda *_: [])
    rows = np.random.default_rng(0).standard_normal((2000, 30)).astype(np.float32)
    neighbors = nearest_neighbors.search_neighbors(rows, 10, 0.95, 0, 1, all_pairs_rows=100)
    _, exact = nearest_neighbors.search_nearest_rows(rows, rows, 10, 1)
    reached = np.linalg.norm(rows[neighbors.indices] - rows[:, None], axis=2) <= exact[:, -1:] * 1.0001
    assert neighbors.recall < 0.7 and abs(reached[:, 1:].mean() - neighbors.recall) < 0.03
    assert (neighbors.indices[:, 0] == np.arange(2000)).all()


def test_rows_that_bfloat16_cannot_tell_apart_are_told_apart() -> None:
    """Five classes a million times farther from one another than their rows: rounding swallows all differences."""
    rows, _ = planted.gaussian(1500, spread=1e-6)
    neighbors = nearest_neighbors.search_neighbors(rows, 10, 0.95, 0, 1, all_pairs_rows=100)
    assert neighbors.recall > 0.3  # float32 squares have no more digits
    rows, _ = planted.gaussian(1500, spread=1e-2)
    assert nearest_neighbors.search_neighbors(rows, 10, 0.95, 0, 1, all_pairs_rows=100).recall > 0.95


@pytest.mark.skipif(not has_bfloat16(), reason="needs a processor with bfloat16")
def test_all_pairs_in_bfloat16_give_the_exact_neighbours_or_give_way() -> None:
    rows = np.random.default_rng(0).standard_normal((6000, 24)).astype(np.float32)
    usual, exact = (nearest_neighbors.search_neighbors(rows, 15, recall, 0, 1) for recall in (0.95, 1.0))
    assert usual.recall >= 0.999 and (np.sort(usual.indices) == np.sort(exact.indices)).mean() > 0.999
    # Far classes of close rows: bfloat16 cannot tell these apart, float32 can.
    close = 100 * rows[np.arange(6000) % 5] + rows
    usual, exact = (nearest_neighbors.search_neighbors(close, 15, recall, 0, 1) for recall in (0.95, 1.0))
    assert usual.recall == 1 and (usual.indices == exact.indices).all()


def test_search_does_not_depend_on_the_number_of_threads() -> None:
    rows, _ = planted.gaussian(1500)
    for all_pairs_rows in (100, 10_000):
        one, three = (nearest_neighbors.search_neighbors(rows, 12, 0.99, 0, n, all_pairs_rows) for n in (1, 3))
        assert (one.indices == three.indices).all() and one.recall == three.recall
        assert sorted(one.order.tolist()) == list(range(1500)) and (one.order == three.order).all()


def test_many_rows_without_faiss_are_refused_in_a_sentence_and_few_need_none(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = planted.gaussian(1500)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match="pip install faiss-cpu"):
        nearest_neighbors.search_neighbors(rows, 12, 0.95, 0, 1, all_pairs_rows=100)
    assert nearest_neighbors.search_neighbors(rows, 12, 0.95, 0, 1).recall == 1


def test_of_equally_near_rows_the_first_are_found_whatever_thread_saw_them() -> None:
    half = np.random.default_rng(0).integers(-1, 2, (850, 6)).astype(np.float32)
    rows = np.concatenate([half, -half])  # in 729 places, most of them shared; around 0, so that nothing is rounded
    distances = ((rows[:, None] - rows[None]) ** 2).sum(2)
    np.fill_diagonal(distances, -1)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :9]
    for threads in (1, 2, 3):
        assert (nearest_neighbors.search_neighbors(rows, 9, 1.0, 0, threads).indices == nearest).all()


def test_blocks_of_rows_find_what_all_rows_at_once_find(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = planted.gaussian(2_000, 9)
    rows = 40 + 1e3 * rows  # far from 0, large: only centred rows tell the neighbours

    def found() -> list[np.ndarray]:
        searched = nearest_neighbors.search_neighbors(rows, 12, 0.95, 0, 1, all_pairs_rows=100)
        return [searched.indices, searched.order, *nearest_neighbors.search_nearest_rows(rows[:50] + 1, rows, 12, 1)]

    at_once = found()
    monkeypatch.setattr(centred_rows, "BLOCK_ROWS", 300)
    monkeypatch.setattr(nearest_neighbors, "BLOCK_ROWS", 300)
    assert all((one == other).all() for one, other in zip(at_once, found(), strict=True))
    assert rows.min() < -1e3 and rows.mean() != 0  # they are left as they were
