"""Rows and graphs in the host's memory or on a device, so that a clustering moves nothing back and forth.

What an operation of a backend is given on the device, as `Backend.put` gives it, it answers there; what it is given in
NumPy or SciPy, it answers so. `fetch` and `fetch_graph` bring a result to the host.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar, cast

import numpy as np
import torch
from scipy.sparse import csr_array

from fastcomus.backends.machine import move_to_device

Rows: TypeAlias = np.ndarray | torch.Tensor  # rows, neighbours, labels: on the host, or on a device
InKind = TypeVar("InKind", bound=Rows)
_ROWS_AT_ONCE = 65_536


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
        return build_csr_tensor(self.starts, self.columns, self.values.to(dtype))

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


Graph: TypeAlias = csr_array | DeviceGraph


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


def fetch(placed: Rows) -> np.ndarray:
    """Bring rows to the host; what is there stays as it is."""
    return placed if isinstance(placed, np.ndarray) else placed.cpu().numpy()


def fetch_graph(graph: Graph) -> csr_array:
    """Bring a graph to the host; one that is there stays as it is."""
    if not isinstance(graph, DeviceGraph):
        return graph
    parts = (fetch(graph.values), fetch(graph.columns), fetch(graph.starts))
    found = csr_array(parts, shape=graph.shape)
    found.has_sorted_indices = found.has_canonical_format = True
    return found


def to_kind_of(given: InKind, found: torch.Tensor) -> InKind:
    """Return a result where what was given is: on the host as NumPy, or as a tensor."""
    return cast(InKind, found.cpu().numpy() if isinstance(given, np.ndarray) else found)


def build_csr_tensor(starts: torch.Tensor, columns: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Build a square sparse CSR tensor of tensors on one device."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        size = (len(starts) - 1,) * 2
        return torch.sparse_csr_tensor(starts, columns, values, size=size, check_invariants=False)


def _count_up(links: torch.Tensor) -> torch.Tensor:
    """Where the entries of each row begin and end, from how many they are."""
    return torch.cat([links.new_zeros(1), links.cumsum(0, dtype=links.dtype)])
