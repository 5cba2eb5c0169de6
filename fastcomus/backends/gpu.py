"""The GPU backend: custom kernels for pixels, FAISS and cuML for the clustering, with each result checked.

Work that is not faster on a device (reading files, small eigenproblems) is inherited from the CPU backend. Where a
library fails or its result does not pass the check, our own method does that call, and the log says so.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from scipy.sparse import csr_array

from fastcomus.backends import gpu_images, ragged_batches
from fastcomus.backends.centred_rows import BLOCK_ROWS, CentredRows
from fastcomus.backends.cpu import SMALL_GRAPH_ROWS, CpuBackend
from fastcomus.backends.eigenpair_check import EigenpairError, refine_eigenpairs
from fastcomus.backends.gpu_objects import find_objects
from fastcomus.backends.interface import BatchDecoder, FoundObjects, Image, LabelledMasks, Neighbors
from fastcomus.backends.jpeg_batches import JpegBatches
from fastcomus.backends.kernel_loader import CupyKernels, Kernels
from fastcomus.backends.nearest_neighbors import import_faiss, measure_recall, search_by_blocks, search_nearest_rows

log = logging.getLogger("fastcomus")

_ALL_PAIRS_ROWS = 1_000_000  # beyond, inverted lists; an H100 looks at all pairs of so many rows of 384 in a minute
_MOST_NEIGHBORS = 2_048  # that FAISS finds on a GPU
_SAMPLE = 300  # rows whose neighbours are also found exactly, to measure recall
_ROWS_PER_LIST = 1_000
_TRAINING_ROWS_PER_LIST = 64
_CAGRA_WIDTHS = 64, 128, 256, 512  # candidates that a search by CAGRA keeps, at least as many as neighbours
# What a library raises when a device or its own code fails; anything else is a mistake of ours and is raised.
_LIBRARY_ERRORS = (RuntimeError, MemoryError, ArithmeticError)


def find_missing_libraries() -> list[str]:
    """List the packages of the extra `gpu` that are not installed."""
    missing = [name for name, module in (("cupy", "cupy"), ("cuml", "cuml")) if not importlib.util.find_spec(module)]
    return missing if hasattr(import_faiss(), "StandardGpuResources") else [*missing, "faiss-gpu"]


@dataclass(frozen=True)
class GpuBackend(CpuBackend):
    """See `Backend`. `device` has its index; `kernels` launches the custom kernels."""

    name: str = "cuda"
    all_pairs_rows: int = _ALL_PAIRS_ROWS
    images_at_once: int = 32
    pixels_at_once: int = 2**26  # some 0.7 GB with their maps and masks, for one object each
    kernels: Kernels = field(default_factory=CupyKernels)

    # -- pixels ----------------------------------------------------------------------------------------------------

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
        return find_objects(self.kernels, self.device, images, maps, theta, min_area, crop_size)

    def assemble_masks(self, images: Sequence[LabelledMasks]) -> list[np.ndarray]:
        """See `Backend.assemble_masks`."""
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

    # -- neighbours ------------------------------------------------------------------------------------------------

    def find_neighbors(self, embeddings: np.ndarray, n_neighbors: int, recall: float, seed: int) -> Neighbors:
        """See `Backend.find_neighbors`."""
        if n_neighbors > _MOST_NEIGHBORS:
            return super().find_neighbors(embeddings, n_neighbors, recall, seed)
        rows = CentredRows(embeddings)
        if recall < 1 and len(rows) > self.all_pairs_rows:
            found, reached = self._search_among_many(rows, n_neighbors, recall, seed)
        else:
            whole = rows[:]
            found, reached = self._search(whole, whole, n_neighbors)[1], 1.0
        return Neighbors(_put_own_first(found), reached, np.arange(len(rows)))

    def find_nearest(self, queries: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Backend.find_nearest`."""
        return search_nearest_rows(queries, rows, count, self._search if count <= _MOST_NEIGHBORS else None)

    def _search(self, queries: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Find squared distances and indices of the nearest rows among all pairs, by FAISS on the device."""
        import faiss

        resources = faiss.StandardGpuResources()  # let go of at the end: networks want the memory next
        return faiss.knn_gpu(resources, queries, rows, count, device=self._device_index)

    def _search_among_many(self, rows: CentredRows, count: int, recall: float, seed: int) -> tuple[np.ndarray, float]:
        """Find indices (N, count) and their recall: by cuVS where installed and it reaches `recall`, else by FAISS."""
        try:
            from cuvs.common.exceptions import CuvsException
        except ImportError:
            return self._search_inverted_lists(rows, count, recall, seed)
        if count <= _CAGRA_WIDTHS[-1]:
            try:
                return self._search_by_cagra(rows, count, recall, seed)
            except (*_LIBRARY_ERRORS, CuvsException) as error:
                log.warning("cuVS's CAGRA is not used (%s); FAISS's inverted lists take over", error)
        return self._search_inverted_lists(rows, count, recall, seed)

    def _search_by_cagra(self, rows: CentredRows, count: int, recall: float, seed: int) -> tuple[np.ndarray, float]:
        """Find the same by CAGRA, widening the search until it reaches `recall` on a sample, else ArithmeticError."""
        from cuvs.neighbors import cagra

        sample = self._draw_sample(len(rows), seed)
        farthest = search_by_blocks(self._search, rows[sample], rows, count)[0][:, -1]

        def search(queries: torch.Tensor, width: int) -> np.ndarray:
            looking = cagra.SearchParams(itopk_size=width)
            neighbors = cagra.search(looking, index, queries, count)[1]
            found = neighbors.copy_to_host().astype(np.int64)
            return np.where(found < len(rows), found, -1)  # places that it left empty hold the largest number

        with self._as_current_device():
            on_device = torch.empty((len(rows), rows.dimension), device=self.device)
            for start, block in rows.iterate_blocks():
                on_device[start : start + len(block)] = torch.from_numpy(block)
            index = cagra.build(cagra.IndexParams(metric="sqeuclidean"), on_device)
            queries, reached = on_device[torch.from_numpy(sample).to(self.device)], 0.0
            for width in (one for one in _CAGRA_WIDTHS if one >= count):
                reached = _measure_search_recall(rows, sample, search(queries, width), farthest)
                if reached >= recall:
                    parts = [search(part, width).astype(np.int32) for part in on_device.split(BLOCK_ROWS)]
                    return np.concatenate(parts), reached
        raise ArithmeticError(f"it found {reached:.3f} of the true neighbours, not {recall}")

    def _draw_sample(self, count: int, seed: int) -> np.ndarray:
        """Draw the rows, ascending, whose neighbours are also found exactly."""
        return np.sort(np.random.default_rng(seed).choice(count, min(_SAMPLE, count), replace=False))

    def _search_inverted_lists(
        self, rows: CentredRows, count: int, recall: float, seed: int
    ) -> tuple[np.ndarray, float]:
        """Find indices (N, count), searching more lists until `recall`, measured on a sample, is reached; give both."""
        import faiss

        rng = np.random.default_rng(seed)
        lists = max(1, len(rows) // _ROWS_PER_LIST)
        resources = faiss.StandardGpuResources()
        empty = faiss.index_factory(rows.dimension, f"IVF{lists},Flat")
        index = faiss.index_cpu_to_gpu(resources, self._device_index, empty)
        drawn = rng.choice(len(rows), min(len(rows), lists * _TRAINING_ROWS_PER_LIST), replace=False)
        index.train(rows[np.sort(drawn)])
        for _, block in rows.iterate_blocks():
            index.add(block)
        sample = self._draw_sample(len(rows), seed)
        farthest = search_by_blocks(self._search, rows[sample], rows, count)[0][:, -1]
        looked_at, reached, looking = 1, 0.0, faiss.SearchParametersIVF()
        while reached < recall and looked_at < lists:
            looked_at = min(2 * looked_at, lists)
            looking.nprobe = looked_at
            found = index.search(rows[sample], count, params=looking)[1]
            reached = _measure_search_recall(rows, sample, found, farthest)
        parts = [index.search(block, count, params=looking)[1].astype(np.int32) for _, block in rows.iterate_blocks()]
        return np.concatenate(parts), reached

    @property
    def _device_index(self) -> int:
        return self.device.index or 0

    def _as_current_device(self) -> AbstractContextManager[object]:
        """Make the device current in this thread, where cuML's work is done."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()

    # -- clusters --------------------------------------------------------------------------------------------------

    def _find_eigenpairs(
        self, matrix: csr_array, scale: np.ndarray, count: int, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Use cuML for large graphs, and our block solver on the device where cuML's result is refused."""
        if matrix.shape[0] > SMALL_GRAPH_ROWS:
            try:
                return self._find_cuml_eigenpairs(matrix, scale, count, seed)
            except _LIBRARY_ERRORS as error:
                log.warning("cuML's eigenvectors are not used (%s); our own solver takes over", error)
        return super()._find_eigenpairs(matrix, scale, count, seed)

    def _find_cuml_eigenpairs(
        self, matrix: csr_array, scale: np.ndarray, count: int, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        from cuml.manifold import spectral_embedding

        if matrix.indices.dtype != np.int32:
            raise ArithmeticError("it reads places as 32 bits, too few for so many links")
        affinity = matrix.astype(np.float32)
        affinity.data /= (scale[matrix.indices] * np.repeat(scale, np.diff(matrix.indptr))).astype(np.float32)
        with self._as_current_device():
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
        values[0] = 1  # up to rounding, which must not decide between parts
        return values, vectors

    def run_kmeans(
        self, rows: np.ndarray, k: int, n_init: int, seed: int, start: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Backend.run_kmeans`."""
        from cuml.cluster import KMeans

        try:
            with self._as_current_device():
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
        except _LIBRARY_ERRORS as error:
            log.warning("cuML's k-means is not used (%s); scikit-learn's takes over", error)
        return super().run_kmeans(rows, k, n_init, seed, start)


def _measure_search_recall(rows: CentredRows, sample: np.ndarray, found: np.ndarray, farthest: np.ndarray) -> float:
    """Measure the share of the true neighbours of `sample` (S,) in `found` (S, n), which may hold the row or -1."""
    others = _put_own_first(found, sample)[:, 1:]
    others = np.where(others == sample[:, None], -1, others)  # the row itself in a place left empty is no neighbour
    return measure_recall(rows, sample, others, farthest, others.shape[1])


def _put_own_first(found: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
    """Put every row's own index (`own`: (N,), else its place) first, for the last if it was missing, and for -1."""
    rows = (torch.arange(len(found)) if own is None else torch.from_numpy(own))[:, None]
    indices = torch.from_numpy(np.ascontiguousarray(found))
    indices = torch.where(indices < 0, rows, indices)
    is_own = indices == rows
    is_own[~is_own.any(1), -1] = True
    others = torch.argsort(is_own.int(), dim=1, stable=True)[:, :-1]  # in their order, its own behind them
    return torch.cat([rows, torch.gather(indices, 1, others)], dim=1).int().numpy()


def _check_clusters(labels: np.ndarray, centres: np.ndarray, n_rows: int, k: int) -> None:
    if labels.shape != (n_rows,) or centres.shape[0] != k or not np.isfinite(centres).all():
        raise ArithmeticError(f"labels {labels.shape} and centres {centres.shape} for {n_rows} rows and k={k}")
    if labels.min() < 0 or labels.max() >= k or not np.bincount(labels, minlength=k).all():
        raise ArithmeticError(f"{len(np.unique(labels))} clusters instead of {k}")
