"""The symmetric kNN graph of embeddings (step 4; the paper's section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array, csr_matrix, diags_array
from scipy.sparse.csgraph import reverse_cuthill_mckee

from fastcomus.backends.graph_eigenvectors import find_graph_components
from fastcomus.backends.interface import Backend
from fastcomus.backends.placed import Graph, Rows, fetch, fetch_graph, get_namespace
from fastcomus.clusters.row_geometry import normalise_in_kind

if TYPE_CHECKING:
    from fastcomus.clusters.kept_graph import GraphKeeper

FEW_ROWS = 2_000  # up to which gaps are looked for (all distances fit into 16 MB) and nothing is kept
NEAREST = 12  # neighbours that are kept, by which clusters are counted: the nearest are the purest


@dataclass(frozen=True)
class KnnGraph:
    """The kNN graph of N rows.

    Attributes:
        placed: W, (N, N) float32 CSR, symmetric, on the host or on the device where it was made. Its entries are 0.5 or
            1, or in (0, 1] where it is the user's own or one of landmarks.
        component_sizes: Sizes of the connected components, descending; they sum to N.
        recall: Share of the true neighbours that the search found, in [0, 1]; 1 for an exact search.
        order: (N,) int64, the rows in an order that keeps linked ones close together, in which products with the graph
            are faster.
        n_neighbors: Neighbours of each row, itself included; 0 for a graph of the user's own.
        has_groups: Whether groups of rows were kept apart.
        nearest: (N, n) int32, the few nearest rows of each, itself first, there too; None for a graph of the user's
            own.
        keeper: Keeps its eigenmaps, or None.
    """

    placed: Graph
    component_sizes: tuple[int, ...]
    recall: float
    order: np.ndarray
    n_neighbors: int
    has_groups: bool
    nearest: Rows | None = None
    keeper: GraphKeeper | None = None

    @property
    def size(self) -> int:
        """N."""
        return int(self.placed.shape[0])

    @cached_property
    def affinity(self) -> csr_array:
        """W on the host."""
        return fetch_graph(self.placed)


def build_knn_graph(
    embeddings: Rows,
    n_neighbors: int,
    metric: str,
    recall: float,
    seed: int,
    backend: Backend,
    groups: np.ndarray | None = None,
) -> KnnGraph:
    """Build W = (A + A^T) / 2, where A has a 1 from every row to its `n_neighbors` nearest rows, itself included.

    Args:
        embeddings: (N, D) float32, finite; where they are, the graph is made.
        n_neighbors: Neighbours per row; N where there are fewer rows.
        metric: "euclidean" or "cosine"; by the latter a row of zeros is equally far from all others.
        recall: Share of the true neighbours that an approximate search must find, in (0, 1]; 1 searches exactly.
        seed: For the approximate search.
        backend: Searches for neighbours.
        groups: (N,) integers; rows of different groups are not linked. None links any rows.

    Returns:
        The graph with its components and the recall that was reached.
    """
    n = len(embeddings)
    n_neighbors = min(n_neighbors, n)
    if metric == "cosine":
        embeddings = normalise_in_kind(embeddings)
    neighbors = backend.find_neighbors(embeddings, n_neighbors, recall, seed)
    reached, order = neighbors.recall, neighbors.order
    indices = neighbors.indices
    if groups is not None:  # a link across groups becomes one of the row to itself, which does not count
        there = fetch(indices)  # few
        indices = np.where(groups[there] == groups[:, None], there, np.arange(n)[:, None])
        n_neighbors = min(n_neighbors, int(np.bincount(groups).min()))
    nearest = indices[:, :NEAREST]
    nearest = nearest.copy() if isinstance(nearest, np.ndarray) else nearest.clone()
    del neighbors  # to save memory: as large as the graph
    affinity = backend.join_neighbors(indices)
    del indices
    sizes = _sort_sizes(backend.find_components(affinity))
    if isinstance(affinity, csr_array) and n > FEW_ROWS and (np.diff(order) == 1).all():
        order = _find_order(affinity)  # the search needed none
    return KnnGraph(affinity, sizes, reached, order, n_neighbors, groups is not None, nearest)


def take_graph(affinity: csr_array) -> KnnGraph:
    """Take a graph of the user's own, (N, N) as `store.graphs.check_graph` returns it."""
    return KnnGraph(affinity, measure_components(affinity), 1.0, _find_order(affinity), 0, False)


def _find_order(affinity: csr_array) -> np.ndarray:
    """Find an order (N,) int64 of the nodes that keeps linked ones close together."""
    order: np.ndarray = reverse_cuthill_mckee(csr_matrix(affinity), symmetric_mode=True).astype(np.int64)
    return order


def measure_components(affinity: csr_array) -> tuple[int, ...]:
    """Return the sizes of the components of a graph (N, N), descending."""
    return _sort_sizes(find_graph_components(affinity))


def drop_loops(affinity: csr_array) -> csr_array:
    """Return W with an empty diagonal; links of a row to itself say nothing of eigenvectors or communities."""
    bare = (affinity - diags_array(affinity.diagonal())).tocsr()
    bare.eliminate_zeros()
    return bare


def _sort_sizes(component: Rows) -> tuple[int, ...]:
    """Return the sizes of the components, descending; `component`: that of each node, (N,) from 0."""
    sizes = fetch(get_namespace(component).bincount(component))
    return tuple(np.sort(sizes)[::-1].tolist())
