"""The symmetric graph of neighbours on the host, W = (A + A^T) / 2, by SciPy."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array


def join_neighbors(indices: np.ndarray) -> csr_array:
    """Join rows with their neighbours; see `Backend.join_neighbors`."""
    n, count = indices.shape
    kind = _choose_kind(indices)
    indptr = np.arange(0, (n + 1) * count, count, dtype=kind)
    ones = np.ones(indices.size, np.float32)
    directed = csr_array((ones, indices.ravel().astype(kind, copy=False), indptr), shape=(n, n))
    directed.sum_duplicates()
    directed.data[:] = 1
    del ones, indptr  # to save memory: as large as the graph
    affinity = (directed + directed.T.tocsr()).tocsr()
    del directed
    affinity.data *= np.float32(0.5)
    affinity.sort_indices()
    return affinity


def _choose_kind(indices: np.ndarray) -> type[np.int32] | type[np.int64]:
    return np.int32 if has_room_in_32_bits(indices.size) else np.int64


def has_room_in_32_bits(links: int) -> bool:
    """Whether positions among so many links do, also those of the sum of both directions."""
    return 2 * links < 2**31
