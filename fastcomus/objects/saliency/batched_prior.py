"""The background prior (see `background_prior.py`) for a batch of images at once, in torch, on any device.

Different from the method on one image, so that all images of a batch have arrays of one shape:
- images are stretched to one square, on which superpixels begin as a grid; distances are those on the square, so
  that superpixels of a wide image are wide.
- sums over the pixels of a superpixel are of whole numbers, whose order changes nothing: the map of an image depends
  neither on its batch nor on what a device adds first.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from fastcomus.backends.interface import Image
from fastcomus.backends.machine import move_to_device
from fastcomus.objects.saliency.background_prior import BackgroundPrior
from fastcomus.objects.saliency.prior_images import LINEAR, XYZ_OF_RGB
from fastcomus.objects.saliency.proposer import choose_images_per_pass, resize_to_square

_CELLS = 17  # superpixels along a side: 289
_CELL_PX = 16
_SIDE = _CELLS * _CELL_PX
_ROUNDS = 5  # of assigning pixels to superpixels
_UNIT = 2.0**-16  # of whole numbers that are summed up
_AROUND = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]


class BatchedBackgroundPrior:
    """A `NetworkProposer` of one map per image, which depends on that image alone.

    Args:
        device: Where maps are computed.
        prior: The numbers of the method.
    """

    needs_host_pixels = False

    def __init__(self, device: torch.device, prior: BackgroundPrior | None = None) -> None:
        self.device, self.prior = device, prior or BackgroundPrior()
        self.batch = choose_images_per_pass(device)
        self._linear = torch.from_numpy(LINEAR).to(device)
        self._xyz_of_rgb = torch.from_numpy(XYZ_OF_RGB).to(device)

    def prepare(self, pixels: Image) -> torch.Tensor:
        """See `NetworkProposer.prepare`: (3, S, S) uint8."""
        return resize_to_square(pixels, _SIDE)

    @torch.inference_mode()
    def propose(self, prepared: torch.Tensor) -> list[torch.Tensor]:
        """See `NetworkProposer.propose`."""
        features = self._build_features(move_to_device(prepared, self.device))
        labels = _assign_superpixels(features)
        saliency = self._compute_saliency(features, labels)
        maps = saliency.gather(1, labels.flatten(1)).view(len(labels), 1, _SIDE, _SIDE)
        return list(_stretch(_smooth(maps.float(), self.prior.smoothing * _SIDE)))

    def _build_features(self, images: torch.Tensor) -> torch.Tensor:
        """Features (B, 5, S, S) whose squared differences SLIC adds: CIELAB over compactness, places over the step."""
        linear = self._linear[images.long()].movedim(1, -1)
        xyz = linear @ self._xyz_of_rgb.T
        f = torch.where(xyz > 0.008856, xyz.clamp(min=1e-9) ** (1 / 3), 7.787 * xyz + 16.0 / 116.0)
        x, y, z = f.unbind(-1)
        lab = torch.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], dim=1) / self.prior.compactness
        places = (torch.arange(_SIDE, device=self.device) + 0.5) / _CELL_PX
        grid = torch.stack(torch.meshgrid(places, places, indexing="ij"))
        return torch.cat([lab, grid.expand(len(lab), -1, -1, -1)], dim=1)

    def _compute_saliency(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the saliency (B, N) float64 in [0, 1] of superpixels, as `BackgroundPrior` does."""
        prior = self.prior
        means, counts = _compute_means(features, labels)
        is_used = counts > 0
        both = is_used[:, :, None] & is_used[:, None]
        colour = _compute_distances(means[:, :3]) * prior.compactness * both
        near = torch.exp(_compute_distances(means[:, 3:] / _CELLS) ** 2 / (-2 * prior.sigma_spatial**2))
        touching, on_border = _find_touching(labels)
        linked = (touching | (on_border[:, :, None] & on_border[:, None])).logical_and_(~_make_diagonal(labels.device))
        belonging = torch.exp(_find_shortest_paths(colour, linked).double() ** 2 / (-2 * prior.sigma_colour**2)) * both
        connectivity = (belonging * on_border[:, None]).sum(2) / belonging.sum(2).clamp(min=1e-12).sqrt()
        background = (1 - torch.exp(connectivity**2 / (-2 * prior.sigma_boundary**2))) * is_used
        foreground = _stretch_used((colour * near) @ background[:, :, None], is_used)
        joined = linked | _find_two_steps(touching) if prior.second_neighbours else linked
        smoothness = (torch.exp(colour**2 / (-2 * prior.sigma_colour**2)) + prior.mu) * (joined & both)
        diagonal = prior.background_weight * background + foreground + smoothness.sum(2) + 1e-9 + ~is_used
        factor = torch.linalg.cholesky_ex(torch.diag_embed(diagonal) - smoothness).L
        optimum = torch.cholesky_solve(foreground[:, :, None], factor)
        return torch.where(foreground.any(1, keepdim=True), _stretch_used(optimum, is_used), 0)


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


def _compute_distances(points: torch.Tensor) -> torch.Tensor:
    """Compute the Euclidean distances (B, N, N) of points (B, C, N)."""
    return (points[:, :, :, None] - points[:, :, None]).square().sum(1).sqrt()


def _find_touching(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find which superpixels share the edge of a pixel, (B, N, N) bool, and which are on the border, (B, N) bool."""
    count = _CELLS**2
    touching = torch.zeros((len(labels), count * count), dtype=torch.bool, device=labels.device)
    for one, other in ((labels[:, :, :-1], labels[:, :, 1:]), (labels[:, :-1], labels[:, 1:])):
        touching.scatter_(1, (one * count + other).flatten(1), True)
    touching = touching.view(-1, count, count)
    touching = (touching | touching.mT) & ~_make_diagonal(labels.device)
    border = torch.cat([labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]], dim=1)
    on_border = torch.zeros((len(labels), count), dtype=torch.bool, device=labels.device)
    return touching, on_border.scatter_(1, border, True)


def _make_diagonal(device: torch.device) -> torch.Tensor:
    return torch.eye(_CELLS**2, dtype=torch.bool, device=device)


def _find_two_steps(touching: torch.Tensor) -> torch.Tensor:
    """Find neighbours and neighbours of neighbours, (B, N, N) bool."""
    steps = touching.float()
    return (touching | (steps @ steps > 0)) & ~_make_diagonal(touching.device)


def _find_shortest_paths(distances: torch.Tensor, linked: torch.Tensor) -> torch.Tensor:
    """Find the least sums of distances along links, (B, N, N) float32, by Floyd and Warshall."""
    paths = torch.where(linked, distances.float(), torch.inf)
    paths.masked_fill_(_make_diagonal(paths.device), 0)
    for k in range(paths.shape[1]):
        torch.minimum(paths, paths[:, :, k, None] + paths[:, k, None], out=paths)
    return paths


def _stretch_used(values: torch.Tensor, is_used: torch.Tensor) -> torch.Tensor:
    """Map values (B, N, 1) of the superpixels in use linearly to [0, 1], (B, N); the others, and equal values, to 0."""
    values = values[:, :, 0]
    low = values.masked_fill(~is_used, torch.inf).amin(1, keepdim=True)
    high = values.masked_fill(~is_used, -torch.inf).amax(1, keepdim=True)
    return torch.where(is_used & (high - low >= 1e-4), (values - low) / (high - low).clamp(min=1e-4), 0)


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


def _stretch(maps: torch.Tensor) -> torch.Tensor:
    """Stretch maps (B, 1, S, S) to [0, 1]; of one value: zeros."""
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return torch.where(high - low >= 1e-4, (maps - low) / (high - low).clamp(min=1e-4), 0)
