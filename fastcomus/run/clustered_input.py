"""What is to be clustered: objects of a run, rows or a graph of the caller's own; whole, or by a sample."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from fastcomus.clusters.checks import check_count, check_graph_count
from fastcomus.config import ClusterConfig, Config
from fastcomus.errors import InputError
from fastcomus.run.contents import read_embedding_rows, read_skipped
from fastcomus.store.embeddings import check_embeddings, fingerprint_embeddings, read_embeddings
from fastcomus.store.objects_table import read_objects_fingerprint
from fastcomus.store.row_blocks import ArrayRows, RowBlocks, open_object_rows, open_rows
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.sealed_json import compute_fingerprint

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from fastcomus.backends.interface import Backend
    from fastcomus.clusters.cluster import Clustered
    from fastcomus.clusters.levels import Levels
    from fastcomus.run.engines.work import Engine

log = logging.getLogger("fastcomus")

Embeddings = Path | ArrayLike | None
Graph = Any  # a file of SciPy's, or a matrix


@dataclass(frozen=True)
class GivenRows:
    """Rows or a graph that suit the settings.

    `rows`: (N, D) float32; None for a graph alone, or where a sample is fitted. `graph`: (N, N) of the caller's own, or
    None. `blocks`: the rows, to be read block by block, where `sample` of them are fitted. `source`: a fingerprint of
    where the rows come from, or of the graph where there are none. `digest`: one of the graph, or "". `has_images`:
    whether these are the objects of the run.
    """

    rows: np.ndarray | None
    graph: csr_array | None = None
    blocks: RowBlocks | None = None
    sample: int = 0
    source: str = ""
    digest: str = ""
    has_images: bool = False

    def cluster(
        self,
        config: Config,
        backend: Backend,
        folder: RunFolder | None = None,
        engine: Engine | None = None,
    ) -> tuple[Clustered, dict[str, Any]]:
        """Cluster.

        Args:
            config: The settings.
            backend: Does the heavy computations.
            folder: The run folder, whose stage "clusters" was begun, or None; there graph and links are kept.
            engine: Where rows are linked to a sample; None for this process.

        Returns:
            The clusters with graph and eigenmaps (of the sample), and what the manifest holds of the sample.
        """
        # Only now, since what these import takes longer than to see that there is nothing to cluster.
        from fastcomus.clusters.cluster import cluster_embeddings, cluster_graph
        from fastcomus.clusters.graph import take_graph
        from fastcomus.clusters.kept_graph import GraphKeeper

        if self.graph is not None:
            return cluster_graph(take_graph(self.graph), self.rows, config.cluster, config.seed, backend), {}
        if self.rows is not None:
            keeper = GraphKeeper(folder, self.source, config.cluster, config.seed) if folder else None
            return cluster_embeddings(self.rows, config.cluster, config.seed, backend, keeper), {}
        from fastcomus.clusters.sampled import cluster_sample, draw_sample, fit_sample, join_labels
        from fastcomus.run.linking import check_rows, link_rows

        assert self.blocks is not None
        if folder is None or engine is None:
            return cluster_sample(self.blocks, self.sample, config.cluster, config.seed, backend), {}
        check_rows(self.blocks, engine)
        asked, seed = config.cluster, config.seed
        sample = draw_sample(self.blocks, self.sample, asked, seed, backend)
        linker, made_by = sample.linker, {"source": self.source, "sample": self.sample, "seed": seed}
        assert linker is not None
        mark = compute_fingerprint(metric=linker.metric, recall=asked.recall, count=linker.count, **made_by)
        links = link_rows(folder, "links", self.blocks, linker, engine, mark)
        near = linker.near
        facts = {"fitted": self.sample, "search_recall": near.recall, "lists": len(near.centres), "probes": near.probes}
        del near, linker  # to save memory: `sample` lets go of them, too
        found = fit_sample(sample, links, asked, seed, backend)
        clusters = join_labels(sample, found, self.blocks, links, asked)
        return replace(found, clusters=clusters), facts

    def find_levels(self, labels: np.ndarray, config: Config, backend: Backend, folder: RunFolder | None) -> Levels:
        """Find coarser and finer clusters around clusters (N,) of these rows or nodes.

        Args:
            labels: The clusters as they were found.
            config: The settings.
            backend: Searches for neighbours.
            folder: The run folder, where a graph of the rows may be kept, or None.

        Returns:
            The levels.

        Raises:
            InputError: If a sample was fitted.
        """
        from fastcomus.clusters.few_objects import build_fitting_graph
        from fastcomus.clusters.graph import take_graph
        from fastcomus.clusters.kept_graph import GraphKeeper
        from fastcomus.clusters.levels import find_levels

        self.check_levels()
        if self.graph is not None:
            return find_levels(take_graph(self.graph), labels, config.seed)
        assert self.rows is not None
        keeper = GraphKeeper(folder, self.source, config.cluster, config.seed) if folder else None
        k = int(labels.max()) + 1
        graph = build_fitting_graph(self.rows, k, config.cluster, config.seed, backend, keeper=keeper)
        return find_levels(graph, labels, config.seed)

    def check_levels(self) -> None:
        """Raise InputError where there is no graph of all objects, by which clusters could be joined and split."""
        if self.sample:
            raise InputError(
                f"--levels needs the graph of all objects, and a sample of {self.sample} is fitted; leave out --levels "
                "or fit on all (--fit-on N)."
            )

    def collect_facts(self) -> dict[str, str]:
        """Return what the manifest holds of a graph of the caller's own."""
        return {"graph": self.digest} if self.digest else {}


def read_given(folder: RunFolder, embeddings: Embeddings, graph: Graph, config: ClusterConfig) -> GivenRows:
    """Read what is to be clustered: a graph alone where there are neither embeddings nor objects.

    Raises:
        InputError: If something cannot be read, or does not suit the settings.
    """
    has_images = embeddings is None
    if graph is not None and has_images and folder.read_manifest("objects") is None:
        return take_given(None, graph, config)
    blocks = open_object_rows(folder) if embeddings is None else open_rows(embeddings)
    given = _take_rows(blocks, partial(read_rows, folder, embeddings), graph, config)
    if not given.source:
        source = read_objects_fingerprint(folder) if embeddings is None else fingerprint_embeddings(embeddings)
        given = replace(given, source=source)
    return replace(given, has_images=has_images)


def take_given(embeddings: ArrayLike | None, graph: Graph, config: ClusterConfig) -> GivenRows:
    """Take what is in memory; arguments as of `fastcomus.cluster`.

    Raises:
        InputError: If it cannot be used, or does not suit the settings.
    """
    if embeddings is not None:
        rows = check_embeddings(embeddings)
        return _take_rows(ArrayRows(rows), lambda: (rows, ""), graph, config)
    if graph is None:
        raise InputError("give embeddings or a graph; got neither.")
    from fastcomus.store.graphs import read_graph

    own, digest = read_graph(graph)
    check_graph_count(config, own.shape[0], None)
    return GivenRows(None, own, source=digest, digest=digest)


def read_rows(folder: RunFolder, embeddings: Embeddings) -> tuple[np.ndarray, str]:
    """Return the rows to cluster, (N, D) float32, checked, and a fingerprint of where they come from."""
    if embeddings is None:
        rows = read_embedding_rows(folder)
        if not len(rows):
            _explain_no_objects(folder)
        return check_embeddings(rows), read_objects_fingerprint(folder)
    rows, source = read_embeddings(embeddings)
    return check_embeddings(rows), source


def _explain_no_objects(folder: RunFolder) -> NoReturn:
    reasons = Counter(read_skipped(folder)["reason"].to_pylist()).most_common()
    raise InputError(
        f"there is no object to cluster: of {sum(count for _, count in reasons)} images all were left out "
        f"({', '.join(f'{reason}: {count}' for reason, count in reasons)}). Give photographs in which something stands "
        "out from its surroundings, or masks of your own with --masks."
    )


def _take_rows(
    blocks: RowBlocks, read: Callable[[], tuple[np.ndarray, str]], graph: Graph, config: ClusterConfig
) -> GivenRows:
    """Read all rows by `read`, unless a sample of them is to be fitted."""
    if graph is not None:
        from fastcomus.store.graphs import read_graph

        own, digest = read_graph(graph)
        rows, source = read()
        check_graph_count(config, own.shape[0], rows)
        return GivenRows(rows, own, source=source, digest=digest)
    from fastcomus.clusters.sample_size import choose_sample_size

    size = choose_sample_size(config, blocks.count) if blocks.count >= 2 else blocks.count
    if size < blocks.count:
        return GivenRows(None, blocks=blocks, sample=size)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        import fastcomus.clusters.cluster  # noqa: F401 - SciPy takes as long to import as rows to be read
    rows, source = reading.result()
    check_count(config, rows)
    return GivenRows(rows, source=source)
