"""Superpixels, the graph on them, and the saliency map that they make (for the priors that work on superpixels)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from fastcomus.backends.compiled import compile_function
from fastcomus.objects.saliency.prior_images import (
    check_pixels,
    convert_to_cielab,
    enlarge_saliency_map,
    shrink_image,
    stretch_to_unit,
)
from fastcomus.objects.saliency.slic import cut_superpixels


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
    labels = cut_superpixels(lab, superpixels, compactness)
    saliency = saliency_of(measure_regions(lab, labels))[labels].astype(np.float32)
    smooth = gaussian_filter(saliency, smoothing * max(labels.shape), mode="nearest")
    return enlarge_saliency_map(stretch_to_unit(smooth), pixels.shape[:2])


def measure_regions(lab: np.ndarray, labels: np.ndarray) -> Regions:
    """Measure superpixels of `lab` (H, W, 3) and find their neighbours; `labels`: (H, W), from 0 without gaps."""
    given = np.ascontiguousarray(lab), np.ascontiguousarray(labels, np.int32)  # of one kind, to be compiled once
    means, touching, on_border = _measure(*given, int(labels.max()) + 1)
    # All superpixels on the border are linked, so that an object does not divide the background.
    linked = touching | (on_border[:, None] & on_border)
    np.fill_diagonal(linked, False)
    return Regions(compute_pairwise_distance(means[:, :3]), means[:, 3:], touching, linked, on_border)


@compile_function
def _measure(lab, labels, count):  # type: ignore[no-untyped-def]
    """Means (count, 5) float64 of colour, y, x (both as fractions); who touches whom; who is on the border."""
    height, width = labels.shape
    sums = np.zeros((count, 6))
    touching = np.zeros((count, count), np.bool_)
    on_border = np.zeros(count, np.bool_)
    for y in range(height):
        for x in range(width):
            label = labels[y, x]
            for channel in range(3):
                sums[label, channel] += lab[y, x, channel]
            sums[label, 3] += (y + 0.5) / height
            sums[label, 4] += (x + 0.5) / width
            sums[label, 5] += 1
            for other in (labels[min(y + 1, height - 1), x], labels[y, min(x + 1, width - 1)]):
                if other != label:
                    touching[label, other] = touching[other, label] = True
            if y in (0, height - 1) or x in (0, width - 1):
                on_border[label] = True
    return sums[:, :5] / sums[:, 5:], touching, on_border


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
