"""TokenCut and MaskCut: objects by a normalised cut of the graph of patches.

Y. Wang et al., "Self-Supervised Transformers for Unsupervised Object Discovery using Normalized Cut", CVPR 2022
(TokenCut): the weight W of two patches is 1 where the cosine similarity of their features is above tau, else 1e-5. The
second smallest eigenvector of (D - W) y = lambda D y, split at its mean, separates the object from the background.
X. Wang et al., "Cut and Learn for Unsupervised Object Detection and Instance Segmentation", CVPR 2023 (MaskCut):
the same again on the remaining patches, up to N objects.

The eigenproblem is solved for many images at once. With S = D^-1/2 W D^-1/2 and y = D^-1/2 x it becomes that of the
second largest eigenvector of S, whose largest is known: D^1/2 1. Lanczos steps orthogonal to the latter need some tens
of products with W. They run in float64, since patches or objects that resemble no others give eigenvalues only about
1e-6 apart. Images for which they do not converge are solved by a dense solver.

Left open by the papers, or different here:
- where all pairs of patches are alike (all similar, or none) no cut is better than another: no object.
- the peak is the first in reading order of the values within 1e-6 of the largest, so that rounding does not decide.
- MaskCut looks for the peak before it looks at the corners, so that the eigenvector's arbitrary sign does not decide.
  It stops at the first mask that it rejects, since the next one would be the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from fastcomus.backends.threads import start_threads
from fastcomus.errors import InputError
from fastcomus.objects.saliency.affinity import Affinity, TwoValuedAffinity, is_divisible, make_two_valued
from fastcomus.objects.saliency.lost import check_features, compute_bounding_boxes, find_component_holding
from fastcomus.objects.saliency.second_eigenvectors import compute_second_eigenvectors

_CPU_IMAGES = 4  # solved at once by a thread, so that their similarities stay in its cache between products
_GPU_BYTES = 1 << 32  # memory for W of the images solved at once


@dataclass(frozen=True)
class TokenCut:
    """The objects of B images of H x W patches; without an object, zeros and empty masks."""

    eigenvectors: torch.Tensor  # (B, H, W) float32, y with y^T D y = 1, the object on the positive side
    bipartitions: torch.Tensor  # (B, H, W) bool, the object's side of the mean, with other objects similar to it
    masks: torch.Tensor  # (B, H, W) bool, the component of the bipartition that holds the largest |y|
    boxes: torch.Tensor  # (B, 4) int64, x0 y0 x1 y1 of the mask in patches, x1 and y1 exclusive


def run_token_cut(features: torch.Tensor, tau: float = 0.2) -> TokenCut:
    """Find one object per image by TokenCut, on the device of `features`.

    Args:
        features: (B, H, W, C) floating point, the keys of the patches in the last attention layer.
        tau: Cosine similarity above which patches are joined, in [0, 1).
    """
    _check(features, tau)
    return TokenCut(*_map_by_parts(lambda part: _token_cut_part(part, tau), features))


def run_mask_cut(features: torch.Tensor, tau: float = 0.15, most_objects: int = 3) -> torch.Tensor:
    """Find up to N objects per image by MaskCut, with `features` and `tau` as for `run_token_cut`.

    Every mask but the first must cover more than 1 % of the image, and its IoU with the mask before it must not exceed
    0.5. The first mask that does not pass and all after it are empty.

    Returns:
        (B, N, H, W) bool, disjoint masks in the order they were found.
    """
    _check(features, tau)
    if most_objects < 1:
        raise InputError(f"most_objects must be at least 1; got {most_objects}. The paper has 3.")
    return _map_by_parts(lambda part: (_mask_cut_part(part, tau, most_objects),), features)[0]


def _check(features: torch.Tensor, tau: float) -> None:
    check_features(features)
    if not 0 <= tau < 1:
        raise InputError(f"tau must lie in [0, 1); got {tau}. TokenCut has 0.2, MaskCut 0.15.")


def _map_by_parts(
    of_part: Callable[[torch.Tensor], tuple[torch.Tensor, ...]], features: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Apply `of_part` to a few images at a time and join the results; on a CPU in several threads."""
    if features.device.type == "cpu":
        with start_threads(torch.get_num_threads()) as threads:
            found = threads.map(torch.no_grad()(of_part), features.split(_CPU_IMAGES))
    else:
        patches = features.shape[1] * features.shape[2]
        parts = features.split(max(1, _GPU_BYTES // (8 * patches**2)))
        found = [torch.no_grad()(of_part)(part) for part in parts]
    return tuple(torch.cat(of_parts) for of_parts in zip(*found, strict=True))


def _token_cut_part(
    features: torch.Tensor, tau: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The fields of `TokenCut`."""
    shape = features.shape[1:3]
    vectors, object_side = _cut(_threshold_similarity(features, tau))
    bipartitions = object_side.unflatten(1, shape)
    masks = find_component_holding(bipartitions, _find_first_peak(vectors.abs()))
    return vectors.float().unflatten(1, shape), bipartitions, masks, compute_bounding_boxes(masks)


def _threshold_similarity(features: torch.Tensor, tau: float) -> torch.Tensor:
    """Whether the cosine similarity of two patches is above `tau`: (B, N, N) bool."""
    rows = functional.normalize(features.flatten(1, 2).float(), dim=2)
    return torch.bmm(rows, rows.mT) > tau


def _cut(similar: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The eigenvector y (B, N), its largest |y| positive, and patches above its mean; 0 where all cuts are equal."""
    affinity = TwoValuedAffinity(similar) if similar.device.type == "cpu" else Affinity(make_two_valued(similar))
    divisible = is_divisible(similar, affinity.degrees)[:, None]
    vectors = compute_second_eigenvectors(affinity) * divisible
    mean = vectors.mean(dim=1, keepdim=True)
    above = vectors > mean
    peak_above = vectors.gather(1, _find_first_peak(vectors.abs())[:, None]) > mean
    # Both sides are swapped, instead of comparing the negated vector with its mean: a patch at the mean swaps as well.
    return torch.where(peak_above, vectors, -vectors), (above == peak_above) & divisible


def _find_first_peak(values: torch.Tensor) -> torch.Tensor:
    """The index of the first of the largest values of (B, N), up to 1e-6 of them, (B,) int64."""
    largest = values.amax(dim=1, keepdim=True)
    return (values >= largest - 1e-6 * largest.abs()).int().argmax(dim=1)


def _mask_cut_part(features: torch.Tensor, tau: float, most_objects: int) -> torch.Tensor:
    images, height, width = features.shape[:3]
    similar = _threshold_similarity(features, tau)
    masks = torch.zeros((images, most_objects, height, width), dtype=torch.bool, device=features.device)
    painted = torch.zeros((images, height, width), dtype=torch.bool, device=features.device)
    before = painted.clone()
    open_images = torch.arange(images, device=features.device)
    for index in range(most_objects):
        left = ~painted[open_images].flatten(1)
        # Patches of earlier masks count as having zero features: weak edges to all patches, themselves included.
        vectors, object_side = _cut(similar[open_images] & left[:, :, None] & left[:, None, :])
        candidates = _select_candidates(vectors, object_side.unflatten(1, (height, width)))
        passes = candidates.any(dim=(1, 2))
        if index:
            passes &= candidates.sum(dim=(1, 2)) > 0.01 * height * width
            passes &= ~_is_half_overlapping(candidates, before[open_images])
        open_images, candidates = open_images[passes], candidates[passes]
        if not len(open_images):
            break
        masks[open_images, index] = candidates & ~painted[open_images]
        painted[open_images] |= candidates
        before[open_images] = candidates
    return masks


def _select_candidates(vectors: torch.Tensor, object_side: torch.Tensor) -> torch.Tensor:
    """The component around the peak of `object_side` (B, H, W) bool, or of the other side if it holds 3 corners."""
    corners = object_side[:, [0, 0, -1, -1], [0, -1, 0, -1]].sum(dim=1)
    turned = corners >= 3
    object_side = object_side ^ turned[:, None, None]
    return find_component_holding(object_side, _find_first_peak(torch.where(turned[:, None], -vectors, vectors)))


def _is_half_overlapping(masks: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Whether the IoU is above 0.5, (B,) bool."""
    return 2 * (masks & others).sum(dim=(1, 2)) > (masks | others).sum(dim=(1, 2))
