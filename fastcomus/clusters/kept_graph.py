"""The graph of many objects and its eigenmaps, kept in the run folder: graph/ and eigenmaps-C/.

Another number of clusters on the same objects then takes the time of the labels alone. One graph is kept, with as many
eigenmaps as numbers C of `step_up` were asked for; another graph takes their place. What is there was made exactly as
it would be made now, so that results do not depend on what was there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.sparse import csr_array

from fastcomus.backends.placed import fetch
from fastcomus.clusters.eigenmaps import Eigenmaps
from fastcomus.clusters.graph import KnnGraph
from fastcomus.config import ClusterConfig
from fastcomus.errors import InputError
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.sealed_json import compute_fingerprint

log = logging.getLogger("fastcomus")

_GRAPH, _MAPS = "graph", "eigenmaps-"


class GraphKeeper:
    """Keeps the graph of one set of rows and its eigenmaps in a run folder.

    Args:
        folder: The run folder, whose lock is held.
        source: Fingerprint of the rows.
        config: The settings of the graph.
        seed: Seed of the search for neighbours and of the eigensolver.
    """

    def __init__(self, folder: RunFolder, source: str, config: ClusterConfig, seed: int) -> None:
        self.folder = folder
        self._made_by = {"source": source, "metric": config.metric, "recall": config.recall, "seed": seed}

    def find_graph(self, n_neighbors: int, build: Callable[[int], KnnGraph]) -> KnnGraph:
        """Return the graph with so many neighbours: the one that is kept, or what `build(n_neighbors)` makes."""
        self._fingerprint = compute_fingerprint(neighbors=n_neighbors, **self._made_by)
        if self.folder.is_current(_GRAPH, self._fingerprint):
            try:
                graph = self._read_graph()
            except InputError as error:
                log.warning("cluster: the graph that was kept is made anew: %s", error)
            else:
                log.info("cluster: the graph is kept from before")
                return replace(graph, keeper=self)
        graph = replace(build(n_neighbors), keeper=self)
        self._write_graph(graph)
        return graph

    def find_maps(self, count: int, solve: Callable[[], Eigenmaps]) -> Eigenmaps:
        """Return `count` eigenmaps of the graph that `find_graph` returned last: those kept, or what `solve` makes."""
        stage = f"{_MAPS}{count}"
        if self.folder.is_current(stage, self._fingerprint):
            try:
                rows, values = (self.folder.read_array(f"{stage}/{name}.npy") for name in ("rows", "eigenvalues"))
            except InputError as error:
                log.warning("cluster: the eigenmaps that were kept are made anew: %s", error)
            else:
                manifest = self.folder.read_manifest(stage) or {}
                return Eigenmaps(rows, values, manifest["residual"], manifest["orthonormality"])
        maps = solve()
        self.folder.begin(stage, self._fingerprint)
        self.folder.write_array(f"{stage}/rows.npy", maps.rows)
        self.folder.write_array(f"{stage}/eigenvalues.npy", maps.eigenvalues)
        self.folder.finish(stage, self._fingerprint, residual=maps.residual, orthonormality=maps.orthonormality)
        return maps

    def _read_graph(self) -> KnnGraph:
        facts = self.folder.read_manifest(_GRAPH) or {}
        names = ("halves", "indices", "indptr", "order", "nearest")
        halves, indices, indptr, order, nearest = (self.folder.read_array(f"{_GRAPH}/{name}.npy") for name in names)
        n = len(indptr) - 1
        affinity = csr_array((halves * np.float32(0.5), indices, indptr), shape=(n, n))
        affinity.has_sorted_indices = affinity.has_canonical_format = True
        parts, recall = tuple(facts["components"]), facts["recall"]
        return KnnGraph(affinity, parts, recall, order, facts["neighbors"], False, nearest)

    def _write_graph(self, graph: KnnGraph) -> None:
        folder, affinity = self.folder, graph.affinity
        folder.writer.claim()
        for old in folder.path.glob(f"{_MAPS}*"):
            folder.remove(old.name)
        folder.begin(_GRAPH, self._fingerprint)
        halves = (affinity.data * 2).astype(np.uint8)  # weights are 0.5 and 1
        arrays = {"halves": halves, "indices": affinity.indices, "indptr": affinity.indptr, "order": graph.order}
        assert graph.nearest is not None
        arrays["nearest"] = fetch(graph.nearest)
        for name, array in arrays.items():
            folder.write_array(f"{_GRAPH}/{name}.npy", array)
        facts = {"components": list(graph.component_sizes), "recall": graph.recall, "neighbors": graph.n_neighbors}
        folder.finish(_GRAPH, self._fingerprint, **facts)
