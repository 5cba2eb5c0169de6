"""Products of a sparse matrix on the host with blocks of vectors, by SciPy in several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from fastcomus.backends.machine import count_cores
from fastcomus.backends.threads import Threads, start_threads

_SLICE = 8_192  # entries of a vector; a fixed number, so that sums do not depend on the threads


class SparseOperator:
    """A sparse matrix (n, n) that multiplies blocks of vectors; see `filtered_operator.Operator`.

    Each thread multiplies a part of its rows. Results do not depend on the number of threads.
    """

    def __init__(self, matrix: csr_array, threads: Threads) -> None:
        self._threads, self._parts = threads, []
        shares = np.searchsorted(matrix.indptr, np.linspace(0, matrix.nnz, threads.count + 1)[1:-1])  # of the entries
        bounds = [0, *shares.tolist(), matrix.shape[0]]
        for first, last in pairwise(bounds):
            starts = matrix.indptr[first : last + 1]
            own = slice(starts[0], starts[-1])
            content = matrix.data[own], matrix.indices[own], starts - starts[0]
            self._parts.append(csr_array(content, shape=(last - first, matrix.shape[1])))

    def __matmul__(self, block: np.ndarray) -> np.ndarray:
        """Multiply a block (n, b), float32 or float64; gives (n, b)."""
        products: np.ndarray = np.concatenate(self._threads.map(lambda part: part @ block, self._parts))
        return products

    def map_slices(self, function: Callable[[slice], Any], length: int) -> list[Any]:
        """Apply a function to slices of [0, length), in the threads; results in order."""
        slices = [slice(start, min(start + _SLICE, length)) for start in range(0, length, _SLICE)]
        return self._threads.map(function, slices)


@contextmanager
def open_operator(matrix: csr_array) -> Iterator[SparseOperator]:
    """Start the threads that multiply by a matrix (n, n) inside the block."""
    with start_threads(count_cores()) as threads:
        yield SparseOperator(matrix, threads)
