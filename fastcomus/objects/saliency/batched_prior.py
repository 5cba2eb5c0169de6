"""The priors without weights for a batch of images at once, in torch, on any device: the same methods, on squares.

`background_prior.py`, `absorbing_markov_chain.py` and `minimum_barrier.py` have the methods, `batched_regions.py` and
`batched_barrier.py` what differs from them on one image. The map of an image depends on that image alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from fastcomus.backends.interface import Image
from fastcomus.backends.machine import move_to_device
from fastcomus.objects.saliency.absorbing_markov_chain import AbsorbingMarkovChain
from fastcomus.objects.saliency.background_prior import BackgroundPrior
from fastcomus.objects.saliency.batched_barrier import compute_barrier_maps
from fastcomus.objects.saliency.batched_regions import (
    SIDE,
    BatchedRegions,
    compute_distances,
    draw_maps,
    find_two_steps,
    make_diagonal,
    measure_batched_regions,
    stretch_used,
)
from fastcomus.objects.saliency.minimum_barrier import MinimumBarrier
from fastcomus.objects.saliency.prior_images import LINEAR, XYZ_OF_RGB
from fastcomus.objects.saliency.proposer import choose_images_per_pass, resize_to_square


class BatchedPriors:
    """A `NetworkProposer` of one map per image, the mean of some priors' maps.

    Args:
        device: Where maps are computed.
        names: Of priors, as in `config.SALIENCY_PRIORS`.
    """

    needs_host_pixels = False

    def __init__(self, device: torch.device, names: Sequence[str]) -> None:
        self.device, self.names = device, tuple(names)
        self.batch = choose_images_per_pass(device)
        self._linear = torch.from_numpy(LINEAR).to(device)
        self._xyz_of_rgb = torch.from_numpy(XYZ_OF_RGB).to(device)

    def prepare(self, pixels: Image) -> torch.Tensor:
        """See `NetworkProposer.prepare`: (3, S, S) uint8."""
        return resize_to_square(pixels, SIDE)

    @torch.inference_mode()
    def propose(self, prepared: torch.Tensor) -> list[torch.Tensor]:
        """See `NetworkProposer.propose`."""
        return list(self.compute_mean_maps(move_to_device(prepared, self.device)))

    @torch.inference_mode()
    def compute_mean_maps(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the mean maps (B, 1, S, S) float32 of squares (B, 3, s, s) uint8 of any side, on the device."""
        if images.shape[-1] != SIDE:
            wide = functional.interpolate(images.float(), (SIDE, SIDE), mode="bilinear", antialias=True)
            images = wide.round_().clamp_(0, 255).to(torch.uint8)
        lab = self._convert_to_lab(images)
        maps, background = [], BackgroundPrior()
        if {"background-prior", "absorbing-markov-chain"} & set(self.names):
            regions = measure_batched_regions(lab, background.compactness)
        if "background-prior" in self.names:
            maps.append(draw_maps(_compute_background_saliency(regions, background), regions, background.smoothing))
        if "absorbing-markov-chain" in self.names:
            chain = AbsorbingMarkovChain()
            maps.append(draw_maps(_compute_absorbed_saliency(regions, chain), regions, chain.smoothing))
        if "minimum-barrier" in self.names:
            coarse = compute_barrier_maps(functional.avg_pool2d(lab, 2), MinimumBarrier())
            maps.append(functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear"))
        return torch.stack(maps).mean(0)

    def _convert_to_lab(self, images: torch.Tensor) -> torch.Tensor:
        """Convert (B, 3, S, S) uint8 to CIELAB, float32."""
        linear = self._linear[images.long()].movedim(1, -1)
        xyz = linear @ self._xyz_of_rgb.T
        f = torch.where(xyz > 0.008856, xyz.clamp(min=1e-9) ** (1 / 3), 7.787 * xyz + 16.0 / 116.0)
        x, y, z = f.unbind(-1)
        return torch.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], dim=1)


def _compute_background_saliency(regions: BatchedRegions, prior: BackgroundPrior) -> torch.Tensor:
    """Compute the saliency (B, N) float64 in [0, 1] of superpixels, as `BackgroundPrior` does."""
    is_used, both, colour = regions.is_used, regions.both, regions.colour
    near = torch.exp(compute_distances(regions.places) ** 2 / (-2 * prior.sigma_spatial**2))
    paths = _find_shortest_paths(colour, regions.linked).double()
    belonging = torch.exp(paths**2 / (-2 * prior.sigma_colour**2)) * both
    connectivity = (belonging * regions.on_border[:, None]).sum(2) / belonging.sum(2).clamp(min=1e-12).sqrt()
    background = (1 - torch.exp(connectivity**2 / (-2 * prior.sigma_boundary**2))) * is_used
    foreground = stretch_used((colour * near) @ background[:, :, None], is_used)
    joined = regions.linked | find_two_steps(regions.touching) if prior.second_neighbours else regions.linked
    smoothness = (torch.exp(colour**2 / (-2 * prior.sigma_colour**2)) + prior.mu) * (joined & both)
    diagonal = prior.background_weight * background + foreground + smoothness.sum(2) + 1e-9 + ~is_used
    factor = torch.linalg.cholesky_ex(torch.diag_embed(diagonal) - smoothness).L
    optimum = torch.cholesky_solve(foreground[:, :, None], factor)
    return torch.where(foreground.any(1, keepdim=True), stretch_used(optimum, is_used), 0)


def _compute_absorbed_saliency(regions: BatchedRegions, chain: AbsorbingMarkovChain) -> torch.Tensor:
    """Compute the saliency (B, N) float64 in [0, 1] of superpixels, as `AbsorbingMarkovChain` does."""
    is_used, own = regions.is_used, make_diagonal(regions.colour.device)
    near = find_two_steps(regions.touching)
    affinity = torch.exp(regions.colour / -chain.sigma_colour) * regions.both
    between = torch.where(near | regions.linked, affinity, 0).masked_fill(own, 1)
    ending = torch.where((near | own) & regions.on_border[:, None], affinity, 0).sum(2)
    rows = between.sum(2)
    total = rows + ending + ~is_used
    factor = torch.linalg.cholesky_ex(torch.diag_embed(total) - between).L
    recurrence = torch.where(is_used, (rows * is_used).sum(1, keepdim=True) / rows, 0)
    weights = torch.stack([torch.ones_like(rows), recurrence / recurrence.amax(1, keepdim=True)], dim=2)
    times = torch.cholesky_solve(total[:, :, None] * weights, factor)
    usual, smooth = (stretch_used(one, is_used) for one in times.split(1, dim=2))
    tenth = torch.arange(1, 11, device=usual.device)
    bins = (usual * 10).long().clamp(max=9)
    scores = (torch.minimum(tenth, 11 - tenth)[bins] * is_used).sum(1, keepdim=True) / is_used.sum(1, keepdim=True)
    has_colours = (regions.colour.amax((1, 2)) >= 1e-3)[:, None]
    return torch.where(scores > chain.middling, smooth, usual) * has_colours


def _find_shortest_paths(distances: torch.Tensor, linked: torch.Tensor) -> torch.Tensor:
    """Find the least sums of distances along links, (B, N, N) float32, by Floyd and Warshall."""
    paths = torch.where(linked, distances.float(), torch.inf)
    paths.masked_fill_(make_diagonal(paths.device), 0)
    for k in range(paths.shape[1]):
        torch.minimum(paths, paths[:, :, k, None] + paths[:, k, None], out=paths)
    return paths
