"""Products of a sparse matrix on the host with blocks of vectors, by SciPy in several threads."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from scipy.sparse import csr_array

from fastcomus.backends.machine import count_cores


class SparseOperator:
    """A sparse matrix (n, n) that multiplies blocks of vectors; each thread multiplies a part of its rows.

    The products do not depend on the number of threads.
    """

    def __init__(self, matrix: csr_array, pool: ThreadPoolExecutor, parts: int) -> None:
        self._pool, self._parts = pool, []
        shares = np.searchsorted(matrix.indptr, np.linspace(0, matrix.nnz, parts + 1)[1:-1])  # of the entries
        self._bounds = [0, *shares.tolist(), matrix.shape[0]]
        for first, last in zip(self._bounds, self._bounds[1:], strict=False):
            starts = matrix.indptr[first : last + 1]
            own = slice(starts[0], starts[-1])
            content = matrix.data[own], matrix.indices[own], starts - starts[0]
            self._parts.append(csr_array(content, shape=(last - first, matrix.shape[1])))

    def __matmul__(self, block: np.ndarray) -> np.ndarray:
        """Multiply a block (n, b), float32 or float64; gives (n, b)."""
        products: np.ndarray = np.concatenate(list(self._pool.map(lambda part: part @ block, self._parts)))
        return products


@contextmanager
def open_operator(matrix: csr_array) -> Iterator[SparseOperator]:
    """Start the threads that multiply by a matrix (n, n) inside the block."""
    threads = count_cores()
    with ThreadPoolExecutor(threads) as pool:
        yield SparseOperator(matrix, pool, threads)
