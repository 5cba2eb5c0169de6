"""The backend of a device by torch alone; it runs on any device, so that the CPU shows what a GPU will compute.

Left on the host: files, graphs of few rows (ARPACK), and what comes from the host and goes back there, as run lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.sparse import csr_array

from fastcomus.backends.centred_rows import CentredRows
from fastcomus.backends.cpu import CpuBackend
from fastcomus.backends.interface import BatchDecoder, FoundObjects, Image, LabelledMasks, Neighbors
from fastcomus.backends.joined_neighbors import find_components_on, join_neighbors_on
from fastcomus.backends.jpeg_batches import JpegBatches
from fastcomus.backends.torch_kmeans import run_kmeans_on
from fastcomus.backends.torch_neighbors import ProductSearch, find_neighbors_by_products, put_own_first
from fastcomus.backends.torch_objects import assemble_masks_by_torch, find_objects_by_torch


@dataclass(frozen=True)
class TorchBackend(CpuBackend):
    """See `Backend`. `device` has its index; `sharing` are further devices that take a part of all pairs of rows."""

    name: str = "cuda"
    is_deterministic: bool = False
    images_at_once: int = 32
    pixels_at_once: int = 2**26  # some 0.7 GB with their maps and masks, for one object each
    sharing: tuple[torch.device, ...] = ()

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

    def find_neighbors(self, embeddings: np.ndarray, n_neighbors: int, recall: float, seed: int) -> Neighbors:
        """See `Backend.find_neighbors`: all pairs, by products."""
        found, reached = find_neighbors_by_products(
            CentredRows(embeddings), n_neighbors, recall, seed, (self.device, *self.sharing)
        )
        return Neighbors(put_own_first(found), reached, np.arange(len(embeddings)))

    def join_neighbors(self, indices: np.ndarray) -> csr_array:
        """See `Backend.join_neighbors`."""
        return join_neighbors_on(indices, self.device)

    def find_components(self, affinity: csr_array) -> np.ndarray:
        """See `Backend.find_components`."""
        return find_components_on(affinity, self.device)

    def find_nearest(self, queries: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Backend.find_nearest`."""
        centred = CentredRows(rows)
        search = ProductSearch(centred, count, (self.device, *self.sharing))
        squared, found = search.find(centred.transform(queries), torch.float32)
        return found, np.sqrt(squared) / np.float32(centred.scale)

    def run_kmeans(
        self, rows: np.ndarray, k: int, n_init: int, seed: int, start: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Backend.run_kmeans`."""
        return run_kmeans_on(rows, k, n_init, seed, start, self.device)
