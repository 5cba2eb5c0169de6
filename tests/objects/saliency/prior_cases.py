"""Scenes and measures for the tests of the saliency priors."""

from __future__ import annotations

import numpy as np
from skimage.filters import threshold_otsu

from fastcomus.objects.saliency.superpixels import Regions, measure_regions


def scene(centre_yx: tuple[int, int], radius: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A red disc over grey-green noise with a shading, 200 x 300."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:200, :300]
    pixels = np.array([90.0, 130.0, 100.0]) + (0.1 * x)[..., None] + random.normal(0, 12, (200, 300, 3))
    disc = (y - centre_yx[0]) ** 2 + (x - centre_yx[1]) ** 2 < radius**2
    pixels[disc] = (200, 40, 40)
    return pixels.clip(0, 255).astype(np.uint8), disc


def small_case() -> tuple[np.ndarray, np.ndarray, Regions]:
    """A 5 x 6 grid of superpixels of 4 x 4 pixels in random colours: CIELAB, labels and regions."""
    random = np.random.default_rng(3)
    labels = np.kron(np.arange(30).reshape(5, 6), np.ones((4, 4), dtype=int))
    lab = (random.normal(0, 8, (30, 3))[labels] + random.normal(0, 1, (20, 24, 3))).astype(np.float32)
    return lab, labels, measure_regions(lab, labels)


def otsu_mask(saliency: np.ndarray) -> np.ndarray:
    return saliency > threshold_otsu(saliency)


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())
