"""Object crops to embeddings (step 3)."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import nn

from fastcomus import weights


class Encoder:
    """A pretrained network that turns crops into embeddings: the CLS token of a ViT, else the pooled features."""

    def __init__(
        self, network: nn.Module, crop_size: int, mean: torch.Tensor, std: torch.Tensor, precision: str
    ) -> None:
        self.network = network
        self.mean, self.std = mean, std  # (1, 3, 1, 1), of pixels in [0, 255]
        self.precision = precision
        self.has_class_token = getattr(network, "cls_token", None) is not None
        self.crop_size = crop_size
        self.dimension = int(self(torch.zeros(1, 3, crop_size, crop_size, dtype=torch.uint8)).shape[1])

    @torch.inference_mode()
    def __call__(self, crops: torch.Tensor) -> torch.Tensor:
        """`crops`: (N, 3, S, S) uint8, on any device -> (N, D) float32 on the CPU."""
        pixels = crops.to(self.mean.device, torch.float32, memory_format=torch.channels_last, non_blocking=True)
        return self.embed_normalised((pixels - self.mean) / self.std)

    @torch.inference_mode()
    def embed_normalised(self, normalised: torch.Tensor) -> torch.Tensor:
        """`normalised`: (N, 3, S, S) float32 as the network was trained on -> (N, D) float32 on the CPU."""
        with autocast(self.mean.device, self.precision):
            if self.has_class_token:
                rows = self.network.forward_features(normalised)[:, 0]  # type: ignore[operator]
            else:
                rows = self.network(normalised)
        return rows.float().cpu()


def load_encoder(name: str, weights_file: str, crop_size: int, precision: str, device: torch.device) -> Encoder:
    """The encoder `name` (`efficientnet-lite0` or any timm name) for crops of `crop_size` px.

    A ViT's position embedding is resampled to the crop size. `precision`: "float32" or "bf16" (autocast).
    Raises InputError for an unknown name or weights that cannot be had.
    """
    # Networks of fixed input size (ViTs, for instance) are built for the crop size; the others take any.
    options = {"img_size": crop_size} if weights.has_fixed_input_size(name) else {}
    network = weights.load(name, weights_file, num_classes=0, **options).eval().to(device)
    network = network.to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(values, device=device).reshape(1, 3, 1, 1) * 255 for values in pixel_statistics(network))
    return Encoder(network, crop_size, mean, std, precision)


def pixel_statistics(network: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel that the network's weights expect, of pixels in [0, 1]."""
    configuration = network.pretrained_cfg
    return configuration["mean"], configuration["std"]  # type: ignore[index, return-value]


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Mixed precision in bfloat16 for "bf16"; nothing for "float32"."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
