"""The kNN graph against scikit-learn's, and its parts against planted ones."""

from __future__ import annotations

import numpy as np
import planted
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.neighbors import kneighbors_graph

from fastcomus.backends import select
from fastcomus.graph import knn_graph

CPU = select("cpu")


def scikit_learns(rows: np.ndarray, n_neighbors: int) -> np.ndarray:
    directed = kneighbors_graph(rows.astype(np.float64), n_neighbors, include_self=True).toarray()
    return (directed + directed.T) / 2


@pytest.mark.skipif(not planted.REFERENCE.is_file(), reason="needs shared/reference")
def test_graph_of_planted_embeddings_equals_scikit_learns_entry_for_entry() -> None:
    rows, _ = planted.dino_like(1500, 20, 0.605)
    difference = knn_graph(rows, 30, CPU).affinity.toarray() - scikit_learns(rows, 30)
    # float32 distances order a few near ties otherwise than float64 ones.
    assert (difference != 0).sum() <= 8 and np.abs(difference).max() <= 1


@pytest.mark.parametrize("n_neighbors", [2, 3, 30, 299])
def test_graph_equals_scikit_learns_entry_for_entry(n_neighbors: int) -> None:
    rows, _ = planted.gaussian()
    affinity = knn_graph(rows, n_neighbors, CPU).affinity
    assert isinstance(affinity, csr_array) and affinity.dtype == np.float32 and affinity.has_sorted_indices
    assert (affinity.toarray() == scikit_learns(rows, n_neighbors)).all()


@pytest.mark.parametrize("n", [2, 3, 10])
def test_few_rows_are_all_neighbours(n: int) -> None:
    rows, _ = planted.gaussian(n)
    for n_neighbors in (n, n + 1, 1000):
        graph = knn_graph(rows, n_neighbors, CPU)
        assert (graph.affinity.toarray() == 1).all() and graph.component_sizes == (n,)


def test_parts_of_the_graph_are_counted() -> None:
    rows, _ = planted.gaussian(spread=0.01)
    assert knn_graph(rows, 10, CPU).component_sizes == (60,) * 5
    assert knn_graph(np.concatenate([rows, rows[:20] + 100]), 10, CPU).component_sizes == (60,) * 5 + (20,)
    assert knn_graph(rows, 300, CPU).component_sizes == (300,)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(2, 12))
def test_any_graph_is_symmetric_with_every_row_linked(seed: int, n: int, n_neighbors: int) -> None:
    # Whole numbers in one dimension: many duplicates and ties.
    rows = np.random.default_rng(seed).integers(0, 6, (n, 1)).astype(np.float32)
    graph = knn_graph(rows, n_neighbors, CPU)
    affinity = graph.affinity.toarray()
    assert (affinity == affinity.T).all() and (affinity.diagonal() == 1).all()
    assert set(np.unique(affinity)) <= {0, 0.5, 1}
    assert affinity.sum() == n * min(n, n_neighbors)
    assert ((affinity > 0).sum(axis=1) >= min(n, n_neighbors)).all()
    assert sum(graph.component_sizes) == n and list(graph.component_sizes) == sorted(graph.component_sizes)[::-1]
