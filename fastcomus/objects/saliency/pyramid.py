"""A small saliency network: a pretrained backbone under a feature pyramid.

T.-Y. Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017: the features of deep layers are enlarged
and added to those of finer ones.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from fastcomus.networks import weights
from fastcomus.networks.encoders import get_pixel_statistics
from fastcomus.networks.fixed_padding import with_fixed_padding

_FINEST = 4  # pixels per feature of the finest layer that is used


class PyramidNetwork(nn.Module):
    """A network that turns images into saliency logits.

    Args:
        backbone: Name of the backbone.
        maps: Number of maps per image.
        pretrained: Whether the backbone begins with its published weights.
        width: Features of the pyramid's layers.
    """

    def __init__(self, backbone: str, maps: int, pretrained: bool, width: int) -> None:
        super().__init__()
        make = weights.load if pretrained else weights.create_network
        self.mean: torch.Tensor  # (1, 3, 1, 1), of pixels in [0, 255]
        self.std: torch.Tensor
        self.backbone = with_fixed_padding(make(backbone, features_only=True))
        described = zip(self.backbone.feature_info.channels(), self.backbone.feature_info.reduction(), strict=True)
        self.first = next(place for place, (_, stride) in enumerate(described) if stride >= _FINEST)
        channels = self.backbone.feature_info.channels()[self.first :]
        self.lateral = nn.ModuleList(nn.Conv2d(own, width, 1) for own in channels)
        self.smooth = nn.ModuleList(_build_convolution(width, width) for _ in channels)
        self.head = nn.Sequential(_build_convolution(width, width), nn.Conv2d(width, maps, 1))
        mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) * 255 for values in get_pixel_statistics(self.backbone))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute logits (N, maps, H, W) of images (N, 3, H, W) uint8; sides: multiples of the stride, plus one."""
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        layers = self.backbone((pixels - self.mean) / self.std)[self.first :]
        joined: torch.Tensor | None = None
        for layer, lateral, smooth in reversed(list(zip(layers, self.lateral, self.smooth, strict=True))):
            features = lateral(layer)
            if joined is not None:
                features = features + _enlarge_to_size(joined, features.shape[-2:])
            joined = smooth(features)
        assert joined is not None
        return _enlarge_to_size(self.head(joined).float(), images.shape[-2:])


def _build_convolution(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


def _enlarge_to_size(features: torch.Tensor, size: torch.Size) -> torch.Tensor:
    return functional.interpolate(features, size, mode="bilinear", align_corners=True)
