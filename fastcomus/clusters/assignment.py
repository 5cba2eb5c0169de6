"""Assign new objects to existing clusters, without clustering again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn.metrics import pairwise_distances_argmin

from fastcomus.backends.interface import Backend
from fastcomus.clusters.eigenmaps import Eigenmaps, extend_eigenmaps
from fastcomus.clusters.labels import Clusters, compute_cosine_distances
from fastcomus.config import GRAPHLESS_METHODS, ClusterConfig
from fastcomus.store.embeddings import normalise_rows

_SAMPLE = 2_000  # clustered objects on which the usual distance to neighbours is measured


@dataclass(frozen=True)
class Assigned:
    """M new objects, each assigned to one of the clusters 0 to k - 1.

    Attributes:
        labels: (M,) int32.
        distances: (M,) float32, cosine distance to the centre of the object's cluster, in [0, 2].
        novelty: (M,) float32, the share of clustered objects that are nearer to their neighbours than this object is to
            its own, in [0, 1].
        is_outlier: (M,) bool, whether the object is unlike everything that was clustered.
    """

    labels: np.ndarray
    distances: np.ndarray
    novelty: np.ndarray
    is_outlier: np.ndarray


def assign_embeddings(
    new: np.ndarray,
    rows: np.ndarray,
    clusters: Clusters,
    maps: Eigenmaps | None,
    config: ClusterConfig,
    outliers: float,
    seed: int,
    backend: Backend,
) -> Assigned:
    """Assign new objects to the clusters of `rows`.

    With eigenmaps, those of a new object are computed from its neighbours (Nystroem's extension) and it goes to the
    nearest centre. Methods without a graph use the nearest centre among the embeddings, all others the cluster of most
    of the neighbours.

    Args:
        new: (M, D) float32 embeddings of the new objects.
        rows: (N, D) float32 embeddings that were clustered.
        clusters: What `config` made of `rows`.
        maps: The eigenmaps of `rows`, or None for a method without them.
        config: The settings of the clustering.
        outliers: Share of clustered objects that would count as outliers themselves, in [0, 1).
        seed: For the sample on which the usual distances are measured.
        backend: Searches for neighbours.

    Returns:
        Labels, distances and novelty of the M objects.
    """
    if not len(new):
        return Assigned(*(np.empty(0, kind) for kind in (np.int32, np.float32, np.float32, bool)))
    # The metric concerns the search alone: the centres are means of the rows as given.
    queries, rows = (normalise_rows(new), normalise_rows(rows)) if config.metric == "cosine" else (new, rows)
    # In the graph a row is its own first neighbour; a new object is not among the rows.
    count = min(max(config.n_neighbors - 1, 1), len(rows) - 1)
    near, lengths = backend.find_nearest(queries, rows, count)
    labels, distances = label_by_neighbours(new, near, clusters, maps, config)
    # The usual distances are those of clustered objects to their neighbours, themselves left out.
    sample = np.random.default_rng(seed).choice(len(rows), min(_SAMPLE, len(rows)), replace=False)
    usual = np.sort(backend.find_nearest(rows[sample], rows, count + 1)[1][:, 1:].mean(axis=1))
    novelty = (np.searchsorted(usual, lengths.mean(axis=1)) / len(usual)).astype(np.float32)
    return Assigned(labels, distances, novelty, novelty > 1 - outliers)


def label_by_neighbours(
    new: np.ndarray, near: np.ndarray, clusters: Clusters, maps: Eigenmaps | None, config: ClusterConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Assign new objects whose neighbours are known; see `assign_embeddings`.

    Args:
        new: (M, D) float32 embeddings.
        near: (M, n) integers, the clustered objects nearest to each.
        clusters: The clusters of the clustered objects.
        maps: Their eigenmaps, or None for a method without them.
        config: The settings of the clustering.

    Returns:
        Labels (M,) int32 and cosine distances (M,) float32 to the centres.
    """
    places = new
    if maps is not None:
        places = extend_eigenmaps(maps.rows, maps.eigenvalues, near)
        places = places if config.assign == "kmeans" else normalise_rows(places)
    if maps is not None or config.method in GRAPHLESS_METHODS:
        labels = pairwise_distances_argmin(places, clusters.centres)
    else:
        labels = stats.mode(clusters.labels[near], axis=1).mode
    return labels.astype(np.int32), compute_cosine_distances(places, clusters.centres, labels)
