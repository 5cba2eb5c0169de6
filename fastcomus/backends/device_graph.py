"""Rows and graphs of neighbours on a device, by torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.sparse import csr_array

from fastcomus.backends.joined_neighbors import has_room_in_32_bits
from fastcomus.backends.machine import measure_free_bytes, move_to_device

if TYPE_CHECKING:
    from fastcomus.backends.placed import Rows

_ROWS_AT_ONCE = 65_536
_BYTES_PER_LINK = 96  # keys of both directions in 64 bits, twice while they are sorted


@dataclass(frozen=True)
class DeviceGraph:
    """A sparse symmetric matrix (N, N) on a device, as CSR with ascending columns.

    `starts`: (N + 1,) and `columns`: (L,) integers of one type. `values`: (L,) floating point.
    """

    starts: torch.Tensor
    columns: torch.Tensor
    values: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """N and N."""
        return len(self.starts) - 1, len(self.starts) - 1

    def list_rows(self) -> torch.Tensor:
        """List the row of every entry, (L,) int64."""
        return torch.repeat_interleave(self.starts.diff().long(), output_size=len(self.columns))

    def build_operator(self, dtype: torch.dtype) -> torch.Tensor:
        """Build a sparse CSR tensor with values of `dtype`."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            parts = self.starts, self.columns, self.values.to(dtype)
            return torch.sparse_csr_tensor(*parts, size=self.shape, check_invariants=False)

    def drop_loops(self) -> DeviceGraph:
        """Return it with an empty diagonal."""
        rows = self.list_rows()
        return self._select(rows, rows != self.columns)

    def take_rows(self, chosen: torch.Tensor) -> DeviceGraph:
        """Return the part of some rows, (n,) ascending, to which no other is linked."""
        place = torch.full(self.shape[:1], -1, dtype=self.columns.dtype, device=chosen.device)
        place[chosen] = torch.arange(len(chosen), dtype=place.dtype, device=chosen.device)
        links = self.starts.diff()[chosen]
        mine = place[self.list_rows()] >= 0
        return DeviceGraph(_count_up(links), place[self.columns[mine]], self.values[mine])

    def sum_rows(self) -> torch.Tensor:
        """Compute the sum of every row, (N,) float64, in a fixed order."""
        ones = torch.ones((self.shape[1], 1), dtype=torch.float64, device=self.values.device)
        return (self.build_operator(torch.float64) @ ones)[:, 0]

    def _select(self, rows: torch.Tensor, kept: torch.Tensor) -> DeviceGraph:
        links = torch.bincount(rows[kept], minlength=self.shape[0]).to(self.starts.dtype)
        return replace(self, starts=_count_up(links), columns=self.columns[kept], values=self.values[kept])


class DeviceOperator:
    """A graph's matrix (N, N), which multiplies blocks of vectors on its device; see `filtered_operator.Operator`."""

    def __init__(self, graph: DeviceGraph) -> None:
        self._matrix = graph.build_operator(torch.float32)

    def __matmul__(self, block: torch.Tensor) -> torch.Tensor:
        """Multiply a block (N, b) float32."""
        return self._matrix @ block

    def map_slices(self, function: Callable[[slice], Any], length: int) -> list[Any]:
        """Apply a function to [0, length), which a device divides by itself."""
        return [function(slice(0, length))]


def put_rows(rows: Rows, device: torch.device) -> torch.Tensor:
    """Put rows (N, ...) on a device: some at a time to another one; tensors of the same memory where they are there."""
    if isinstance(rows, torch.Tensor):
        return rows.to(device)
    if device.type == "cpu":
        with warnings.catch_warnings():  # rows of a file are read only, and nothing writes into what is put
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(np.ascontiguousarray(rows))
    there = torch.empty(rows.shape, dtype=torch.from_numpy(rows[:0].copy()).dtype, device=device)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = np.require(rows[start : start + _ROWS_AT_ONCE], requirements=("C", "W"))
        there[start : start + len(part)] = move_to_device(torch.from_numpy(part), device)
    return there


def put_graph(graph: csr_array, device: torch.device) -> DeviceGraph:
    """Copy a graph, whose columns ascend, to a device."""
    return DeviceGraph(*(put_rows(one, device) for one in (graph.indptr, graph.indices, graph.data)))


@torch.inference_mode()
def join_neighbors_on(indices: torch.Tensor) -> DeviceGraph | None:
    """Join rows with their neighbours where these are; None where the device has too little memory for it."""
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
    kind = torch.int32 if has_room_in_32_bits(indices.numel()) else torch.int64
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


def _count_up(links: torch.Tensor) -> torch.Tensor:
    """Where the entries of each row begin and end, from how many they are."""
    return torch.cat([links.new_zeros(1), links.cumsum(0, dtype=links.dtype)])
