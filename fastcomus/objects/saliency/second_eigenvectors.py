"""Second eigenvectors of many small affinity matrices at once, by a dense solver or the Lanczos method."""

from __future__ import annotations

import torch
from torch.nn import functional

from fastcomus.objects.saliency.affinity import Affinity, TwoValuedAffinity

_DENSE_PATCHES = 64  # up to this many patches the dense solver is as fast
_HOST_PATCHES = 256  # up to this many the host solves sooner than a GPU, which takes one matrix after the other
_STEPS = 160  # of Lanczos, at most: they take about as long as the dense solver
_STEPS_BETWEEN_CHECKS = 4


def compute_second_eigenvectors(affinity: Affinity | TwoValuedAffinity) -> torch.Tensor:
    """Compute the second smallest eigenvector y of (D - W) y = lambda D y with y^T D y = 1.

    `affinity`: W of B images, (B, N, N), not negative, with row sums D above 0. The result (B, N) float64 has an
    arbitrary sign; it is zeros if N = 1.
    """
    scale = affinity.degrees.rsqrt()
    images, patches = scale.shape
    if patches == 1:
        return torch.zeros_like(scale)
    if patches <= _DENSE_PATCHES:
        return scale * _solve_dense(affinity.to_dense(torch.ones(images, dtype=torch.bool, device=scale.device)), scale)
    vectors, converged = _solve_by_lanczos(affinity, scale)
    if not converged.all():
        vectors[~converged] = _solve_dense(affinity.to_dense(~converged), scale[~converged])
    return scale * vectors


def _solve_dense(affinity: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    matrices = scale[:, :, None] * affinity * scale[:, None, :]
    if matrices.shape[1] <= _HOST_PATCHES:
        matrices = matrices.cpu()
    vectors: torch.Tensor = torch.linalg.eigh(matrices).eigenvectors
    return vectors[:, :, -2].to(scale.device)


def _solve_by_lanczos(affinity: Affinity | TwoValuedAffinity, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The top eigenvectors (B, N) of D^-1/2 W D^-1/2 orthogonal to D^1/2 1, and which converged; `scale`: D^-1/2."""
    images, patches = scale.shape
    steps = min(_STEPS, patches - 1)
    basis = scale.new_zeros((images, steps + 2, patches))  # row 0: D^1/2 1, then the Lanczos vectors
    basis[:, 0] = functional.normalize(1.0 / scale, dim=1)
    start = torch.randn(patches, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(scale.device)
    basis[:, 1] = functional.normalize(_orthogonalise(start.expand(images, -1), basis[:, :1]), dim=1)
    tridiagonal = scale.new_zeros((images, steps + 1, steps + 1))
    for step in range(steps):
        vector = basis[:, step + 1]
        product = scale * affinity.multiply(scale * vector)
        along = (product * vector).sum(dim=1)
        product = _orthogonalise(product, basis[:, : step + 2])
        length = product.norm(dim=1)
        # A shorter product is rounding: the space that the start vector spans is exhausted. Zero vectors follow, and
        # -2 on the diagonal, below all eigenvalues of S, keeps them out of the largest.
        going = length > 1e-12
        length = length * going
        ended = ~vector.any(dim=1)
        tridiagonal[:, step, step] = along.masked_fill(ended, -2.0)
        tridiagonal[:, step, step + 1] = tridiagonal[:, step + 1, step] = length
        basis[:, step + 2] = product / length.masked_fill(~going, 1.0)[:, None] * going[:, None]
        if (step + 1) % _STEPS_BETWEEN_CHECKS == 0 or step + 1 == steps:
            # On the host: a GPU solves small matrices one after the other, more slowly.
            solved = torch.linalg.eigh(tridiagonal[:, : step + 1, : step + 1].cpu())
            values, inner = (one.to(scale.device) for one in solved)
            residual = length * inner[:, -1, -1].abs()
            converged = residual <= _compute_tolerance(values)
            if converged.all():
                break
    vectors = torch.bmm(inner[:, :, -1][:, None], basis[:, 1 : step + 2])[:, 0]
    return functional.normalize(vectors, dim=1), converged


def _orthogonalise(vectors: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """Vectors (B, N) less their projection on the orthonormal `basis` (B, K, N), twice for float64's accuracy."""
    rows = vectors[:, None]  # on a CPU rows times a matrix are many times faster than a matrix times columns
    for _ in range(2):
        rows = rows - torch.bmm(torch.bmm(rows, basis.mT), basis)
    return rows[:, 0]


def _compute_tolerance(values: torch.Tensor) -> torch.Tensor:
    """The residual, (B,), below which a vector has converged: its error is residual / gap to the next eigenvalue.

    The next may not have appeared yet: components that only weak edges join have eigenvalues at about 1 - 1e-5 N /
    size, close together compared with their distance from 1. Below 1e-13 a residual is rounding.
    """
    gap = values[:, -1] - values[:, -2]
    return (1e-6 * torch.minimum(gap, 0.1 * (1.0 - values[:, -1]))).clamp_min(1e-13)
