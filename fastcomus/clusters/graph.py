"""Embeddings to the symmetric kNN graph (step 4; the paper's section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, diags_array
from scipy.sparse.csgraph import connected_components

from fastcomus.backends.interface import Backend
from fastcomus.store.embeddings import normalise_rows


@dataclass(frozen=True)
class KnnGraph:
    """`affinity`: (N, N) float32 CSR, symmetric, entries 0.5 or 1. `component_sizes`: descending, sums to N.
    `recall`: share of the true neighbours in it, in [0, 1]; 1 where the search was exact. `order`: (N,) int64, the rows
    in an order where linked ones tend to stand together: products with the graph are faster in it.
    """

    affinity: csr_array
    component_sizes: tuple[int, ...]
    recall: float
    order: np.ndarray


def build_knn_graph(
    embeddings: np.ndarray, n_neighbors: int, metric: str, recall: float, seed: int, backend: Backend
) -> KnnGraph:
    """`A` has a 1 from every row to its `n_neighbors` nearest (itself included); the graph is (A + A^T) / 2.

    `embeddings`: (N, D) float32, finite. With fewer than `n_neighbors` rows every row is every other's neighbour.
    `metric`: "euclidean" or "cosine" (a row of zeros is then as far from all). `recall` in (0, 1]: what an approximate
    search must reach; 1 searches exactly.
    """
    n = len(embeddings)
    if metric == "cosine":
        embeddings = normalise_rows(embeddings)
    neighbors = backend.find_neighbors(embeddings, min(n_neighbors, n), recall, seed)
    reached, order = neighbors.recall, neighbors.order
    count = neighbors.indices.shape[1]
    # 32-bit positions while they fit, also those of the sum of both directions.
    kind = np.int32 if 2 * neighbors.indices.size < 2**31 else np.int64
    indptr = np.arange(0, (n + 1) * count, count, dtype=kind)
    ones = np.ones(neighbors.indices.size, np.float32)
    directed = csr_array((ones, neighbors.indices.ravel().astype(kind, copy=False), indptr), shape=(n, n))
    directed.sum_duplicates()  # rows that a search left with fewer neighbours name themselves again
    directed.data[:] = 1
    del ones, indptr, neighbors  # of the size of the graph, as all that follows
    affinity = directed + directed.T.tocsr()
    affinity.data *= np.float32(0.5)
    del directed
    affinity.sort_indices()
    _, component = connected_components(affinity, connection="strong")  # the same for a symmetric graph, sooner
    sizes = np.sort(np.bincount(component))[::-1]
    return KnnGraph(affinity, tuple(sizes.tolist()), reached, order)


def drop_loops(affinity: csr_array) -> csr_array:
    """W with an empty diagonal: a row's link to itself tells nothing of eigenvectors or communities."""
    bare = (affinity - diags_array(affinity.diagonal())).tocsr()
    bare.eliminate_zeros()
    return bare
