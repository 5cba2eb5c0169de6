"""Minimum barrier saliency (see `minimum_barrier.py`) for a batch of images at once, in torch, on any device.

Different from the method on one image: images are squares of one size, smaller than they are there; barriers spread
along whole rows and columns, one after the other, in four directions, instead of pixel by pixel; objects are made
uniform by steps to the four neighbours until nothing changes.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from fastcomus.objects.saliency.minimum_barrier import MinimumBarrier
from fastcomus.objects.saliency.proposer import stretch_maps

_ROUNDS = 2  # in each of the four directions
_STEPS = 32  # to neighbours, between looks at whether anything changed


def compute_barrier_maps(lab: torch.Tensor, method: MinimumBarrier) -> torch.Tensor:
    """Compute maps (B, 1, S, S) float32 in [0, 1] of squares (B, 3, S, S) float32 CIELAB, by a method's numbers."""
    saliency = _to_one(_compute_barriers(lab).sum(1, keepdim=True))
    if method.backgroundness:
        saliency = _to_one(saliency + _to_one(_compute_border_distances(lab, method.border_width)))
    widths = (method.smoothing * lab.shape[-1] * saliency.mean((1, 2, 3)).sqrt()).round().int().cpu().tolist()
    eroded = [-_enlarge_spots(-one[None], width, width // 2) for one, width in zip(saliency, widths, strict=True)]
    opened = _reconstruct(torch.cat(eroded), saliency)
    dilated = [_enlarge_spots(one[None], width, (width - 1) // 2) for one, width in zip(opened, widths, strict=True)]
    saliency = _to_one(-_reconstruct(-torch.cat(dilated), -opened))
    is_flat = saliency.amax((1, 2, 3), keepdim=True) == 0
    steep = 1 / (1 + torch.exp(-method.contrast * (saliency - 0.5)))
    return stretch_maps(torch.where(is_flat, 0, steep))


def _compute_barriers(values: torch.Tensor) -> torch.Tensor:
    """Compute the lowest barrier found of paths from the border to each pixel, for values (B, 3, S, S) alone."""
    distance = torch.full_like(values, torch.inf)
    for side in (distance[..., 0], distance[..., -1], distance[..., 0, :], distance[..., -1, :]):
        side.zero_()
    state = [distance, values.clone(), values.clone()]
    for _ in range(_ROUNDS):
        _extend_paths(values, state)
        _extend_paths(values.mT, [one.mT for one in state])
    return distance


def _extend_paths(values: torch.Tensor, state: list[torch.Tensor]) -> None:
    """Let paths go on from row to row, down and then up; `state`: lowest barriers, and the paths' extremes."""
    distance, highest, lowest = state
    rows = range(1, values.shape[2] - 1)
    for behind, order in ((-1, rows), (1, reversed(rows))):
        for row in order:
            own = values[:, :, row]
            high = torch.maximum(highest[:, :, row + behind], own)
            low = torch.minimum(lowest[:, :, row + behind], own)
            barrier = high - low
            is_lower = barrier < distance[:, :, row]
            for target, new in ((distance, barrier), (highest, high), (lowest, low)):
                target[:, :, row] = torch.where(is_lower, new, target[:, :, row])


def _compute_border_distances(lab: torch.Tensor, border_width: float) -> torch.Tensor:
    """Add up the Mahalanobis distances (B, 1, S, S) to the border strips' colours, all but the largest."""
    width = max(1, round(border_width * lab.shape[-1]))
    distances = []
    for strip in (lab[:, :, :width], lab[:, :, -width:], lab[..., :width], lab[..., -width:]):
        colours = strip.flatten(2).double()
        mean = colours.mean(2, keepdim=True)
        covariance = (colours - mean) @ (colours - mean).mT / colours.shape[2] + torch.eye(3).to(colours)
        away = lab.flatten(2) - mean.float()
        squared = (away * (torch.linalg.inv(covariance).float() @ away)).sum(1).clamp(min=0)
        distances.append(_to_one(squared.sqrt().view(len(lab), 1, *lab.shape[2:])))
    together = torch.cat(distances, dim=1)
    return together.sum(1, keepdim=True) - together.amax(1, keepdim=True)


def _to_one(values: torch.Tensor) -> torch.Tensor:
    """Divide maps (B, 1, S, S), not negative, by the largest value of each; zeros if all are 0 up to rounding."""
    greatest = values.amax((1, 2, 3), keepdim=True)
    return torch.where(greatest > 1e-3, values / greatest.clamp(min=1e-3), 0)


def _enlarge_spots(maps: torch.Tensor, width: int, before: int) -> torch.Tensor:
    """Take the largest value in a square window of (1, 1, S, S) that begins so many pixels before each of them."""
    if width < 2:  # nothing is as narrow
        return maps
    padded = functional.pad(maps, (before, width - 1 - before) * 2, mode="replicate")
    return functional.max_pool2d(functional.max_pool2d(padded, (width, 1), 1), (1, width), 1)


def _reconstruct(marker: torch.Tensor, ceiling: torch.Tensor) -> torch.Tensor:
    """Let a marker (B, 1, S, S) spread to the four neighbours under a ceiling, until nothing changes."""
    flooded = torch.minimum(marker, ceiling)
    while True:
        before = flooded
        for _ in range(_STEPS):
            down = functional.max_pool2d(flooded, (3, 1), 1, (1, 0))
            across = functional.max_pool2d(flooded, (1, 3), 1, (0, 1))
            flooded = torch.minimum(torch.maximum(down, across), ceiling)
        if torch.equal(before, flooded):
            return flooded
