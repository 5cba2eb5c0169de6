"""Clusters of a sample of the rows, and all other rows put into them: for more rows than memory or patience bear.

The sample is clustered as any rows are. Every other row goes to a cluster by its neighbours in the sample (Nystroem's
extension, as in `assign`), block by block; nothing of the size of all rows is held but labels and distances. Then the
filter's quantiles are taken over all members of each cluster.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fastcomus.backends.interface import Backend
from fastcomus.clusters.assignment import Labeller, make_labeller
from fastcomus.clusters.checks import check_count
from fastcomus.clusters.cluster import Clustered, cluster_embeddings
from fastcomus.clusters.eigenmaps import step_up
from fastcomus.clusters.kept_graph import GraphKeeper
from fastcomus.clusters.labels import Clusters
from fastcomus.clusters.row_geometry import select_core
from fastcomus.config import ClusterConfig
from fastcomus.errors import InputError
from fastcomus.store.row_blocks import RowBlocks

log = logging.getLogger("fastcomus")

BLOCK_ROWS = 65_536  # read and labelled together
_PROBED = 400  # rows beyond the sample on which the search for neighbours is tuned
_LEAST_FOUND = 10  # objects of a group that a sample must hold, so that the graph shows it
_GRAPH_BYTES, _BYTES_PER_MAP = 5_600, 33  # of a whole fit, for each row and eigenvector (docs/scale.md)
_BEARABLE = 0.8  # of the memory
_STEP = 100_000  # to which a sample is rounded that memory bounds
_FAR = 0.999  # novelty of rows that lie farther from the sample than all but a thousandth of it from itself


@dataclass(frozen=True)
class FittedSample:
    """A clustered sample and what labels the other rows.

    `chosen`: (n,) int64, ascending, the rows of the sample. `found`: its clusters. `labeller`: labels other rows.
    """

    chosen: np.ndarray
    found: Clustered
    labeller: Labeller


@dataclass(frozen=True)
class LabelledRows:
    """Rows [start, stop) with labels (int32), distances to centres (float32) and novelty (float32)."""

    start: int
    stop: int
    labels: np.ndarray
    distances: np.ndarray
    novelty: np.ndarray

    @property
    def images(self) -> int:
        """How many rows these are; engines count so."""
        return self.stop - self.start


def choose_sample_size(config: ClusterConfig, rows: int, memory_bytes: int | None = None) -> int:
    """Choose on how many rows to fit: `fit_on`, or for 0 as many as memory bears.

    Args:
        config: Has `fit_on`, `k` and `method`.
        rows: N.
        memory_bytes: Of this machine, or None to look.

    Returns:
        A number in [2, N]; N fits on all.

    Raises:
        InputError: If `fit_on` does not suit N or k.
    """
    if config.fit_on > rows:
        raise InputError(f"--fit-on must be at most the number of objects; got {config.fit_on} with N={rows}.")
    if config.fit_on and config.fit_on < config.k:
        raise InputError(f"--fit-on must be at least the number of clusters; got {config.fit_on} with k={config.k}.")
    if config.fit_on:
        return config.fit_on
    each = _GRAPH_BYTES + _BYTES_PER_MAP * step_up(config.n_components or config.k or config.max_k)
    most = int(_BEARABLE * (memory_bytes or measure_memory()) / each)
    if rows <= most:
        return rows
    most = max(most // _STEP * _STEP, min(rows, 2 * _STEP))
    log.info(
        "cluster: fitted on %d of %d objects, since all would take about %.0f GB; --fit-on sets another number",
        min(most, rows),
        rows,
        rows * each / 1e9,
    )
    return min(most, rows)


def fit_sample(
    rows: RowBlocks, size: int, config: ClusterConfig, seed: int, backend: Backend, keeper: GraphKeeper | None = None
) -> FittedSample:
    """Draw a sample, cluster it and prepare what labels all other rows.

    Args:
        rows: N rows.
        size: Rows to draw, in [2, N).
        config: The settings.
        seed: Seed of everything random.
        backend: Does the heavy computations.
        keeper: Keeps the sample's graph, or None.

    Returns:
        The fitted sample.

    Raises:
        InputError: If a row is not finite, or the eigensolver does not converge.
    """
    # Rows beyond the sample, on which the search is tuned, are drawn with it.
    drawn = np.random.default_rng(seed).permutation(rows.count)[: size + _PROBED]
    chosen, probes = np.sort(drawn[:size]), np.sort(drawn[size:])
    sample, others = gather_rows(rows, chosen), gather_rows(rows, probes)
    check_count(config, sample)
    found = cluster_embeddings(sample, config, seed, backend, keeper)
    rarest = math.ceil(_LEAST_FOUND * rows.count / size)
    log.warning(
        "cluster: fitted on %d of %d objects; groups of fewer than about %d objects may be missed, since too few of "
        "them were drawn",
        size,
        rows.count,
        rarest,
    )
    neighbors = config.n_neighbors if found.graph is None else found.graph.n_neighbors
    asked = replace(config, n_neighbors=neighbors)
    labeller = make_labeller(sample, found.clusters, found.maps, asked, seed, backend, others, rows.count - size)
    return FittedSample(chosen, found, labeller)


def label_block(
    rows: RowBlocks, start: int, stop: int, labeller: Labeller, backend: Backend, threads: int
) -> LabelledRows:
    """Label the rows [start, stop); see `Labeller.label`."""
    return LabelledRows(start, stop, *labeller.label(rows.read(start, stop), backend, threads))


def join_labels(fitted: FittedSample, parts: Iterator[LabelledRows], count: int, filter: float) -> Clusters:
    """Join the labels of all rows to clusters, numbered by their sizes, and filter them.

    Args:
        fitted: The sample, whose labels and distances stay those of its own clustering.
        parts: Labels of all blocks, in any order.
        count: N.
        filter: Share of each cluster, farthest from its centre, that is not core.

    Returns:
        The clusters of N objects.
    """
    labels, distances = np.empty(count, np.int32), np.empty(count, np.float32)
    far = 0
    for part in parts:
        labels[part.start : part.stop], distances[part.start : part.stop] = part.labels, part.distances
        far += int((part.novelty > _FAR).sum())
    of_sample = fitted.found.clusters
    labels[fitted.chosen], distances[fitted.chosen] = of_sample.labels, of_sample.distances
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
    is_fitted[fitted.chosen] = True
    is_core = select_core(labels, distances, sizes, filter)
    return Clusters(labels, distances, is_core, of_sample.centres[by_size], sizes, is_fitted)


def cluster_sample(rows: RowBlocks, size: int, config: ClusterConfig, seed: int, backend: Backend) -> Clusters:
    """Fit on a sample and label all others in this process; see `fit_sample`."""
    fitted = fit_sample(rows, size, config, seed, backend)
    threads = torch.get_num_threads()
    blocks = iterate_blocks(rows.count)
    parts = (label_block(rows, start, stop, fitted.labeller, backend, threads) for start, stop in blocks)
    return join_labels(fitted, parts, rows.count, config.filter)


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


def measure_memory() -> int:
    """Return how many bytes of memory this process may use: the machine's, or what its control group allows."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else [2**33]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(int(Path(file).read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return min(found)
