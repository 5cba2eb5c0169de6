"""Maps of priors weighed by what the objects of all images have in common, for `train-saliency`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from fastcomus.objects.saliency.common_features import (
    CommonFeatures,
    FeatureGrid,
    compute_likenesses,
    fit_common_features,
    multiply_maps,
)
from fastcomus.objects.saliency.training import fuse_maps
from fastcomus.progress import show_progress
from fastcomus.run.saliency_maps import Photographs
from fastcomus.run.workplace import Workplace


def weigh_maps(
    grid: FeatureGrid,
    photographs: Photographs,
    labels: Callable[[int], np.ndarray],
    at: Workplace,
    has_network: bool,
) -> tuple[CommonFeatures, Callable[[int], np.ndarray]]:
    """Find what the objects have in common, and weigh the maps that a network is to learn by it.

    Args:
        grid: Computes the features.
        photographs: The images, and the maps of their priors.
        labels: Returns the maps (P, L, L) uint8 to learn, of an image by its index.
        at: The run folder, the settings and the device.
        has_network: Whether a network learns them; otherwise they are returned as they are.

    Returns:
        What is common, and what returns the fused map (1, L, L) uint8, weighed by it.
    """
    read, number = photographs.read, photographs.count
    with show_progress("common features", number * (1 + has_network), "images") as advance:
        common = fit_common_features(
            grid, read, lambda index: fuse_maps(photographs.priors(index)), number, at.workers, advance
        )
        if not has_network:
            return common, labels
        likenesses = compute_likenesses(common, read, number, at.workers, advance)

    def weigh(index: int) -> np.ndarray:
        fused = torch.from_numpy(fuse_maps(labels(index)))[None].float()
        weighed: np.ndarray = (multiply_maps(fused, likenesses[index : index + 1])[0] * 255).round().byte().numpy()
        return weighed

    return common, weigh
