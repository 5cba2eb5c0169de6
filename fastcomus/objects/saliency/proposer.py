"""The interface of saliency methods: proposers of maps, for one image or for a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from fastcomus.backends.interface import Image
from fastcomus.backends.read_ahead import resize_planes

Proposer = Callable[[str, np.ndarray], np.ndarray]
"""A method without a network: `proposer(name, pixels)`, called by several threads at once.

It takes the image's name, which the methods that compute do not use, and its pixels (H, W, 3) uint8 RGB, H and W at
least 1. It returns saliency (M, H, W) float32 in [0, 1], or masks (M, H, W) bool. The priors return one map, whose
largest value at working size is 1 and smallest 0; an image of one colour gives zeros. It raises InputError for pixels
that are no such image.
"""


class NetworkProposer(Protocol):
    """A method with a network, which takes a batch of images."""

    @property
    def batch(self) -> int:
        """Number of images in a full batch."""

    @property
    def needs_host_pixels(self) -> bool:
        """Whether `prepare` needs pixels in host memory; otherwise it takes them on any device."""

    def prepare(self, pixels: Image) -> torch.Tensor:
        """Make the network's input, of one shape for all images (H, W, 3) uint8; called from several threads."""

    def propose(self, prepared: torch.Tensor) -> list[torch.Tensor]:
        """Find the objects of a batch: what `prepare` returned, stacked.

        Returns:
            Maps (M, h, w) per image on the network's device, float32 in [0, 1] or bool; h and w are all equal.
        """


def choose_images_per_pass(device: torch.device) -> int:
    """Return the number of images that a network proposer takes at once on a device."""
    return 32 if device.type == "cuda" else 8


def resize_to_square(pixels: Image, side: int) -> torch.Tensor:
    """Stretch an image (H, W, 3) uint8 to the square (3, side, side) that a network sees, on the same device."""
    return resize_planes(pixels, [side, side]).contiguous()


def stretch_maps(maps: torch.Tensor, least: float = 1e-4) -> torch.Tensor:
    """Stretch each map of (N, 1, H, W) to [0, 1]; one whose values range over less than `least` becomes zeros."""
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return torch.where(high - low < least, 0, (maps - low) / (high - low).clamp(min=least))
