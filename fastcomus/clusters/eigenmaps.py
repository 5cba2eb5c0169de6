"""The Laplacian eigenmaps of a graph (step 5; the paper's section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_array

from fastcomus.backends.interface import Backend
from fastcomus.backends.placed import Graph, Rows, fetch, get_namespace, make_contiguous, put_beside
from fastcomus.backends.sparse_operator import open_operator
from fastcomus.clusters.graph import FEW_ROWS, KnnGraph, drop_loops
from fastcomus.clusters.sample_size import step_up
from fastcomus.errors import InputError

if TYPE_CHECKING:
    from fastcomus.backends.device_graph import DeviceGraph

_ROWS_AT_ONCE = 65_536
_COLUMNS_AT_ONCE = 8


@dataclass(frozen=True)
class Eigenmaps:
    """The first C eigenvectors of a graph's normalised Laplacian, with what tells how exact they are.

    Attributes:
        placed: (N, C) float32, one row per object, where they were computed.
        eigenvalues: (C,) float64, ascending.
        residual: The largest |W' v - mu v| over the eigenpairs (mu, v) of W' = D^-1/2 W D^-1/2.
        orthonormality: The largest entry of |V^T V - I|.
    """

    placed: Rows
    eigenvalues: np.ndarray
    residual: float
    orthonormality: float

    @cached_property
    def rows(self) -> np.ndarray:
        """The rows on the host."""
        return fetch(self.placed)

    def take_first(self, count: int) -> Eigenmaps:
        """Return the first `count` of them."""
        placed = make_contiguous(self.placed[:, :count])
        first = replace(self, placed=placed, eigenvalues=self.eigenvalues[:count])
        if "rows" in self.__dict__:  # fetched already
            first.__dict__["rows"] = np.ascontiguousarray(self.rows[:, :count])
        return first


def compute_eigenmaps(
    affinity: Graph, n_components: int, seed: int, backend: Backend, order: np.ndarray | None = None
) -> Eigenmaps:
    """Compute the first eigenvectors of L = I - D^-1/2 W D^-1/2, the constant one kept, rescaled by D^-1/2.

    Args:
        affinity: W, (N, N) symmetric; its diagonal is ignored.
        n_components: C, in [1, N].
        seed: For the start of the eigensolver.
        backend: Solves for the eigenvectors, on its device.
        order: (N,) integers, the rows in an order in which products with W are fast; the result does not depend on it.

    Returns:
        The eigenmaps, in the order of the rows of W, on the device if W or the memory for it was there.

    Raises:
        ArithmeticError: If the solver did not converge (residual or deviation from orthonormality above 1e-3).
    """
    # As in scikit-learn, which the original program calls, the diagonal counts neither in W nor in the degrees D.
    affinity = backend.put_graph(affinity)
    if not isinstance(affinity, csr_array):
        return _compute_there(affinity.drop_loops(), n_components, seed, backend)
    affinity = drop_loops(affinity)
    if order is not None and (np.diff(order) == 1).all():
        order = None  # they stand in it already
    if order is not None:
        affinity = _reorder(affinity, order)
    degrees = np.asarray(affinity.sum(axis=1)).ravel().astype(np.float64)
    # Also as in scikit-learn, a row without links has degree 1.
    scale = 1 / np.sqrt(np.where(degrees > 0, degrees, 1))
    values, found = backend.find_eigenvectors(affinity, n_components, seed)
    vectors = fetch(found)
    with open_operator(affinity) as operator:
        errors = _measure_errors(operator, scale, vectors, values)
    rows = np.empty(vectors.shape, np.float32)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        rows[part if order is None else order[part]] = scale[part, None] * vectors[part]
    return Eigenmaps(rows, 1 - values, *errors)


def require_eigenmaps(graph: KnnGraph, count: int, seed: int, backend: Backend) -> Eigenmaps:
    """Compute the first `count` eigenmaps of a graph; see `compute_eigenmaps`.

    Of a graph with many nodes as many are computed as `step_up` says, and the first returned, since those are kept for
    other counts where the graph has a keeper. More cost hardly any time: the last ones converge sooner.

    Raises:
        InputError: If the solver did not converge.
    """
    n = graph.size
    solved = count if n <= FEW_ROWS else min(n, step_up(count))

    def solve() -> Eigenmaps:
        try:
            return compute_eigenmaps(graph.placed, solved, seed, backend, graph.order)
        except ArithmeticError as error:
            remedy = "raise n_neighbors or change the seed" if graph.n_neighbors else "change the seed"
            raise InputError(f"{error}; {remedy}.") from error

    maps = solve() if graph.keeper is None else graph.keeper.find_maps(solved, solve)
    return maps if solved == count else maps.take_first(count)


def extend_eigenmaps(
    rows: np.ndarray, eigenvalues: np.ndarray, neighbours: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Compute the eigenmaps of new objects by Nystroem's extension (Bengio et al., "Out-of-sample extensions", 2003).

    A new row is the weighted mean of its neighbours' rows, each column divided by mu = 1 - eigenvalue; for the rows of
    the graph itself, with its own weights, W y = mu D y says the same.

    Args:
        rows: (N, C) float32 eigenmaps.
        eigenvalues: (C,) of the normalised Laplacian; those near 1 say nothing of clusters and should not occur.
        neighbours: (M, n) integers, the rows nearest to each new object, nearest first.
        weights: (n,) positive, of the nearest, the second, and so on.

    Returns:
        (M, C) float32.
    """
    count = neighbours.shape[1]
    indptr = np.arange(0, neighbours.size + 1, count)
    shares = np.tile((weights / weights.sum()).astype(np.float32), len(neighbours))
    means = csr_array((shares, neighbours.ravel(), indptr), shape=(len(neighbours), len(rows))) @ rows
    extended: np.ndarray = means / np.maximum(1 - eigenvalues, 1e-3)
    return extended.astype(np.float32)


def _compute_there(graph: DeviceGraph, n_components: int, seed: int, backend: Backend) -> Eigenmaps:
    """Do the same on the device where the graph is, which has no loops."""
    degrees = graph.sum_rows()
    xp = get_namespace(degrees)
    scale = 1 / xp.sqrt(xp.where(degrees > 0, degrees, 1))
    values, found = backend.find_eigenvectors(graph, n_components, seed)
    vectors: Any = put_beside(scale, found) if isinstance(found, np.ndarray) else found
    errors = _measure_errors(graph.build_operator(xp.float64), scale, vectors, values)
    return Eigenmaps(xp.asarray(scale[:, None] * vectors, dtype=xp.float32), 1 - values, *errors)


def _measure_errors(operator: Any, scale: Any, vectors: Any, values: np.ndarray) -> tuple[float, float]:
    """The largest |W' v - mu v| of the eigenvectors (N, C), and the largest entry of |V^T V - I|, both in float64.

    `operator`: multiplies by W. `scale`: D^-1/2, (N,). A few columns and rows at a time, to save memory.
    """
    xp = get_namespace(scale)
    mu, largest = put_beside(scale, values), []
    for start in range(0, vectors.shape[1], _COLUMNS_AT_ONCE):
        some = xp.asarray(vectors[:, start : start + _COLUMNS_AT_ONCE], dtype=xp.float64)
        products = operator @ make_contiguous(scale[:, None] * some)
        rest = scale[:, None] * products - some * mu[start : start + _COLUMNS_AT_ONCE]
        largest.append(xp.max(xp.linalg.vector_norm(rest, axis=0)))
    gram = xp.zeros((vectors.shape[1],) * 2, dtype=xp.float64, device=scale.device)
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        wide = xp.asarray(vectors[start : start + _ROWS_AT_ONCE], dtype=xp.float64)
        gram += wide.T @ wide
    residual = float(xp.max(xp.stack(largest)))
    orthonormality = float(np.abs(fetch(gram) - np.eye(len(gram))).max())
    if not max(residual, orthonormality) < 1e-3:
        raise ArithmeticError(
            f"the eigensolver stopped at residual {residual:.1e} and orthonormality {orthonormality:.1e}"
        )
    return residual, orthonormality


def _reorder(matrix: csr_array, order: np.ndarray) -> csr_array:
    """`matrix[order][:, order]`, twice as fast as indexing does it."""
    places = np.empty(len(order), matrix.indices.dtype)
    places[order] = np.arange(len(order))
    turned = matrix[order]
    turned = csr_array((turned.data, places[turned.indices], turned.indptr), shape=matrix.shape)
    turned.sort_indices()
    return turned
