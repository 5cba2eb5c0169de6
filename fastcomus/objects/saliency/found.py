"""FOUND: objects as the complement of the background, by a 1 x 1 convolution on the patch features.

O. Siméoni et al., "Unsupervised Object Localization: Observing the Background to Discover Objects", CVPR 2023.
The background is found without training, as the patches similar to the least attended one (`find_background`). Its
refined complement is what a 1 x 1 convolution with a sigmoid was trained on; at test time only that convolution runs
(`compute_found_map`).

FOUND does not normalise the features: its decoder takes the keys of DINO ViT-S/8's last attention layer as they are,
heads concatenated, without the CLS token. For the background they are weighted per head and scaled to unit norm.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from fastcomus.errors import InputError
from fastcomus.objects.saliency.lost import check_features


def compute_found_map(features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Apply FOUND's decoder to keys of patches: (B, H, W) float32 in [0, 1], above 0.5 where it takes them for object.

    Args:
        features: (B, H, W, C), the keys of the patches.
        weight: (1, C, 1, 1), of the decoder.
        bias: (1,), of the decoder.
    """
    check_features(features)
    channels = features.shape[3]
    if weight.shape != (1, channels, 1, 1) or bias.shape != (1,):
        raise InputError(
            f"weight must be (1, {channels}, 1, 1) and bias (1,) for features of {channels} channels; "
            f"got {tuple(weight.shape)} and {tuple(bias.shape)}. Take the encoder that the decoder was trained on."
        )
    return torch.sigmoid(features.float() @ weight.float().flatten() + bias.float())


def find_background(features: torch.Tensor, attention: torch.Tensor, threshold: float = 0.3) -> torch.Tensor:
    """Find the background (B, H, W) bool without training: the patches similar to the least attended one.

    A head that attends to few patches counts more: its weight is the negative logarithm of its share of all attended
    patches, where a patch is attended if its attention is above the mean of all heads.

    Args:
        features: (B, H, W, C), heads concatenated; C is a multiple of their number.
        attention: (B, heads, H, W), not negative, of the CLS token in the last layer.
        threshold: The paper's tau, of the cosine similarity.
    """
    check_features(features)
    heads = attention.shape[1] if attention.ndim == 4 else 0
    expected = (features.shape[0], heads, *features.shape[1:3])
    if not heads or attention.shape != expected or features.shape[3] % heads:
        raise InputError(
            f"attention must be (B, heads, H, W) beside features (B, H, W, C), C a multiple of heads; got "
            f"{tuple(attention.shape)} beside {tuple(features.shape)}. Take both from the same layer."
        )
    attended = attention.flatten(2).float()
    above_mean = attended > attended.mean(dim=(1, 2), keepdim=True)
    share = above_mean.float().mean(dim=2)
    tiny = 1e-10  # matters only for a head that attends to nothing
    head_weight = torch.log((share + tiny).sum(dim=1, keepdim=True) / (share + tiny))  # (B, heads)
    reference = (attended * head_weight[:, :, None]).sum(dim=1).argmin(dim=1)
    rows = features.flatten(1, 2).float().unflatten(2, (heads, -1)) * head_weight[:, None, :, None]
    rows = functional.normalize(rows.flatten(2), dim=2)
    reference_row = rows.gather(1, reference[:, None, None].expand(-1, 1, rows.shape[2]))
    is_background = torch.bmm(rows, reference_row.mT)[:, :, 0] > threshold
    return is_background.reshape(features.shape[:3])
