"""Clusters of all rows by the graph of a sample of them: for more rows than memory or patience bear.

Every row is linked to its neighbours in the sample, block by block. By these links all rows have a say in the graph of
the sample (`landmarks`), and each goes to a cluster by its neighbours' eigenmaps (Nystroem's extension, as in
`assign`). Nothing of the size of all rows is held but a few links, labels and distances. Then the filter's quantiles
are taken over all members of each cluster.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from fastcomus.backends.interface import Backend
from fastcomus.backends.machine import count_cores
from fastcomus.clusters.assignment import Linker, label_by_neighbours, make_linker
from fastcomus.clusters.checks import check_count
from fastcomus.clusters.cluster import Clustered, cluster_embeddings, cluster_graph
from fastcomus.clusters.eigenmaps import Eigenmaps
from fastcomus.clusters.few_objects import limit_neighbors
from fastcomus.clusters.graph import FEW_ROWS, KnnGraph
from fastcomus.clusters.labels import Clusters
from fastcomus.clusters.landmarks import (
    LABELLING,
    MOST_ROWS,
    build_landmark_graph,
    count_direct_neighbors,
    count_landmarks,
)
from fastcomus.clusters.row_geometry import select_core
from fastcomus.config import GRAPHLESS_METHODS, ClusterConfig
from fastcomus.errors import InputError
from fastcomus.store.embeddings import normalise_rows
from fastcomus.store.row_blocks import RowBlocks

log = logging.getLogger("fastcomus")

BLOCK_ROWS = 65_536  # read and labelled together
_PROBED = 400  # rows beyond the sample on which the search for neighbours is tuned
_LEAST_FOUND = 10  # objects of a group that a sample must hold, so that the graph shows it
_FAR = 0.999  # novelty of rows that lie farther from the sample than all but a thousandth of it from itself


@dataclass
class Sample:
    """Rows on which clusters are fitted.

    Attributes:
        chosen: (n,) int64, ascending, which rows these are.
        total: Number of all rows.
        rows: (n, D) float32; None once nothing needs them, since they are most of what is in memory.
        linker: Finds them for others, and holds them, too; None likewise.
    """

    chosen: np.ndarray
    total: int
    rows: np.ndarray | None
    linker: Linker | None

    @property
    def size(self) -> int:
        """How many rows these are."""
        return len(self.chosen)


@dataclass(frozen=True)
class LinkedRows:
    """Rows [start, stop): their nearest rows of a sample (M, s), int32, nearest first, and novelty (M,) float32."""

    start: int
    stop: int
    near: np.ndarray
    novelty: np.ndarray

    @property
    def images(self) -> int:
        """How many rows these are; engines count so."""
        return self.stop - self.start


def draw_sample(rows: RowBlocks, size: int, config: ClusterConfig, seed: int, backend: Backend) -> Sample:
    """Draw a sample, and prepare for linking all rows to it.

    Args:
        rows: N rows.
        size: Rows to draw, in [2, N).
        config: The settings.
        seed: Seed of everything random.
        backend: Searches for neighbours.

    Returns:
        The sample.

    Raises:
        InputError: If a row is not finite, or the sample does not suit the settings.
    """
    # Rows beyond the sample, on which the search is tuned, are drawn with it.
    drawn = np.random.default_rng(seed).permutation(rows.count)[: size + _PROBED]
    order = np.argsort(drawn)
    taken, is_sample = gather_rows(rows, drawn[order]), order < size
    chosen, sample, others = drawn[order][is_sample], taken[is_sample], taken[~is_sample]
    del taken  # to save memory: as large as the sample
    check_count(config, sample)
    count = LABELLING * count_landmarks(config.n_neighbors) if _has_landmarks(size, config) else 0
    return Sample(chosen, rows.count, sample, make_linker(sample, config, seed, backend, others, rows.count, count))


def link_block(rows: RowBlocks, start: int, stop: int, linker: Linker, backend: Backend, threads: int) -> LinkedRows:
    """Link the rows [start, stop); see `Linker.link`."""
    return LinkedRows(start, stop, *linker.link(rows.read(start, stop), backend, threads))


def fit_sample(
    sample: Sample, links: Iterable[LinkedRows], config: ClusterConfig, seed: int, backend: Backend
) -> Clustered:
    """Cluster a sample, by the links of all rows where it has enough rows for a sparse graph.

    Args:
        sample: Its rows, which it loses, with the search among them, as soon as they are not needed any more.
        links: Of all rows, block by block.
        config: The settings.
        seed: Seed of everything random.
        backend: Does the heavy computations.

    Returns:
        The clusters of the sample.

    Raises:
        InputError: If the eigensolver does not converge.
    """
    size = sample.size
    assert sample.rows is not None
    if _has_landmarks(size, config):
        graph = _build_graph(sample, links, config, backend)
        found = cluster_graph(graph, sample.rows, config, seed, backend)
    else:
        found = cluster_embeddings(sample.rows, config, seed, backend)
    log.warning(
        "cluster: fitted on %d of %d objects; groups of fewer than about %d objects may be missed, since too few of "
        "them were drawn",
        size,
        sample.total,
        math.ceil(_LEAST_FOUND * sample.total / size),
    )
    return found


def label_rows(
    rows: RowBlocks,
    links: Iterable[LinkedRows],
    clusters: Clusters,
    maps: Eigenmaps | None,
    config: ClusterConfig,
    most: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Put rows into the clusters of those that they are linked to.

    Args:
        rows: N rows.
        links: Of all of them, block by block.
        clusters: Of the rows that they are linked to.
        maps: Their eigenmaps, or None for a method without them.
        config: The settings of the clustering.
        most: How many links of each row count, the nearest; None for all.

    Returns:
        Labels (N,) int32 and cosine distances to the centres (N,) float32.
    """
    labels, distances = np.empty(rows.count, np.int32), np.empty(rows.count, np.float32)
    for part in links:
        block = slice(part.start, part.stop)
        new = rows.read(part.start, part.stop) if maps is None else np.empty((len(part.near), 0), np.float32)
        labels[block], distances[block] = label_by_neighbours(new, part.near[:, :most], clusters, maps, config)
    return labels, distances


def join_labels(
    sample: Sample, found: Clustered, rows: RowBlocks, links: Iterable[LinkedRows], config: ClusterConfig
) -> Clusters:
    """Label all rows, number clusters by their sizes, and filter them.

    Args:
        sample: The rows that were fitted, whose labels and distances stay those of their own clustering.
        found: Its clusters.
        rows: All N rows.
        links: Of all of them.
        config: The settings.

    Returns:
        The clusters of N objects.
    """
    of_sample, count = found.clusters, rows.count
    most = None
    if found.graph is not None and not _has_landmarks(sample.size, config):
        most = max(found.graph.n_neighbors - 1, 1)  # which may be fewer than were looked for, as objects are few
    labels, distances = label_rows(rows, links, of_sample, found.maps, config, most)
    labels[sample.chosen], distances[sample.chosen] = of_sample.labels, of_sample.distances
    far = sum(int((part.novelty > _FAR).sum()) for part in links)
    if far > 3 * (1 - _FAR) * count:
        log.warning(
            "cluster: %d objects lie farther from the sample than nearly all of it from itself; it may lack their "
            "kind, and their clusters may not suit them. A larger --fit-on takes more of them along.",
            far,
        )
    k = len(of_sample.sizes)
    by_size = np.argsort(-np.bincount(labels, minlength=k), kind="stable")
    rank = np.empty(k, np.int32)
    rank[by_size] = np.arange(k)
    labels = rank[labels]
    sizes = np.bincount(labels, minlength=k)
    is_fitted = np.zeros(count, bool)
    is_fitted[sample.chosen] = True
    is_core = select_core(labels, distances, sizes, config.filter)
    return Clusters(labels, distances, is_core, of_sample.centres[by_size], sizes, is_fitted)


def cluster_sample(rows: RowBlocks, size: int, config: ClusterConfig, seed: int, backend: Backend) -> Clustered:
    """Fit on a sample and label all others in this process; see `fit_sample`.

    Returns:
        The clusters of all rows, with graph and eigenmaps of those that are fitted.
    """
    sample, threads = draw_sample(rows, size, config, seed, backend), count_cores()
    blocks = iterate_blocks(rows.count)
    assert sample.linker is not None
    links = [link_block(rows, start, stop, sample.linker, backend, threads) for start, stop in blocks]
    found = fit_sample(sample, links, config, seed, backend)
    return replace(found, clusters=join_labels(sample, found, rows, links, config))


def _build_graph(sample: Sample, links: Iterable[LinkedRows], config: ClusterConfig, backend: Backend) -> KnnGraph:
    """Build the graph of landmarks; neighbours are no more than an average cluster has, as in any graph."""
    assert sample.rows is not None and sample.linker is not None
    size, near, asked = sample.size, sample.linker.near, config.n_neighbors
    most = count_direct_neighbors(asked)
    direct = limit_neighbors(size / config.k, most) if config.k else most
    queries = normalise_rows(sample.rows) if config.metric == "cosine" else sample.rows
    neighbors, _ = near.search(queries, min(direct, size), backend, count_cores())
    recall, order = near.recall, near.order
    # The graph and its eigenvectors come to as much memory as the rows and the search among them, which go first.
    sample.linker = None
    del near, queries
    if config.method == "spectral":
        sample.rows = None
    step = math.ceil(sample.total / (MOST_ROWS * size))
    # Copies: views would hold all links of their parts.
    linked = [part.near[-part.start % step :: step, : count_landmarks(asked)].astype(np.int32) for part in links]
    return build_landmark_graph(neighbors, np.concatenate(linked), recall, order)


def _has_landmarks(size: int, config: ClusterConfig) -> bool:
    """Whether a sample is clustered by a graph in which all rows count; the graph of few rows is made in other ways."""
    return size > FEW_ROWS and config.method not in GRAPHLESS_METHODS


def iterate_blocks(count: int) -> Iterator[tuple[int, int]]:
    """Yield the bounds of the blocks of `count` rows."""
    for start in range(0, count, BLOCK_ROWS):
        yield start, min(start + BLOCK_ROWS, count)


def draw_probes(count: int, seed: int) -> np.ndarray:
    """Draw rows of `count` new ones, on which the search for their neighbours is tuned: numbers, ascending."""
    drawn: np.ndarray = np.sort(np.random.default_rng(seed).permutation(count)[:_PROBED])
    return drawn


def gather_rows(rows: RowBlocks, chosen: np.ndarray) -> np.ndarray:
    """Read all rows, block by block, which checks them, and return those `chosen` (n,), ascending: (n, D) float32."""
    taken, filled = np.empty((0, 0), np.float32), 0
    for start, stop in iterate_blocks(rows.count):
        first, last = np.searchsorted(chosen, [start, stop])
        block = rows.read(start, stop)
        if not taken.size:
            taken = np.empty((len(chosen), block.shape[1]), np.float32)
        if block.shape[1] != taken.shape[1]:
            raise InputError(f"all rows must be of the same width; got {taken.shape[1]} and {block.shape[1]} numbers.")
        taken[filled : filled + last - first] = block[chosen[first:last] - start]
        filled += last - first
    return taken
