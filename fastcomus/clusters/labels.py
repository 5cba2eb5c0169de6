"""Labels, centres and core objects from eigenmaps (steps 6 and 7; the paper's section 3.2)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastcomus.config import ClusterConfig
from fastcomus.store.embeddings import normalise_rows

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from fastcomus.backends.interface import Backend

_PIVOT_ROWS = 50_000  # among which the pivots are sought
_LENGTHS = 0.02  # power to which lengths of rows count in that search
_ROWS_AT_ONCE = 65_536
_COLUMNS_AT_ONCE = 8


@dataclass(frozen=True)
class Clusters:
    """N objects in k clusters, numbered from 0 in descending order of size.

    Attributes:
        labels: (N,) int32.
        distances: (N,) float32, cosine distance of each object to the centre of its cluster, in [0, 2].
        is_core: (N,) bool, False for the share that the filter drops.
        centres: (k, C) float32.
        sizes: (k,) int64.
        is_fitted: (N,) bool, False for objects that were put into clusters of a sample (`fit_on`), not fitted.
        coarse: (N,) int32, coarser clusters, each of whole ones (`levels`); None where there are none.
        fine: (N,) int32, finer clusters, each within one; None where there are none.
    """

    labels: np.ndarray
    distances: np.ndarray
    is_core: np.ndarray
    centres: np.ndarray
    sizes: np.ndarray
    is_fitted: np.ndarray
    coarse: np.ndarray | None = None
    fine: np.ndarray | None = None

    def __repr__(self) -> str:
        """Say how many there are."""
        of = f" of {self.sizes.min()} to {self.sizes.max()}" if len(self.sizes) else ""
        return f"Clusters({len(self.labels)} objects in {len(self.sizes)} clusters{of}, {self.is_core.sum()} core)"


def cluster_rows(rows: np.ndarray, k: int, assign: str, config: ClusterConfig, seed: int, backend: Backend) -> Clusters:
    """Find k clusters of rows (step 6) and filter them (step 7).

    Args:
        rows: (N, C) float32, eigenmaps or embeddings.
        k: Number of clusters.
        assign: "kmeans" (the paper's: the best of `config.n_init` runs), "normalized" (k-means on rows of unit length
            from one start found by QR) or "qr" (by QR alone, unless that leaves a cluster empty). The last two are
            for eigenmaps.
        config: Has `n_init` and `filter`.
        seed: For k-means and for the rows among which QR looks.
        backend: Runs k-means.

    Returns:
        The clusters.
    """
    if assign == "kmeans":
        labels, _ = backend.run_kmeans(rows, k, config.n_init, seed)
        return build_clusters(rows, labels, k, config.filter)
    pivots = _find_pivots(rows, k, seed)
    rows = normalise_rows(rows)
    # With too few directions for a start, k-means++ chooses one.
    start = rows[pivots] if len(pivots) == k else None
    if assign == "qr" and start is not None:
        labels = _assign_by_pivots(rows, pivots)
        if np.bincount(labels, minlength=k).min() > 0:
            return build_clusters(rows, labels, k, config.filter)
    labels, _ = backend.run_kmeans(rows, k, config.n_init, seed, start)
    return build_clusters(rows, labels, k, config.filter)


def build_clusters(rows: np.ndarray, labels: np.ndarray, k: int, filter: float) -> Clusters:
    """Number clusters by size, compute their centres and filter them (step 7, the paper's p %).

    Args:
        rows: (N, C) float32, whose means are the centres.
        labels: (N,) integers in [0, k).
        k: Number of clusters.
        filter: Share of each cluster with the largest cosine distance to its centre that is not core, in [0, 1). It is
            rounded down, so no cluster becomes empty; of equal distances the first row is kept.

    Returns:
        The clusters.
    """
    from scipy.sparse import csr_array

    labels = number_by_size(labels, k)
    sizes = np.bincount(labels, minlength=k)
    membership = csr_array((np.ones(len(labels)), (labels, np.arange(len(labels)))), shape=(k, len(labels)))
    sums = np.empty((k, rows.shape[1]))
    for start in range(0, rows.shape[1], _COLUMNS_AT_ONCE):  # in float64, a few columns at a time
        some = slice(start, start + _COLUMNS_AT_ONCE)
        sums[:, some] = membership @ rows[:, some].astype(np.float64)
    centres = (sums / np.maximum(sizes, 1)[:, None]).astype(np.float32)
    distances = compute_cosine_distances(rows, centres, labels)
    is_core, is_fitted = select_core(labels, distances, sizes, filter), np.ones(len(labels), bool)
    return Clusters(labels, distances, is_core, centres, sizes, is_fitted)


def number_by_size(labels: np.ndarray, k: int = 0) -> np.ndarray:
    """Number clusters anew, the largest first: (N,) integers in [0, k) become such of int32."""
    by_size = np.argsort(-np.bincount(labels, minlength=k), kind="stable")
    rank = np.empty(len(by_size), np.int32)
    rank[by_size] = np.arange(len(by_size))
    return rank[labels]


def select_core(labels: np.ndarray, distances: np.ndarray, sizes: np.ndarray, filter: float) -> np.ndarray:
    """Mark all rows of each cluster but the floor(filter * size) farthest from its centre.

    Args:
        labels: (N,) integers in [0, k).
        distances: (N,) float32, to the centres.
        sizes: (k,) integers, of the clusters.
        filter: Share of each cluster that is not core, in [0, 1).

    Returns:
        (N,) bool.
    """
    order = np.lexsort((np.arange(len(labels)), distances, labels))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    position = np.arange(len(labels)) - starts[labels[order]]
    kept = sizes - np.floor(filter * sizes + 1e-9).astype(np.int64)
    is_core = np.empty(len(labels), bool)
    is_core[order] = position < kept[labels[order]]
    return is_core


def run_ward(rows: np.ndarray, k: int, affinity: csr_array) -> np.ndarray:
    """Cluster rows by Ward's agglomeration, which joins neighbours in a graph only.

    Args:
        rows: (N, D) float32.
        k: Number of clusters.
        affinity: The graph, (N, N); where it has several components, their nearest rows are linked.

    Returns:
        Labels (N,) in [0, k).
    """
    from scipy.sparse import csr_matrix
    from sklearn.cluster import AgglomerativeClustering

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the number of connected components")
        labels: np.ndarray = AgglomerativeClustering(k, connectivity=csr_matrix(affinity)).fit_predict(rows)
    return labels


def run_minibatch_kmeans(rows: np.ndarray, k: int, n_init: int, seed: int) -> np.ndarray:
    """Cluster rows by mini-batch k-means.

    Args:
        rows: (N, D) float32.
        k: Number of clusters.
        n_init: Number of starts, of which the best is taken.
        seed: For the starts and the batches.

    Returns:
        Labels (N,) in [0, k).
    """
    from sklearn.cluster import MiniBatchKMeans

    labels: np.ndarray = MiniBatchKMeans(k, n_init=n_init, random_state=seed).fit_predict(rows)
    return labels


def compute_cosine_distances(rows: np.ndarray, centres: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute 1 - cosine between every row and the centre of its cluster.

    Args:
        rows: (N, C) float32.
        centres: (k, C) float32.
        labels: (N,) integers in [0, k).

    Returns:
        (N,) float32 in [0, 2]; 1 where row or centre is zero.
    """
    own = normalise_rows(centres).astype(np.float64)
    norms, products = np.empty(len(rows)), np.empty(len(rows))
    for start in range(0, len(rows), _ROWS_AT_ONCE):  # in float64, a slice at a time
        part = slice(start, start + _ROWS_AT_ONCE)
        wide = rows[part].astype(np.float64)
        norms[part] = np.linalg.norm(wide, axis=1)
        products[part] = np.einsum("nc,nc->n", wide, own[labels[part]])
    cosine = np.divide(products, norms, where=norms > 0, out=np.zeros(len(rows)))
    return (1 - np.clip(cosine, -1, 1)).astype(np.float32)


def _find_pivots(rows: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Find rows in k directions that differ most: the pivots of a QR factorisation of rows^T, from a sample of rows.

    (Damle, Minden and Ying, "Simple, direct and efficient multi-way spectral clustering", 2019.) There are fewer than k
    where the rows have fewer directions. Rows count as almost equally long: of equal lengths, rounding would choose the
    first pivot, and the order of the rows would matter; of their own lengths, long rows would be chosen for that alone.
    """
    from scipy import linalg

    among = np.arange(len(rows))
    if len(rows) > _PIVOT_ROWS:
        among = np.sort(np.random.default_rng(seed).choice(len(rows), _PIVOT_ROWS, replace=False))
    wide = rows[among].astype(np.float64)
    wide *= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), np.finfo(np.float32).tiny) ** (_LENGTHS - 1)
    triangle, order = linalg.qr(wide.T, mode="r", pivoting=True, check_finite=False)
    strength = np.abs(triangle.diagonal())
    directions = int((strength > 1e-5 * strength[0]).sum())
    pivots: np.ndarray = among[order[: min(k, directions)]]
    return pivots


def _assign_by_pivots(rows: np.ndarray, pivots: np.ndarray) -> np.ndarray:
    """Label each row with the pivot that it is most parallel to, once the pivots are made orthogonal."""
    from scipy import linalg

    left, _, right = linalg.svd(rows[pivots].T.astype(np.float64), full_matrices=False)
    turned, labels = left @ right, np.empty(len(rows), np.int32)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        labels[part] = np.abs(rows[part] @ turned).argmax(axis=1)
    return labels
