"""Affinities between the patches of images, as matrices that can be multiplied without being formed."""

from __future__ import annotations

import numpy as np
import torch

from fastcomus.backends.compiled import compile_function

_WEAK = 1e-5  # of edges between patches that are not similar


def _make_two_valued(similar: torch.Tensor) -> torch.Tensor:
    """W (B, N, N) float64: 1 where patches are similar, else 1e-5."""
    return similar.double().clamp_(min=_WEAK)


class Affinity:
    """W of B images, (B, N, N) float64, symmetric, and its products with vectors (B, N)."""

    def __init__(self, weights: torch.Tensor) -> None:
        self.weights = weights
        self.degrees = weights.sum(dim=2)

    def multiply(self, vectors: torch.Tensor) -> torch.Tensor:
        return torch.bmm(vectors[:, None], self.weights)[:, 0]

    def to_dense(self, images: torch.Tensor) -> torch.Tensor:
        """W of the chosen images; `images`: (B,) bool."""
        return self.weights[images]


class TwoValuedAffinity:
    """The same for W of 1 and 1e-5 on a CPU, kept as `similar` (B, N, N) bool: products are bound by memory, and a byte
    for eight makes them more than twice as fast.
    """

    def __init__(self, similar: torch.Tensor) -> None:
        self.similar = similar
        # Torch would turn every truth value into an integer of eight bytes first.
        self.degrees = self.multiply(torch.ones(similar.shape[:2], dtype=torch.float64))

    def multiply(self, vectors: torch.Tensor) -> torch.Tensor:
        sums = torch.empty_like(vectors)
        _sum_over_similar(self.similar.numpy().view(np.uint8), vectors.contiguous().numpy(), sums.numpy())
        return sums.mul_(1 - _WEAK).add_(vectors.sum(dim=1, keepdim=True), alpha=_WEAK)

    def to_dense(self, images: torch.Tensor) -> torch.Tensor:
        return _make_two_valued(self.similar[images])


@compile_function
def _sum_over_similar(similar, vectors, sums):  # type: ignore[no-untyped-def]
    """`sums` (B, N) float64: of `vectors` (B, N) float64, where `similar` (B, N, N) uint8 is 1 and not 0."""
    images, patches = vectors.shape
    for image in range(images):
        for row in range(patches):
            total = 0.0
            for column in range(patches):
                total += similar[image, row, column] * vectors[image, column]
            sums[image, row] = total


def _is_divisible(similar: torch.Tensor, degrees: torch.Tensor) -> torch.Tensor:
    """Whether W (B, N, N) is anything else than a I + b 1 1^T, all of whose cuts are alike, (B,) bool."""
    patches = similar.shape[1]
    with_itself = similar.diagonal(dim1=1, dim2=2).sum(dim=1)
    # Twice as many as there are pairs; from sums, as they cost least.
    with_others = ((degrees.sum(dim=1) - _WEAK * patches**2) / (1 - _WEAK)).round() - with_itself
    uniform_diagonal = (with_itself == 0) | (with_itself == patches)
    uniform_rest = (with_others == 0) | (with_others == patches * (patches - 1))
    return ~(uniform_diagonal & uniform_rest)
