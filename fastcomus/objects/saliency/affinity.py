"""Affinity matrices between the patches of images, and their products with vectors."""

from __future__ import annotations

import numpy as np
import torch

from fastcomus.backends.compiled import compile_function

_WEAK = 1e-5  # weight between patches that are not similar


class Affinity:
    """W of B images, (B, N, N) float64, symmetric; `degrees` (B, N) are its row sums."""

    def __init__(self, weights: torch.Tensor) -> None:
        self.weights = weights
        self.degrees = weights.sum(dim=2)

    def multiply(self, vectors: torch.Tensor) -> torch.Tensor:
        """Multiply W with vectors (B, N) float64, one per image."""
        return torch.bmm(vectors[:, None], self.weights)[:, 0]

    def to_dense(self, images: torch.Tensor) -> torch.Tensor:
        """Return W of the images chosen by `images`, (B,) bool."""
        return self.weights[images]


class TwoValuedAffinity:
    """An affinity with weights 1 and 1e-5 on a CPU, stored as `similar` (B, N, N) bool.

    Products are bound by memory: one byte per pair instead of eight makes them more than twice as fast.
    """

    def __init__(self, similar: torch.Tensor) -> None:
        self.similar = similar
        # Torch's own sum would first turn every bool into an integer of eight bytes.
        self.degrees = self.multiply(torch.ones(similar.shape[:2], dtype=torch.float64))

    def multiply(self, vectors: torch.Tensor) -> torch.Tensor:
        """See `Affinity.multiply`."""
        sums = torch.empty_like(vectors)
        _sum_over_similar(self.similar.numpy().view(np.uint8), vectors.contiguous().numpy(), sums.numpy())
        return sums.mul_(1 - _WEAK).add_(vectors.sum(dim=1, keepdim=True), alpha=_WEAK)

    def to_dense(self, images: torch.Tensor) -> torch.Tensor:
        """See `Affinity.to_dense`."""
        return make_two_valued(self.similar[images])


def make_two_valued(similar: torch.Tensor) -> torch.Tensor:
    """Make W (B, N, N) float64 of `similar` (B, N, N) bool: 1 where patches are similar, else 1e-5."""
    return similar.double().clamp_(min=_WEAK)


def is_divisible(similar: torch.Tensor, degrees: torch.Tensor) -> torch.Tensor:
    """Tell which images, (B,) bool, can be cut at all: whose W is not a I + b 1 1^T, for which all cuts cost the same.

    `similar`: (B, N, N) bool, where W is 1 and not 1e-5. `degrees`: (B, N) row sums of W.
    """
    patches = similar.shape[1]
    with_itself = similar.diagonal(dim1=1, dim2=2).sum(dim=1)
    # Twice the number of similar pairs, computed from the degrees because that is cheapest.
    with_others = ((degrees.sum(dim=1) - _WEAK * patches**2) / (1 - _WEAK)).round() - with_itself
    uniform_diagonal = (with_itself == 0) | (with_itself == patches)
    uniform_rest = (with_others == 0) | (with_others == patches * (patches - 1))
    return ~(uniform_diagonal & uniform_rest)


@compile_function
def _sum_over_similar(similar, vectors, sums):  # type: ignore[no-untyped-def]
    """Fill `sums` (B, N) with the sums of `vectors` (B, N) float64 over the patches where `similar` (uint8) is 1."""
    images, patches = vectors.shape
    for image in range(images):
        for row in range(patches):
            total = 0.0
            for column in range(patches):
                total += similar[image, row, column] * vectors[image, column]
            sums[image, row] = total
