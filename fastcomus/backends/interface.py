"""The few heavy operations behind one interface, and the choice of who does them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from scipy.sparse import csr_array

from fastcomus.images.found import UnreadableImage
from fastcomus.images.roots import ImagePlace

log = logging.getLogger("fastcomus")
Image = np.ndarray | torch.Tensor  # (H, W, 3) uint8 RGB, on the host or on the backend's device


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
    """`masks`: (H, W) bool each, of one image. `labels`: the cluster of each. `shape`: H and W."""

    masks: Sequence[np.ndarray]
    labels: Sequence[int]
    shape: tuple[int, int]


@dataclass(frozen=True)
class Neighbors:
    """`indices`: (N, n) int32, each row's nearest rows, itself first. `recall`: the share of the true ones, in [0, 1]:
    1 for an exact search, else measured on a sample. `order`: (N,) int64, the rows in an order where near ones stand
    together, as far as the search found one.
    """

    indices: np.ndarray
    recall: float
    order: np.ndarray


class EncodedImage(Protocol):
    """A file that was read and not decoded yet."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, 3) of its pixels."""


class BatchDecoder(Protocol):
    """Decodes files on a device, many at once."""

    def read(self, place: ImagePlace | str, max_pixels: int) -> EncodedImage | np.ndarray:
        """A file, or its pixels where the device cannot decode it; raises images.UnreadableImage. For many threads."""

    def decode(self, files: Sequence[Any]) -> list[torch.Tensor | UnreadableImage]:
        """The pixels (H, W, 3) uint8 of every file that `read` gave, on the device, or why there are none."""

    def take_counts(self) -> dict[str, int]:
        """How many images were decoded on the device, by its name, and by the CPU, by reasons; counted anew after."""


class Backend(Protocol):
    """What a backend must do. Networks run on `device`.

    NumPy arrays at this border lie in host memory, tensors there or on `device`.
    """

    @property
    def name(self) -> str:
        """What doctor and the log call it."""

    @property
    def device(self) -> torch.device:
        """Where the networks run."""

    @property
    def images_at_once(self) -> int:
        """How many images `find_objects` likes best: 1 where it works image by image."""

    @property
    def pixels_at_once(self) -> int:
        """How many pixels these may have together, unless a single one has more."""

    @property
    def batch_decoder(self) -> BatchDecoder | None:
        """What decodes images that are only looked at on the device; None where `decode` is best."""

    def decode(self, place: ImagePlace | str, max_pixels: int) -> np.ndarray:
        """The image (a path, or a `StoredImage`) as (H, W, 3) uint8 RGB; raises images.UnreadableImage."""

    def find_objects(
        self,
        images: Sequence[Image],
        maps: Sequence[np.ndarray | torch.Tensor],
        theta: str,
        min_area: int,
        crop_size: int,
    ) -> list[FoundObjects]:
        """The objects of every image, none of which depends on another.

        `maps`: of every image, saliency (M, h, w) float32 in [0, 1], or masks as bool, of one kind: at their image's
        size, or all of one size, and then enlarged bilinearly. An object is where saliency is above `theta` ("otsu", a
        threshold per map, or a number), and is kept if it has `min_area` pixels. Its box is stretched with antialiasing
        to a crop of `crop_size` pixels a side.
        """

    def find_neighbors(self, embeddings: np.ndarray, n_neighbors: int, recall: float, seed: int) -> Neighbors:
        """Nearest rows of every row of (N, D) float32 in Euclidean distance; exact for few rows or a recall of 1."""

    def find_nearest(self, queries: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Of (N, D), the `count` rows nearest to each of (M, D) queries, nearest first, searched exactly.

        Indices (M, count) int64 and Euclidean distances (M, count) float32.
        """

    def find_eigenvectors(self, affinity: csr_array, n_components: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """The largest eigenvalues (c,) of D^-1/2 W D^-1/2, descending, with unit eigenvectors (N, c).

        Both float64; the vectors of large graphs float32.
        """

    def run_kmeans(
        self, rows: np.ndarray, k: int, n_init: int, seed: int, start: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Labels (N,) int32 and centres (k, C) float32 of the best of `n_init` k-means runs, or of one from `start`."""

    def assemble_masks(self, images: Sequence[LabelledMasks]) -> list[np.ndarray]:
        """A class map (H, W) uint16 per image: label + 1 inside each mask, later masks over earlier, 0 elsewhere."""

    def count_confusion(self, predicted: np.ndarray, truth: np.ndarray, n_rows: int) -> np.ndarray:
        """How often each pair of labels meets, (n_rows, 256) int64: `predicted` (H, W) integers in [0, n_rows) against
        `truth` (H, W) uint8. May be called from several threads at once.
        """
