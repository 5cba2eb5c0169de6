"""Embeddings to clusters: graph, number of clusters, eigenmaps, k-means and filter, in this order (steps 4 to 7)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastcomus.backends.interface import Backend
from fastcomus.clusters.checks import check_components
from fastcomus.clusters.communities import find_communities
from fastcomus.clusters.count import SuggestedCounts, compute_modularity, count_by_eigengap
from fastcomus.clusters.eigenmaps import Eigenmaps, require_eigenmaps
from fastcomus.clusters.few_objects import build_fitting_graph, is_fitting, list_shares, pick_clearest
from fastcomus.clusters.granularity import weigh_count
from fastcomus.clusters.graph import KnnGraph
from fastcomus.clusters.kept_graph import GraphKeeper
from fastcomus.clusters.labels import Clusters, build_clusters, cluster_rows, run_minibatch_kmeans, run_ward
from fastcomus.clusters.levels import find_levels
from fastcomus.clusters.mixing import count_unmixed
from fastcomus.config import GRAPHLESS_METHODS, ClusterConfig

log = logging.getLogger("fastcomus")

_LAST = 0.8  # share of the numbers looked at, from which on the best may lie beyond them
_APART = 0.1  # eigenvalues up to which are of clusters that keep apart
_FEW = 4  # below this many objects the number of clusters is 2, whatever the criterion
MANY = 20  # objects that most often are of more than two kinds


@dataclass(frozen=True)
class Clustered:
    """Clusters, and the eigenmaps and graph behind them, None where the method needs none."""

    clusters: Clusters
    maps: Eigenmaps | None = None
    graph: KnnGraph | None = None

    def collect_facts(self) -> dict[str, Any]:
        """Return what tells how reliable the result is, for the manifest: recall, component sizes, residuals."""
        facts: dict[str, Any] = {}
        if self.graph is not None:
            facts.update(neighbors=self.graph.n_neighbors, recall=self.graph.recall)
            facts.update(components=list(self.graph.component_sizes[:100]))
        if self.maps is not None:
            facts.update(residual=self.maps.residual, orthonormality=self.maps.orthonormality)
        return facts


def cluster_embeddings(
    rows: np.ndarray, config: ClusterConfig, seed: int, backend: Backend, keeper: GraphKeeper | None = None
) -> Clustered:
    """Cluster embeddings: steps 4 to 7 of the method (the paper's section 3.2), for `method` "spectral".

    4. graph: W = (A + A^T) / 2, where A joins each row to its `n_neighbors` nearest, itself included.
    5. eigenmaps: the first k eigenvectors of the symmetric normalised Laplacian L = I - D^-1/2 W D^-1/2, the constant
       one kept, rescaled by D^-1/2.
    6. k-means on the rows of the eigenmaps, the best of `n_init` runs.
    7. filter: of each cluster, the p % (`filter`) farthest from its centre by cosine distance are not core.

    The other methods replace steps 4 to 6 or some of them.

    Args:
        rows: (N, D) float32, finite, for which `check_count` passes.
        config: The settings; without `k` the number of clusters is estimated.
        seed: Seed of all random choices.
        backend: Does the heavy computations.
        keeper: Keeps the graph and its eigenmaps for other numbers of clusters, or None.

    Returns:
        The clusters with eigenmaps and graph.

    Raises:
        InputError: If the eigensolver does not converge.
    """
    if config.method in GRAPHLESS_METHODS:
        return Clustered(_cluster_without_graph(rows, config, seed, backend))
    graph = build_fitting_graph(rows, config.k, config, seed, backend, keeper=keeper)
    k, maps = (config.k, None) if config.k else _choose_k(graph, config, seed, backend)
    check_components(replace(config, k=k))
    tried = []
    for share in list_shares(len(rows), k, config.n_neighbors) if config.method == "spectral" else (1.0,):
        if share < 1 or not (config.k or is_fitting(graph, k, config)):
            graph, maps = build_fitting_graph(rows, k, config, seed, backend, share, keeper), None
        tried.append(_cluster_graph(rows, graph, maps, k, config, seed, backend))
        if graph.has_groups:  # the same whatever the share
            break
    found = tried[pick_clearest(rows, [one.clusters.labels for one in tried], config.metric)]
    assert found.graph is not None
    _warn_about_graph(found.graph, k, config)
    if found.graph.n_neighbors < config.n_neighbors:
        told = found.graph.n_neighbors, len(rows), k, config.n_neighbors
        log.info("cluster: %d neighbours an object, since %d objects in %d clusters are few for %d", *told)
    return found


def cluster_graph(
    graph: KnnGraph, rows: np.ndarray | None, config: ClusterConfig, seed: int, backend: Backend
) -> Clustered:
    """Cluster the nodes of a graph of the user's own: steps 5 to 7 of `cluster_embeddings`.

    Args:
        graph: Of N nodes, for which `check_graph_count` passes.
        rows: (N, D) float32 embeddings of the nodes, which methods other than "spectral" need.
        config: The settings; those of the search for neighbours have no effect.
        seed: Seed of all random choices.
        backend: Does the heavy computations.

    Returns:
        The clusters with eigenmaps and graph.

    Raises:
        InputError: If the eigensolver does not converge.
    """
    k, maps = (config.k, None) if config.k else _choose_k(graph, config, seed, backend)
    check_components(replace(config, k=k))
    found = _cluster_graph(rows, graph, maps, k, config, seed, backend)
    _warn_about_graph(graph, k, config)
    return found


def suggest_counts(
    rows: np.ndarray, config: ClusterConfig, seed: int, backend: Backend, keeper: GraphKeeper | None = None
) -> SuggestedCounts:
    """Estimate the number of clusters by every criterion, with the curve that each estimate was read from.

    Args:
        rows: (N, D) float32, one embedding for each object, finite, N >= 2.
        config: The settings of the graph and of the criteria.
        seed: Seed of all random choices.
        backend: Does the heavy computations.
        keeper: Keeps the graph and its eigenmaps, or None.

    Returns:
        The suggested numbers and the curves.

    Raises:
        InputError: If the eigensolver does not converge.
    """
    graph = build_fitting_graph(rows, 0, config, seed, backend, keeper=keeper)
    counts = {"mixing": count_unmixed(graph, seed), "modularity": 2, "eigengap": 2}
    if len(rows) < _FEW:
        return SuggestedCounts(len(rows), counts)
    modularities: dict[int, float] = {}

    def count(maps: Eigenmaps) -> int:
        modularities.update(_compute_modularities(graph, maps, config, seed, backend))
        counts.update(modularity=_pick_highest(modularities), eigengap=count_by_eigengap(maps.eigenvalues))
        return max(counts["modularity"], counts["eigengap"])

    maps = _look_while_it_gains(graph, config, seed, backend, count)[1]
    tried = sorted(modularities)
    curves = tuple(tried), tuple(modularities[k] for k in tried), tuple(maps.eigenvalues.tolist())
    # What `cluster --levels` would write.
    method = "spectral" if config.method in GRAPHLESS_METHODS else config.method
    asked = replace(config, k=counts["mixing"], method=method, n_components=0)
    found = cluster_embeddings(rows, asked, seed, backend, keeper)
    assert found.graph is not None
    labels = found.clusters.labels
    levels = find_levels(found.graph, labels, seed)
    return SuggestedCounts(len(rows), counts, *curves, weigh_count(graph, asked.k, seed), labels, levels)


def _cluster_graph(
    rows: np.ndarray | None,
    graph: KnnGraph,
    maps: Eigenmaps | None,
    k: int,
    config: ClusterConfig,
    seed: int,
    backend: Backend,
) -> Clustered:
    """Cluster the nodes of a graph; `maps` are its eigenmaps where they are known already, perhaps more than needed."""
    if config.method != "spectral":
        assert rows is not None
        of_graph = config.method == "communities"
        labels = find_communities(graph, k, seed) if of_graph else run_ward(rows, k, graph.affinity)
        return Clustered(build_clusters(rows, labels, k, config.filter), None, graph)
    wanted = min(config.n_components or k, graph.size)
    if maps is None or maps.placed.shape[1] < wanted:
        maps = require_eigenmaps(graph, wanted, seed, backend)
    maps = maps.take_first(wanted)
    return Clustered(cluster_rows(maps.placed, k, config.assign, config, seed, backend), maps, graph)


def _cluster_without_graph(rows: np.ndarray, config: ClusterConfig, seed: int, backend: Backend) -> Clusters:
    if config.method == "kmeans":
        return cluster_rows(backend.put(rows), config.k, "kmeans", config, seed, backend)
    labels = run_minibatch_kmeans(rows, config.k, config.n_init, seed)
    return build_clusters(rows, labels, config.k, config.filter)


def _warn_about_graph(graph: KnnGraph, k: int, config: ClusterConfig) -> None:
    sizes = graph.component_sizes
    if len(sizes) > k:
        shown = ", ".join(map(str, sizes[:5])) + (", ..." if len(sizes) > 5 else "")
        log.warning(
            "cluster: the graph falls into %d parts (of %s objects), more than %d clusters, so that some parts without "
            "a link share a cluster.%s",
            len(sizes),
            shown,
            k,
            " More --n-neighbors join them." if graph.n_neighbors else "",
        )
    if graph.recall < config.recall:
        log.warning("cluster: the search found %.3f of the true neighbours, not %.3f", graph.recall, config.recall)


def _choose_k(graph: KnnGraph, config: ClusterConfig, seed: int, backend: Backend) -> tuple[int, Eigenmaps | None]:
    """The number of clusters by `config.choose_k`, at least 2, and the eigenmaps computed for it, if any."""
    maps = None
    if config.choose_k == "mixing":
        k = count_unmixed(graph, seed)
    elif graph.size < _FEW:
        k = 2
    else:

        def count(maps: Eigenmaps) -> int:
            if config.choose_k == "eigengap":
                return count_by_eigengap(maps.eigenvalues)
            return _pick_highest(_compute_modularities(graph, maps, config, seed, backend))

        k, maps = _look_while_it_gains(graph, config, seed, backend, count)
    few = k == 2 and graph.size >= MANY
    hint = "; few kinds were told apart: if you expect more, stop with ctrl-C and give --k" if few else ""
    log.info("cluster: %d clusters, by %s; --k sets another number%s", k, config.choose_k, hint)
    return k, maps


def _look_while_it_gains(
    graph: KnnGraph, config: ClusterConfig, seed: int, backend: Backend, count: Callable[[Eigenmaps], int]
) -> tuple[int, Eigenmaps]:
    """Count by eigenmaps of up to `max_k` clusters, and of twice as many while that may find more.

    There is one more eigenvector than the largest k tried, so that the gap after it is known.
    """
    most, end = config.max_k, graph.size - 2
    while True:
        most = min(most, end)
        maps = require_eigenmaps(graph, most + 1, seed, backend)
        found = count(maps)
        if most == end or (found < _LAST * most and maps.eigenvalues[-1] > _APART):
            return found, maps
        most *= 2


def _compute_modularities(
    graph: KnnGraph, maps: Eigenmaps, config: ClusterConfig, seed: int, backend: Backend
) -> dict[int, float]:
    """By k, ascending: the modularity of the k clusters that QR finds."""
    most = maps.placed.shape[1] - 1
    # Every k up to about 20, then steps of 5 %, since one more cluster among many changes little.
    tried = sorted({min(most, max(k, round(k * 1.05))) for k in range(2, most + 1)})
    labels = {k: cluster_rows(maps.placed[:, :k], k, "qr", config, seed, backend).labels for k in tried}
    return {k: compute_modularity(graph.affinity, labels[k]) for k in tried}


def _pick_highest(modularities: dict[int, float]) -> int:
    return max(modularities, key=lambda k: modularities[k])
