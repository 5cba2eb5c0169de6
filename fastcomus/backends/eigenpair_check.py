"""Verification and refinement of eigenvectors that a library has found."""

from __future__ import annotations

import numpy as np
import torch

TOLERANCE = 3e-4  # of residuals; the stage refuses 1e-3
_LANCZOS_STEPS = 60


class EigenpairError(ArithmeticError):
    """The eigenpairs found are not those asked for; the text says why."""


def refine_eigenpairs(operator: torch.Tensor, vectors: torch.Tensor, seed: int) -> tuple[np.ndarray, torch.Tensor]:
    """Extract the eigenpairs of a matrix from the span of `vectors`, on their device.

    Args:
        operator: (n, n) float64 sparse CSR tensor: the symmetric D^-1/2 W D^-1/2 of a connected graph, whose largest
            eigenvalue is 1.
        vectors: (n, c), candidates for the eigenvectors of the c largest eigenvalues.
        seed: Seed of the random start of the Lanczos check.

    Returns:
        Eigenvalues (c,) float64, descending, and unit eigenvectors (n, c) float32.

    Raises:
        EigenpairError: The vectors are not finite, are linearly dependent, have a residual |M v - mu v| above 3e-4,
            lack the eigenvalue 1, or leave out a larger eigenvalue.
    """
    if not torch.isfinite(vectors).all():
        raise EigenpairError("vectors that are not finite")
    span, triangle = torch.linalg.qr(vectors.double() / vectors.double().norm(dim=0).clamp(min=1e-300))
    if triangle.diagonal().abs().min() < 1e-4:
        raise EigenpairError("vectors that depend on one another")
    products = operator @ span
    values, rotation = torch.linalg.eigh(span.T @ products)
    values, rotation = values.flip(0), rotation.flip(1)
    found = span @ rotation
    residual = float((products @ rotation - found * values).norm(dim=0).max())
    if not residual < TOLERANCE:
        raise EigenpairError(f"a residual of {residual:.1e}")
    if abs(float(values[0]) - 1) > TOLERANCE:
        raise EigenpairError(f"a largest eigenvalue of {float(values[0]):.6f} instead of 1")
    left_out = _estimate_largest_outside(operator, found, seed)
    if left_out > float(values[-1]) + TOLERANCE:
        raise EigenpairError(f"an eigenvalue near {left_out:.4f} left out, above the last one, {float(values[-1]):.4f}")
    return values.cpu().numpy(), found.float()


def _estimate_largest_outside(operator: torch.Tensor, found: torch.Tensor, seed: int) -> float:
    """Estimate from below, by Lanczos' method, the largest eigenvalue on vectors orthogonal to `found`."""
    size, count = found.shape
    steps = min(_LANCZOS_STEPS, size - count)
    if steps <= 0:
        return -1.0
    generator = torch.Generator().manual_seed(seed)
    basis: list[torch.Tensor] = []
    vector = torch.randn(size, generator=generator, dtype=torch.float64).to(found)
    diagonal, beside = [], []
    for _ in range(steps):
        for _ in range(2):
            vector = vector - found @ (found.T @ vector)
            for one in basis:
                vector = vector - one * (one @ vector)
        length = float(vector.norm())
        if length < 1e-10:
            break
        if basis:
            beside.append(length)
        basis.append(vector / length)
        product = operator @ basis[-1]
        diagonal.append(float(basis[-1] @ product))
        vector = product
    projected = np.diag(diagonal) + np.diag(beside[: len(diagonal) - 1], 1) + np.diag(beside[: len(diagonal) - 1], -1)
    return float(np.linalg.eigvalsh(projected)[-1]) if diagonal else -1.0
