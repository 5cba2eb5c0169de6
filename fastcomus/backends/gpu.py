"""The backend of a CUDA device: torch's, with CuPy, FAISS, cuVS and cuML for what they serve better, where installed.

Each operation stands for itself: what one library lacks or fails at, torch does. A failure is told once, and the
library is asked no more for that operation, unless it only lacked memory.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from scipy.sparse import csr_array

from fastcomus.backends import gpu_images, ragged_batches
from fastcomus.backends.block_krylov import find_largest_eigenpairs
from fastcomus.backends.centred_rows import CentredRows
from fastcomus.backends.cpu import SMALL_GRAPH_ROWS, sort_eigenpairs
from fastcomus.backends.eigenpair_check import TOLERANCE, EigenpairError, refine_eigenpairs
from fastcomus.backends.gpu_neighbors import make_current, search_by_cagra, search_inverted_lists
from fastcomus.backends.gpu_objects import find_objects
from fastcomus.backends.interface import FoundObjects, Image, LabelledMasks, Neighbors
from fastcomus.backends.kernel_loader import CupyKernels, Kernels
from fastcomus.backends.torch_backend import TorchBackend
from fastcomus.backends.torch_neighbors import put_own_first
from fastcomus.errors import InputError, get_first_line, is_out_of_memory

log = logging.getLogger("fastcomus")
Result = TypeVar("Result")

ALL_PAIRS_ROWS = 1_000_000  # beyond, a library's index, where one is installed


@dataclass(frozen=True)
class GpuBackend(TorchBackend):
    """See `Backend`. `kernels` launches the custom kernels; `refused` are operations whose library failed, and why."""

    all_pairs_rows: int = ALL_PAIRS_ROWS
    kernels: Kernels = field(default_factory=CupyKernels)
    refused: dict[str, str] = field(default_factory=dict)

    def find_objects(
        self,
        images: Sequence[Image],
        maps: Sequence[np.ndarray | torch.Tensor],
        theta: str,
        min_area: int,
        crop_size: int,
    ) -> list[FoundObjects]:
        """See `Backend.find_objects`."""
        found = self._try(
            "cupy", "objects", lambda: find_objects(self.kernels, self.device, images, maps, theta, min_area, crop_size)
        )
        return super().find_objects(images, maps, theta, min_area, crop_size) if found is None else found

    def assemble_masks(self, images: Sequence[LabelledMasks]) -> list[np.ndarray]:
        """See `Backend.assemble_masks`."""
        found = self._try("cupy", "class maps", lambda: self._assemble_masks(images))
        return super().assemble_masks(images) if found is None else found

    def find_neighbors(self, embeddings: np.ndarray, n_neighbors: int, recall: float, seed: int) -> Neighbors:
        """See `Backend.find_neighbors`."""
        if recall < 1 and len(embeddings) > self.all_pairs_rows:
            rows = CentredRows(embeddings)
            for library, search in (("cuvs", search_by_cagra), ("faiss", search_inverted_lists)):
                call = partial(search, rows, n_neighbors, recall, seed, self.device)
                if (found := self._try(library, f"neighbours by {library}", call)) is not None:
                    return Neighbors(put_own_first(found[0]), found[1], np.arange(len(rows)))
        return super().find_neighbors(embeddings, n_neighbors, recall, seed)

    def run_kmeans(
        self, rows: np.ndarray, k: int, n_init: int, seed: int, start: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Backend.run_kmeans`."""
        found = self._try("cuml", "k-means", lambda: self._run_cuml_kmeans(rows, k, n_init, seed, start))
        return super().run_kmeans(rows, k, n_init, seed, start) if found is None else found

    def _find_eigenpairs(
        self, matrix: csr_array, scale: np.ndarray, count: int, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Use the block solver, and cuML's where that does not converge: cuML's may end the process on some graphs."""
        if matrix.shape[0] <= SMALL_GRAPH_ROWS:
            return super()._find_eigenpairs(matrix, scale, count, seed)
        pairs = find_largest_eigenpairs(matrix, count, seed, self.device)
        if pairs.residual > TOLERANCE:
            found = self._try("cuml", "eigenvectors", lambda: self._find_cuml_eigenpairs(matrix, scale, count, seed))
            if found is not None:
                return found
        return sort_eigenpairs(pairs.values, pairs.vectors)

    def _try(self, library: str, operation: str, call: Callable[[], Result]) -> Result | None:
        """Let a library do an operation; None where it is not installed, failed before, or fails now."""
        if operation in self.refused or not self._has(library):
            return None
        if self.is_deterministic and library != "cupy":  # whose kernels add whole numbers
            return None
        try:
            if library != "cupy" and self.device.type == "cuda":
                torch.cuda.empty_cache()  # they have allocators of their own
            return call()
        except (AssertionError, InputError):
            raise
        except Exception as error:  # of any class: each library has its own
            told = f"{type(error).__name__}: {get_first_line(error, 200)}"
            log.warning("%s is not used for %s (%s); torch takes over", library, operation, told)
            if not is_out_of_memory(error):
                self.refused[operation] = told
            return None

    def _has(self, library: str) -> bool:
        """Tell whether a library is there; kernels of any other kind than CuPy's need none."""
        return (library == "cupy" and not isinstance(self.kernels, CupyKernels)) or is_installed(library)

    def _assemble_masks(self, images: Sequence[LabelledMasks]) -> list[np.ndarray]:
        counts = [len(image.masks) for image in images]
        boxes = [[0, 0, image.shape[1], image.shape[0]] for image in images]  # of each object: the whole image
        labels = [label for image in images for label in image.labels]
        class_maps = gpu_images.assemble_masks(
            self.kernels,
            ragged_batches.pack_maps([mask for image in images for mask in image.masks], torch.uint8, self.device),
            torch.zeros(len(labels), device=self.device),
            ragged_batches.to_device(np.repeat(np.array(boxes, np.int32).reshape(-1, 4), counts, axis=0), self.device),
            ragged_batches.to_device(np.array(labels, np.int32), self.device),
            torch.ones(len(labels), dtype=torch.bool, device=self.device),
            ragged_batches.to_device(np.cumsum([0, *counts], dtype=np.int64), self.device),
            [image.shape for image in images],
            torch.uint16,
        )
        return [one.numpy() for one in class_maps.to_host().split()]

    def _find_cuml_eigenpairs(
        self, matrix: csr_array, scale: np.ndarray, count: int, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        from cuml.manifold import spectral_embedding

        if matrix.indices.dtype != np.int32:
            raise ArithmeticError("it reads places as 32 bits, too few for so many links")
        affinity = matrix.astype(np.float32)
        affinity.data /= (scale[matrix.indices] * np.repeat(scale, np.diff(matrix.indptr))).astype(np.float32)
        with make_current(self.device):
            embedding = spectral_embedding(
                affinity.tocoo(),
                n_components=count,
                affinity="precomputed",
                random_state=seed,
                norm_laplacian=True,
                drop_first=False,
            )
            rows = torch.utils.dlpack.from_dlpack(embedding).to(self.device)
        factors = torch.from_numpy(scale).to(rows)[:, None]
        try:  # scikit-learn's are eigenvectors times D^-1/2; whether cuML's are, the check tells
            values, vectors = refine_eigenpairs(matrix, rows / factors, seed)
        except EigenpairError:
            values, vectors = refine_eigenpairs(matrix, rows, seed)
        return sort_eigenpairs(values, vectors)

    def _run_cuml_kmeans(
        self, rows: np.ndarray, k: int, n_init: int, seed: int, start: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        from cuml.cluster import KMeans

        with make_current(self.device):
            found = KMeans(
                n_clusters=k,
                n_init=n_init if start is None else 1,
                init="k-means++" if start is None else np.ascontiguousarray(start, np.float32),
                random_state=seed,
                output_type="numpy",
            ).fit(np.ascontiguousarray(rows, np.float32))
        labels, centres = np.asarray(found.labels_), np.asarray(found.cluster_centers_, np.float32)
        _check_clusters(labels, centres, len(rows), k)
        return labels.astype(np.int32), centres


def is_installed(library: str) -> bool:
    """Tell whether a library for GPUs is there: cupy, cuml, cuvs, or faiss, whose build for CPUs does not count.

    Nothing is imported, since that takes long; FAISS's builds, which share a name, are told apart by their packages.
    """
    if library in sys.modules:
        return library != "faiss" or hasattr(sys.modules[library], "StandardGpuResources")
    if importlib.util.find_spec(library) is None:
        return False
    packages = importlib.metadata.packages_distributions().get(library, [])
    return library != "faiss" or any(name.startswith("faiss-gpu") for name in packages)


def _check_clusters(labels: np.ndarray, centres: np.ndarray, n_rows: int, k: int) -> None:
    if labels.shape != (n_rows,) or centres.shape[0] != k or not np.isfinite(centres).all():
        raise ArithmeticError(f"labels {labels.shape} and centres {centres.shape} for {n_rows} rows and k={k}")
    if labels.min() < 0 or labels.max() >= k or not np.bincount(labels, minlength=k).all():
        raise ArithmeticError(f"{len(np.unique(labels))} clusters instead of {k}")
