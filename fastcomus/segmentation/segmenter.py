"""The segmentation network: DeepLabv3 on any backbone (step 9)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from fastcomus.networks import weights
from fastcomus.networks.determinism import enlarge_by_products, is_determinism_used
from fastcomus.networks.fixed_padding import with_fixed_padding


class Segmenter(nn.Module):
    """Backbone and DeepLabv3 head.

    Height and width of the images should be chosen by `align_side`: a strided convolution samples pixels 0, s, 2 s,
    ..., so that with sides of n s + 1 the first and last samples lie on the first and last pixel (DeepLab's 513). Any
    other side shifts the logits against the image by up to half a stride.
    """

    def __init__(
        self, backbone: nn.Module, k: int, output_stride: int, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        """Put a fresh head on a backbone.

        Args:
            backbone: A network of timm that returns a list of feature maps; the head reads the last one.
            k: Number of clusters.
            output_stride: Pixels per step of the backbone's last feature map.
            mean: Of red, green and blue in [0, 1], subtracted from pixels.
            std: Of red, green and blue in [0, 1], which pixels are divided by after that.
        """
        super().__init__()
        self.mean: torch.Tensor  # (1, 3, 1, 1), of pixels in [0, 255]
        self.std: torch.Tensor
        self.backbone = backbone
        self.output_stride = output_stride
        self.head = DeepLabHead(backbone.feature_info.channels()[-1], k + 1)  # type: ignore[operator, union-attr]
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute coarse logits (B, k + 1, (H - 1) / output stride + 1, ...) float32 of images (B, 3, H, W) uint8."""
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        features = self.backbone((pixels - self.mean) / self.std)[-1]
        logits: torch.Tensor = self.head(features)
        return logits.float()


def enlarge_logits(logits: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Enlarge logits (B, k + 1, h, w), of which i lies at pixel i * output stride, bilinearly to every pixel.

    `shape`: ends with the height and width of the images.
    """
    if is_determinism_used(logits):
        return enlarge_by_products(logits, shape[-2:])
    return functional.interpolate(logits, tuple(shape[-2:]), mode="bilinear", align_corners=True)


def build_segmenter(backbone: str, weights_file: str, k: int, output_stride: int, pretrained: bool = True) -> Segmenter:
    """Build DeepLabv3 for k clusters and background, on the CPU.

    Random weights, which the head always has, are drawn from torch's global generator.

    Args:
        backbone: Name of the backbone.
        weights_file: Checkpoint of the backbone; "" for its published weights.
        k: Number of clusters.
        output_stride: 8, 16 or 32, pixels per step of the backbone's last feature map.
        pretrained: False leaves the backbone at random, for a state that is loaded over it.

    Raises:
        InputError: The backbone is unknown or its weights are missing.
    """
    options = {"features_only": True, "out_indices": (-1,), "output_stride": output_stride}
    if pretrained:
        network = weights.load(backbone, weights_file, **options)
    else:
        network = weights.create_network(backbone, **options)
    configuration = network.pretrained_cfg
    segmenter = Segmenter(with_fixed_padding(network), k, output_stride, configuration["mean"], configuration["std"])
    return segmenter.to(memory_format=torch.channels_last)
