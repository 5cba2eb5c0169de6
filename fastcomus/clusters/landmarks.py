"""The graph of a sample in which all other rows count, too: the rows of the sample are landmarks.

Two landmarks are alike where rows lie near to both. So every row that is not in the sample still says which of its
landmarks belong together, as it would in the graph of all rows, and the eigenproblem stays as small as the sample
(Chen and Cai, "Large scale spectral clustering with landmark-based representation", 2011; Huang et al.,
"Ultra-scalable spectral clustering and ensemble clustering", 2020). Where a landmark has few rows of its own, its
nearest landmarks link it.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from fastcomus.backends.joined_neighbors import join_neighbors
from fastcomus.clusters.graph import NEAREST, KnnGraph, drop_loops, measure_components

MOST_ROWS = 50  # for each landmark, that link; more say little more, and links take memory
LABELLING = 3  # times as many landmarks label a row as it links
_PER_LINK = 10  # neighbours of the graph of all rows for each landmark of a row: few, so that it links what is alike
_DIRECT = 0.4  # of these neighbours, for each landmark among the landmarks
_WEIGHT = 0.25  # of such a neighbour, beside a row that is near to both


def count_landmarks(n_neighbors: int) -> int:
    """Return to how many landmarks each row is linked, where the graph of all rows would have so many neighbours."""
    return max(2, round(n_neighbors / _PER_LINK))


def count_direct_neighbors(n_neighbors: int) -> int:
    """Return how many landmarks each landmark is linked to, itself included; enough to count clusters by."""
    return max(min(NEAREST, n_neighbors), round(_DIRECT * n_neighbors))


def build_landmark_graph(neighbors: np.ndarray, links: np.ndarray, recall: float, order: np.ndarray) -> KnnGraph:
    """Build the graph of L landmarks, from their neighbours among themselves and the rows that lie near to two of them.

    Args:
        neighbors: (L, n) integers, the landmarks nearest to each, which may be among them itself.
        links: (M, s) integers, the landmarks nearest to each row.
        recall: Share of the true neighbours that the search found.
        order: (L,) integers, landmarks in an order that keeps near ones close together.

    Returns:
        The graph with W_ij = r_ij + c * W'_ij, scaled to weights of at most 1, where r_ij is the number of rows near to
        both i and j, and W' = (A + A^T) / 2 the kNN graph of the landmarks alone.
    """
    size, (rows, count) = len(neighbors), links.shape
    own = np.arange(size)[:, None]
    nearest = np.concatenate([own, neighbors], axis=1)
    # Itself first, and gone from its later place, as where the landmarks alone were searched.
    nearest = np.take_along_axis(nearest, np.argsort(_is_repeated(nearest, own), axis=1, kind="stable"), axis=1)[:, :-1]
    incidence = csr_array(
        (np.ones(links.size, np.float32), links.ravel(), np.arange(0, links.size + 1, count)), shape=(rows, size)
    )
    shared = drop_loops(csr_array(incidence.T @ incidence))
    affinity = csr_array(shared + drop_loops(join_neighbors(nearest)) * np.float32(_WEIGHT))
    affinity.data /= affinity.data.max()
    affinity.sort_indices()
    sizes, kept = measure_components(affinity), nearest[:, :NEAREST].astype(np.int32)
    return KnnGraph(affinity, sizes, recall, order, nearest.shape[1], False, kept)


def _is_repeated(nearest: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Mark the places where a landmark stands among its own neighbours; the last place where it does not."""
    repeated = nearest == own
    repeated[:, 0] = False
    repeated[~repeated.any(axis=1), -1] = True
    return repeated
