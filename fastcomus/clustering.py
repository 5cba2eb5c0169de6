"""Eigenmaps to labels, centres and core samples (steps 6 and 7; the paper's section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastcomus.backends import Backend


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


def cluster_rows(rows: np.ndarray, k: int, filter: float, n_init: int, seed: int, backend: Backend) -> Clusters:
    """k-means on `rows` ((N, C) float32: eigenmaps or embeddings), then the filter.

    `filter` in [0, 1): of each cluster, this share (rounded down, so a cluster never empties) with the largest cosine
    distance to the cluster's centre is not core. Ties go by row number.
    """
    labels, centres = backend.kmeans(rows, k, n_init, seed)
    by_size = np.argsort(-np.bincount(labels, minlength=k), kind="stable")
    rank = np.empty(k, np.int32)
    rank[by_size] = np.arange(k)
    labels, centres = rank[labels], centres[by_size]
    sizes = np.bincount(labels, minlength=k)
    distances = _cosine_distance(rows, centres, labels)
    return Clusters(labels, distances, _core(labels, distances, sizes, filter), centres, sizes)


def _cosine_distance(rows: np.ndarray, centres: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """1 - cosine between every row and its own centre; 1 where either is zero."""
    own = centres[labels].astype(np.float64)
    wide = rows.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1) * np.linalg.norm(own, axis=1)
    cosine = np.divide(np.einsum("nc,nc->n", wide, own), norms, where=norms > 0, out=np.zeros(len(rows)))
    return (1 - np.clip(cosine, -1, 1)).astype(np.float32)


def _core(labels: np.ndarray, distances: np.ndarray, sizes: np.ndarray, filter: float) -> np.ndarray:
    """Rows sorted by (cluster, distance): within a cluster, the last floor(filter * size) are dropped."""
    order = np.lexsort((np.arange(len(labels)), distances, labels))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    position = np.arange(len(labels)) - starts[labels[order]]
    kept = sizes - np.floor(filter * sizes + 1e-9).astype(np.int64)
    is_core = np.empty(len(labels), bool)
    is_core[order] = position < kept[labels[order]]
    return is_core
