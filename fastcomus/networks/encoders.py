"""Encoders that turn object crops into embeddings (step 3), and images into features of their patches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fastcomus.backends.machine import move_to_device
from fastcomus.errors import InputError
from fastcomus.networks import weights
from fastcomus.networks.folded_batch_norm import with_folded_batch_norms
from fastcomus.networks.inference import compile_by_openvino
from fastcomus.networks.precision import use_precision

_STRIDE = 16  # pixels per feature of a convolutional network


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
        self.accelerated: Callable[[torch.Tensor], torch.Tensor] | None = None  # the same, of crops
        self.dimension = int(self(torch.zeros(1, 3, crop_size, crop_size, dtype=torch.uint8)).shape[1])

    @torch.inference_mode()
    def __call__(self, crops: torch.Tensor) -> torch.Tensor:
        """Embed crops (N, 3, S, S) uint8, on any device, as (N, D) float32 on the network's device."""
        if self.accelerated is not None:
            return self.accelerated(crops)
        pixels = move_to_device(crops, self.mean.device).to(torch.float32, memory_format=torch.channels_last)
        return self.embed_normalised((pixels - self.mean) / self.std)

    @torch.inference_mode()
    def embed_normalised(self, normalised: torch.Tensor) -> torch.Tensor:
        """Embed crops (N, 3, S, S) float32, normalised as in the network's training, as (N, D) float32 beside them."""
        with use_precision(self.mean.device, self.precision):
            return _take_rows(self.network, self.has_class_token, normalised).float()


def load_encoder(
    name: str, weights_file: str, crop_size: int, precision: str, device: torch.device, inference: str = "torch"
) -> Encoder:
    """Load an encoder of crops. A ViT's position embedding is resampled to the crop size.

    Args:
        name: `efficientnet-lite0` or any timm name.
        weights_file: Checkpoint to load instead of the published one; "" for the published one.
        crop_size: Side of the crops, in pixels.
        precision: "float32" or "bf16" (autocast).
        device: Where the network runs.
        inference: "torch" or "openvino", which runs on a CPU alone.

    Returns:
        The encoder.

    Raises:
        InputError: The name is unknown, or the weights cannot be fetched or do not fit.
    """
    # Networks of fixed input size (ViTs, for instance) are built for the crop size; the others take any.
    options = {"img_size": crop_size} if weights.has_fixed_input_size(name) else {}
    network = weights.load(name, weights_file, num_classes=0, **options).eval().to(device)
    network = network.to(memory_format=torch.channels_last)
    if precision == "float32":  # in bfloat16 folded weights would move embeddings further
        network = with_folded_batch_norms(network, torch.float32)
    mean, std = (
        torch.tensor(values, device=device).reshape(1, 3, 1, 1) * 255 for values in get_pixel_statistics(network)
    )
    encoder = Encoder(network, crop_size, mean, std, precision)
    if inference == "openvino" and device.type == "cpu":
        noise = torch.randint(0, 256, (1, 3, crop_size, crop_size), generator=torch.Generator().manual_seed(0))
        as_network = _EncodedCrops(encoder).eval()
        encoder.accelerated = compile_by_openvino(as_network, noise.to(torch.uint8), precision, True, name)
    return encoder


class _EncodedCrops(nn.Module):
    """An encoder as a network: crops (N, 3, S, S) uint8 to embeddings (N, D) float32."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.network, self.has_class_token = encoder.network, encoder.has_class_token
        self.mean, self.std = encoder.mean, encoder.std

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        return _take_rows(self.network, self.has_class_token, (crops.float() - self.mean) / self.std)


def _take_rows(network: nn.Module, has_class_token: bool, normalised: torch.Tensor) -> torch.Tensor:
    """Compute embeddings (N, D): the CLS token of a ViT, else the pooled features."""
    forward: Any = network.forward_features if has_class_token else network
    rows: torch.Tensor = forward(normalised)
    return rows[:, 0] if has_class_token else rows


@dataclass(frozen=True)
class PatchFeatures:
    """Features of N images from one pass of a network, each image a grid of h x w patches; all float32.

    Convolutional networks have no attention: there `cls` is the mean of the features over the image, `keys` are the
    features minus that mean (without which all patches are alike), and `attention` has no heads.

    Attributes:
        cls: (N, D), the CLS token of the last layer.
        patches: (N, h, w, D), its other tokens.
        keys: (N, h, w, D), the keys of the patches in the last layer's attention.
        attention: (N, heads, h, w), the weights in [0, 1] with which the CLS token attends to them in that layer.
    """

    cls: torch.Tensor
    patches: torch.Tensor
    keys: torch.Tensor
    attention: torch.Tensor


class PatchEncoder:
    """A pretrained network that turns images into `PatchFeatures`, in one forward pass.

    `patch_size`: pixels per patch; sides of images must be multiples of it.
    """

    def __init__(self, network: nn.Module, patch_size: int, mean: torch.Tensor, std: torch.Tensor, precision: str):
        self.network = network
        self.patch_size = patch_size
        self.mean, self.std = mean, std  # (1, 3, 1, 1), of pixels in [0, 255]
        self.precision = precision
        self.is_transformer = hasattr(network, "num_prefix_tokens")
        # Networks that turn queries and keys by their places (DINOv3) do so where no hook looks.
        self.has_attention = self.is_transformer and getattr(network, "rope", None) is None
        self._projected: list[torch.Tensor] = []  # queries, keys and values of the last layer
        if self.is_transformer:  # once: what is compiled cannot do it
            self._attention_layer = network.blocks[-1].attn  # type: ignore[index, union-attr]
            self._attention_layer.qkv.register_forward_hook(lambda _, __, output: self._projected.append(output))

    def __call__(self, images: torch.Tensor) -> PatchFeatures:
        """Encode images (N, 3, H, W) uint8, on any device."""
        pixels = move_to_device(images, self.mean.device).to(torch.float32, memory_format=torch.channels_last)
        return self.encode_normalised((pixels - self.mean) / self.std)

    @torch.inference_mode()
    def encode_normalised(self, normalised: torch.Tensor) -> PatchFeatures:
        """Encode images (N, 3, H, W) float32, normalised as in the network's training."""
        with use_precision(self.mean.device, self.precision):
            if self.is_transformer:
                return self._run_transformer(normalised)
            features = self.network(normalised)[-1].float().permute(0, 2, 3, 1)
        none = features.new_empty((len(features), 0, *features.shape[1:3]))
        mean = features.mean(dim=(1, 2))
        return PatchFeatures(mean, features, features - mean[:, None, None], none)

    def _run_transformer(self, normalised: torch.Tensor) -> PatchFeatures:
        attention_layer = self._attention_layer
        self._projected.clear()  # left by a pass that ran out of memory
        tokens = self.network.forward_features(normalised).float()  # type: ignore[operator]
        projected = self._projected.pop().float()
        grid = [side // self.patch_size for side in normalised.shape[-2:]]
        prefix, heads = int(self.network.num_prefix_tokens), int(attention_layer.num_heads)  # type: ignore[arg-type]
        queries, keys, _ = projected.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)  # (N, heads, tokens, D')
        patch_keys = keys[:, :, prefix:].transpose(1, 2).flatten(2).unflatten(1, grid)
        attention = keys.new_empty((len(keys), 0, *grid))
        if self.has_attention:
            queries, keys = attention_layer.q_norm(queries), attention_layer.k_norm(keys)
            weights_of_cls = (queries[:, :, :1] @ keys.transpose(2, 3) * attention_layer.scale).softmax(3)[:, :, 0]
            attention = weights_of_cls[:, :, prefix:].unflatten(2, grid)
        return PatchFeatures(tokens[:, 0], tokens[:, prefix:].unflatten(1, grid), patch_keys, attention)


def load_patch_encoder(name: str, weights_file: str, precision: str, device: torch.device) -> PatchEncoder:
    """Load an encoder of images of any size. A ViT's position embedding is resampled to each size.

    Args:
        name: `efficientnet-lite0` or any timm name.
        weights_file: Checkpoint to load instead of the published one; "" for the published one.
        precision: "float32" or "bf16" (autocast).
        device: Where the network runs.

    Returns:
        The encoder.

    Raises:
        InputError: The name is unknown, the weights cannot be fetched or do not fit, or the network has no grid of
            features.
    """
    if weights.has_fixed_input_size(name):
        network = weights.load(name, weights_file, num_classes=0, dynamic_img_size=True)
        if not hasattr(network, "num_prefix_tokens") or not hasattr(network.blocks[-1].attn, "qkv"):
            raise InputError(
                f"{name} is no plain ViT, whose patches can be looked at; give one, or a convolutional net."
            )
        patch_size = network.patch_embed.patch_size[0]
    else:
        patch_size = _STRIDE
        network = weights.load(name, weights_file, features_only=True, out_indices=(-1,), output_stride=_STRIDE)
    network = network.eval().to(device).to(memory_format=torch.channels_last)
    network = with_folded_batch_norms(network, torch.float32)
    mean, std = (
        torch.tensor(values, device=device).reshape(1, 3, 1, 1) * 255 for values in get_pixel_statistics(network)
    )
    return PatchEncoder(network, patch_size, mean, std, precision)


def get_pixel_statistics(network: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Get the mean and standard deviation per channel, of pixels in [0, 1], that the network's weights expect."""
    configuration = network.pretrained_cfg
    return configuration["mean"], configuration["std"]  # type: ignore[index, return-value]
