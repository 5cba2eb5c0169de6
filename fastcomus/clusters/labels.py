"""Labels, centres and core objects from eigenmaps (steps 6 and 7; the paper's section 3.2)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fastcomus.config import ClusterConfig

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from fastcomus.backends.interface import Backend
    from fastcomus.backends.placed import Rows


_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True, eq=False)
class Clusters:
    """N objects in k clusters, numbered from 0 in descending order of size.

    Attributes:
        labels: (N,) int32.
        distances: (N,) float32, cosine distance of each object to the centre of its cluster, in [0, 2].
        is_core: (N,) bool, False for the share that the filter drops.
        centres: (k, C) float32, means in the rows that were clustered: the eigenmaps, C of them, or the embeddings.
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

    def take(self, chosen: np.ndarray) -> Clusters:
        """Return those of some objects, (n,) integers, without coarser and finer ones; numbers and centres stay."""
        parts = {name: getattr(self, name)[chosen] for name in ("labels", "distances", "is_core", "is_fitted")}
        sizes = np.bincount(parts["labels"][parts["labels"] >= 0], minlength=len(self.sizes))
        return replace(self, coarse=None, fine=None, sizes=sizes, **parts)

    def __repr__(self) -> str:
        """Say how many there are."""
        of = f" of {self.sizes.min()} to {self.sizes.max()}" if len(self.sizes) else ""
        return f"Clusters({len(self.labels)} objects in {len(self.sizes)} clusters{of}, {self.is_core.sum()} core)"


def cluster_rows(rows: Rows, k: int, assign: str, config: ClusterConfig, seed: int, backend: Backend) -> Clusters:
    """Find k clusters of rows (step 6) and filter them (step 7).

    Args:
        rows: (N, C) float32, eigenmaps or embeddings; on the device nothing but the result leaves it.
        k: Number of clusters.
        assign: "kmeans" (the paper's: the best of `config.n_init` runs), "normalized" (k-means on rows of unit length
            from one start found by QR) or "qr" (by QR alone, unless that leaves a cluster empty). The last two are
            for eigenmaps.
        config: Has `n_init` and `filter`.
        seed: For k-means and for the rows among which QR looks.
        backend: Runs k-means; the rest is computed where the rows are.

    Returns:
        The clusters.
    """
    from fastcomus.backends.threads import SINGLE_BLAS
    from fastcomus.clusters.row_geometry import find_pivots, normalise_in_kind

    with SINGLE_BLAS.hold():
        if assign == "kmeans":
            labels, _ = backend.run_kmeans(rows, k, config.n_init, seed)
        else:
            pivots, rows = find_pivots(rows, k, seed), normalise_in_kind(rows)
            labels = _label_from_pivots(rows, pivots, k, assign, config, seed, backend)
        return build_clusters(rows, labels, k, config.filter)


def _label_from_pivots(
    rows: Rows, pivots: np.ndarray, k: int, assign: str, config: ClusterConfig, seed: int, backend: Backend
) -> Rows:
    from fastcomus.clusters.row_geometry import assign_by_pivots, count_labels

    # With too few directions for a start, k-means++ chooses one.
    start = rows[pivots] if len(pivots) == k else None
    if assign == "qr" and start is not None:
        labels = assign_by_pivots(rows, start)
        if count_labels(labels, k).min() > 0:
            return labels
    return backend.run_kmeans(rows, k, config.n_init, seed, start)[0]


def build_clusters(rows: Rows, labels: Rows, k: int, filter: float) -> Clusters:
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
    from fastcomus.backends.placed import fetch
    from fastcomus.clusters.row_geometry import (
        compute_cosine_distances,
        compute_means,
        count_labels,
        number_in_order,
        select_core,
    )

    sizes = count_labels(labels, k)
    by_size = np.argsort(-sizes, kind="stable")
    labels, sizes = number_in_order(labels, by_size), sizes[by_size]
    centres = compute_means(rows, labels, sizes)
    distances = compute_cosine_distances(rows, centres, labels)
    is_core = select_core(labels, distances, sizes, filter)
    is_fitted = np.ones(len(labels), bool)
    return Clusters(fetch(labels), fetch(distances), fetch(is_core), fetch(centres), sizes, is_fitted)


def number_by_size(labels: np.ndarray) -> np.ndarray:
    """Number clusters anew, the largest first: (N,) integers from 0 become such of int32."""
    from fastcomus.clusters.row_geometry import number_in_order

    return number_in_order(labels, np.argsort(-np.bincount(labels), kind="stable"))


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
    """Cluster rows by mini-batch k-means; a cluster that it leaves empty takes the row farthest from its centre.

    Args:
        rows: (N, D) float32, N >= k.
        k: Number of clusters.
        n_init: Number of starts, of which the best is taken.
        seed: For the starts and the batches.

    Returns:
        Labels (N,) in [0, k).
    """
    from sklearn.cluster import MiniBatchKMeans

    found = MiniBatchKMeans(k, n_init=n_init, random_state=seed).fit(rows)
    labels: np.ndarray = found.labels_
    sizes = np.bincount(labels, minlength=k)
    empty = np.flatnonzero(sizes == 0)
    if len(empty):
        parts = np.array_split(np.arange(len(rows)), len(rows) // _ROWS_AT_ONCE + 1)
        distances = [((rows[part] - found.cluster_centers_[labels[part]]) ** 2).sum(axis=1) for part in parts]
        farthest = iter(np.argsort(-np.concatenate(distances), kind="stable"))
        for cluster in empty:
            row = next(one for one in farthest if sizes[labels[one]] > 1)  # no other becomes empty
            sizes[labels[row]] -= 1
            labels[row], sizes[cluster] = cluster, 1
    return labels
