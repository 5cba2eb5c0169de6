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
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from fastcomus.backends import gpu_images, ragged_batches
from fastcomus.backends.centred_rows import CentredRows
from fastcomus.backends.device_graph import DeviceGraph, put_rows
from fastcomus.backends.eigenpair_check import TOLERANCE, EigenpairError, refine_eigenpairs
from fastcomus.backends.gpu_neighbors import make_current, search_by_cagra, search_inverted_lists
from fastcomus.backends.gpu_objects import find_objects
from fastcomus.backends.graph_eigenvectors import sort_eigenpairs
from fastcomus.backends.interface import FoundObjects, Image, LabelledMasks, Neighbors
from fastcomus.backends.kernel_loader import CupyKernels, Kernels
from fastcomus.backends.placed import Rows, fetch, fetch_graph, to_kind_of
from fastcomus.backends.torch_backend import TorchBackend
from fastcomus.backends.torch_eigenvectors import solve_component
from fastcomus.backends.torch_neighbors import put_own_first
from fastcomus.errors import InputError, get_first_line, is_out_of_memory

log = logging.getLogger("fastcomus")
Result = TypeVar("Result")

ALL_PAIRS_ROWS = 1_000_000  # beyond, a library's index, where one is installed


@dataclass(frozen=True)
class GpuBackend(TorchBackend):
    """See `Backend`. `kernels` launches the custom kernels; `refused` are operations whose library failed, and why."""

    _: KW_ONLY
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

    def put(self, rows: np.ndarray) -> Rows:
        """See `Backend.put`; other libraries' indexes are filled with blocks of the host's rows."""
        is_many = len(rows) > self.all_pairs_rows and (self._has("cuvs") or self._has("faiss"))
        return rows if is_many else super().put(rows)

    def find_neighbors(self, embeddings: Rows, n_neighbors: int, recall: float, seed: int) -> Neighbors:
        """See `Backend.find_neighbors`."""
        if recall < 1 and len(embeddings) > self.all_pairs_rows and isinstance(embeddings, np.ndarray):
            rows = CentredRows(embeddings)
            for library, search in (("cuvs", search_by_cagra), ("faiss", search_inverted_lists)):
                call = partial(search, rows, n_neighbors, recall, seed, self.device)
                if (found := self._try(library, f"neighbours by {library}", call)) is not None:
                    indices = put_own_first(torch.from_numpy(found[0])).numpy()
                    return Neighbors(indices, found[1], np.arange(len(rows)))
        return super().find_neighbors(embeddings, n_neighbors, recall, seed)

    def run_kmeans(self, rows: Rows, k: int, n_init: int, seed: int, start: Rows | None = None) -> tuple[Rows, Rows]:
        """See `Backend.run_kmeans`."""
        found = self._try("cuml", "k-means", lambda: self._run_cuml_kmeans(rows, k, n_init, seed, start))
        return super().run_kmeans(rows, k, n_init, seed, start) if found is None else found

    def _find_eigenpairs(
        self, matrix: DeviceGraph, scale: torch.Tensor, count: int, seed: int
    ) -> tuple[np.ndarray, torch.Tensor]:
        """Use the block solver, and cuML's where that does not converge: cuML's may end the process on some graphs."""
        values, vectors, residual = solve_component(matrix, scale, count, seed)
        if residual > TOLERANCE:
            found = self._try("cuml", "eigenvectors", lambda: self._find_cuml_eigenpairs(matrix, scale, count, seed))
            if found is not None:
                return found
        return values, vectors

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
        self, matrix: DeviceGraph, scale: torch.Tensor, count: int, seed: int
    ) -> tuple[np.ndarray, torch.Tensor]:
        from cuml.manifold import spectral_embedding

        if matrix.columns.dtype != torch.int32:
            raise ArithmeticError("it reads places as 32 bits, too few for so many links")
        weights = matrix.values / (scale[matrix.columns] * scale[matrix.list_rows()])
        affinity = fetch_graph(replace(matrix, values=weights.float()))
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
        operator, factors = matrix.build_operator(torch.float64), scale.to(rows)[:, None]
        try:  # scikit-learn's are eigenvectors times D^-1/2; whether cuML's are, the check tells
            values, vectors = refine_eigenpairs(operator, rows / factors, seed)
        except EigenpairError:
            values, vectors = refine_eigenpairs(operator, rows, seed)
        values, order = sort_eigenpairs(values)
        return values, vectors[:, torch.from_numpy(order).to(vectors.device)]

    def _run_cuml_kmeans(self, rows: Rows, k: int, n_init: int, seed: int, start: Rows | None) -> tuple[Rows, Rows]:
        from cuml.cluster import KMeans

        with make_current(self.device):
            found = KMeans(
                n_clusters=k,
                n_init=n_init if start is None else 1,
                init="k-means++" if start is None else np.ascontiguousarray(fetch(start), np.float32),
                random_state=seed,
                output_type="numpy",
            ).fit(rows.float().contiguous() if isinstance(rows, torch.Tensor) else rows.astype(np.float32, order="C"))
        labels, centres = np.asarray(found.labels_), np.asarray(found.cluster_centers_, np.float32)
        _check_clusters(labels, centres, len(rows), k)
        made = put_rows(labels.astype(np.int32), self.device), put_rows(centres, self.device)
        return to_kind_of(rows, made[0]), to_kind_of(rows, made[1])


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
