"""The largest eigenpairs of a graph on the host, component by component: dense, by ARPACK, or by the block solver."""

from __future__ import annotations

import inspect

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh

from fastcomus.backends.block_krylov import Eigenpairs, count_basis_columns, draw_first_block, find_largest_eigenpairs
from fastcomus.backends.placed import fetch
from fastcomus.backends.sparse_operator import open_operator

# Below this many rows per eigenvector a dense solver is both faster and safer than Lanczos.
_DENSE_ROWS_PER_COMPONENT = 4
# Up to here ARPACK in float64 is quick; beyond it the block solver in float32 takes a quarter of its time.
SMALL_GRAPH_ROWS = 5_000
_TORCH_ROWS = 100_000  # from there on torch's import, two seconds, is less than what it saves
_ROWS_AT_ONCE = 65_536


def find_graph_eigenvectors(affinity: csr_array, n_components: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the largest eigenpairs of D^-1/2 W D^-1/2; see `Backend.find_eigenvectors`."""
    scale = 1 / np.sqrt(np.asarray(affinity.sum(axis=1)).ravel().astype(np.float64))
    # Small problems in float64; in large ones the solver works in float32 anyway.
    kind = np.float64 if affinity.shape[0] <= SMALL_GRAPH_ROWS else np.float32
    matrix = csr_array((affinity.data.astype(kind), affinity.indices, affinity.indptr), shape=affinity.shape)
    for start in range(0, len(scale), _ROWS_AT_ONCE):
        ends = matrix.indptr[start : start + _ROWS_AT_ONCE + 1]
        links = slice(ends[0], ends[-1])
        own = np.repeat(scale[start : start + _ROWS_AT_ONCE], np.diff(ends))
        matrix.data[links] *= scale[matrix.indices[links]] * own
    # Part by part, the largest first: each has an eigenvalue 1, and Lanczos overlooks copies of an eigenvalue.
    # As many parts as vectors are enough: each has that eigenvalue.
    parts = _split_components(find_graph_components(matrix))[:n_components]
    found = [
        solve_connected_graph(matrix if len(rows) == len(scale) else matrix[rows][:, rows], n_components, seed)
        for rows in parts
    ]
    values = np.concatenate([part_values for part_values, _ in found])
    owners = np.repeat(np.arange(len(parts)), [len(part_values) for part_values, _ in found])
    columns = np.concatenate([np.arange(len(part_values)) for part_values, _ in found])
    order = np.argsort(-values, kind="stable")[:n_components]
    if len(parts) == 1 and len(parts[0]) == len(scale) and (order == np.arange(len(order))).all():
        return values.astype(np.float64), _fix_signs(found[0][1])
    vectors = np.zeros((len(scale), len(order)), matrix.dtype)
    for target, (owner, column) in enumerate(zip(owners[order], columns[order], strict=True)):
        vectors[parts[owner], target] = found[owner][1][:, column]
    return values[order].astype(np.float64), _fix_signs(vectors)


def find_graph_components(affinity: csr_array) -> np.ndarray:
    """Find the connected components of a symmetric graph (N, N); gives the number of each node's, (N,) int32."""
    # In a symmetric graph the strong parts are the parts, and are found without transposing it.
    part: np.ndarray = connected_components(affinity, connection="strong")[1]
    return part


def _split_components(part: np.ndarray) -> list[np.ndarray]:
    """Split the rows of a graph by their components, the largest first."""
    sizes = np.bincount(part)
    rows = np.split(np.argsort(part, kind="stable"), np.cumsum(sizes)[:-1])
    return [rows[i] for i in np.argsort(-sizes, kind="stable")]


def solve_connected_graph(matrix: csr_array, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the largest eigenpairs of a connected graph's D^-1/2 W D^-1/2 on the CPU.

    Args:
        matrix: D^-1/2 W D^-1/2, (n, n) float64; float32 for large graphs.
        count: Number of eigenpairs, of which there are no more than n.
        seed: Seed of the random start.

    Returns:
        Eigenvalues, descending from 1, and unit eigenvectors in the columns.
    """
    n = matrix.shape[0]
    if n <= max(_DENSE_ROWS_PER_COMPONENT * count, 64):
        values, vectors = np.linalg.eigh(matrix.toarray())
        values, vectors = values[-count:], vectors[:, -count:]
    elif n <= SMALL_GRAPH_ROWS:
        start = np.random.default_rng(seed).uniform(-1, 1, n)
        # A wide basis: eigenvalues near 1 are as many as there are clusters, and a narrow one stalls on them.
        ncv = min(n - 1, count_basis_columns(count))
        # Where the Krylov space is too small, it goes on from random numbers; SciPy takes a seed from 1.17 on.
        seeds = {"rng": seed} if "rng" in inspect.signature(eigsh).parameters else {}
        values, vectors = eigsh(matrix, k=count, which="LA", v0=start, ncv=ncv, tol=1e-8, **seeds)
    else:
        pairs = _solve_large_graph(matrix, count, seed)
        values, vectors = pairs.values, fetch(pairs.vectors)
    values, order = sort_eigenpairs(values)
    return values, vectors[:, order]


def _solve_large_graph(matrix: csr_array, count: int, seed: int) -> Eigenpairs:
    """Let NumPy and SciPy multiply, or torch where that is worth its import: it takes two thirds of the time."""
    first = draw_first_block(matrix.shape[0], seed)
    if matrix.shape[0] <= _TORCH_ROWS:
        with open_operator(matrix) as operator:
            return find_largest_eigenpairs(operator, first, count)
    import torch

    from fastcomus.backends.device_graph import DeviceOperator, put_graph, put_rows

    cpu = torch.device("cpu")
    return find_largest_eigenpairs(DeviceOperator(put_graph(matrix, cpu)), put_rows(first, cpu), count)


def sort_eigenpairs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort eigenvalues (c,) of a connected graph, descending, and set the first to 1; give them and their order."""
    order = np.argsort(-values, kind="stable")
    values = values[order]
    values[0] = 1  # up to rounding, which must not decide between parts
    return values, order


def _fix_signs(vectors: np.ndarray) -> np.ndarray:
    """Turn eigenvectors in place so that the entry of largest absolute value is positive, which makes runs agree."""
    for vector in vectors.T:
        if vector[np.argmax(np.abs(vector))] < 0:
            vector *= -1  # NumPy 2.3 negates float64 columns wrongly in place
    return vectors
