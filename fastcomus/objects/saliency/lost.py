"""LOST: one object per image, grown from the patch that correlates with the fewest others.

O. Siméoni et al., "Localizing Objects with Self-Supervised Transformers and no Labels", BMVC 2021. Two patches
correlate when the inner product of their features is positive. The background is large and its patches correlate
with each other, so a patch with few correlations, a low degree, is likely to lie on an object. It is the seed;
those of the k patches of least degree that correlate with it join it; and the object is the connected component
around the seed of all patches whose inner products with these sum up to more than 0.

Left open by the paper, or different here:
- the seed among patches of the same degree is the first in reading order.
- patches of zero features, such as padding, correlate with nothing. They are neither seed nor among the k.
- where all patches correlate with each other there is no background, hence no object.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from fastcomus.errors import InputError


@dataclass(frozen=True)
class Lost:
    """Of B images of H x W patches, on the features' device; without an object, box 0 0 0 0 and an empty mask."""

    seeds: torch.Tensor  # (B,) int64, y * W + x
    boxes: torch.Tensor  # (B, 4) int64, x0 y0 x1 y1 in patches, x1 and y1 not inside
    masks: torch.Tensor  # (B, H, W) bool, one connected component that holds the seed, or empty


@torch.no_grad()
def run_lost(features: torch.Tensor, most_similar: int = 100) -> Lost:
    """`features` (B, H, W, C) floating point: the patches' keys in the last attention layer, not normalised.

    `most_similar`: k, the number of patches of least degree among which the seed finds its like.
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
    # Summed features first, then one product: the same as the sum of all the correlations.
    correlation = torch.bmm(rows, torch.bmm(candidates.mT, similar))[:, :, 0]
    has_background = (degrees < rows.shape[1] - 1).any(dim=1)
    positive = (correlation > 0) & has_background[:, None]
    masks = find_component_holding(positive.unflatten(1, (height, width)), seeds)
    return Lost(seeds, compute_bounding_boxes(masks), masks)


def check_features(features: torch.Tensor) -> None:
    if features.ndim != 4 or 0 in features.shape[1:]:
        raise InputError(f"features must be (B, H, W, C); got {tuple(features.shape)}. Give one row per patch.")


# What the correlations of the images taken at once may take: on a CPU, what stays in its cache.
_CPU_BYTES = 1 << 24
_GPU_BYTES = 1 << 31


def _compute_degrees(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Number of other patches that each correlates with, (B, N) int64; whether it correlates with itself, bool."""
    images, patches = rows.shape[:2]
    fitting = (_CPU_BYTES if rows.device.type == "cpu" else _GPU_BYTES) // (4 * patches**2)
    # One piece of memory for all parts of the batch: on a CPU its first touch costs more than the products.
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


def find_component_holding(masks: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    """The 4-connected component of `masks` (B, H, W) bool around `seeds` (B,) int64 flat; empty where not in it."""
    # One call for the batch: the structure joins patches of the same image only. SciPy beats label propagation,
    # which takes as many passes as the longest component.
    within_image = np.zeros((3, 3, 3), dtype=bool)
    within_image[1] = ndimage.generate_binary_structure(2, 1)
    labels, _ = ndimage.label(masks.cpu().numpy(), structure=within_image)
    components = torch.from_numpy(labels).to(masks.device).flatten(1)
    chosen = components.gather(1, seeds[:, None])
    return ((components == chosen) & (chosen > 0)).unflatten(1, masks.shape[1:])


def compute_bounding_boxes(masks: torch.Tensor) -> torch.Tensor:
    """Smallest boxes x0 y0 x1 y1 around `masks` (B, H, W) bool: (B, 4) int64, half-open; zeros for an empty one."""
    x0, x1 = _find_extent(masks.any(dim=1))
    y0, y1 = _find_extent(masks.any(dim=2))
    return torch.stack([x0, y0, x1, y1], dim=1)


def _find_extent(used: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """First, and one behind the last true of each row of (B, L) bool; 0 and 0 where there is none."""
    length = used.shape[1]
    first = used.int().argmax(dim=1)
    behind_last = length - used.flip(1).int().argmax(dim=1)
    return first, behind_last * used.any(dim=1)
