"""What the objects of many photographs have in common: a direction in the features of a pretrained network.

A prior looks at one photograph alone, and takes ground and walls along where they stand out there. Features that rise
where the priors' maps do, over many photographs, are features of objects; a place without them is background that one
prior took for an object. The direction is that of the largest covariance with the maps, the first component of partial
least squares (S. Wold et al., "PLS-regression: a basic tool of chemometrics", 2001). It has nothing to tune, and ten
photographs are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fastcomus.backends.read_ahead import read_ahead
from fastcomus.errors import InputError
from fastcomus.networks import weights
from fastcomus.networks.cpu_shortcuts import use_cpu_shortcuts
from fastcomus.networks.encoders import get_pixel_statistics
from fastcomus.networks.folded_batch_norm import with_folded_batch_norms
from fastcomus.networks.precision import choose_precision, use_precision
from fastcomus.objects.saliency.proposer import choose_images_per_pass, resize_to_square, stretch_maps

SIDE = 256  # pixels of the squares in which features are computed; 320 finds no better
_STRIDE = 16  # pixels a feature; those of deeper layers know less of where things are
_MARGIN = _STRIDE  # pixels mirrored around an image: what networks see at a border else tells borders, not things
_FLAT = 1e-6  # a map or feature with a smaller range tells nothing

ReadPixels = Callable[[int], np.ndarray]
ReadMap = Callable[[int], np.ndarray]


class FeatureGrid:
    """The first layers of a pretrained backbone: images to grids of features.

    Args:
        backbone: Its name.
        device: Where it runs.
        precision: "float32", "bf16" or "auto".

    Raises:
        InputError: Its weights are not available, or no layer has a feature for 16 pixels.
    """

    def __init__(self, backbone: str, device: torch.device, precision: str) -> None:
        self.backbone = backbone
        network = weights.load(backbone, features_only=True)
        reductions = network.feature_info.reduction()
        if _STRIDE not in reductions:
            raise InputError(
                f"{backbone} has no layer with a feature for {_STRIDE} pixels; choose another --refine-backbone, or "
                "go without --common-features."
            )
        self.layer = reductions.index(_STRIDE)
        self.channels = network.feature_info.channels()[self.layer]
        if hasattr(network, "blocks") and all(one["module"].startswith("blocks.") for one in network.feature_info.info):
            last = int(network.feature_info.info[self.layer]["module"].split(".")[1])
            network.blocks = nn.Sequential(*list(network.blocks)[: last + 1])  # deeper ones are not looked at
        self.mean, self.std = (
            torch.tensor(values, device=device).reshape(1, 3, 1, 1) * 255 for values in get_pixel_statistics(network)
        )
        network = network.eval().to(device).to(memory_format=torch.channels_last)
        self.network = with_folded_batch_norms(network, torch.float32)
        self.device = device
        self.precision = choose_precision(precision, device)

    @torch.inference_mode()
    def compute(self, images: torch.Tensor) -> torch.Tensor:
        """Compute features (N, h, w, C) float32 of squares (N, 3, s, s) uint8 on the device."""
        pixels = images.float()
        if images.shape[-1] != SIDE:
            pixels = functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)
        wide = functional.pad((pixels - self.mean) / self.std, (_MARGIN,) * 4, mode="reflect")
        wide = wide.to(memory_format=torch.channels_last)
        with use_precision(self.device, self.precision), use_cpu_shortcuts(self.device):
            features = self.network(wide)[self.layer].float()
        beside = _MARGIN // _STRIDE
        return features[:, :, beside:-beside, beside:-beside].permute(0, 2, 3, 1)


class CommonFeatures:
    """Weighs saliency maps by how much each place looks like what the maps of many photographs find.

    Args:
        grid: Computes the features.
        direction: (C,) float32, their weights.
    """

    def __init__(self, grid: FeatureGrid, direction: torch.Tensor) -> None:
        self.grid, self.direction = grid, direction.to(grid.device)

    def weigh(self, images: torch.Tensor, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Multiply maps by what is common, and stretch them.

        Args:
            images: (N, 3, s, s) uint8, on the device.
            maps: One or several of each image, (N, 1, S, S) float32, at least 0.

        Returns:
            As many, (N, 1, S, S) float32 in [0, 1].
        """
        likeness = self.grid.compute(images) @ self.direction
        return [multiply_maps(one, likeness) for one in maps]


def multiply_maps(maps: torch.Tensor, likeness: torch.Tensor) -> torch.Tensor:
    """Multiply maps (N, 1, S, S) by likenesses (N, h, w) of any range, both stretched to [0, 1]; so is the result.

    A likeness or a map that is flat everywhere changes nothing.
    """
    small = stretch_maps(likeness[:, None], _FLAT)
    small = torch.where(small.amax((2, 3), keepdim=True) > 0, small, 1)
    wide = functional.interpolate(small, maps.shape[2:], mode="bilinear")
    return stretch_maps(stretch_maps(maps, _FLAT) * wide, _FLAT)


def fit_common_features(
    grid: FeatureGrid, read: ReadPixels, read_map: ReadMap, count: int, workers: int, on_images: Callable[[int], None]
) -> CommonFeatures:
    """Find the direction that the maps of many photographs have in common.

    Args:
        grid: Computes the features.
        read: Returns the pixels (H, W, 3) uint8 of an image by its index; called from several threads.
        read_map: Returns its map (1, L, L) uint8.
        count: Number of images.
        workers: Number of threads.
        on_images: Called with the number of images in each step.

    Returns:
        The direction, and what weighs maps by it.
    """
    together = squares = sums = torch.zeros(1, dtype=torch.float64, device=grid.device)
    places = 0
    for features, indices in _iterate_features(grid, read, count, workers):
        maps = torch.from_numpy(np.stack([read_map(index) for index in indices])).to(grid.device).float()
        small = functional.interpolate(stretch_maps(maps, _FLAT), features.shape[1:3], mode="area")[:, 0]
        # Not what one image has more of than another, but what its objects have more of than their surroundings.
        small = (small - small.mean((1, 2), keepdim=True)).double()
        rows = features.double()
        together = together + torch.einsum("nhw,nhwc->c", small, rows)
        sums, squares = sums + rows.sum((0, 1, 2)), squares + (rows**2).sum((0, 1, 2))
        places += small.numel()
        on_images(len(indices))
    variance = squares / places - (sums / places) ** 2
    direction = torch.where(variance > _FLAT * variance.mean(), together / variance, 0)
    length = torch.linalg.vector_norm(direction)
    return CommonFeatures(grid, (direction / length.clamp(min=torch.finfo(torch.float64).tiny)).float())


def compute_likenesses(
    common: CommonFeatures, read: ReadPixels, count: int, workers: int, on_images: Callable[[int], None]
) -> torch.Tensor:
    """Compute how much each place of `count` images looks like what is common, (N, h, w) float32 on the host."""
    made = []
    for features, indices in _iterate_features(common.grid, read, count, workers):
        made.append((features @ common.direction).cpu())
        on_images(len(indices))
    return torch.cat(made)


def _iterate_features(
    grid: FeatureGrid, read: ReadPixels, count: int, workers: int
) -> Iterator[tuple[torch.Tensor, range]]:
    """Yield the features of a batch of images, and their indices."""
    batch = choose_images_per_pass(grid.device)
    images = read_ahead(lambda index: resize_to_square(read(index), SIDE), range(count), workers)
    for start in range(0, count, batch):
        indices = range(start, min(start + batch, count))
        yield grid.compute(torch.stack([next(images) for _ in indices]).to(grid.device)), indices
