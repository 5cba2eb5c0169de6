"""Embeddings to clusters: graph, number of clusters, eigenmaps, k-means and filter, in this order (steps 4 to 7)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastcomus.backends.interface import Backend
from fastcomus.clusters.checks import check_components
from fastcomus.clusters.count import SuggestedCounts, compute_modularity, count_by_eigengap, find_communities
from fastcomus.clusters.eigenmaps import Eigenmaps, require_eigenmaps
from fastcomus.clusters.few_objects import build_fitting_graph, is_fitting, list_shares, pick_clearest
from fastcomus.clusters.granularity import weigh_count
from fastcomus.clusters.graph import KnnGraph
from fastcomus.clusters.kept_graph import GraphKeeper
from fastcomus.clusters.labels import Clusters, build_clusters, cluster_rows, run_minibatch_kmeans, run_ward
from fastcomus.clusters.mixing import count_unmixed
from fastcomus.config import GRAPHLESS_METHODS, ClusterConfig

log = logging.getLogger("fastcomus")

_FEW = 4  # below this many objects the number of clusters is 2, whatever the criterion


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
    if config.method == "leiden":
        return _cluster_by_leiden(rows, graph, config, seed, backend)
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
    if config.method == "leiden":
        assert rows is not None
        return _cluster_by_leiden(rows, graph, config, seed, backend)
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
    leiden = _count_by_leiden(graph, config, seed)
    counts = {"mixing": count_unmixed(graph, seed), "leiden": leiden, "modularity": 2, "eigengap": 2}
    if len(rows) < _FEW:
        return SuggestedCounts(len(rows), counts)
    maps = _find_eigenmaps_to_count(graph, config, seed, backend)
    modularities = _compute_modularities(graph, maps, config, seed, backend)
    counts |= {"modularity": _pick_highest(modularities), "eigengap": count_by_eigengap(maps.eigenvalues)}
    curves = tuple(modularities), tuple(modularities.values()), tuple(maps.eigenvalues.tolist())
    return SuggestedCounts(len(rows), counts, *curves, weigh_count(graph, counts["mixing"], seed))


def _cluster_by_leiden(
    rows: np.ndarray, graph: KnnGraph, config: ClusterConfig, seed: int, backend: Backend
) -> Clustered:
    labels = find_communities(graph.affinity, config.resolution, seed)
    k = int(labels.max()) + 1
    _warn_about_graph(graph, k, config)
    return Clustered(build_clusters(rows, labels, k, config.filter, backend.device), None, graph)


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
    if config.method == "agglomerative":
        assert rows is not None
        labels = run_ward(rows, k, graph.affinity)
        return Clustered(build_clusters(rows, labels, k, config.filter, backend.device), None, graph)
    wanted = min(config.n_components or k, graph.affinity.shape[0])
    if maps is None or maps.rows.shape[1] < wanted:
        maps = require_eigenmaps(graph, wanted, seed, backend)
    maps = maps.take_first(wanted)
    return Clustered(cluster_rows(maps.rows, k, config.assign, config, seed, backend), maps, graph)


def _cluster_without_graph(rows: np.ndarray, config: ClusterConfig, seed: int, backend: Backend) -> Clusters:
    if config.method == "kmeans":
        return cluster_rows(rows, config.k, "kmeans", config, seed, backend)
    labels = run_minibatch_kmeans(rows, config.k, config.n_init, seed)
    return build_clusters(rows, labels, config.k, config.filter, backend.device)


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
    elif config.choose_k == "leiden":
        k = _count_by_leiden(graph, config, seed)
    elif graph.affinity.shape[0] < _FEW:
        k = 2
    else:
        maps = _find_eigenmaps_to_count(graph, config, seed, backend)
        if config.choose_k == "eigengap":
            k = count_by_eigengap(maps.eigenvalues)
        else:
            k = _pick_highest(_compute_modularities(graph, maps, config, seed, backend))
    log.info("cluster: %d clusters, by %s; --k sets another number", k, config.choose_k)
    return k, maps


def _count_by_leiden(graph: KnnGraph, config: ClusterConfig, seed: int) -> int:
    return max(2, int(find_communities(graph.affinity, config.resolution, seed).max()) + 1)


def _find_eigenmaps_to_count(graph: KnnGraph, config: ClusterConfig, seed: int, backend: Backend) -> Eigenmaps:
    """One more eigenvector than the largest k tried, so that the gap after it is known."""
    return require_eigenmaps(graph, min(config.max_k, graph.affinity.shape[0] - 2) + 1, seed, backend)


def _compute_modularities(
    graph: KnnGraph, maps: Eigenmaps, config: ClusterConfig, seed: int, backend: Backend
) -> dict[int, float]:
    """By k, ascending: the modularity of the k clusters that QR finds."""
    most = maps.rows.shape[1] - 1
    # Every k up to about 20, then steps of 5 %, since one more cluster among many changes little.
    tried = sorted({min(most, max(k, round(k * 1.05))) for k in range(2, most + 1)})
    labels = {k: cluster_rows(maps.rows[:, :k], k, "qr", config, seed, backend).labels for k in tried}
    return {k: compute_modularity(graph.affinity, labels[k]) for k in tried}


def _pick_highest(modularities: dict[int, float]) -> int:
    return max(modularities, key=lambda k: modularities[k])
