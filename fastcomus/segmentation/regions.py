"""Which cluster the parts of a mask belong to: pixels are asked together with their part, and with what is known of it.

A network that saw few images takes the feet of a dog for those of a cat. A part of a mask that hangs together shows one
object more often than two, so its pixels are averaged; what is left of their own opinion still tells two objects apart
that touch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage


@dataclass(frozen=True)
class OwnObjects:
    """What is known of an image's objects before a network labels it.

    Attributes:
        class_map: (H, W) integers, their masks: 0 for background, c + 1 for cluster c.
        mask_weight: The share, in [0, 1), that the masks have in where objects are.
        cluster_weight: The share, in [0, 1), that their clusters have in which cluster pixels belong to.
    """

    class_map: np.ndarray
    mask_weight: float = 0.0
    cluster_weight: float = 0.0


@dataclass(frozen=True)
class Regions:
    """The connected parts of an image's mask, R of them (four neighbours), and what speaks for each cluster there.

    Attributes:
        numbers: (H, W) int32, 0 for background, r + 1 for part r.
        scores: (R, k) float32, what all pixels of a part have in common; those of a pixel itself are added.
        pixel_weight: Of a pixel's own probabilities.
    """

    numbers: np.ndarray
    scores: np.ndarray
    pixel_weight: float

    def label_whole_parts(self) -> np.ndarray:
        """Label every part by what its pixels have in common: (H, W) uint16, 0 for background, c + 1 for cluster c.

        A pixel whose own most probable cluster is that of its part keeps it, whatever the weights.
        """
        table = np.concatenate([[0], self.scores.argmax(axis=1) + 1]).astype(np.uint16)
        labels: np.ndarray = table[self.numbers]
        return labels


def remove_small_parts(is_object: np.ndarray, least: float) -> np.ndarray:
    """Drop small parts of a mask, (H, W) bool, and fill small holes.

    Args:
        is_object: The mask.
        least: Area of the smallest that stays, as a share of the image.
    """
    if not least:
        return is_object
    kept = _keep_large(is_object, least * is_object.size)
    return ~_keep_large(~kept, least * is_object.size)


def _keep_large(mask: np.ndarray, least: float) -> np.ndarray:
    numbers, _ = ndimage.label(mask)
    is_large = np.bincount(numbers.ravel()) >= least
    is_large[0] = False
    kept: np.ndarray = is_large[numbers]
    return kept


def find_regions(
    is_object: np.ndarray, probabilities: np.ndarray, region_weight: float, own: OwnObjects | None
) -> Regions:
    """Find the parts of a mask and what speaks for each cluster there.

    Args:
        is_object: (H, W) bool, the mask.
        probabilities: (k, h, w) float32 of the clusters at some smaller size; their sum is 1 everywhere.
        region_weight: Share of a part's mean in what the network says, in [0, 1]; each pixel has the rest.
        own: What is known of the image's objects.
    """
    numbers, count = ndimage.label(is_object)
    means = _average_over_parts(numbers, count, probabilities)
    weight = own.cluster_weight if own else 0.0
    scores = (1 - weight) * region_weight * means
    if own and weight:
        scores += weight * _count_own_clusters(numbers, count, own.class_map, means.shape[1])
    return Regions(numbers, scores.astype(np.float32), (1 - weight) * (1 - region_weight))


def _average_over_parts(numbers: np.ndarray, count: int, probabilities: np.ndarray) -> np.ndarray:
    """Average probabilities (k, h, w) over the parts of (H, W), by the pixel in the middle of each cell: (count, k)."""
    rows, columns = (
        ((np.arange(small) + 0.5) * large / small).astype(int)
        for small, large in zip(probabilities.shape[1:], numbers.shape, strict=True)
    )
    sampled, flat = numbers[np.ix_(rows, columns)].ravel(), probabilities.reshape(len(probabilities), -1)
    sizes = np.bincount(sampled, minlength=count + 1)[1:]
    sums = np.stack([np.bincount(sampled, one, minlength=count + 1)[1:] for one in flat], axis=1)
    means = sums / np.maximum(sizes, 1)[:, None]
    if (sizes == 0).any():  # thin parts that no cell's middle lies in: the cell of their first pixel
        parts, first = np.unique(numbers, return_index=True)
        for part, place in zip(parts.tolist(), first.tolist(), strict=True):
            if part and not sizes[part - 1]:
                row, column = np.divmod(place, numbers.shape[1])
                cell = row * len(rows) // numbers.shape[0], column * len(columns) // numbers.shape[1]
                means[part - 1] = probabilities[(slice(None), *cell)]
    return means


def _count_own_clusters(numbers: np.ndarray, count: int, class_map: np.ndarray, k: int) -> np.ndarray:
    """Count the clusters of an image's own objects in each part, (count, k), as shares of all there.

    Where a part has none, those of the whole image stand for it; zeros where the image has none.
    """
    is_own = class_map > 0
    counts = np.zeros((count + 1, k))
    np.add.at(counts, (numbers[is_own], class_map[is_own].astype(np.int64) - 1), 1)
    counts, of_all = counts[1:], counts.sum(axis=0)
    counts[counts.sum(axis=1) == 0] = of_all
    shares: np.ndarray = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares
