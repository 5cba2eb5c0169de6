"""The CPU backend: Pillow and torchvision for pixels, FAISS, SciPy and scikit-learn for the clustering."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from pycocotools import mask as coco_mask

from fastcomus.backends.graph_eigenvectors import find_graph_components, find_graph_eigenvectors
from fastcomus.backends.interface import BatchDecoder, FoundObjects, Image, LabelledMasks, Neighbors
from fastcomus.backends.joined_neighbors import join_neighbors
from fastcomus.backends.machine import count_cores
from fastcomus.backends.nearest_neighbors import ALL_PAIRS_ROWS, search_nearest_rows, search_neighbors
from fastcomus.backends.placed import Graph, Rows, fetch, fetch_graph
from fastcomus.images.reading import read_image
from fastcomus.images.roots import ImagePlace

if TYPE_CHECKING:
    import torch

OTSU_BINS = 256
LABELS = 256  # that a uint8 can hold


@dataclass(frozen=True)
class ObjectMasks:
    """`masks`: (M, H, W) bool; the rest as in `FoundObjects`."""

    masks: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    scores: np.ndarray
    too_small: bool


@dataclass(frozen=True)
class CpuBackend:
    """See `Backend`. Clustering loads no torch, which takes two seconds."""

    _: KW_ONLY
    name: str = "cpu"
    is_deterministic: bool = True
    all_pairs_rows: int = ALL_PAIRS_ROWS
    images_at_once: int = 1
    pixels_at_once: int = sys.maxsize

    @cached_property
    def device(self) -> torch.device:
        """See `Backend.device`."""
        import torch

        return torch.device("cpu")

    @property
    def device_name(self) -> str:
        """See `Backend.device_name`."""
        return "cpu"

    @property
    def batch_decoder(self) -> BatchDecoder | None:
        """See `Backend.batch_decoder`."""
        return None

    def decode(self, place: ImagePlace | str, max_pixels: int) -> np.ndarray:
        """See `Backend.decode`."""
        return read_image(place, max_pixels)

    def find_objects(
        self,
        images: Sequence[Image],
        maps: Sequence[np.ndarray | torch.Tensor],
        theta: str,
        min_area: int,
        crop_size: int,
    ) -> list[FoundObjects]:
        """See `Backend.find_objects`."""
        return [self._find(*one, theta, min_area, crop_size) for one in zip(images, maps, strict=True)]

    def _find(
        self, image: Image, maps: np.ndarray | torch.Tensor, theta: str, min_area: int, crop_size: int
    ) -> FoundObjects:
        pixels = np.asarray(image)
        on_host = maps if isinstance(maps, np.ndarray) else maps.cpu().numpy()
        found = self.find_masks(resize_maps(on_host, pixels.shape[:2]), theta, min_area)
        run_lengths = []
        if len(found.masks):  # the encoder wants columns first
            encoded = coco_mask.encode(np.asfortranarray(found.masks.transpose(1, 2, 0).astype(np.uint8)))
            run_lengths = [one["counts"].decode("ascii") for one in encoded]
        crops = self.crop_resize(pixels, found.boxes, crop_size)
        return FoundObjects(found.boxes, found.areas, found.scores, run_lengths, crops, found.too_small)

    def find_masks(self, maps: np.ndarray, theta: str, min_area: int) -> ObjectMasks:
        """Make masks from the saliency maps of one image, and return those that are large enough.

        Args:
            maps: Saliency (M, H, W) float32 in [0, 1], or masks (M, H, W) bool, which are not thresholded.
            theta: "otsu" (a threshold per map) or a number.
            min_area: Smallest area of a mask, in pixels.
        """
        masks = maps
        if maps.dtype != bool:
            masks = np.zeros(maps.shape, bool)
            for mask, saliency in zip(masks, maps, strict=True):
                np.greater(saliency, compute_otsu_threshold(saliency) if theta == "otsu" else float(theta), out=mask)
        areas = masks.sum(axis=(1, 2), dtype=np.int64)
        kept = areas >= min_area
        too_small = not kept.any() and bool(areas.any())
        masks, areas = masks[kept], areas[kept]
        boxes = np.array([_find_box(mask) for mask in masks], np.int32).reshape(-1, 4)
        scores = np.array([s[m].mean() for s, m in zip(maps[kept], masks, strict=True)], np.float32)
        return ObjectMasks(masks, boxes, areas, scores, too_small)

    def crop_resize(self, pixels: np.ndarray, boxes: np.ndarray, size: int) -> torch.Tensor:
        """Cut boxes (M, 4) out of an image (H, W, 3) uint8 and resize them, antialiased, to (M, 3, size, size)."""
        import torch
        from torchvision.transforms.v2 import functional as transforms  # takes 1.5 seconds, which not all can spare

        # Channels last in memory is torchvision's fast path for uint8.
        planes = torch.from_numpy(np.require(pixels, requirements="W")).permute(2, 0, 1)
        crops = [
            transforms.resize(planes[None, :, y0:y1, x0:x1], [size, size], antialias=True)
            for x0, y0, x1, y1 in boxes.tolist()
        ]
        return torch.cat(crops).contiguous() if crops else torch.empty((0, 3, size, size), dtype=torch.uint8)

    def put(self, rows: np.ndarray) -> Rows:
        """See `Backend.put`."""
        return rows

    def put_graph(self, graph: Graph) -> Graph:
        """See `Backend.put_graph`."""
        return graph

    def find_neighbors(self, embeddings: Rows, n_neighbors: int, recall: float, seed: int) -> Neighbors:
        """See `Backend.find_neighbors`."""
        rows = fetch(embeddings)
        return search_neighbors(rows, n_neighbors, recall, seed, count_cores(), self.all_pairs_rows)

    def join_neighbors(self, indices: Rows) -> Graph:
        """See `Backend.join_neighbors`."""
        return join_neighbors(fetch(indices))

    def find_components(self, affinity: Graph) -> Rows:
        """See `Backend.find_components`."""
        return find_graph_components(fetch_graph(affinity))

    def find_nearest(self, queries: np.ndarray, rows: Rows, count: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Backend.find_nearest`."""
        return search_nearest_rows(queries, fetch(rows), count, count_cores())

    def find_eigenvectors(self, affinity: Graph, n_components: int, seed: int) -> tuple[np.ndarray, Rows]:
        """See `Backend.find_eigenvectors`."""
        return find_graph_eigenvectors(fetch_graph(affinity), n_components, seed)

    def run_kmeans(self, rows: Rows, k: int, n_init: int, seed: int, start: Rows | None = None) -> tuple[Rows, Rows]:
        """See `Backend.run_kmeans`."""
        from sklearn.cluster import KMeans

        settings = {"n_init": n_init} if start is None else {"n_init": 1, "init": fetch(start)}
        found = KMeans(k, random_state=seed, **settings).fit(fetch(rows))
        return found.labels_.astype(np.int32), found.cluster_centers_.astype(np.float32)

    def assemble_masks(self, images: Sequence[LabelledMasks]) -> list[np.ndarray]:
        """See `Backend.assemble_masks`."""
        class_maps = []
        for image in images:
            class_map = np.zeros(image.shape, np.uint16)
            for mask, label in zip(image.masks, image.labels, strict=True):
                class_map[mask] = label + 1
            class_maps.append(class_map)
        return class_maps

    def count_confusion(self, predicted: np.ndarray, truth: np.ndarray, n_rows: int) -> np.ndarray:
        """See `Backend.count_confusion`."""
        pairs = predicted.astype(np.int64)
        pairs *= LABELS
        pairs += truth
        return np.bincount(pairs.ravel(), minlength=n_rows * LABELS).reshape(n_rows, LABELS)


def resize_maps(maps: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize maps (M, h, w), float32 in [0, 1] or bool, bilinearly to an image's `shape` (H, W), in the same dtype."""
    if maps.shape[1:] == shape:
        return maps
    if not len(maps):
        return np.zeros((0, *shape), maps.dtype)
    import torch

    values = torch.from_numpy(maps).float()[None]
    enlarged = torch.nn.functional.interpolate(values, shape, mode="bilinear", align_corners=False)[0].numpy()
    return enlarged > 0.5 if maps.dtype == bool else enlarged.clip(0, 1)


def compute_otsu_threshold(saliency: np.ndarray) -> float:
    """Compute Otsu's threshold of a map in [0, 1] on 256 equal bins; 1.0 (nothing lies above) for a constant map."""
    counts = np.bincount((saliency * (OTSU_BINS - 1) + 0.5).astype(np.int64).ravel(), minlength=OTSU_BINS)
    levels = np.arange(OTSU_BINS)
    below = np.cumsum(counts)
    above = counts.sum() - below
    sums = np.cumsum(counts * levels)
    inside = (below > 0) & (above > 0)
    if not inside.any():
        return 1.0
    mean_below = np.divide(sums, below, where=below > 0, out=np.zeros(OTSU_BINS))
    mean_above = np.divide(sums[-1] - sums, above, where=above > 0, out=np.zeros(OTSU_BINS))
    between = np.where(inside, below * 1.0 * above * (mean_below - mean_above) ** 2, -1)
    return float((np.argmax(between) + 0.5) / (OTSU_BINS - 1))


def _find_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
