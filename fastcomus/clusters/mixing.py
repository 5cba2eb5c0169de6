"""The number of clusters: fine communities are joined while a pair of them mixes, whatever their sizes or number.

Two parts of a graph mix as much as a random walker who is confined to both changes sides: by P(a to b) + P(b to a), 1
where they are one and 0 where they are apart. Whether two parts are one thus depends on the two alone, not on how large
the graph is or how many more there are, as it does by modularity (its resolution limit) or by the largest eigengap.
A part that a walker leaves more often than he stays is no cluster by itself, however little it mixes with any other: an
even cluster can be cut into many such parts, into others each time. One that another run finds again is a cluster.
"""

from __future__ import annotations

import heapq
import math
import statistics
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, csr_matrix

from fastcomus.backends.joined_neighbors import join_neighbors
from fastcomus.backends.placed import fetch
from fastcomus.clusters.graph import KnnGraph, drop_loops

MIXED = 0.25  # from which on two parts are one cluster
_LEAST_NEAREST = 5  # neighbours, itself included, with which a walker still meets all of a cluster
_SHARE = 0.55  # of an average cluster's objects: with more neighbours, small clusters mix
_MOST_CLUSTERS = 200  # that few objects are expected to have, so that the first neighbours are few enough
_GROWTH = 1.15  # neighbours are raised where they would grow by more
# More neighbours reach into other classes where they leave less than this share of the clusters, although the larger
# share of the objects is in communities that are found again.
_COLLAPSE, _CLEAR = 0.2, 0.8
_RESOLUTION = 4.0  # of the first communities; it is doubled while that gives more clusters
_RESOLUTION_OF_MANY = 2.0  # among many objects, where communities of a large cluster are otherwise too many to mix
_GAIN = 1.1
_OTHER = 1_000  # added to the seed of a run with which another is compared
_STEADY = 0.5
_RUNS = 3  # of which the median counts, since each run of Louvain differs a little
_MANY = 5_000  # objects from which on one run is enough


@dataclass(frozen=True)
class Joins:
    """The order in which parts of a graph are joined, the two that mix most first.

    Attributes:
        parts: (N,) integers from 0, the part of each node.
        pairs: (J, 2) integers, the two that are joined: parts, or parts + j for what join j made.
        mixing: (J,) how much they mix, in [0, 2]; at least `MIXED` where a walker leaves one that is not found
            again more often than he stays.
        steady: The share of nodes in parts that another run finds too; 1 where that was not looked at.
    """

    parts: np.ndarray
    pairs: np.ndarray
    mixing: np.ndarray
    steady: float = 1.0


def count_unmixed(graph: KnnGraph, seed: int) -> int:
    """Count the clusters that do not mix.

    Fine communities (Louvain) of the graph of the nearest neighbours are joined, the pair that mixes most first, until
    none mixes by `MIXED`. From few on, neighbours are raised to a share of an average cluster's objects. Communities
    are made finer while that gives clearly more clusters. Groups of fewer than sqrt(N) / 4 objects do not count.

    Args:
        graph: Of N nodes.
        seed: For the order in which nodes are visited.

    Returns:
        k, in [2, N].
    """
    n = graph.size
    if graph.nearest is None:
        return _count_in_graph(drop_loops(graph.affinity), seed)[0]
    nearest = fetch(graph.nearest)
    neighbors, found, wanted = 0, 0, fit_neighbors(n / _MOST_CLUSTERS)
    while wanted > _GROWTH * neighbors:
        neighbors, before = min(wanted, nearest.shape[1]), found
        found, steady = _count_in_graph(join_nearest(nearest[:, :neighbors]), seed)
        if found < _COLLAPSE * before and steady > _CLEAR:
            return before
        wanted = min(fit_neighbors(n / found), nearest.shape[1])
    return found


def count_with_fewest(graph: KnnGraph, seed: int) -> int:
    """Count as `count_unmixed` does with its fewest neighbours, which reach least into other classes."""
    assert graph.nearest is not None
    fewest = min(fit_neighbors(graph.nearest.shape[0] / _MOST_CLUSTERS), graph.nearest.shape[1])
    return _count_in_graph(join_nearest(fetch(graph.nearest[:, :fewest])), seed)[0]


def join_communities(affinity: csr_array, resolution: float, seed: int) -> Joins:
    """Join the communities (Louvain) of a graph (N, N) without loops; a higher `resolution` gives finer ones."""
    # Not Leiden's: scikit-network's draws from the C library whatever its seed, and need not end where sums tie.
    from sknetwork.clustering import Louvain

    links = csr_matrix(affinity)
    parts, others = (
        np.asarray(Louvain(resolution=resolution, shuffle_nodes=True, random_state=one).fit_predict(links), np.int64)
        for one in (seed, seed + _OTHER)
    )
    return join_parts(affinity, parts, find_steady(parts, others))


def find_steady(parts: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Find which parts (N,) another division `others` (N,) has too: half of what it and its like there hold is shared.

    An even cluster is cut otherwise each time; communities that are there are found again, however much they overlap.
    """
    ones = np.ones(len(parts), np.float32)
    shared = csr_array((ones, (parts, others)), shape=(int(parts.max()) + 1, int(others.max()) + 1)).tocoo()
    either = np.bincount(parts)[shared.row] + np.bincount(others)[shared.col] - shared.data
    steady = np.zeros(int(parts.max()) + 1, bool)
    steady[shared.row[shared.data >= _STEADY * either]] = True
    return steady


def join_parts(affinity: csr_array, parts: np.ndarray, steady: np.ndarray | None = None) -> Joins:
    """Join parts of a graph, the pair that mixes most first, until no two are linked.

    Args:
        affinity: W, (N, N) symmetric; its diagonal counts as links within parts.
        parts: (N,) integers from 0, each of which occurs.
        steady: (P,) bool, the parts that are clusters even where a walker leaves them more often than he stays; None
            for all.

    Returns:
        The joins in their order.
    """
    count = int(parts.max()) + 1
    member = csr_array((np.ones(len(parts), np.float32), (np.arange(len(parts)), parts)), shape=(len(parts), count))
    links = (member.T @ affinity @ member).tocsr()
    around: list[dict[int, float]] = []  # by part: weights of links to others
    inside: list[float] = []  # by part: twice the weight of links within it
    for part in range(count):
        some = slice(links.indptr[part], links.indptr[part + 1])
        others = dict(zip(links.indices[some].tolist(), links.data[some].tolist(), strict=True))
        inside.append(others.pop(part, 0.0))
        around.append(others)

    is_loose = [False] * count if steady is None else (~steady).tolist()
    # more often than he stays
    leaves = [is_loose[part] and sum(around[part].values()) > inside[part] for part in range(count)]

    def mix(one: int, other: int) -> float:
        between = around[one][other]
        mixed = between / (inside[one] + between) + between / (inside[other] + between)
        return max(mixed, MIXED * (1 + mixed / 2)) if leaves[one] or leaves[other] else mixed

    heap = [(-mix(one, other), one, other) for one in range(count) for other in around[one] if other < one]
    heapq.heapify(heap)
    gone, pairs, mixing = set[int](), [], []
    while heap:
        height, one, other = heapq.heappop(heap)
        if one in gone or other in gone:
            continue
        new = len(around)
        gone |= {one, other}
        inside.append(inside[one] + inside[other] + 2 * around[one][other])
        joined = {place: around[one].get(place, 0.0) + around[other].get(place, 0.0)
                  for place in sorted(around[one].keys() | around[other].keys()) if place not in gone}  # fmt: skip
        around.append(joined)
        is_loose.append(is_loose[one] and is_loose[other])
        leaves.append(is_loose[new] and sum(joined.values()) > inside[new])
        pairs.append((one, other))
        mixing.append(-height)
        for place, weight in joined.items():
            around[place][new] = weight
            heapq.heappush(heap, (-mix(new, place), new, place))
    share = 1.0 if steady is None else float(steady[parts].mean())
    return Joins(parts, np.array(pairs, np.int64).reshape(-1, 2), np.array(mixing), share)


def cut_joins(joins: Joins, count: int) -> np.ndarray:
    """Return the labels (N,) from 0 after the first `count` joins."""
    parents = np.arange(int(joins.parts.max()) + 1 + len(joins.pairs))
    made = len(parents) - len(joins.pairs)
    for join, pair in enumerate(joins.pairs[:count]):
        parents[pair] = made + join
    for place in range(len(parents) - 1, -1, -1):  # what is made later is known already
        parents[place] = parents[parents[place]]
    labels: np.ndarray = np.unique(parents[joins.parts], return_inverse=True)[1]
    return labels


def count_joins(joins: Joins, mixed: float) -> int:
    """Count the joins before the first pair that mixes by less than `mixed`."""
    below = np.flatnonzero(joins.mixing < mixed)
    return int(below[0]) if len(below) else len(joins.mixing)


def join_nearest(nearest: np.ndarray) -> csr_array:
    """Link each row to its nearest, (N, n) integers with itself, as `build_knn_graph` does."""
    return drop_loops(join_neighbors(nearest.copy()))


def fit_neighbors(objects: float) -> int:
    """Return how many neighbours suit clusters of so many objects."""
    return max(_LEAST_NEAREST, round(_SHARE * objects))


def _count_in_graph(affinity: csr_array, seed: int) -> tuple[int, float]:
    """Count unmixed clusters at resolutions that double while there are clearly more; the number before is kept.

    The second number is the share of nodes in communities that are found again, at the first resolution.
    """
    n = affinity.shape[0]
    least, best = max(3.0, math.sqrt(n) / 4), 0
    resolution = _RESOLUTION if n < _MANY else _RESOLUTION_OF_MANY
    steady: list[float] = []
    while True:
        counts, finest = [], 0
        for run in range(1 if n >= _MANY else _RUNS):
            joins = join_communities(affinity, resolution, seed + run)
            labels = cut_joins(joins, count_joins(joins, MIXED))
            counts.append(max(2, int((np.bincount(labels) >= least).sum())))
            finest = int(joins.parts.max()) + 1
            steady += [joins.steady] if not best else []
        found = statistics.median_low(counts)
        if best and found <= _GAIN * best:
            return best, statistics.median(steady)
        if finest > n / 3:
            return best or min(found, n), statistics.median(steady)
        best, resolution = found, 2 * resolution
