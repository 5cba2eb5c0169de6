"""TokenCut and MaskCut: objects by a normalised cut of the graph of patches.

Y. Wang et al., "Self-Supervised Transformers for Unsupervised Object Discovery using Normalized Cut", CVPR 2022
(TokenCut): patches are joined by W = 1 where the cosine similarity of their features is above tau, else 1e-5; the
second smallest eigenvector of (D - W) y = lambda D y, split at its mean, parts object from background.
X. Wang et al., "Cut and Learn for Unsupervised Object Detection and Instance Segmentation", CVPR 2023 (MaskCut):
this again on what is left, up to N objects.

The eigenproblem is solved for many images at once. With S = D^-1/2 W D^-1/2 and y = D^-1/2 x it asks for the second
largest eigenvector of S, whose largest is known: D^1/2 1. Lanczos steps orthogonal to that one find it in some tens
of products with W. They run in float64: patches or objects that are like no others give eigenvalues that lie about
1e-6 apart. Images that do not get there are solved densely.

Left open by the papers, or different here:
- where all pairs of patches are alike (all similar, or none) no cut is better than another: no object.
- the peak is the first in reading order of those equal to the largest within 1e-6, so that rounding has no say.
- MaskCut looks for the peak before it looks at the corners, so that the arbitrary sign of an eigenvector has no say;
  and it stops at the first mask it rejects, as the next one would be the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from fastcomus.backends.compiled import compiled
from fastcomus.backends.threads import threads_of_their_own
from fastcomus.errors import InputError
from fastcomus.saliency.lost import boxes_around, check_features, component_holding


@dataclass(frozen=True)
class TokenCut:
    """Of B images of H x W patches, on the features' device; without an object, zeros and empty masks."""

    eigenvectors: torch.Tensor  # (B, H, W) float32, y with y^T D y = 1, the object on the positive side
    bipartitions: torch.Tensor  # (B, H, W) bool, the object's side of the mean: objects like it are in it too
    masks: torch.Tensor  # (B, H, W) bool, the component of the bipartition that holds the largest |y|
    boxes: torch.Tensor  # (B, 4) int64, x0 y0 x1 y1 of the mask in patches, x1 and y1 not inside


def token_cut(features: torch.Tensor, tau: float = 0.2) -> TokenCut:
    """`features` (B, H, W, C) floating point: the patches' keys in the last attention layer; `tau` in [0, 1)."""
    _check(features, tau)
    return TokenCut(*_by_parts(lambda part: _token_cut(part, tau), features))


def mask_cut(features: torch.Tensor, tau: float = 0.15, most_objects: int = 3) -> torch.Tensor:
    """`features` as for `token_cut` -> (B, most_objects, H, W) bool: disjoint masks, in the order they were found.

    After the first, a mask has to cover more than 1 % of the image and must not overlap with the one before it by an
    IoU above 0.5. Where one does not pass, it and those after it are empty.
    """
    _check(features, tau)
    if most_objects < 1:
        raise InputError(f"most_objects must be at least 1; got {most_objects}. The paper has 3.")
    return _by_parts(lambda part: (_mask_cut(part, tau, most_objects),), features)[0]


def _check(features: torch.Tensor, tau: float) -> None:
    check_features(features)
    if not 0 <= tau < 1:
        raise InputError(f"tau must lie in [0, 1); got {tau}. TokenCut has 0.2, MaskCut 0.15.")


_CPU_IMAGES = 4  # solved at once by a thread: their similarities stay in its cache from one product to the next
_GPU_BYTES = 1 << 32  # that W of the images solved at once may take


def _by_parts(
    of_part: Callable[[torch.Tensor], tuple[torch.Tensor, ...]], features: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """What `of_part` makes of a few images, for all of them; on a CPU each thread takes parts of its own."""
    if features.device.type == "cpu":
        with threads_of_their_own(torch.get_num_threads()) as threads:
            found = threads.map(torch.no_grad()(of_part), features.split(_CPU_IMAGES))
    else:
        patches = features.shape[1] * features.shape[2]
        parts = features.split(max(1, _GPU_BYTES // (8 * patches**2)))
        found = [torch.no_grad()(of_part)(part) for part in parts]
    return tuple(torch.cat(of_parts) for of_parts in zip(*found, strict=True))


def _token_cut(features: torch.Tensor, tau: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The fields of TokenCut."""
    shape = features.shape[1:3]
    vectors, object_side = _cut(_similar(features, tau))
    bipartitions = object_side.unflatten(1, shape)
    masks = component_holding(bipartitions, _first_peak(vectors.abs()))
    return vectors.float().unflatten(1, shape), bipartitions, masks, boxes_around(masks)


def _similar(features: torch.Tensor, tau: float) -> torch.Tensor:
    """Whether the cosine similarity of two patches is above `tau`: (B, N, N) bool."""
    rows = F.normalize(features.flatten(1, 2).float(), dim=2)
    return torch.bmm(rows, rows.mT) > tau


def _cut(similar: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """y (B, N) float64 with its largest |y| positive, and which patches are above its mean, (B, N) bool.

    Both are zero where no cut is better than another.
    """
    affinity = TwoValuedAffinity(similar) if similar.device.type == "cpu" else Affinity(_two_valued(similar))
    divisible = _divisible(similar, affinity.degrees)[:, None]
    vectors = second_eigenvectors(affinity) * divisible
    mean = vectors.mean(dim=1, keepdim=True)
    above = vectors > mean
    peak_above = vectors.gather(1, _first_peak(vectors.abs())[:, None]) > mean
    # Not "above the mean" of the turned vector: a patch at the mean itself changes sides with the others.
    return torch.where(peak_above, vectors, -vectors), (above == peak_above) & divisible


_WEAK = 1e-5  # of edges between patches that are not similar


def _two_valued(similar: torch.Tensor) -> torch.Tensor:
    """W (B, N, N) float64: 1 where patches are similar, else 1e-5."""
    return similar.double().clamp_(min=_WEAK)


class Affinity:
    """W of B images, (B, N, N) float64, symmetric, and its products with vectors (B, N)."""

    def __init__(self, weights: torch.Tensor) -> None:
        self.weights = weights
        self.degrees = weights.sum(dim=2)

    def times(self, vectors: torch.Tensor) -> torch.Tensor:
        return torch.bmm(vectors[:, None], self.weights)[:, 0]

    def dense(self, images: torch.Tensor) -> torch.Tensor:
        """W of the chosen images; `images`: (B,) bool."""
        return self.weights[images]


class TwoValuedAffinity:
    """The same for W of 1 and 1e-5 on a CPU, kept as `similar` (B, N, N) bool: products are bound by memory, and a byte
    for eight makes them more than twice as fast."""

    def __init__(self, similar: torch.Tensor) -> None:
        self.similar = similar
        # Torch would turn every truth value into an integer of eight bytes first.
        self.degrees = self.times(torch.ones(similar.shape[:2], dtype=torch.float64))

    def times(self, vectors: torch.Tensor) -> torch.Tensor:
        sums = torch.empty_like(vectors)
        _sums_over_similar(self.similar.numpy().view(np.uint8), vectors.contiguous().numpy(), sums.numpy())
        return sums.mul_(1 - _WEAK).add_(vectors.sum(dim=1, keepdim=True), alpha=_WEAK)

    def dense(self, images: torch.Tensor) -> torch.Tensor:
        return _two_valued(self.similar[images])


@compiled
def _sums_over_similar(similar, vectors, sums):  # type: ignore[no-untyped-def]
    """`sums` (B, N) float64: of `vectors` (B, N) float64, where `similar` (B, N, N) uint8 is 1 and not 0."""
    images, patches = vectors.shape
    for image in range(images):
        for row in range(patches):
            total = 0.0
            for column in range(patches):
                total += similar[image, row, column] * vectors[image, column]
            sums[image, row] = total


def _divisible(similar: torch.Tensor, degrees: torch.Tensor) -> torch.Tensor:
    """Whether W (B, N, N) is anything else than a I + b 1 1^T, all of whose cuts are alike, (B,) bool."""
    patches = similar.shape[1]
    with_itself = similar.diagonal(dim1=1, dim2=2).sum(dim=1)
    # Twice as many as there are pairs; from sums, as they cost least.
    with_others = ((degrees.sum(dim=1) - _WEAK * patches**2) / (1 - _WEAK)).round() - with_itself
    uniform_diagonal = (with_itself == 0) | (with_itself == patches)
    uniform_rest = (with_others == 0) | (with_others == patches * (patches - 1))
    return ~(uniform_diagonal & uniform_rest)


def _first_peak(values: torch.Tensor) -> torch.Tensor:
    """Index of the first of the largest of (B, N), (B,) int64."""
    largest = values.amax(dim=1, keepdim=True)
    return (values >= largest - 1e-6 * largest.abs()).int().argmax(dim=1)


def _mask_cut(features: torch.Tensor, tau: float, most_objects: int) -> torch.Tensor:
    images, height, width = features.shape[:3]
    similar = _similar(features, tau)
    masks = torch.zeros((images, most_objects, height, width), dtype=torch.bool, device=features.device)
    painted = torch.zeros((images, height, width), dtype=torch.bool, device=features.device)
    before = painted.clone()
    open_images = torch.arange(images, device=features.device)
    for index in range(most_objects):
        left = ~painted[open_images].flatten(1)
        # Painted patches have zero features: weak edges to all patches, themselves included.
        vectors, object_side = _cut(similar[open_images] & left[:, :, None] & left[:, None, :])
        candidates = _candidates(vectors, object_side.unflatten(1, (height, width)))
        passes = candidates.any(dim=(1, 2))
        if index:
            passes &= candidates.sum(dim=(1, 2)) > 0.01 * height * width
            passes &= ~_overlap_half(candidates, before[open_images])
        open_images, candidates = open_images[passes], candidates[passes]
        if not len(open_images):
            break
        masks[open_images, index] = candidates & ~painted[open_images]
        painted[open_images] |= candidates
        before[open_images] = candidates
    return masks


def _candidates(vectors: torch.Tensor, object_side: torch.Tensor) -> torch.Tensor:
    """The component around the peak of `object_side` (B, H, W) bool, or of the other side if it holds 3 corners."""
    corners = object_side[:, [0, 0, -1, -1], [0, -1, 0, -1]].sum(dim=1)
    turned = corners >= 3
    object_side = object_side ^ turned[:, None, None]
    return component_holding(object_side, _first_peak(torch.where(turned[:, None], -vectors, vectors)))


def _overlap_half(masks: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Whether IoU > 0.5, (B,) bool."""
    return 2 * (masks & others).sum(dim=(1, 2)) > (masks | others).sum(dim=(1, 2))


_DENSE_PATCHES = 64  # up to here the dense solver is as fast
_STEPS = 160  # of Lanczos, about as long as the dense solver takes
_STEPS_BETWEEN_CHECKS = 4


def second_eigenvectors(affinity: Affinity | TwoValuedAffinity) -> torch.Tensor:
    """Second smallest y of (D - W) y = lambda D y, y^T D y = 1, sign arbitrary: (B, N) float64.

    W must not be negative, its row sums D above 0. N = 1 gives zeros.
    """
    scale = affinity.degrees.rsqrt()
    images, patches = scale.shape
    if patches == 1:
        return torch.zeros_like(scale)
    if patches <= _DENSE_PATCHES:
        return scale * _dense(affinity.dense(torch.ones(images, dtype=torch.bool, device=scale.device)), scale)
    vectors, converged = _lanczos(affinity, scale)
    if not converged.all():
        vectors[~converged] = _dense(affinity.dense(~converged), scale[~converged])
    return scale * vectors


def _dense(affinity: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return torch.linalg.eigh(scale[:, :, None] * affinity * scale[:, None, :]).eigenvectors[:, :, -2]


def _lanczos(affinity: Affinity | TwoValuedAffinity, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Largest eigenvectors of S orthogonal to D^1/2 1, (B, N) unit-norm; which of them are accurate, (B,) bool."""
    images, patches = scale.shape
    steps = min(_STEPS, patches - 1)
    basis = scale.new_zeros((images, steps + 2, patches))  # row 0: D^1/2 1, then the Lanczos vectors
    basis[:, 0] = F.normalize(1.0 / scale, dim=1)
    start = torch.randn(patches, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(scale.device)
    basis[:, 1] = F.normalize(_orthogonal(start.expand(images, -1), basis[:, :1]), dim=1)
    tridiagonal = scale.new_zeros((images, steps + 1, steps + 1))
    for step in range(steps):
        vector = basis[:, step + 1]
        product = scale * affinity.times(scale * vector)
        along = (product * vector).sum(dim=1)
        product = _orthogonal(product, basis[:, : step + 2])
        length = product.norm(dim=1)
        # All that the start vector reaches is found: what is left is rounding. Zero vectors follow, kept out of
        # the largest eigenvalues by one below all of S.
        going = length > 1e-12
        length = length * going
        ended = ~vector.any(dim=1)
        tridiagonal[:, step, step] = along.masked_fill(ended, -2.0)
        tridiagonal[:, step, step + 1] = tridiagonal[:, step + 1, step] = length
        basis[:, step + 2] = product / length.masked_fill(~going, 1.0)[:, None] * going[:, None]
        if (step + 1) % _STEPS_BETWEEN_CHECKS == 0 or step + 1 == steps:
            values, inner = torch.linalg.eigh(tridiagonal[:, : step + 1, : step + 1])
            residual = length * inner[:, -1, -1].abs()
            converged = residual <= _tolerance(values)
            if converged.all():
                break
    vectors = torch.bmm(inner[:, :, -1][:, None], basis[:, 1 : step + 2])[:, 0]
    return F.normalize(vectors, dim=1), converged


def _orthogonal(vectors: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """(B, N) less its part in the span of the orthonormal `basis` (B, K, N); twice is enough for float64."""
    rows = vectors[:, None]  # on a CPU, rows from the left are many times faster than columns from the right
    for _ in range(2):
        rows = rows - torch.bmm(torch.bmm(rows, basis.mT), basis)
    return rows[:, 0]


def _tolerance(values: torch.Tensor) -> torch.Tensor:
    """Residual that is small enough, (B,): the vector's error is residual / gap to the next eigenvalue.

    The next one may not have come up yet. Parts that only weak edges join have eigenvalues at about
    1 - 1e-5 N / size, of which those of similar size lie close together for their distance from 1. Below 1e-13
    there is only rounding.
    """
    gap = values[:, -1] - values[:, -2]
    return (1e-6 * torch.minimum(gap, 0.1 * (1.0 - values[:, -1]))).clamp_min(1e-13)
