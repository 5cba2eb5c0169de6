"""What every saliency method is: a proposer of maps, image by image or a batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from fastcomus.backends.decoded_images import resize_planes
from fastcomus.backends.interface import Image

Proposer = Callable[[str, np.ndarray], np.ndarray]


class NetworkProposer(Protocol):
    """A method that looks at a batch of images at once. `batch`: how many."""

    @property
    def batch(self) -> int: ...

    @property
    def needs_host_pixels(self) -> bool:
        """Whether `prepare` looks at pixels in host memory, instead of where they are."""

    def prepare(self, pixels: Image) -> torch.Tensor:
        """What the network sees of an image (H, W, 3) uint8; called from several threads."""

    def propose(self, prepared: torch.Tensor) -> list[torch.Tensor]:
        """For every image of a stacked batch, maps (M, h, w) on the network's device: float32 in [0, 1], or masks as
        bool. h and w are those of every map.
        """


def choose_images_per_pass(device: torch.device) -> int:
    """How many images a network that looks for objects sees at once."""
    return 32 if device.type == "cuda" else 8


def resize_to_square(pixels: Image, side: int) -> torch.Tensor:
    """An image (H, W, 3) uint8 stretched to the square that a network sees: (3, side, side) uint8, on its device."""
    return resize_planes(pixels, [side, side]).contiguous()
