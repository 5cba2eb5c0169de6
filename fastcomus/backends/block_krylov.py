"""Largest eigenpairs of a sparse symmetric matrix by a block Krylov method with thick restarts.

The matrix is not factorised: it is only multiplied with blocks of vectors, which is several times faster for a sparse
matrix than as many single products. (Block Lanczos: Golub and Underwood 1977; thick restarts: Wu and Simon 2000.)
Blocks of vectors are where the first one is, on the host or on a device; what has no entry for each row of the matrix
is computed on the host, in float64. On the host threads take slices of the vectors that do not depend on their number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcomus.backends.filtered_operator import FilteredOperator, Operator, PlainOperator
from fastcomus.backends.placed import InKind, Rows, fetch, get_namespace, make_contiguous, put_beside

_BLOCK = 16  # vectors in a product
_LEAST_SPARE = 96  # columns beyond 2 k; a basis of 60 columns for k = 20 stagnated
_GOOD_CONDITION = 0.1  # below it what rows share with the basis by rounding is removed once more
_LEAST_CONDITION = 1e-3  # below it rounding (1e-7) would be enlarged until the rows lean on the basis
_NEARLY_ORTHONORMAL = 0.1  # what deviates by less is orthonormal after another turn
_MOST_CORRECTIONS = 3
_MOST_LOOKS = 9  # at the residual, while the basis is filled
_LEAST_LOOKED_AT = 1.5  # times k columns; before, the residual is large
_BLOCKS_TO_CHOOSE = 5  # of the matrix itself, to choose its polynomial
_COUNTED_ABOVE = 2.5  # times k eigenvalues stand out: the count is rough, and too many cost little
_BESIDE = 0.03  # an interval that ended at an eigenvalue would let its vectors stand out by rounding alone
_CLEARLY = 1.2  # times the floor, what is wanted stands out
_BELOW_LEAST = 0.2  # what may be below the least eigenvalue of a short basis
_KEPT_SHARE = 0.4  # of the basis beyond k, at a restart
_COLUMNS_AT_ONCE = 4_096


@dataclass(frozen=True)
class Eigenpairs:
    """The k largest eigenpairs of a matrix.

    `values`: (k,) float64, descending. `vectors`: (n, k) float32, orthonormal. `residual`: a bound of all |A v - mu v|,
    but for rounding. `restarts`: How often the basis was compressed.
    """

    values: np.ndarray
    vectors: Any
    residual: float
    restarts: int


def draw_first_block(n: int, seed: int) -> np.ndarray:
    """Draw the random block (b, n) float32 from which `find_largest_eigenpairs` starts."""
    return np.random.default_rng(seed).standard_normal((_BLOCK, n), np.float32)


def find_largest_eigenpairs(
    operator: Operator, first: Rows, count: int, tolerance: float = 1e-4, max_restarts: int = 30
) -> Eigenpairs:
    """Find the `count` largest eigenpairs of a symmetric matrix, where the first block is.

    Args:
        operator: The matrix, with n at least `count_basis_columns(count)` + 16: a `SparseOperator` or a
            `DeviceOperator`.
        first: What `draw_first_block` gives, where the operator is.
        count: Number of eigenpairs.
        tolerance: Stop when every residual |A v - mu v| is below it.
        max_restarts: Stop after so many restarts in any case; the caller checks `residual`.
    """
    n, columns = first.shape[1], count_basis_columns(count)
    assert n >= columns + _BLOCK, (n, columns)
    xp = get_namespace(first)
    basis = xp.empty((columns + _BLOCK, n), dtype=xp.float32, device=first.device)  # a vector a row: contiguous
    filtered, start = _choose_filter(operator, first, count, basis)
    found = _solve(filtered, start, count, tolerance, max_restarts, basis)
    if found is None:
        found = _solve(PlainOperator(operator), start, count, tolerance, max_restarts, basis)
        assert found is not None
    return found


def _choose_filter(operator: Operator, first: Any, count: int, basis: Any) -> tuple[PlainOperator, Any]:
    """Choose a polynomial that is small below the largest eigenvalues, somewhat more than are wanted.

    A short Krylov basis tells how many there are above each of its own: the first block is random, so that the squares
    of its shares in them add up to a share of n. (Lin, Saad and Yang, "Approximating spectral densities of large
    matrices", SIAM Review 58, 2016.)

    Returns:
        The polynomial and the first block without its share below; the matrix itself where most of it is wanted.
    """
    size = _BLOCKS_TO_CHOOSE * _BLOCK
    projected = np.zeros((size, size))
    basis[:_BLOCK] = _orthonormalise(operator, first, basis[:0])[0]
    for known in range(_BLOCK, size, _BLOCK):
        added = _expand_basis(operator, basis, projected, known, max(0, known - 2 * _BLOCK))
        _add_block(basis, projected, known, *added)
    _expand_basis(operator, basis, projected, size, size - 2 * _BLOCK)
    values, rotation = _find_ritz_pairs(projected)
    counts = np.cumsum((rotation[:_BLOCK] ** 2).sum(axis=0)) * first.shape[1] / _BLOCK
    place = int(np.searchsorted(counts, _COUNTED_ABOVE * count))
    lower = max(-1.0, float(values[-1]) - _BELOW_LEAST)
    if place >= size - 1 or values[place] - lower < _BELOW_LEAST:
        return PlainOperator(operator), first
    above = rotation[:, : max(place + 1, _BLOCK)]  # not fewer, or the block would be dependent
    weights: Any = put_beside(basis, np.ascontiguousarray(above[:_BLOCK] @ above.T, np.float32))
    return FilteredOperator(operator, lower, float(values[place]) - _BESIDE), weights @ basis[:size]


def _solve(
    operator: PlainOperator, first: Any, count: int, tolerance: float, max_restarts: int, basis: Any
) -> Eigenpairs | None:
    """Find the eigenpairs; None where some seem to be below what the polynomial lets stand out."""
    columns = len(basis) - _BLOCK
    projected = np.zeros((len(basis), len(basis)))
    basis[:_BLOCK] = _orthonormalise(operator, first, basis[:0])[0]
    size, overlapped, restarts = _BLOCK, 0, 0
    blocks_between = max(1, columns // (_MOST_LOOKS * _BLOCK))  # each look solves for all of `projected`
    while True:
        following, coupling = _expand_basis(operator, basis, projected, size, overlapped)
        is_full = size + _BLOCK > columns
        if is_full or (size > _LEAST_LOOKED_AT * count and size // _BLOCK % blocks_between == 0):
            values, rotation = _find_ritz_pairs(projected[:size, :size])
            residuals = np.linalg.norm(coupling @ rotation[size - _BLOCK :], axis=0)
            residual = float(operator.limit_residuals(residuals[:count], values[:count]).max())
            if is_full and not values[count - 1] > _CLEARLY * operator.floor:
                return None
            if residual < tolerance or (is_full and restarts == max_restarts):
                _rotate(operator, basis[:size], rotation[:, :count])
                return Eigenpairs(operator.find_eigenvalues(values[:count]), basis[:count].T, residual, restarts)
        if is_full:
            kept = min(count + int((size - count) * _KEPT_SHARE), size - 2 * _BLOCK)
            _rotate(operator, basis[:size], rotation[:, :kept])
            projected[:] = 0
            projected[:kept, :kept] = np.diag(values[:kept])
            coupling = coupling @ rotation[size - _BLOCK :, :kept]
            size, overlapped, restarts = kept, 0, restarts + 1
        else:
            overlapped = size - _BLOCK
        _add_block(basis, projected, size, following, coupling)
        size += _BLOCK


def count_basis_columns(count: int) -> int:
    """Get the number of vectors in the Krylov basis for `count` eigenpairs."""
    return max(3 * count, 2 * count + _LEAST_SPARE)


def _expand_basis(
    operator: Operator, basis: InKind, projected: np.ndarray, size: int, overlapped: int
) -> tuple[InKind, np.ndarray]:
    """Write the newest block's inner products; return the next block (b, n) and its coupling (b, b) to it."""
    xp = get_namespace(basis)
    newest = basis[size - _BLOCK : size]
    product = make_contiguous((operator @ make_contiguous(newest.T)).T)
    recent = slice(overlapped, size)
    inner = xp.zeros((size, _BLOCK), dtype=xp.float32, device=basis.device)
    inner[recent] = _remove_share(operator, product, basis[recent])
    # Then against the whole basis: in float32 once is not enough; and again while that takes much away.
    for _ in range(_MOST_CORRECTIONS):
        before = xp.linalg.vector_norm(product, axis=1)
        inner += _remove_share(operator, product, basis[:size])
        if bool(xp.all(xp.linalg.vector_norm(product, axis=1) > 0.7 * before)):
            break
    projected[:size, size - _BLOCK : size] = fetch(inner)
    projected[size - _BLOCK : size, :size] = projected[:size, size - _BLOCK : size].T
    return _orthonormalise(operator, product, basis[:size])


def _add_block(basis: Any, projected: np.ndarray, size: int, following: Any, coupling: np.ndarray) -> None:
    """Add the next block (b, n), which the matrix couples (b, m) to the last m rows of the basis."""
    coupled, added = slice(size - coupling.shape[1], size), slice(size, size + _BLOCK)
    basis[added] = following
    projected[added, coupled] = coupling
    projected[coupled, added] = coupling.T


def _find_ritz_pairs(projected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the eigenvalues of a projected matrix, descending, and its eigenvectors in the columns."""
    values, rotation = np.linalg.eigh((projected + projected.T) / 2)
    return values[::-1], rotation[:, ::-1]


def _remove_share(operator: Operator, rows: Any, basis: Any) -> Any:
    """Take from rows (b, n), in place, their share in the span of `basis` (m, n); return its coefficients (m, b)."""
    coefficients = _multiply_turned(operator, basis, rows)

    def remove(part: slice) -> None:
        rows[:, part] -= coefficients.T @ basis[:, part]

    operator.map_slices(remove, rows.shape[1])
    return coefficients


def _multiply_turned(operator: Operator, left: Any, right: Any) -> Any:
    """Compute left @ right^T of rows (m, n) and (b, n): the sum over the slices, in order."""
    first, *rest = operator.map_slices(lambda part: left[:, part] @ right[:, part].T, left.shape[1])
    for one in rest:
        first += one
    return first


def _orthonormalise(operator: Operator, rows: InKind, basis: InKind) -> tuple[InKind, np.ndarray]:
    """Orthonormalise rows (b, n) that are orthogonal to `basis`; also R (float64), with rows = R^T @ result."""
    total = np.eye(len(rows))
    result: Any = rows
    try:
        for _ in range(_MOST_CORRECTIONS + 1):
            gram = fetch(_multiply_turned(operator, result, result)).astype(np.float64)
            factor = np.linalg.cholesky(gram + 1e-10 * np.trace(gram) * np.eye(len(gram)))
            if factor.diagonal().min() < _LEAST_CONDITION * factor.diagonal().max():
                raise np.linalg.LinAlgError
            result = put_beside(rows, np.linalg.inv(factor).astype(np.float32)) @ result
            total = factor.T @ total
            if np.abs(gram - np.eye(len(gram))).max() < _NEARLY_ORTHONORMAL:
                break
            if len(basis) and factor.diagonal().min() < _GOOD_CONDITION * factor.diagonal().max():
                _remove_share(operator, result, basis)
        else:
            raise np.linalg.LinAlgError
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


def _rotate(operator: Operator, basis: Any, rotation: np.ndarray) -> None:
    """Replace the first rows of `basis` (size, n) by rotation^T @ basis, a few columns at a time."""
    weights = put_beside(basis, np.ascontiguousarray(rotation.T, np.float32))

    def rotate(part: slice) -> None:
        for start in range(part.start, part.stop, _COLUMNS_AT_ONCE):
            columns = basis[:, start : min(start + _COLUMNS_AT_ONCE, part.stop)]
            columns[: len(weights)] = weights @ columns

    operator.map_slices(rotate, basis.shape[1])
