"""The backend of a device by torch alone; it runs on any device, so that the CPU shows what a GPU will compute.

Left on the host: files, graphs of few rows (ARPACK), and what comes from the host and goes back there, as run lengths.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property

import numpy as np
import torch

from fastcomus.backends.centred_rows import CentredRows
from fastcomus.backends.cpu import LABELS, CpuBackend
from fastcomus.backends.device_graph import DeviceGraph, find_components_on, join_neighbors_on, put_graph, put_rows
from fastcomus.backends.interface import BatchDecoder, FoundObjects, Image, LabelledMasks, Neighbors
from fastcomus.backends.jpeg_batches import JpegBatches
from fastcomus.backends.machine import measure_free_bytes
from fastcomus.backends.placed import Graph, Rows, fetch, fetch_graph, to_kind_of
from fastcomus.backends.torch_eigenvectors import count_bytes, find_eigenvectors_on, solve_component
from fastcomus.backends.torch_kmeans import run_kmeans_on
from fastcomus.backends.torch_neighbors import (
    ProductSearch,
    find_neighbors_by_products,
    has_room,
    measure_centring,
    put_own_first,
)
from fastcomus.backends.torch_objects import assemble_masks_by_torch, find_objects_by_torch

log = logging.getLogger("fastcomus")


@dataclass(frozen=True)
class TorchBackend(CpuBackend):
    """See `Backend`. `device` has its index; `sharing` are further devices that take a part of all pairs of rows."""

    device: torch.device = field()
    _: KW_ONLY
    name: str = "cuda"
    is_deterministic: bool = False
    images_at_once: int = 32
    pixels_at_once: int = 2**26  # some 0.7 GB with their maps and masks, for one object each
    sharing: tuple[torch.device, ...] = ()

    @property
    def device_name(self) -> str:
        """See `Backend.device_name`."""
        return str(self.device)

    @cached_property
    def batch_decoder(self) -> BatchDecoder:
        """See `Backend.batch_decoder`."""
        return JpegBatches(self.device)

    def find_objects(
        self,
        images: Sequence[Image],
        maps: Sequence[np.ndarray | torch.Tensor],
        theta: str,
        min_area: int,
        crop_size: int,
    ) -> list[FoundObjects]:
        """See `Backend.find_objects`."""
        return find_objects_by_torch(self.device, images, maps, theta, min_area, crop_size)

    def assemble_masks(self, images: Sequence[LabelledMasks]) -> list[np.ndarray]:
        """See `Backend.assemble_masks`."""
        return [assemble_masks_by_torch(self.device, image) for image in images]

    def put(self, rows: np.ndarray) -> Rows:
        """See `Backend.put`: on the device where a search for neighbours fits into its memory beside them."""
        free_bytes = min(measure_free_bytes(one) for one in self._devices)
        return put_rows(rows, self.device) if has_room(len(rows), rows.shape[1], free_bytes) else rows

    def put_graph(self, graph: Graph) -> Graph:
        """See `Backend.put_graph`."""
        if isinstance(graph, DeviceGraph):
            return graph
        fits = count_bytes(graph.shape[0], graph.nnz, 1) <= measure_free_bytes(self.device)
        return put_graph(graph, self.device) if fits else graph

    def find_neighbors(self, embeddings: Rows, n_neighbors: int, recall: float, seed: int) -> Neighbors:
        """See `Backend.find_neighbors`: all pairs, by products."""
        if isinstance(embeddings, np.ndarray):
            rows: CentredRows | torch.Tensor = CentredRows(embeddings)
        else:
            scale, shift = measure_centring(embeddings)
            rows = embeddings.mul(scale).sub_(shift)
        found, reached = find_neighbors_by_products(rows, n_neighbors, recall, seed, self._devices)
        indices = to_kind_of(embeddings, put_own_first(found))
        return Neighbors(indices, reached, np.arange(len(embeddings)))

    def join_neighbors(self, indices: Rows) -> Graph:
        """See `Backend.join_neighbors`."""
        graph = join_neighbors_on(put_rows(indices, self.device))
        if graph is None:
            return super().join_neighbors(indices)
        return fetch_graph(graph) if isinstance(indices, np.ndarray) else graph

    def find_components(self, affinity: Graph) -> Rows:
        """See `Backend.find_components`."""
        placed = self.put_graph(affinity)
        if not isinstance(placed, DeviceGraph):
            return super().find_components(affinity)
        part = find_components_on(placed)
        return part if placed is affinity else fetch(part)

    def find_nearest(self, queries: np.ndarray, rows: Rows, count: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Backend.find_nearest`."""
        if isinstance(rows, torch.Tensor):
            scale, shift = measure_centring(rows)
            there = put_rows(queries, self.device).mul(scale).sub_(shift)
            squared, found = ProductSearch(rows.mul(scale).sub_(shift), count, self._devices).find(there, torch.float32)
            return fetch(found), fetch(squared.sqrt() / scale)
        centred = CentredRows(rows)
        search = ProductSearch(centred, count, self._devices)
        squared, found = search.find(torch.from_numpy(centred.transform(queries)), torch.float32)
        return found.numpy(), np.sqrt(squared.numpy()) / np.float32(centred.scale)

    def find_eigenvectors(self, affinity: Graph, n_components: int, seed: int) -> tuple[np.ndarray, Rows]:
        """See `Backend.find_eigenvectors`; the CPU finds those of a graph that the device has too little memory for."""
        placed = self.put_graph(affinity)
        nodes, links = placed.shape[0], len(placed.columns) if isinstance(placed, DeviceGraph) else placed.nnz
        needed, free = count_bytes(nodes, links, n_components), measure_free_bytes(self.device)
        if not isinstance(placed, DeviceGraph) or needed > free:
            told = nodes, links, needed / 2**30, free / 2**30
            log.warning("cluster: a graph of %d objects and %d links takes %.1f GiB of %.1f; the CPU solves it", *told)
            return super().find_eigenvectors(affinity, n_components, seed)
        values, vectors = find_eigenvectors_on(placed, n_components, seed, self._find_eigenpairs)
        return values, vectors if placed is affinity else fetch(vectors)

    def _find_eigenpairs(
        self, matrix: DeviceGraph, scale: torch.Tensor, count: int, seed: int
    ) -> tuple[np.ndarray, torch.Tensor]:
        """Find up to `count` eigenpairs of a connected part of D^-1/2 W D^-1/2; `scale`: D^-1/2 of its rows."""
        return solve_component(matrix, scale, count, seed)[:2]

    def run_kmeans(self, rows: Rows, k: int, n_init: int, seed: int, start: Rows | None = None) -> tuple[Rows, Rows]:
        """See `Backend.run_kmeans`."""
        its_start = None if start is None else put_rows(start, self.device)
        labels, centres = run_kmeans_on(put_rows(rows, self.device), k, n_init, seed, its_start)
        return to_kind_of(rows, labels), to_kind_of(rows, centres)

    def count_confusion(self, predicted: np.ndarray, truth: np.ndarray, n_rows: int) -> np.ndarray:
        """See `Backend.count_confusion`."""
        rows, columns = (torch.from_numpy(np.require(labels, requirements="W")) for labels in (predicted, truth))
        pairs = rows.to(self.device, torch.int32).mul(LABELS).add_(columns.to(self.device))
        return torch.bincount(pairs.view(-1), minlength=n_rows * LABELS).view(n_rows, LABELS).cpu().numpy()

    @property
    def _devices(self) -> tuple[torch.device, ...]:
        """Those that share all pairs of rows."""
        return self.device, *self.sharing
