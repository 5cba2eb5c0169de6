"""Largest eigenpairs of a sparse symmetric matrix by a block Krylov method with thick restarts.

The matrix is not factorised: it is only multiplied with blocks of vectors, which is several times faster for a sparse
matrix than as many single products. (Block Lanczos: Golub and Underwood 1977; thick restarts: Wu and Simon 2000.)
Blocks of vectors are where the first one is, on the host or on a device; what has no entry for each row of the matrix
is computed on the host, in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcomus.backends.placed import InKind, Rows, fetch, get_namespace, make_contiguous, put_beside

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

    `values`: (k,) float64, descending. `vectors`: (n, k) float32, orthonormal. `residual`: the largest |A v - mu v|,
    estimated. `restarts`: How often the basis was compressed.
    """

    values: np.ndarray
    vectors: Any
    residual: float
    restarts: int


def draw_first_block(n: int, seed: int) -> np.ndarray:
    """Draw the random block (b, n) float32 from which `find_largest_eigenpairs` starts."""
    return np.random.default_rng(seed).standard_normal((_BLOCK, n), np.float32)


def find_largest_eigenpairs(
    operator: Any, first: Rows, count: int, tolerance: float = 1e-4, max_restarts: int = 30
) -> Eigenpairs:
    """Find the `count` largest eigenpairs of a symmetric matrix, where the first block is.

    Args:
        operator: What multiplies blocks (n, b) float32 by an (n, n) matrix, with `@`: a `SparseOperator`, or a sparse
            tensor on a device. It is symmetric, with n at least `count_basis_columns(count)` + 16.
        first: What `draw_first_block` gives, on the operator's device.
        count: Number of eigenpairs.
        tolerance: Stop when every residual |A v - mu v| is below it.
        max_restarts: Stop after so many restarts in any case; the caller checks `residual`.
    """
    n, columns = first.shape[1], count_basis_columns(count)
    assert n >= columns + _BLOCK, (n, columns)
    xp = get_namespace(first)
    basis = xp.empty((columns + _BLOCK, n), dtype=xp.float32, device=first.device)  # a vector a row: contiguous
    projected = np.zeros((columns + _BLOCK, columns + _BLOCK))
    basis[:_BLOCK] = _orthonormalise(first, basis[:0])[0]
    size, overlapped, restarts, is_close = _BLOCK, 0, 0, False
    while True:
        following, coupling = _expand_basis(operator, basis, projected, size, overlapped)
        is_full = size + _BLOCK > columns
        if is_full or is_close:
            block = projected[:size, :size]
            values, rotation = np.linalg.eigh((block + block.T) / 2)
            values, rotation = values[::-1], rotation[:, ::-1]
            residuals = np.linalg.norm(coupling @ rotation[size - _BLOCK :], axis=0)
            residual = float(residuals[:count].max())
            if residual < tolerance or (is_full and restarts == max_restarts):
                _rotate(basis[:size], rotation[:, :count])
                return Eigenpairs(values[:count].copy(), basis[:count].T, residual, restarts)
            is_close = residual < _CLOSE * tolerance
        if is_full:
            kept = min(count + int((size - count) * _KEPT_SHARE), size - 2 * _BLOCK)
            _rotate(basis[:size], rotation[:, :kept])
            projected[:] = 0
            projected[:kept, :kept] = np.diag(values[:kept])
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
    operator: Any, basis: InKind, projected: np.ndarray, size: int, overlapped: int
) -> tuple[InKind, np.ndarray]:
    """Write the newest block's inner products; return the next block (b, n) and its coupling (b, b) to it."""
    xp = get_namespace(basis)
    newest = basis[size - _BLOCK : size]
    product = make_contiguous((operator @ make_contiguous(newest.T)).T)
    recent = slice(overlapped, size)
    coefficients = basis[recent] @ product.T
    product -= coefficients.T @ basis[recent]
    inner = xp.zeros((size, _BLOCK), dtype=xp.float32, device=basis.device)
    inner[recent] = coefficients
    # Then against the whole basis: in float32 once is not enough; and again while that takes much away.
    for _ in range(_MOST_CORRECTIONS):
        before = xp.linalg.vector_norm(product, axis=1)
        correction = basis[:size] @ product.T
        product -= correction.T @ basis[:size]
        inner += correction
        if bool(xp.all(xp.linalg.vector_norm(product, axis=1) > 0.7 * before)):
            break
    projected[:size, size - _BLOCK : size] = fetch(inner)
    projected[size - _BLOCK : size, :size] = projected[:size, size - _BLOCK : size].T
    return _orthonormalise(product, basis[:size])


def _orthonormalise(rows: InKind, basis: InKind) -> tuple[InKind, np.ndarray]:
    """Orthonormalise rows (b, n) that are orthogonal to `basis`; also R (float64), with rows = R^T @ result."""
    total = np.eye(len(rows))
    result: Any = rows
    try:
        for _ in range(2):
            gram = fetch(result @ result.T).astype(np.float64)
            factor = np.linalg.cholesky(gram + 1e-10 * np.trace(gram) * np.eye(len(gram)))
            if factor.diagonal().min() < _LEAST_CONDITION * factor.diagonal().max():
                raise np.linalg.LinAlgError
            result = put_beside(rows, np.linalg.inv(factor).astype(np.float32)) @ result
            total = factor.T @ total
    except np.linalg.LinAlgError:
        # Dependent rows, as of equal objects: QR puts arbitrary directions for them, which have no share in R.
        xp = get_namespace(rows)
        columns, triangle = xp.linalg.qr(rows.T)
        for _ in range(2):
            columns = columns - basis.T @ (basis @ columns)
            columns, factor = xp.linalg.qr(columns)
            triangle = factor @ triangle
        return make_contiguous(columns.T), fetch(triangle).astype(np.float64)
    return result, total


def _rotate(basis: Any, rotation: np.ndarray) -> None:
    """Replace the first rows of `basis` (size, n) by rotation^T @ basis, a slice of columns at a time."""
    weights = put_beside(basis, np.ascontiguousarray(rotation.T, np.float32))
    for start in range(0, basis.shape[1], _COLUMNS_AT_ONCE):
        columns = basis[:, start : start + _COLUMNS_AT_ONCE]
        columns[: len(weights)] = weights @ columns
