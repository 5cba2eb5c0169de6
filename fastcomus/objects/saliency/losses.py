"""The losses of saliency networks."""

from __future__ import annotations

import torch
from torch.nn import functional

_WINDOW, _STEP = 11, 4  # windows of the structural similarity: side and stride in pixels
_LUMINANCE, _CONTRAST = 0.01**2, 0.03**2  # C1 and C2 of Wang et al. 2004, for values in [0, 1]


def compute_hybrid_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Compute cross-entropy + (1 - structural similarity) + (1 - IoU), averaged over maps (BASNet, section 3.4).

    `logits` and `target`, in [0, 1]: (N, P, H, W) float32.
    """
    maps = torch.sigmoid(logits)
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, target)
    shared = (maps * target).sum((2, 3))
    union = (maps + target).sum((2, 3)) - shared
    overlap = (shared + 1) / (union + 1)
    return cross_entropy + 1 - compute_structural_similarity(maps, target) + (1 - overlap).mean()


def compute_structural_similarity(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Compute the structural similarity of Wang et al. 2004, at most 1, averaged over windows and maps in [0, 1].

    Windows are uniform squares of 11 pixels at every fourth pixel of (N, P, H, W): Gaussian windows at every pixel took
    half the time of a training step.
    """

    def local_mean(values: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(values, _WINDOW, _STEP)

    mean, other_mean = local_mean(one), local_mean(other)
    variance = local_mean(one**2) - mean**2
    other_variance = local_mean(other**2) - other_mean**2
    covariance = local_mean(one * other) - mean * other_mean
    luminance = (2 * mean * other_mean + _LUMINANCE) / (mean**2 + other_mean**2 + _LUMINANCE)
    contrast = (2 * covariance + _CONTRAST) / (variance + other_variance + _CONTRAST)
    return (luminance * contrast).mean()
