"""Rows and graphs in the host's memory or on a device, so that a clustering moves nothing back and forth.

What an operation of a backend is given on the device, as `Backend.put` gives it, it answers there; what it is given in
NumPy or SciPy, it answers so. `fetch` and `fetch_graph` bring a result to the host. Code for both is written once, by
the Python array API standard, of which `get_namespace` gives the functions; what lies on the host needs no torch then,
which takes two seconds to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import numpy as np
from scipy.sparse import csr_array

if TYPE_CHECKING:
    import torch

    from fastcomus.backends.device_graph import DeviceGraph

Rows: TypeAlias = "np.ndarray | torch.Tensor"  # rows, neighbours, labels: on the host, or on a device
Graph: TypeAlias = "csr_array | DeviceGraph"
InKind = TypeVar("InKind", bound=Rows)


def get_namespace(rows: Rows) -> Any:
    """Get the functions of the array API for rows: NumPy, or torch behind the standard's names."""
    if isinstance(rows, np.ndarray):
        return np
    from array_api_compat import torch as namespace

    return namespace


def fetch(placed: Rows) -> np.ndarray:
    """Bring rows to the host; what is there stays as it is."""
    return placed if isinstance(placed, np.ndarray) else placed.cpu().numpy()


def fetch_graph(graph: Graph) -> csr_array:
    """Bring a graph to the host; one that is there stays as it is."""
    if isinstance(graph, csr_array):
        return graph
    parts = (fetch(graph.values), fetch(graph.columns), fetch(graph.starts))
    found = csr_array(parts, shape=graph.shape)
    found.has_sorted_indices = found.has_canonical_format = True
    return found


def put_beside(given: InKind, found: np.ndarray) -> InKind:
    """Put rows of the host where others, `given`, are."""
    if isinstance(given, np.ndarray):
        return cast(InKind, found)
    from fastcomus.backends.device_graph import put_rows

    return cast(InKind, put_rows(found, given.device))


def to_kind_of(given: InKind, found: torch.Tensor) -> InKind:
    """Return a result where what was given is: on the host as NumPy, or as a tensor."""
    return cast(InKind, found.cpu().numpy() if isinstance(given, np.ndarray) else found)


def make_contiguous(rows: InKind) -> InKind:
    """Return rows in the order of C, copied where they are not."""
    return cast(InKind, np.ascontiguousarray(rows) if isinstance(rows, np.ndarray) else rows.contiguous())
