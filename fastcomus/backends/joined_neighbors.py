"""The symmetric graph of neighbours, W = (A + A^T) / 2, and its components: by SciPy, or by torch on a device."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array

from fastcomus.backends.machine import measure_free_bytes
from fastcomus.backends.placed import DeviceGraph

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
def join_neighbors_on(indices: torch.Tensor) -> DeviceGraph | None:
    """Do the same on the device where the neighbours are; None where its memory is too short."""
    n, device = len(indices), indices.device
    if indices.numel() * _BYTES_PER_LINK > measure_free_bytes(device):
        return None
    own = torch.arange(n, device=device)[:, None].expand_as(indices)
    directed = (own * n + indices).flatten().sort().values.unique_consecutive()
    del own
    keys = torch.cat([directed, directed % n * n + directed // n]).sort().values
    del directed
    keys, times = keys.unique_consecutive(return_counts=True)
    starts = torch.searchsorted(keys, torch.arange(n + 1, device=device) * n)
    kind = torch.int32 if _has_room_in_32_bits(indices.numel()) else torch.int64
    return DeviceGraph(starts.to(kind), (keys % n).to(kind), times.float() / 2)


@torch.inference_mode()
def find_components_on(graph: DeviceGraph) -> torch.Tensor:
    """Find connected components on the graph's device, (N,) int64; see `Backend.find_components`.

    Every node takes the least number among its neighbours and among those of the node that its number names, until
    nothing changes: in a graph of neighbours after a few turns.
    """
    columns, rows = graph.columns.long(), graph.list_rows()
    numbers = torch.arange(graph.shape[0], device=columns.device)
    while True:
        least = numbers.scatter_reduce(0, rows, numbers[columns], "amin")
        least = least.scatter_reduce(0, numbers, least, "amin")  # the node that gave the number learns of it, too
        least = least[least]
        if torch.equal(least, numbers):
            return torch.unique(numbers, return_inverse=True)[1]
        numbers = least


def _choose_kind(indices: np.ndarray) -> type[np.int32] | type[np.int64]:
    return np.int32 if _has_room_in_32_bits(indices.size) else np.int64


def _has_room_in_32_bits(links: int) -> bool:
    """Whether positions among so many links do, also those of the sum of both directions."""
    return 2 * links < 2**31
