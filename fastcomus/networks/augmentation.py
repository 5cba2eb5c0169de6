"""Images and their class maps to training batches: random resized crops, mirrored half of the time (step 9)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from fastcomus.backends.read_ahead import read_ahead

ReadSample = Callable[[int], tuple[np.ndarray, np.ndarray]]
_ASPECT = (3 / 4, 4 / 3)


class CropScale(Protocol):
    """Smallest and largest area of a crop, as shares of the image's."""

    @property
    def scale_min(self) -> float:
        """Smallest share."""

    @property
    def scale_max(self) -> float:
        """Largest share."""


@dataclass(frozen=True)
class Epoch:
    """An order of all images, cut into batches. `batches`: index arrays. `seeds`: of each image's crop, by index."""

    batches: list[np.ndarray]
    seeds: np.ndarray


def shuffle_epoch(count: int, batch_size: int, seed: int, epoch: int, least: int = 2) -> Epoch:
    """Every image once, in an order that (seed, epoch) decides.

    A last batch of fewer than `least` images joins the one before it: batch statistics need two, and each of several
    processes needs one.
    """
    rng = np.random.default_rng([seed, epoch])
    starts = compute_batch_starts(count, batch_size, least)
    return Epoch(np.split(rng.permutation(count), starts[1:]), rng.integers(2**63, size=count))


def compute_batch_starts(count: int, batch_size: int, least: int = 2) -> list[int]:
    """Where each batch starts; see `shuffle_epoch`."""
    starts = list(range(0, count, batch_size))
    return starts[:-1] if len(starts) > 1 and count - starts[-1] < least else starts


def augment_batches(
    read: ReadSample,
    batches: Sequence[np.ndarray],
    seeds: np.ndarray,
    config: CropScale,
    side: int,
    workers: int,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Read and augment batches in threads ahead of the network; see `augment`.

    Yields:
        Images (N, 3, S, S) uint8 and labels (N, S, S) int64 of every batch, S = `side`.
    """

    def sample(index: int) -> tuple[torch.Tensor, torch.Tensor]:
        pixels, class_map = read(index)
        return augment(pixels, class_map, config, side, np.random.default_rng(seeds[index]))

    samples = read_ahead(sample, (int(index) for batch in batches for index in batch), workers)
    for batch in batches:
        images, labels = zip(*(next(samples) for _ in batch), strict=True)
        yield torch.stack(images), torch.stack(labels)


def augment(
    pixels: np.ndarray, class_map: np.ndarray, config: CropScale, side: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """A random resized crop, mirrored half of the time: (3, S, S) uint8 and (S, S) int64, S = `side`.

    The crop covers `scale_min` to `scale_max` of the image's area at an aspect ratio (width to height) of 3/4 to 4/3;
    where ten draws do not fit, it is the largest such window that does, anywhere along the longer side. This is
    torchvision's RandomResizedCrop, whose window is then in the middle; in a scale range of [0.5, 2], shares above 1
    never fit, so that about half of the draws are repeated.
    """
    height, width = class_map.shape
    x, y, w, h = _draw_crop_window(width, height, config, rng)
    size = [side, side]
    planes = torch.from_numpy(np.require(pixels[y : y + h, x : x + w], requirements="W")).permute(2, 0, 1)[None]
    labels = torch.from_numpy(class_map[y : y + h, x : x + w].astype(np.int32))[None, None]
    image = transforms.resize(planes, size, antialias=True)[0]
    target = transforms.resize(labels, size, interpolation=InterpolationMode.NEAREST_EXACT)[0, 0].long()
    if rng.random() < 0.5:
        image, target = image.flip(-1), target.flip(-1)
    return image.contiguous(), target.contiguous()


def _draw_crop_window(
    width: int, height: int, config: CropScale, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    for _ in range(10):
        area = width * height * rng.uniform(config.scale_min, config.scale_max)
        aspect = math.exp(rng.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h
    # None fitted: the largest window of an allowed shape, anywhere along the longer side.
    w, h = min(width, round(height * _ASPECT[1])), min(height, round(width / _ASPECT[0]))
    return int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h
