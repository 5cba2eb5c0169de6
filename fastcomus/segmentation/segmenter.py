"""DeepLabv3 on any backbone (step 9)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from fastcomus.networks import weights
from fastcomus.networks.fixed_padding import with_fixed_padding


class Segmenter(nn.Module):
    """Backbone and DeepLabv3 head: (B, 3, H, W) uint8 images -> (B, k + 1, H, W) float32 logits.

    H and W should be sides that `align_side` gives: a strided convolution samples pixels 0, s, 2 s, ..., so that with
    sides of n s + 1 the first and last samples lie on the first and last pixel (DeepLab's 513). Any other side shifts
    the logits against the image by up to half a stride.
    """

    def __init__(
        self, backbone: nn.Module, k: int, output_stride: int, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.mean: torch.Tensor  # (1, 3, 1, 1), of pixels in [0, 255]
        self.std: torch.Tensor
        self.backbone = backbone
        self.output_stride = output_stride
        self.head = DeepLabHead(backbone.feature_info.channels()[-1], k + 1)  # type: ignore[operator, union-attr]
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) uint8 to (B, k + 1, (H - 1) / output stride + 1, (W - 1) / output stride + 1) float32."""
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        features = self.backbone((pixels - self.mean) / self.std)[-1]
        return self.head(features).float()


def enlarge_logits(logits: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Logits of every pixel, (B, k + 1, H, W), by bilinear interpolation. `shape`: ends with H, W."""
    return F.interpolate(logits, tuple(shape[-2:]), mode="bilinear", align_corners=True)


def build_segmenter(backbone: str, weights_file: str, k: int, output_stride: int, pretrained: bool = True) -> Segmenter:
    """DeepLabv3 for k clusters and background; the backbone carries its published weights, the head fresh ones.

    `pretrained=False` leaves the backbone at random, for a checkpoint to be loaded over it. Random weights are drawn
    from torch's global generator. Raises InputError for an unknown backbone or missing weights.
    """
    options = {"features_only": True, "out_indices": (-1,), "output_stride": output_stride}
    if pretrained:
        network = weights.load(backbone, weights_file, **options)
    else:
        network = weights.create_network(backbone, **options)
    configuration = network.pretrained_cfg
    segmenter = Segmenter(with_fixed_padding(network), k, output_stride, configuration["mean"], configuration["std"])
    return segmenter.to(memory_format=torch.channels_last)
