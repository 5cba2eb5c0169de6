"""The symmetric graph of neighbours, W = (A + A^T) / 2, and its components: by SciPy, or by torch on a device."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from fastcomus.backends.machine import measure_free_bytes

_BYTES_PER_LINK = 96  # of a device: keys of both directions in 64 bits, twice while they are sorted


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


@torch.inference_mode()
def join_neighbors_on(indices: np.ndarray, device: torch.device) -> csr_array:
    """Do the same on a device; on the host where its memory is too short."""
    n, kind = len(indices), _choose_kind(indices)
    if indices.size * _BYTES_PER_LINK > measure_free_bytes(device):
        return join_neighbors(indices)
    there = torch.from_numpy(np.ascontiguousarray(indices)).to(device).long()
    own = torch.arange(n, device=device)[:, None].expand_as(there)
    directed = (own * n + there).flatten().sort().values.unique_consecutive()
    del there, own
    keys = torch.cat([directed, directed % n * n + directed // n]).sort().values
    del directed
    keys, times = keys.unique_consecutive(return_counts=True)
    starts = torch.searchsorted(keys, torch.arange(n + 1, device=device) * n)
    data = (times.float() / 2).cpu().numpy()
    columns = (keys % n).cpu().numpy().astype(kind)
    affinity = csr_array((data, columns, starts.cpu().numpy().astype(kind)), shape=(n, n))
    affinity.has_sorted_indices = affinity.has_canonical_format = True
    return affinity


@torch.inference_mode()
def find_components_on(affinity: csr_array, device: torch.device) -> np.ndarray:
    """Find connected components on a device; see `Backend.find_components`.

    Every node takes the least number among its neighbours and among those of the node that its number names, until
    nothing changes: in a graph of neighbours after a few turns.
    """
    n = affinity.shape[0]
    if affinity.nnz * _BYTES_PER_LINK > measure_free_bytes(device):
        return np.asarray(connected_components(affinity, connection="strong")[1])
    columns = torch.from_numpy(affinity.indices).to(device).long()
    links = torch.from_numpy(np.diff(affinity.indptr)).to(device).long()
    rows = torch.repeat_interleave(links, output_size=affinity.nnz)
    numbers = torch.arange(n, device=device)
    while True:
        least = numbers.scatter_reduce(0, rows, numbers[columns], "amin")
        least = least.scatter_reduce(0, numbers, least, "amin")  # the node that gave the number learns of it, too
        least = least[least]
        if torch.equal(least, numbers):
            break
        numbers = least
    return torch.unique(numbers, return_inverse=True)[1].cpu().numpy()


def _choose_kind(indices: np.ndarray) -> type[np.int32] | type[np.int64]:
    """32-bit positions while they fit, also those of the sum of both directions."""
    return np.int32 if 2 * indices.size < 2**31 else np.int64
