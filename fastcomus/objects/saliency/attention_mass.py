"""DINOSeg: the patches that receive most of the CLS token's attention.

M. Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021 (DINO): of the last layer's
attention of the CLS token, the largest values are kept until they hold 60 % of its mass.

Left open by the paper: it makes one mask per head and scores the best one against the truth, which needs labels. Here
each head is divided by its own mass, so that all count alike, and their mean is thresholded. For a single head give
that head alone, such as `attention[:, 4:5]`, the head of ViT-S that LOST's baseline "DINO-seg" takes; it keeps the
largest connected component only, while masks here may have several components.
"""

from __future__ import annotations

import torch

from fastcomus.errors import InputError


def compute_attention_masks(attention: torch.Tensor, mass: float = 0.6) -> torch.Tensor:
    """Keep the most attended patches that together hold a share of the attention.

    Args:
        attention: (B, heads, H, W), not negative, from the CLS token to the patches.
        mass: The share, in (0, 1).

    Returns:
        Masks (B, H, W) bool with as few patches as possible and those equal to the last; empty where all are equal.
    """
    if attention.ndim != 4 or 0 in attention.shape[1:]:
        raise InputError(f"attention must be (B, heads, H, W); got {tuple(attention.shape)}. Give one map per head.")
    if not 0 < mass < 1:
        raise InputError(f"mass must lie in (0, 1); got {mass}. Give the share to keep, such as 0.6.")
    heads = attention.flatten(2).double()
    heads = heads / heads.sum(dim=2, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    patches = heads.mean(dim=1)
    largest_first = patches.sort(dim=1, descending=True).values
    held = largest_first.cumsum(dim=1)
    # The tolerance keeps rounding from adding a patch where the mass is reached exactly.
    needed = (held < (mass - 1e-7) * held[:, -1:]).sum(dim=1, keepdim=True)
    uniform = largest_first[:, 0] - largest_first[:, -1] <= 1e-6 * largest_first[:, 0]
    masks = (patches >= largest_first.gather(1, needed)) & ~uniform[:, None]
    return masks.reshape(-1, *attention.shape[2:])
