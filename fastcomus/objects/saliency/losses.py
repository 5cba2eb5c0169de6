"""What a saliency network is trained to make small."""

from __future__ import annotations

import torch
from torch.nn import functional as F

_WINDOW, _STEP = 11, 4  # of the structural similarity, in pixels
_LUMINANCE, _CONTRAST = 0.01**2, 0.03**2


def compute_hybrid_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy + (1 - structural similarity) + (1 - IoU), the mean over all maps (BASNet, section 3.4).

    `logits`: (N, P, H, W) float32. `target`: the same shape, float32 in [0, 1].
    """
    maps = torch.sigmoid(logits)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target)
    shared = (maps * target).sum((2, 3))
    union = (maps + target).sum((2, 3)) - shared
    overlap = (shared + 1) / (union + 1)
    return cross_entropy + 1 - compute_structural_similarity(maps, target) + (1 - overlap).mean()


def compute_structural_similarity(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The mean over windows and maps (N, P, H, W) in [0, 1] of the index of Wang et al. 2004: at most 1.

    Windows are plain squares of 11 pixels at every fourth: Gaussian ones at every pixel took half of a training step.
    """

    def local_mean(values: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(values, _WINDOW, _STEP)

    mean, other_mean = local_mean(one), local_mean(other)
    variance = local_mean(one**2) - mean**2
    other_variance = local_mean(other**2) - other_mean**2
    covariance = local_mean(one * other) - mean * other_mean
    luminance = (2 * mean * other_mean + _LUMINANCE) / (mean**2 + other_mean**2 + _LUMINANCE)
    contrast = (2 * covariance + _CONTRAST) / (variance + other_variance + _CONTRAST)
    return (luminance * contrast).mean()
