"""Superpixels, the graph on them, and the saliency map that they make (for the priors that work on superpixels)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.segmentation import slic

from fastcomus.objects.saliency.prior_images import (
    check_pixels,
    convert_to_cielab,
    enlarge_saliency_map,
    shrink_image,
    stretch_to_unit,
)


@dataclass(frozen=True)
class Regions:
    """N superpixels and the graph of their neighbourhoods."""

    colour_distance: np.ndarray  # (N, N) float64, Euclidean distance of mean CIELAB colours
    position: np.ndarray  # (N, 2) float64, mean y and x as fractions of height and width
    touching: np.ndarray  # (N, N) bool, which share the edge of a pixel
    linked: np.ndarray  # (N, N) bool, touching, or both on the image's border
    on_border: np.ndarray  # (N,) bool


def compute_superpixel_saliency(
    pixels: np.ndarray,
    working_side_px: int,
    superpixels: int,
    compactness: float,
    smoothing: float,
    saliency_of: Callable[[Regions], np.ndarray],
) -> np.ndarray:
    """Compute a map (1, H, W) that is constant on superpixels, then smoothed and stretched to [0, 1].

    Args:
        pixels: (H, W, 3) uint8.
        working_side_px: Larger images are shrunk to this longest side.
        superpixels: Number of superpixels asked of SLIC.
        compactness: Of SLIC, in CIELAB units.
        smoothing: Sigma of the Gaussian, as a fraction of the longest side.
        saliency_of: Returns the saliency (N,) of N superpixels.
    """
    check_pixels(pixels)
    lab = convert_to_cielab(shrink_image(pixels, working_side_px))
    labels = compute_superpixels(lab, superpixels, compactness)
    saliency = saliency_of(measure_regions(lab, labels))[labels].astype(np.float32)
    smooth = gaussian_filter(saliency, smoothing * max(labels.shape), mode="nearest")
    return enlarge_saliency_map(stretch_to_unit(smooth), pixels.shape[:2])


def compute_superpixels(lab: np.ndarray, count: int, compactness: float) -> np.ndarray:
    """Compute superpixels by SLIC: (H, W) int64, numbered from 0 without gaps.

    Args:
        lab: (H, W, 3) float32 CIELAB.
        count: Number asked for; SLIC gives about 10 % fewer.
        compactness: The colour difference that weighs as much as the step from one superpixel to the next.
    """
    # slic first stretches its input to [0, 1], so that the compactness must be divided by its range.
    span = float(lab.max() - lab.min()) or 1.0
    labels = slic(
        lab,
        n_segments=min(count, lab.shape[0] * lab.shape[1]),
        compactness=compactness / span,
        max_num_iter=5,
        convert2lab=False,
        start_label=0,
        channel_axis=-1,
    )
    used = np.bincount(labels.ravel()) > 0
    numbered: np.ndarray = (np.cumsum(used) - 1)[labels]
    return numbered


def measure_regions(lab: np.ndarray, labels: np.ndarray) -> Regions:
    """Measure superpixels of `lab` (H, W, 3) and find their neighbours; `labels`: (H, W), from 0 without gaps."""
    height, width = labels.shape
    count = int(labels.max()) + 1
    flat = labels.ravel()
    size_px = np.bincount(flat, minlength=count)
    colour = np.stack([np.bincount(flat, lab[..., c].ravel(), count) / size_px for c in range(3)], axis=1)
    y = np.bincount(flat, np.repeat(np.arange(height) + 0.5, width), count) / (size_px * height)
    x = np.bincount(flat, np.tile(np.arange(width) + 0.5, height), count) / (size_px * width)
    touching = np.zeros((count, count), dtype=bool)
    touching[labels[:, :-1], labels[:, 1:]] = True
    touching[labels[:-1], labels[1:]] = True
    touching |= touching.T
    np.fill_diagonal(touching, False)
    on_border = np.zeros(count, dtype=bool)
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        on_border[side] = True
    # All superpixels on the border are linked, so that an object does not divide the background.
    linked = touching | (on_border[:, None] & on_border)
    np.fill_diagonal(linked, False)
    return Regions(compute_pairwise_distance(colour), np.stack([y, x], axis=1), touching, linked, on_border)


def compute_pairwise_distance(points: np.ndarray) -> np.ndarray:
    """Compute the Euclidean distances (N, N) float64 of points (N, C)."""
    distances: np.ndarray = np.sqrt(sum((axis[:, None] - axis) ** 2 for axis in points.T))
    return distances


def find_within_two_steps(touching: np.ndarray) -> np.ndarray:
    """Find neighbours and neighbours of neighbours, (N, N) bool, without the superpixel itself."""
    steps = touching.astype(np.float32)
    near: np.ndarray = touching | (steps @ steps > 0)
    np.fill_diagonal(near, False)
    return near
