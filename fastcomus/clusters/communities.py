"""Clusters that are communities of the graph: fine ones, joined until as many are left as are wanted."""

from __future__ import annotations

import math

import numpy as np
from scipy.sparse import csr_array

from fastcomus.backends.placed import fetch
from fastcomus.clusters.graph import KnnGraph, drop_loops
from fastcomus.clusters.mixing import Joins, cut_joins, fit_neighbors, join_communities, join_nearest, join_parts

_RESOLUTION, _FINEST = 4.0, 2.0**12  # of the first communities; beyond the last every node is one


def find_communities(graph: KnnGraph, k: int, seed: int) -> np.ndarray:
    """Cluster the nodes of a graph: fine communities (Louvain) are joined, the pair that mixes most first.

    Groups of fewer than sqrt(N) / 4 nodes do not count as clusters; they go where most of their links lead.

    Args:
        graph: Of N nodes.
        k: The number of clusters, at most N.
        seed: For the order in which nodes are visited.

    Returns:
        Labels (N,) int64 in [0, k), each of which occurs.
    """
    return join_to_count(fit_affinity(graph, k), k, seed)


def fit_affinity(graph: KnnGraph, k: int) -> csr_array:
    """Return the links, without loops, among which k clusters are sought: as many of the nearest as suit their size."""
    if graph.nearest is None:
        return drop_loops(graph.affinity)
    n, most = graph.nearest.shape
    return join_nearest(fetch(graph.nearest[:, : min(fit_neighbors(n / k), most)]))


def join_to_count(affinity: csr_array, k: int, seed: int) -> np.ndarray:
    """Join fine communities of links (N, N) without loops until k are left; see `find_communities`."""
    n, resolution = affinity.shape[0], _RESOLUTION
    least = min(max(3.0, math.sqrt(n) / 4), n / k)
    joins = join_communities(affinity, resolution, seed)
    while (most := _count_groups(joins, least).max()) < k and resolution < _FINEST:
        resolution *= 2
        joins = join_communities(affinity, resolution, seed)
    if most < k:
        joins, least = join_parts(affinity, np.arange(n)), 1.0
    enough = np.flatnonzero(_count_groups(joins, least) >= k)
    return gather_groups(affinity, cut_joins(joins, int(enough[-1])), k)


def _count_groups(joins: Joins, least: float) -> np.ndarray:
    """Count the groups of at least `least` nodes after no join, one, two, ...: (J + 1,)."""
    sizes = np.bincount(joins.parts).tolist()
    counts = [sum(size >= least for size in sizes)]
    for one, other in joins.pairs.tolist():
        sizes.append(sizes[one] + sizes[other])
        gone = (sizes[one] >= least) + (sizes[other] >= least)
        counts.append(counts[-1] + (sizes[-1] >= least) - gone)
    return np.array(counts)


def gather_groups(affinity: csr_array, groups: np.ndarray, k: int) -> np.ndarray:
    """Keep the k largest groups; every other goes to the one that most of its links lead to, else to the largest."""
    sizes = np.bincount(groups)
    by_size = np.argsort(-sizes, kind="stable")
    place = np.empty(len(sizes), np.int64)
    place[by_size] = np.arange(len(sizes))
    labels = place[groups]
    if len(sizes) > k:
        n = len(labels)
        member = csr_array((np.ones(n, np.float32), (np.arange(n), labels)), shape=(n, len(sizes)))
        links = (member.T @ affinity @ member).tocsr()[k:, :k].toarray()
        labels = np.concatenate([np.arange(k), links.argmax(axis=1)])[labels]
    return labels
