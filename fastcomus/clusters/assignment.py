"""Assign new objects to existing clusters, without clustering again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastcomus.backends.interface import Backend
from fastcomus.backends.machine import count_cores
from fastcomus.clusters.eigenmaps import Eigenmaps, extend_eigenmaps
from fastcomus.clusters.labels import Clusters
from fastcomus.clusters.near_rows import NearRows, divide_rows, is_searched_exactly
from fastcomus.clusters.row_geometry import compute_cosine_distances, find_nearest_centres
from fastcomus.config import GRAPHLESS_METHODS, ClusterConfig
from fastcomus.store.embeddings import normalise_rows

_SAMPLE = 2_000  # clustered objects on which the usual distance to neighbours is measured
_FEW_NEIGHBORS = 10  # of each of many new objects: nearly as good as all, in half the time
_PROBED = 400  # new objects on which the approximate search is tuned


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
    nearest centre among them. Without, the methods that need no graph take the nearest centre among the embeddings, all
    others the cluster of most of the neighbours.

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
    linker = make_linker(rows, config, seed, backend, new, len(new))
    near, novelty = linker.link(new, backend, count_cores())
    labels, distances = label_by_neighbours(new, near, clusters, maps, config)
    return Assigned(labels, distances, novelty, novelty > 1 - outliers)


@dataclass(frozen=True)
class Linker:
    """Finds the nearest of fixed rows for any others, and how far they are from them.

    Attributes:
        near: The fixed rows, of unit length where the metric is "cosine".
        count: Neighbours that are looked for.
        metric: "euclidean" or "cosine".
        usual: (S,) float32, ascending: mean distances of some of the fixed rows to their neighbours.
    """

    near: NearRows
    count: int
    metric: str
    usual: np.ndarray

    def link(self, new: np.ndarray, backend: Backend, threads: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the nearest fixed rows.

        Args:
            new: (M, D) float32.
            backend: Searches for neighbours.
            threads: That search, too.

        Returns:
            Their numbers (M, count) int32, nearest first, and novelty (M,) float32 in [0, 1]; see `Assigned`.
        """
        queries = normalise_rows(new) if self.metric == "cosine" else new
        near, lengths = self.near.search(queries, self.count, backend, threads)
        novelty = np.searchsorted(self.usual, lengths.mean(axis=1)) / len(self.usual)
        return near.astype(np.int32), novelty.astype(np.float32)


def make_linker(
    rows: np.ndarray,
    config: ClusterConfig,
    seed: int,
    backend: Backend,
    some: np.ndarray,
    expected: int,
    count: int = 0,
) -> Linker:
    """Prepare for finding the neighbours of many objects, block by block.

    Args:
        rows: (N, D) float32 embeddings that were clustered.
        config: The settings of the clustering.
        seed: For the samples on which distances and recall are measured.
        backend: Searches for neighbours.
        some: (S, D) float32, some of the objects to come; at most 400 of them are looked at.
        expected: How many objects are to come. Of few, all pairs are compared; else the search is approximate, to the
            share `config.recall` of the true neighbours.
        count: Neighbours to look for; 0 for as many as label an object.

    Returns:
        What finds them.
    """
    # The metric concerns the search alone: the centres are means of the rows as given.
    rng, queries = np.random.default_rng(seed), some[:: max(1, len(some) // _PROBED)]
    rows, queries = (normalise_rows(one) if config.metric == "cosine" else one for one in (rows, queries))
    if not count:  # in the graph a row is its own first neighbour; a new object is not among the rows
        count = max(config.n_neighbors - 1, 1)
        if not is_searched_exactly(expected, len(rows), config.recall, backend):
            count = min(count, _FEW_NEIGHBORS)
    count = min(count, len(rows) - 1)
    # The usual distances are those of clustered objects to their neighbours, themselves left out.
    sample = rng.choice(len(rows), min(_SAMPLE, len(rows)), replace=False)
    usual = np.sort(backend.find_nearest(rows[sample], rows, count + 1)[1][:, 1:].mean(axis=1))
    near = divide_rows(rows, queries, expected, count, config.recall, seed, backend)
    return Linker(near, count, config.metric, usual)


def label_by_neighbours(
    new: np.ndarray, near: np.ndarray, clusters: Clusters, maps: Eigenmaps | None, config: ClusterConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Assign new objects whose neighbours are known; see `assign_embeddings`.

    Args:
        new: (M, D) float32 embeddings.
        near: (M, n) integers, the clustered objects nearest to each, nearest first.
        clusters: The clusters of the clustered objects.
        maps: Their eigenmaps, or None for a method without them.
        config: The settings of the clustering.

    Returns:
        Labels (M,) int32 and cosine distances (M,) float32 to the centres.
    """
    places = new
    if maps is not None:
        weights = 1 / np.sqrt(np.arange(1, near.shape[1] + 1))  # nearer ones say more: better than equal ones
        places = extend_eigenmaps(maps.rows, maps.eigenvalues, near, weights)
        places = places if config.assign == "kmeans" else normalise_rows(places)
    if maps is not None or config.method in GRAPHLESS_METHODS:
        labels = find_nearest_centres(places, clusters.centres)
    else:
        from scipy import stats

        labels = stats.mode(clusters.labels[near], axis=1).mode
    return labels.astype(np.int32), compute_cosine_distances(places, clusters.centres, labels)
