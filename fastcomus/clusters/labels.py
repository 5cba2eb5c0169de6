"""Eigenmaps to labels, centres and core samples (steps 6 and 7; the paper's section 3.2)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from scipy.sparse import csr_array, csr_matrix

from fastcomus.backends.interface import Backend
from fastcomus.config import ClusterConfig
from fastcomus.store.embeddings import normalise_rows

_PIVOT_ROWS = 50_000
_ROWS_AT_ONCE = 65_536
_COLUMNS_AT_ONCE = 8


@dataclass(frozen=True)
class Clusters:
    """N objects in k clusters, numbered from 0 by falling size.

    `labels`: (N,) int32. `distances`: (N,) float32, cosine distance to the own centre, in [0, 2].
    `is_core`: (N,) bool, False for the share that the filter drops. `centres`: (k, C) float32. `sizes`: (k,) int64.
    """

    labels: np.ndarray
    distances: np.ndarray
    is_core: np.ndarray
    centres: np.ndarray
    sizes: np.ndarray


def cluster_rows(rows: np.ndarray, k: int, assign: str, config: ClusterConfig, seed: int, backend: Backend) -> Clusters:
    """Labels of `rows` ((N, C) float32: eigenmaps or embeddings), then the filter.

    `assign`: "kmeans" (the paper's: `config.n_init` runs), "normalized" (k-means on rows scaled to unit length, from
    one start that QR gives) or "qr" (no k-means at all). The last two are for eigenmaps.
    """
    if assign == "kmeans":
        labels, _ = backend.run_kmeans(rows, k, config.n_init, seed)
        return build_clusters(rows, labels, k, config.filter)
    rows = normalise_rows(rows)
    pivots = _find_pivots(rows, k, seed)
    if assign == "normalized":
        # Too few directions for a start: k-means++ instead.
        start = rows[pivots] if len(pivots) == k else None
        labels, _ = backend.run_kmeans(rows, k, config.n_init, seed, start)
    else:
        labels = _assign_by_pivots(rows, pivots)
    return build_clusters(rows, labels, k, config.filter)


def build_clusters(rows: np.ndarray, labels: np.ndarray, k: int, filter: float) -> Clusters:
    """Clusters with their centres (the means of `rows` (N, C)), numbered by falling size, and their core.

    `labels`: (N,) integers in [0, k). `filter` in [0, 1): of each cluster, this share (rounded down, so a cluster never
    empties) with the largest cosine distance to the cluster's centre is not core. Ties go by row number.
    """
    by_size = np.argsort(-np.bincount(labels, minlength=k), kind="stable")
    rank = np.empty(k, np.int32)
    rank[by_size] = np.arange(k)
    labels = rank[labels]
    sizes = np.bincount(labels, minlength=k)
    membership = csr_array((np.ones(len(labels)), (labels, np.arange(len(labels)))), shape=(k, len(labels)))
    sums = np.empty((k, rows.shape[1]))
    for start in range(0, rows.shape[1], _COLUMNS_AT_ONCE):  # in float64, a few columns at a time
        some = slice(start, start + _COLUMNS_AT_ONCE)
        sums[:, some] = membership @ rows[:, some].astype(np.float64)
    centres = (sums / np.maximum(sizes, 1)[:, None]).astype(np.float32)
    distances = compute_cosine_distances(rows, centres, labels)
    return Clusters(labels, distances, _select_core(labels, distances, sizes, filter), centres, sizes)


def run_ward(rows: np.ndarray, k: int, affinity: csr_array) -> np.ndarray:
    """(N,) labels by Ward's agglomeration of `rows` (N, D), where only neighbours in `affinity` (N, N) join."""
    from sklearn.cluster import AgglomerativeClustering

    with warnings.catch_warnings():  # parts of a graph in several are joined by their nearest rows
        warnings.filterwarnings("ignore", message="the number of connected components")
        return AgglomerativeClustering(k, connectivity=csr_matrix(affinity)).fit_predict(rows)


def run_minibatch_kmeans(rows: np.ndarray, k: int, n_init: int, seed: int) -> np.ndarray:
    """(N,) labels by mini-batch k-means of `rows` (N, D), the best of `n_init` starts."""
    from sklearn.cluster import MiniBatchKMeans

    return MiniBatchKMeans(k, n_init=n_init, random_state=seed).fit_predict(rows)


def compute_cosine_distances(rows: np.ndarray, centres: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """1 - cosine between every row and its own centre, (N,) float32; 1 where either is zero."""
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
    """Rows that point in k directions as different as can be: the pivots of a QR factorisation of rows^T.

    (Damle, Minden and Ying, "Simple, direct and efficient multi-way spectral clustering", 2019.) Among many rows a
    sample is enough. Fewer than k where there are fewer directions.
    """
    among = np.arange(len(rows))
    if len(rows) > _PIVOT_ROWS:
        among = np.sort(np.random.default_rng(seed).choice(len(rows), _PIVOT_ROWS, replace=False))
    triangle, order = scipy.linalg.qr(rows[among].T, mode="r", pivoting=True, check_finite=False)
    strength = np.abs(triangle.diagonal())
    directions = int((strength > 1e-5 * strength[0]).sum())
    return among[order[: min(k, directions)]]


def _assign_by_pivots(rows: np.ndarray, pivots: np.ndarray) -> np.ndarray:
    """The pivot that each row points to, after the pivots were made orthogonal to one another."""
    left, _, right = scipy.linalg.svd(rows[pivots].T.astype(np.float64), full_matrices=False)
    turned, labels = left @ right, np.empty(len(rows), np.int32)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        labels[part] = np.abs(rows[part] @ turned).argmax(axis=1)
    return labels


def _select_core(labels: np.ndarray, distances: np.ndarray, sizes: np.ndarray, filter: float) -> np.ndarray:
    """Rows sorted by (cluster, distance): within a cluster, the last floor(filter * size) are dropped."""
    order = np.lexsort((np.arange(len(labels)), distances, labels))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    position = np.arange(len(labels)) - starts[labels[order]]
    kept = sizes - np.floor(filter * sizes + 1e-9).astype(np.int64)
    is_core = np.empty(len(labels), bool)
    is_core[order] = position < kept[labels[order]]
    return is_core
