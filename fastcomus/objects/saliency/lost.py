"""LOST: one object per image, grown from the patch that correlates with the fewest others.

O. Siméoni et al., "Localizing Objects with Self-Supervised Transformers and no Labels", BMVC 2021. Two patches
correlate if the inner product of their features is positive; a patch's degree is the number of patches it correlates
with. The background is large and its patches correlate with each other, so the patch of lowest degree probably lies on
an object: it is the seed. Of the k patches of lowest degree, those that correlate with the seed join it. The object is
the connected component around the seed of the patches whose inner products with these sum up to more than 0.

Left open by the paper, or different here:
- of several patches with the lowest degree, the seed is the first in reading order.
- patches with zero features, such as padding, correlate with nothing; they are neither the seed nor among the k.
- if all patches correlate with each other there is no background, hence no object.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from fastcomus.errors import InputError

# Memory for the correlations of the images processed at once; on a CPU they should fit into its cache.
_CPU_BYTES = 1 << 24
_GPU_BYTES = 1 << 31


@dataclass(frozen=True)
class Lost:
    """The objects of B images of H x W patches; without an object, box 0 0 0 0 and an empty mask."""

    seeds: torch.Tensor  # (B,) int64, y * W + x
    boxes: torch.Tensor  # (B, 4) int64, x0 y0 x1 y1 in patches, x1 and y1 exclusive
    masks: torch.Tensor  # (B, H, W) bool, one connected component that holds the seed, or empty


@torch.no_grad()
def run_lost(features: torch.Tensor, most_similar: int = 100) -> Lost:
    """Find one object per image, on the device of `features`.

    Args:
        features: (B, H, W, C) floating point, the keys of the patches in the last attention layer, not normalised.
        most_similar: k, the number of patches of lowest degree among which the seed is expanded.
    """
    check_features(features)
    if most_similar < 1:
        raise InputError(f"most_similar must be at least 1; got {most_similar}. The paper has 100.")
    height, width = features.shape[1:3]
    rows = features.flatten(1, 2).float()
    degrees, usable = _compute_degrees(rows)
    lowest = degrees.masked_fill(~usable, rows.shape[1] + 1).sort(dim=1, stable=True).indices[:, :most_similar]
    seeds = lowest[:, 0]
    seed_rows = rows.gather(1, seeds[:, None, None].expand(-1, 1, rows.shape[2]))
    candidates = rows.gather(1, lowest[:, :, None].expand(-1, -1, rows.shape[2]))
    similar = (torch.bmm(candidates, seed_rows.mT) > 0).to(rows.dtype)  # (B, k, 1)
    # One product with the summed features equals the sum of all the correlations.
    correlation = torch.bmm(rows, torch.bmm(candidates.mT, similar))[:, :, 0]
    has_background = (degrees < rows.shape[1] - 1).any(dim=1)
    positive = (correlation > 0) & has_background[:, None]
    masks = find_component_holding(positive.reshape(-1, height, width), seeds)
    return Lost(seeds, compute_bounding_boxes(masks), masks)


def check_features(features: torch.Tensor) -> None:
    """Raise InputError unless `features` is (B, H, W, C) with at least one patch and channel."""
    if features.ndim != 4 or 0 in features.shape[1:]:
        raise InputError(f"features must be (B, H, W, C); got {tuple(features.shape)}. Give one row per patch.")


def find_component_holding(masks: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    """Find the 4-connected part of each of masks (B, H, W) around `seeds` (B,), y * W + x; empty outside of it."""
    # One call for the batch, with a structure that joins patches of the same image only. SciPy is faster than label
    # propagation, which takes as many passes as the longest component has patches.
    within_image = np.zeros((3, 3, 3), dtype=bool)
    within_image[1] = ndimage.generate_binary_structure(2, 1)
    labels, _ = ndimage.label(masks.cpu().numpy(), structure=within_image)
    components = torch.from_numpy(labels).to(masks.device).flatten(1)
    chosen = components.gather(1, seeds[:, None])
    found = (components == chosen) & (chosen > 0)
    return found.reshape(masks.shape)


def compute_bounding_boxes(masks: torch.Tensor) -> torch.Tensor:
    """Compute boxes (B, 4) int64 of masks (B, H, W): x0 y0 x1 y1, half-open; zeros for an empty mask."""
    x0, x1 = _find_extent(masks.any(dim=1))
    y0, y1 = _find_extent(masks.any(dim=2))
    return torch.stack([x0, y0, x1, y1], dim=1)


def _compute_degrees(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The number of other patches that each correlates with, (B, N) int64; whether it does with itself, (B, N) bool."""
    images, patches = rows.shape[:2]
    fitting = (_CPU_BYTES if rows.device.type == "cpu" else _GPU_BYTES) // (4 * patches**2)
    # One buffer for all parts of the batch: on a CPU the first touch of new memory costs more than the products.
    buffer = rows.new_empty((max(1, min(fitting, images)), patches, patches))
    degrees = torch.empty((images, patches), dtype=torch.int64, device=rows.device)
    usable = torch.empty((images, patches), dtype=torch.bool, device=rows.device)
    for first in range(0, images, len(buffer)):
        part = rows[first : first + len(buffer)]
        correlates = torch.bmm(part, part.mT, out=buffer[: len(part)]).gt_(0)
        with_itself = correlates.diagonal(dim1=1, dim2=2)
        usable[first : first + len(buffer)] = with_itself > 0
        degrees[first : first + len(buffer)] = correlates.sum(dim=2) - with_itself
    return degrees, usable


def _find_extent(used: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The index of the first true of each row of (B, L) bool and one more than that of the last; 0 and 0 for none."""
    length = used.shape[1]
    first = used.int().argmax(dim=1)
    behind_last = length - used.flip(1).int().argmax(dim=1)
    return first, behind_last * used.any(dim=1)
