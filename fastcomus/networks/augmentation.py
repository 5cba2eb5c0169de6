"""Make training batches from images and class maps: random resized crops, half of them mirrored (step 9)."""

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
from fastcomus.networks.schedules import compute_batch_starts

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
    """Put all images into a random order, the same for the same (seed, epoch), and cut it into batches.

    Args:
        count: Number of images.
        batch_size: Images per batch.
        seed: Seed of the training.
        epoch: Number of the epoch.
        least: A last batch of fewer images joins the one before it: batch statistics need two, and each of several
            processes needs one.

    Returns:
        The batches, in which every image occurs once.
    """
    rng = np.random.default_rng([seed, epoch])
    starts = compute_batch_starts(count, batch_size, least)
    return Epoch(np.split(rng.permutation(count), starts[1:]), rng.integers(2**63, size=count))


def augment_batches(
    read: ReadSample,
    batches: Sequence[np.ndarray],
    seeds: np.ndarray,
    config: CropScale,
    side: int,
    workers: int,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Read and augment batches in threads ahead of the network; see `augment`.

    Args:
        read: Gives the pixels (H, W, 3) uint8 and the class map (H, W) of an image, by its index.
        batches: Indices of the images of each batch.
        seeds: Seed of each image's crop, by index.
        config: Range of crop areas.
        side: Side S of the crops, in pixels.
        workers: Number of threads.

    Yields:
        Images (N, 3, S, S) uint8 and labels (N, S, S) int64 of every batch.
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
    """Take a random resized crop, mirrored half of the time.

    The crop covers `scale_min` to `scale_max` of the image's area at an aspect ratio (width to height) of 3/4 to 4/3.
    Crops larger than the image are drawn again; after ten failed draws it is the largest window of an allowed shape,
    anywhere along the longer side (torchvision's RandomResizedCrop then takes the middle). In a scale range of
    [0.5, 2] about half of the draws are repeated, because shares above 1 never fit.

    Args:
        pixels: (H, W, 3) uint8.
        class_map: (H, W) integers.
        config: Range of crop areas.
        side: Side S of the result, in pixels.
        rng: Source of the random numbers.

    Returns:
        The image (3, S, S) uint8 and its labels (S, S) int64.
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
