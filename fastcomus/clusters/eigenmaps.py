"""The Laplacian eigenmaps of a graph (step 5; the paper's section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import csr_array

from fastcomus.backends.block_krylov import build_sparse_tensor
from fastcomus.backends.interface import Backend
from fastcomus.clusters.graph import FEW_ROWS, KnnGraph, drop_loops
from fastcomus.errors import InputError

_ROWS_AT_ONCE = 65_536
_COLUMNS_AT_ONCE = 8


@dataclass(frozen=True)
class Eigenmaps:
    """The first C eigenvectors of a graph's normalised Laplacian, with what tells how exact they are.

    Attributes:
        rows: (N, C) float32, one row per object.
        eigenvalues: (C,) float64, ascending.
        residual: The largest |W' v - mu v| over the eigenpairs (mu, v) of W' = D^-1/2 W D^-1/2.
        orthonormality: The largest entry of |V^T V - I|.
    """

    rows: np.ndarray
    eigenvalues: np.ndarray
    residual: float
    orthonormality: float

    def take_first(self, count: int) -> Eigenmaps:
        """Return the first `count` of them."""
        return replace(self, rows=np.ascontiguousarray(self.rows[:, :count]), eigenvalues=self.eigenvalues[:count])


def compute_eigenmaps(
    affinity: csr_array, n_components: int, seed: int, backend: Backend, order: np.ndarray | None = None
) -> Eigenmaps:
    """Compute the first eigenvectors of L = I - D^-1/2 W D^-1/2, the constant one kept, rescaled by D^-1/2.

    Args:
        affinity: W, (N, N) symmetric; its diagonal is ignored.
        n_components: C, in [1, N].
        seed: For the start of the eigensolver.
        backend: Solves for the eigenvectors.
        order: (N,) integers, the rows in an order in which products with W are fast; the result does not depend on it.

    Returns:
        The eigenmaps, in the order of the rows of W.

    Raises:
        ArithmeticError: If the solver did not converge (residual or deviation from orthonormality above 1e-3).
    """
    # As in scikit-learn, which the original program calls, the diagonal counts neither in W nor in the degrees D.
    affinity = drop_loops(affinity)
    if order is not None and (np.diff(order) == 1).all():
        order = None  # they stand in it already
    if order is not None:
        affinity = _reorder(affinity, order)
    degrees = np.asarray(affinity.sum(axis=1)).ravel().astype(np.float64)
    # Also as in scikit-learn, a row without links has degree 1.
    scale = 1 / np.sqrt(np.where(degrees > 0, degrees, 1))
    values, vectors = backend.find_eigenvectors(affinity, n_components, seed)
    residual, orthonormality = _measure_errors(affinity, scale, values, vectors, backend.device)
    if not max(residual, orthonormality) < 1e-3:
        raise ArithmeticError(
            f"the eigensolver stopped at residual {residual:.1e} and orthonormality {orthonormality:.1e}; "
            "raise n_neighbors or change the seed"
        )
    rows = np.empty(vectors.shape, np.float32)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        rows[part if order is None else order[part]] = scale[part, None] * vectors[part]
    return Eigenmaps(rows, 1 - values, residual, orthonormality)


def require_eigenmaps(graph: KnnGraph, count: int, seed: int, backend: Backend) -> Eigenmaps:
    """Compute the first `count` eigenmaps of a graph; see `compute_eigenmaps`.

    Of a graph with many nodes as many are computed as `step_up` says, and the first returned, since those are kept for
    other counts where the graph has a keeper. More cost hardly any time: the last ones converge sooner.

    Raises:
        InputError: If the solver did not converge.
    """
    n = graph.affinity.shape[0]
    solved = count if n <= FEW_ROWS else min(n, step_up(count))

    def solve() -> Eigenmaps:
        try:
            return compute_eigenmaps(graph.affinity, solved, seed, backend, graph.order)
        except ArithmeticError as error:
            raise InputError(f"{error}.") from error

    maps = solve() if graph.keeper is None else graph.keeper.find_maps(solved, solve)
    return maps if solved == count else maps.take_first(count)


def step_up(count: int) -> int:
    """Return the next of 16, 24, 32, 48, 64, 96, 128, ... that is not below `count`."""
    step = 16
    while step < count:
        step = step * 3 // 2 if step & (step - 1) == 0 else step * 4 // 3
    return step


def extend_eigenmaps(rows: np.ndarray, eigenvalues: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Compute the eigenmaps of new objects by Nystroem's extension (Bengio et al., "Out-of-sample extensions", 2003).

    A new row is the mean of its neighbours' rows, each column divided by mu = 1 - eigenvalue; for the rows of the graph
    itself, W y = mu D y says the same.

    Args:
        rows: (N, C) float32 eigenmaps.
        eigenvalues: (C,) of the normalised Laplacian; those near 1 say nothing of clusters and should not occur.
        neighbours: (M, n) integers, the rows nearest to each new object.

    Returns:
        (M, C) float32.
    """
    count = neighbours.shape[1]
    indptr = np.arange(0, neighbours.size + 1, count)
    weights = np.full(neighbours.size, 1 / count, np.float32)
    means = csr_array((weights, neighbours.ravel(), indptr), shape=(len(neighbours), len(rows))) @ rows
    extended: np.ndarray = means / np.maximum(1 - eigenvalues, 1e-3)
    return extended.astype(np.float32)


def _measure_errors(
    affinity: csr_array, scale: np.ndarray, values: np.ndarray, vectors: np.ndarray, device: torch.device
) -> tuple[float, float]:
    """The largest |W' v - mu v| of the eigenvectors (N, C), and the largest entry of |V^T V - I|, both in float64.

    `scale`: D^-1/2, (N,). A few columns and rows at a time, to save memory.
    """
    operator = build_sparse_tensor(affinity, device, torch.float64)
    factors, found = (torch.from_numpy(one).to(device) for one in (scale, np.ascontiguousarray(vectors)))
    largest = 0.0
    for start in range(0, vectors.shape[1], _COLUMNS_AT_ONCE):
        some = found[:, start : start + _COLUMNS_AT_ONCE].double()
        products = operator @ (factors[:, None] * some)
        mu = torch.from_numpy(values[start : start + _COLUMNS_AT_ONCE]).to(device)
        rest = products.mul_(factors[:, None]).sub_(some * mu)
        largest = max(largest, float(rest.norm(dim=0).max()))
    gram = torch.zeros((vectors.shape[1],) * 2, dtype=torch.float64, device=device)
    for part in found.split(_ROWS_AT_ONCE):
        wide = part.double()
        gram += wide.T @ wide
    return largest, float((gram - torch.eye(len(gram), device=device)).abs().max())


def _reorder(matrix: csr_array, order: np.ndarray) -> csr_array:
    """`matrix[order][:, order]`, twice as fast as indexing does it."""
    places = np.empty(len(order), matrix.indices.dtype)
    places[order] = np.arange(len(order))
    turned = matrix[order]
    turned = csr_array((turned.data, places[turned.indices], turned.indptr), shape=matrix.shape)
    turned.sort_indices()
    return turned
