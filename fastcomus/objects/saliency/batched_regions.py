"""Superpixels of a batch of images and the graph on them (see `superpixels.py`), in torch, on any device.

Different from those of one image, so that all images of a batch have arrays of one shape: images are stretched to one
square, on which superpixels begin as a grid; distances are those on the square, so that superpixels of a wide image are
wide. Sums over the pixels of a superpixel are of whole numbers, whose order changes nothing: what is measured in an
image depends neither on its batch nor on what a device adds first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from fastcomus.objects.saliency.proposer import stretch_maps

_CELLS = 17  # superpixels along a side: 289
_CELL_PX = 16
SIDE = _CELLS * _CELL_PX  # of the square, in pixels
_ROUNDS = 5  # of assigning pixels to superpixels
_UNIT = 2.0**-16  # of whole numbers that are summed up
_AROUND = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]


@dataclass(frozen=True)
class BatchedRegions:
    """N superpixels of each of B images; those that have no pixels are not in use.

    `labels`: (B, S, S) int64. `is_used`: (B, N). `both`: (B, N, N), whether both are. `colour`: (B, N, N) float64,
    distances of mean CIELAB colours, 0 unless both are in use. `places`: (B, 2, N) float64, mean y and x as fractions.
    `touching`, `linked`: (B, N, N), and `on_border`: (B, N), as in `Regions`.
    """

    labels: torch.Tensor
    is_used: torch.Tensor
    both: torch.Tensor
    colour: torch.Tensor
    places: torch.Tensor
    touching: torch.Tensor
    linked: torch.Tensor
    on_border: torch.Tensor


def measure_batched_regions(lab: torch.Tensor, compactness: float) -> BatchedRegions:
    """Cut images into superpixels and measure these.

    Args:
        lab: (B, 3, S, S) float32 CIELAB, S = `SIDE`.
        compactness: See `cut_superpixels`.
    """
    places = (torch.arange(SIDE, device=lab.device) + 0.5) / _CELL_PX
    grid = torch.stack(torch.meshgrid(places, places, indexing="ij"))
    # Squared differences of these are what SLIC adds: colours over compactness, places over the step.
    features = torch.cat([lab / compactness, grid.expand(len(lab), -1, -1, -1)], dim=1)
    labels = _assign_superpixels(features)
    means, counts = _compute_means(features, labels)
    is_used = counts > 0
    both = is_used[:, :, None] & is_used[:, None]
    colour = compute_distances(means[:, :3]) * compactness * both
    touching, on_border = _find_touching(labels)
    linked = (touching | (on_border[:, :, None] & on_border[:, None])).logical_and_(~make_diagonal(labels.device))
    return BatchedRegions(labels, is_used, both, colour, means[:, 3:] / _CELLS, touching, linked, on_border)


def compute_distances(points: torch.Tensor) -> torch.Tensor:
    """Compute the Euclidean distances (B, N, N) of points (B, C, N)."""
    return (points[:, :, :, None] - points[:, :, None]).square().sum(1).sqrt()


def make_diagonal(device: torch.device) -> torch.Tensor:
    """Make (N, N) bool, true where a superpixel meets itself."""
    return torch.eye(_CELLS**2, dtype=torch.bool, device=device)


def find_two_steps(touching: torch.Tensor) -> torch.Tensor:
    """Find neighbours and neighbours of neighbours, (B, N, N) bool, without the superpixel itself."""
    steps = touching.float()
    return (touching | (steps @ steps > 0)) & ~make_diagonal(touching.device)


def stretch_used(values: torch.Tensor, is_used: torch.Tensor) -> torch.Tensor:
    """Map values (B, N, 1) of the superpixels in use linearly to [0, 1], (B, N); the others, and equal values, to 0."""
    values = values[:, :, 0]
    low = values.masked_fill(~is_used, torch.inf).amin(1, keepdim=True)
    high = values.masked_fill(~is_used, -torch.inf).amax(1, keepdim=True)
    return torch.where(is_used & (high - low >= 1e-4), (values - low) / (high - low).clamp(min=1e-4), 0)


def draw_maps(saliency: torch.Tensor, regions: BatchedRegions, smoothing: float) -> torch.Tensor:
    """Give every pixel the saliency (B, N) of its superpixel, smoothed and stretched to [0, 1]: (B, 1, S, S) float32.

    `smoothing`: sigma of the Gaussian, as a fraction of the side.
    """
    maps = saliency.gather(1, regions.labels.flatten(1)).view(len(saliency), 1, SIDE, SIDE)
    return stretch_maps(_smooth(maps.float(), smoothing * SIDE))


def _assign_superpixels(features: torch.Tensor) -> torch.Tensor:
    """Assign pixels to the superpixels of their own cell of the grid or of one beside it: labels (B, S, S) int64."""
    cells = torch.arange(_CELLS**2, device=features.device).view(_CELLS, _CELLS)
    labels = _repeat_cells(cells).expand(len(features), -1, -1)
    for _ in range(_ROUNDS):
        means, _ = _compute_means(features, labels)
        centres = functional.pad(means.float().view(len(features), 5, _CELLS, _CELLS), (1, 1, 1, 1), value=torch.inf)
        numbers = functional.pad(cells, (1, 1, 1, 1))
        nearest = torch.full(labels.shape, torch.inf, device=features.device)
        labels = labels.clone()
        for down, right in _AROUND:
            part = slice(1 + down, 1 + down + _CELLS), slice(1 + right, 1 + right + _CELLS)
            distances = (features - _repeat_cells(centres[..., *part])).square().sum(1)
            is_nearer = distances < nearest
            nearest = torch.where(is_nearer, distances, nearest)
            labels = torch.where(is_nearer, _repeat_cells(numbers[part]), labels)
    return labels


def _repeat_cells(cells: torch.Tensor) -> torch.Tensor:
    """Give every pixel its cell's value: (..., cells, cells) to (..., S, S)."""
    return cells.repeat_interleave(_CELL_PX, -2).repeat_interleave(_CELL_PX, -1)


def _compute_means(features: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the mean features (B, 5, N) float64 of the superpixels, and how many pixels (B, N) each has."""
    whole = (features.flatten(2) / _UNIT).round().long()
    places = labels.flatten(1)
    sums = torch.zeros((*whole.shape[:2], _CELLS**2), dtype=torch.int64, device=features.device)
    sums.scatter_add_(2, places[:, None].expand_as(whole), whole)
    counts = torch.zeros_like(sums[:, 0]).scatter_add_(1, places, torch.ones_like(places))
    return sums.double() * _UNIT / counts.clamp(min=1)[:, None], counts


def _find_touching(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find which superpixels share the edge of a pixel, (B, N, N) bool, and which are on the border, (B, N) bool."""
    count = _CELLS**2
    touching = torch.zeros((len(labels), count * count), dtype=torch.bool, device=labels.device)
    for one, other in ((labels[:, :, :-1], labels[:, :, 1:]), (labels[:, :-1], labels[:, 1:])):
        touching.scatter_(1, (one * count + other).flatten(1), True)
    touching = touching.view(-1, count, count)
    touching = (touching | touching.mT) & ~make_diagonal(labels.device)
    border = torch.cat([labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]], dim=1)
    on_border = torch.zeros((len(labels), count), dtype=torch.bool, device=labels.device)
    return touching, on_border.scatter_(1, border, True)


def _smooth(maps: torch.Tensor, sigma: float) -> torch.Tensor:
    """Smooth maps (B, 1, S, S) by a Gaussian."""
    reach = int(4 * sigma + 0.5)
    if not reach:
        return maps
    steps = torch.arange(-reach, reach + 1, device=maps.device, dtype=maps.dtype)
    weights = torch.exp(steps**2 / (-2 * sigma**2))
    weights /= weights.sum()
    padded = functional.pad(maps, (reach,) * 4, mode="replicate")
    return functional.conv2d(functional.conv2d(padded, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
