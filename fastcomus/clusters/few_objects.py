"""The graph of few objects: neighbours that follow the number of objects and clusters, and no links across wide gaps.

With as many neighbours as objects a graph is complete and its eigenvectors say nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np

from fastcomus.backends.interface import Backend
from fastcomus.clusters.graph import FEW_ROWS, KnnGraph, build_knn_graph
from fastcomus.clusters.kept_graph import GraphKeeper
from fastcomus.clusters.mixing import count_unmixed
from fastcomus.config import ClusterConfig
from fastcomus.store.embeddings import normalise_rows

_LEAST_NEIGHBORS = 3
_SHARES = (1, 0.7, 0.5, 0.35, 0.25)  # of an average cluster: where clusters differ in size, the small ones decide
_CLEARER = 0.01  # by which silhouettes must be higher for fewer neighbours than an average cluster has objects
_APART = 1.5  # a gap is at least this many times as wide as the largest step between neighbours
_LEAST_OF_GROUP = 3  # a group of fewer objects is an outlier


def build_fitting_graph(
    rows: np.ndarray,
    k: int,
    config: ClusterConfig,
    seed: int,
    backend: Backend,
    share: float = 1.0,
    keeper: GraphKeeper | None = None,
) -> KnnGraph:
    """Build the kNN graph with `n_neighbors` neighbours, or as many as an average cluster has objects, if that is less.

    Where the number of clusters is unknown and objects are few, it is estimated (`count_unmixed`). Groups that lie far
    apart are not linked, whatever their sizes.

    Args:
        rows: (N, D) float32, finite, N >= 2.
        k: Number of clusters, or 0 if it is unknown.
        config: The settings of the graph.
        seed: Seed of the search for neighbours and of the eigensolver.
        backend: Searches for neighbours and solves for eigenvectors.
        share: Neighbours per object of an average cluster, in (0, 1].
        keeper: Keeps the graph of more than `FEW_ROWS` rows, or None.

    Returns:
        The graph; `KnnGraph.n_neighbors` says how many neighbours it has.

    Raises:
        InputError: If the eigensolver does not converge.
    """
    n, most = len(rows), min(config.n_neighbors, len(rows))
    placed = cache(partial(backend.put, rows))  # which a graph that is kept does not need

    def search(n_neighbors: int, groups: np.ndarray | None = None) -> KnnGraph:
        return build_knn_graph(placed(), n_neighbors, config.metric, config.recall, seed, backend, groups)

    def build(count: int) -> KnnGraph:
        return search(count) if keeper is None or n <= FEW_ROWS else keeper.find_graph(count, search)

    # Groups would have been found with a whole share, and are not sought again.
    places = normalise_rows(rows) if config.metric == "cosine" else rows
    groups = find_groups_apart(places, k) if share == 1 else None
    if groups is not None:
        return search(n_neighbors=most, groups=groups)
    if k:
        count = limit_neighbors(share * n / k, most)
        graph = build(count)
        while len(graph.component_sizes) > k and count < most:  # more parts than clusters: they are joined
            count = min(most, math.ceil(1.5 * count))
            graph = build(count)
    else:
        graph = build(most)
        wanted = limit_neighbors(n / count_unmixed(graph, seed), most) if 4 <= n <= FEW_ROWS else most
        if wanted < most:
            graph = replace(build(wanted), nearest=graph.nearest)
    return graph


def find_groups_apart(rows: np.ndarray, k: int) -> np.ndarray | None:
    """Find groups of at least 3 rows between which gaps are far wider than between the neighbours in each.

    Args:
        rows: (N, D) float32.
        k: Number of groups, or 0 for any number.

    Returns:
        (N,) integers, the group of each row, or None if there are none, or more rows than `FEW_ROWS`.
    """
    most = len(rows) // _LEAST_OF_GROUP
    if len(rows) > FEW_ROWS or most < max(k, 2):
        return None
    from scipy.cluster.hierarchy import fcluster, linkage

    tree = linkage(rows.astype(np.float64), "single")
    steps = tree[::-1, 2]  # descending: the first k - 1 are cut for k groups
    counts = [k] if k else range(2, most + 1)
    gaps = [steps[count - 2] >= _APART * steps[count - 1] and steps[count - 2] > 0 for count in counts]
    for count, gap in sorted(zip(counts, gaps, strict=True), reverse=True):
        if gap:
            groups = fcluster(tree, count, "maxclust") - 1
            if np.bincount(groups).min() >= _LEAST_OF_GROUP and groups.max() + 1 == count:
                return groups
    return None


def limit_neighbors(objects: float, most: int) -> int:
    """Return how many neighbours suit clusters of so many objects on average, at most `most`."""
    return min(most, max(_LEAST_NEIGHBORS, round(objects)))


def is_fitting(graph: KnnGraph, k: int, config: ClusterConfig) -> bool:
    """Return whether a graph is what `build_fitting_graph` would make for k clusters."""
    n = graph.size
    return n > FEW_ROWS and graph.n_neighbors == limit_neighbors(n / k, config.n_neighbors)


def list_shares(rows: int, k: int, n_neighbors: int) -> tuple[float, ...]:
    """List the neighbours to try, as shares of an average cluster: several only where these are few.

    Args:
        rows: N.
        k: Number of clusters.
        n_neighbors: The most neighbours.

    Returns:
        Shares in (0, 1], the first of which is 1.
    """
    few = k < rows <= FEW_ROWS and rows / k < n_neighbors
    counts = {limit_neighbors(share * rows / k, n_neighbors): share for share in reversed(_SHARES)}
    return tuple(sorted(counts.values(), reverse=True)) if few else (1.0,)


def pick_clearest(rows: np.ndarray, labels: Sequence[np.ndarray], metric: str) -> int:
    """Pick the clustering with the highest mean silhouette; the first unless another is clearly higher.

    Args:
        rows: (N, D) float32.
        labels: Clusterings, (N,) integers each.
        metric: "euclidean" or "cosine".

    Returns:
        Its place in `labels`.
    """
    if len(labels) == 1:
        return 0
    distances = measure_distances(rows, metric)
    heights = [measure_silhouette(distances, one) for one in labels]
    best = int(np.argmax(heights))
    return best if heights[best] > heights[0] + _CLEARER else 0


def measure_silhouette(distances: np.ndarray, labels: np.ndarray) -> float:
    """Measure the mean silhouette of a clustering (Rousseeuw 1987): (b - a) / max(a, b) of each row.

    Here a is its mean distance to the others of its cluster, b the least mean distance to another cluster. It is
    computed here since scikit-learn takes a second to load, longer than all else of few objects.

    Args:
        distances: (N, N), of all pairs.
        labels: (N,) integers.

    Returns:
        In [-1, 1]; -1 where all rows are one cluster or each is its own. A row that is its cluster counts as 0.
    """
    numbers, own, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if not 1 < len(numbers) < len(labels):
        return -1.0
    sums = distances @ (own[:, None] == np.arange(len(numbers)))
    row = np.arange(len(labels))
    inside = sums[row, own] / np.maximum(sizes[own] - 1, 1)
    means = sums / sizes
    means[row, own] = np.inf
    outside = means.min(axis=1)
    wider = np.maximum(inside, outside)
    heights = np.divide(outside - inside, wider, out=np.zeros(len(labels)), where=(wider > 0) & (sizes[own] > 1))
    return float(heights.mean())


def measure_distances(rows: np.ndarray, metric: str) -> np.ndarray:
    """Measure the distances of all pairs, (N, N) float64.

    Args:
        rows: (N, D) float32.
        metric: "euclidean", or "cosine": 1 - cosine, 1 for a row of zeros.
    """
    if metric == "cosine":
        wide = normalise_rows(rows).astype(np.float64)
        distances = 1 - wide @ wide.T
    else:
        wide = rows.astype(np.float64)
        wide -= wide.mean(axis=0)  # differences of large squares have few digits
        products = wide @ wide.T
        squared = products.diagonal()
        distances = np.sqrt(np.maximum(squared[:, None] + squared - 2 * products, 0))
    np.fill_diagonal(distances, 0)
    return distances
