"""Embeddings to the symmetric kNN graph (step 4; the paper's section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from fastcomus.backends import Backend


@dataclass(frozen=True)
class KnnGraph:
    """`affinity`: (N, N) float32 CSR, symmetric, entries 0.5 or 1. `component_sizes`: descending, sums to N."""

    affinity: csr_array
    component_sizes: tuple[int, ...]


def knn_graph(embeddings: np.ndarray, n_neighbors: int, backend: Backend) -> KnnGraph:
    """`A` has a 1 from every row to its `n_neighbors` nearest (itself included); the graph is (A + A^T) / 2.

    `embeddings`: (N, D) float32, finite. With fewer than `n_neighbors` rows every row is every other's neighbour.
    """
    n = len(embeddings)
    neighbours = backend.knn(embeddings, min(n_neighbors, n))
    indptr = np.arange(n + 1, dtype=np.int64) * neighbours.shape[1]
    directed = csr_array((np.ones(neighbours.size, np.float32), neighbours.ravel(), indptr), shape=(n, n))
    affinity = ((directed + directed.T) * np.float32(0.5)).tocsr()
    affinity.sort_indices()
    _, component = connected_components(affinity, directed=False)
    sizes = np.sort(np.bincount(component))[::-1]
    return KnnGraph(affinity, tuple(sizes.tolist()))
