"""The heavy operations that a backend provides, with their arguments and results."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from fastcomus.backends.placed import Graph, Rows
from fastcomus.images.found import UnreadableImage
from fastcomus.images.roots import ImagePlace

if TYPE_CHECKING:
    import torch

log = logging.getLogger("fastcomus")
Image: TypeAlias = "np.ndarray | torch.Tensor"  # (H, W, 3) uint8 RGB, on the host or on the backend's device


@dataclass(frozen=True)
class FoundObjects:
    """The M objects that were kept in one image.

    `boxes`: (M, 4) int32, x0 y0 x1 y1 in pixels, half-open. `areas`: (M,) int64 pixels. `scores`: (M,) float32, mean
    saliency inside the mask, in [0, 1]. `run_lengths`: of each mask, COCO's (compressed, at the image's size).
    `crops`: (M, 3, S, S) uint8, on the host or on the backend's device. `too_small`: whether none was kept and a mask
    fell under the least area, so that "nothing salient" and "too small" can be told apart.
    """

    boxes: np.ndarray
    areas: np.ndarray
    scores: np.ndarray
    run_lengths: list[str]
    crops: torch.Tensor
    too_small: bool


@dataclass(frozen=True)
class LabelledMasks:
    """Masks of one image, (H, W) bool each, with the cluster of each; `shape`: H and W."""

    masks: Sequence[np.ndarray]
    labels: Sequence[int]
    shape: tuple[int, int]


@dataclass(frozen=True)
class Neighbors:
    """The nearest rows of each of N rows.

    `indices`: (N, n) int32, itself first. `recall`: the share of the true ones, in [0, 1]: 1 for an exact search, else
    measured on a sample. `order`: (N,) int64, an order where near rows stand together, if the search found one.
    """

    indices: Rows
    recall: float
    order: np.ndarray


class EncodedImage(Protocol):
    """A file that has been read but not decoded."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (H, W, 3) of its pixels."""


class BatchDecoder(Protocol):
    """Decodes files on a device, in batches."""

    def read(self, place: ImagePlace | str, max_pixels: int) -> EncodedImage | np.ndarray:
        """Read a file; may be called from several threads at once.

        Args:
            place: A path, or a `StoredImage`.
            max_pixels: Larger images are refused.

        Returns:
            The file, or its pixels (H, W, 3) uint8 where the device cannot decode it.

        Raises:
            UnreadableImage: The file cannot be read, or the CPU cannot decode it.
        """

    def decode(self, files: Sequence[Any]) -> list[torch.Tensor | UnreadableImage]:
        """Decode what `read` returned to (H, W, 3) uint8 on the device, or the error where a file is unreadable."""

    def take_counts(self) -> dict[str, int]:
        """Count the images decoded since the last call: on the device, by its name, and by the CPU, by reason."""


class Backend(Protocol):
    """The interface of a backend. Networks run on `device`.

    NumPy arrays in arguments and results are in host memory; tensors are there or on `device`. `Rows` and `Graph` are
    answered where they are given (`backends/placed.py`): what `put` gave stays on the device until it is fetched.
    """

    @property
    def name(self) -> str:
        """The name in the output of `doctor` and in the log."""

    @property
    def device(self) -> torch.device:
        """Where the networks run; asking for it loads torch."""

    @property
    def device_name(self) -> str:
        """The device's name, "cpu" or "cuda:N"."""

    @property
    def is_deterministic(self) -> bool:
        """Whether the same work gives the same bytes every time; on a GPU that costs time in training."""

    @property
    def images_at_once(self) -> int:
        """The preferred number of images per call of `find_objects`; 1 where it works image by image."""

    @property
    def pixels_at_once(self) -> int:
        """The most pixels that these images may have together, unless a single one has more."""

    @property
    def batch_decoder(self) -> BatchDecoder | None:
        """The decoder of images that are only needed on the device; None where `decode` is best."""

    def decode(self, place: ImagePlace | str, max_pixels: int) -> np.ndarray:
        """Decode an image, a path or a `StoredImage`, to (H, W, 3) uint8 RGB.

        Raises:
            UnreadableImage: The image cannot be read or decoded, or has more than `max_pixels`.
        """

    def find_objects(
        self,
        images: Sequence[Image],
        maps: Sequence[np.ndarray | torch.Tensor],
        theta: str,
        min_area: int,
        crop_size: int,
    ) -> list[FoundObjects]:
        """Find the objects of every image, in order; images do not influence each other.

        Args:
            images: (H, W, 3) uint8 RGB each.
            maps: For each image, saliency (M, h, w) float32 in [0, 1] or masks as bool, all of one kind; either at the
                size of their image, or all of one size, from which they are enlarged bilinearly.
            theta: "otsu" (a threshold per map) or a number; an object is where saliency exceeds it.
            min_area: Smallest area of an object, in pixels.
            crop_size: Side of a crop in pixels, to which an object's box is resized with antialiasing.
        """

    def put(self, rows: np.ndarray) -> Rows:
        """Copy rows (N, ...) to the device, or leave them on the host where that serves the operations better."""

    def put_graph(self, graph: Graph) -> Graph:
        """Do the same with a graph; one that is there stays as it is."""

    def find_neighbors(self, embeddings: Rows, n_neighbors: int, recall: float, seed: int) -> Neighbors:
        """Find the nearest rows of every row in Euclidean distance; exactly for few rows or a recall of 1.

        Args:
            embeddings: (N, D) float32.
            n_neighbors: Rows to find, the row itself included.
            recall: Share of the true neighbours to reach, in (0, 1].
            seed: Seed of the approximate search and of the sample that measures its recall.

        Returns:
            The neighbours and their measured recall, which may fall short of the one asked for.
        """

    def join_neighbors(self, indices: Rows) -> Graph:
        """Make the symmetric graph W = (A + A^T) / 2, where A has a 1 from every row to its neighbours.

        Args:
            indices: (N, n) integers in [0, N), the neighbours of each row; one that stands there twice counts once. To
                save memory they may be changed.

        Returns:
            (N, N) float32 with entries 0.5 and 1, columns ascending; positions in 32 bits while they fit. On the host,
            too, where the device's memory is too short for it.
        """

    def find_components(self, affinity: Graph) -> Rows:
        """Find the connected components of a symmetric graph (N, N); gives the number of each node's, (N,), from 0."""

    def find_nearest(self, queries: np.ndarray, rows: Rows, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the nearest rows of each query in Euclidean distance, by exact search.

        Args:
            queries: (M, D) float32.
            rows: (N, D) float32, which need not be moved again where `put` gave them.
            count: Rows to find for each query, at most N.

        Returns:
            Indices (M, count) int64, nearest first, and Euclidean distances (M, count) float32.
        """

    def find_eigenvectors(self, affinity: Graph, n_components: int, seed: int) -> tuple[np.ndarray, Rows]:
        """Find the largest eigenpairs of D^-1/2 W D^-1/2, for a symmetric affinity W with degrees D.

        Args:
            affinity: W, (N, N).
            n_components: Number c of eigenpairs.
            seed: Seed of the random start.

        Returns:
            Eigenvalues (c,) float64, descending, and unit eigenvectors (N, c), float64 (float32 for large graphs).
        """

    def run_kmeans(self, rows: Rows, k: int, n_init: int, seed: int, start: Rows | None = None) -> tuple[Rows, Rows]:
        """Cluster rows by k-means.

        Args:
            rows: (N, C).
            k: Number of clusters.
            n_init: Number of runs, of which the best counts.
            seed: Seed of the initial centres.
            start: Initial centres (k, C) of a single run, instead of `n_init` random ones.

        Returns:
            Labels (N,) int32 in [0, k), and centres (k, C) float32.
        """

    def assemble_masks(self, images: Sequence[LabelledMasks]) -> list[np.ndarray]:
        """Make a class map (H, W) uint16 of each image: label + 1 inside each mask, later over earlier, else 0."""

    def count_confusion(self, predicted: np.ndarray, truth: np.ndarray, n_rows: int) -> np.ndarray:
        """Count how often labels meet, (n_rows, 256) int64; may be called from several threads at once.

        Args:
            predicted: (H, W) integers in [0, n_rows).
            truth: (H, W) uint8.
            n_rows: Number of predicted labels.
        """
