"""Largest eigenpairs of a sparse symmetric matrix by a block Krylov method with thick restarts, on torch.

The matrix is not factorised: it is only multiplied with blocks of vectors, which is several times faster for a sparse
matrix than as many single products. (Block Lanczos: Golub and Underwood 1977; thick restarts: Wu and Simon 2000.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array

from fastcomus.backends.placed import build_csr_tensor

_BLOCK = 16  # vectors in a product
_LEAST_SPARE = 96  # columns beyond 2 k; a basis of 60 columns for k = 20 stagnated
_LEAST_CONDITION = 1e-3  # below it rounding (1e-7) would be enlarged until the rows lean on the basis
_MOST_CORRECTIONS = 3
_CLOSE = 300  # times the tolerance: from there on the residual is looked at after every block
_KEPT_SHARE = 0.4  # of the basis beyond k, at a restart
_COLUMNS_AT_ONCE = 4_096


@dataclass(frozen=True)
class Eigenpairs:
    """The k largest eigenpairs of a matrix.

    `values`: (k,) float64, descending. `vectors`: (n, k) float32, orthonormal, on the device. `residual`: the largest
    |A v - mu v|, estimated. `restarts`: How often the basis was compressed.
    """

    values: np.ndarray
    vectors: torch.Tensor
    residual: float
    restarts: int


def find_largest_eigenpairs(
    operator: torch.Tensor, count: int, seed: int, tolerance: float = 1e-4, max_restarts: int = 30
) -> Eigenpairs:
    """Find the `count` largest eigenpairs of a symmetric matrix, on its device.

    Args:
        operator: (n, n) float32 sparse CSR tensor, symmetric, with n at least `count_basis_columns(count)` + 16.
        count: Number of eigenpairs.
        seed: Seed of the random first block.
        tolerance: Stop when every residual |A v - mu v| is below it.
        max_restarts: Stop after so many restarts in any case; the caller checks `residual`.
    """
    n, columns, device = operator.shape[0], count_basis_columns(count), operator.device
    assert n >= columns + _BLOCK, (n, columns)
    basis = torch.empty((columns + _BLOCK, n), device=device)  # a vector a row: contiguous
    projected = torch.zeros((columns + _BLOCK, columns + _BLOCK), dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    basis[:_BLOCK] = _orthonormalise(torch.randn((_BLOCK, n), generator=generator).to(device), basis[:0])[0]
    size, overlapped, restarts, is_close = _BLOCK, 0, 0, False
    while True:
        following, coupling = _expand_basis(operator, basis, projected, size, overlapped)
        is_full = size + _BLOCK > columns
        if is_full or is_close:
            block = projected[:size, :size]
            values, rotation = torch.linalg.eigh((block + block.T) / 2)
            values, rotation = values.flip(0), rotation.flip(1)
            residuals = torch.linalg.norm(coupling @ rotation[size - _BLOCK :], dim=0)
            residual = float(residuals[:count].max())
            if residual < tolerance or (is_full and restarts == max_restarts):
                _rotate(basis[:size], rotation[:, :count])
                return Eigenpairs(values[:count].numpy(), basis[:count].T, residual, restarts)
            is_close = residual < _CLOSE * tolerance
        if is_full:
            kept = min(count + int((size - count) * _KEPT_SHARE), size - 2 * _BLOCK)
            _rotate(basis[:size], rotation[:, :kept])
            projected.zero_()
            projected[:kept, :kept] = torch.diag(values[:kept])
            coupling = coupling @ rotation[size - _BLOCK :, :kept]
            size, overlapped, restarts = kept, 0, restarts + 1
        else:
            overlapped = size - _BLOCK
        coupled = slice(size - coupling.shape[1], size)
        basis[size : size + _BLOCK] = following
        projected[size : size + _BLOCK, coupled] = coupling
        projected[coupled, size : size + _BLOCK] = coupling.T
        size += _BLOCK


def count_basis_columns(count: int) -> int:
    """Get the number of vectors in the Krylov basis for `count` eigenpairs."""
    return max(3 * count, 2 * count + _LEAST_SPARE)


def _expand_basis(
    operator: torch.Tensor, basis: torch.Tensor, projected: torch.Tensor, size: int, overlapped: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Write the newest block's inner products; return the next block (b, n) and its coupling (b, b) to it."""
    newest = basis[size - _BLOCK : size]
    product = (operator @ newest.T.contiguous()).T.contiguous()
    recent = slice(overlapped, size)
    coefficients = basis[recent] @ product.T
    product -= coefficients.T @ basis[recent]
    inner = torch.zeros((size, _BLOCK), device=product.device)
    inner[recent] = coefficients
    # Then against the whole basis: in float32 once is not enough; and again while that takes much away.
    for _ in range(_MOST_CORRECTIONS):
        before = torch.linalg.norm(product, dim=1)
        correction = basis[:size] @ product.T
        product -= correction.T @ basis[:size]
        inner += correction
        if (torch.linalg.norm(product, dim=1) > 0.7 * before).all():
            break
    projected[:size, size - _BLOCK : size] = inner.double().cpu()
    projected[size - _BLOCK : size, :size] = projected[:size, size - _BLOCK : size].T
    return _orthonormalise(product, basis[:size])


def _orthonormalise(rows: torch.Tensor, basis: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Orthonormalise rows (b, n) that are orthogonal to `basis`; also R (float64), with rows = R^T @ result."""
    total = torch.eye(len(rows), dtype=torch.float64)
    try:
        result = rows
        for _ in range(2):
            gram = (result @ result.T).double().cpu()
            shift = 1e-10 * gram.trace() * torch.eye(len(gram), dtype=torch.float64)
            factor = torch.linalg.cholesky(gram + shift)
            if factor.diagonal().min() < _LEAST_CONDITION * factor.diagonal().max():
                raise torch.linalg.LinAlgError
            result = torch.linalg.inv(factor).to(rows) @ result
            total = factor.T @ total
        return result, total
    except torch.linalg.LinAlgError:
        # Dependent rows, as of equal objects: QR puts arbitrary directions for them, which have no share in R.
        columns, triangle = torch.linalg.qr(rows.T)
        for _ in range(2):
            columns = columns - basis.T @ (basis @ columns)
            columns, factor = torch.linalg.qr(columns)
            triangle = factor @ triangle
        return columns.T.contiguous(), triangle.double().cpu()


def _rotate(basis: torch.Tensor, rotation: torch.Tensor) -> None:
    """Replace the first rows of `basis` (size, n) by rotation^T @ basis, a slice of columns at a time."""
    weights = rotation.T.to(basis)
    for start in range(0, basis.shape[1], _COLUMNS_AT_ONCE):
        columns = basis[:, start : start + _COLUMNS_AT_ONCE]
        columns[: len(weights)] = weights @ columns


def build_sparse_tensor(matrix: csr_array, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Convert a sparse matrix (n, n) to a sparse CSR tensor with values of `dtype` on `device`."""
    starts, columns, values = (torch.from_numpy(one) for one in (matrix.indptr, matrix.indices, matrix.data))
    return build_csr_tensor(starts.to(device), columns.to(device), values.to(dtype).to(device))
