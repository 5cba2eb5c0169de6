"""New objects to the clusters that are there, without clustering again."""

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

_SAMPLE = 2_000  # clustered objects whose distances to their neighbours are the measure of what is usual


@dataclass(frozen=True)
class Assigned:
    """M new objects in the clusters 0 to k - 1.

    `labels`: (M,) int32. `distances`: (M,) float32, cosine distance to the own cluster's centre, in [0, 2]. `novelty`:
    (M,) float32, the share of clustered objects that lie nearer to their neighbours than this one to its, in [0, 1].
    `is_outlier`: (M,) bool, unlike anything that was clustered.
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
    """Clusters of `new` ((M, D) float32) among the objects `rows` ((N, D) float32), which `config` made `clusters` of.

    Where there are eigenmaps, those of a new object follow from its neighbours by Nystroem's extension, and it goes to
    the nearest centre; the methods without a graph take the nearest centre of the embeddings; any other the cluster of
    most of its neighbours. `outliers` in [0, 1): the share of clustered objects that would themselves be called
    outliers.
    """
    if not len(new):
        return Assigned(*(np.empty(0, kind) for kind in (np.int32, np.float32, np.float32, bool)))
    # Only the search knows of the metric: the centres are means of the rows as they are.
    queries, rows = (normalise_rows(new), normalise_rows(rows)) if config.metric == "cosine" else (new, rows)
    # The graph counts a row among its own neighbours; a new object is no row.
    count = min(max(config.n_neighbors - 1, 1), len(rows) - 1)
    near, lengths = backend.find_nearest(queries, rows, count)
    labels, distances = label_by_neighbours(new, near, clusters, maps, config)
    # What is usual: the same of clustered objects, each without itself.
    sample = np.random.default_rng(seed).choice(len(rows), min(_SAMPLE, len(rows)), replace=False)
    usual = np.sort(backend.find_nearest(rows[sample], rows, count + 1)[1][:, 1:].mean(axis=1))
    novelty = (np.searchsorted(usual, lengths.mean(axis=1)) / len(usual)).astype(np.float32)
    return Assigned(labels, distances, novelty, novelty > 1 - outliers)


def label_by_neighbours(
    new: np.ndarray, near: np.ndarray, clusters: Clusters, maps: Eigenmaps | None, config: ClusterConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (M,) int32 of `new` (M, D) and cosine distances (M,) float32 to their centres; see `assign_embeddings`.

    `near`: (M, n), the clustered objects nearest to each.
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
